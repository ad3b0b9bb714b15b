/** The v2 transport (BIP324): with Bitcoin Core in both directions, and dials to bcoin, which supports v1 only. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schema } from "effect"
import { Network, Nonce, Peer, Transport, Wire } from "../src/index.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import * as Bcoin from "./bcoin.ts"
import { program, start } from "./bitcoind.ts"
import { eventually, expecting, type InteropNode } from "./InteropNode.ts"
import * as OurPeer from "./ourPeer.ts"

const Rows = Schema.Array(
  Schema.Struct({ subver: Schema.String, transport_protocol_type: Schema.String, session_id: Schema.String })
)

const live = OurPeer.liveWith(start)

const v2 = { args: ["-v2transport=1"] }
const v1 = { args: ["-v2transport=0"] }

/** The transport and session id of the node's only peer, from its getpeerinfo. */
const transportOf = (node: InteropNode) =>
  eventually(node.rpc("getpeerinfo").pipe(expecting(Rows)), (rows) => rows.length === 1 && rows[0]!.subver !== "").pipe(
    Effect.map((rows) => [rows[0]!.transport_protocol_type, rows[0]!.session_id] as const)
  )

const dial = (node: InteropNode, options: Peer.Options = {}) =>
  Peer.dial(NodeConnection.connect({ host: node.host, port: node.port }), {
    network: Network.regtest,
    ...options
  }).pipe(Effect.provideService(Transport.V1Peers, Transport.makeV1Peers()))

const hexOf = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString("hex")

/** Asserts that both sides report v2 and the same session id; then fetches blocks and sends enough packets for a rekey. */
const assertEncrypted = Effect.fnUntraced(function* (node: InteropNode, peer: Peer.Peer) {
  assert.strictEqual(peer.info.transport, "v2")
  assert.deepStrictEqual(yield* transportOf(node), ["v2", hexOf(peer.info.sessionId)])
  const headers = yield* peer.getHeaders([Network.regtest.genesisHash])
  assert.strictEqual(headers.length, 150)
  const items = Array.from(headers, (header) => ({
    type: Wire.InventoryType.block | Wire.InventoryType.witnessFlag,
    hash: Wire.blockHash(header)
  }))
  const blocks = yield* peer.getData(items)
  assert.isTrue(blocks.every(({ _tag }) => _tag === "Found"))
  for (let turn = 0; turn < 500; turn++) yield* peer.ping
})

const title = "the v2 transport with bitcoind"
const describeCore = program === undefined ? describe.skip : describe

describeCore(program === undefined ? `${title} (skipped: BITCOIND is not set)` : title, () => {
  for (const transport of ["auto", "v2"] as const) {
    live(
      `our dial with transport ${transport} is encrypted, with the same session id on both sides`,
      (node) =>
        Effect.gen(function* () {
          yield* node.mine(150)
          yield* assertEncrypted(node, yield* dial(node, { transport }))
        }),
      v2
    )
  }

  live(
    "our dial succeeds with garbage of 4,095 bytes and decoys",
    (node) =>
      Effect.gen(function* () {
        yield* node.mine(150)
        const obfuscation: Transport.Obfuscation = {
          ...(yield* Transport.Obfuscation),
          garbage: () => Effect.succeed(new Uint8Array(4_095)),
          decoys: Effect.succeed([0, 1, 100_000])
        }
        yield* assertEncrypted(
          node,
          yield* Effect.provideService(
            dial(node, { remoteServices: Wire.Service.p2pV2 }),
            Transport.Obfuscation,
            obfuscation
          )
        )
      }),
    v2
  )

  live(
    "the node's dial is encrypted, with the same session id on both sides",
    (node) =>
      Effect.gen(function* () {
        yield* node.mine(150)
        const invite = (port: number) => node.rpc("addnode", `127.0.0.1:${port}`, "onetry", true)
        const { peer } = yield* OurPeer.meet(node, "inbound", {}, invite)
        yield* assertEncrypted(node, peer)
      }),
    v2
  )

  it.live("our dial to a node of another network fails with WrongNetwork within two seconds", () =>
    Effect.gen(function* () {
      const node = yield* start(v2)
      const [elapsed, error] = yield* Effect.timed(Effect.flip(dial(node, { network: Network.mainnet })))
      assert(error._tag === "HandshakeError")
      assert.deepStrictEqual(error.reason, {
        _tag: "WrongNetwork",
        expected: Network.mainnet,
        received: Network.regtest.magic
      })
      assert.isBelow(Duration.toMillis(elapsed), 2_000)
    }).pipe(Effect.provide(Nonce.layer))
  )

  // Not `live`, because the node complains about our key.
  it.live("our dial to a node without v2 falls back to v1 with auto, and fails with v2", () =>
    Effect.gen(function* () {
      const node = yield* start(v1)
      const peer = yield* dial(node)
      assert.strictEqual(peer.info.transport, "v1")
      assert.deepStrictEqual(yield* transportOf(node), ["v1", ""])
      yield* peer.ping
      const error = yield* Effect.flip(dial(node, { transport: "v2" }))
      assert(error._tag === "HandshakeError")
      assert.deepStrictEqual(error.reason, { _tag: "V2NotSpoken", by: "end" })
    }).pipe(Effect.provide(Nonce.layer))
  )

  live(
    "the node dials again with v1 when our side does not accept v2",
    (node) =>
      Effect.gen(function* () {
        const listener = yield* NodeConnection.listen({ port: 0 })
        yield* node.rpc("addnode", `127.0.0.1:${listener.address.port}`, "onetry", true)
        const accept = Effect.flatMap(listener.accept, (connection) =>
          Peer.make(connection, {
            network: Network.regtest,
            direction: "inbound",
            transport: "v1",
            services: OurPeer.services
          })
        )
        assert.include((yield* Effect.flip(accept)).message, "not a Bitcoin node of regtest")
        const peer = yield* accept
        assert.deepStrictEqual(yield* transportOf(node), ["v1", ""])
        yield* peer.ping
      }),
    v2
  )
})

// Not `live`, because bcoin complains about our key.
describe("auto dials to bcoin, which supports v1 only,", () => {
  it.live("succeed ten times after a first try with v2, and bcoin bans no address", () =>
    Effect.gen(function* () {
      const node = yield* Bcoin.start()
      for (let turn = 0; turn < 10; turn++) {
        // Each call of `dial` here has a new V1Peers. The garbage has the maximum length.
        const peer = yield* Effect.provideService(dial(node), Transport.Obfuscation, {
          ...(yield* Transport.Obfuscation),
          garbage: (limit) => Effect.succeed(new Uint8Array(limit).fill(turn))
        })
        assert.strictEqual(peer.info.transport, "v1")
        yield* peer.ping
      }
      assert.deepStrictEqual(yield* node.rpc("listbanned"), [])
      assert.isNotEmpty(node.complaints(), "bcoin logged no complaint about a key")
    }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
  )

  it.live("fail with WrongNetwork if bcoin is on another network", () =>
    Effect.gen(function* () {
      const node = yield* Bcoin.start()
      const error = yield* Effect.flip(dial(node, { network: Network.mainnet }))
      assert(error._tag === "HandshakeError")
      assert.deepStrictEqual(error.reason, {
        _tag: "WrongNetwork",
        expected: Network.mainnet,
        received: Network.regtest.magic
      })
    }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
  )

  it.live("send no key if remoteServices lacks P2P_V2", () =>
    Effect.gen(function* () {
      const node = yield* Bcoin.start()
      const peer = yield* dial(node, { remoteServices: Wire.Service.network | Wire.Service.witness })
      yield* peer.ping
      assert.deepStrictEqual(node.complaints(), [])
    }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
  )

  it.live("are banned with 4,095 bytes of garbage (ten unreadable headers), so the limit of 175 is needed", () =>
    Effect.gen(function* () {
      const node = yield* Bcoin.start()
      const long = { ...(yield* Transport.Obfuscation), garbage: () => Effect.succeed(new Uint8Array(4_095)) }
      yield* Effect.exit(
        Effect.provideService(dial(node, { remoteServices: Wire.Service.p2pV2 }), Transport.Obfuscation, long)
      )
      yield* node.awaitLog(/Ban threshold/)
      assert.isNotEmpty((yield* node.rpc("listbanned")) as ReadonlyArray<unknown>)
    }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
  )
})
