/** `--capture` and `replay` over loopback, with files. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Capture from "effect-bitcoin-peer/Capture"
import { run } from "../src/command.ts"
import { makeMemory } from "../src/output.ts"
import { decodeLine } from "./support/fixtures.ts"

const commandsIn = (file: string): ReadonlyArray<string> => {
  const reader = Capture.makeReader()
  const records = reader.push(fs.readFileSync(file))
  assert.isUndefined(reader.end())
  return records.map(({ command }) => command)
}

describe("btcpeer --capture", () => {
  it.live("records the messages of both sides, and replay plays them", () =>
    Effect.gen(function* () {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "btcpeer-"))),
        (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
      )
      const stop = Deferred.makeUnsafe<string>()
      const btcpeer = (...argv: ReadonlyArray<string>) => {
        const memory = makeMemory(Deferred.await(stop))
        return { ...memory, code: Effect.provide(run(argv), Layer.merge(NodeServices.layer, memory.layer)) }
      }
      const capture = (name: string) => ["-n", "regtest", "--json", "--capture", path.join(directory, name)]

      const listener = btcpeer("listen", "--port", "0", ...capture("theirs"))
      const listening = yield* Effect.forkChild(listener.code)
      while (listener.lines.length === 0) yield* Effect.sleep("5 millis")
      const { address } = JSON.parse(listener.lines[0]!) as { readonly address: string }
      const client = btcpeer("connect", address, "--for", "1s", ...capture("ours"))
      assert.strictEqual(yield* client.code, 0)
      while (!listener.lines.some((line) => line.includes("disconnected"))) yield* Effect.sleep("5 millis")
      yield* Deferred.succeed(stop, "stopped by the test")
      assert.strictEqual(yield* Fiber.join(listening), 0)
      // A busy machine may make `connect` tell that it waits.
      const problems = client.errors.filter((line) => !/^btcpeer: connect(?:ing|ed) to /.test(line))
      assert.deepStrictEqual([problems, listener.errors], [[], []])

      const ours = path.join(directory, "ours/message_capture", address.replaceAll(":", "_"))
      const [folder] = fs.readdirSync(path.join(directory, "theirs/message_capture"))
      const theirs = path.join(directory, "theirs/message_capture", folder!)
      assert.match(folder!, /^127\.0\.0\.1_\d+$/)
      const sent = commandsIn(path.join(ours, "msgs_sent.dat"))
      assert.deepStrictEqual(sent, ["version", "wtxidrelay", "sendaddrv2", "verack", "ping", "pong"])
      assert.deepStrictEqual(commandsIn(path.join(theirs, "msgs_recv.dat")), sent)
      const received = commandsIn(path.join(ours, "msgs_recv.dat"))
      assert.deepStrictEqual(commandsIn(path.join(theirs, "msgs_sent.dat")), received)

      const again = btcpeer("replay", path.join(ours, "msgs_recv.dat"), "--at-once", "--json", "-n", "regtest")
      assert.strictEqual(yield* again.code, 0)
      const replayed = again.lines.flatMap((line) => {
        const event = decodeLine(line)
        return event.event === "message" && event.direction === "in" ? event.command : []
      })
      assert.deepStrictEqual(replayed, received)
      assert.include(again.lines.join("\n"), `"address":"${address}"`)
    })
  )

  it.live("with a path that cannot be a directory is one line and exit code 1, before the dial", () =>
    Effect.gen(function* () {
      const memory = makeMemory()
      const argv = ["connect", "127.0.0.1:1", "--capture", import.meta.filename]
      const code = yield* Effect.provide(run(argv), Layer.merge(NodeServices.layer, memory.layer))
      assert.deepStrictEqual([code, memory.lines, memory.errors.length], [1, [], 1])
      assert.match(memory.errors[0]!, /message_capture: not a directory$/)
    })
  )
})
