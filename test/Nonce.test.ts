/** The Nonce service, which detects connections to ourselves. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { SecureRandom } from "effect/crypto"
import { Nonce } from "effect-bitcoin-peer"

/** Secure randomness that returns these numbers in order. */
const scripted = (numbers: ReadonlyArray<bigint>) => {
  let next = 0
  return Layer.succeed(
    SecureRandom.SecureRandom,
    SecureRandom.make((size) => {
      const bytes = new Uint8Array(size)
      new DataView(bytes.buffer).setBigUint64(0, numbers[next++]!, true)
      return bytes
    })
  )
}

describe("Nonce", () => {
  it.effect("makes 64-bit nonces with all bits from the secure randomness", () =>
    Effect.gen(function* () {
      const nonces = yield* Nonce.Nonce
      assert.strictEqual(yield* nonces.next, 0xffff_ffff_ffff_fffen)
      assert.strictEqual(yield* nonces.next, 1n)
    }).pipe(Effect.provide(Nonce.layerNoDeps.pipe(Layer.provide(scripted([0xffff_ffff_ffff_fffen, 1n])))))
  )

  it.effect("never makes the nonce 0", () =>
    Effect.gen(function* () {
      const nonces = yield* Nonce.Nonce
      assert.strictEqual(yield* nonces.next, 7n)
      assert.strictEqual(yield* nonces.unremembered, 9n)
    }).pipe(Effect.provide(Nonce.layerNoDeps.pipe(Layer.provide(scripted([0n, 0n, 7n, 0n, 9n])))))
  )

  it.effect("recognises its own nonces and no others", () =>
    Effect.gen(function* () {
      const nonces = yield* Nonce.Nonce
      const own = yield* nonces.next
      assert.isTrue(nonces.isOwn(own))
      assert.isFalse(nonces.isOwn(own ^ 1n))
      assert.isFalse(nonces.isOwn(0n))
      assert.isFalse(nonces.isOwn(yield* nonces.unremembered))
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("records which of its own nonces were received", () =>
    Effect.gen(function* () {
      const nonces = yield* Nonce.Nonce
      const [first, second] = [yield* nonces.next, yield* nonces.next]
      nonces.isOwn(first)
      nonces.isOwn(7n)
      assert.deepStrictEqual([first, second, 7n].map(nonces.wasReceived), [true, false, false])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("remembers the 50 most recently used ones", () =>
    Effect.gen(function* () {
      const nonces = yield* Nonce.Nonce
      const made = yield* Effect.forEach(Array.from({ length: 50 }), () => nonces.next)
      assert.isTrue(made.every(nonces.isOwn))
      assert.isTrue(nonces.isOwn(made[0]!))
      yield* nonces.next
      // The first nonce was used last, so the second one is forgotten.
      assert.isTrue(nonces.isOwn(made[0]!))
      assert.isFalse(nonces.isOwn(made[1]!))
      assert.isTrue(nonces.isOwn(made[2]!))
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("belongs to its context: two services do not know each other's nonces", () =>
    Effect.gen(function* () {
      const build = Effect.map(Layer.build(Layer.fresh(Nonce.layer)), (context) => Context.get(context, Nonce.Nonce))
      const first = yield* build
      const second = yield* build
      const nonce = yield* first.next
      assert.isTrue(first.isOwn(nonce))
      assert.isFalse(second.isOwn(nonce))
    })
  )
})
