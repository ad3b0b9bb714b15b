/** Nodes of Bitcoin Core that dial a server of ours: their kinds, their permissions, and what happens when the slots are used up. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as NodeConnection from "../src/NodeConnection.ts"
import * as Bitcoind from "./bitcoind.ts"
import { eventually } from "./InteropNode.ts"
import * as Net from "./routable.ts"

const { core1, core2, ours, ours2 } = Net.hosts
const { port } = Net

const target = `${ours}:${port}`
const target2 = `${ours2}:${port}`

describe.skipIf(Bitcoind.program === undefined || !Net.hasIp)("Bitcoin Core dials Server", () => {
  it.live("for all, for blocks only, for addresses, for a look, and for its operator", () =>
    Effect.gen(function* () {
      yield* Net.addHosts
      const node = yield* Net.startCore(core1)
      const mine = yield* Net.serve({ speed: 10 })
      const source = { networkId: 1, address: Uint8Array.of(20, 9, 0, 1) }
      mine.server.book.add(
        Array.from({ length: 50 }, (_, i) => ({
          networkId: 1,
          address: Uint8Array.of(30 + i, 1, 0, 1),
          port,
          services: 9n,
          timestamp: Math.floor(Date.now() / 1_000)
        })),
        source,
        Date.now()
      )
      const add = (kind: string) => node.rpc("addconnection", target, kind, true)
      const gone = eventually(
        Effect.all([Net.rows(node), mine.server.peers]),
        ([theirs, peers]) => theirs.length + peers.length === 0
      )
      /** Both rows, after both sides had time to send what they send at once. */
      const both = Effect.gen(function* () {
        yield* mine.server.awaitPeers(1)
        return yield* eventually(
          Effect.all([Effect.map(mine.server.peerInfo, ([row]) => row), Effect.map(Net.rows(node), ([row]) => row)]),
          ([row, theirs]) => (row?.bytesrecv_per_msg["pong"] ?? 0) > 0 && (theirs?.bytesrecv_per_msg["pong"] ?? 0) > 0
        )
      })
      for (const kind of ["outbound-full-relay", "block-relay-only", "manual"]) {
        yield* kind === "manual" ? node.rpc("addnode", target, "onetry", true) : add(kind)
        const [row, theirs] = yield* both
        const relays = kind !== "block-relay-only"
        assert.strictEqual(theirs?.connection_type, kind)
        assert.deepInclude(row as object, {
          connection_type: "inbound",
          inbound: true,
          network: "ipv4",
          addr: theirs?.addrbind,
          addrbind: target,
          relaytxes: relays,
          addr_relay_enabled: relays,
          addr_processed: relays ? 1 : 0,
          session_id: theirs?.session_id
        })
        assert.strictEqual(theirs?.addr_relay_enabled, relays)
        assert.strictEqual(theirs?.relaytxes, relays)
        // Its dial says which of our addresses it took.
        assert.strictEqual(row?.addrlocal, target)
        yield* node.rpc("disconnectnode", target)
        yield* gone
      }

      yield* add("feeler")
      const look = yield* mine.awaitEvent("Accepted", ({ id }) => id > 3)
      yield* gone
      // It goes when it has our version message, before or after we have its verack.
      yield* eventually(
        Effect.sync(() => mine.events.findLast((event) => "id" in event && event.id === look.id)?._tag),
        (last) => last === "DialFailed" || last === "Ended"
      )

      // It asks for addresses, and goes when it has some.
      yield* add("addr-fetch")
      yield* node.awaitLog(/addrfetch connection completed/)
      yield* gone
      const known = yield* Net.known(node)
      // It was told 23 % of ours. Two that want the same place in its book are one.
      const learnt = known.filter((text) => text.endsWith(`.1.0.1:${port}`))
      assert.isAtLeast(learnt.length, 8)
      assert.isAtMost(learnt.length, 11)
      assert.deepStrictEqual(node.complaints(), [])
    })
  )

  it.live("with the permissions of its address or of our bind; noban connects in spite of a ban", () =>
    Effect.gen(function* () {
      yield* Net.addHosts
      const one = yield* Net.startCore(core1)
      const two = yield* Net.startCore(core2)
      const bind = (host: string, permissions?: string) => ({
        listen: NodeConnection.listen({ host, port }),
        permissions
      })
      const mine = yield* Net.serve({
        binds: [bind(ours), bind(ours2, "mempool,forcerelay")],
        whitelist: [`noban,addr@${core1}/16`]
      })
      yield* one.rpc("addnode", target, "add")
      yield* two.rpc("addnode", target2, "add")
      yield* mine.server.awaitPeers(2)
      const permissions = Effect.map(mine.server.peerInfo, (all) =>
        all.map(({ addr, permissions }) => `${addr.split(":")[0]} ${permissions.join()}`).toSorted()
      )
      assert.deepStrictEqual(yield* permissions, [`${core1} noban,download,addr`, `${core2} forcerelay,relay,mempool`])
      yield* mine.server.bans.ban("20.0.0.0/8")
      const ended = yield* mine.awaitEvent("Ended")
      assert.strictEqual(ended.reason._tag, "Banned")
      assert.deepStrictEqual(yield* permissions, [`${core1} noban,download,addr`])
      yield* Net.awaitRows(two, 0)
      // Both dial again.
      yield* one.rpc("disconnectnode", target)
      yield* mine.awaitEvent(
        "Ended",
        ({ reason }) => reason._tag === "RemoteClosed" || reason._tag === "ConnectionLost"
      )
      yield* one.rpc("addnode", target, "onetry")
      yield* two.rpc("addnode", target2, "onetry")
      const refused = yield* mine.awaitEvent("Refused")
      assert.deepInclude(refused, { host: core2, step: "banned" })
      yield* mine.server.awaitPeers(1)
      assert.deepStrictEqual(yield* permissions, [`${core1} noban,download,addr`])
    })
  )

  it.live("for a slot that another of its connections has to give up", () =>
    Effect.gen(function* () {
      yield* Net.addHosts
      const slots = 30
      const many = Array.from({ length: slots + 1 }, (_, i) => `20.${100 + i}.0.1`)
      for (const host of many) yield* Net.addHost(host)
      const other = port + 100
      // Without transactions, because at most half of the inbound peers may relay them.
      const node = yield* Net.startCore(core1, { args: ["-blocksonly"] })
      const mine = yield* Net.serve({
        maxInbound: slots,
        binds: [{ listen: NodeConnection.listen({ host: "0.0.0.0", port: other }) }],
        whitelist: [`noban@${many[0]!}`]
      })
      for (const [i, host] of many.entries()) {
        yield* node.rpc("addnode", `${host}:${other}`, "onetry", true)
        yield* mine.awaitEvent("Ready", ({ target }) => "address" in target && target.address[1] === 100 + i)
      }
      const evicted = yield* mine.awaitEvent("Evicted")
      const ended = yield* mine.awaitEvent("Ended")
      assert.strictEqual(ended.id, evicted.id)
      assert.strictEqual(ended.reason._tag, "Evicted")
      const peers = yield* mine.server.peers
      assert.strictEqual(peers.length, slots)
      assert.strictEqual(evicted.by, peers.at(-1)?.id)
      const theirs = yield* Net.awaitRows(node, slots)
      const hosts = new Set(theirs.map(({ addr }) => addr.split(":")[0]!))
      const victim = many.filter((host) => !hosts.has(host))
      assert.strictEqual(victim.length, 1)
      assert.notInclude([many[0], many.at(-1)], victim[0])
      // It comes back at once, and takes no other slot.
      yield* node.rpc("addnode", `${victim[0]!}:${other}`, "onetry", true)
      const refused = yield* mine.awaitEvent("Refused")
      assert.deepInclude(refused, { host: victim[0]!, step: "recently-evicted" })
      assert.strictEqual((yield* mine.server.peers).length, slots)
      assert.deepStrictEqual(node.complaints(), [])
    })
  )
})
