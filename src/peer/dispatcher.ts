/**
 * The handlers of a peer, and the batches of messages that wait for them. Handlers run on a fiber of their own, so a handler
 * may wait for an answer of the peer: while any caller does, the reader reads on and keeps the messages for later, up to a
 * bound. Otherwise it waits until the batch is handled.
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
import type { EndReason } from "../PeerError.ts"
import type { Subscribers } from "./subscribers.ts"
import { WaitList } from "../primitives/waitList.ts"

/** Bytes that are read ahead while a handler runs and a caller waits for an answer; above, the reader waits for the handler. */
const maximumReadAhead = 8 * 1024 * 1024

interface Batch {
  readonly messages: NonEmptyReadonlyArray<Wire.Message>
  readonly bytes: number
  /** Whether the pings in it are answered in their turn; otherwise the reader has answered them. */
  readonly pongs: boolean
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
  readonly #handlers: Map<string, Handler<Self>>
  readonly #custom: Map<string, CustomHandler<Self>> | undefined
  readonly #batches: Array<Batch> = []
  #batchesBytes = 0
  /** Whether a batch is being handled. */
  #handles = false
  /** The command whose handler runs: a failure is then the handler's. */
  #handling: string | undefined
  readonly #idle = new WaitList(() => (this.isIdle() ? Effect.void : undefined))
  readonly #mayRead = new WaitList(() => (this.canRead() ? Effect.void : undefined))
  readonly #arrived = new WaitList(() => (this.#batches.length > 0 ? Effect.void : undefined))

  constructor(options: DispatcherOptions<Self>) {
    const { custom, handlers = {} } = options.handled
    this.#options = options
    this.#handlers = new Map(Object.entries(handlers) as Array<[string, Handler<Self>]>)
    this.#custom = custom && new Map(custom.map((handler) => [handler.command, handler]))
  }

  /** Sets handlers, which run with the services of the fiber that sets them. */
  handle(later: object | undefined): Effect.Effect<void> {
    return Effect.contextWith((services: Context.Context<never>) =>
      Effect.sync(() => {
        for (const [tag, handler] of Object.entries(later ?? {}) as Array<[string, Handler<Self> | undefined]>) {
          if (handler === undefined) this.#handlers.delete(tag)
          else this.#handlers.set(tag, (message, peer) => withServices(toEffect(handler(message, peer)), services))
        }
      })
    )
  }

  /** Adds a batch after those that wait. */
  add(batch: Batch): void {
    this.#batches.push(batch)
    this.#batchesBytes += batch.bytes
    this.#arrived.wake()
  }

  /** Forgets the batches that were not handled. */
  clear(): void {
    this.#batches.length = 0
  }

  isIdle(): boolean {
    return this.#batches.length === 0 && !this.#handles
  }

  /** Waits until every message that arrived is handled. */
  get idle(): Effect.Effect<void> {
    return this.#idle.wait
  }

  canRead(): boolean {
    return this.isIdle() || (this.#options.isAsked() && this.#batchesBytes < maximumReadAhead)
  }

  /** Waits until the reader may read on. */
  get mayRead(): Effect.Effect<void> {
    return this.#mayRead.wait
  }

  /** To be called when a caller begins to wait for an answer. */
  letRead(): void {
    if (this.canRead()) this.#mayRead.wake()
  }

  /** Handles the batches in their order. */
  get loop(): Effect.Effect<never, EndReason> {
    const { lifecycle, pinger, subscribers } = this.#options
    return Effect.gen({ self: this }, function* () {
      while (true) {
        yield* this.#arrived.wait
        const { bytes, messages, pongs } = this.#batches.shift()!
        this.#handles = true
        for (const message of messages) {
          // The end may be decided while a handler runs: it is the last one.
          if (lifecycle.isEnding) return yield* Effect.never
          if (pongs && message._tag === "ping") {
            const pong = pinger.answer(message)
            if (pong !== undefined) yield* pong
          }
          const work = this.#dispatch(message)
          if (work !== undefined) yield* work
          this.#handling = undefined
        }
        const publishing = subscribers()?.publish(messages, bytes)
        if (publishing !== undefined) yield* publishing
        this.#handles = false
        this.#batchesBytes -= bytes
        if (this.isIdle()) this.#idle.wake()
        this.letRead()
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
    const custom = message._tag === "Unknown" ? this.#custom?.get(message.command) : undefined
    if (custom === undefined || message._tag !== "Unknown") {
      return toEffect(this.#handlers.get(message._tag)?.(message, peer()))
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
