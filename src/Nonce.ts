/**
 * Nonces of this program's `version` messages, and the check that finds a connection to ourselves.
 *
 * Every `version` carries 64 random bits. A node that receives one of its own has connected to itself. What is "own" is
 * decided by the `Context`: peers that share one `Nonce` service are one node, two services in one process are two.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Nonce } from "effect-bitcoin-peer"
 *
 * const program = Effect.gen(function*() {
 *   const nonces = yield* Nonce.Nonce
 *   const nonce = yield* nonces.next
 *   return nonces.isOwn(nonce) // true
 * }).pipe(Effect.provide(Nonce.layer))
 *
 * Effect.runSync(program)
 * ```
 */
import * as Context from "effect/Context"
import { SecureRandom } from "effect/crypto"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/** How many nonces are remembered: those of the connections whose handshake is young enough to matter. As in btcd. */
export const defaultCapacity = 50

/** Asking the system costs 7 µs, however few bytes it is asked for: 32 nonces at a time. */
const poolSize = 256

export interface Nonce {
  /** A new nonce for a `version`: 64 secure random bits, never 0, remembered until `capacity` newer ones were made. */
  readonly next: Effect.Effect<bigint>
  /** 64 secure random bits that are not remembered, never 0: for a ping. */
  readonly unremembered: Effect.Effect<bigint>
  /**
   * Whether `next` made it and it is still remembered. Asking makes it the most recently used. Ask for the nonce of a version message
   * that a peer sent: what is own has then been received.
   */
  readonly isOwn: (nonce: bigint) => boolean
  /** Whether `isOwn` has found this nonce: the connection whose version carried it is a connection to ourselves. */
  readonly wasReceived: (nonce: bigint) => boolean
}

/**
 * The key of the service `Nonce` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const Nonce: Context.Service<Nonce, Nonce> = Context.Service<Nonce>("effect-bitcoin-peer/Nonce")

/** Makes the service over the `SecureRandom` of the context. */
export const make = Effect.fnUntraced(function* (options?: {
  readonly capacity?: number | undefined
}): Effect.fn.Return<Nonce, never, SecureRandom.SecureRandom> {
  const random = yield* SecureRandom.SecureRandom
  const capacity = options?.capacity ?? defaultCapacity
  /**
   * Each nonce, with whether it was received. A Map keeps the order of insertion: its first entry is the least recently used one.
   */
  const remembered = new Map<bigint, boolean>()

  let pool: DataView = new DataView(new ArrayBuffer(0))
  let used = 0
  const refill = Effect.map(random.randomBytes(poolSize), (bytes) => {
    pool = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    used = 0
  })
  const unremembered: Effect.Effect<bigint> = Effect.suspend(() => {
    while (used < pool.byteLength) {
      const nonce = pool.getBigUint64(used, true)
      used += 8
      if (nonce !== 0n) return Effect.succeed(nonce)
    }
    return Effect.andThen(refill, unremembered)
  })

  const next = Effect.map(unremembered, (nonce) => {
    remembered.set(nonce, false)
    for (const oldest of remembered.keys()) {
      if (remembered.size <= capacity) break
      remembered.delete(oldest)
    }
    return nonce
  })

  const isOwn = (nonce: bigint): boolean => {
    if (!remembered.delete(nonce)) return false
    remembered.set(nonce, true)
    return true
  }
  const wasReceived = (nonce: bigint): boolean => remembered.get(nonce) === true

  return { next, unremembered, isOwn, wasReceived }
})

/** The service over a `SecureRandom` that the caller provides. */
export const layerNoDeps: Layer.Layer<Nonce, never, SecureRandom.SecureRandom> = Layer.effect(Nonce, make())

/** The service over the platform's `crypto.getRandomValues`: Node and browsers. */
export const layer: Layer.Layer<Nonce> = Layer.provide(layerNoDeps, SecureRandom.layerWebCrypto)
