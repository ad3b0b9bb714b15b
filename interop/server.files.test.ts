/** A server of ours goes on from the files of Bitcoin Core, Core from ours, and ours from its own after a kill. */
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Result, Schema, Scope } from "effect"
import { Address, Handshake } from "../src/index.ts"
import * as AddressBook from "../src/server/AddressBook.ts"
import * as Dialer from "../src/server/Dialer.ts"
import * as NodeStore from "../src/server/NodeStore.ts"
import * as Bitcoind from "./bitcoind.ts"
import * as Daemon from "./daemon.ts"
import { eventually, expecting, type InteropNode } from "./InteropNode.ts"
import * as Net from "./routable.ts"

const { core1, core2 } = Net.hosts
const { port } = Net

const Banned = Schema.Array(
  Schema.Struct({ address: Schema.String, ban_created: Schema.Number, banned_until: Schema.Number })
)

const bannedBy = (node: InteropNode) => node.rpc("listbanned").pipe(expecting(Banned))
const bannedByOurs = ({ server }: Net.OurServer) =>
  Effect.map(server.bans.entries, (all) =>
    all.map(({ address, ban_created, banned_until }) => ({ address, ban_created, banned_until }))
  )
const rawOf = (node: InteropNode) => Effect.map(node.rpc("getrawaddrman"), (raw) => raw as AddressBook.RawEntries)

const onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion"

describe.skipIf(Bitcoind.program === undefined || !Net.hasIp)("Bitcoin Core and Server", () => {
  it.live(
    "take over each other's addresses, bans and anchors, in the same directory",
    () =>
      Effect.gen(function* () {
        yield* Net.addHosts
        const prefix = yield* Daemon.temporaryDirectory("files")
        const directory = join(prefix, "regtest")
        // A node in ten groups: Core dials eight addresses for all, and then two for blocks only, which are the anchors.
        const many = Array.from({ length: 10 }, (_, i) => `20.${11 + i}.0.1`)
        for (const host of many) yield* Net.addHost(host)
        const other = yield* Net.startCore(core2, { args: many.map((host) => `-bind=${host}:${port}`) })

        const options = { automatic: true, prefix }
        const first = yield* Net.startCore(core1, options)
        for (const host of many) yield* first.rpc("addpeeraddress", host, port)
        const isAnchor = (row: Net.Row): boolean => row.connection_type === "block-relay-only"
        const dialled = yield* eventually(Net.rows(first), (rows) => rows.filter(isAnchor).length === 2)
        const anchors = dialled.filter(isAnchor).map(({ addr }) => addr)
        // These lead nowhere.
        for (let i = 0; i < 150; i++)
          yield* first.rpc("addpeeraddress", `${30 + i}.${i}.0.1`, 8_333 + (i % 3), i % 3 === 0)
        yield* first.rpc("addpeeraddress", onion, 8_333)
        yield* first.rpc("setban", "192.0.2.0/24", "add", 86_400)
        yield* first.rpc("setban", "2001:db8::/32", "add", 4_102_444_800, true)
        yield* first.rpc("setban", "203.0.113.9", "add")
        yield* first.rpc("setban", onion, "add")
        const raw = yield* rawOf(first)
        const banned = yield* bannedBy(first)
        assert.strictEqual(banned.length, 4)
        yield* first.stop

        const scope = yield* Scope.make()
        const mine = yield* Scope.provide(Net.serve({ directory, blockRelay: 2 }), scope)
        assert.deepStrictEqual(mine.server.book.entries(), raw)
        assert.deepStrictEqual(yield* bannedByOurs(mine), banned)
        yield* mine.server.awaitPeers(2)
        // Nothing else was dialled.
        assert.sameMembers(
          mine.events.flatMap((event) =>
            event._tag === "Dialing" ? [`${event.kind} ${Dialer.formatTarget(event.target)}`] : []
          ),
          anchors.map((address) => `block-relay-only ${address}`)
        )
        const fromOurs = (yield* Net.rows(other)).filter(({ subver }) => subver === Handshake.defaultUserAgent)
        assert.deepStrictEqual(
          fromOurs.map(({ relaytxes }) => relaytxes),
          [false, false]
        )
        assert.deepStrictEqual(
          mine.events.filter(({ _tag }) => _tag === "Warning"),
          []
        )

        yield* mine.server.bans.ban("198.51.100.0/24", { for: "7 days", reason: "of ours" })
        yield* mine.server.bans.unban("203.0.113.9")
        const source = Result.getOrThrow(Address.parse("99.1.0.1:8333"))
        const now = Date.now()
        const learnt = Array.from({ length: 50 }, (_, i) => ({
          ...Result.getOrThrow(Address.parse(`${100 + i}.200.0.1:8333`)),
          services: 1_033n,
          timestamp: Math.floor(now / 1_000) - 60
        }))
        assert.isAbove(mine.server.book.add(learnt, source, now), 40)
        mine.server.book.good(learnt[0]!, now)
        const ours = mine.server.book.entries()
        const oursBanned = yield* bannedByOurs(mine)
        assert.strictEqual(oursBanned.length, 4)
        yield* Scope.close(scope, Exit.void)

        const again = yield* Bitcoind.start({ ...options, args: ["-checkaddrman=1"] })
        yield* again.awaitLog(/Loaded 2 addresses from "anchors.dat"/)
        for (const address of anchors) {
          yield* again.awaitLog(new RegExp(`Trying to make an anchor connection to ${address}`))
        }
        yield* eventually(Net.rows(again), (rows) => rows.filter(isAnchor).length === 2)
        assert.deepStrictEqual(yield* rawOf(again), ours)
        assert.deepStrictEqual(yield* bannedBy(again), oursBanned)
        assert.deepStrictEqual(
          again.log().filter((line) => /invalid|corrupt|error|failed to read/i.test(line)),
          []
        )
      }),
    180_000
  )

  it.live(
    "ours keeps its bans, and its book of the last quarter of an hour, through a kill of its process",
    () =>
      Effect.gen(function* () {
        yield* Net.addHosts
        const directory = yield* Daemon.temporaryDirectory("killed")
        const one = yield* Net.startCore(core1)
        yield* Net.startCore(core2)
        for (let i = 0; i < 100; i++) yield* one.rpc("addpeeraddress", `${30 + i}.${i}.0.1`, port)

        // The end of the scope kills the process.
        const size = yield* Effect.scoped(
          Effect.gen(function* () {
            const ours = yield* Daemon.start({
              name: "server of ours",
              command: process.execPath,
              args: [join(import.meta.dirname, "serverProcess.ts"), directory],
              env: { PATH: process.env["PATH"] ?? "" },
              cwd: import.meta.dirname
            })
            yield* ours.awaitLog(/^connected$/)
            const refused = yield* Effect.flip(Effect.scoped(NodeStore.makeDirectory(directory)))
            assert.strictEqual(refused._tag, "Locked")
            const hurry = Net.hurry(one)
            const persisted = /^persisted (\d\d+)$/
            const line = yield* eventually(
              Effect.andThen(
                hurry(),
                Effect.sync(() => ours.log().findLast((line) => persisted.test(line)))
              ),
              (line) => line !== undefined,
              "60 seconds"
            )
            yield* ours.awaitLog(/^banned$/)
            return Number(persisted.exec(line!)![1])
          })
        )
        assert.isAbove(size, 15)

        const again = yield* Net.serve({ directory, blockRelay: 1 })
        const { bans, book } = again.server
        assert.isAtLeast(book.size, size)
        const [peer] = yield* again.server.awaitPeers(1)
        assert.strictEqual(peer?.kind, "block-relay-only")
        assert.deepStrictEqual(
          (yield* bans.entries).map(({ address, reason }) => ({ address, reason })),
          [
            { address: "192.0.2.0/24", reason: "before the save" },
            { address: "198.51.100.7/32", reason: "after the save" }
          ]
        )
        assert.deepStrictEqual(
          again.events.filter(({ _tag }) => _tag === "Warning"),
          []
        )
      }),
    180_000
  )
})
