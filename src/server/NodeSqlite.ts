/**
 * Effect's `SqlClient` over the SQLite of Node itself (`node:sqlite`): no package and no native code to install.
 *
 * The drivers of `@effect/sql-*` for SQLite do not load with Effect 4.1: their newest versions import modules that 4.1
 * does not have. Replace this module by `@effect/sql-sqlite-node` once a version for 4.1 is out; the service is the same.
 *
 * This module needs Node, so it is not in the barrel: `import * as NodeSqlite from "effect-bitcoin-peer/server/NodeSqlite"`.
 */
import { isReadonlyArrayNonEmpty } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { classifySqliteError, SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import type { DatabaseSync, SQLInputValue, SQLOutputValue, StatementSync } from "node:sqlite"

/**
 * The database, and how to open it.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The path of the database, which is made if it is missing. ":memory:" is a database that ends with the client. */
  readonly filename: string
  /** Whether nothing can be written, and a missing database is an error; false by default. */
  readonly readonly?: boolean | undefined
  /** How long a statement waits, blocking the thread, while another process writes; 5 s by default. */
  readonly busyTimeout?: Duration.Input | undefined
}

/** Prepared statements that are kept: more than the different statements of a program that binds its parameters. */
const maximumPrepared = 200

/** Rows that a stream reads at a time. */
const rowsPerChunk = 128

const failure = (cause: unknown, operation: string): SqlError => {
  // Node names the number of SQLite `errcode`. Effect looks for it in `errno`, as other drivers name it.
  if (cause instanceof Error && "errcode" in cause) Object.assign(cause, { errno: cause.errcode })
  return new SqlError({
    reason: classifySqliteError(cause, { message: `SQLite could not ${operation}: ${String(cause)}`, operation })
  })
}

const attempt = <A>(operation: string, evaluate: () => A): Effect.Effect<A, SqlError> =>
  Effect.try({ try: evaluate, catch: (cause) => failure(cause, operation) })

/** SQLite has neither truth values nor `undefined`. A value of another unknown type fails in Node. */
const bindable = (params: ReadonlyArray<unknown>): Array<SQLInputValue> =>
  params.map((value) =>
    value === undefined ? null : typeof value === "boolean" ? BigInt(value) : value
  ) as Array<SQLInputValue>

/** Makes the statement of a text, or finds it among the kept ones. */
type Prepare = (sql: string) => StatementSync

const run = <A>(prepare: Prepare, sql: string, use: (statement: StatementSync) => A) =>
  Effect.withFiber<A, SqlError>((fiber) =>
    attempt("execute the statement", () => {
      const statement = prepare(sql)
      statement.setReadBigInts(fiber.getRef(SqlClient.SafeIntegers))
      return use(statement)
    })
  )

const rows =
  (prepare: Prepare): Connection["execute"] =>
  (sql, params, transformRows = identity) =>
    run(prepare, sql, (statement) => transformRows(statement.all(...bindable(params))))

const values =
  (prepare: Prepare): Connection["executeValues"] =>
  (sql, params) =>
    run(prepare, sql, (statement) => {
      statement.setReturnArrays(true)
      try {
        return statement.all(...bindable(params)) as unknown as ReadonlyArray<ReadonlyArray<unknown>>
      } finally {
        statement.setReturnArrays(false)
      }
    })

const nextRows = (
  iterator: Iterator<Record<string, SQLOutputValue>>
): ReadonlyArray<Record<string, SQLOutputValue>> => {
  const rows: Array<Record<string, SQLOutputValue>> = []
  while (rows.length < rowsPerChunk) {
    const next = iterator.next()
    if (next.done === true) break
    rows.push(next.value)
  }
  return rows
}

const makeConnection = (database: DatabaseSync): Connection => {
  /** The order is that of the last use, oldest first. */
  const prepared = new Map<string, StatementSync>()
  const kept: Prepare = (sql) => {
    const statement = prepared.get(sql) ?? database.prepare(sql)
    prepared.delete(sql)
    prepared.set(sql, statement)
    for (const oldest of prepared.keys()) {
      if (prepared.size <= maximumPrepared) break
      prepared.delete(oldest)
    }
    return statement
  }
  const once: Prepare = (sql) => database.prepare(sql)

  return {
    execute: rows(kept),
    executeUnprepared: rows(once),
    executeValues: values(kept),
    executeValuesUnprepared: values(once),
    executeRaw: (sql, params) => run(kept, sql, (statement) => statement.run(...bindable(params))),
    // The statement is not one of the kept ones: another reader must not reset it. `return` ends it when the reader has enough.
    executeStream: (sql, params, transformRows = identity) =>
      Effect.acquireRelease(
        run(once, sql, (statement) => statement.iterate(...bindable(params))),
        (iterator) => Effect.sync(() => iterator.return?.())
      ).pipe(
        Effect.map((iterator) =>
          Stream.fromPull(
            Effect.succeed(
              Effect.flatMap(
                attempt("read the next rows", () => transformRows(nextRows(iterator))),
                (chunk) => (isReadonlyArrayNonEmpty(chunk) ? Effect.succeed(chunk) : Cause.done())
              )
            )
          )
        ),
        Stream.unwrap
      )
  }
}

/**
 * Opens a database, for as long as the scope lives. A file is opened with a write-ahead log: readers do not wait for the writer, and
 * a power cut loses transactions of the last moment at most, never the database.
 *
 * A statement runs to its end on the thread of JavaScript. A transaction has the connection to itself; other statements wait for its
 * end. Fails with `SqlError` if the database cannot be opened.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<SqlClient.SqlClient, SqlError, Scope.Scope | Reactivity.Reactivity> {
  const { busyTimeout = "5 seconds", filename, readonly: readOnly = false } = options
  const database = yield* Effect.acquireRelease(
    attempt(`open ${filename}`, () => {
      // Loaded when it is needed: Node 22 warns on stderr that it is new, which would meet every user of the command `btcpeer`.
      const { DatabaseSync } = process.getBuiltinModule("node:sqlite")
      const database = new DatabaseSync(filename, { readOnly, timeout: Duration.toMillis(busyTimeout) })
      try {
        if (!readOnly) database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
        // Opening reads nothing. This finds a file that is no database.
        database.exec("PRAGMA schema_version")
        return database
      } catch (error) {
        database.close()
        throw error
      }
    }),
    (database) => Effect.sync(() => database.close())
  )
  const { acquirer, borrower, onCommitFailure, transactionAcquirer } = SqlClient.makeSqliteAcquirers({
    connection: Effect.succeed(makeConnection(database)),
    semaphore: yield* Semaphore.make(1)
  })
  return yield* SqlClient.make({
    acquirer,
    borrower,
    transactionAcquirer,
    onCommitFailure,
    isTransaction: () => database.isTransaction,
    compiler: Statement.makeCompilerSqlite(),
    driver: "node-sqlite",
    prepareTransactionControls: true,
    releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
    spanAttributes: [["db.system.name", "sqlite"]]
  })
})

/**
 * Effect's `SqlClient` with the database of `make`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { SqlClient } from "effect/sql"
 * import * as NodeSqlite from "effect-bitcoin-peer/server/NodeSqlite"
 *
 * const program = Effect.gen(function*() {
 *   const sql = yield* SqlClient.SqlClient
 *   yield* sql`CREATE TABLE visit (address TEXT PRIMARY KEY, at INTEGER NOT NULL)`
 *   yield* sql`INSERT INTO visit ${sql.insert({ address: "1.2.3.4:8333", at: 1_800_000_000 })}`
 *   return yield* sql<{ address: string }>`SELECT address FROM visit WHERE at > ${0}`
 * }).pipe(Effect.provide(NodeSqlite.layer({ filename: ":memory:" })))
 *
 * console.log((await Effect.runPromise(program)).map(({ address }) => address)) // ["1.2.3.4:8333"]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<SqlClient.SqlClient, SqlError> =>
  Layer.effect(SqlClient.SqlClient, make(options)).pipe(Layer.provide(Reactivity.layer))
