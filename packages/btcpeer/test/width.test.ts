/** What the command prints fits the terminal: lines break between words and tables keep their numbers whole. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { TestConsole } from "effect/testing"
import { run } from "../src/command.ts"
import * as Screen from "../src/demo/screen.ts"
import type { Event } from "../src/events.ts"
import { makeMemory } from "../src/output.ts"
import { textLines } from "../src/print.ts"
import { summarise } from "../src/summary.ts"
import { wrapped } from "../src/text.ts"
import * as Network from "effect-bitcoin-peer/Network"
import { twoPeers } from "../../../test/support/peers.ts"
import { examples, integer } from "../../../test/support/generators.ts"

const paint = (_: unknown, text: string): string => text
const colour = (_: unknown, text: string): string => `\u001b[36m${text}\u001b[39m`
// oxlint-disable-next-line no-control-regex
const widthOf = (line: string): number => line.replace(/\u001b\[\d+m/g, "").length

const words = (text: string): ReadonlyArray<string> => text.split(/\s+/).filter((word) => word !== "")
const widths = [44, 60, 80, 100]

const fits = (lines: ReadonlyArray<string>, columns: number): void => {
  for (const line of lines) assert.isAtMost(widthOf(line), columns, line)
}

describe("a wrapped line", () => {
  const word = Arbitrary.map(integer(1, 30), (size) => "x".repeat(size))

  it.prop(
    "is never wider than the terminal, and has the same words",
    [Arbitrary.array(word, { maxLength: 40 }), integer(44, 100), integer(0, 14)],
    ([given, columns, indent]) => {
      const text = given.join(" ")
      const lines = wrapped(text, columns, indent)
      fits(lines, columns)
      assert.deepStrictEqual(words(lines.join("\n")), given)
      // No line is broken earlier than it must be.
      for (const [index, line] of lines.entries()) {
        const [next] = words(lines[index + 1] ?? "")
        if (next !== undefined) assert.isAbove(line.length + 1 + next.length, columns)
      }
      return true
    },
    { arbitrary: { runs: 300, seed: "wrapped" } }
  )

  it("keeps the spaces between its words, and indents what continues it", () => {
    assert.deepStrictEqual(wrapped("a  b    c", 80, 4), ["a  b    c"])
    assert.deepStrictEqual(wrapped("  aaaa  bbbb  cccc  dddd", 14, 4), ["  aaaa  bbbb", "    cccc  dddd"])
  })

  it("does not count colours", () => {
    const text = `${colour("", "aaaa")} ${colour("", "bbbb")}`
    assert.deepStrictEqual(wrapped(text, 9, 2), [text])
    assert.deepStrictEqual(wrapped(text, 8, 2), [colour("", "aaaa"), `  ${colour("", "bbbb")}`])
  })

  it("shortens a word that is longer than a line, in its middle", () => {
    const hash = "0123456789abcdef".repeat(4)
    assert.deepStrictEqual(wrapped(`tx ${hash}`, 80, 4), [`tx ${hash}`])
    assert.deepStrictEqual(wrapped(`tx ${hash}`, 66, 4), ["tx", `  ${hash}`])
    assert.deepStrictEqual(wrapped(`tx ${hash}`, 44, 4), ["tx", `  ${hash.slice(0, 21)}…${hash.slice(-20)}`])
  })
})

describe("help", () => {
  const help = Effect.fnUntraced(function* (columns: number, ...argv: ReadonlyArray<string>) {
    const memory = makeMemory(Effect.never, columns)
    const before = yield* TestConsole.logLines
    yield* run([...argv, "--help"]).pipe(Effect.provide(Layer.merge(NodeServices.layer, memory.layer)))
    return (yield* TestConsole.logLines).slice(before.length).join("\n")
  })

  const commands = ["connect", "listen", "crawl", "net", "peers", "replay", "decode", "demo"].map((name) => [name])
  commands.unshift([])

  it.effect.each(widths)("fits into %i columns, with the same words", (columns) =>
    Effect.gen(function* () {
      for (const command of commands) {
        const wide = yield* help(1_000, ...command)
        const narrow = yield* help(columns, ...command)
        fits(narrow.split("\n"), columns)
        // The values of --log-level in angle brackets are one long word.
        const fitting = (text: string) =>
          words(text).filter((word) => word.length <= columns - 4 && !word.includes("…"))
        assert.deepStrictEqual(fitting(narrow), fitting(wide))
      }
    })
  )
})

describe("lines of events", () => {
  it.each(widths)("fit into %i columns, of a message of every type", (columns) => {
    for (const message of examples) {
      const event: Event = {
        event: "message",
        time: "2026-11-28T00:00:00.000Z",
        direction: "in",
        bytes: 123_456,
        ...summarise(message)
      }
      const note = { when: "00:00:00.000", extra: "1.20 ms" }
      fits(textLines(paint, event, note, columns), columns)
      const [whole] = textLines(colour, event, note)
      const parts = textLines(colour, event, note, columns)
      if (!parts.join("").includes("…")) assert.deepStrictEqual(words(parts.join("\n")), words(whole!))
    }
  })

  it.effect.each(widths)("fit into %i columns, of a handshake and an end, with every number whole", (columns) =>
    Effect.gen(function* () {
      const [peer] = yield* twoPeers({ transport: "v2" }, { transport: "v2" })
      yield* peer.ping
      const stats = { ...(yield* peer.stats), bytesReceived: 1_234_567_890, messagesReceived: 1_234_567 }
      const end: Event = { event: "disconnected", reason: "Requested", message: "after 3 seconds", stats }
      const lines = textLines(paint, end, {}, columns)
      fits(lines, columns)
      for (const number of ["1,234,567,890", "1,234,567", "no message", "total"])
        assert.include(lines.join("\n"), number)
      const handshake: Event = {
        event: "handshake",
        address: "127.0.0.1:18444",
        direction: "outbound",
        network: Network.regtest.name,
        transport: "v2",
        sessionId: "ab".repeat(32),
        protocolVersion: 70_016,
        services: ["NETWORK", "BLOOM", "WITNESS", "COMPACT_FILTERS", "NETWORK_LIMITED", "P2P_V2"],
        userAgent: "/Satoshi:31.0.0/",
        startHeight: 123,
        relay: true,
        timeOffset: 0,
        features: { addrv2: true, wtxidRelay: true, announced: [] },
        milliseconds: 3.4
      }
      fits(textLines(paint, handshake, {}, columns), columns)
    })
  )

  it("have any length where the output is no terminal", () => {
    const event: Event = { event: "message", bytes: 1, command: "feature", id: "x".repeat(80), data: "ab".repeat(500) }
    assert.lengthOf(textLines(paint, event, {}), 1)
  })
})

describe("the demo", () => {
  it.effect.each(widths)("has lines and tables of %i columns", (columns) =>
    Effect.gen(function* () {
      const memory = makeMemory(Effect.never, columns)
      const cells = ["1,234  512.1 KiB", "1,234  512.1 KiB", "", "1,234  512.1 KiB"]
      yield* Screen.title("Two Bitcoin peers and a regtest chain in one process, over TCP on 127.0.0.1").pipe(
        Effect.andThen(
          Screen.lines("headers", "4,500 in 3 messages and 28.0 ms, linked from genesis to the last block")
        ),
        Effect.andThen(
          Screen.table(
            ["message", "peer sent", "node got", "node sent", "peer got"],
            [
              ["headers", ...cells],
              ["all", ...cells]
            ]
          )
        ),
        Effect.provide(memory.layer)
      )
      fits(memory.lines, columns)
      assert.strictEqual(
        memory.lines.some((line) => line.includes("│")),
        columns >= 80
      )
      assert.include(memory.lines.join("\n"), "peer sent")
    })
  )
})
