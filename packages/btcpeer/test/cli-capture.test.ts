/** `btcpeer replay`, and `--capture` without a connection. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, FileSystem, Layer, Option, Result, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { afterAll } from "vitest"
import * as Capture from "effect-bitcoin-peer/Capture"
import { run } from "../src/command.ts"
import * as Events from "../src/events.ts"
import { makeMemory } from "../src/output.ts"
import { recordIn } from "../src/record.ts"
import { startRecording } from "../../../src/transport/recording.ts"
import * as Wire from "effect-bitcoin-peer/Wire"
import { memoryFiles, systemError } from "../../../test/support/files.ts"
import { concat } from "../../../test/support/generators.ts"
import { version } from "../../../test/support/peers.ts"
import { captures, readCapture, vectorPath } from "../../../test/support/vectors.ts"

const decodeLine = Schema.decodeUnknownSync(Events.FromLine)

const directory = fs.mkdtempSync(path.join(os.tmpdir(), "btcpeer-capture-"))
afterAll(() => fs.rmSync(directory, { recursive: true, force: true }))

const written = (name: string, bytes: Uint8Array): string => {
  const file = path.join(directory, name)
  fs.mkdirSync(path.dirname(file), { recursive: true })
  fs.writeFileSync(file, bytes)
  return file
}

const record = (milliseconds: number, command: string, payload: Uint8Array): Uint8Array =>
  Result.getOrThrow(Capture.encode({ time: 1_700_000_000_000_000 + milliseconds * 1000, command, payload }))
const encoded = (message: Wire.Message): Uint8Array => Result.getOrThrow(Wire.encode(message))

const whole = concat(
  record(0, "version", encoded(version())),
  record(100, "verack", new Uint8Array(0)),
  record(1_000_000, "ping", encoded({ _tag: "ping", nonce: 1n })),
  // Only a node that offers bloom filters may be sent one: a replay shows it all the same.
  record(1_000_000, "filterclear", new Uint8Array(0)),
  record(3_600_000, "pong", Uint8Array.of(1))
)

/** The command, as `main.ts` runs it. */
const btcpeer = Effect.fnUntraced(function* (...argv: ReadonlyArray<string>) {
  const memory = makeMemory()
  const running = yield* Effect.forkChild(Effect.provide(run(argv), Layer.merge(NodeServices.layer, memory.layer)))
  return { ...memory, code: Fiber.join(running) }
})

/** What came in, by command, where it was printed as JSON. */
const received = (lines: ReadonlyArray<string>): ReadonlyArray<string> =>
  lines.flatMap((line) => {
    const event = decodeLine(line)
    if (event.event === "dropped") return `!${event.command}`
    return event.event === "message" && event.direction === "in" ? event.command : []
  })

describe("replay", () => {
  it.effect("prints the same as connect, and succeeds at the end of the capture", () =>
    Effect.gen(function* () {
      const file = written("message_capture/[2001_db8__1]_8333/msgs_recv.dat", whole)
      const { code, errors, lines } = yield* btcpeer("replay", file, "--at-once", "--json", "-n", "signet")
      assert.deepStrictEqual([yield* code, errors], [0, []])
      assert.deepStrictEqual(received(lines), ["version", "verack", "ping", "filterclear", "!pong"])
      const events = lines.map((line) => decodeLine(line))
      const handshake = events.find((event) => event.event === "handshake")
      assert.deepInclude(handshake, { address: "[2001:db8::1]:8333", network: "signet", userAgent: "/remote:1.0/" })
      assert.deepInclude(events.at(-1), { event: "disconnected", reason: "RemoteClosed" })
      for (const event of events) {
        if (event.event !== "message" && event.event !== "dropped") continue
        assert.strictEqual(event.time, "1970-01-01T00:00:00.000Z", "when it goes over the wire, now")
      }
    })
  )

  it.effect("waits between the messages for the recorded time, or for a part of it", () =>
    Effect.gen(function* () {
      const file = written("paced.dat", whole)
      for (const [flags, speed] of [
        [[], 1],
        [["--speed", "100"], 100]
      ] as const) {
        const { code, lines } = yield* btcpeer("replay", file, "--json", ...flags)
        // The file is read in real time, the rest is virtual.
        while (lines.length < 2) yield* TestClock.withLive(Effect.sleep("5 millis"))
        yield* TestClock.adjust(3_600_000 / speed - 1)
        assert.deepStrictEqual(received(lines), ["version", "verack", "ping", "filterclear"])
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* code, 0)
        assert.strictEqual(received(lines).length, 5)
      }
    })
  )

  it.effect("plays the whole messages of a capture that is cut off or damaged, then fails", () =>
    Effect.gen(function* () {
      for (const [bytes, message] of [
        [whole.slice(0, -1), /cut\.dat: the capture ends inside the record at byte \d+: 1 byte is missing$/],
        [concat(whole, new Uint8Array(24).fill(0xff)), /cut\.dat: no record at byte \d+: the time /]
      ] as const) {
        const { code, errors, lines } = yield* btcpeer("replay", written("cut.dat", bytes), "--at-once", "--json")
        assert.strictEqual(yield* code, 1)
        assert.strictEqual(errors.length, 1)
        assert.match(errors[0]!, message)
        assert.deepStrictEqual(received(lines).slice(0, 4), ["version", "verack", "ping", "filterclear"])
      }
    })
  )

  const bad: ReadonlyArray<readonly [string, string, RegExp]> = [
    ["no file", path.join(directory, "none"), /none: no such file or directory$/],
    ["a directory", directory, /is a directory$/],
    ["nothing", written("empty", new Uint8Array(0)), /there is nothing in it$/],
    [
      "text",
      written("text", Buffer.from("hello world, this is not a capture at all\n")),
      /no capture of Bitcoin Core$/
    ],
    ["a few bytes", written("few", Uint8Array.of(1, 2, 3)), /no capture, or one that is cut off in its first record$/],
    ["a block file", written("blocks", concat([0xf9, 0xbe, 0xb4, 0xd9], new Uint8Array(99).fill(7))), /no capture of/]
  ]
  for (const [what, file, message] of bad) {
    it.effect(`of ${what} is one line on stderr and exit code 1`, () =>
      Effect.gen(function* () {
        const { code, errors, lines } = yield* btcpeer("replay", file)
        assert.deepStrictEqual([yield* code, lines], [1, []])
        assert.strictEqual(errors.length, 1)
        assert.match(errors[0]!, message)
      })
    )
  }

  it.effect("fails for a capture that does not begin with a handshake", () =>
    Effect.gen(function* () {
      const { code, errors } = yield* btcpeer("replay", written("middle", record(0, "verack", new Uint8Array(0))))
      assert.strictEqual(yield* code, 1)
      assert.match(errors[0]!, /middle: handshake failed: the first message was "verack" instead of "version"$/)
    })
  )

  for (const speed of ["0", "-1", "fast", "NaN"]) {
    it.effect(`does not go at speed ${speed}`, () =>
      Effect.gen(function* () {
        const { code, errors } = yield* btcpeer("replay", "x", "--speed", speed)
        assert.strictEqual(yield* code, 1)
        assert.match(errors[0]!, /--speed/)
      })
    )
  }
})

describe("replay of captures of Bitcoin Core", () => {
  for (const name of captures) {
    it.effect(name, () =>
      Effect.gen(function* () {
        const file = vectorPath(`captures/${name}.dat`)
        const { code, errors, lines } = yield* btcpeer("replay", file, "--at-once", "--json", "-n", "regtest")
        assert.deepStrictEqual([yield* code, errors], [0, []])
        assert.deepStrictEqual(
          received(lines),
          readCapture(name).map(({ command }) => command)
        )
      })
    )
  }
})

describe("--capture", () => {
  const recording = <A, E, R>(effect: Effect.Effect<A, E, R>, fileSystem: FileSystem.FileSystem) =>
    Effect.gen(function* () {
      const memory = makeMemory()
      const result = yield* effect.pipe(
        recordIn(Option.some("dir")),
        Effect.provide(memory.layer),
        Effect.provideService(FileSystem.FileSystem, fileSystem),
        Effect.result
      )
      return {
        problem: Result.isFailure(result) ? (result.failure as Error).message : undefined,
        errors: memory.errors
      }
    })
  const connection = { remoteAddress: { host: "192.0.2.2", port: 8333 } } as never
  const one = Effect.scoped(
    Effect.map(startRecording(connection), (started) => started?.sent("ping", new Uint8Array(8)))
  )

  it.effect("fails at once if the directory cannot be made", () =>
    Effect.gen(function* () {
      let ran = false
      const { errors, problem } = yield* recording(
        Effect.sync(() => (ran = true)),
        FileSystem.makeNoop({ makeDirectory: (path) => Effect.fail(systemError("PermissionDenied", path)) })
      )
      assert.deepStrictEqual([ran, errors, problem], [false, [], "dir/message_capture: permission denied"])
    })
  )

  it.effect("reports a full disk at once, goes on, and fails at the end", () =>
    Effect.gen(function* () {
      const full = memoryFiles((path) => Effect.fail(systemError("Unknown", path, new Error("ENOSPC: no space left"))))
      const { errors, problem } = yield* recording(Effect.andThen(one, one), full.fileSystem)
      const line = "btcpeer: dir/message_capture/192.0.2.2_8333/msgs_sent.dat: ENOSPC: no space left"
      assert.deepStrictEqual(errors, [line, line], "one for each connection")
      assert.strictEqual(problem, "the recording is not complete")
    })
  )

  it.effect("prints no error if everything was recorded", () =>
    Effect.gen(function* () {
      const files = memoryFiles()
      assert.deepStrictEqual(yield* recording(one, files.fileSystem), { problem: undefined, errors: [] })
      assert.strictEqual(files.files.get("dir/message_capture/192.0.2.2_8333/msgs_sent.dat")?.length, 32)
    })
  )
})
