/** Stores in memory and in a database, the errors of stores, and the faulty store of other tests. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Option } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import * as NodeSqlite from "../../src/server/NodeSqlite.ts"
import * as SqlStore from "../../src/server/SqlStore.ts"
import * as Store from "../../src/server/Store.ts"
import { storeCompliance } from "../support/storeCompliance.ts"
import { makeFaulty } from "../support/stores.ts"

storeCompliance("a store in memory", Store.layerMemory)

const sqlite = NodeSqlite.layer({ filename: ":memory:" })
storeCompliance("a store in SQLite", Layer.provide(SqlStore.layer, sqlite))
storeCompliance(
  "a faulty store without faults",
  Layer.sync(Store.Store, () => makeFaulty(Store.makeMemory()).store)
)

describe("a store in a database", () => {
  it.effect("is one table, with the time of each save in milliseconds", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* SqlStore.make
      yield* TestClock.setTime(1_800_000_000_123)
      yield* store.save("anchors.dat", Uint8Array.of(1))
      assert.deepStrictEqual(yield* sql`SELECT * FROM blob`.values, [
        ["anchors.dat", Uint8Array.of(1), 1_800_000_000_123]
      ])
    }).pipe(Effect.provide(sqlite))
  )

  it.effect("is found again by the next store", () =>
    Effect.gen(function* () {
      yield* (yield* SqlStore.make).save("anchors.dat", Uint8Array.of(1))
      assert.deepStrictEqual(yield* (yield* SqlStore.make).load("anchors.dat"), Option.some(Uint8Array.of(1)))
    }).pipe(Effect.provide(sqlite))
  )

  it.effect("fails with the operation and the name", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* SqlStore.make
      yield* sql`DROP TABLE blob`
      const error = yield* Effect.flip(store.save("peers.dat", new Uint8Array(1)))
      assert.match(error.message, /^cannot save peers.dat: .*; the bytes of the last save are still there$/)
      assert.include((yield* Effect.flip(store.load("peers.dat"))).message, "cannot load peers.dat")
    }).pipe(Effect.provide(sqlite))
  )
})

describe("a faulty store", () => {
  it.effect("is full, then has space again", () =>
    Effect.gen(function* () {
      const { faults, operations, store } = makeFaulty(Store.makeMemory(), { save: "Full" })
      const error = yield* Effect.flip(store.save("peers.dat", Uint8Array.of(1)))
      assert.strictEqual(
        error.message,
        "cannot save peers.dat: no space is left; the bytes of the last save are still there"
      )
      assert.isTrue(Option.isNone(yield* store.load("peers.dat")))
      faults.save = undefined
      yield* store.save("peers.dat", Uint8Array.of(1))
      assert.isTrue(Option.isSome(yield* store.load("peers.dat")))
      assert.deepStrictEqual(operations, ["save peers.dat", "load peers.dat", "save peers.dat", "load peers.dat"])
    })
  )

  it.effect("takes time", () =>
    Effect.gen(function* () {
      const { store } = makeFaulty(Store.makeMemory(), { delay: 5_000 })
      const fiber = yield* Effect.forkChild(store.load("peers.dat"), { startImmediately: true })
      yield* TestClock.adjust(4_999)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.isTrue(Option.isNone(yield* Fiber.join(fiber)))
    })
  )
})
