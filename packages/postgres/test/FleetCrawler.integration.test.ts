/**
 * Runners of a fleet as real processes, over nodes on loopback and PostgreSQL. `POSTGRES_URL` names a server whose user may make
 * databases, such as postgres://crawl@127.0.0.1:5432/postgres; without it the tests are skipped.
 */
import { assert, describe, it } from "@effect/vitest"
import { PgClient } from "@effect/sql-pg"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import { SqlClient } from "effect/sql"
import * as Network from "effect-bitcoin-peer/Network"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import * as Nonce from "effect-bitcoin-peer/Nonce"
import * as PeerServer from "effect-bitcoin-peer/PeerServer"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import * as path from "node:path"
import { freePort } from "../../../test/support/sockets.ts"
import { told } from "../../../test/server/support/crawlHosts.ts"
import { shardOf, subnetOf } from "../src/tables.ts"

const url = process.env["POSTGRES_URL"]
const root = path.resolve(import.meta.dirname, "../../..")
const limit = 120_000

const count = 40
/** A node in a /24 of its own. */
const hostOf = (index: number): string => `127.5.${index}.1`

interface World extends AsyncDisposable {
  readonly database: string
  readonly port: number
  /** How many connections each node accepted. */
  readonly connections: ReadonlyArray<number>
  readonly query: <A extends object>(text: string) => Promise<ReadonlyArray<A>>
  readonly runner: (
    ...argv: ReadonlyArray<string>
  ) => Promise<{ readonly child: ChildProcess; readonly log: () => string }>
}

/** A new database, and nodes each of which knows the next five. */
const serve = async (): Promise<World> => {
  const port = await Effect.runPromise(freePort)
  const connections = Array.from({ length: count }, () => 0)
  const scope = Scope.makeUnsafe()
  const name = `fleet_${process.pid}_${port}`
  const run = <A, E>(database: string, effect: Effect.Effect<A, E, SqlClient.SqlClient>) =>
    Effect.runPromise(Effect.provide(effect, PgClient.layer({ url: Redacted.make(database), maxConnections: 1 })))
  const query = <A extends object>(database: string, text: string) =>
    run(
      database,
      Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<A>(text))
    )
  await query(url!, `CREATE DATABASE ${name}`)
  const database = new URL(url!)
  database.pathname = `/${name}`
  const node = (index: number) =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ host: hostOf(index), port })
      const others = [1, 2, 3, 4, 5].map((step) => told(`${hostOf((index + step) % count)}:${port}`, 1_700_000_000))
      const peer = () => {
        connections[index]!++
        return {
          network: Network.regtest,
          services: 9n,
          handlers: {
            getaddr: (_: unknown, peer: { sendAddresses: (all: typeof others) => Effect.Effect<unknown, unknown> }) =>
              Effect.delay(peer.sendAddresses(others), "200 millis")
          }
        }
      }
      yield* Effect.forkScoped(PeerServer.serve(listener, { peer }))
    })
  await Effect.runPromise(
    Effect.forEach(connections, (_, index) => node(index), { discard: true }).pipe(
      Scope.provide(scope),
      Effect.provide(Nonce.layer)
    )
  )
  const children: Array<ChildProcess> = []
  return {
    database: database.href,
    port,
    connections,
    query: (text) => query(database.href, text),
    runner: async (...argv) => {
      const own = await Effect.runPromise(freePort)
      const flags = [
        "--database",
        database.href,
        "--network",
        "regtest",
        "--allow-private",
        "--port",
        String(own),
        "--seed"
      ]
      const child = spawn(
        process.execPath,
        [
          "--conditions=@effect-bitcoin-peer/source",
          "packages/postgres/src/main.ts",
          ...flags,
          `${hostOf(0)}:${port}`,
          ...argv
        ],
        { cwd: root, env: { ...process.env, NO_COLOR: "1" } }
      )
      children.push(child)
      let log = ""
      for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (log += String(text)))
      return { child, log: () => log }
    },
    [Symbol.asyncDispose]: async () => {
      for (const child of children) child.kill("SIGKILL")
      await Effect.runPromise(Scope.close(scope, Exit.void))
      await query(url!, `DROP DATABASE ${name} WITH (FORCE)`)
    }
  }
}

const until = async (holds: () => Promise<boolean>): Promise<void> => {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 100))
}

describe("subnets", () => {
  it("are a /24, a /64 or a host, each in one of the shards", () => {
    const subnets = ["1.2.3.4:1", "1.2.3.200:2", "[2a00::1]:1", "[2a00::ffff]:1"].map((text) => subnetOf(told(text)))
    assert.deepStrictEqual(subnets, ["1:010203", "1:010203", "2:2a00000000000000", "2:2a00000000000000"])
    const shards = Array.from({ length: 2_000 }, (_, index) =>
      shardOf(subnetOf(told(`8.${index >> 8}.${index & 255}.1:1`)), 16)
    )
    for (let shard = 0; shard < 16; shard++) {
      const size = shards.filter((one) => one === shard).length
      assert.isAbove(size, 60)
      assert.isBelow(size, 200)
    }
  })
})

describe.skipIf(url === undefined)("a fleet (skipped without POSTGRES_URL)", () => {
  it(
    "shares the visits; a runner killed with -9 loses no address, and no node is visited twice",
    async () => {
      await using world = await serve()
      const visited = async () =>
        Number((await world.query<{ n: string }>("SELECT count(*) AS n FROM fleet_visit"))[0]!.n)
      const first = await world.runner("--rate", "5")
      await until(async () => first.log().includes("Listening"))
      const second = await world.runner("--rate", "5")
      await until(async () => second.log().includes("Listening"))
      await until(async () => (await visited()) >= 12)
      first.child.kill("SIGKILL")
      const killedAt = Date.now()
      // The other runner takes all shards over, and finds the rest. What the first one had claimed is due in an hour.
      const settled = `SELECT 1 FROM fleet_address HAVING count(*) = ${count}
        AND count(*) FILTER (WHERE visited_at = 0 OR (state = 'visiting' AND visited_at > ${killedAt})) = 0`
      await until(async () => (await world.query(settled)).length === 1)
      const rows = await world.query<{ address: string; state: string; visits: number; due: string }>(
        "SELECT address, state, visits, due_at - visited_at AS due FROM fleet_address"
      )
      assert.lengthOf(rows, count)
      const cutShort: Array<string> = []
      for (const { address, due, state, visits } of rows) {
        assert.strictEqual(Number(due), 3_600_000)
        if (visits === 0) cutShort.push(address)
        else assert.deepStrictEqual([visits, state], [1, "reached"], address)
      }
      assert.isAtMost(cutShort.length, 6)
      // No node was visited twice; one that was claimed and not dialled yet is among those that were cut short.
      for (const [index, connected] of world.connections.entries()) {
        const isCutShort = cutShort.includes(`${hostOf(index)}:${world.port}`)
        if (connected !== 1) assert.deepStrictEqual([connected, isCutShort], [0, true])
      }
      const runners = await world.query<{ runner: string }>("SELECT DISTINCT runner FROM fleet_visit")
      assert.lengthOf(runners, 2)
    },
    limit
  )

  it(
    "a runner of another network, or with other shards, ends with one error",
    async () => {
      await using world = await serve()
      const first = await world.runner()
      await until(async () => first.log().includes("Listening"))
      const other = await world.runner("--shards", "8")
      const [code] = await once(other.child, "close")
      assert.strictEqual(code, 1)
      assert.include(other.log(), "the tables of this database have the shards 16, and this runner 8")
    },
    limit
  )
})
