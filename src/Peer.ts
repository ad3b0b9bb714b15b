/**
 * One Bitcoin peer: a connection, its handshake, and the fibers that read, write and keep it alive, in one `Scope`.
 *
 * `make` succeeds when the handshake is done. From then on a reader parses what comes and hands it to handlers and
 * streams, a writer sends what waits, a pinger keeps the connection alive. The first of them to end ends the peer, and
 * so do `disconnect` and the close of the scope; `awaitShutdown` returns why, when all is over.
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Connection, type ConnectionError, type Endpoint } from "./Connection.ts"
import * as Handshake from "./Handshake.ts"
import { rejectCode, versionOf } from "./internal/handshake.ts"
import * as KeepAlive from "./internal/keepAlive.ts"
import { type Link, makeLink, type Outgoing } from "./internal/link.ts"
import { makeOutbox } from "./internal/outbox.ts"
import { type EndReason, PeerError } from "./internal/peerError.ts"
import { snapshot, type Stats } from "./internal/stats.ts"
import * as Network from "./Network.ts"
import { Nonce } from "./Nonce.ts"
import * as Policy from "./Policy.ts"
import * as Wire from "./Wire.ts"

export { describeEnd, type EndReason, PeerError, type PeerReason } from "./internal/peerError.ts"
export { Stats } from "./internal/stats.ts"

/** What is known of a peer since its handshake. */
export interface Info extends Handshake.Negotiated {
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  readonly network: Network.Network
  readonly transport: "v1"
}

/** A connected peer. It ends once, and stays usable after that: what is asked of it then fails with `PeerError`. */
export class Peer extends Context.Service<
  Peer,
  {
    readonly info: Info
    /** A snapshot of the counters, at any time, after the end too. */
    readonly stats: Effect.Effect<Stats>
    /**
     * Queues a message; succeeds when it was let in, suspends while `maximumQueuedBytes` wait. Fails with `NotSendable`
     * when the message is against the rules (nothing is sent, the peer goes on) and with `Ended`. A message that was let
     * in is dropped when the peer ends before it was written.
     */
    readonly send: (message: Wire.Message) => Effect.Effect<void, PeerError>
    /**
     * Queues a message; succeeds when the operating system has taken it, fails with `Ended` when it never will. Interrupting
     * the wait does not take back what was let in.
     */
    readonly sendAndWait: (message: Wire.Message) => Effect.Effect<void, PeerError>
    /**
     * The messages that arrive while the stream runs, in order, those with handlers too. A stream that is not consumed
     * stops the reader, and so the remote: nothing is lost and nothing piles up. Ends when the peer ends. What arrived
     * before it ran is not repeated: to see everything from the first message on, use handlers.
     */
    readonly messages: Stream.Stream<Wire.Message>
    /** Sends a ping and returns the round trip. Fails with `Ended`, or `NotSupported` at versions up to 60000 [31]. */
    readonly ping: Effect.Effect<Duration.Duration, PeerError>
    /**
     * Asks for the end and returns at once; `awaitShutdown` waits for it. The first call decides the reason. May be called
     * from a handler.
     */
    readonly disconnect: (why?: string) => Effect.Effect<void>
    /** Waits until all fibers ended, all finalizers of `scope` ran and the connection is closed; returns the reason. */
    readonly awaitShutdown: Effect.Effect<EndReason>
    /** Ends with the peer: fork into it what shall not outlive the connection. */
    readonly scope: Scope.Scope
  }
>()("effect-bitcoin-peer/Peer") {}

/** The message with that command. */
export type MessageOf<Tag extends Wire.Message["_tag"]> = Extract<Wire.Message, { readonly _tag: Tag }>

/**
 * What to do with a message, by its command; `Unknown` is for those that this package does not know. Handlers run one
 * after the other, in the order the messages came, and the next batch is read when they are done: a slow handler slows
 * the remote down. One that returns nothing costs no more than the call; one that returns an Effect is waited for. A
 * failure or defect ends this peer, with the cause in `HandlerFailed`. Pings are answered without a handler.
 */
export type Handlers<R = never> = {
  readonly [Tag in Wire.Message["_tag"]]?:
    | ((message: MessageOf<Tag>, peer: Peer["Service"]) => Effect.Effect<unknown, unknown, R> | void)
    | undefined
}

/** What the handlers of `H` need from the context; their `Scope` is the peer's own. */
export type HandlerServices<H extends Handlers<unknown>> = {
  [Tag in keyof H]-?: NonNullable<H[Tag]> extends (...args: never) => infer Returned
    ? Returned extends Effect.Effect<unknown, unknown, infer R>
      ? Exclude<R, Scope.Scope>
      : never
    : never
}[keyof H]

export interface Options<H extends Handlers<unknown> = Handlers> extends Handshake.Options {
  readonly handlers?: H | undefined
  /** Between two pings; 2 minutes by default. */
  readonly pingInterval?: Duration.Input | undefined
  /** A ping that is not answered for so long ends the peer; 20 minutes by default. */
  readonly pingTimeout?: Duration.Input | undefined
  /** A peer that sends nothing for so long is ended; 20 minutes by default, as in Bitcoin Core (btcd: 5). */
  readonly idleTimeout?: Duration.Input | undefined
  /** `send` suspends while so many bytes wait to be written; 1 MiB by default. At most one message more is held. */
  readonly maximumQueuedBytes?: number | undefined
  /** Sees each message, or what was wrong with it, when it was parsed, those of the handshake too. Must not throw. */
  readonly onRead?: ((event: Wire.ParserEvent) => void) | undefined
  /** Sees each message when it was handed to the connection, with its size in bytes. Must not throw. */
  readonly onWrite?: ((message: Wire.Message, size: number) => void) | undefined
}

/** Between two pings. */
export const defaultPingInterval: Duration.Duration = Duration.minutes(2)
/** From a ping to the end of a peer that does not answer. */
export const defaultPingTimeout: Duration.Duration = Duration.minutes(20)
/** From the last byte to the end of a silent peer. */
export const defaultIdleTimeout: Duration.Duration = Duration.minutes(20)
/** Bytes that may wait to be written. */
export const defaultMaximumQueuedBytes = 1 << 20

// One write of small frames joined is 20 to 35 times faster than one by one; above some 64 KiB nothing more is won.
const maximumBatch = 256 * 1024
// Pongs need no room in the outbox: else two peers with full outboxes that ping each other would wait for ever. Whoever
// has so many unread ones is a flood, and is read no further until they are written.
const maximumPongs = 1000

const legalOnlyInHandshake = new Set(["wtxidrelay", "sendaddrv2", "sendtxrcncl", "feature"])

const misbehaviour: ReadonlyMap<string, Wire.WireReason["_tag"]> = new Map([
  ...["inv", "getdata", "headers", "getheaders", "getblocks", "addr", "addrv2"].map(
    (command) => [command, "TooMany"] as const
  ),
  ["sendcmpct", "BadValue"]
])

/** Malformed messages that no honest node sends: they end the peer by every policy, as in Core. */
const isMisbehaviour = (error: Wire.WireError): boolean => misbehaviour.get(error.command) === error.reason._tag

const endOfConnection = (error: ConnectionError): EndReason =>
  error.reason._tag === "Closed" ? { _tag: "RemoteClosed" } : { _tag: "ConnectionLost", error }

const ended = (end: EndReason): PeerError => new PeerError({ reason: { _tag: "Ended", end } })

const violation = (command: string, problem: string): Effect.Effect<never, EndReason> =>
  Effect.fail({ _tag: "ProtocolViolation", command, problem })

/** What the race of the loops ended with; an interruption comes from the scope. */
const reasonOf = (exit: Exit.Exit<never, EndReason>): EndReason =>
  Exit.isSuccess(exit) || Exit.hasInterrupts(exit)
    ? { _tag: "ScopeClosed" }
    : Option.getOrElse(Exit.findErrorOption(exit), (): EndReason => ({ _tag: "Defect", cause: exit.cause }))

/** The reject [61] that a policy with rejects sends before it ends a peer for this reason. */
const rejectFor = (end: EndReason): Wire.Message | undefined => {
  switch (end._tag) {
    case "BadMessage":
      return {
        _tag: "reject",
        rejected: end.error.command,
        code: rejectCode.malformed,
        reason: end.error.reason._tag,
        hash: undefined
      }
    case "ProtocolViolation":
      return { _tag: "reject", rejected: end.command, code: rejectCode.duplicate, reason: end.problem, hash: undefined }
    default:
      return undefined
  }
}

/**
 * Shakes hands over a connection and starts the peer, for both directions. The peer and the connection end with the
 * scope. Fails with `HandshakeError`; the connection is closed then, and destroyed when the fiber is interrupted.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Network, Nonce, Peer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const program = Effect.gen(function*() {
 *   const connection = yield* NodeConnection.connect({ host: "127.0.0.1", port: Network.regtest.port })
 *   const peer = yield* Peer.make(connection, {
 *     network: Network.regtest,
 *     handlers: { inv: (message) => Effect.log(`${message.items.length} announced`) }
 *   })
 *   yield* Effect.log(`connected to ${peer.info.userAgent}, ping ${yield* peer.ping}`)
 *   return yield* peer.awaitShutdown
 * }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
 * ```
 */
export const make = Effect.fnUntraced(function* <H extends Handlers<unknown> = Handlers>(
  connection: Connection["Service"],
  options: Options<H> = {}
): Effect.fn.Return<Peer["Service"], Handshake.HandshakeError, Scope.Scope | Nonce | HandlerServices<H>> {
  const clock = yield* Clock.Clock
  const network = options.network ?? Network.mainnet
  const policy = options.policy ?? Policy.standard
  const link = makeLink(connection, {
    magic: network.magic,
    policy,
    clock,
    onRead: options.onRead,
    onWrite: options.onWrite
  })
  // Once the handshake is done nothing may be interrupted until the fibers run: nobody else would close the connection.
  return yield* Effect.uninterruptibleMask((restore) =>
    restore(Handshake.runOnLink(link, options)).pipe(
      Effect.onExit((exit) =>
        Exit.isSuccess(exit) ? Effect.void : Exit.hasInterrupts(exit) ? connection.destroy : connection.close
      ),
      Effect.flatMap(({ negotiated, rest }) => start(link, rest, negotiated, options))
    )
  )
})

const start = Effect.fnUntraced(function* (
  link: Link,
  rest: ReadonlyArray<Wire.ParserEvent>,
  negotiated: Handshake.Negotiated,
  options: Options<Handlers<unknown>>
) {
  const { connection } = link
  const nonces = yield* Nonce
  const clock = yield* Clock.Clock
  const owner = yield* Effect.scope
  const scope = yield* Scope.fork(owner)
  const now = (): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const policy = options.policy ?? Policy.standard
  const pingTimeout = Duration.fromInputUnsafe(options.pingTimeout ?? defaultPingTimeout)
  const idleTimeout = Duration.fromInputUnsafe(options.idleTimeout ?? defaultIdleTimeout)
  const answersPings = negotiated.protocolVersion > versionOf.lastWithoutPong

  const outbox = yield* makeOutbox<PeerError>(options.maximumQueuedBytes ?? defaultMaximumQueuedBytes)
  const stop = Deferred.makeUnsafe<never, EndReason>()
  const shutdown = Deferred.makeUnsafe<EndReason>()
  // One batch a subscriber: a batch is what one pull brought, so that what is held is bounded by bytes, not by messages.
  const subscribers = new Set<Queue.Queue<NonEmptyReadonlyArray<Wire.Message>, Cause.Done>>()
  const pings = new Set<Deferred.Deferred<Duration.Duration, PeerError>>()
  const keepAlive = KeepAlive.make(
    {
      pingInterval: Duration.toMillis(options.pingInterval ?? defaultPingInterval),
      pingTimeout: Duration.toMillis(pingTimeout),
      idleTimeout: Duration.toMillis(idleTimeout)
    },
    now()
  )
  let end: EndReason | undefined
  let pongs = 0

  const encode = (message: Wire.Message): Result.Result<Outgoing, PeerError> =>
    Result.mapError(link.encode(message), (error) => new PeerError({ reason: { _tag: "NotSendable", error } }))

  // ---- reading

  const pong = (nonce: bigint): Effect.Effect<void> | undefined => {
    const encoded = encode({ _tag: "pong", nonce })
    if (pongs >= maximumPongs) return Effect.ignore(outbox.offerAndWait(() => encoded))
    pongs++
    if (Result.isSuccess(encoded)) outbox.force(encoded.success, () => void pongs--)
    return undefined
  }

  /** What a message means to the peer itself; undefined when there is nothing to wait for. */
  const builtIn = (message: Wire.Message): Effect.Effect<void, EndReason> | undefined => {
    switch (message._tag) {
      case "ping":
        return message.nonce !== undefined && answersPings ? pong(message.nonce) : undefined
      case "pong":
        KeepAlive.ponged(keepAlive, message.nonce, now())
        return undefined
      case "version":
      case "verack":
        return policy.duplicate === "disconnect" ? violation(message._tag, "duplicate message") : undefined
      default: {
        const command = Wire.command(message)
        return legalOnlyInHandshake.has(command) ? violation(command, "only allowed before verack") : undefined
      }
    }
  }

  const handlers = new Map(Object.entries(options.handlers ?? {})) as ReadonlyMap<
    string,
    (message: Wire.Message, peer: Peer["Service"]) => Effect.Effect<unknown, unknown, Scope.Scope> | void
  >
  /** The command whose handler runs: a failure of the reader is then the handler's. */
  let handling: string | undefined

  const reader = Effect.gen(function* () {
    let events = rest
    while (true) {
      KeepAlive.received(keepAlive, now())
      const messages: Array<Wire.Message> = []
      for (const event of events) {
        if (event._tag === "Dropped") {
          if (event.error.command === "feature") return yield* violation("feature", "only allowed before verack")
          if (isMisbehaviour(event.error))
            return yield* Effect.fail<EndReason>({ _tag: "BadMessage", error: event.error })
          continue
        }
        const { message } = event
        const waiting = builtIn(message)
        if (waiting !== undefined) yield* waiting
        const handler = handlers.get(message._tag)
        if (handler !== undefined) {
          handling = Wire.command(message)
          const effect = handler(message, peer)
          if (effect !== undefined) yield* effect
          handling = undefined
        }
        messages.push(message)
      }
      if (isReadonlyArrayNonEmpty(messages)) {
        for (const queue of subscribers) yield* Queue.offer(queue, messages)
      }
      const failure = link.failure()
      if (failure !== undefined) return yield* Effect.fail<EndReason>({ _tag: "BadMessage", error: failure })
      KeepAlive.reading(keepAlive, now())
      events = yield* Effect.mapError(link.read, endOfConnection)
    }
  }).pipe(
    Effect.catchCause((cause) =>
      handling === undefined
        ? Effect.failCause(cause as Cause.Cause<EndReason>)
        : Effect.fail<EndReason>({ _tag: "HandlerFailed", command: handling, cause })
    ),
    Effect.provideService(Scope.Scope, scope)
  )

  // ---- writing

  const writer = Effect.gen(function* () {
    while (true) {
      const entries = yield* Queue.takeAll(outbox.queue)
      for (let from = 0; from < entries.length;) {
        let to = from
        let size = 0
        do size += entries[to++]!.outgoing.frame.length
        while (to < entries.length && size + entries[to]!.outgoing.frame.length <= maximumBatch)
        const batch = entries.slice(from, to)
        link.writeFrames(batch.map(({ outgoing }) => outgoing))
        yield* Effect.mapError(connection.drained, endOfConnection)
        outbox.release(batch)
        from = to
      }
    }
  })

  // ---- keeping alive

  const pinger = Effect.gen(function* () {
    while (true) {
      const action = KeepAlive.next(keepAlive, now())
      switch (action._tag) {
        case "Wait":
          yield* Effect.sleep(Math.ceil(action.milliseconds))
          break
        case "Ping": {
          const nonce = answersPings ? yield* nonces.unremembered : undefined
          const encoded = encode({ _tag: "ping", nonce })
          if (Result.isSuccess(encoded)) {
            if (nonce !== undefined) KeepAlive.pinged(keepAlive, nonce, now())
            outbox.force(encoded.success)
          }
          break
        }
        case "PingTimeout":
          return yield* Effect.fail<EndReason>({ _tag: "PingTimeout", after: pingTimeout })
        case "IdleTimeout":
          return yield* Effect.fail<EndReason>({ _tag: "IdleTimeout", after: idleTimeout })
      }
    }
  })

  const ping = Effect.gen(function* () {
    if (!answersPings) {
      const { protocolVersion } = negotiated
      return yield* new PeerError({ reason: { _tag: "NotSupported", what: "ping", protocolVersion } })
    }
    const nonce = yield* nonces.unremembered
    const answer = Deferred.makeUnsafe<Duration.Duration, PeerError>()
    yield* outbox.offer(() => {
      KeepAlive.pinged(keepAlive, nonce, now(), (roundTrip) =>
        Deferred.doneUnsafe(answer, Effect.succeed(Duration.millis(roundTrip)))
      )
      pings.add(answer)
      return encode({ _tag: "ping", nonce })
    })
    return yield* Effect.ensuring(
      Deferred.await(answer),
      Effect.sync(() => {
        pings.delete(answer)
        keepAlive.outstanding.delete(nonce)
      })
    )
  })

  // ---- the end

  const teardown = (exit: Exit.Exit<never, EndReason>): Effect.Effect<void> =>
    Effect.suspend(() => {
      const reason = reasonOf(exit)
      end = reason
      const error = ended(reason)
      outbox.close(error)
      for (const answer of pings) Deferred.doneUnsafe(answer, Effect.fail(error))
      for (const queue of subscribers) Queue.endUnsafe(queue)
      const reject =
        policy.sendReject && negotiated.remoteProtocolVersion >= versionOf.reject ? rejectFor(reason) : undefined
      if (reject !== undefined) link.write([reject])
      const wait = reason._tag === "PingTimeout" || reason._tag === "IdleTimeout"
      return Effect.andThen(wait ? connection.destroy : connection.close, Scope.close(scope, Exit.void))
    }).pipe(Effect.ensuring(Effect.suspend(() => Deferred.succeed(shutdown, end!))))

  const peer: Peer["Service"] = {
    info: {
      ...negotiated,
      localAddress: connection.localAddress,
      remoteAddress: connection.remoteAddress,
      network: options.network ?? Network.mainnet,
      transport: "v1"
    },
    stats: Effect.sync(() => snapshot(link.traffic, keepAlive, { messages: outbox.length(), bytes: outbox.bytes() })),
    send: (message) => outbox.offer(() => encode(message)),
    sendAndWait: (message) => outbox.offerAndWait(() => encode(message)),
    messages: Stream.unwrap(
      Effect.gen(function* () {
        const queue = yield* Effect.acquireRelease(
          Queue.bounded<NonEmptyReadonlyArray<Wire.Message>, Cause.Done>(1),
          (queue) =>
            Effect.sync(() => {
              subscribers.delete(queue)
              Queue.shutdownUnsafe(queue)
            })
        )
        if (end === undefined) subscribers.add(queue)
        else Queue.endUnsafe(queue)
        return Stream.flattenArray(Stream.fromQueue(queue))
      })
    ),
    ping,
    disconnect: (why = "disconnect was called") =>
      Effect.sync(() => void Deferred.doneUnsafe(stop, Effect.fail<EndReason>({ _tag: "Requested", why }))),
    // A finalizer of `scope` runs in the fiber that ends the peer: it must not wait for itself.
    awaitShutdown: Effect.withFiber((fiber) =>
      fiber === supervisor && end !== undefined ? Effect.succeed(end) : Deferred.await(shutdown)
    ),
    scope
  }

  let supervisor: Fiber.Fiber<never, EndReason> | undefined
  // Nothing forked into a closed scope would ever run, not even its end.
  if (owner.state._tag === "Closed") yield* teardown(Exit.interrupt())
  else {
    supervisor = yield* Effect.raceAllFirst([reader, writer, pinger, Deferred.await(stop)]).pipe(
      Effect.onExit(teardown),
      Effect.forkIn(owner, { startImmediately: true })
    )
  }
  return peer
})

/**
 * The peer of the `Connection` in the context, as a service: it lives as long as the layer. Fails with `HandshakeError`.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Network, Nonce, Peer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * const PeerLive = Peer.layer({ network: Network.regtest }).pipe(
 *   Layer.provide(NodeConnection.layerConnect({ host: "127.0.0.1", port: Network.regtest.port })),
 *   Layer.provide(Nonce.layer)
 * )
 *
 * export const program = Effect.gen(function*() {
 *   const peer = yield* Peer.Peer
 *   return yield* peer.ping
 * }).pipe(Effect.provide(PeerLive))
 * ```
 */
export const layer = <H extends Handlers<unknown> = Handlers>(
  options: Options<H> = {}
): Layer.Layer<Peer, Handshake.HandshakeError, Connection | Nonce | Exclude<HandlerServices<H>, Scope.Scope>> =>
  Layer.effect(
    Peer,
    Effect.flatMap(Connection, (connection) => make(connection, options))
  )

const optional = <A>(setting: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(setting, undefined)

/**
 * The settings that an operator gives, as configuration; each is optional. In the environment they are called
 * BTCPEER_NETWORK (mainnet, testnet3, testnet4, signet, regtest, simnet), BTCPEER_POLICY (standard, core, btcd),
 * BTCPEER_USER_AGENT, BTCPEER_RELAY (true, false), BTCPEER_MINIMUM_PROTOCOL_VERSION, BTCPEER_MAXIMUM_QUEUED_BYTES, and,
 * as durations like "2 minutes", BTCPEER_HANDSHAKE_TIMEOUT, BTCPEER_PING_INTERVAL, BTCPEER_PING_TIMEOUT and
 * BTCPEER_IDLE_TIMEOUT.
 */
export const config: Config.Config<Options> = Config.all({
  network: optional(Config.map(Config.Literals(Network.names, "BTCPEER_NETWORK"), Network.fromName)),
  policy: optional(Config.map(Config.Literals(Policy.names, "BTCPEER_POLICY"), Policy.fromName)),
  userAgent: optional(Config.String("BTCPEER_USER_AGENT")),
  relay: optional(Config.Boolean("BTCPEER_RELAY")),
  minimumProtocolVersion: optional(Config.Int("BTCPEER_MINIMUM_PROTOCOL_VERSION")),
  maximumQueuedBytes: optional(Config.Int("BTCPEER_MAXIMUM_QUEUED_BYTES")),
  handshakeTimeout: optional(Config.Duration("BTCPEER_HANDSHAKE_TIMEOUT")),
  pingInterval: optional(Config.Duration("BTCPEER_PING_INTERVAL")),
  pingTimeout: optional(Config.Duration("BTCPEER_PING_TIMEOUT")),
  idleTimeout: optional(Config.Duration("BTCPEER_IDLE_TIMEOUT"))
})

/**
 * `layer` whose settings come from configuration: by default `config`, the BTCPEER_ variables of the environment. What is
 * configured goes before what is in `options`. Fails with `HandshakeError`, and with `ConfigError` for a bad value.
 *
 * @example
 * ```ts
 * import { ConfigProvider, Layer } from "effect"
 * import { Nonce, Peer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const PeerLive = Peer.layerConfig({ relay: false }).pipe(
 *   Layer.provide(NodeConnection.layerConnect({ host: "127.0.0.1", port: 18444 })),
 *   Layer.provide(Nonce.layer),
 *   Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ BTCPEER_NETWORK: "regtest" })))
 * )
 * ```
 */
export const layerConfig = <H extends Handlers<unknown> = Handlers>(
  options: Options<H> = {},
  settings: Config.Config<Options> = config
): Layer.Layer<
  Peer,
  Handshake.HandshakeError | Config.ConfigError,
  Connection | Nonce | Exclude<HandlerServices<H>, Scope.Scope>
> =>
  Layer.unwrap(
    Effect.map(settings, (configured) => {
      const given = Object.entries(configured).filter(([, value]) => value !== undefined)
      return layer({ ...options, ...Object.fromEntries(given) })
    })
  )

/**
 * Accepts connections for ever and makes an inbound peer of each, every one in a scope of its own that ends with the peer.
 * `onPeer` runs beside the peer's handlers and is interrupted when the peer ends; the peer stays when it returns. A peer
 * that fails, in its handshake or in `onPeer`, ends alone and is logged at debug level. Fails when nothing can be accepted
 * any more. Interrupting it ends all its peers.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Network, Nonce, Peer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const program = Effect.gen(function*() {
 *   const listener = yield* NodeConnection.listen({ port: Network.regtest.port })
 *   yield* Peer.serve(listener, { network: Network.regtest }, (peer) =>
 *     Effect.log(`${peer.info.userAgent} came from ${peer.info.remoteAddress.host}`))
 * }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
 * ```
 */
export const serve = Effect.fnUntraced(function* <H extends Handlers<unknown> = Handlers, E = never, R = never>(
  listener: { readonly accept: Effect.Effect<Connection["Service"], ConnectionError, Scope.Scope> },
  options: Options<H> = {},
  onPeer: (peer: Peer["Service"]) => Effect.Effect<unknown, E, R> = () => Effect.void
): Effect.fn.Return<never, ConnectionError, Nonce | HandlerServices<H> | Exclude<R, Scope.Scope>> {
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const fibers = yield* FiberSet.make()
      while (true) {
        const scope = yield* Scope.make()
        // Between accepting and forking nothing may be interrupted, else nobody would own the connection.
        yield* Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            const connection = yield* Scope.provide(restore(listener.accept), scope)
            const live = make(connection, { ...options, direction: "inbound" }).pipe(
              Effect.flatMap((peer) =>
                Effect.raceFirst(Effect.andThen(onPeer(peer), Effect.never), peer.awaitShutdown)
              ),
              Scope.provide(scope),
              Effect.onExit((exit) => Scope.close(scope, exit)),
              Effect.ignoreCause({ log: "Debug", message: "inbound peer ended" })
            )
            yield* FiberSet.run(fibers, restore(live))
          })
        ).pipe(Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause))))
      }
    })
  )
})
