/**
 * Two encodings of the same messages on a connection: version 1 is plain, version 2 is encrypted and looks random from its first
 * byte (BIP324). The option `transport` of a peer chooses, and `info.transport` shows the result.
 *
 * Encryption protects against listeners. It does not protect against a man in the middle; for that, both sides compare
 * `info.sessionId`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Network, Nonce, Peer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * // Version 2, or version 1 on a second connection if the node does not support version 2.
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
import { maxGarbageLength } from "./transport/keyExchange.ts"

export type { KeyPair } from "./transport/bip324Cipher.ts"
export { maxGarbageLength } from "./transport/keyExchange.ts"

/**
 * The names of the transports, for configurations and command lines.
 *
 * @category constants
 * @since 0.1.0
 */
export const names = ["v1", "v2", "auto"] as const

/**
 * "v1": plain. "v2": encrypted, and the handshake fails if the peer does not support it. "auto": encrypted if the peer supports it.
 * Inbound, "auto" recognises the transport from the first bytes. Outbound, it starts with version 2, and `Peer.dial` connects again
 * with version 1 if the node does not support version 2.
 *
 * @category models
 * @since 0.1.0
 */
export type Transport = (typeof names)[number]

/**
 * The greatest length of the garbage that is sent to a node which may not support version 2: 175 bytes.
 *
 * With the 64 bytes of the key these are fewer than ten frame headers of 24 bytes. A node of version 1 reads them as such headers: bcoin
 * answers each with a reject, and bans the address for a day at the tenth.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxGarbageLengthUnknown = 175

/**
 * Makes the parts of a key exchange that hide it (BIP324). Each connection runs each of the three effects once.
 *
 * @category models
 * @since 0.1.0
 */
export interface Obfuscation {
  /** Our key pair, for one connection only. */
  readonly keyPair: Effect.Effect<KeyPair>
  /**
   * Random bytes after our key, which hide where the key ends. `maximumLength` is 4,095 if the peer is known to support version 2,
   * and 175 (`maxGarbageLengthUnknown`) otherwise. More bytes than that fail the handshake with `BadOptions`.
   */
  readonly garbage: (maximumLength: number) => Effect.Effect<Uint8Array>
  /** The lengths of the contents of decoy packets, which the peer drops. They are sent before the version packet. */
  readonly decoys: Effect.Effect<ReadonlyArray<number>>
}

/**
 * The limits of `makeObfuscation`. Lengths and counts are random, from 0 to the limit.
 *
 * @category options
 * @since 0.1.0
 */
export interface ObfuscationOptions {
  /**
   * The greatest length of the garbage, in bytes: 4,095 by default, as in Bitcoin Core. Garbage for a peer that is not known to support
   * version 2 has at most 175 bytes, also where this says more.
   */
  readonly maximumGarbage?: number | undefined
  /** The greatest number of decoys; 0 by default, as in Bitcoin Core. */
  readonly maximumDecoys?: number | undefined
  /** The greatest length of a decoy's contents, in bytes; 1,000 by default. */
  readonly maximumDecoyLength?: number | undefined
}

const obfuscationFrom = (
  { intBetween, randomBytes }: SecureRandom.SecureRandom["Service"],
  options: ObfuscationOptions
): Obfuscation => ({
  keyPair: Effect.sync(makeKeyPair),
  garbage: (maximumLength) =>
    Effect.flatMap(intBetween(0, Math.min(maximumLength, options.maximumGarbage ?? maxGarbageLength)), randomBytes),
  decoys: Effect.flatMap(intBetween(0, options.maximumDecoys ?? 0), (count) =>
    Effect.all(Array.from({ length: count }, () => intBetween(0, options.maximumDecoyLength ?? 1_000)))
  )
})

/**
 * Makes an `Obfuscation` with the `SecureRandom` of the context. Keys always come from the platform's secure randomness.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { SecureRandom } from "effect/crypto"
 * import { Transport } from "effect-bitcoin-peer"
 *
 * // Up to five decoys, for all peers that `program` makes.
 * export const withDecoys = <A, E, R>(program: Effect.Effect<A, E, R>) =>
 *   Transport.makeObfuscation({ maximumDecoys: 5 }).pipe(
 *     Effect.provide(SecureRandom.layerWebCrypto),
 *     Effect.flatMap((obfuscation) => Effect.provideService(program, Transport.Obfuscation, obfuscation))
 *   )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeObfuscation = (
  options: ObfuscationOptions = {}
): Effect.Effect<Obfuscation, never, SecureRandom.SecureRandom> =>
  Effect.map(SecureRandom.SecureRandom, (random) => obfuscationFrom(random, options))

/**
 * The obfuscation of all key exchanges in this context: by default garbage of random length and no decoys.
 *
 * @category services
 * @since 0.1.0
 */
export const Obfuscation = Context.Reference<Obfuscation>("effect-bitcoin-peer/Transport/Obfuscation", {
  defaultValue: () => obfuscationFrom(SecureRandom.make(SecureRandom.randomBytesUnsafe), {})
})

/**
 * Limits the key exchanges of inbound peers: each costs some milliseconds of CPU, and any remote can ask for one. A permit is one key
 * exchange in one turn of the event loop, so that other peers are served in between. One permit by default. Outbound peers do not
 * wait for a permit.
 *
 * @category services
 * @since 0.1.0
 */
export const Admission = Context.Reference<Semaphore.Semaphore>("effect-bitcoin-peer/Transport/Admission", {
  defaultValue: () => Semaphore.makeUnsafe(1)
})

/**
 * Addresses of nodes that support version 1 only.
 *
 * @category models
 * @since 0.1.0
 */
export interface V1Peers {
  /** Whether the address is in the set. Asking makes it the most recently used one. */
  readonly has: (address: Endpoint) => boolean
  readonly add: (address: Endpoint) => void
  readonly remove: (address: Endpoint) => void
}

/**
 * Makes an empty set of at most `capacity` addresses; an address above that replaces the least recently used one. 100 by default, as in
 * btcd.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeV1Peers = (capacity = 100): V1Peers => {
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
 * The addresses that "auto" dials with version 1 directly. An address is added when version 2 failed there, and removed when its node
 * offers P2P_V2 in a version 1 handshake.
 *
 * @category services
 * @since 0.1.0
 */
export const V1Peers = Context.Reference<V1Peers>("effect-bitcoin-peer/Transport/V1Peers", {
  defaultValue: () => makeV1Peers()
})
