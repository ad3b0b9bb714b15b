/** `Peer` with a real node: every way in which the connection ends, seen from both sides. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import { Handshake, Nonce } from "../src/index.ts"
import { nodes } from "./nodes.ts"
import * as OurPeer from "./ourPeer.ts"

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

/**
 * Pings twice: at the second pong the node has read all our answers to its first messages. Otherwise it would close its
 * socket with unread bytes, which resets the connection.
 */
const settle = ({ peer }: OurPeer.OurPeer) => Effect.repeat(peer.ping, { times: 1 })

describe.each(nodes)("a peer and $name", ({ start }) => {
  const live = OurPeer.liveWith(start)

  describe.each(OurPeer.directions)("%s", (direction) => {
    live("end with Requested when we disconnect", (node) =>
      Effect.gen(function* () {
        const met = yield* OurPeer.meet(node, direction)
        yield* OurPeer.rowOf(node, met)
        const stream = yield* fork(Stream.runDrain(met.peer.messages))
        yield* met.peer.disconnect("enough")
        assert.deepEqual(yield* met.peer.awaitShutdown, { _tag: "Requested", why: "enough" })
        yield* Fiber.join(stream)
        assert.strictEqual((yield* Effect.flip(met.peer.ping)).reason._tag, "Ended")
        yield* OurPeer.forgotten(node, met.address)
      })
    )

    live("end with ScopeClosed when our scope is closed", (node) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const met = yield* Scope.provide(OurPeer.meet(node, direction), scope)
        yield* OurPeer.rowOf(node, met)
        yield* Scope.close(scope, Exit.void)
        assert.deepEqual(yield* met.peer.awaitShutdown, { _tag: "ScopeClosed" })
        yield* OurPeer.forgotten(node, met.address)
      })
    )

    live("end with HandlerFailed when a handler fails, without a complaint of the node", (node) =>
      Effect.gen(function* () {
        const met = yield* OurPeer.meet(node, direction, { handlers: { pong: () => Effect.fail("no more") } })
        yield* OurPeer.rowOf(node, met)
        yield* met.peer.ping
        const end = yield* met.peer.awaitShutdown
        assert.deepInclude(end, { _tag: "HandlerFailed", command: "pong" })
        yield* OurPeer.forgotten(node, met.address)
      })
    )

    live("end with RemoteClosed when the node disconnects us", (node) =>
      Effect.gen(function* () {
        const met = yield* OurPeer.meet(node, direction)
        yield* settle(met)
        yield* node.rpc("disconnectnode", met.address)
        assert.deepEqual(yield* met.peer.awaitShutdown, { _tag: "RemoteClosed" })
      })
    )

    it.live("end with RemoteClosed when the node is shut down", () =>
      Effect.gen(function* () {
        const node = yield* start()
        const met = yield* OurPeer.meet(node, direction)
        yield* settle(met)
        yield* node.stop
        assert.deepEqual(yield* met.peer.awaitShutdown, { _tag: "RemoteClosed" })
        assert.deepEqual(node.complaints(), [])
        assert.include(node.log().join("\n"), Handshake.defaultUserAgent)
      }).pipe(Effect.provide(Nonce.layer))
    )

    it.live("end with RemoteClosed or ConnectionLost when the node's process is killed", () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const node = yield* Scope.provide(start(), scope)
        const { peer } = yield* OurPeer.meet(node, direction)
        yield* Scope.close(scope, Exit.void)
        assert.include(["RemoteClosed", "ConnectionLost"], (yield* peer.awaitShutdown)._tag)
      }).pipe(Effect.provide(Nonce.layer))
    )
  })
})
