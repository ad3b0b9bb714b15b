import { assert, describe, it } from "@effect/vitest"
import {
  Arbitrary,
  Clock,
  Deferred,
  Effect,
  Exit,
  Fiber,
  FileSystem,
  Layer,
  Logger,
  Result,
  Scope,
  Stream
} from "effect"
import { Capture, Connection, Handshake, Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { TestClock } from "effect/testing"
import { record } from "../src/capture/recorder.ts"
import { memoryFiles, systemError } from "./support/files.ts"
import { bytes as bytesOf, concat, integer } from "./support/generators.ts"
import { assertKeeps, MiB } from "./support/hostile.ts"
import { network, scripted, verack, version } from "./support/peers.ts"
import { captures, readCapture, readVector } from "./support/vectors.ts"

const encode = (captured: Capture.Captured): Uint8Array => Result.getOrThrow(Capture.encode(captured))
const time = 1_700_000_000_123_456
const ping: Capture.Captured = { time, command: "ping", payload: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8) }
const empty: Capture.Captured = { time: time + 1, command: "verack", payload: new Uint8Array(0) }
const odd: Capture.Captured = { time: 0, command: "x y~12345678", payload: Uint8Array.of(0xff) }
const three = concat(encode(ping), encode(empty), encode(odd))

const captured: Arbitrary.Arbitrary<Capture.Captured> = Arbitrary.map(
  Arbitrary.all([integer(0, Number.MAX_SAFE_INTEGER), bytesOf(12), bytesOf(3000)]),
  ([time, letters, payload]) => ({
    time,
    command: Array.from(letters, (byte) => String.fromCharCode(0x20 + (byte % 0x5f))).join(""),
    payload
  })
)

const cut = (bytes: Uint8Array, size: number): Array<Uint8Array> =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => bytes.slice(index * size, (index + 1) * size))

const readAll = (chunks: ReadonlyArray<Uint8Array>) => {
  const reader = Capture.makeReader()
  const records = chunks.flatMap((chunk) => reader.push(chunk))
  return { records, reader, error: reader.end()?.reason }
}

describe("a record", () => {
  it("is the time, the command padded with zeros, the length and the payload", () => {
    assert.deepStrictEqual(
      Buffer.from(encode(ping)).toString("hex"),
      "4022201824 0a0600 70696e670000000000000000 08000000 0102030405060708".replaceAll(" ", "")
    )
  })

  it.prop(
    "comes back as it was, however the file is cut",
    [Arbitrary.array(captured, { maxLength: 5 }), integer(1, 100)],
    ([all, size]) => {
      const { error, reader, records } = readAll(cut(concat(...all.map(encode)), size))
      assert.deepStrictEqual(records, all)
      assert.isUndefined(error)
      assert.strictEqual(reader.buffered, 0)
    }
  )

  it("is not made of what is none", () => {
    const reasonOf = (fields: Partial<Capture.Captured>) => {
      const result = Capture.encode({ ...ping, ...fields })
      return Result.isFailure(result) ? result.failure.reason : undefined
    }
    for (const command of ["a command too long", "caf\xe9", "\0"]) {
      assert.deepInclude(reasonOf({ command }), { _tag: "BadValue", field: "command" })
    }
    for (const time of [-1, 0.5, NaN, 2 ** 53])
      assert.deepInclude(reasonOf({ time }), { _tag: "BadValue", field: "time" })
    assert.isUndefined(reasonOf({ payload: new Uint8Array(4_000_000) }))
    assert.deepInclude(reasonOf({ payload: new Uint8Array(4_000_001) }), { _tag: "PayloadTooLarge", length: 4_000_001 })
  })
})

describe("the reader", () => {
  it("hands out all before the end of a capture that is cut off anywhere, and says where and how", () => {
    const starts = [0, 32, 56, 81]
    for (let length = 0; length <= three.length; length++) {
      for (const chunks of [[three.slice(0, length)], cut(three.slice(0, length), 1)]) {
        const { error, records } = readAll(chunks)
        const whole = starts.findLastIndex((start) => start <= length)
        assert.deepStrictEqual(records, [ping, empty, odd].slice(0, whole))
        if (length === starts[whole]) assert.isUndefined(error)
        else {
          const known = length - starts[whole] >= 24 ? starts[whole + 1] - length : 24 - (length - starts[whole])
          assert.deepStrictEqual(error, { _tag: "Truncated", offset: starts[whole], missing: known })
        }
      }
    }
  })

  const damaged = (at: number, ...values: ReadonlyArray<number>): Uint8Array => {
    const bytes = three.slice()
    bytes.set(values, 32 + at)
    return bytes
  }
  const wrong: ReadonlyArray<readonly [string, Uint8Array, Capture.CaptureReason]> = [
    ["a time behind the year 2255", damaged(6, 0x20), { _tag: "BadTime", offset: 32 }],
    ["a time of 2^53, one more than the last", damaged(0, 0, 0, 0, 0, 0, 0, 0x20, 0), { _tag: "BadTime", offset: 32 }],
    ["a command that is not printable", damaged(9, 0x7f), { _tag: "BadCommand", offset: 32 }],
    ["a command behind zeros", damaged(19, 0x41), { _tag: "BadCommand", offset: 32 }],
    [
      "a payload of a byte too many",
      damaged(20, 0x01, 0x09, 0x3d, 0),
      { _tag: "PayloadTooLarge", offset: 32, length: 4_000_001, limit: 4_000_000 }
    ]
  ]
  for (const [what, bytes, reason] of wrong) {
    it(`stops for good at ${what}`, () => {
      for (const size of [1, 7, bytes.length]) {
        const { error, reader, records } = readAll(cut(bytes, size))
        assert.deepStrictEqual(error, reason)
        assert.deepStrictEqual(records, [ping])
        assert.strictEqual(reader.failure?.reason, error)
        assert.deepStrictEqual(reader.push(three), [])
        assert.strictEqual(reader.buffered, 0)
      }
    })
  }

  it("reads the largest payload", () => {
    const large = { ...ping, payload: new Uint8Array(4_000_000).fill(7) }
    const { error, records } = readAll(cut(encode(large), 65_536))
    assert.isUndefined(error)
    assert.strictEqual(records[0]!.payload.length, 4_000_000)
    assert.isTrue(records[0]!.payload.every((byte) => byte === 7))
  })

  it("takes no memory for what has only been promised", () => {
    const header = encode({ ...ping, payload: new Uint8Array(0) })
    header.set([0, 0x09, 0x3d, 0], 20)
    const before = process.memoryUsage().arrayBuffers
    const readers = Array.from({ length: 100 }, () => {
      const reader = Capture.makeReader()
      reader.push(header)
      reader.push(Uint8Array.of(1))
      return reader
    })
    assert.isBelow(process.memoryUsage().arrayBuffers - before, 1_000_000)
    for (const reader of readers) assert.strictEqual(reader.buffered, 25)
  })

  it("hands out payloads that later chunks do not change", () => {
    const reader = Capture.makeReader()
    const records = cut(concat(...Array.from({ length: 50 }, () => encode(ping))), 13).flatMap((chunk) =>
      reader.push(chunk)
    )
    for (const { payload } of records) assert.deepStrictEqual(payload, ping.payload)
  })
})

/** Records what is made below it. */
const recorded = (files: ReturnType<typeof memoryFiles>, options: Partial<Capture.LayerOptions> = {}) =>
  Layer.provide(Capture.layer({ directory: "dir", ...options }), Layer.succeed(FileSystem.FileSystem, files.fileSystem))

const folder = "dir/message_capture/192.0.2.2_8333"

const recordsOf = (files: ReturnType<typeof memoryFiles>, file: string) => {
  const { error, records } = readAll([files.files.get(file)!])
  assert.isUndefined(error)
  return records
}
const commandsOf = (files: ReturnType<typeof memoryFiles>, name: string): ReadonlyArray<string> =>
  recordsOf(files, `${folder}/${name}`).map(({ command }) => command)

/** A recorded peer and its remote, which is the test; ended by `end`. */
const recordedPeer = Effect.fnUntraced(function* (
  files: ReturnType<typeof memoryFiles>,
  options: Partial<Capture.LayerOptions> = {},
  peerOptions: Peer.Options = {},
  pairOptions: Connection.PairOptions = {}
) {
  const pair = yield* Connection.makePair(pairOptions)
  const remote = scripted(pair[1])
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const making = yield* Peer.make(pair[0], { network, ...peerOptions }).pipe(
    Effect.provide(recorded(files, options)),
    Effect.provide(Nonce.layer),
    Scope.provide(scope),
    Effect.forkChild({ startImmediately: true })
  )
  yield* remote.receiveUntil("version")
  return { remote, making, end: Scope.close(scope, Exit.void), pair }
})

describe("recording", () => {
  it.effect(
    "writes both directions of a connection, its handshake and its end included, with the times of the clock",
    () =>
      Effect.gen(function* () {
        yield* TestClock.setTime(1_700_000_000_123)
        const files = memoryFiles()
        const { end, making, remote } = yield* recordedPeer(files)
        yield* remote.send(version(), verack)
        const peer = yield* Fiber.join(making)
        yield* TestClock.adjust("2 seconds")
        yield* remote.send({ _tag: "ping", nonce: 5n })
        yield* remote.receiveUntil("pong")
        yield* end
        yield* peer.awaitShutdown
        assert.deepStrictEqual(commandsOf(files, "msgs_recv.dat"), ["version", "verack", "ping"])
        const sent = recordsOf(files, `${folder}/msgs_sent.dat`)
        assert.deepStrictEqual(
          sent.map(({ command }) => command),
          ["version", "wtxidrelay", "sendaddrv2", "verack", "pong"]
        )
        assert.strictEqual(sent[0]!.time, 1_700_000_000_123_000)
        assert.strictEqual(sent.at(-1)!.time, 1_700_000_002_123_000)
        assert.deepStrictEqual(Wire.decode("pong", sent.at(-1)!.payload), Result.succeed({ _tag: "pong", nonce: 5n }))
        assert.strictEqual(files.open.size, 0)
      })
  )

  it.effect("has all in the files when the peer has ended, though its scope is open", () =>
    Effect.gen(function* () {
      const files = memoryFiles(() => Effect.yieldNow)
      const { making, remote } = yield* recordedPeer(files)
      yield* remote.send(version(), verack)
      const peer = yield* Fiber.join(making)
      yield* peer.disconnect()
      yield* peer.awaitShutdown
      assert.deepStrictEqual(commandsOf(files, "msgs_recv.dat"), ["version", "verack"])
      assert.strictEqual(files.open.size, 0)
    })
  )

  it.effect(
    "keeps payloads as they were on the wire: unknown and malformed ones, and bytes behind the last field",
    () =>
      Effect.gen(function* () {
        const files = memoryFiles()
        const { end, making, remote } = yield* recordedPeer(files)
        yield* remote.send(version(), verack)
        yield* Fiber.join(making)
        const payloads: ReadonlyArray<readonly [string, Uint8Array]> = [
          ["nonsense", Uint8Array.of(1, 2, 3)],
          ["pong", Uint8Array.of(1)],
          ["feefilter", new Uint8Array(12).fill(1)]
        ]
        for (const [command, payload] of payloads) yield* remote.send({ _tag: "Unknown", command, payload })
        const bad = remote.frames([{ _tag: "Unknown", command: "bad", payload: Uint8Array.of(1) }])
        bad[20] ^= 1
        yield* remote.sendBytes(bad)
        yield* remote.send({ _tag: "ping", nonce: 9n })
        yield* remote.receiveUntil("pong")
        yield* end
        assert.deepStrictEqual(
          recordsOf(files, `${folder}/msgs_recv.dat`)
            .slice(2, -1)
            .map(({ command, payload }) => [command, payload] as const),
          payloads,
          "all but the one whose checksum was wrong, as in Core"
        )
      })
  )

  it.effect("records a handshake that fails, and one that runs alone", () =>
    Effect.gen(function* () {
      const files = memoryFiles()
      const { making, remote } = yield* recordedPeer(files)
      yield* remote.send({ _tag: "ping", nonce: 1n })
      yield* Effect.flip(Fiber.join(making))
      assert.deepStrictEqual(commandsOf(files, "msgs_recv.dat"), ["ping"])

      files.files.clear()
      const [ours, theirs] = yield* Connection.makePair()
      yield* scripted(theirs).send(version(), verack)
      yield* Handshake.run(ours, { network }).pipe(Effect.provide([recorded(files), Nonce.layer]))
      assert.deepStrictEqual(commandsOf(files, "msgs_recv.dat"), ["version", "verack"])
    })
  )

  it.effect("appends to what is there, and names folders as Bitcoin Core does", () =>
    Effect.gen(function* () {
      const files = memoryFiles()
      const remote = { host: "2001:db8::1", port: 8333 }
      for (let times = 1; times <= 2; times++) {
        const { end } = yield* recordedPeer(files, {}, {}, { addresses: [{ host: "192.0.2.1", port: 1 }, remote] })
        yield* end
        assert.strictEqual(recordsOf(files, "dir/message_capture/[2001_db8__1]_8333/msgs_sent.dat").length, times)
      }
    })
  )

  it.effect("makes the peer wait while more than 1 MiB waits for the disk, and leaves nothing out", () =>
    Effect.gen(function* () {
      const gate = Deferred.makeUnsafe<void>()
      const files = memoryFiles(() => Deferred.await(gate))
      let read = 0
      const { end, making, pair, remote } = yield* recordedPeer(files, {}, { onRead: () => void read++ })
      yield* remote.send(version(), verack)
      yield* Fiber.join(making)
      const large: Wire.Message = { _tag: "Unknown", command: "large", payload: new Uint8Array(100_000) }
      let waiting = 0
      for (let count = 0; count < 50; count++) waiting = pair[1].write(remote.frames([large]))
      yield* TestClock.adjust("1 second")
      assert.isAbove(waiting, 0)
      assert.isBelow(read, 20)
      yield* Deferred.succeed(gate, undefined)
      yield* remote.send({ _tag: "ping", nonce: 1n })
      yield* remote.receiveUntil("pong")
      yield* end
      assert.strictEqual(recordsOf(files, `${folder}/msgs_recv.dat`).length, 53)
    })
  )

  it.effect("holds up who sends more than the disk takes, and not for ever", () =>
    Effect.gen(function* () {
      const gate = Deferred.makeUnsafe<void>()
      const files = memoryFiles(() => Deferred.await(gate))
      const { end, making, remote } = yield* recordedPeer(files, {}, {}, { window: 1 << 26 })
      yield* remote.send(version(), verack)
      const peer = yield* Fiber.join(making)
      const large: Wire.Message = { _tag: "Unknown", command: "large", payload: new Uint8Array(1_000_000) }
      let received = 0
      yield* Effect.forkChild(Effect.forever(Effect.map(remote.receiveUntil("Unknown"), () => void received++)), {
        startImmediately: true
      })
      const sending = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 10 }), () => peer.sendAndWait(large)),
        { startImmediately: true }
      )
      for (let turns = 0; turns < 100; turns++) yield* TestClock.adjust("1 millis")
      assert.isBelow(received, 4)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(sending)
      yield* end
      assert.strictEqual(commandsOf(files, "msgs_sent.dat").filter((command) => command === "large").length, 10)
    })
  )

  it.effect("ends with one line of the log when the disk is full, and the peer goes on", () =>
    Effect.gen(function* () {
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => void lines.push(String(message)))
      const full = systemError(
        "Unknown",
        "x",
        Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" })
      )
      const files = memoryFiles(() => Effect.fail(full))
      yield* Effect.gen(function* () {
        const { end, making, remote } = yield* recordedPeer(files)
        yield* remote.send(version(), verack)
        const peer = yield* Fiber.join(making)
        yield* remote.send({ _tag: "ping", nonce: 1n })
        yield* remote.receiveUntil("pong")
        const large: Wire.Message = { _tag: "Unknown", command: "large", payload: new Uint8Array(1_000_000) }
        yield* Effect.forkChild(Effect.forever(remote.receive), { startImmediately: true })
        for (let count = 0; count < 5; count++) yield* peer.sendAndWait(large)
        yield* end
        assert.strictEqual((yield* peer.awaitShutdown)._tag, "ScopeClosed")
      }).pipe(Effect.provide(Logger.layer([logger])))
      assert.strictEqual(lines.length, 1)
      assert.match(lines[0]!, /^recording 192\.0\.2\.2:8333 ended: dir\/.*: ENOSPC: no space left on device$/)
      assert.strictEqual(files.open.size, 0)
    })
  )

  it.effect("who waits for a disk that is slow, and then full, goes on", () =>
    Effect.gen(function* () {
      const gate = Deferred.makeUnsafe<void>()
      const files = memoryFiles((path) =>
        Effect.andThen(Deferred.await(gate), Effect.fail(systemError("Unknown", path)))
      )
      const failures: Array<string> = []
      const { end, making, remote } = yield* recordedPeer(
        files,
        { onFailure: (error) => Effect.sync(() => void failures.push(error.reason._tag)) },
        {},
        { window: 1 << 26 }
      )
      yield* remote.send(version(), verack)
      const peer = yield* Fiber.join(making)
      const large: Wire.Message = { _tag: "Unknown", command: "large", payload: new Uint8Array(1_000_000) }
      const sending = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 4 }), () => peer.sendAndWait(large)),
        { startImmediately: true }
      )
      yield* TestClock.adjust("1 second")
      assert.isUndefined(sending.pollUnsafe())
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(sending)
      yield* end
      assert.deepStrictEqual(failures, ["FileFailed"])
    })
  )

  it.effect("keeps nothing any more once it has failed", () =>
    Effect.gen(function* () {
      const files = memoryFiles((path) => Effect.fail(systemError("Unknown", path)))
      const recording = yield* record({
        fs: files.fileSystem,
        clock: yield* Clock.Clock,
        folder: "dir",
        onFailure: () => Effect.void
      })
      const payload = new Uint8Array(100_000)
      recording.sent("first", payload)
      yield* TestClock.adjust(0)
      yield* assertKeeps(
        MiB,
        Effect.sync(() => {
          for (let count = 0; count < 200; count++) {
            recording.sent("large", payload)
            recording.received("large", payload)
          }
        })
      )
      yield* recording.room
    })
  )

  it.effect("tells who asked why it ended, once", () =>
    Effect.gen(function* () {
      const failures: Array<readonly [string, string]> = []
      const files = memoryFiles((path) => Effect.fail(systemError("PermissionDenied", path)))
      const { end, making, remote } = yield* recordedPeer(files, {
        onFailure: (error, remote) =>
          Effect.sync(() => void failures.push([error.reason._tag, Connection.formatEndpoint(remote)]))
      })
      yield* remote.send(version(), verack)
      yield* Fiber.join(making)
      yield* end
      assert.deepStrictEqual(failures, [["FileFailed", "192.0.2.2:8333"]])
    })
  )

  it.effect("fails at once where the directory cannot be made", () =>
    Effect.gen(function* () {
      const fileSystem = FileSystem.makeNoop({
        makeDirectory: (path) => Effect.fail(systemError("PermissionDenied", path))
      })
      const error = yield* Effect.void.pipe(
        Effect.provide(
          Layer.provide(Capture.layer({ directory: "/x" }), Layer.succeed(FileSystem.FileSystem, fileSystem))
        ),
        Effect.flip
      )
      assert.strictEqual(error.message, "/x/message_capture: permission denied")
    })
  )
})

const patient: Peer.Options = {
  network: Network.regtest,
  pingInterval: "Infinity",
  idleTimeout: "Infinity",
  // What a light client asks for ends a peer that does not offer it.
  services: Wire.Service.bloom | Wire.Service.compactFilters,
  requiredServices: []
}

/** A whole peer over a capture, and what it has read by now, dropped messages too. */
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
  it.effect("sends each message as long after the first as it was recorded, and then closes", () =>
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
      // The clock of the recording went back behind the third: the fourth comes at once.
      yield* at(1501, 4)
      yield* at(601_500, 5)
      assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "RemoteClosed" })
      assert.strictEqual(peer.info.userAgent, "/remote:1.0/")
    })
  )

  it.effect("goes at another speed", () =>
    Effect.gen(function* () {
      const { read } = yield* replayed(Stream.fromIterable(handshake), { speed: 100 })
      yield* TestClock.setTime(6014)
      assert.strictEqual(read.length, 4)
      yield* TestClock.setTime(6015)
      assert.strictEqual(read.length, 5)
    })
  )

  it.effect("sends all as fast as it is pulled, and no faster", () =>
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
      assert.isBelow(made, 100, "64 KiB are read ahead")
      let size = 0
      const end = yield* Effect.forever(
        Effect.map(connection.pull, (batch) => batch.forEach(({ length }) => (size += length)))
      ).pipe(Effect.flip)
      assert.strictEqual(end.reason._tag, "Closed")
      assert.strictEqual(size, 1000 * 1024)
    })
  )

  it.effect("shows what is written to it", () =>
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

  it.effect("resets the connection behind the last whole record of a capture that was cut off, with the error", () =>
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

  it.effect("is reset by records that die, too", () =>
    Effect.gen(function* () {
      const connection = yield* Capture.replay(Stream.die(new Error("a defect")))
      assert.strictEqual((yield* Effect.flip(connection.pull)).message, "connection reset: a defect")
    })
  )

  it.effect("ends when the connection is closed, wherever it is", () =>
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
      assert.strictEqual(connection.write(Uint8Array.of(2)), 0)
      assert.deepStrictEqual(written, [Uint8Array.of(1)])
      assert.strictEqual((yield* Effect.flip(connection.pull)).reason._tag, "Closed")
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(released)
    })
  )

  it.effect("plays what was recorded", () =>
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

    it(`${name}: its records are the bytes again`, () => {
      const { error, records } = readAll(cut(bytes(), 1000))
      assert.isUndefined(error)
      assert.deepStrictEqual(concat(...records.map(encode)), bytes())
    })

    it.effect(`${name}: a whole peer reads it, at once`, () =>
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

    it.effect(`${name}: a whole peer reads it, each message when it came`, () =>
      Effect.gen(function* () {
        const { records } = readAll([bytes()])
        const { making, read } = yield* replayed(Stream.fromIterable(records))
        yield* TestClock.adjust(0)
        for (const [index, { time }] of records.entries()) {
          const due = Math.ceil((time - records[0]!.time) / 1000)
          const next = records[index + 1]
          yield* TestClock.setTime(due)
          assert.isAtLeast(read.length, index + 1, `the message at ${due} ms`)
          if (next === undefined || next.time - time < 2000) continue
          yield* TestClock.setTime(Math.ceil((next.time - records[0]!.time) / 1000) - 1)
          assert.strictEqual(read.length, index + 1, `none before the one behind ${due} ms`)
        }
        const peer = yield* Fiber.join(making)
        assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "RemoteClosed" })
        assert.deepStrictEqual(read, expected())
      })
    )
  }
})
