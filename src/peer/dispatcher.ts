/**
 * The handlers of a peer, and the batches of messages that wait for them. Handlers run on a fiber of their own, so that one
 * may wait for an answer of the peer: while somebody does, the reader reads on and keeps what comes for later, up to a
 * bound. Otherwise it waits until the batch is done.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import type { Policy } from "../Policy.ts"
import * as Wire from "../Wire.ts"
import { isOwnMalformed, malformed } from "./misbehavior.ts"
import type { Traffic } from "../transport/messageConnection.ts"
import type { EndReason } from "../PeerError.ts"
import type { Subscribers } from "./subscribers.ts"
import { WaitList } from "../primitives/waitList.ts"

/** What is read and kept while a handler runs and somebody waits for an answer; above, the reader waits for the handler. */
const maximumReadAhead = 8 * 1024 * 1024

interface Batch {
  readonly messages: NonEmptyReadonlyArray<Wire.Message>
  readonly bytes: number
  /** Whether its pings are answered in their turn; otherwise they were when they arrived. */
  readonly pongs: boolean
}

/** Whose handler a fiber runs, or was forked by: the scope of its peer. */
export const HandlerOf = Context.Reference<Scope.Scope | undefined>("effect-bitcoin-peer/internal/HandlerOf", {
  defaultValue: () => undefined
})

type Handled_ = Effect.Effect<unknown, unknown, Scope.Scope> | undefined
/** Returns an Effect or a promise, which the dispatcher waits for; it ignores every other value. */
type Handler<Self> = (message: Wire.Message, peer: Self) => unknown

/** The Effect that waits for what a handler returned, or undefined when there is nothing to wait for. */
const toEffect = (returned: unknown): Handled_ => {
  if (Effect.isEffect(returned)) return returned as Effect.Effect<unknown, unknown, Scope.Scope>
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

/** What says whose handler it is stays: that is of the fiber that runs it. */
const withServices = (effect: Handled_, context: Context.Context<never>): Handled_ =>
  effect === undefined
    ? undefined
    : Effect.contextWith((own: Context.Context<Scope.Scope>) =>
        Effect.provideContext(effect, Context.merge(context, Context.pick(Scope.Scope, HandlerOf)(own)))
      )

export interface HandlingOptions<Self> {
  readonly options: Handled<Self>
  readonly policy: Policy
  readonly traffic: Traffic
  readonly subscribers: { readonly made: Subscribers | undefined }
  readonly scope: Scope.Scope
  readonly peer: () => Self
  /** Answers a ping; an Effect when so many answers wait that this one has to be waited for. */
  readonly pong: (ping: Wire.Ping) => Effect.Effect<void> | undefined
  /** Whether somebody waits for an answer of the remote. */
  readonly isAsked: () => boolean
  readonly isEnded: () => boolean
  /** Why nothing more comes, while what came is still being handled. */
  readonly over: () => EndReason | undefined
}

export const makeHandling = <Self>({
  isAsked,
  isEnded,
  options,
  over,
  peer,
  policy,
  pong,
  scope,
  subscribers,
  traffic
}: HandlingOptions<Self>) => {
  const handlers = new Map(Object.entries(options.handlers ?? {}) as Array<[string, Handler<Self>]>)
  /** Handlers that come later bring the services of who set them. */
  const handle = (later: object): Effect.Effect<void> =>
    Effect.contextWith((context: Context.Context<never>) =>
      Effect.sync(() => {
        for (const [tag, handler] of Object.entries(later) as Array<[string, Handler<Self> | undefined]>) {
          if (handler === undefined) handlers.delete(tag)
          else handlers.set(tag, (message, peer) => withServices(toEffect(handler(message, peer)), context))
        }
      })
    )
  const custom = options.custom && new Map(options.custom.map((handler) => [handler.command, handler]))

  const batches: Array<Batch> = []
  let batchesBytes = 0
  let handlersRun = false
  /** The command whose handler runs: a failure is then the handler's. */
  let handling: string | undefined
  const isIdle = (): boolean => batches.length === 0 && !handlersRun
  const idle = new WaitList(() => (isIdle() ? Effect.void : undefined))
  const canRead = (): boolean => isIdle() || (isAsked() && batchesBytes < maximumReadAhead)
  const mayRead = new WaitList(() => (canRead() ? Effect.void : undefined))
  const letRead = (): void => {
    if (canRead()) mayRead.wake()
  }
  const arrived = new WaitList(() => (batches.length > 0 ? Effect.void : undefined))

  /** Runs the handler of a message; an Effect when that takes time. */
  const handleOne = (message: Wire.Message): Handled_ => {
    const own = message._tag === "Unknown" ? custom?.get(message.command)?.prepare(message.payload) : undefined
    if (own === "malformed") {
      traffic.dropped++
      return policy.malformed === "disconnect"
        ? malformed(message._tag === "Unknown" ? message.command : "")
        : undefined
    }
    return toEffect(own === undefined ? handlers.get(message._tag)?.(message, peer()) : own(peer()))
  }

  const loop = Effect.gen(function* () {
    while (true) {
      yield* arrived.wait
      const { bytes, messages, pongs } = batches.shift()!
      handlersRun = true
      for (const message of messages) {
        // The end may be decided while a handler ran: it is the last one.
        if (isEnded()) return yield* Effect.never
        if (pongs && message._tag === "ping") {
          const waiting = pong(message)
          if (waiting !== undefined) yield* waiting
        }
        handling = Wire.command(message)
        const effect = handleOne(message)
        if (effect !== undefined) yield* effect
        handling = undefined
      }
      const publishing = subscribers.made?.publish(messages, bytes)
      if (publishing !== undefined) yield* publishing
      handlersRun = false
      batchesBytes -= bytes
      if (isIdle()) idle.wake()
      letRead()
    }
  }).pipe(
    Effect.catchCause((cause): Effect.Effect<never, EndReason> => {
      // Who fails because the connection is over says nothing new.
      const reason = over()
      if (reason !== undefined) return Effect.fail(reason)
      const command = handling
      const error = Option.getOrUndefined(Cause.findErrorOption(cause))
      if (command === undefined || isOwnMalformed(error)) return Effect.failCause(cause as Cause.Cause<EndReason>)
      return Effect.fail({ _tag: "HandlerFailed", command, cause })
    }),
    Effect.provideService(Scope.Scope, scope),
    Effect.provideService(HandlerOf, scope)
  )

  return {
    handle,
    loop,
    /** What is to be handled next, behind what waits. */
    add: (batch: Batch): void => {
      batches.push(batch)
      batchesBytes += batch.bytes
      arrived.wake()
    },
    /** Forgets what was not handled. */
    clear: (): void => {
      batches.length = 0
    },
    isIdle,
    /** Waits until all that came is handled. */
    idle: idle.wait,
    canRead,
    /** Waits until the reader may read on. */
    mayRead: mayRead.wait,
    letRead
  }
}
