/**
 * The loop that reads: it pulls a batch of messages, judges each by the rules, lets the parts of the peer see it, and hands
 * the batch to the dispatcher. It reads on when the dispatcher may take more.
 */
import { isReadonlyArrayNonEmpty } from "effect/Array"
import * as Effect from "effect/Effect"
import type { EndReason, PeerError } from "../PeerError.ts"
import type { MessageConnection } from "../transport/messageConnection.ts"
import type * as Wire from "../Wire.ts"
import type { Dispatcher } from "./dispatcher.ts"
import * as KeepAlive from "./keepAlive.ts"
import type { Lifecycle } from "./lifecycle.ts"
import { ended, endOfConnection, endOfDropped, judge, type Served } from "./misbehavior.ts"
import type { Pinger } from "./pinger.ts"
import * as RemoteState from "./remoteState.ts"
import type { RequestTracker } from "./requests/tracker.ts"
import type { Observer } from "./telemetry.ts"

/** Bytes that a message costs besides its own: many small messages must not make the bound meaningless. */
const messageOverhead = 256

export interface ReaderOptions<Self> {
  readonly link: MessageConnection
  readonly served: Served
  readonly keepAlive: KeepAlive.KeepAlive
  readonly remote: RemoteState.RemoteState
  /** The tracker of requests, once something was asked. */
  readonly tracker: () => RequestTracker | undefined
  readonly pinger: Pinger
  readonly dispatcher: Dispatcher<Self>
  readonly lifecycle: Lifecycle
  readonly observer: Observer
  readonly now: () => number
  /** Whether a caller waits for an answer of the remote. */
  readonly isAsked: () => boolean
  /** Fails every caller that waits for the remote. */
  readonly failWaiting: (error: PeerError) => void
}

export class Reader<Self> {
  /** Batches that were read. */
  batches = 0
  readonly #options: ReaderOptions<Self>
  /** Whether the dispatcher's loop runs. */
  #dispatches = false

  constructor(options: ReaderOptions<Self>) {
    this.#options = options
  }

  /** `first` is the batch that the handshake left. */
  loop(first: ReadonlyArray<Wire.ParserEvent>): Effect.Effect<never, EndReason> {
    const { dispatcher, isAsked, keepAlive, link, now } = this.#options
    return Effect.gen({ self: this }, function* () {
      let events = first
      while (true) {
        const arrivedAt = now()
        KeepAlive.received(keepAlive, arrivedAt)
        this.batches++
        const waits = this.#receive(events, arrivedAt)
        if (waits !== undefined) yield* waits
        // A remote that floods us without answering is not excused by our being busy.
        if (!dispatcher.canRead()) {
          if (isAsked()) KeepAlive.reading(keepAlive, now())
          yield* dispatcher.mayRead
        }
        KeepAlive.reading(keepAlive, now())
        events = yield* Effect.catch(link.read, (error) => this.#drain(endOfConnection(error)))
      }
    })
  }

  /** Returns an Effect when something has to be waited for, or the peer ends. */
  #receive(events: ReadonlyArray<Wire.ParserEvent>, now: number): Effect.Effect<void, EndReason> | undefined {
    const { dispatcher, keepAlive, lifecycle, link, observer, pinger, remote, served, tracker } = this.#options
    // The clock of the remote stands still until we read again: it is the same for the whole batch.
    const arrivedAt = KeepAlive.remoteTime(keepAlive, now)
    const messages: Array<Wire.Message> = []
    let waits: Array<Effect.Effect<void>> | undefined
    let bytes = 0
    let failure: EndReason | undefined
    observer.count()
    // Part of a message arrived: a large block on a slow line is no stall.
    if (events.length === 0) tracker()?.progress(arrivedAt)
    for (const event of events) {
      if (event._tag === "Dropped") {
        if (observer.dropped !== undefined) (waits ??= []).push(observer.dropped(event.error))
        failure = endOfDropped(event.error, served.bloom)
      } else {
        const { message } = event
        if (observer.log !== undefined) (waits ??= []).push(observer.log("received", message, event.size))
        const verdict = judge(message, served)
        if (verdict === "handle") {
          const hashes = RemoteState.observe(remote, message)
          failure = tracker()?.received(message, hashes, arrivedAt)
          if (failure !== undefined) break
          if (message._tag === "pong") pinger.received(message)
          bytes += event.size + messageOverhead
          messages.push(message)
        } else if (verdict !== "ignore") failure = verdict
      }
      if (failure !== undefined) break
    }
    const unreadable = failure === undefined ? link.failure : undefined
    if (unreadable !== undefined) failure = { _tag: "BadMessage", error: unreadable }

    const hand = (): Effect.Effect<void, EndReason> | undefined => {
      let pongs: Effect.Effect<void> | undefined
      if (isReadonlyArrayNonEmpty(messages)) {
        pongs = dispatcher.add(messages, bytes)
        // Started with the first message: most peers of a crawler never get here.
        if (!this.#dispatches) {
          this.#dispatches = true
          lifecycle.fork(dispatcher.loop)
        }
      }
      return failure === undefined ? pongs : Effect.andThen(pongs ?? Effect.void, this.#drain(failure))
    }
    return waits === undefined
      ? hand()
      : Effect.andThen(
          Effect.all(waits, { discard: true }),
          Effect.suspend(() => hand() ?? Effect.void)
        )
  }

  /** Nothing more is read: callers that wait for answers fail, the messages that arrived are handled, then the peer ends. */
  #drain(reason: EndReason): Effect.Effect<never, EndReason> {
    const { dispatcher, failWaiting, lifecycle } = this.#options
    return Effect.suspend(() => {
      const holds = lifecycle.drain(reason)
      failWaiting(ended(holds))
      return Effect.andThen(dispatcher.idle, Effect.fail(holds))
    })
  }
}
