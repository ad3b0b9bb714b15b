/**
 * A store in a database, for servers without a disk of their own. It is a module of its own, because loading Effect's SQL takes 40 ms,
 * which a server with files does not need.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as SqlClient from "effect/sql/SqlClient"
import { make as makeStore, notFound, Store, StoreError } from "./Store.ts"

const failed = (operation: StoreError["operation"], name: string) =>
  Effect.mapError((cause: unknown) => new StoreError({ operation, name, problem: "Other", cause }))

/**
 * Makes a store in one table of a database, `blob`, which is made if it is missing: the name, the bytes, and the time of the save in
 * milliseconds. The statements are those of SQLite and PostgreSQL. Fails with `StoreError` if the table cannot be made.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<Store, StoreError, SqlClient.SqlClient> = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const type = sql.onDialectOrElse({ pg: () => sql.literal("BYTEA"), orElse: () => sql.literal("BLOB") })
  yield* sql`CREATE TABLE IF NOT EXISTS blob (
    name TEXT PRIMARY KEY, bytes ${type} NOT NULL, updated BIGINT NOT NULL
  )`.pipe(failed("open", "the table blob"))
  return makeStore({
    load: (name) =>
      sql<{ readonly bytes: Uint8Array }>`SELECT bytes FROM blob WHERE name = ${name}`.pipe(
        Effect.map(([row]) => Option.map(Option.fromUndefinedOr(row), ({ bytes }) => new Uint8Array(bytes))),
        failed("load", name)
      ),
    save: (name, bytes) =>
      Effect.flatMap(
        Clock.currentTimeMillis,
        (updated) => sql`INSERT INTO blob ${sql.insert({ name, bytes, updated })}
          ON CONFLICT (name) DO UPDATE SET bytes = excluded.bytes, updated = excluded.updated`
      ).pipe(Effect.asVoid, failed("save", name)),
    rename: (name, newName) =>
      sql`UPDATE blob SET name = ${newName} WHERE name = ${name} RETURNING name`.pipe(
        failed("quarantine", name),
        Effect.flatMap((rows) => (rows.length === 0 ? Effect.fail(notFound(name)) : Effect.void))
      )
  })
})

/**
 * The store of `make`, in the database of the context.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Store, StoreError, SqlClient.SqlClient> = Layer.effect(Store, make)
