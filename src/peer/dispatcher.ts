/**
 * The handlers of a peer, and the batches of messages that wait for them. Handlers run on a fiber of their own, so a handler
 * may wait for an answer of the peer: while any caller does, the reader reads on and keeps the messages for later, up to a
 * bound. Otherwise it waits until the batch is handled.
 *
 * A pong goes out after the answers to the messages before the ping, as in Core, because it says that those are all. Only while
 * a handler or a slow subscriber waits for an answer itself pongs must not wait for it, or two peers could wait for each other.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import type { Policy } from "../Policy.ts"
import * as Wire from "../Wire.ts"
import { CurrentHandler, type Lifecycle } from "./lifecycle.ts"
import { malformed } from "./misbehavior.ts"
import type { Pinger } from "./pinger.ts"
import type { Traffic } from "../transport/messageConnection.ts"
import type { EndReason, PeerError } from "../PeerError.ts"
import type { Subscribers } from "./subscribers.ts"
import { WaitList } from "../primitives/waitList.ts"

/** Bytes that are read ahead while a handler runs and a caller waits for an answer; above, the reader waits for the handler. */
const maximumReadAhead = 8 * 1024 * 1024

interface Batch {
  readonly messages: NonEmptyReadonlyArray<Wire.Message>
  readonly bytes: number
  /** Index of the first message that was not handed to its handler. */
  next: number
  /** Whether its pings were answered before their turn. */
  hasPongs: boolean
  /** What the handler before `next` waits for, where the loop has not begun to wait for it. */
  work: Work | undefined
}

type Work = Effect.Effect<unknown, unknown, Scope.Scope>
/** Returns an Effect or a promise, which the dispatcher waits for; it ignores every other value. */
type Handler<Self> = (message: Wire.Message, peer: Self) => unknown

/** The Effect that waits for the result of a handler, or undefined when there is nothing to wait for. */
const toEffect = (returned: unknown): Work | undefined => {
  if (Effect.isEffect(returned)) return returned as Work
  if (!Predicate.isPromiseLike(returned)) return undefined
  // The fiber may be interrupted before it waits: the rejection is then handled here and does not end the process.
  returned.then(undefined, () => {})
  return Effect.tryPromise({ try: () => returned, catch: (error) => error })
}

/** A message type of a caller's own with its handler. */
export interface CustomHandler<Self> {
  readonly command: string
  readonly prepare: (payload: Uint8Array) => ((peer: Self) => unknown) | "malformed"
}

/** The handlers by message type, and the caller's own message types. */
export interface Handled<Self> {
  readonly handlers?: object | undefined
  readonly custom?: ReadonlyArray<CustomHandler<Self>> | undefined
}

/** Provides the caller's services; the `Scope` and the `CurrentHandler` stay those of the fiber that runs the handler. */
const withServices = (work: Work | undefined, services: Context.Context<never>): Work | undefined =>
  work &&
  Effect.contextWith((own: Context.Context<Scope.Scope>) =>
    Effect.provideContext(work, Context.merge(services, Context.pick(Scope.Scope, CurrentHandler)(own)))
  )

export interface DispatcherOptions<Self> {
  readonly handled: Handled<Self>
  readonly malformed: Policy["malformed"]
  readonly traffic: Traffic
  /** The subscribers, once there was one. */
  readonly subscribers: () => Subscribers | undefined
  readonly lifecycle: Lifecycle
  readonly pinger: Pinger
  /** The peer that handlers get. */
  readonly peer: () => Self
  /** Whether a caller waits for an answer of the remote. */
  readonly isAsked: () => boolean
}

export class Dispatcher<Self> {
  readonly #options: DispatcherOptions<Self>
  /** Made with the first message. */
  #handlers: Map<string, Handler<Self>> | undefined
  #custom: Map<string, CustomHandler<Self>> | undefined
  /** The batch that is being handled, then those that wait. */
  readonly #batches: Array<Batch> = []
  #batchesBytes = 0
  /** Waits of handlers for an answer of the remote. */
  #waitingHandlers = 0
  /** Whether the loop waits for subscribers, which may wait for the remote themselves. */
  #publishes = false
  /** The command whose handler runs: a failure is then the handler's. */
  #handling: string | undefined
  /** Whether the loop runs. It starts when something has to be waited for: most handlers return at once. */
  #loops = false
  // Made with the first wait.
  #idle: WaitList | undefined
  #mayRead: WaitList | undefined
  #arrived: WaitList | undefined

  constructor(options: DispatcherOptions<Self>) {
    this.#options = options
  }

  #openHandlers(): Map<string, Handler<Self>> {
    if (this.#handlers === undefined) {
      const { custom, handlers = {} } = this.#options.handled
      this.#handlers = new Map(Object.entries(handlers) as Array<[string, Handler<Self>]>)
      this.#custom = custom && new Map(custom.map((handler) => [handler.command, handler]))
    }
    return this.#handlers
  }

  /** Sets handlers, which run with the services of the fiber that sets them. */
  handle(later: object | undefined): Effect.Effect<void> {
    return Effect.contextWith((services: Context.Context<never>) =>
      Effect.sync(() => {
        for (const [tag, handler] of Object.entries(later ?? {}) as Array<[string, Handler<Self> | undefined]>) {
          if (handler === undefined) this.#openHandlers().delete(tag)
          else
            this.#openHandlers().set(tag, (message, peer) => withServices(toEffect(handler(message, peer)), services))
        }
      })
    )
  }

  /**
   * Handles a batch, at once where nothing has to be waited for, or adds it after those that wait. The result is an Effect where
   * pongs must be waited for (see `Pinger.answer`).
   */
  add(messages: Batch["messages"], bytes: number): Effect.Effect<void> | undefined {
    const batch: Batch = { messages, bytes, next: 0, hasPongs: false, work: undefined }
    const isFirst = this.#batches.push(batch) === 1
    this.#batchesBytes += bytes
    if (isFirst && this.#options.subscribers() === undefined) {
      try {
        batch.work = this.#handle(batch)
      } catch (defect) {
        batch.work = Effect.die(defect)
      }
      if (batch.work === undefined) {
        this.#handled(batch)
        return undefined
      }
    }
    this.#arrived?.wake()
    if (!this.#loops) {
      this.#loops = true
      this.#options.lifecycle.fork(this.#loop)
    }
    return this.#answerPings()
  }

  /** Handles the messages from `next` on. Stops with an Effect when something has to be waited for. */
  #handle(batch: Batch): Work | undefined {
    const { lifecycle, pinger } = this.#options
    while (batch.next < batch.messages.length) {
      // The end may be decided while a handler runs: it is the last one.
      if (lifecycle.isEnding) {
        this.clear()
        return Effect.never
      }
      const message = batch.messages[batch.next++]!
      const pong = message._tag === "ping" && !batch.hasPongs ? pinger.answer(message) : undefined
      if (pong !== undefined)
        return Effect.andThen(
          pong,
          Effect.suspend(() => this.#dispatch(message) ?? Effect.void)
        )
      const work = this.#dispatch(message)
      if (work !== undefined) return work
      this.#handling = undefined
    }
    return undefined
  }

  #handled(batch: Batch): void {
    this.#batches.shift()
    this.#batchesBytes -= batch.bytes
    if (this.isIdle()) this.#idle?.wake()
    this.#letRead()
  }

  /** Forgets the batches that were not handled. */
  clear(): void {
    this.#batches.length = 0
  }

  isIdle(): boolean {
    return this.#batches.length === 0
  }

  /** Waits until every message that arrived is handled. */
  get idle(): Effect.Effect<void> {
    return (this.#idle ??= new WaitList(() => (this.isIdle() ? Effect.void : undefined))).wait
  }

  canRead(): boolean {
    return this.isIdle() || (this.#options.isAsked() && this.#batchesBytes < maximumReadAhead)
  }

  /** Waits until the reader may read on. */
  get mayRead(): Effect.Effect<void> {
    return (this.#mayRead ??= new WaitList(() => (this.canRead() ? Effect.void : undefined))).wait
  }

  #letRead(): void {
    if (this.#mayRead !== undefined && this.canRead()) this.#mayRead.wake()
  }

  /**
   * To be put around the wait of a caller for an answer of the remote: the reader reads on, and while a handler of this peer
   * waits, pings are answered at once.
   */
  asking<A>(wait: Effect.Effect<A, PeerError>): Effect.Effect<A, PeerError> {
    const begin = (): Effect.Effect<A, PeerError> => {
      this.#letRead()
      const pongs = this.#answerPings()
      return pongs === undefined ? wait : Effect.andThen(pongs, wait)
    }
    return Effect.withFiber((fiber) =>
      this.#options.lifecycle.isHandler(fiber)
        ? Effect.acquireUseRelease(
            Effect.sync(() => void this.#waitingHandlers++),
            begin,
            () => Effect.sync(() => void this.#waitingHandlers--)
          )
        : begin()
    )
  }

  /** Answers the pings of all batches if what the loop waits for may wait for the remote; else each is answered in its turn. */
  #answerPings(): Effect.Effect<void> | undefined {
    const { isAsked, pinger } = this.#options
    if (this.#waitingHandlers === 0 && !(this.#publishes && isAsked())) return undefined
    let waits: Array<Effect.Effect<void>> | undefined
    for (let at = this.#batches.findLastIndex(({ hasPongs }) => hasPongs) + 1; at < this.#batches.length; at++) {
      const batch = this.#batches[at]!
      batch.hasPongs = true
      for (let next = batch.next; next < batch.messages.length; next++) {
        const message = batch.messages[next]!
        const pong = message._tag === "ping" ? pinger.answer(message) : undefined
        if (pong !== undefined) (waits ??= []).push(pong)
      }
    }
    return waits && Effect.all(waits, { discard: true })
  }

  /** Handles the batches in their order. */
  get #loop(): Effect.Effect<never, EndReason> {
    const { lifecycle, subscribers } = this.#options
    const arrived = (this.#arrived = new WaitList(() => (this.#batches.length > 0 ? Effect.void : undefined)))
    return Effect.gen({ self: this }, function* () {
      while (true) {
        yield* arrived.wait
        const batch = this.#batches[0]!
        for (let work = batch.work ?? this.#handle(batch); work !== undefined; work = this.#handle(batch)) {
          batch.work = undefined
          yield* work
          this.#handling = undefined
        }
        const publishing = subscribers()?.publish(batch.messages, batch.bytes)
        if (publishing !== undefined) {
          this.#publishes = true
          yield* Effect.andThen(this.#answerPings() ?? Effect.void, publishing)
          this.#publishes = false
        }
        this.#handled(batch)
      }
    }).pipe(
      Effect.catchCause((cause): Effect.Effect<never, EndReason> => {
        // A handler that fails because the connection is over says nothing new.
        if (lifecycle.reason !== undefined) return Effect.fail(lifecycle.reason)
        return this.#handling === undefined
          ? Effect.failCause(cause as Cause.Cause<EndReason>)
          : Effect.fail({ _tag: "HandlerFailed", command: this.#handling, cause })
      }),
      Effect.provideService(Scope.Scope, lifecycle.scope),
      Effect.provideService(CurrentHandler, lifecycle.scope)
    )
  }

  /** Calls the handler of a message; returns an Effect when that takes time, or the peer ends. */
  #dispatch(message: Wire.Message): Work | undefined {
    const { malformed: policy, peer, traffic } = this.#options
    this.#handling = Wire.command(message)
    const handlers = this.#openHandlers()
    const custom = message._tag === "Unknown" ? this.#custom?.get(message.command) : undefined
    if (custom === undefined || message._tag !== "Unknown") {
      return toEffect(handlers.get(message._tag)?.(message, peer()))
    }
    const handler = custom.prepare(message.payload)
    if (handler !== "malformed") return toEffect(handler(peer()))
    traffic.dropped++
    if (policy !== "disconnect") return undefined
    // The remote failed, not a handler.
    this.#handling = undefined
    return Effect.fail(malformed(message.command))
  }
}
