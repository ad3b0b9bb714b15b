/** The rules that every store keeps. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer, Option } from "effect"
import { TestClock } from "effect/testing"
import { Store } from "../../src/server/Store.ts"

/** Declares the tests of one kind of store. The layer gives an empty store each time it is built. */
export const storeCompliance = (kind: string, layer: Layer.Layer<Store, unknown>): void => {
  const rule = (name: string, body: (store: Store) => Effect.Effect<void, unknown>) =>
    it.effect(name, () => Effect.flatMap(Store, body).pipe(Effect.provide(layer)))
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes)
  const bytes = (text: string) => new TextEncoder().encode(text)

  describe(kind, () => {
    rule(
      "has nothing under a name before the first save",
      Effect.fnUntraced(function* (store) {
        assert.isTrue(Option.isNone(yield* store.load("peers.dat")))
      })
    )

    rule(
      "gives back the bytes of the last save under each name",
      Effect.fnUntraced(function* (store) {
        yield* store.save("peers.dat", bytes("old and longer"))
        yield* store.save("banlist.json", bytes("other"))
        yield* store.save("peers.dat", bytes("new"))
        yield* store.save("empty", new Uint8Array(0))
        assert.strictEqual(text(Option.getOrThrow(yield* store.load("peers.dat"))), "new")
        assert.strictEqual(text(Option.getOrThrow(yield* store.load("banlist.json"))), "other")
        assert.deepStrictEqual(yield* store.load("empty"), Option.some(new Uint8Array(0)))
      })
    )

    rule(
      "keeps what was saved when the bytes in memory change",
      Effect.fnUntraced(function* (store) {
        const saved = bytes("a")
        yield* store.save("anchors.dat", saved)
        saved.fill(0)
        const first = Option.getOrThrow(yield* store.load("anchors.dat"))
        first.fill(0)
        assert.strictEqual(text(Option.getOrThrow(yield* store.load("anchors.dat"))), "a")
      })
    )

    rule(
      "puts bytes aside under a name with the time",
      Effect.fnUntraced(function* (store) {
        yield* TestClock.setTime(1_800_000_000_999)
        yield* store.save("peers.dat", bytes("broken"))
        const name = yield* store.quarantine("peers.dat")
        assert.strictEqual(name, "peers.dat.corrupt-1800000000")
        assert.isTrue(Option.isNone(yield* store.load("peers.dat")))
        assert.strictEqual(text(Option.getOrThrow(yield* store.load(name))), "broken")
      })
    )

    rule(
      "says that there is nothing to put aside",
      Effect.fnUntraced(function* (store) {
        const error = yield* Effect.flip(store.quarantine("peers.dat"))
        assert.strictEqual(error.problem, "NotFound")
        assert.include(error.message, "cannot quarantine peers.dat: there is no file of that name")
      })
    )

    rule(
      "takes no name that leads elsewhere",
      Effect.fnUntraced(function* (store) {
        for (const name of ["", ".lock", "../peers.dat", "a/b", "a\\b", "a\0", "x".repeat(101)]) {
          for (const operation of [store.load(name), store.save(name, bytes("")), store.quarantine(name)]) {
            assert.strictEqual((yield* Effect.flip(operation)).problem, "BadName", name)
          }
        }
      })
    )

    rule(
      "keeps one of the bytes that are saved at once",
      Effect.fnUntraced(function* (store) {
        const texts = Array.from({ length: 20 }, (_, i) => String(i).repeat(1_000))
        yield* Effect.forEach(texts, (text) => store.save("peers.dat", bytes(text)), { concurrency: "unbounded" })
        assert.include(texts, text(Option.getOrThrow(yield* store.load("peers.dat"))))
      })
    )
  })
}
