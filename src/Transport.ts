/**
 * How the bytes of a connection are made: version 1, which everybody can read, or version 2, which is encrypted and looks
 * like noise from its first byte on [BIP324]. The messages are the same, and so is the peer; `transport` among its options
 * says which, and `info.transport` which it became.
 *
 * Encryption keeps out who listens, not who sits in between: for that, both ends compare `info.sessionId`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Network, Nonce, Peer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * // Version 2, or 1 on a second connection where the node does not speak it.
 * export const program = Effect.gen(function*() {
 *   const connect = NodeConnection.connect({ host: "127.0.0.1", port: Network.regtest.port })
 *   const peer = yield* Peer.dial(connect, { network: Network.regtest })
 *   return peer.info.transport // "v2" with Bitcoin Core 26 and later
 * }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
 * ```
 */
import * as Context from "effect/Context"
import { SecureRandom } from "effect/crypto"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import { type Endpoint, formatEndpoint } from "./Connection.ts"
import { type KeyPair, makeKeyPair } from "./transport/bip324Cipher.ts"

export type { KeyPair } from "./transport/bip324Cipher.ts"
export { maxGarbageLength } from "./transport/keyExchange.ts"

/** The names of the choices, as configurations and command lines give them. */
export const names = ["v1", "v2", "auto"] as const

/**
 * "v1": plain; "v2": encrypted, or no peer at all; "auto": encrypted where the other side can. Inbound, "auto" is told
 * from the first bytes. Outbound it begins with version 2, and who turns out not to speak it is dialled again, see
 * `Peer.dial`.
 */
export type Transport = (typeof names)[number]

/** What our side of a key exchange is made of; each connection has its own. */
export interface Disguise {
  /** Our key, for this connection only. */
  readonly keyPair: Effect.Effect<KeyPair>
  /** Noise behind our key, at most 4,095 bytes: its length is what hides where the key ends. */
  readonly garbage: Effect.Effect<Uint8Array>
  /** How long the contents of the packets are that come before the first real one and mean nothing. */
  readonly decoys: Effect.Effect<ReadonlyArray<number>>
}

/** How much noise to make. */
export interface DisguiseOptions {
  /** The greatest length of the garbage, which is random: 175 by default, 4,095 at most (Bitcoin Core's). With more than 175
   * bytes a node without version 2 may ban this one (bcoin does). */
  readonly maximumGarbage?: number | undefined
  /** How many decoys at most, a random number of them; 0 by default, as in Bitcoin Core. */
  readonly maximumDecoys?: number | undefined
  /** The greatest length of a decoy's contents, which is random; 1,000 by default. */
  readonly maximumDecoyLength?: number | undefined
}

/**
 * The 64 bytes of the key and this garbage are fewer than ten frame headers of 24 bytes: bcoin, which does not speak version 2,
 * answers each with a reject and bans the address at the tenth.
 */
const defaultMaximumGarbage = 175

const disguiseFrom = (
  { intBetween, randomBytes }: SecureRandom.SecureRandom["Service"],
  options: DisguiseOptions
): Disguise => ({
  keyPair: Effect.sync(makeKeyPair),
  garbage: Effect.flatMap(intBetween(0, options.maximumGarbage ?? defaultMaximumGarbage), randomBytes),
  decoys: Effect.flatMap(intBetween(0, options.maximumDecoys ?? 0), (count) =>
    Effect.all(Array.from({ length: count }, () => intBetween(0, options.maximumDecoyLength ?? 1_000)))
  )
})

/**
 * A disguise from the `SecureRandom` of the context; keys are always from the platform's.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { SecureRandom } from "effect/crypto"
 * import { Transport } from "effect-bitcoin-peer"
 *
 * // Up to five decoys, for all peers that are made in `program`.
 * export const disguised = <A, E, R>(program: Effect.Effect<A, E, R>) =>
 *   Transport.makeDisguise({ maximumDecoys: 5 }).pipe(
 *     Effect.provide(SecureRandom.layerWebCrypto),
 *     Effect.flatMap((disguise) => Effect.provideService(program, Transport.Disguise, disguise))
 *   )
 * ```
 */
export const makeDisguise = (
  options: DisguiseOptions = {}
): Effect.Effect<Disguise, never, SecureRandom.SecureRandom> =>
  Effect.map(SecureRandom.SecureRandom, (random) => disguiseFrom(random, options))

/** What key exchanges are made of: by default garbage of 0 to 175 bytes and no decoys. */
export const Disguise = Context.Reference<Disguise>("effect-bitcoin-peer/Transport/Disguise", {
  defaultValue: () => disguiseFrom(SecureRandom.make(SecureRandom.randomBytesUnsafe), {})
})

/**
 * Through this strangers get their key exchange: one costs some milliseconds of the processor, and whoever connects
 * can ask for one. Each permit is one key exchange in a turn of the event loop, so that however many come at once, the
 * other peers are attended to in between. One by default. Connections that we made do not wait.
 */
export const Admission = Context.Reference<Semaphore.Semaphore>("effect-bitcoin-peer/Transport/Admission", {
  defaultValue: () => Semaphore.makeUnsafe(1)
})

/** Addresses that are known not to speak version 2. */
export interface OnlyVersion1 {
  readonly has: (address: Endpoint) => boolean
  readonly add: (address: Endpoint) => void
  readonly remove: (address: Endpoint) => void
}

/** Remembers so many addresses; the one that was used longest ago makes room. 100 by default, as in btcd. */
export const makeOnlyVersion1 = (capacity = 100): OnlyVersion1 => {
  // A Set keeps the order of insertion.
  const addresses = new Set<string>()
  const add = (address: string): void => {
    addresses.delete(address)
    addresses.add(address)
    for (const oldest of addresses) {
      if (addresses.size <= capacity) break
      addresses.delete(oldest)
    }
  }
  return {
    has: (endpoint) => {
      const address = formatEndpoint(endpoint)
      if (!addresses.has(address)) return false
      add(address)
      return true
    },
    add: (endpoint) => add(formatEndpoint(endpoint)),
    remove: (endpoint) => void addresses.delete(formatEndpoint(endpoint))
  }
}

/**
 * Whom "auto" speaks version 1 to at once: shared by the program. An address comes in when version 2 failed there, and
 * leaves when its node says in version 1 that it offers P2P_V2.
 */
export const OnlyVersion1 = Context.Reference<OnlyVersion1>("effect-bitcoin-peer/Transport/OnlyVersion1", {
  defaultValue: () => makeOnlyVersion1()
})
