/**
 * The loop that reads: it takes each batch of messages in the callback of the connection, judges each message by the rules, lets
 * the parts of the peer see it, and hands the batch to the dispatcher. It reads on when the dispatcher may take more.
 */
import { isReadonlyArrayNonEmpty } from "effect/Array"
import * as Effect from "effect/Effect"
import type { EndReason } from "../PeerError.ts"
import type { ConnectionError } from "../ConnectionError.ts"
import type { MessageConnection, MessageReceiver } from "../transport/messageConnection.ts"
import type * as Wire from "../Wire.ts"
import type { Dispatcher } from "./dispatcher.ts"
import * as KeepAlive from "./keepAlive.ts"
import type { Lifecycle } from "./lifecycle.ts"
import { endOfConnection, endOfDropped, judge, type Served } from "./misbehavior.ts"
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
  readonly failWaiting: (reason: EndReason) => void
}

export class Reader<Self> implements MessageReceiver {
  /** Batches that were read. */
  batches = 0
  readonly #options: ReaderOptions<Self>
  #resume: ((effect: Effect.Effect<never, EndReason>) => void) | undefined

  constructor(options: ReaderOptions<Self>) {
    this.#options = options
  }

  /**
   * `first` is the batch that the handshake left. The loop's fiber waits while messages are read in callbacks of the connection,
   * and is resumed only when something has to be waited for.
   */
  loop(first: ReadonlyArray<Wire.ParserEvent>): Effect.Effect<never, EndReason> {
    return Effect.suspend(() => this.#take(first) ?? this.#wait)
  }

  get #wait(): Effect.Effect<never, EndReason> {
    return Effect.callback((resume) => {
      this.#resume = resume
      return this.#options.link.receive(this)
    })
  }

  onEvents(events: ReadonlyArray<Wire.ParserEvent>): boolean {
    const next = this.#take(events)
    if (next === undefined) return true
    this.#resume!(next)
    return false
  }

  onEnd(error: ConnectionError): void {
    this.#resume!(this.#drain(endOfConnection(error)))
  }

  onDefect(defect: unknown): void {
    this.#resume!(Effect.die(defect))
  }

  /** Returns an Effect when something has to be waited for before the next batch, or the peer ends. */
  #take(events: ReadonlyArray<Wire.ParserEvent>): Effect.Effect<never, EndReason> | undefined {
    const { dispatcher, keepAlive, now } = this.#options
    const arrivedAt = now()
    KeepAlive.received(keepAlive, arrivedAt)
    this.batches++
    const waits = this.#receive(events, arrivedAt)
    if (waits === undefined && dispatcher.canRead()) {
      KeepAlive.reading(keepAlive, now())
      return undefined
    }
    return Effect.andThen(waits ?? Effect.void, this.#readOn)
  }

  /** Waits until the dispatcher may take more. */
  get #readOn(): Effect.Effect<never, EndReason> {
    const { dispatcher, isAsked, keepAlive, now } = this.#options
    const reading = Effect.suspend(() => {
      KeepAlive.reading(keepAlive, now())
      return this.#wait
    })
    return Effect.suspend(() => {
      if (dispatcher.canRead()) return reading
      // A remote that floods us without answering is not excused by our being busy.
      if (isAsked()) KeepAlive.reading(keepAlive, now())
      return Effect.andThen(dispatcher.mayRead, reading)
    })
  }

  /** Returns an Effect when something has to be waited for, or the peer ends. */
  #receive(events: ReadonlyArray<Wire.ParserEvent>, now: number): Effect.Effect<void, EndReason> | undefined {
    const { dispatcher, keepAlive, link, observer, pinger, remote, served, tracker } = this.#options
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
        if (observer.logs) (waits ??= []).push(observer.dropped(event.error))
        failure = endOfDropped(event.error, served.bloom)
      } else {
        const { message } = event
        if (observer.logs) (waits ??= []).push(observer.log("received", message, event.size))
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
      const pongs = isReadonlyArrayNonEmpty(messages) ? dispatcher.add(messages, bytes) : undefined
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
      failWaiting(holds)
      return Effect.andThen(dispatcher.idle, Effect.fail(holds))
    })
  }
}
