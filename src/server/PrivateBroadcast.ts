/**
 * Sends transactions without revealing their origin: each over short connections through Tor or I2P, to nodes with which this program has
 * no other connection. Bitcoin Core does the same with `-privatebroadcast`, and sends the same bytes.
 *
 * A transaction counts as broadcast once an ordinary peer announces it: call `seen` with the hashes that peers announce. Without Tor and
 * I2P this fails, and never falls back to a connection that shows our address.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import { SecureRandom } from "effect/crypto"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { type Address, NetworkId } from "../Address.ts"
import type { Connection, ConnectionError } from "../Connection.ts"
import * as Handshake from "../Handshake.ts"
import * as Network from "../Network.ts"
import * as Nonce from "../Nonce.ts"
import * as Wire from "../Wire.ts"
import { Dialer, type NetworkName, type Unreachable } from "./Dialer.ts"
import {
  type Ending,
  type Entry as PoolEntry,
  limits,
  Pool,
  privateNetworks,
  Script,
  versionMessage
} from "./internal/privateBroadcast.ts"
import { makeRandom } from "./internal/random.ts"

/**
 * A transaction was not accepted for sending.
 *
 * - `NoPrivateNetwork`: the dialer has no way to Tor or I2P. Nothing was sent, and nothing will be sent later.
 * - `QueueFull`: 10,000 transactions are waiting. Abort some, or try again when others were seen.
 * - `BadTransaction`: it cannot be encoded.
 *
 * @category errors
 * @since 0.1.0
 */
export class PrivateBroadcastError extends Data.TaggedError("PrivateBroadcastError")<{
  readonly reason:
    | { readonly _tag: "NoPrivateNetwork" }
    | { readonly _tag: "QueueFull"; readonly maximum: number }
    | { readonly _tag: "BadTransaction"; readonly error: Wire.WireError }
}> {
  override get message(): string {
    const { reason } = this
    switch (reason._tag) {
      case "NoPrivateNetwork":
        return "the transaction is not sent: there is a way neither to Tor nor to I2P"
      case "QueueFull":
        return `the transaction is not sent: ${reason.maximum} others wait`
      case "BadTransaction":
        return `the transaction is not sent: ${reason.error.message}`
    }
  }
}

/**
 * A node to send a transaction to, from an address book.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recipient {
  readonly address: Address
  /** With P2P_V2 the connection is encrypted (BIP324), and not encrypted after that failed. */
  readonly services: bigint
}

/**
 * The choice of recipients. The messages themselves have no options: they are the same for all programs, so that they reveal nothing.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Mainnet by default. */
  readonly network?: Network.Network | undefined
  /** Chooses a random address of a network from the address book, but not one of our own. `undefined` if there is no address. */
  readonly pick: (network: NetworkName) => Recipient | undefined
  /** Called after a dial, whether it succeeded or failed, so that the address book can count a failure. */
  readonly onAttempt?: ((address: Address) => void) | undefined
  /**
   * Whether the dialer reaches IPv4 and IPv6 for the kind "private-broadcast" through Tor; false by default. They are then used as well,
   * once a peer has answered at an onion address.
   */
  readonly ipThroughTor?: boolean | undefined
  /** Whether connections may be made now. Nothing is dialled while this is false; it is asked again every 5 s. */
  readonly isActive?: (() => boolean) | undefined
}

/**
 * A transaction that was not yet seen in the network. Times are milliseconds since 1970.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  readonly transaction: Wire.Transaction
  readonly txid: Uint8Array
  readonly wtxid: Uint8Array
  readonly addedAt: number
  /** How often it may still be offered, from 1,000 to 0. At 0 it stays, and is not sent until `broadcast` is called again. */
  readonly sendsLeft: number
  /** The recipients to which it was announced, the first one first. */
  readonly sends: ReadonlyArray<{
    readonly address: Address
    readonly at: number
    /** When the recipient confirmed that it had read the transaction. */
    readonly confirmedAt: number | undefined
  }>
}

/**
 * Broadcasts transactions privately.
 *
 * @category models
 * @since 0.1.0
 */
export interface PrivateBroadcast {
  /**
   * Takes a transaction, copies it, and sends it to three recipients, then to one more every 2 to 3 minutes until `seen` or `abort`.
   * Returns at once. "AlreadyPresent" means that it is being sent already; one that has used up its sends starts anew.
   */
  readonly broadcast: (
    transaction: Wire.Transaction
  ) => Effect.Effect<"Added" | "AlreadyPresent", PrivateBroadcastError>
  /**
   * An ordinary peer has announced or sent this txid or wtxid: the transaction is in the network, and is not sent any more. Returns
   * whether it was one of ours. Cheap enough to call with every hash that is announced.
   */
  readonly seen: (hash: Uint8Array) => boolean
  /** Stops sending the transactions with this txid or wtxid, and returns them. Copies that were sent cannot be called back. */
  readonly abort: (hash: Uint8Array) => Effect.Effect<ReadonlyArray<Wire.Transaction>>
  /** Waits until a transaction was seen (true), or aborted (false). False at once for one that is not being sent. */
  readonly awaitSeen: (hash: Uint8Array) => Effect.Effect<boolean>
  /** The transactions that wait, in the order in which they came. */
  readonly entries: Effect.Effect<ReadonlyArray<Entry>>
}

/**
 * The key of the service `PrivateBroadcast` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const PrivateBroadcast: Context.Service<PrivateBroadcast, PrivateBroadcast> = Context.Service<PrivateBroadcast>(
  "effect-bitcoin-peer/server/PrivateBroadcast"
)

const isOnion = ({ networkId }: Address): boolean => networkId === NetworkId.torV3

const refused = (reason: PrivateBroadcastError["reason"]) => Effect.fail(new PrivateBroadcastError({ reason }))

/** The failure of a dial that says something about the address and not about our proxy. */
const isOfAddress = (error: ConnectionError | Unreachable): boolean =>
  error._tag === "ConnectionError" &&
  error.reason._tag === "DialFailed" &&
  !error.reason.problem.startsWith("Proxy") &&
  error.reason.problem !== "NeedsProxy"

/**
 * Makes the service, which sends as long as its scope lives. At the end of the scope all connections are closed, and transactions that
 * were not seen are forgotten.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<PrivateBroadcast, never, Dialer | SecureRandom.SecureRandom | Scope.Scope> {
  const { ipThroughTor = false, isActive, network = Network.mainnet, onAttempt, pick } = options
  const dialer = yield* Dialer
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const secure = yield* SecureRandom.SecureRandom
  const random = makeRandom(yield* secure.randomBytes(16))
  // Of its own: the server does not look for these nonces in inbound connections. A recipient could otherwise send ours to all nodes,
  // and know which of them is us because it hangs up.
  const nonces = yield* Nonce.make()
  const pool = new Pool(now())
  /** Results for the callers of `awaitSeen`. */
  const waiting = new Map<PoolEntry, Deferred.Deferred<boolean>>()
  const tell = (entry: PoolEntry, wasSeen: boolean): void => {
    const deferred = waiting.get(entry)
    waiting.delete(entry)
    if (deferred !== undefined) Deferred.doneUnsafe(deferred, Effect.succeed(wasSeen))
  }
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const entry of waiting.keys()) tell(entry, false)
    })
  )
  const fibers = yield* FiberSet.make()
  const wake = yield* Queue.sliding<void>(1)
  const changed = (): void => void Queue.offerUnsafe(wake, undefined)
  /** Whether a peer has answered at an onion address: then the proxy is Tor. */
  let torAnswered = false

  /** Runs the script over a connection. Fails where the remote does not support version 2. */
  const talk = Effect.fnUntraced(function* (
    id: number,
    connection: Connection,
    { address }: Recipient,
    transport: "v1" | "v2"
  ) {
    const messages = yield* Handshake.openTransport(connection, { network, transport })
    const script = new Script(
      { pick: () => pool.pick(id, address, now()), isWanted: () => pool.wants(id) },
      yield* nonces.unremembered
    )
    messages.write([versionMessage(yield* nonces.unremembered)])
    while (true) {
      for (const event of yield* messages.read) {
        if (event._tag === "Dropped") continue
        const { ending, send } = script.receive(event.message)
        if (send.length > 0) messages.write(send)
        if (send[0]?._tag === "verack" && isOnion(address)) torAnswered = true
        if (ending !== undefined) return ending
      }
    }
  })

  const connect = Effect.fnUntraced(function* (
    id: number,
    recipient: Recipient,
    transport: "v1" | "v2"
  ): Effect.fn.Return<Ending, never> {
    return yield* Effect.scoped(
      Effect.gen(function* () {
        const connection = yield* dialer.dial(recipient.address, "private-broadcast").pipe(
          Effect.tap(() => Effect.sync(() => onAttempt?.(recipient.address))),
          Effect.tapError((error) =>
            Effect.sync(() => {
              if (isOfAddress(error)) onAttempt?.(recipient.address)
            })
          )
        )
        pool.connected(id)
        changed()
        return yield* Effect.timeoutOrElse(talk(id, connection, recipient, transport), {
          duration: limits.lifetime,
          orElse: () => Effect.succeed<Ending>("TimedOut")
        })
      })
    ).pipe(
      Effect.catch((error) =>
        // The scope of the first connection is closed. The second one goes the same way, through the same proxy.
        error._tag === "HandshakeError" && error.reason._tag === "V2NotSpoken" && transport === "v2"
          ? connect(id, recipient, "v1")
          : Effect.succeed<Ending>("Disconnected")
      )
    )
  })

  const attempt = (id: number, recipient: Recipient) => {
    let wasSent = false
    const transport = (recipient.services & Wire.Service.p2pV2) === 0n ? "v1" : "v2"
    return connect(id, recipient, transport).pipe(
      Effect.tap((ending) =>
        Effect.sync(() => {
          wasSent = ending === "Sent"
        })
      ),
      Effect.onExit(() =>
        Effect.sync(() => {
          pool.ended(id, wasSent, now())
          changed()
        })
      )
    )
  }

  /** A recipient on a random network. Without one no dial is made for some time. */
  const nextRecipient = (): Recipient | undefined => {
    const networks = privateNetworks(dialer.ways, ipThroughTor && torAnswered)
    if (isActive?.() === false || networks.length === 0) {
      pool.pause(now(), limits.noNetworkPause)
      return undefined
    }
    const recipient = pick(networks[random.below(networks.length)]!)
    if (recipient === undefined) pool.pause(now(), limits.emptyBookPause)
    return recipient
  }

  const turn = Effect.gen(function* () {
    while (pool.dialDelay(now()) === 0) {
      const recipient = nextRecipient()
      if (recipient !== undefined) yield* FiberSet.run(fibers, attempt(pool.dial(), recipient))
    }
    if (pool.nextCheck <= now()) pool.check(now(), random)
    const delay = Math.min(pool.dialDelay(now()), pool.nextCheck - now())
    yield* Effect.timeoutOption(Queue.take(wake), Math.max(1, Math.ceil(delay)))
  })
  yield* Effect.forkScoped(Effect.forever(turn), { startImmediately: true })

  const remove = (hash: Uint8Array, wasSeen: boolean): ReadonlyArray<PoolEntry> => {
    const removed = pool.remove(hash)
    for (const entry of removed) tell(entry, wasSeen)
    return removed
  }

  return {
    broadcast: (transaction) =>
      Effect.suspend(() => {
        if (privateNetworks(dialer.ways, false).length === 0) return refused({ _tag: "NoPrivateNetwork" })
        const copy = Result.flatMap(Wire.encodeTransaction(transaction), Wire.decodeTransaction)
        if (Result.isFailure(copy)) return refused({ _tag: "BadTransaction", error: copy.failure })
        const added = pool.add(copy.success, now())
        if (added === "QueueFull") return refused({ _tag: "QueueFull", maximum: limits.transactions })
        changed()
        return Effect.succeed(added)
      }),
    seen: (hash) => remove(hash, true).length > 0,
    abort: (hash) => Effect.sync(() => remove(hash, false).map(({ transaction }) => transaction)),
    awaitSeen: (hash) =>
      Effect.suspend(() => {
        const entry = pool.find(hash)
        if (entry === undefined) return Effect.succeed(false)
        let deferred = waiting.get(entry)
        if (deferred === undefined) waiting.set(entry, (deferred = Deferred.makeUnsafe<boolean>()))
        return Deferred.await(deferred)
      }),
    entries: Effect.sync(() =>
      Array.from(pool.entries, (entry) => ({
        transaction: entry.transaction,
        txid: entry.txid,
        wtxid: entry.wtxid,
        addedAt: entry.addedAt,
        sendsLeft: pool.sendsLeft(entry),
        sends: entry.sends.map((send) => ({ ...send }))
      }))
    )
  }
})

/**
 * The service over the dialer of the context.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 * import { Dialer, PrivateBroadcast } from "effect-bitcoin-peer/server"
 *
 * // `recipient` is a random address of the address book.
 * export const send = (
 *   transaction: Wire.Transaction,
 *   recipient: () => PrivateBroadcast.Recipient | undefined,
 *   dialer: Layer.Layer<Dialer.Dialer>
 * ) =>
 *   Effect.gen(function*() {
 *     const privately = yield* PrivateBroadcast.PrivateBroadcast
 *     yield* privately.broadcast(transaction)
 *     // Elsewhere: privately.seen(hash), for each hash that a peer announces.
 *     return yield* privately.awaitSeen(Wire.txid(transaction))
 *   }).pipe(Effect.provide(Layer.provide(PrivateBroadcast.layer({ pick: recipient }), dialer)))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<PrivateBroadcast, never, Dialer> =>
  Layer.provide(Layer.effect(PrivateBroadcast, make(options)), SecureRandom.layerWebCrypto)
