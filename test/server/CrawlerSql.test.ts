/** The frontier of a crawl in SQLite, and what other crawlers read of it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { Address, Network } from "effect-bitcoin-peer"
import * as Crawler from "effect-bitcoin-peer/server/Crawler"
import * as NodeSqlite from "effect-bitcoin-peer/server/NodeSqlite"
import { SqlClient } from "effect/sql"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { crawlEntry } from "./support/crawlEntry.ts"
import { address, inTime, makeHosts, network, node } from "./support/crawlHosts.ts"

const temporary = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "crawl-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
)

const database = (directory: string) => NodeSqlite.layer({ filename: path.join(directory, "crawl.db") })
const frontier = (directory: string) => Layer.provide(Crawler.layerSql, database(directory))

const entry = (text: string, fields: Partial<Crawler.Entry> = {}): Crawler.Entry =>
  crawlEntry(text, { seenAt: 1_700_000_000, addedAt: 1_700_000_000_123, dueAt: 1_700_000_000_123, ...fields })

const onion = "explorerzydxu5ecjrkwceayqybizmpjjznk5izmitf2modhcusuqlid.onion:8333"
const reached = (text: string, fields: Partial<Crawler.Entry> = {}): Crawler.Entry =>
  entry(text, {
    state: "reached",
    services: 0xfffffffffffffc09n,
    visitedAt: 1_700_003_600_000,
    dueAt: 1_700_007_200_000,
    reachedAt: 1_700_003_600_000,
    reachedSince: 1_700_000_000_000,
    visits: 3,
    successes: 2,
    node: { protocolVersion: 70_016, userAgent: "/Satoshi:31.0.0/\u00e9'", startHeight: 900_000, transport: "v2" },
    uptime: [0.9, 2.5, 0.8, 2.75, 0.5, 3, 0.25, 3, 0.125, 3],
    ...fields
  })

const all: ReadonlyArray<Crawler.Entry> = [
  entry("1.2.3.4:8333"),
  reached("[2a00::1]:18333"),
  entry(onion, { state: "failed", failures: 2, visits: 2, problem: "Refused", visitedAt: 1_700_000_000_000 }),
  entry("[fc00::1]:8333", { state: "visiting", visitedAt: 1_700_009_000_000 })
]

const byText = (entries: ReadonlyArray<Crawler.Entry>): Record<string, Crawler.Entry> =>
  Object.fromEntries(entries.map((entry) => [Address.format(entry.address), entry]))

const failure = <A>(effect: Effect.Effect<A, Crawler.CrawlError, Crawler.Frontier>, directory: string) =>
  Effect.flip(Effect.provide(effect, frontier(directory)))

const load = Effect.flatMap(Crawler.Frontier, ({ load }) => load(network))

describe("the frontier in SQLite", () => {
  it.effect("keeps every field, and forgets what is removed", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      yield* Effect.provide(
        Effect.gen(function* () {
          const { load, save } = yield* Crawler.Frontier
          assert.deepStrictEqual(yield* load(network), [])
          yield* save(all, [])
          yield* save([], [all[0]!])
        }),
        frontier(directory)
      )
      const kept = yield* Effect.provide(load, frontier(directory))
      assert.deepStrictEqual(byText(kept), byText(all.slice(1)))
      // In the order of their visits.
      assert.deepStrictEqual(
        kept.map(({ state }) => state),
        ["failed", "reached", "visiting"]
      )
    }).pipe(Effect.scoped)
  )

  it.effect("writes many rows, and the last state of each", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const many = Array.from({ length: 2_345 }, (_, index) => entry(`8.${index >> 8}.${index & 255}.1:8333`))
      const kept = yield* Effect.provide(
        Effect.gen(function* () {
          const { load, save } = yield* Crawler.Frontier
          yield* load(network)
          yield* save(many, [])
          yield* save(
            many.map((entry) => ({ ...entry, visits: 7 })),
            many.slice(0, 1_200)
          )
          return yield* load(network)
        }),
        frontier(directory)
      )
      assert.strictEqual(kept.length, 1_145)
      assert.isTrue(kept.every(({ visits }) => visits === 7))
    }).pipe(Effect.scoped)
  )

  it.effect("refuses the table of another network, and one of a newer version, and does not change it", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      yield* Effect.provide(load, frontier(directory))
      const other = Effect.flatMap(Crawler.Frontier, ({ load }) => load(Network.signet))
      assert.strictEqual(
        (yield* failure(other, directory)).message,
        "crawl: the saved frontier cannot be used: it is of regtest, and the crawl of signet"
      )
      yield* Effect.provide(
        Effect.flatMap(SqlClient.SqlClient, (sql) => sql`UPDATE crawl_info SET value = '2' WHERE name = 'version'`),
        database(directory)
      )
      assert.strictEqual(
        (yield* failure(load, directory)).message,
        "crawl: the saved frontier cannot be used: it has version 2 instead of 1"
      )
    }).pipe(Effect.scoped)
  )

  it.effect("leaves out rows that cannot be read", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      yield* Effect.provide(
        Effect.andThen(
          load,
          Effect.flatMap(Crawler.Frontier, ({ save }) => save(all, []))
        ),
        frontier(directory)
      )
      yield* Effect.provide(
        Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* sql`UPDATE crawl_address SET address = 'nobody' WHERE state = 'new'`
          yield* sql`UPDATE crawl_address SET services = '-1' WHERE state = 'failed'`
          yield* sql`UPDATE crawl_address SET state = 'lost' WHERE state = 'visiting'`
          yield* sql`UPDATE crawl_address SET uptime = 'x y' WHERE state = 'reached'`
        }),
        database(directory)
      )
      const kept = yield* Effect.provide(load, frontier(directory))
      assert.deepStrictEqual(kept, [{ ...all[1]!, uptime: [] }])
    }).pipe(Effect.scoped)
  )

  it.effect("says that the database cannot be read, and saves all of a change or nothing", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      yield* Effect.provide(load, frontier(directory))
      yield* Effect.provide(
        Effect.flatMap(
          SqlClient.SqlClient,
          (sql) => sql`CREATE TRIGGER full BEFORE INSERT ON crawl_address
          WHEN NEW.address LIKE '[2a00%' BEGIN SELECT RAISE(ABORT, 'the disk is full'); END`
        ),
        database(directory)
      )
      const save = Effect.flatMap(Crawler.Frontier, ({ save }) => save(all, []))
      const error = yield* failure(save, directory)
      assert.strictEqual(error.reason._tag, "StoreFailed")
      assert.match(error.message, /^crawl: cannot save the frontier: .*the disk is full/)
      assert.deepStrictEqual(yield* Effect.provide(load, frontier(directory)), [])
    }).pipe(Effect.scoped)
  )

  it.effect("lets a crawl go on in another process", () =>
    Effect.gen(function* () {
      const directory = yield* temporary
      const names = ["8.1.1.1:18444", "8.2.2.2:18444", "8.3.3.3:18444"]
      const world = makeHosts(new Map(names.map((text) => [text, node(names)])))
      const crawl = (seeds: ReadonlyArray<string>) =>
        inTime(
          Stream.runCollect(Crawler.run({ network, transport: "v1", once: true, seeds: seeds.map(address) }))
        ).pipe(Effect.provide([frontier(directory), world.layer]))
      assert.strictEqual((yield* crawl(names.slice(0, 1))).length, 3)
      assert.deepStrictEqual(yield* crawl(names), [])
      assert.strictEqual(world.dials.length, 3)
    }).pipe(Effect.scoped)
  )
})

describe("what other crawlers read", () => {
  const good = reached("8.8.8.8:8333", { services: 0x409n })
  const bad = reached("9.9.9.9:8333", { services: 0x409n, visits: 9, failures: 1, state: "failed", uptime: [] })

  it("a snapshot of bitnodes has the nodes that were reached last time", () => {
    const snapshot: unknown = JSON.parse(Crawler.formatSnapshot([good, bad, ...all], 1_700_010_000_999))
    const node = [
      70_016,
      "/Satoshi:31.0.0/\u00e9'",
      1_700_000_000,
      0x409,
      900_000,
      ...Array.from({ length: 8 }, () => null)
    ]
    assert.deepStrictEqual(snapshot, {
      timestamp: 1_700_010_000,
      total_nodes: 2,
      latest_height: 900_000,
      nodes: {
        "8.8.8.8:8333": node,
        "[2a00::1]:18333": [...node.slice(0, 3), Number(0xfffffffffffffc09n), ...node.slice(4)]
      }
    })
  })

  it("dnsseed.dump has all that were ever reached, good ones first", () => {
    const lines = Crawler.formatSeedDump([bad, good, ...all], Network.mainnet).split("\n")
    assert.deepStrictEqual(lines, [
      "# address                                        good  lastSuccess    %(2h)   %(8h)   %(1d)   %(7d)  %(30d)  blocks      svcs  version",
      `8.8.8.8:8333                                        1   1700003600   90.00%  80.00%  50.00%  25.00%  12.50%  900000  00000409  70016 "/Satoshi:31.0.0/?'"`,
      `[2a00::1]:18333                                     0   1700003600   90.00%  80.00%  50.00%  25.00%  12.50%  900000  fffffffffffffc09  70016 "/Satoshi:31.0.0/?'"`,
      `9.9.9.9:8333                                        0   1700003600    0.00%   0.00%   0.00%   0.00%   0.00%  900000  00000409  70016 "/Satoshi:31.0.0/?'"`,
      ""
    ])
  })

  it("a node is good by its reliability over one of five times, with visits enough", () => {
    const isGood = (...uptime: ReadonlyArray<number>): boolean =>
      Crawler.formatSeedDump([{ ...bad, uptime }], Network.mainnet)
        .split("\n")[1]!
        .slice(48, 53)
        .trim() === "1"
    assert.isTrue(isGood(0.86, 2.1))
    assert.isFalse(isGood(0.85, 2.1))
    assert.isFalse(isGood(0.86, 2))
    assert.isTrue(isGood(0, 0, 0, 0, 0, 0, 0, 0, 0.36, 33))
    assert.isFalse(isGood(0.8, 9, 0.6, 9, 0.5, 9, 0.4, 17, 0.3, 33))
  })
})
