/** The harness itself: the functions that the other tests of this folder rely on. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Schema, Scope } from "effect"
import { eventually, expecting, type InteropNode } from "./InteropNode.ts"
import { nodes } from "./nodes.ts"
import * as RawPeer from "./rawPeer.ts"

/** Whether the node announced a block or transaction by inv; `hash` as printed. */
const announces = (peer: RawPeer.RawPeer, hash: string): boolean =>
  peer
    .received()
    .some(
      ({ command, payload }) =>
        command === "inv" && payload.includes(Buffer.from(Buffer.from(hash, "hex").toReversed()))
    )

describe.each(nodes)("a $name node of the harness", ({ name, start }) => {
  it.live("mines blocks, and has the version and user agent of its kind", () =>
    Effect.gen(function* () {
      const node = yield* start()
      assert.strictEqual((yield* node.mine(5)).length, 5)
      assert.strictEqual(yield* node.rpc("getblockcount").pipe(expecting(Schema.Int)), 5)
      assert.match(node.userAgent, name === "bcoin" ? /^\/bcoin:v1\.0\.2\/$/ : /^\/Satoshi:/)
      assert.isAtLeast(node.protocolVersion, 70015)
    })
  )

  it.live("accepts a peer, lists it, logs no complaint, and stops on request", () =>
    Effect.gen(function* () {
      const node = yield* start()
      const peer = yield* RawPeer.dial(node.port)
      yield* RawPeer.handshake(peer, "/raw:1/", 70015)
      yield* eventually(node.peers, (peers) =>
        peers.some(({ addr, inbound, subver }) => addr === peer.address && inbound && subver === "/raw:1/")
      )
      assert.include(yield* node.awaitLog(/version.*raw/), "/raw:1/")
      yield* node.stop
      yield* peer.closed
      assert.deepEqual(node.complaints(), [])
    })
  )

  it.live("dials an address given by a call or at the start", () =>
    Effect.gen(function* () {
      const node = yield* start()
      const called = yield* RawPeer.accept(node.connectTo)
      yield* RawPeer.handshake(called, "/called:1/", 70015)
      const scope = yield* Effect.scope
      const only = yield* RawPeer.accept((port) =>
        Effect.asVoid(Scope.provide(start({ only: `127.0.0.1:${port}` }), scope))
      )
      assert.strictEqual((yield* only.await("version")).payload.readInt32LE(0), node.protocolVersion)
    })
  )

  it.live("announces the blocks that it mines and the coins that it spends", () =>
    Effect.gen(function* () {
      const node = yield* start()
      const [first = ""] = yield* node.mine(1)
      yield* node.mine(100)
      const peer = yield* RawPeer.accept(node.connectTo)
      yield* RawPeer.handshake(peer, "/raw:1/", 70015)
      const txid = yield* node.spendCoinbase(first)
      yield* eventually(
        Effect.sync(() => announces(peer, txid)),
        (seen) => seen
      )
      const [next = ""] = yield* node.mine(1)
      yield* eventually(
        Effect.sync(() => announces(peer, next)),
        (seen) => seen
      )
    })
  )

  it.live("has complaints about a misbehaving peer, by its address and its user agent, and about no other peer", () =>
    Effect.gen(function* () {
      const node = yield* start()
      const good = yield* RawPeer.dial(node.port)
      yield* RawPeer.handshake(good, "/good:1/", 70015)
      const bad = yield* RawPeer.dial(node.port)
      yield* RawPeer.handshake(bad, "/bad:1/", 70015)
      yield* bad.send("verack")
      yield* bad.send("nonsense")
      yield* eventually(
        Effect.sync(() => node.complaints("/bad:1/").length),
        (lines) => lines === 2
      )
      assert.deepEqual(node.complaints(bad.address), node.complaints("/bad:1/"))
      assert.deepEqual(node.complaints(), node.complaints("/bad:1/"))
      assert.deepEqual(node.complaints("/good:1/"), [])
    })
  )

  it.live("has ended when its scope is closed", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const node: InteropNode = yield* Scope.provide(start(), scope)
      const peer = yield* RawPeer.dial(node.port)
      yield* Scope.close(scope, Exit.void)
      yield* peer.closed
      const refused = yield* Effect.flip(RawPeer.dial(node.port))
      assert.include(refused.message, "ECONNREFUSED")
    })
  )

  it.live("fails with the reason in its log when it does not start", () =>
    Effect.gen(function* () {
      const node = yield* start()
      const refused = yield* Effect.flip(start({ port: node.port }))
      assert.match(refused.message, /ended at once \(exit code 1\)[^]*(EADDRINUSE|Unable to bind)/)
    })
  )
})
