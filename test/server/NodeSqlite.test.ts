/** Effect's `SqlClient` over `node:sqlite`: statements, values of every type, transactions, streams and errors. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Stream } from "effect"
import { SqlClient } from "effect/sql"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as NodeSqlite from "../../src/server/NodeSqlite.ts"

const Memory = NodeSqlite.layer({ filename: ":memory:" })

const test = (name: string, body: Effect.Effect<void, unknown, SqlClient.SqlClient>) =>
  it.effect(name, () => Effect.provide(body, Memory))

const folder = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "sqlite-"))),
  (folder) => Effect.sync(() => fs.rmSync(folder, { recursive: true }))
)

const table = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE item (id INTEGER PRIMARY KEY, value)`
  return sql
})

const idsOf = (sql: SqlClient.SqlClient) =>
  Effect.map(sql<{ id: number }>`SELECT id FROM item ORDER BY id`, (rows) => rows.map(({ id }) => id))

describe("NodeSqlite", () => {
  test(
    "gives back values of every type",
    Effect.gen(function* () {
      const sql = yield* table
      const values = [1n, 2.5, "text", null, Uint8Array.of(0, 1, 255), -(2n ** 63n), true, undefined]
      for (const [id, value] of values.entries()) yield* sql`INSERT INTO item ${sql.insert({ id, value })}`
      const read = sql`SELECT value FROM item ORDER BY id`.values.pipe(
        Effect.provideService(SqlClient.SafeIntegers, true)
      )
      assert.deepStrictEqual(
        (yield* read).map(([value]) => value),
        [1n, 2.5, "text", null, Uint8Array.of(0, 1, 255), -(2n ** 63n), 1n, null]
      )
    })
  )

  test(
    "gives rows as objects, also after values of the same statement",
    Effect.gen(function* () {
      const sql = yield* table
      yield* sql`INSERT INTO item ${sql.insert([
        { id: 1, value: "a" },
        { id: 2, value: "b" }
      ])}`
      const statement = sql<{ id: number; value: string }>`SELECT * FROM item`
      assert.deepStrictEqual(yield* statement.values, [
        [1, "a"],
        [2, "b"]
      ])
      assert.deepEqual(yield* statement, [
        { id: 1, value: "a" },
        { id: 2, value: "b" }
      ])
      assert.deepStrictEqual(yield* sql`SELECT count(*) FROM item`.valuesUnprepared, [[2]])
      assert.deepStrictEqual(yield* sql`UPDATE item SET value = 'c'`.raw, { changes: 2, lastInsertRowid: 2 })
    })
  )

  test(
    "keeps what a transaction wrote, and nothing of one that fails or is interrupted",
    Effect.gen(function* () {
      const sql = yield* table
      const insert = (id: number) => sql`INSERT INTO item (id) VALUES (${id})`
      yield* sql.withTransaction(Effect.andThen(insert(1), insert(2)))
      const failed = yield* Effect.exit(sql.withTransaction(Effect.andThen(insert(3), Effect.fail("no"))))
      assert.deepStrictEqual(failed, Exit.fail("no"))
      const begun = yield* Deferred.make<void>()
      const fiber = yield* insert(4).pipe(
        Effect.andThen(Deferred.succeed(begun, undefined)),
        Effect.andThen(Effect.never),
        sql.withTransaction,
        Effect.forkChild({ startImmediately: true })
      )
      yield* Deferred.await(begun)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* idsOf(sql), [1, 2])
    })
  )

  test(
    "rolls back a nested transaction alone",
    Effect.gen(function* () {
      const sql = yield* table
      const insert = (id: number) => sql`INSERT INTO item (id) VALUES (${id})`
      yield* sql.withTransaction(
        Effect.gen(function* () {
          yield* insert(1)
          yield* Effect.ignore(sql.withTransaction(Effect.andThen(insert(2), Effect.fail("no"))))
          yield* sql.withTransaction(insert(3))
        })
      )
      assert.deepStrictEqual(yield* idsOf(sql), [1, 3])
    })
  )

  test(
    "holds other statements until a transaction has ended",
    Effect.gen(function* () {
      const sql = yield* table
      const go = yield* Deferred.make<void>()
      const begun = yield* Deferred.make<void>()
      const writer = yield* sql`INSERT INTO item (id) VALUES (1)`.pipe(
        Effect.andThen(Deferred.succeed(begun, undefined)),
        Effect.andThen(Deferred.await(go)),
        Effect.andThen(Effect.fail("no")),
        sql.withTransaction,
        Effect.forkChild({ startImmediately: true })
      )
      yield* Deferred.await(begun)
      const reader = yield* Effect.forkChild(idsOf(sql), { startImmediately: true })
      assert.isUndefined(reader.pollUnsafe())
      yield* Deferred.succeed(go, undefined)
      assert.deepStrictEqual(yield* Fiber.join(reader), [])
      assert.isTrue(Exit.isFailure(yield* Fiber.await(writer)))
    })
  )

  test(
    "streams rows, and lets go of the table when the reader has enough",
    Effect.gen(function* () {
      const sql = yield* table
      yield* sql.withTransaction(Effect.forEach(Array(1_000).keys(), (id) => sql`INSERT INTO item (id) VALUES (${id})`))
      const all = yield* Stream.runCollect(sql<{ id: number }>`SELECT id FROM item ORDER BY id`.stream)
      assert.deepStrictEqual(
        Array.from(all, ({ id }) => id),
        [...Array(1_000).keys()]
      )
      const few = yield* sql`SELECT id FROM item`.stream.pipe(Stream.take(200), Stream.runCollect)
      assert.strictEqual(few.length, 200)
      // An open reader makes this fail with "database table is locked".
      yield* sql`DROP TABLE item`
    })
  )

  test(
    "fails with the kind of the error, and goes on",
    Effect.gen(function* () {
      const sql = yield* table
      yield* sql`CREATE TABLE pair (name TEXT UNIQUE, other TEXT NOT NULL)`
      yield* sql`INSERT INTO pair VALUES ('a', 'b')`
      const reasonOf = <A>(effect: Effect.Effect<A, { readonly reason: { readonly _tag: string } }>) =>
        Effect.map(Effect.flip(effect), ({ reason }) => reason._tag)
      assert.strictEqual(yield* reasonOf(sql`INSERT INTO pair VALUES ('a', 'c')`), "UniqueViolation")
      assert.strictEqual(yield* reasonOf(sql`INSERT INTO pair VALUES ('b', ${null})`), "ConstraintError")
      const nonsense = yield* Effect.flip(sql`SELEKT`)
      assert.include(nonsense.message, `near "SELEKT": syntax error`)
      assert.include((yield* Effect.flip(sql`SELECT ${Symbol("x")}`)).message, "cannot be bound")
      assert.strictEqual(yield* reasonOf(Stream.runCollect(sql`SELECT * FROM nothing`.stream)), "UnknownError")
      assert.deepStrictEqual(yield* sql`SELECT name FROM pair`.values, [["a"]])
    })
  )

  it.effect("keeps a file over two clients", () =>
    Effect.gen(function* () {
      const filename = path.join(yield* folder, "a.db")
      const write = Effect.flatMap(table, (sql) => sql`INSERT INTO item (id) VALUES (7)`)
      yield* Effect.provide(write, NodeSqlite.layer({ filename }))
      const read = Effect.flatMap(SqlClient.SqlClient, idsOf)
      assert.deepStrictEqual(yield* Effect.provide(read, NodeSqlite.layer({ filename })), [7])
      assert.deepStrictEqual(fs.readdirSync(path.dirname(filename)), ["a.db"])

      const readOnly = NodeSqlite.layer({ filename, readonly: true })
      const refused = yield* SqlClient.SqlClient.pipe(
        Effect.flatMap((sql) => sql`DELETE FROM item`),
        Effect.provide(readOnly),
        Effect.flip
      )
      assert.include(refused.message, "readonly database")
    })
  )

  it.effect("says which file cannot be opened", () =>
    Effect.gen(function* () {
      const place = yield* folder
      const opened = (filename: string) => Effect.flip(Layer.build(NodeSqlite.layer({ filename })))
      const missing = path.join(place, "missing/a.db")
      const error = yield* opened(missing)
      assert.strictEqual(error.reason._tag, "ConnectionError")
      assert.include(error.message, `could not open ${missing}`)
      const text = path.join(place, "text")
      fs.writeFileSync(text, "this is no database ".repeat(100))
      assert.include((yield* opened(text)).message, "not a database")
    })
  )
})
