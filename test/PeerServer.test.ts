/** PeerServer.serve: inbound peers from the connections of a listener. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, Random } from "effect"
import { TestClock } from "effect/testing"
import { Connection, Nonce, PeerServer, Wire } from "effect-bitcoin-peer"
import { fork, network, ping, scripted, verack, version } from "./support/peers.ts"

/** A listener that accepts the first ends of these pairs, and then nothing more. */
const listenerOf = (pairs: ReadonlyArray<Connection.Pair>): PeerServer.Listener => {
  const waiting = pairs.map(([ours]) => ours)
  return {
    accept: Effect.suspend(() => {
      const next = waiting.shift()
      return next === undefined ? Effect.never : Effect.acquireRelease(Effect.succeed(next), ({ close }) => close)
    })
  }
}

describe("PeerServer.acceptEach", () => {
  it.effect("returns when until has succeeded and every attend has ended, and then has closed the connections", () =>
    Effect.gen(function* () {
      const pairs = yield* Effect.forEach([1, 2], () => Connection.makePair())
      const enough = yield* Deferred.make<void>()
      const mayEnd = yield* Deferred.make<void>()
      let attended = 0
      const accepting = yield* fork(
        PeerServer.acceptEach(
          listenerOf(pairs),
          () =>
            Effect.andThen(
              Effect.sync(() => attended++),
              Deferred.await(mayEnd)
            ),
          Deferred.await(enough)
        )
      )
      yield* TestClock.adjust("1 second")
      assert.strictEqual(attended, 2)
      yield* Deferred.succeed(enough, undefined)
      yield* TestClock.adjust("1 second")
      assert.isUndefined(accepting.pollUnsafe())
      yield* Deferred.succeed(mayEnd, undefined)
      yield* Fiber.join(accepting)
      for (const [, theirs] of pairs) assert.strictEqual((yield* Effect.flip(theirs.pull)).reason._tag, "Closed")
    })
  )
})

describe("PeerServer.serve", () => {
  it.effect(
    "makes a peer of each connection; a failed handshake is passed to onRefused and ends only its own connection",
    () =>
      Effect.gen(function* () {
        const agents: Array<string> = []
        const refused: Array<string> = []
        const connections = yield* Effect.forEach([1, 2, 3], () => Connection.makePair())
        const listener = listenerOf(connections)
        const server = yield* fork(
          PeerServer.serve(listener, {
            peer: (connection) => ({
              network,
              transport: "v1",
              userAgent: `/served to ${connection.remoteAddress.port}/`
            }),
            onPeer: (peer) => Effect.sync(() => void agents.push(peer.info.userAgent)),
            onRefused: (error) => Effect.sync(() => void refused.push(error.reason._tag))
          })
        )
        const remotes = connections.map(([, theirs]) => scripted(theirs))
        yield* remotes[0]!.send(version({ userAgent: "/one/" }), verack)
        yield* remotes[1]!.sendBytes(new TextEncoder().encode("GET / HTTP/1.1\r\n"))
        yield* remotes[2]!.send(version({ userAgent: "/three/" }), verack)
        for (const remote of [remotes[0]!, remotes[2]!]) {
          const ours = yield* remote.receive
          assert(ours._tag === "version")
          assert.strictEqual(ours.userAgent, `/served to ${connections[0]![0].remoteAddress.port}/`)
          yield* remote.send(ping(1))
          yield* remote.receiveUntil("pong")
        }
        assert.deepStrictEqual(agents.toSorted(), ["/one/", "/three/"])
        assert.deepStrictEqual(refused, ["WrongNetwork"])
        yield* Effect.flip(remotes[1]!.receive)
        yield* Fiber.interrupt(server)
        yield* Effect.flip(remotes[0]!.receiveUntil("Unknown"))
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a failing onPeer or a throwing choice of options ends only its own peer", () =>
    Effect.gen(function* () {
      const connections = yield* Effect.forEach([1, 2, 3], () => Connection.makePair())
      const listener = listenerOf(connections)
      let count = 0
      yield* fork(
        PeerServer.serve(listener, {
          peer: () => {
            if (++count === 1) throw new Error("bug")
            return { network }
          },
          onPeer: (peer) => (peer.info.userAgent === "/bad/" ? Effect.fail("no") : Effect.void)
        })
      )
      const remotes = connections.map(([, theirs]) => scripted(theirs))
      yield* Effect.flip(remotes[0]!.receive)
      yield* remotes[1]!.send(version({ userAgent: "/bad/" }), verack)
      yield* Effect.flip(remotes[1]!.receiveUntil("Unknown"))
      yield* remotes[2]!.send(version(), verack, ping(1))
      yield* remotes[2]!.receiveUntil("pong")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("gives all peers of a network group the same times of the trickle, also where the options have none", () =>
    Effect.gen(function* () {
      for (const peer of [{ network }, { network, trickle: undefined }, () => ({ network, trickle: undefined })]) {
        const connections = yield* Effect.forEach([1, 2], () => Connection.makePair())
        const waiting = connections.map(([ours]) => ours)
        const listener = {
          accept: Effect.suspend(() => {
            const next = waiting.shift()
            return next === undefined ? Effect.never : Effect.succeed(next)
          })
        }
        const server = yield* fork(
          PeerServer.serve(listener, {
            peer,
            onPeer: (peer) => peer.announce([{ type: Wire.InventoryType.tx, hash: new Uint8Array(32).fill(7) }])
          })
        )
        const times: Array<number> = []
        for (const [, theirs] of connections) {
          const remote = scripted(theirs)
          yield* remote.send(version(), verack)
          yield* remote.receiveUntil("verack")
          yield* fork(
            Effect.gen(function* () {
              yield* remote.receiveUntil("inv")
              times.push(yield* Clock.currentTimeMillis)
            })
          )
        }
        // Each peer alone would draw its own time, with a mean of 5 s.
        for (let second = 0; second < 100; second += 0.1) yield* TestClock.adjust("100 millis")
        assert.lengthOf(times, 2)
        assert.strictEqual(times[0], times[1])
        yield* Fiber.interrupt(server)
      }
    }).pipe(Random.withSeed("shared trickle"), Effect.provide(Nonce.layer))
  )
})
