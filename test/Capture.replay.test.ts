/** Replaying captures, including those of Bitcoin Core, to a peer. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Result, Scope, Stream } from "effect"
import { Capture, Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { TestClock } from "effect/testing"
import { memoryFiles } from "./support/files.ts"
import { concat } from "./support/generators.ts"
import { network, verack, version } from "./support/peers.ts"
import { captures, readCapture, readVector } from "./support/vectors.ts"
import { encode, time, ping, cut, readAll, folder, recordsOf, recordedPeer } from "./support/captures.ts"

const patient: Peer.Options = {
  network: Network.regtest,
  pingInterval: "Infinity",
  idleTimeout: "Infinity",
  // These services are needed: the recorded requests of a light client would end a peer without them.
  services: Wire.Service.bloom | Wire.Service.compactFilters,
  requiredServices: []
}

/** A peer over a capture, and the messages that it has read so far, including dropped ones. */
const replayed = Effect.fnUntraced(function* <E>(
  records: Stream.Stream<Capture.Captured, E>,
  options: Capture.ReplayOptions = {}
) {
  const read: Array<string> = []
  const connection = yield* Capture.replay(records, { network: Network.regtest, ...options })
  const making = yield* Peer.make(connection, {
    ...patient,
    onRead: (event) => void read.push(event._tag === "Received" ? Wire.command(event.message) : "dropped")
  }).pipe(Effect.provide(Nonce.layer), Effect.forkChild({ startImmediately: true }))
  return { connection, making, read }
})

const handshake: ReadonlyArray<Capture.Captured> = [
  { time, command: "version", payload: Result.getOrThrow(Wire.encode(version())) },
  { time: time + 500_000, command: "verack", payload: new Uint8Array(0) },
  { time: time + 1_500_001, command: "ping", payload: ping.payload },
  { time: time + 1_400_000, command: "pong", payload: Uint8Array.of(1) },
  { time: time + 601_500_000, command: "nonsense", payload: new Uint8Array(0) }
]
const commands = ["version", "verack", "ping", "dropped", "nonsense"]

describe("replay", () => {
  it.effect("sends each message at its recorded time after the first, then closes", () =>
    Effect.gen(function* () {
      const { making, read } = yield* replayed(Stream.fromIterable(handshake))
      const at = function* (milliseconds: number, count: number) {
        yield* TestClock.setTime(milliseconds - 1)
        assert.isBelow(read.length, count)
        yield* TestClock.setTime(milliseconds)
        assert.deepStrictEqual(read, commands.slice(0, count))
      }
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(read, ["version"])
      yield* at(500, 2)
      const peer = yield* Fiber.join(making)
      // The fourth message has an earlier recorded time than the third, so it is sent at once.
      yield* at(1501, 4)
      yield* at(601_500, 5)
      assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "RemoteClosed" })
      assert.strictEqual(peer.info.userAgent, "/remote:1.0/")
    })
  )

  it.effect("replays at another speed", () =>
    Effect.gen(function* () {
      const { read } = yield* replayed(Stream.fromIterable(handshake), { speed: 100 })
      yield* TestClock.setTime(6014)
      assert.strictEqual(read.length, 4)
      yield* TestClock.setTime(6015)
      assert.strictEqual(read.length, 5)
    })
  )

  it.effect("at infinite speed, sends as fast as the peer reads and no faster", () =>
    Effect.gen(function* () {
      let made = 0
      const many = Stream.fromIterable(
        (function* () {
          for (; made < 1000; made++) yield { ...ping, payload: new Uint8Array(1000), time: time + made * 1e9 }
        })(),
        { chunkSize: 1 }
      )
      const connection = yield* Capture.replay(many, { speed: Infinity })
      yield* TestClock.adjust(0)
      assert.isBelow(made, 100, "more than 64 KiB are read ahead")
      let size = 0
      const end = yield* Effect.forever(
        Effect.map(connection.pull, (batch) => batch.forEach(({ length }) => (size += length)))
      ).pipe(Effect.flip)
      assert.strictEqual(end.reason._tag, "Closed")
      assert.strictEqual(size, 1000 * 1024)
    })
  )

  it.effect("exposes the bytes that the peer writes", () =>
    Effect.gen(function* () {
      const parser = Wire.makeParser({ magic: network.magic })
      const written: Array<string> = []
      const { making } = yield* replayed(Stream.fromIterable(handshake), {
        onWrite: (bytes) => {
          for (const event of parser.push(bytes))
            if (event._tag === "Received") written.push(Wire.command(event.message))
        }
      })
      yield* TestClock.adjust("1 hour")
      yield* (yield* Fiber.join(making)).awaitShutdown
      assert.deepStrictEqual(written, ["version", "wtxidrelay", "sendaddrv2", "verack", "pong"])
    })
  )

  it.effect("resets the connection after the last complete record of a truncated capture, with the CaptureError", () =>
    Effect.gen(function* () {
      const bytes = concat(...handshake.map(encode)).slice(0, -1)
      const { making, read } = yield* replayed(Capture.decode(Stream.fromIterable(cut(bytes, 10))), { speed: Infinity })
      const end = yield* (yield* Fiber.join(making)).awaitShutdown
      assert.deepStrictEqual(read, commands.slice(0, 4))
      assert.strictEqual(end._tag, "ConnectionLost")
      if (end._tag !== "ConnectionLost" || end.error.reason._tag !== "Reset") return assert.fail("not reset")
      const { cause } = end.error.reason
      assert.instanceOf(cause, Capture.CaptureError)
      assert.deepStrictEqual((cause as Capture.CaptureError).reason, {
        _tag: "Truncated",
        offset: bytes.length - 23,
        missing: 1
      })
    })
  )

  it.effect("resets the connection when the stream of records dies with a defect", () =>
    Effect.gen(function* () {
      const connection = yield* Capture.replay(Stream.die(new Error("a defect")))
      assert.strictEqual((yield* Effect.flip(connection.pull)).message, "connection reset: a defect")
    })
  )

  it.effect("stops at any position when the connection is closed", () =>
    Effect.gen(function* () {
      let released = false
      const scope = yield* Scope.make()
      const records = Stream.fromIterable(handshake).pipe(
        Stream.concat(Stream.never),
        Stream.ensuring(Effect.sync(() => (released = true)))
      )
      const written: Array<Uint8Array> = []
      const connection = yield* Scope.provide(
        Capture.replay(records, { speed: Infinity, onWrite: (bytes) => void written.push(bytes) }),
        scope
      )
      yield* connection.pull
      assert.strictEqual(connection.write(Uint8Array.of(1)), 0)
      yield* connection.close
      assert.strictEqual(connection.write(Uint8Array.of(2)), -1)
      assert.deepStrictEqual(written, [Uint8Array.of(1)])
      assert.strictEqual((yield* Effect.flip(connection.pull)).reason._tag, "Closed")
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(released)
    })
  )

  it.effect("replays a recording of this package", () =>
    Effect.gen(function* () {
      const files = memoryFiles()
      const { end, making, remote } = yield* recordedPeer(files)
      yield* remote.send(version(), verack)
      yield* Fiber.join(making)
      yield* remote.send({ _tag: "ping", nonce: 1n }, { _tag: "sendheaders" })
      yield* remote.receiveUntil("pong")
      yield* end
      const records = recordsOf(files, `${folder}/msgs_recv.dat`)
      const { making: again, read } = yield* replayed(Stream.fromIterable(records))
      const peer = yield* Fiber.join(again)
      yield* peer.awaitShutdown
      assert.deepStrictEqual(read, ["version", "verack", "ping", "sendheaders"])
    })
  )
})

describe("captures of Bitcoin Core", () => {
  for (const name of captures) {
    const bytes = () => readVector(`captures/${name}.dat`)
    const expected = () => readCapture(name).map(({ command }) => command)

    it(`${name}: encoding its records gives the same bytes`, () => {
      const { error, records } = readAll(cut(bytes(), 1000))
      assert.isUndefined(error)
      assert.deepStrictEqual(concat(...records.map(encode)), bytes())
    })

    it.effect(`${name}: a peer reads it at once`, () =>
      Effect.gen(function* () {
        const { making, read } = yield* replayed(Capture.decode(Stream.fromIterable(cut(bytes(), 1000))), {
          speed: Infinity
        })
        const peer = yield* Fiber.join(making)
        assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "RemoteClosed" })
        assert.deepStrictEqual(read, expected())
        assert.strictEqual((yield* peer.stats).messagesDropped, 0)
      })
    )

    it.effect(`${name}: a peer reads each message at its recorded time`, () =>
      Effect.gen(function* () {
        const { records } = readAll([bytes()])
        const { making, read } = yield* replayed(Stream.fromIterable(records))
        yield* TestClock.adjust(0)
        for (const [index, { time }] of records.entries()) {
          const due = Math.ceil((time - records[0]!.time) / 1000)
          const next = records[index + 1]
          yield* TestClock.setTime(due)
          assert.isAtLeast(read.length, index + 1, `the message at ${due} ms is missing`)
          if (next === undefined || next.time - time < 2000) continue
          yield* TestClock.setTime(Math.ceil((next.time - records[0]!.time) / 1000) - 1)
          assert.strictEqual(read.length, index + 1, `a message arrived before its time, at ${due} ms`)
        }
        const peer = yield* Fiber.join(making)
        assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "RemoteClosed" })
        assert.deepStrictEqual(read, expected())
      })
    )
  }
})
