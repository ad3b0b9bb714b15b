/** Peers over real TCP on loopback. */
import { fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Schedule, Scope } from "effect"
import { Network, Nonce, Peer, PeerServer } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"

const network = Network.regtest

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void

/** Memory of this process after garbage collection, in bytes. */
const memory = (): number => {
  collect()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const sockets = (): number => process.getActiveResourcesInfo().filter((name) => name.startsWith("TCPSocketWrap")).length

const eventually = (condition: () => boolean) =>
  Effect.suspend(() => (condition() ? Effect.void : Effect.fail("not yet" as const))).pipe(
    Effect.retry(Schedule.spaced("20 millis").pipe(Schedule.upTo({ duration: "10 seconds" })))
  )

describe("peers over TCP", () => {
  it.live(
    "a consumer that stops reading holds the TCP connection back with bounded memory, and gets all 200 MB when it resumes",
    () =>
      Effect.gen(function* () {
        const gate = yield* Deferred.make<void>()
        const done = yield* Deferred.make<void>()
        let received = 0
        let highest = 0
        const listener = yield* NodeConnection.listen({ host: "127.0.0.1", port: 0 })
        const child = yield* Effect.acquireRelease(
          Effect.sync(() =>
            fork(fileURLToPath(new URL("support/flood.ts", import.meta.url)), [String(listener.address.port)], {
              execArgv: ["--conditions=@effect-bitcoin-peer/source"]
            })
          ),
          (child) => Effect.sync(() => void child.kill())
        )
        const stalled = yield* Effect.callback<number>((resume) => {
          child.on("message", (message: { stalledAfter?: number }) => {
            if (message.stalledAfter !== undefined) resume(Effect.succeed(message.stalledAfter))
          })
        }).pipe(Effect.forkScoped({ startImmediately: true }))
        const before = memory()
        const connection = yield* listener.accept
        const peer = yield* Peer.make(connection, {
          network,
          direction: "inbound",
          handlers: {
            Unknown: (message) =>
              Effect.gen(function* () {
                yield* Deferred.await(gate)
                received += message.payload.length
                if (received % 20_000_000 === 0) highest = Math.max(highest, memory())
                if (received === 200_000_000) yield* Deferred.succeed(done, undefined)
              })
          }
        })
        const accepted = yield* Fiber.join(stalled)
        assert.isBelow(accepted, 50_000_000, "the remote was not held back")
        assert.isBelow(memory() - before, 16_000_000, "memory grew while the consumer was paused")
        yield* Deferred.succeed(gate, undefined)
        yield* Deferred.await(done)
        // The bound is larger than for the paused consumer: V8 frees array buffers some time after they become garbage.
        assert.isBelow(highest - before, 64_000_000, "memory grew while the consumer was reading")
        yield* peer.disconnect()
        assert.strictEqual((yield* peer.awaitShutdown)._tag, "Requested")
      }).pipe(Effect.scoped, Effect.provide(Nonce.layer)),
    60_000
  )

  it.live("a served peer and a dialed peer exchange messages, and no handle is left when both scopes are closed", () =>
    Effect.gen(function* () {
      const before = sockets()
      const scope = yield* Scope.make()
      const listener = yield* Scope.provide(NodeConnection.listen({ host: "127.0.0.1", port: 0 }), scope)
      const server = yield* Effect.forkChild(PeerServer.serve(listener, { peer: { network } }), {
        startImmediately: true
      })
      const peers = yield* Effect.forEach(
        Array.from({ length: 10 }),
        () =>
          NodeConnection.connect(listener.address).pipe(
            Effect.flatMap((connection) => Peer.make(connection, { network, requiredServices: [] })),
            Effect.provide(Nonce.layer, { local: true }),
            Scope.provide(scope)
          ),
        { concurrency: "unbounded" }
      )
      yield* Effect.forEach(peers, (peer) => peer.ping, { concurrency: "unbounded" })
      assert.isAtLeast(sockets(), before + 20)
      yield* Fiber.interrupt(server)
      for (const peer of peers) assert.strictEqual((yield* peer.awaitShutdown)._tag, "RemoteClosed")
      yield* Scope.close(scope, Exit.void)
      yield* eventually(() => sockets() === before)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.live("a peer whose remote process is killed ends with a typed reason and leaves no handle", () =>
    Effect.gen(function* () {
      const before = sockets()
      const listener = yield* NodeConnection.listen({ host: "127.0.0.1", port: 0 })
      const child = fork(fileURLToPath(new URL("support/flood.ts", import.meta.url)), [String(listener.address.port)], {
        execArgv: ["--conditions=@effect-bitcoin-peer/source"]
      })
      const connection = yield* listener.accept
      const peer = yield* Peer.make(connection, {
        network,
        direction: "inbound",
        handlers: { Unknown: () => void child.kill("SIGKILL") }
      })
      assert.include(["RemoteClosed", "ConnectionLost"], (yield* peer.awaitShutdown)._tag)
      yield* eventually(() => sockets() === before)
    }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
  )
})
