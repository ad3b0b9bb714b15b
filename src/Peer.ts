/**
 * One Bitcoin peer: a connection, its handshake, and the fibers that read, write and keep it alive, in one `Scope`.
 *
 * `make` succeeds when the handshake is done. From then on a reader parses the bytes of the remote and passes messages to handlers
 * and streams, a writer sends the messages that wait, a pinger keeps the connection alive, and announcements trickle. The first of
 * these fibers to end ends the peer; so do `disconnect` and the close of the scope. `awaitShutdown` then returns the reason.
 */
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Connection } from "./Connection.ts"
import * as Handshake from "./Handshake.ts"
import type { Announced, Announcement } from "./Inventory.ts"
import type { CompactFilterHeaderRange, CompactFilterRange } from "./peer/requests/compactFilters.ts"
import { MessageConnection } from "./transport/messageConnection.ts"
import type { EndReason, OwnerReason, PeerError } from "./PeerError.ts"
import type { AskOptions, DataResult, TransactionOptions } from "./peer/requests/requests.ts"
import type * as Dispatcher from "./peer/dispatcher.ts"
import { badOption, type SessionOptions } from "./peer/options.ts"
import { type Session, startSession } from "./peer/session.ts"
import { runHandshake } from "./handshake/run.ts"
import type { Info, Stats } from "./peer/stats.ts"
import type { SubscribeOptions } from "./peer/subscribers.ts"
import * as Network from "./Network.ts"
import { Nonce } from "./Nonce.ts"
import * as Policy from "./Policy.ts"
import * as Transport from "./Transport.ts"
import * as Wire from "./Wire.ts"

export type { CompactFilterHeaderRange, CompactFilterRange } from "./peer/requests/compactFilters.ts"
export {
  assess,
  type Assessment,
  describeEnd,
  type EndReason,
  isPeerError,
  type OwnerReason,
  PeerError,
  type PeerReason
} from "./PeerError.ts"
export type { AskOptions, DataResult, TransactionOptions } from "./peer/requests/requests.ts"
export {
  defaultDataStallTimeout,
  defaultHeadersStallTimeout,
  defaultIdleTimeout,
  defaultMaximumQueuedBytes,
  defaultPingInterval,
  defaultPingTimeout
} from "./peer/options.ts"
export { type Info, Stats } from "./peer/stats.ts"
export type { SubscribeOptions } from "./peer/subscribers.ts"

/**
 * The property that marks a `Peer`.
 *
 * @category models
 * @since 0.1.0
 */
export const TypeId = "~effect-bitcoin-peer/Peer"

/**
 * A connected peer. It ends once. After that every request to it fails with `PeerError`, and `stats` and `info` stay available.
 *
 * @category models
 * @since 0.1.0
 */
export interface Peer {
  readonly [TypeId]: typeof TypeId
  readonly info: Info
  /** A snapshot of the statistics, at any time; after the end too. */
  readonly stats: Effect.Effect<Stats>
  /**
   * Queues a message. Succeeds when it was accepted, and suspends while `maximumQueuedBytes` wait to be written. An accepted
   * message is dropped when the peer ends before it was written. Fails with `NotSendable` when the message is invalid (nothing is
   * sent, and the peer stays connected), and with `Ended`.
   */
  readonly send: (message: Wire.Message) => Effect.Effect<void, PeerError>
  /**
   * Queues a message. Succeeds when the operating system has taken it; fails with `Ended` when the peer ends before. Interrupting
   * the wait does not withdraw an accepted message.
   */
  readonly sendAndWait: (message: Wire.Message) => Effect.Effect<void, PeerError>
  /**
   * Sets handlers, from the next message on. A handler replaces the one of the same type; `undefined` removes it. The handlers use
   * the services of the fiber that sets them, and the peer's own `Scope`.
   */
  readonly handle: <H extends Handlers<unknown>>(handlers: H) => Effect.Effect<void, never, HandlerServices<H>>
  /**
   * The messages that arrive while the stream runs, in order, also those that have a handler. A stream that is not consumed stops
   * the reader and so the remote: nothing is lost, and memory stays bounded. It ends with the peer. Messages that arrived before
   * it ran are not repeated: use handlers to see all from the first one on.
   */
  readonly messages: Stream.Stream<Wire.Message>
  /**
   * Like `messages`, with a bound, and a choice for when the stream is not consumed fast enough. Fails with `Overflow` if the
   * choice is "fail".
   */
  readonly subscribe: (options?: SubscribeOptions) => Stream.Stream<Wire.Message, PeerError>
  /**
   * Announces transactions and blocks by their hashes. Returns what became of each, in their order: `"queued"`, `"known"`,
   * `"belowFeeFilter"` or `"notWanted"`, see `Inventory.Announced`.
   *
   * A block goes out at once, in an inv of its own. Transactions wait for the next trickle, are checked again then (still unknown, not
   * below the feefilter) and go out in batches of at most 1,000. Give both hashes of a transaction, and the agreed one is announced:
   * the wtxid if `info.wtxidRelay`, else the txid. The remote wants none if `info.relay` is false and it has not loaded or cleared a
   * filter (BIP37) since; the caller has to select the transactions that match such a filter. Fails with `NotSendable` for a hash that
   * is not 32 bytes, and announces nothing then; fails with `Ended`.
   */
  readonly announce: (announcements: ReadonlyArray<Announcement>) => Effect.Effect<ReadonlyArray<Announced>, PeerError>
  /**
   * Announces new blocks at once, the tip last. At most 8 headers, which must connect, are sent as they are if the remote asked for
   * headers (BIP130); else the hash of the tip is sent. Nothing is sent when the remote knows the tip.
   */
  readonly announceBlocks: (headers: ReadonlyArray<Wire.BlockHeader>) => Effect.Effect<void, PeerError>
  /**
   * Sends addresses, as `addrv2` if the remote asked for it (BIP155), else as `addr`, which holds IPv4 and IPv6 only. Sends a
   * random choice of more than 1,000. Returns the addresses that were sent; sends nothing for none.
   */
  readonly sendAddresses: (
    addresses: ReadonlyArray<Wire.AddressV2>
  ) => Effect.Effect<ReadonlyArray<Wire.AddressV2>, PeerError>
  /**
   * Sends a `getheaders` for the headers after the first hash of the locator that the remote knows: up to 2,000, or to the stop
   * hash. Returns false, and sends nothing, for a repeat of the last one (same first hash, same stop hash).
   */
  readonly sendGetHeaders: (locator: Wire.List<Uint8Array>, stopHash?: Uint8Array) => Effect.Effect<boolean, PeerError>
  /** The same with a `getblocks`, which is answered by an inv of up to 500 blocks. */
  readonly sendGetBlocks: (locator: Wire.List<Uint8Array>, stopHash?: Uint8Array) => Effect.Effect<boolean, PeerError>
  /** Sends a reject (BIP61) if the policy has rejects and the remote's version is 70002 or more; else returns false. */
  readonly sendReject: (reject: Omit<Wire.Reject, "_tag">) => Effect.Effect<boolean, PeerError>
  /**
   * Asks for the headers after the first hash of the locator that the peer knows: up to 2,000, or to the stop hash. An empty list
   * means that the peer says it has no more. Callers with the same locator and stop hash share one request.
   *
   * Headers connect to the locator if the first one follows a hash in it, or follows the genesis block: a peer that knows none of the
   * hashes begins there. An empty locator asks for the header of the stop hash alone.
   *
   * A ping follows the request. If its pong comes first, this fails: with `DoesNotConnect` if headers came that do not connect to the
   * locator, else with `NoAnswer` (bcoin says nothing when it has no more). Fails with `TimedOut` (90 s by default), `NotSendable`
   * and `Ended`.
   */
  readonly getHeaders: (
    locator: Wire.List<Uint8Array>,
    stopHash?: Uint8Array,
    options?: AskOptions
  ) => Effect.Effect<Wire.List<Wire.BlockHeader>, PeerError>
  /**
   * The same for the hashes of up to 500 blocks, as inventory. No node says that it has no more: this fails with `NoAnswer` then. A
   * single block may be an announcement, so it is returned only when the pong comes. Fails with `TimedOut` (30 s by default),
   * `NotSendable` and `Ended`.
   */
  readonly getBlocks: (
    locator: Wire.List<Uint8Array>,
    stopHash?: Uint8Array,
    options?: AskOptions
  ) => Effect.Effect<Wire.List<Wire.InventoryItem>, PeerError>
  /**
   * Asks for transactions and blocks, in batches of 1,000. Says of each item what became of it, in their order: `Found` with the
   * message, `NotFound`, or `TimedOut` (30 s for all together by default). Callers that want the same item share one request.
   *
   * Bitcoin Core says nothing about blocks that it does not have, so a ping follows the request for one: what did not come before
   * the pong is `NotFound`. Blocks are checked as by `getBlock`; without `InventoryType.witnessFlag` they come without witnesses. A
   * filtered block (BIP37) is found with its transactions that came after it. Fails with `NotSendable`
   * and `Ended`.
   */
  readonly getData: (
    items: Wire.List<Wire.InventoryItem>,
    options?: AskOptions
  ) => Effect.Effect<ReadonlyArray<DataResult>, PeerError>
  /**
   * Asks for a block by its hash, 32 bytes in wire order, and returns it with its witnesses. It was checked: its transactions and
   * witnesses are those that its header commits to. Proof of work and the validity of transactions were not.
   *
   * Fails with `NotFound`, `TimedOut` (30 s by default), `NotSendable` and `Ended`. A remote that sends a changed block is ended by
   * `BadAnswer`.
   */
  readonly getBlock: (hash: Uint8Array, options?: AskOptions) => Effect.Effect<Wire.Block, PeerError>
  /**
   * Asks for a transaction and returns it with its witnesses. The hash is the one that the remote announces: the wtxid if
   * `info.wtxidRelay`, else the txid; `by` says otherwise. The transaction has this hash; a txid says nothing about the witnesses.
   *
   * A node has the transactions of its mempool, and few others. Fails as `getBlock` does.
   */
  readonly getTransaction: (
    hash: Uint8Array,
    options?: TransactionOptions
  ) => Effect.Effect<Wire.Transaction, PeerError>
  /**
   * Asks for transactions of a block by their indexes in it, at least one, to complete a `cmpctblock` (BIP152). The answer is a
   * `blocktxn`, or the whole block where that is old; `CompactBlock.complete` takes either. Fails with `NotFound` when the pong to a
   * ping after the request comes first, with `TimedOut` (30 s by default), `NotSendable` and `Ended`.
   */
  readonly getBlockTransactions: (
    blockHash: Uint8Array,
    indexes: Wire.List<number>,
    options?: AskOptions
  ) => Effect.Effect<Wire.BlockTxn | Wire.BlockMessage, PeerError>
  /**
   * Asks for addresses of other nodes, and returns them in the form of addrv2. Core answers a peer that dialled it, once a
   * connection: at once, or with its next turn of address relay, on average 30 s later. A node may announce itself with a single
   * address, so one that comes alone is returned only when the time is over. Fails with `TimedOut` (2 minutes by default) and
   * `Ended`.
   */
  readonly getAddresses: (options?: AskOptions) => Effect.Effect<ReadonlyArray<Wire.AddressV2>, PeerError>
  /**
   * Asks for the compact filters (BIP157) of a range of blocks and returns them by height; `CompactFilter.decode` reads them. The
   * block hash in an answer says which filter it is. Fails with `NotOffered` if the remote does not offer
   * `Service.compactFilters`, `NotSendable` for more than 1,000, `NoAnswer` when the pong to a ping after the request comes before
   * all filters have, `TimedOut` (2 minutes for all by default) and `Ended`. Core
   * disconnects a peer that asks for a block that it does not know, or that is not at that height.
   */
  readonly getCompactFilters: (
    range: CompactFilterRange,
    options?: AskOptions
  ) => Effect.Effect<ReadonlyArray<Wire.CFilter>, PeerError>
  /**
   * The same for the hashes of filters: at most 2,000, 30 s by default. `CompactFilter.verifyHeaders` makes headers of them. A
   * message with another number of hashes is no answer.
   */
  readonly getCompactFilterHeaders: (
    range: CompactFilterHeaderRange,
    options?: AskOptions
  ) => Effect.Effect<Wire.CFHeaders, PeerError>
  /** The same for the filter headers at heights 1,000, 2,000 and so on, up to the block with that hash. */
  readonly getCompactFilterCheckpoints: (
    stopHash: Uint8Array,
    filterType?: number,
    options?: AskOptions
  ) => Effect.Effect<Wire.List<Uint8Array>, PeerError>
  /** Sends a ping and returns the round trip. Fails with `Ended`, or `NotSupported` up to version 60000 (BIP31). */
  readonly ping: Effect.Effect<Duration.Duration, PeerError>
  /**
   * Begins the end of the peer and returns at once; `awaitShutdown` waits for it. The first call fixes the reason: `Requested` with
   * the text, or the reason that a server of many peers gives. A handler may call it.
   */
  readonly disconnect: (why?: string | OwnerReason) => Effect.Effect<void>
  /** Waits until all fibers have ended, the finalizers of `scope` have run and the connection is closed. Returns the reason. */
  readonly awaitShutdown: Effect.Effect<EndReason>
  /**
   * Closes with the peer: fork fibers into it that end with the connection. Such a fiber ends the peer by `disconnect`. It must
   * not close the scope that the peer was made in and wait for that: it would wait for itself.
   */
  readonly scope: Scope.Scope
}

/**
 * The key of the service `Peer` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const Peer: Context.Service<Peer, Peer> = Context.Service<Peer>("effect-bitcoin-peer/Peer")

/**
 * Whether a value is a `Peer`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isPeer = (value: unknown): value is Peer => Predicate.hasProperty(value, TypeId)

/**
 * The type of the message with that command.
 *
 * @category models
 * @since 0.1.0
 */
export type MessageOf<Tag extends Wire.Message["_tag"]> = Extract<Wire.Message, { readonly _tag: Tag }>

/**
 * Handlers of messages, by command; `Unknown` is called for commands that this package does not know.
 *
 * Handlers run one after the other, in the order of the messages, and the next batch is read when they are done: a slow handler
 * slows the remote down. The peer waits for an Effect or a promise that a handler returns, and ignores every other value. A
 * handler may call everything on the peer and wait for it. While it waits for an answer (`ping`, `getData` …) the peer reads on and
 * keeps up to 8 MiB of messages for later.
 *
 * A failure or a defect ends the peer with `HandlerFailed`, which has the cause. Pings are answered without a handler.
 *
 * @category models
 * @since 0.1.0
 */
export type Handlers<R = never> = {
  readonly [Tag in Wire.Message["_tag"]]?:
    | ((message: MessageOf<Tag>, peer: Peer) => Effect.Effect<unknown, unknown, R> | PromiseLike<unknown> | void)
    | undefined
}

/**
 * The services that the handlers of `H` need from the context. Their `Scope` is the peer's own.
 *
 * @category models
 * @since 0.1.0
 */
export type HandlerServices<H extends Handlers<unknown>> = {
  [Tag in keyof H]-?: NonNullable<H[Tag]> extends (...args: never) => infer Returned
    ? Returned extends Effect.Effect<unknown, unknown, infer R>
      ? Exclude<R, Scope.Scope>
      : never
    : never
}[keyof H]

/**
 * A message type of the caller: how its payload is encoded and decoded.
 *
 * @category models
 * @since 0.1.0
 */
export interface CustomType<A> {
  /** 1 to 12 ASCII characters. It must not be a command of this package. */
  readonly command: string
  readonly encode: (value: A) => Uint8Array
  /** Returns undefined for a malformed payload, which is treated as `Policy.malformed` says. Must not throw. */
  readonly decode: (payload: Uint8Array) => A | undefined
}

/**
 * A message type of the caller with its handler, for `Options.custom`. `custom` makes it.
 *
 * @category models
 * @since 0.1.0
 */
export interface CustomHandler extends Dispatcher.CustomHandler<Peer> {}

/**
 * Combines a message type of the caller with its handler, which runs instead of the one for `Unknown`. To send a value:
 * `peer.send(Peer.customMessage(type, value))`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Peer } from "effect-bitcoin-peer"
 *
 * const greeting: Peer.CustomType<string> = {
 *   command: "greeting",
 *   encode: (text) => new TextEncoder().encode(text),
 *   decode: (payload) => (payload.length <= 100 ? new TextDecoder().decode(payload) : undefined)
 * }
 * export const options: Peer.Options = {
 *   custom: [Peer.custom(greeting, (text, peer) => peer.send(Peer.customMessage(greeting, `you said ${text}`)))]
 * }
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const custom = <A>(
  type: CustomType<A>,
  handler: (value: A, peer: Peer) => Effect.Effect<unknown, unknown, Scope.Scope> | PromiseLike<unknown> | void
): CustomHandler => ({
  command: type.command,
  prepare: (payload) => {
    const value = type.decode(payload)
    return value === undefined ? "malformed" : (peer) => handler(value, peer)
  }
})

/**
 * A value of a message type of the caller as a message to send.
 *
 * @category constructors
 * @since 0.1.0
 */
export const customMessage = <A>(type: CustomType<A>, value: A): Wire.Unknown => ({
  _tag: "Unknown",
  command: type.command,
  payload: type.encode(value)
})

/**
 * The options of a peer. All are optional.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<H extends Handlers<unknown> = Handlers> extends SessionOptions {
  readonly handlers?: H | undefined
  /** Message types of the caller with their handlers; see `custom`. */
  readonly custom?: ReadonlyArray<CustomHandler> | undefined
}

/**
 * The service over the parts of a session. Its functions are made when they are asked for, and work without the object. The
 * session is no `#private` field, so that a wrapper may inherit from a peer.
 */
class ConnectedPeer implements Peer {
  readonly info: Info
  private readonly session: Session<Peer>

  constructor(session: Session<Peer>) {
    this.info = session.info
    this.session = session
  }

  get [TypeId](): typeof TypeId {
    return TypeId
  }

  get stats() {
    return this.session.stats
  }

  get ping() {
    return this.session.pinger.ping
  }

  get awaitShutdown() {
    return this.session.lifecycle.awaitShutdown
  }

  get scope() {
    return this.session.lifecycle.scope
  }

  get messages() {
    return Stream.suspend(() => Stream.orDie(this.session.subscribers.subscribe()))
  }

  get send(): Peer["send"] {
    return (...asked) => this.session.sendQueue.offer(...asked)
  }

  get sendAndWait(): Peer["sendAndWait"] {
    return (...asked) => this.session.sendQueue.offerAndWait(...asked)
  }

  get handle(): Peer["handle"] {
    return (...asked) => this.session.dispatcher.handle(...asked)
  }

  get subscribe(): Peer["subscribe"] {
    return (...asked) => this.session.subscribers.subscribe(...asked)
  }

  get announce(): Peer["announce"] {
    return (...asked) => this.session.announcer.announce(...asked)
  }

  get announceBlocks(): Peer["announceBlocks"] {
    return (...asked) => this.session.announcer.announceBlocks(...asked)
  }

  get sendAddresses(): Peer["sendAddresses"] {
    return (...asked) => this.session.senders.sendAddresses(...asked)
  }

  get sendGetHeaders(): Peer["sendGetHeaders"] {
    return (...asked) => this.session.senders.sendGetHeaders(...asked)
  }

  get sendGetBlocks(): Peer["sendGetBlocks"] {
    return (...asked) => this.session.senders.sendGetBlocks(...asked)
  }

  get sendReject(): Peer["sendReject"] {
    return (...asked) => this.session.senders.sendReject(...asked)
  }

  get getHeaders(): Peer["getHeaders"] {
    return (...asked) => this.session.requests.getHeaders(...asked)
  }

  get getBlocks(): Peer["getBlocks"] {
    return (...asked) => this.session.requests.getBlocks(...asked)
  }

  get getData(): Peer["getData"] {
    return (...asked) => this.session.requests.getData(...asked)
  }

  get getBlock(): Peer["getBlock"] {
    return (...asked) => this.session.requests.getBlock(...asked)
  }

  get getTransaction(): Peer["getTransaction"] {
    return (...asked) => this.session.requests.getTransaction(...asked)
  }

  get getBlockTransactions(): Peer["getBlockTransactions"] {
    return (...asked) => this.session.requests.getBlockTransactions(...asked)
  }

  get getAddresses(): Peer["getAddresses"] {
    return (...asked) => this.session.requests.getAddresses(...asked)
  }

  get getCompactFilters(): Peer["getCompactFilters"] {
    return (...asked) => this.session.requests.getCompactFilters(...asked)
  }

  get getCompactFilterHeaders(): Peer["getCompactFilterHeaders"] {
    return (...asked) => this.session.requests.getCompactFilterHeaders(...asked)
  }

  get getCompactFilterCheckpoints(): Peer["getCompactFilterCheckpoints"] {
    return (...asked) => this.session.requests.getCompactFilterCheckpoints(...asked)
  }

  get disconnect(): Peer["disconnect"] {
    return (why = "disconnect was called") =>
      Effect.sync(() => this.session.lifecycle.end(typeof why === "string" ? { _tag: "Requested", why } : why))
  }
}

const fromSession = (session: Session<Peer>): Peer => new ConnectedPeer(session)

const badOptions = (error: Wire.WireError): Effect.Effect<never, Handshake.HandshakeError> =>
  Effect.fail(new Handshake.HandshakeError({ reason: { _tag: "BadOptions", error } }))

/**
 * Runs the handshake over a connection and starts the peer, in either direction. The peer and the connection end with the
 * scope. Fails with `HandshakeError`, after closing the connection; an interruption destroys it.
 *
 * @example
 * ```ts
 * import { Duration, Effect } from "effect"
 * import { Network, Nonce, Peer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const program = Effect.gen(function*() {
 *   const connection = yield* NodeConnection.connect({ host: "127.0.0.1", port: Network.regtest.port })
 *   const peer = yield* Peer.make(connection, {
 *     network: Network.regtest,
 *     handlers: { inv: (message) => Effect.log(`${message.items.length} announced`) }
 *   })
 *   yield* Effect.log(`connected to ${peer.info.userAgent}, ping ${Duration.format(yield* peer.ping)}`)
 *   return yield* peer.awaitShutdown
 * }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <H extends Handlers<unknown> = Handlers>(
  connection: Connection,
  options: Options<H> = {}
): Effect.Effect<Peer, Handshake.HandshakeError, Scope.Scope | Nonce | HandlerServices<H>> =>
  Effect.suspend(() => {
    const wrong = badOption(options)
    return wrong === undefined
      ? makeChecked(connection, options)
      : Effect.andThen(Effect.uninterruptible(connection.close), badOptions(wrong))
  })

/** `make` with options that `badOption` has checked. */
const makeChecked = <H extends Handlers<unknown>>(
  connection: Connection,
  options: Options<H>
): Effect.Effect<Peer, Handshake.HandshakeError, Scope.Scope | Nonce | HandlerServices<H>> => {
  const { magic } = options.network ?? Network.mainnet
  return Effect.flatMap(MessageConnection.open(connection, magic, options.policy ?? Policy.core, options), (link) =>
    // After the handshake nothing may be interrupted until the fibers run: otherwise nothing would close the connection.
    Effect.uninterruptibleMask((restore) =>
      restore(runHandshake(link, options)).pipe(
        Effect.onError((cause) =>
          Effect.andThen(Cause.hasInterrupts(cause) ? connection.destroy : connection.close, link.endRecording)
        ),
        Effect.flatMap(({ negotiated, rest }) => startSession(link, rest, negotiated, options, fromSession))
      )
    )
  )
}

/**
 * Dials and makes an outbound peer, encrypted where the node can: `transport` is "auto" by default. A node that does not
 * speak version 2 is dialled once more, in the same way, and spoken to in version 1. Version 1 is the first try for the last
 * 100 such addresses (`Transport.V1Peers`), and for a node whose `remoteServices` are given without P2P_V2. With "v1" or "v2"
 * there is one connection.
 *
 * `connect` makes a connection in its scope, as `NodeConnection.connect` does. Fails as it does, and with
 * `HandshakeError`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Network, Nonce, Peer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const program = Effect.gen(function*() {
 *   const connect = NodeConnection.connect({ host: "127.0.0.1", port: Network.regtest.port })
 *   const peer = yield* Peer.dial(connect, { network: Network.regtest })
 *   yield* Effect.log(`${peer.info.transport} with ${peer.info.userAgent}`)
 *   return yield* peer.awaitShutdown
 * }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const dial = <E, R, H extends Handlers<unknown> = Handlers>(
  connect: Effect.Effect<Connection, E, R>,
  options: Options<H> = {}
): Effect.Effect<Peer, E | Handshake.HandshakeError, Scope.Scope | Nonce | HandlerServices<H> | R> => {
  const attempt = (transport: Transport.Transport) =>
    Effect.contextWith((context: Context.Context<Scope.Scope>) => {
      // Of its own, so that a connection that is of no use is gone before the next one is made.
      const scope = Scope.forkUnsafe(Context.get(context, Scope.Scope))
      return Effect.flatMap(connect, (connection) =>
        makeChecked(connection, { ...options, direction: "outbound", transport })
      ).pipe(
        Scope.provide(scope),
        Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
      )
    })
  return Effect.suspend(() => {
    const wrong = badOption(options)
    if (wrong !== undefined) return badOptions(wrong)
    const transport = options.transport ?? "auto"
    return Effect.catchIf(
      attempt(transport),
      (error) =>
        transport === "auto" && error instanceof Handshake.HandshakeError && error.reason._tag === "V2NotSpoken",
      () => attempt("v1")
    )
  })
}

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
 *
 * @category layers
 * @since 0.1.0
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
 * BTCPEER_NETWORK (mainnet, testnet3, testnet4, signet, regtest, simnet), BTCPEER_POLICY (core, btcd),
 * BTCPEER_TRANSPORT (v1, v2, auto), BTCPEER_USER_AGENT, BTCPEER_RELAY (true, false), BTCPEER_MINIMUM_PROTOCOL_VERSION,
 * BTCPEER_MAXIMUM_QUEUED_BYTES, and, as durations like "2 minutes", BTCPEER_HANDSHAKE_TIMEOUT, BTCPEER_PING_INTERVAL,
 * BTCPEER_PING_TIMEOUT and BTCPEER_IDLE_TIMEOUT.
 *
 * @category config
 * @since 0.1.0
 */
export const config: Config.Config<Options> = Config.all({
  network: optional(Config.map(Config.Literals(Network.names, "BTCPEER_NETWORK"), Network.fromName)),
  policy: optional(Config.map(Config.Literals(Policy.names, "BTCPEER_POLICY"), Policy.fromName)),
  transport: optional(Config.Literals(Transport.names, "BTCPEER_TRANSPORT")),
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
 * `layer` with settings from configuration: by default `config`, the BTCPEER_ variables of the environment. A configured setting
 * overrides the one in `options`. Fails with `HandshakeError`, and with `ConfigError` for an invalid value.
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
 *
 * @category layers
 * @since 0.1.0
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
