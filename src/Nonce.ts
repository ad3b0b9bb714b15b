/**
 * Nonces of our `version` messages, and the check that finds a connection to ourselves.
 *
 * Every `version` carries 64 random bits. A node that receives one of its own nonces has connected to itself. The
 * service in the context decides which nonces are its own: peers that share one `Nonce` service are one node, and two
 * services in one process are two nodes.
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

/**
 * The number of nonces that are remembered, 50 as in btcd. A nonce is needed during the handshake of its connection
 * only.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultCapacity = 50

/** A request to the system for random bytes takes 7 µs for any number of them. So 32 nonces are requested at a time. */
const poolSize = 4096

/**
 * The nonces of one node.
 *
 * @category models
 * @since 0.1.0
 */
export interface Nonce {
  /**
   * A new nonce for a `version` message: 64 secure random bits, never 0. It is remembered until `capacity` newer ones
   * were made.
   */
  readonly next: Effect.Effect<bigint>
  /** 64 secure random bits, never 0, for a ping. They are not remembered. */
  readonly unremembered: Effect.Effect<bigint>
  /**
   * Whether `next` made this nonce and still remembers it. Call it with the nonce of a version message that a peer sent:
   * it marks an own nonce as received, and makes it the most recently used one.
   */
  readonly isOwn: (nonce: bigint) => boolean
  /**
   * Whether `isOwn` was called with this nonce and found it. The connection whose version message carried it is then one
   * to ourselves.
   */
  readonly wasReceived: (nonce: bigint) => boolean
}

/**
 * The key of the service `Nonce` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const Nonce: Context.Service<Nonce, Nonce> = Context.Service<Nonce>("effect-bitcoin-peer/Nonce")

/**
 * Makes the service with the `SecureRandom` of the context. `capacity` is the number of nonces to remember.
 *
 * @category constructors
 * @since 0.1.0
 */
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

/**
 * The service with a `SecureRandom` that the caller provides.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNoDeps: Layer.Layer<Nonce, never, SecureRandom.SecureRandom> = Layer.effect(Nonce, make())

/**
 * The service with the platform's `crypto.getRandomValues`, in Node and in browsers.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Nonce> = Layer.provide(layerNoDeps, SecureRandom.layerWebCrypto)

/**
 * The same, and remembers this number of nonces: at least as many as handshakes run at once. `Server` remembers 64 more than that.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: { readonly capacity: number }): Layer.Layer<Nonce> =>
  Layer.provide(Layer.effect(Nonce, make(options)), SecureRandom.layerWebCrypto)
