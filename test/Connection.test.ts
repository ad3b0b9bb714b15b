/** Connections in memory and over Effect Sockets: the compliance suite, delays, windows, splits and cuts. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { Socket } from "effect/socket"
import { TestClock } from "effect/testing"
import * as Connection from "../src/Connection.ts"
import { compliance, fill, patterned, pullBytes, pullToEnd } from "./support/connectionCompliance.ts"
import { makeSocketPair } from "./support/memorySocket.ts"

const held = (end: Connection.Connection): number => {
  const receiveBuffer: { readonly size: number } = Reflect.get(end, "receiveBuffer")
  return receiveBuffer.size
}

const fromPair = (pair: Connection.Pair) => ({ a: pair[0], b: pair[1], resetB: pair.reset() })

compliance("the in-memory pair", {
  time: "virtual",
  heldBy: held,
  capacity: 1_048_576,
  make: (options) => Effect.map(Connection.makePair(options), fromPair)
})

compliance("the in-memory pair that cuts writes", {
  time: "virtual",
  heldBy: held,
  capacity: 1_048_576,
  make: (options) => Effect.map(Connection.makePair({ ...options, split: [1, 700, 13] }), fromPair)
})

compliance("an Effect Socket", {
  time: "virtual",
  capacity: 4_194_304,
  make: (options) =>
    Effect.gen(function* () {
      const sockets = yield* makeSocketPair
      const a = yield* Connection.fromSocket(sockets.first, options)
      const b = yield* Connection.fromSocket(sockets.second, options)
      return { a, b, resetB: sockets.resetSecond }
    })
})

describe("makePair", () => {
  it.effect("holds as many bytes as its window; write returns the number of bytes beyond it", () =>
    Effect.gen(function* () {
      const [a, b] = yield* Connection.makePair({ window: 1000 })
      assert.strictEqual(a.write(patterned(600)), 0)
      assert.strictEqual(a.write(patterned(600, 600)), 200)
      assert.strictEqual(a.write(patterned(100, 1200)), 300)
      assert.strictEqual(held(b), 1000)
      assert.strictEqual((yield* pullBytes(b, 1000)).length, 1000)
      assert.strictEqual(a.write(new Uint8Array(0)), 0)
      assert.deepStrictEqual(yield* pullBytes(b, 300), patterned(300, 1000))
    })
  )

  it.effect("gives all waiting bytes in one batch, and each piece of a split write in a batch of its own", () =>
    Effect.gen(function* () {
      const [a, b] = yield* Connection.makePair()
      a.write(Uint8Array.of(1))
      a.write(Uint8Array.of(2, 3))
      assert.deepStrictEqual(yield* b.pull, [Uint8Array.of(1), Uint8Array.of(2, 3)])

      const [c, d] = yield* Connection.makePair({ split: [1, 2] })
      c.write(Uint8Array.of(1, 2, 3, 4))
      c.write(Uint8Array.of(5))
      assert.deepStrictEqual(yield* d.pull, [Uint8Array.of(1)])
      assert.deepStrictEqual(yield* d.pull, [Uint8Array.of(2, 3)])
      assert.deepStrictEqual(yield* d.pull, [Uint8Array.of(4)])
      assert.deepStrictEqual(yield* d.pull, [Uint8Array.of(5)])
    })
  )

  it.effect("splits writes with a given function", () =>
    Effect.gen(function* () {
      const [a, b] = yield* Connection.makePair({ split: (bytes) => [bytes.subarray(0, 1), bytes.subarray(1)] })
      a.write(Uint8Array.of(1, 2, 3))
      a.write(Uint8Array.of(4))
      assert.deepStrictEqual(yield* b.pull, [Uint8Array.of(1)])
      assert.deepStrictEqual(yield* b.pull, [Uint8Array.of(2, 3)])
      assert.deepStrictEqual(yield* b.pull, [Uint8Array.of(4)])
    })
  )

  it.effect("gives what it sends to a carrier, and drops what a carrier brings from before a reset", () =>
    Effect.gen(function* () {
      const way: Array<readonly [0 | 1, Uint8Array | undefined, () => void]> = []
      const pair = yield* Connection.makePair({ window: 10, carry: (...parcel) => void way.push(parcel) })
      const [a, b] = pair
      assert.strictEqual(a.write(patterned(15)), 5)
      b.write(Uint8Array.of(7))
      assert.deepStrictEqual(
        way.map(([from, bytes]) => [from, bytes?.length]),
        [
          [0, 10],
          [1, 1]
        ]
      )
      way[0]![2]()
      assert.deepStrictEqual(yield* pullBytes(b, 10), patterned(10))
      assert.deepStrictEqual(way[2]!.slice(0, 2), [0, patterned(5, 10)])
      yield* a.close
      assert.deepStrictEqual(way[3]!.slice(0, 2), [0, undefined])
      way[2]![2]()
      way[3]![2]()
      const { bytes, error } = yield* pullToEnd(b)
      assert.deepStrictEqual(bytes, patterned(5, 10))
      assert.strictEqual(error.reason._tag, "Closed")

      const late: Array<() => void> = []
      const other = yield* Connection.makePair({ carry: (_, __, arrive) => void late.push(arrive) })
      other[0].write(patterned(5))
      yield* other.reset()
      for (const arrive of late) arrive()
      assert.strictEqual((yield* pullToEnd(other[1])).bytes.length, 0)
    })
  )

  it.effect("can tell each end another remote address", () =>
    Effect.gen(function* () {
      const [first, second, proxy] = [1, 2, 3].map((n) => ({ host: `192.0.2.${n}`, port: n }))
      const [a, b] = yield* Connection.makePair({ addresses: [first!, second!], remoteAddresses: [second!, proxy!] })
      assert.deepStrictEqual([a.localAddress, a.remoteAddress], [first, second])
      assert.deepStrictEqual([b.localAddress, b.remoteAddress], [second, proxy])
    })
  )

  it.effect("delays bytes and ends on the Clock, and keeps their order", () =>
    Effect.gen(function* () {
      const [a, b] = yield* Connection.makePair({ delay: 100, closeTimeout: "1 second" })
      a.write(Uint8Array.of(1))
      yield* TestClock.adjust(60)
      a.write(Uint8Array.of(2))
      const closing = yield* Effect.forkChild(a.close, { startImmediately: true })
      const first = yield* Effect.forkChild(b.pull, { startImmediately: true })
      yield* TestClock.adjust(39)
      assert.isUndefined(first.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(first), [Uint8Array.of(1)])
      const second = yield* Effect.forkChild(b.pull, { startImmediately: true })
      yield* TestClock.adjust(59)
      assert.isUndefined(second.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(second), [Uint8Array.of(2)])
      assert.strictEqual((yield* Effect.flip(b.pull)).reason._tag, "Closed")
      assert.isUndefined(closing.pollUnsafe(), "the close of the other side is still in transit")
      yield* TestClock.adjust(100)
      yield* Fiber.join(closing)
    })
  )

  it.effect("closes without waiting by default; written bytes can still be pulled", () =>
    Effect.gen(function* () {
      const [a, b] = yield* Connection.makePair({ window: 2, delay: 100 })
      a.write(Uint8Array.of(1, 2, 3, 4))
      yield* a.close
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(yield* b.pull, [Uint8Array.of(1, 2)])
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(yield* b.pull, [Uint8Array.of(3, 4)])
      yield* TestClock.adjust(100)
      assert.strictEqual((yield* Effect.flip(b.pull)).reason._tag, "Closed")
    })
  )

  it.effect("delays in both directions: a round trip takes twice the delay", () =>
    Effect.gen(function* () {
      const [a, b] = yield* Connection.makePair({ delay: 50 })
      yield* Effect.forkChild(
        Effect.map(b.pull, ([bytes]) => b.write(bytes)),
        { startImmediately: true }
      )
      a.write(Uint8Array.of(9))
      const answer = yield* Effect.forkChild(a.pull, { startImmediately: true })
      yield* TestClock.adjust(99)
      assert.isUndefined(answer.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(yield* Fiber.join(answer), [Uint8Array.of(9)])
    })
  )

  it.effect("counts bytes in transit into the window", () =>
    Effect.gen(function* () {
      const [a] = yield* Connection.makePair({ delay: 50, window: 100 })
      assert.strictEqual(a.write(patterned(150)), 50)
    })
  )

  it.effect("resets after cutAfter bytes, and delivers all bytes before", () =>
    Effect.gen(function* () {
      const [a, b] = yield* Connection.makePair({ cutAfter: 5 })
      a.write(Uint8Array.of(1, 2, 3))
      a.write(Uint8Array.of(4, 5, 6, 7))
      const { bytes, error } = yield* pullToEnd(b)
      assert.deepStrictEqual(bytes, Uint8Array.of(1, 2, 3, 4, 5))
      assert.strictEqual(error.message, "connection reset: cut after 5 bytes")
      assert.strictEqual((yield* Effect.flip(a.pull)).reason._tag, "Reset")
      assert.strictEqual((yield* Effect.flip(a.drained)).reason._tag, "Reset")
    })
  )

  it.effect("cuts only one direction if the other has no limit", () =>
    Effect.gen(function* () {
      const [a, b] = yield* Connection.makePair({ cutAfter: [undefined, 2] })
      a.write(patterned(100))
      yield* pullBytes(b, 100)
      b.write(patterned(100))
      const { bytes, error } = yield* pullToEnd(a)
      assert.deepStrictEqual(bytes, patterned(2))
      assert.strictEqual(error.reason._tag, "Reset")
    })
  )

  it.effect("loses bytes in transit at a reset and keeps those that have arrived", () =>
    Effect.gen(function* () {
      const pair = yield* Connection.makePair({ delay: 10 })
      const [a, b] = pair
      a.write(Uint8Array.of(1))
      yield* TestClock.adjust(10)
      a.write(Uint8Array.of(2))
      yield* pair.reset(new Error("unplugged"))
      const { bytes, error } = yield* pullToEnd(b)
      assert.deepStrictEqual(bytes, Uint8Array.of(1))
      assert.strictEqual(error.message, "connection reset: unplugged")
      yield* TestClock.adjust(1000)
      assert.strictEqual(yield* Effect.flip(b.pull), error)
    })
  )

  it.effect("closes with its scope at once, without waiting for bytes in transit", () =>
    Effect.gen(function* () {
      const [a, b] = yield* Effect.scoped(
        Effect.tap(Connection.makePair({ delay: "1 hour", closeTimeout: "2 hours" }), ([a]) =>
          Effect.sync(() => fill(a, 1_000_000))
        )
      )
      assert.strictEqual((yield* Effect.flip(a.pull)).reason._tag, "Closed")
      assert.strictEqual((yield* Effect.flip(b.pull)).reason._tag, "Closed")
    })
  )

  it.effect("gives each end the other's address as remoteAddress", () =>
    Effect.gen(function* () {
      const [alice, bob] = [
        { host: "192.0.2.7", port: 1 },
        { host: "2001:db8::1", port: 2 }
      ]
      const [a, b] = yield* Connection.makePair({ addresses: [alice, bob] })
      assert.deepStrictEqual([a.localAddress, a.remoteAddress], [alice, bob])
      assert.deepStrictEqual([b.localAddress, b.remoteAddress], [bob, alice])
    })
  )
})

describe("fromSocket", () => {
  it.effect("fails with DialFailed and the remote address when the Socket cannot be opened", () =>
    Effect.gen(function* () {
      const cause = Object.assign(new Error("no"), { code: "ECONNREFUSED" })
      const failing = (kind: "Unknown" | "Timeout") =>
        Socket.make({
          reader: Effect.fail(new Socket.SocketError({ reason: new Socket.SocketOpenError({ kind, cause }) })),
          writer: Effect.never
        })
      const options = { remoteAddress: { host: "192.0.2.1", port: 8333 } }
      const refused = yield* Effect.flip(Connection.fromSocket(failing("Unknown"), options))
      assert.strictEqual(refused.message, "connect 192.0.2.1:8333: connection refused")
      const late = yield* Effect.flip(Connection.fromSocket(failing("Timeout"), options))
      assert.strictEqual(late.message, "connect 192.0.2.1:8333: timed out")
    })
  )

  it.effect("reads ahead at most 1,024 pieces of any size", () =>
    Effect.gen(function* () {
      const sockets = yield* makeSocketPair
      const a = yield* Connection.fromSocket(sockets.first)
      const b = yield* Connection.fromSocket(sockets.second)
      for (let i = 0; i < 3000; i++) {
        a.write(patterned(1, i))
        // Bytes written in one turn arrive as one piece.
        yield* Effect.yieldNow
      }
      const waiting = a.write(new Uint8Array(0))
      assert.isAtLeast(waiting, 3000 - 1_024 - 2 * 16)
      assert.deepStrictEqual(yield* pullBytes(b, 3000), patterned(3000))
    })
  )

  it.effect("opens the Socket of the context with layerSocket", () =>
    Effect.gen(function* () {
      const sockets = yield* makeSocketPair
      const other = yield* Connection.fromSocket(sockets.second)
      other.write(Uint8Array.of(3))
      const bytes = yield* Connection.Connection.use((connection) => pullBytes(connection, 1)).pipe(
        Effect.provide(Connection.layerSocket().pipe(Layer.provide(Layer.succeed(Socket.Socket, sockets.first))))
      )
      assert.deepStrictEqual(bytes, Uint8Array.of(3))
      assert.strictEqual((yield* Effect.flip(other.pull)).reason._tag, "Closed")
    })
  )
})

describe("ConnectionError", () => {
  const at = { host: "::1", port: 8333, cause: new Error("strange") }
  const messages: ReadonlyArray<readonly [Connection.ConnectionReason, string]> = [
    [{ _tag: "Closed" }, "connection closed"],
    [{ _tag: "Reset", cause: new Error("read ECONNRESET") }, "connection reset: read ECONNRESET"],
    [{ _tag: "DialFailed", problem: "Refused", ...at }, "connect [::1]:8333: connection refused"],
    [{ _tag: "DialFailed", problem: "Other", ...at }, "connect [::1]:8333: strange"],
    [{ _tag: "DialFailed", problem: "BadPort", ...at }, "connect [::1]:8333: not a port"],
    [{ _tag: "ListenFailed", problem: "AddressInUse", ...at }, "listen [::1]:8333: address in use"]
  ]
  for (const [reason, message] of messages) {
    it(`says "${message}"`, () => assert.strictEqual(new Connection.ConnectionError({ reason }).message, message))
  }
})
