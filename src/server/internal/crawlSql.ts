/** The frontier of a crawl as rows of a table, by Effect's `SqlClient`. The statements are of the SQL that SQLite and PostgreSQL share. */
import { isReadonlyArrayNonEmpty, map, type NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import { encode as hex } from "effect/encoding/Hex"
import * as Result from "effect/Result"
import * as SqlClient from "effect/sql/SqlClient"
import { format, parse } from "../../Address.ts"
import type { Network } from "../../Network.ts"
import { hexOfServices } from "./keys.ts"
import { networkNameOf } from "./networkNames.ts"
import { CrawlError } from "./crawlError.ts"
import type { Entry, EntryState } from "./crawlFrontier.ts"

/** Rows that one statement writes: SQLite takes 32,766 parameters. */
const rowsPerStatement = 500
/** The version of the tables. */
const version = "1"

/** PostgreSQL's driver gives integers of 64 bits as text. */
type Integer = number | string

/** A row of `crawl_address`. Services are 16 digits: SQLite has no unsigned integers of 64 bits. */
type Row = {
  readonly address: string
  readonly network: string
  readonly state: string
  readonly services: string
  readonly seen_at: Integer
  readonly added_at: Integer
  readonly due_at: Integer
  readonly visited_at: Integer
  readonly reached_at: Integer
  readonly reached_since: Integer
  readonly visits: Integer
  readonly successes: Integer
  readonly failures: Integer
  readonly problem: string | null
  readonly protocol_version: Integer | null
  readonly user_agent: string | null
  readonly start_height: Integer | null
  readonly transport: string | null
  readonly uptime: string
}

const columns = [
  "address",
  "network",
  "state",
  "services",
  "seen_at",
  "added_at",
  "due_at",
  "visited_at",
  "reached_at",
  "reached_since",
  "visits",
  "successes",
  "failures",
  "problem",
  "protocol_version",
  "user_agent",
  "start_height",
  "transport",
  "uptime"
] as const satisfies ReadonlyArray<keyof Row>

const toRow = (entry: Entry): Row => ({
  address: format(entry.address),
  network: networkNameOf(entry.address),
  state: entry.state,
  services: hexOfServices(entry.services),
  seen_at: entry.seenAt,
  added_at: entry.addedAt,
  due_at: entry.dueAt,
  visited_at: entry.visitedAt,
  reached_at: entry.reachedAt,
  reached_since: entry.reachedSince,
  visits: entry.visits,
  successes: entry.successes,
  failures: entry.failures,
  problem: entry.problem ?? null,
  protocol_version: entry.node?.protocolVersion ?? null,
  user_agent: entry.node?.userAgent ?? null,
  start_height: entry.node?.startHeight ?? null,
  transport: entry.node?.transport ?? null,
  uptime: entry.uptime.map((value) => Number(value.toPrecision(6))).join(" ")
})

const states = new Set<string>(["new", "visiting", "reached", "failed"] satisfies ReadonlyArray<EntryState>)

/** The entry of a row. `undefined` for a row that is not valid: it is skipped. */
const fromRow = (row: Row): Entry | undefined => {
  const address = Result.getOrUndefined(parse(row.address))
  if (address === undefined || !states.has(row.state) || !/^[0-9a-f]{1,16}$/.test(row.services)) return undefined
  const numbers = row.uptime === "" ? [] : row.uptime.split(" ").map(Number)
  return {
    address,
    state: row.state as EntryState,
    services: BigInt(`0x${row.services}`),
    seenAt: Number(row.seen_at),
    addedAt: Number(row.added_at),
    dueAt: Number(row.due_at),
    visitedAt: Number(row.visited_at),
    reachedAt: Number(row.reached_at),
    reachedSince: Number(row.reached_since),
    visits: Number(row.visits),
    successes: Number(row.successes),
    failures: Number(row.failures),
    problem: row.problem ?? undefined,
    node:
      row.user_agent === null
        ? undefined
        : {
            protocolVersion: Number(row.protocol_version),
            userAgent: row.user_agent,
            startHeight: Number(row.start_height),
            transport: row.transport === "v2" ? "v2" : "v1"
          },
    uptime: numbers.every(Number.isFinite) ? numbers : []
  }
}

const chunksOf = <A>(all: ReadonlyArray<A>): ReadonlyArray<NonEmptyReadonlyArray<A>> => {
  const chunks: Array<NonEmptyReadonlyArray<A>> = []
  for (let from = 0; from < all.length; from += rowsPerStatement) {
    const chunk = all.slice(from, from + rowsPerStatement)
    if (isReadonlyArrayNonEmpty(chunk)) chunks.push(chunk)
  }
  return chunks
}

const storeFailed = (operation: "load" | "save") =>
  Effect.mapError((error: unknown) =>
    error instanceof CrawlError ? error : new CrawlError({ reason: { _tag: "StoreFailed", operation, cause: error } })
  )

const wrongStore = (problem: string) => new CrawlError({ reason: { _tag: "WrongStore", problem } })

/** Both operations, over the client of the context. */
export const makeSqlStore = Effect.map(SqlClient.SqlClient, (sql) => {
  const open = Effect.fnUntraced(function* (network: Network) {
    yield* sql`CREATE TABLE IF NOT EXISTS crawl_info (name TEXT PRIMARY KEY, value TEXT NOT NULL)`
    yield* sql`CREATE TABLE IF NOT EXISTS crawl_address (
      address TEXT PRIMARY KEY,
      network TEXT NOT NULL,
      state TEXT NOT NULL,
      services TEXT NOT NULL,
      seen_at BIGINT NOT NULL,
      added_at BIGINT NOT NULL,
      due_at BIGINT NOT NULL,
      visited_at BIGINT NOT NULL,
      reached_at BIGINT NOT NULL,
      reached_since BIGINT NOT NULL,
      visits INTEGER NOT NULL,
      successes INTEGER NOT NULL,
      failures INTEGER NOT NULL,
      problem TEXT,
      protocol_version BIGINT,
      user_agent TEXT,
      start_height BIGINT,
      transport TEXT,
      uptime TEXT NOT NULL
    )`
    const info = yield* sql<{ readonly name: string; readonly value: string }>`SELECT name, value FROM crawl_info`
    const saved = new Map(info.map(({ name, value }) => [name, value]))
    const magic = hex(network.magic)
    if (saved.size === 0) {
      const about = { version, network: network.name, magic }
      for (const [name, value] of Object.entries(about)) {
        yield* sql`INSERT INTO crawl_info ${sql.insert({ name, value })}`
      }
      return
    }
    if (saved.get("version") !== version) {
      return yield* wrongStore(`it has version ${saved.get("version") ?? "?"} instead of ${version}`)
    }
    if (saved.get("magic") !== magic) {
      return yield* wrongStore(
        `it is of ${saved.get("network") ?? "another network"}, and the crawl of ${network.name}`
      )
    }
  })

  const load = (network: Network): Effect.Effect<ReadonlyArray<Entry>, CrawlError> =>
    sql.withTransaction(open(network)).pipe(
      // The order of visits is that in which failed addresses make room for others.
      Effect.andThen(sql<Row>`SELECT * FROM crawl_address ORDER BY visited_at, due_at, added_at`),
      Effect.map((rows) => rows.flatMap((row) => fromRow(row) ?? [])),
      storeFailed("load")
    )

  const overwrite = sql.literal(
    columns
      .slice(1)
      .map((column) => `${column} = excluded.${column}`)
      .join(", ")
  )
  const save = (changed: ReadonlyArray<Entry>, removed: ReadonlyArray<Entry>): Effect.Effect<void, CrawlError> =>
    sql
      .withTransaction(
        Effect.gen(function* () {
          for (const chunk of chunksOf(changed)) {
            const rows = map(chunk, toRow)
            yield* sql`INSERT INTO crawl_address ${sql.insert(rows)} ON CONFLICT (address) DO UPDATE SET ${overwrite}`
          }
          for (const chunk of chunksOf(removed)) {
            const addresses = chunk.map(({ address }) => format(address))
            yield* sql`DELETE FROM crawl_address WHERE ${sql.in("address", addresses)}`
          }
        })
      )
      .pipe(Effect.asVoid, storeFailed("save"))

  return { load, save }
})
