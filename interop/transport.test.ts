/** The version 2 transport: with Bitcoin Core in both directions, and dialling bcoin, which supports version 1 only. */
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

/** What the node says of the transport of its one peer. */
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

/** Both say the same of it; then blocks come over it, and more packets than one key is for. */
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

const title = "the version 2 transport and bitcoind"
const describeCore = program === undefined ? describe.skip : describe

describeCore(program === undefined ? `${title} (skipped: BITCOIND names no binary)` : title, () => {
  for (const transport of ["auto", "v2"] as const) {
    live(
      `we dial, ${transport}: encrypted, with the same session id on both sides`,
      (node) =>
        Effect.gen(function* () {
          yield* node.mine(150)
          yield* assertEncrypted(node, yield* dial(node, { transport }))
        }),
      v2
    )
  }

  live(
    "we dial with garbage of 4,095 bytes and decoys",
    (node) =>
      Effect.gen(function* () {
        yield* node.mine(150)
        const obfuscation: Transport.Obfuscation = {
          ...(yield* Transport.Obfuscation),
          garbage: () => Effect.succeed(new Uint8Array(4_095)),
          decoys: Effect.succeed([0, 1, 100_000])
        }
        yield* assertEncrypted(node, yield* Effect.provideService(dial(node), Transport.Obfuscation, obfuscation))
      }),
    v2
  )

  live(
    "it dials: encrypted, with the same session id on both sides",
    (node) =>
      Effect.gen(function* () {
        yield* node.mine(150)
        const invite = (port: number) => node.rpc("addnode", `127.0.0.1:${port}`, "onetry", true)
        const { peer } = yield* OurPeer.meet(node, "inbound", {}, invite)
        yield* assertEncrypted(node, peer)
      }),
    v2
  )

  it.live("it is on another network than we think: the error names its network within two seconds", () =>
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

  // Without the look at what the node complains of: it does, of our key.
  it.live("we dial one without version 2: auto uses version 1 on a second connection, v2 fails", () =>
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
    "it dials us without version 2: it connects again with version 1",
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

// Without the check of what the node complains of: it complains of our key.
describe("auto and bcoin, which supports version 1 only", () => {
  it.live("each of ten dials succeeds, with version 2 as the first try, and bcoin bans nobody", () =>
    Effect.gen(function* () {
      const node = yield* Bcoin.start()
      for (let turn = 0; turn < 10; turn++) {
        // `dial` forgets the address each time. The garbage is as long as the limit allows.
        const peer = yield* Effect.provideService(dial(node), Transport.Obfuscation, {
          ...(yield* Transport.Obfuscation),
          garbage: (limit) => Effect.succeed(new Uint8Array(limit).fill(turn))
        })
        assert.strictEqual(peer.info.transport, "v1")
        yield* peer.ping
      }
      assert.deepStrictEqual(yield* node.rpc("listbanned"), [])
      assert.isNotEmpty(node.complaints(), "it saw no key")
    }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
  )

  it.live("on another network than we think: the error names its network", () =>
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

  it.live("it sees no key of a peer that knows its services", () =>
    Effect.gen(function* () {
      const node = yield* Bcoin.start()
      const peer = yield* dial(node, { remoteServices: Wire.Service.network | Wire.Service.witness })
      yield* peer.ping
      assert.deepStrictEqual(node.complaints(), [])
    }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
  )

  it.live("it bans an address that sends ten headers of garbage: the limit is needed", () =>
    Effect.gen(function* () {
      const node = yield* Bcoin.start()
      const long = { ...(yield* Transport.Obfuscation), garbage: () => Effect.succeed(new Uint8Array(4_095)) }
      yield* Effect.exit(Effect.provideService(dial(node), Transport.Obfuscation, long))
      yield* node.awaitLog(/Ban threshold/)
      assert.isNotEmpty((yield* node.rpc("listbanned")) as ReadonlyArray<unknown>)
    }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
  )
})
