/** A server of ours and nodes of Bitcoin Core ban and discourage each other. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { Address, type Peer, Wire } from "../src/index.ts"
import * as Bitcoind from "./bitcoind.ts"
import { eventually, expecting } from "./InteropNode.ts"
import * as Net from "./routable.ts"

const { core1, core2, ours, ours2 } = Net.hosts
const { port } = Net

const entry = (host: string): Wire.AddressV2 => ({
  ...Result.getOrThrow(Address.parse(`${host}:${port}`)),
  services: 9n,
  timestamp: Math.floor(Date.now() / 1_000)
})

/** More addresses than a message may have. */
const tooMany = {
  _tag: "Unknown",
  command: "addr",
  payload: Uint8Array.of(0xfd, 0xe9, 0x03, ...new Uint8Array(1_001 * 30))
} as const

const isOpen = ({ server }: Net.OurServer) => Effect.map(server.peers, ({ length }) => length > 0)

/** A socket that is closed while bytes of ours wait there unread is reset by the system instead of closed. */
const assertClosed = ({ _tag }: Peer.EndReason): void => assert.include(["RemoteClosed", "ConnectionLost"], _tag)

describe.skipIf(Bitcoind.program === undefined || !Net.hasIp)("Bitcoin Core and Server", () => {
  it.live(
    "ours bans the subnet of a node: its connections end, it is neither dialled nor let in, until the ban ends",
    () =>
      Effect.gen(function* () {
        yield* Net.addHosts
        const one = yield* Net.startCore(core1)
        const two = yield* Net.startCore(core2)
        const mine = yield* Net.serve({ at: [ours, ours2], fullRelay: 2, speed: 4 })
        const { bans, book, peers } = mine.server
        book.add([entry(core1), entry(core2)], entry(core1), Date.now())
        yield* mine.server.awaitPeers(2)
        yield* two.rpc("addnode", `${ours2}:${port}`, "onetry")
        yield* mine.server.awaitPeers(3)

        yield* bans.ban("20.2.0.0/16", { reason: "test" })
        const ends = yield* eventually(
          Effect.sync(() =>
            mine.events.flatMap((event) => (event._tag === "Ended" ? [`${event.kind} ${event.reason._tag}`] : []))
          ),
          ({ length }) => length === 2
        )
        assert.sameMembers([...ends], ["outbound-full-relay Banned", "inbound Banned"])
        assert.strictEqual((yield* peers).length, 1)
        yield* Net.awaitRows(two, 0)
        yield* two.rpc("addnode", `${ours2}:${port}`, "onetry")
        assert.deepInclude(yield* mine.awaitEvent("Refused"), { host: core2, step: "banned" })
        // The planner wants a peer, and the only address that it has left is banned.
        const dials = (): number => mine.events.filter(({ _tag }) => _tag === "Dialing").length
        const before = dials()
        yield* Effect.sleep("2 seconds")
        assert.strictEqual(dials(), before)
        assert.strictEqual((yield* peers).length, 1)
        assert.deepStrictEqual(
          (yield* bans.entries).map(({ address, reason }) => ({ address, reason })),
          [{ address: "20.2.0.0/16", reason: "test" }]
        )

        yield* bans.unban("20.2.0.0/16")
        yield* mine.server.awaitPeers(2)
        const [row] = yield* Net.awaitRows(two, 1)
        assert.strictEqual(row?.inbound, true)
        yield* two.rpc("addnode", `${ours2}:${port}`, "onetry")
        yield* mine.server.awaitPeers(3)
        assert.deepStrictEqual([...one.complaints(), ...two.complaints()], [])
      })
  )

  it.live("a node bans ours: we see the end, dial later each time, and are back after the ban", () =>
    Effect.gen(function* () {
      yield* Net.addHosts
      const node = yield* Net.startCore(core1)
      const mine = yield* Net.serve({ added: [`${core1}:${port}`] })
      yield* mine.server.awaitPeers(1)
      yield* node.rpc("setban", ours, "add")
      const ended = yield* mine.awaitEvent("Ended")
      assertClosed(ended.reason)
      assert.deepInclude(ended.assessment, { retry: true, points: 0 })
      const [added] = yield* eventually(mine.server.added, ([node]) => node!.attempts >= 3)
      assert.isFalse(added?.connected)
      const times = node
        .log()
        .filter((line) => /connection from .* dropped \(banned\)/.test(line))
        .map((line) => Date.parse(line.split(" ")[0]!))
      assert.isAtLeast(times.length, 2)
      const failures = mine.events.flatMap((event) => (event._tag === "DialFailed" ? [event.error._tag] : []))
      assert.deepStrictEqual([...new Set(failures)], ["HandshakeError"])
      // Half of the pause after n tries is fixed, and the other half random: at least 2^n / 2 s.
      assert.isAtMost(failures.length, 3)
      yield* node.rpc("clearbanned")
      yield* eventually(isOpen(mine), (open) => open)
      assert.isFalse(mine.server.bans.isDiscouraged(entry(core1)))
    })
  )

  it.live(
    "1,001 addresses of ours: a node that we dialled discourages us, and takes us no longer once it is full",
    () =>
      Effect.gen(function* () {
        yield* Net.addHosts
        // One inbound slot. Eleven connections are kept for its own dials.
        const node = yield* Net.startCore(core1, { args: ["-maxconnections=12", "-inboundrelaypercent=100"] })
        const mine = yield* Net.serve({ added: [`${core1}:${port}`] })
        const [peer] = yield* mine.server.awaitPeers(1)
        yield* peer!.peer.send(tooMany)
        const ended = yield* mine.awaitEvent("Ended")
        assertClosed(ended.reason)
        yield* node.awaitLog(/Misbehaving: peer=0.*addr message size = 1001/)
        yield* node.awaitLog(/Disconnecting and discouraging peer 0/)
        yield* node.awaitLog(new RegExp(`connection from ${ours}.* dropped \\(discouraged\\)`))
        yield* eventually(mine.server.added, ([node]) => node!.attempts >= 2)
        assert.strictEqual((yield* mine.server.peers).length, 0)
        // It is no ban: nothing is listed.
        assert.deepStrictEqual(yield* node.rpc("listbanned"), [])
        // What it does to us has no consequence for it.
        assert.isFalse(mine.server.bans.isDiscouraged(entry(core1)))
        assert.isUndefined(mine.events.find(({ _tag }) => _tag === "Discouraged"))
      })
  )

  it.live("1,001 addresses of ours: a node whose operator added us does nothing", () =>
    Effect.gen(function* () {
      yield* Net.addHosts
      const node = yield* Net.startCore(core1)
      const mine = yield* Net.serve()
      yield* node.rpc("addnode", `${ours}:${port}`, "add")
      const [peer] = yield* mine.server.awaitPeers(1)
      yield* peer!.peer.send(tooMany)
      yield* node.awaitLog(/Not punishing manually connected peer/)
      yield* peer!.peer.ping
      assert.isTrue(yield* isOpen(mine))
      // As a node that it found by itself we are discouraged, and dialled by it no longer.
      yield* node.rpc("addnode", `${ours}:${port}`, "remove")
      yield* node.rpc("disconnectnode", `${ours}:${port}`)
      yield* eventually(isOpen(mine), (open) => !open)
      yield* node.rpc("addconnection", `${ours}:${port}`, "outbound-full-relay", true)
      const [found] = yield* mine.server.awaitPeers(1)
      yield* found!.peer.send(tooMany)
      yield* node.awaitLog(/Disconnecting and discouraging peer/)
      yield* eventually(isOpen(mine), (open) => !open)
    })
  )

  it.live("ours discourages a node that its operator says misbehaved, and a manual one is only ended", () =>
    Effect.gen(function* () {
      yield* Net.addHosts
      const one = yield* Net.startCore(core1)
      const two = yield* Net.startCore(core2)
      const mine = yield* Net.serve({ at: [ours, ours2], maxInbound: 2, added: [`${core1}:${port}`] })
      yield* two.rpc("addnode", `${ours2}:${port}`, "onetry")
      const [first, second] = yield* Effect.map(mine.server.awaitPeers(2), (all) =>
        all.toSorted((a, b) => a.kind.localeCompare(b.kind))
      )
      assert.deepStrictEqual([first!.kind, second!.kind], ["inbound", "manual"])
      yield* mine.server.misbehaved(first!.id, 100, "test")
      yield* mine.server.misbehaved(second!.id, 100, "test")
      const discouraged = yield* mine.awaitEvent("Discouraged")
      assert.strictEqual(discouraged.host, core2)
      yield* Net.awaitRows(two, 0)
      assert.isFalse(mine.server.bans.isDiscouraged(entry(core1)))
      // The slots of its bind are one, which is its last.
      yield* two.rpc("addnode", `${ours2}:${port}`, "onetry")
      assert.deepInclude(yield* mine.awaitEvent("Refused"), { host: core2, step: "discouraged" })
      // An added node is dialled again.
      yield* Net.awaitRows(one, 1)
      const Bans = Schema.Array(Schema.Unknown)
      assert.deepStrictEqual(yield* two.rpc("listbanned").pipe(expecting(Bans)), [])
      assert.deepStrictEqual(yield* mine.server.bans.entries, [])
    })
  )
})
