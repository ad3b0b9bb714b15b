/** A server of ours among nodes of Bitcoin Core: which kinds of connection each side sees, and what each says of the other. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { Address, Handshake, Wire } from "../src/index.ts"
import * as PeerInfo from "../src/server/PeerInfo.ts"
import * as Bitcoind from "./bitcoind.ts"
import { eventually, expecting, type InteropNode } from "./InteropNode.ts"
import * as Net from "./routable.ts"

const { core1, core2, ours } = Net.hosts
const { port } = Net
const services = Wire.Service.network | Wire.Service.witness | Wire.Service.p2pV2

/** An address as a peer of its own would have told it. */
const told = (host: string): Wire.AddressV2 => ({
  ...Result.getOrThrow(Address.parse(`${host}:${port}`)),
  services,
  timestamp: Math.floor(Date.now() / 1_000)
})

/** Both sides' rows of their only connection, once both have counted the same bytes. */
const bothRows = (node: InteropNode, { server }: Net.OurServer) =>
  Effect.map(
    eventually(
      Effect.all([Effect.map(server.peerInfo, ([row]) => row), Effect.map(Net.rows(node), ([row]) => row)]),
      ([mine, theirs]) =>
        mine !== undefined &&
        theirs !== undefined &&
        mine.minping !== undefined &&
        theirs["minping"] !== undefined &&
        mine.bytessent === theirs.bytesrecv &&
        mine.bytesrecv === theirs.bytessent
    ),
    ([mine, theirs]) => ({ mine: mine!, theirs: theirs! })
  )

const NetworkInfo = Schema.Record(Schema.String, Schema.Unknown)

describe.skipIf(Bitcoind.program === undefined || !Net.hasIp)("Bitcoin Core and Server", () => {
  it.live("say the same of their connection", () =>
    Effect.gen(function* () {
      yield* Net.addHosts
      const node = yield* Net.startCore(core1)
      const mine = yield* Net.serve({ added: [`${core1}:${port}`] })
      yield* mine.server.awaitPeers(1)
      const rows = yield* bothRows(node, mine)
      const seen = rows.mine
      assert.strictEqual(seen.transport_protocol_type, "v2")
      assert.match(seen.session_id, /^[0-9a-f]{64}$/)
      assert.strictEqual(seen.session_id, rows.theirs.session_id)
      assert.deepInclude(rows.theirs as object, {
        addr: seen.addrbind,
        addrbind: seen.addr,
        network: "ipv4",
        services: services.toString(16).padStart(16, "0"),
        servicesnames: ["NETWORK", "WITNESS", "P2P_V2"],
        relaytxes: true,
        version: Handshake.defaultProtocolVersion,
        subver: Handshake.defaultUserAgent,
        inbound: true,
        connection_type: "inbound",
        transport_protocol_type: "v2",
        bytessent_per_msg: seen.bytesrecv_per_msg,
        bytesrecv_per_msg: seen.bytessent_per_msg
      })
      const info = yield* node.rpc("getnetworkinfo").pipe(expecting(NetworkInfo))
      assert.deepInclude(seen as object, {
        addr: `${core1}:${port}`,
        addrlocal: rows.theirs.addr,
        network: "ipv4",
        services: info["localservices"],
        servicesnames: info["localservicesnames"],
        relaytxes: true,
        version: node.protocolVersion,
        subver: node.userAgent,
        inbound: false,
        connection_type: "manual",
        permissions: []
      })
      // The same fields, but for those that are not always there.
      const names = (row: object): Array<string> =>
        Object.keys(row).filter((name) => !["addrlocal", "mapped_as", "pingwait"].includes(name))
      assert.sameMembers(names(PeerInfo.PeerInfo.fields), names(rows.theirs))
      assert.sameMembers(names(seen), names(rows.theirs))
      const ofMempool = ["incrementalfee", "inv_buckets", "relayfee", "tx_send_rate"]
      const ofNode = yield* mine.server.networkInfo
      assert.sameMembers([...Object.keys(ofNode), ...ofMempool], Object.keys(info))
      const [network] = info["networks"] as ReadonlyArray<object>
      assert.sameMembers(Object.keys(ofNode.networks[0]!), Object.keys(network!))
    })
  )

  it.live("are peers for all, for blocks only, and for a look, as our planner chooses", () =>
    Effect.gen(function* () {
      yield* Net.addHosts
      const other = "20.5.0.1"
      yield* Net.addHost(other, ours)
      const one = yield* Net.startCore(core1, { args: [`-bind=${other}:${port}`] })
      const two = yield* Net.startCore(core2)
      const mine = yield* Net.serve({ fullRelay: 1, blockRelay: 1, feelers: true, speed: 20 })
      const { book } = mine.server
      book.add([told(core1), told(core2)], told(core1), Date.now())
      const peers = yield* mine.server.awaitPeers(2)
      assert.sameMembers(
        peers.map(({ kind }) => kind),
        ["outbound-full-relay", "block-relay-only"]
      )
      const nodes: Readonly<Record<string, InteropNode>> = { [core1]: one, [core2]: two }
      for (const { address, kind, peer } of peers) {
        const node = nodes[Address.formatHost(address)]!
        const [row] = yield* Net.awaitRows(node, 1)
        assert.deepInclude(row as object, {
          connection_type: "inbound",
          relaytxes: kind === "outbound-full-relay",
          subver: Handshake.defaultUserAgent
        })
        // Only to a full-relay peer is getaddr sent, and with it addresses are relayed.
        const [relayed] = yield* eventually(Net.rows(node), ([row]) => (row?.bytesrecv_per_msg["pong"] ?? 0) > 0)
        assert.strictEqual(relayed?.addr_relay_enabled, kind === "outbound-full-relay")
        assert.strictEqual(book.find({ ...address, port })?.isTried, true)
        assert.strictEqual(book.find({ ...address, port })?.address.services, peer.info.services)
      }
      // A feeler tests a new address, on average after two minutes, which are 12 s here.
      book.add([told(other)], told(other), Date.now())
      yield* mine.awaitEvent("Ready", ({ kind }) => kind === "feeler")
      const ended = yield* mine.awaitEvent("Ended", ({ kind }) => kind === "feeler")
      assert.strictEqual(ended.reason._tag, "Requested")
      assert.strictEqual(book.find(told(other))?.isTried, true)
      yield* Net.awaitRows(one, 1)
      assert.deepStrictEqual([...one.complaints(), ...two.complaints()], [])
    })
  )

  it.live("speak version 1 if Core speaks no other, in the same attempt, and the book remembers it", () =>
    Effect.gen(function* () {
      yield* Net.addHosts
      const node = yield* Net.startCore(core1, { args: ["-v2transport=0"] })
      const mine = yield* Net.serve({ fullRelay: 1 })
      // Somebody told us that it speaks version 2.
      mine.server.book.add([told(core1)], told("20.9.0.1"), Date.now())
      const [peer] = yield* mine.server.awaitPeers(1)
      assert.strictEqual(peer?.kind, "outbound-full-relay")
      const rows = yield* bothRows(node, mine)
      assert.deepInclude(rows.mine as object, { transport_protocol_type: "v1", session_id: "" })
      assert.deepInclude(rows.theirs as object, {
        transport_protocol_type: "v1",
        session_id: "",
        bytessent_per_msg: rows.mine.bytesrecv_per_msg,
        bytesrecv_per_msg: rows.mine.bytessent_per_msg
      })
      assert.deepStrictEqual(
        mine.events.map(({ _tag }) => _tag),
        ["Dialing", "Ready"]
      )
      assert.strictEqual((peer.peer.info.services & Wire.Service.p2pV2) === 0n, true)
      assert.strictEqual(mine.server.book.find(told(core1))?.address.services, peer.peer.info.services)
    })
  )

  it.live("end when our network is switched off, and come back when it is switched on", () =>
    Effect.gen(function* () {
      yield* Net.addHosts
      const one = yield* Net.startCore(core1)
      const two = yield* Net.startCore(core2)
      const mine = yield* Net.serve({ added: [`${core1}:${port}`], speed: 4 })
      yield* two.rpc("addnode", `${ours}:${port}`, "onetry")
      yield* mine.server.awaitPeers(2)
      yield* mine.server.setNetworkActive(false)
      yield* Net.awaitRows(one, 0)
      yield* Net.awaitRows(two, 0)
      yield* two.rpc("addnode", `${ours}:${port}`, "onetry")
      const refused = yield* mine.awaitEvent("Refused")
      assert.strictEqual(refused.step, "network-off")
      assert.strictEqual((yield* mine.server.networkInfo).networkactive, false)
      yield* mine.server.setNetworkActive(true)
      yield* Net.awaitRows(one, 1)
      yield* two.rpc("addnode", `${ours}:${port}`, "onetry")
      yield* mine.server.awaitPeers(2)
    })
  )
})
