/** Streams of a peer's messages, and slow subscribers. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Nonce } from "effect-bitcoin-peer"
import { filler, fork, ping, startIn } from "./support/peers.ts"

describe.each(["outbound", "inbound"] as const)("an %s peer", (direction) => {
  const start = startIn(direction)

  it.effect("streams messages to several subscribers, and ends the streams when it ends", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const streams = yield* Effect.forEach([1, 2], () => fork(Stream.runCollect(peer.messages)))
      yield* remote.send(ping(1), filler(1), ping(2))
      yield* remote.receiveUntil("pong")
      yield* remote.receiveUntil("pong")
      yield* peer.disconnect()
      for (const stream of streams) {
        assert.deepStrictEqual(
          Array.from(yield* Fiber.join(stream), ({ _tag }) => _tag),
          ["ping", "Unknown", "ping"]
        )
      }
      assert.deepStrictEqual(yield* Stream.runCollect(peer.messages), [])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("stops reading while a stream is not consumed, which holds the remote back, and loses no message", () =>
    Effect.gen(function* () {
      const count = 20_000
      const { peer, remote } = yield* start()
      const gate = yield* Deferred.make<void>()
      const all = yield* Deferred.make<void>()
      const seen: Array<bigint | undefined> = []
      const stream = yield* fork(
        Stream.runForEach(peer.messages, (message) =>
          Effect.gen(function* () {
            yield* Deferred.await(gate)
            if (message._tag === "ping" && seen.push(message.nonce) === count) yield* Deferred.succeed(all, undefined)
          })
        )
      )
      let waits = 0
      for (let index = 0; index < count; index += 100) {
        yield* remote.send(...Array.from({ length: 100 }, (_, offset) => ping(index + offset)))
        yield* TestClock.adjust(1)
        waits = remote.connection.write(new Uint8Array(0))
      }
      const { messagesReceived } = yield* peer.stats
      assert.isBelow(messagesReceived, 10_000)
      assert.isAbove(waits, 200_000)
      yield* Deferred.succeed(gate, undefined)
      // The test reads the pongs: unread pongs would stop the reader as well.
      yield* Effect.forEach(Array.from({ length: count }), () => remote.receiveUntil("pong"), { discard: true })
      yield* Deferred.await(all)
      yield* peer.disconnect()
      yield* Fiber.join(stream)
      assert.deepStrictEqual(
        seen,
        Array.from({ length: count }, (_, index) => BigInt(index))
      )
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect('goes on reading for a slow "dropOldest" subscriber, which gets the newest messages', () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const gate = yield* Deferred.make<void>()
      const seen: Array<bigint | undefined> = []
      const stream = yield* fork(
        Stream.runForEach(peer.subscribe({ whenFull: "dropOldest", capacity: 2_880 }), (message) =>
          Effect.gen(function* () {
            yield* Deferred.await(gate)
            if (message._tag === "ping") seen.push(message.nonce)
          })
        )
      )
      for (let index = 0; index < 100; index++) {
        yield* remote.send(ping(index))
        yield* remote.receiveUntil("pong")
      }
      yield* Deferred.succeed(gate, undefined)
      yield* peer.disconnect()
      yield* Fiber.join(stream)
      assert.deepStrictEqual(
        seen.slice(-10),
        Array.from({ length: 10 }, (_, index) => BigInt(90 + index))
      )
      assert.isBelow(seen.length, 30)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect('fails a slow "fail" subscriber with Overflow after its buffered messages, and stays connected', () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const gate = yield* Deferred.make<void>()
      let seen = 0
      const stream = yield* fork(
        Stream.runForEach(peer.subscribe({ whenFull: "fail", capacity: 2_880 }), () =>
          Effect.andThen(
            Deferred.await(gate),
            Effect.sync(() => void seen++)
          )
        )
      )
      for (let index = 0; index < 100; index++) {
        yield* remote.send(ping(index))
        yield* remote.receiveUntil("pong")
      }
      yield* Deferred.succeed(gate, undefined)
      const error = yield* Effect.flip(Fiber.join(stream))
      assert.deepStrictEqual(error.reason, { _tag: "Overflow", capacity: 2_880 })
      assert.isAtLeast(seen, 10)
      yield* remote.send(ping(1))
      yield* remote.receiveUntil("pong")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("goes on reading when a subscriber that blocked it is interrupted", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const stuck = yield* fork(Stream.runForEach(peer.messages, () => Effect.never))
      yield* remote.send(ping(1))
      yield* remote.receiveUntil("pong")
      yield* remote.send(ping(2))
      yield* remote.receiveUntil("pong")
      yield* remote.send(ping(3))
      yield* TestClock.adjust(1)
      yield* Fiber.interrupt(stuck)
      yield* remote.send(ping(4))
      assert.deepStrictEqual(yield* remote.receiveUntil("pong"), { _tag: "pong", nonce: 3n })
      assert.deepStrictEqual(yield* remote.receiveUntil("pong"), { _tag: "pong", nonce: 4n })
    }).pipe(Effect.provide(Nonce.layer))
  )
})
