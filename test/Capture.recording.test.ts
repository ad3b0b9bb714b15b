/** Recording peers to files. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Fiber, FileSystem, Layer, Logger, Result } from "effect"
import { Capture, Connection, Handshake, Nonce, Policy, Wire } from "effect-bitcoin-peer"
import { TestClock } from "effect/testing"
import { record } from "../src/capture/recorder.ts"
import { memoryFiles, systemError } from "./support/files.ts"
import { assertKeeps, MiB } from "./support/hostile.ts"
import { network, scripted, verack, version } from "./support/peers.ts"
import { recorded, folder, recordsOf, commandsOf, recordedPeer } from "./support/captures.ts"

describe("recording", () => {
  it.effect("writes all messages of both directions, from the handshake to the end, with the time of the Clock", () =>
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

  it.effect("has written everything when the peer has ended, even if the scope is still open", () =>
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

  it.effect("keeps payloads as received: unknown and malformed ones, and bytes after the last field", () =>
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
        "all messages except the one with a wrong checksum, as in Core"
      )
    })
  )

  it.effect("records a failed handshake, and a handshake without a peer", () =>
    Effect.gen(function* () {
      const files = memoryFiles()
      const { making, remote } = yield* recordedPeer(files, {}, { policy: Policy.btcd })
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

  it.effect("appends to existing files, and names folders as Bitcoin Core does", () =>
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

  it.effect("suspends the peer's reader while more than 1 MiB waits for the disk, and records everything", () =>
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

  it.effect("suspends a sender that is faster than the disk, and resumes it", () =>
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

  it.effect("stops with one warning when the disk is full, and the peer stays connected", () =>
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

  it.effect("resumes a peer that waits for a slow disk when the disk becomes full", () =>
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

  it.effect("keeps no messages in memory after a failure", () =>
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

  it.effect("reports the reason of its failure once", () =>
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

  it.effect("fails at once if the directory cannot be created", () =>
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
