/** What `btcpeer crawl` says of a crawl, above all of one with hostile nodes in it. */
import { assert, describe, it } from "@effect/vitest"
import type * as Crawler from "effect-bitcoin-peer/server/Crawler"
import { crawlEntry } from "../../../test/server/support/crawlEntry.ts"
import { summaryEvent, summaryLines } from "../src/crawlReport.ts"

const reached = (text: string, userAgent: string, protocolVersion = 70_016): Crawler.Entry =>
  crawlEntry(text, {
    state: "reached",
    visits: 1,
    node: { protocolVersion, userAgent, startHeight: 1, transport: "v2" }
  })

const failed = (text: string, problem: string): Crawler.Entry =>
  crawlEntry(text, { state: "failed", visits: 1, problem })

const summary = (entries: ReadonlyArray<Crawler.Entry>, stopped?: string) =>
  summaryEvent({ network: "mainnet", millis: 12_345, stopped, visited: 1_234, reached: 1, entries })

const lines = (entries: ReadonlyArray<Crawler.Entry>, columns?: number, stopped?: string): ReadonlyArray<string> =>
  summaryLines({ paint: (_, text) => text, columns: () => columns }, summary(entries, stopped))

describe("the summary of a crawl", () => {
  it("counts by network, user agent, protocol version and failure, most first", () => {
    const entries = [
      reached("8.8.8.8:8333", "/b/"),
      reached("8.8.8.9:8333", "/a/"),
      reached("[2a00::1]:8333", "/b/", 70_015),
      failed("8.8.8.10:8333", "Refused"),
      failed("8.8.8.11:8333", "Timeout"),
      failed("8.8.8.12:8333", "Timeout"),
      crawlEntry("8.8.8.13:8333")
    ]
    assert.deepStrictEqual(lines(entries, undefined, "interrupted"), [
      "Crawled mainnet for 12.3 s: found 7 addresses, visited 1,234, reached 1 node; interrupted",
      "",
      "  network   found  visited  reached",
      "  ipv4          6        5        2",
      "  ipv6          1        1        1",
      "",
      "  user agent  nodes",
      "  /b/             2",
      "  /a/             1",
      "",
      "  protocol version  nodes",
      "  70016                 2",
      "  70015                 1",
      "",
      "  not reached because  addresses",
      "  Timeout                      2",
      "  Refused                      1"
    ])
  })

  it("makes no command of a user agent, and no property", () => {
    const bad = ["\u001b[2J\u009b1m", "__proto__", "constructor", "", "\u00e4\u202e"]
    const entries = bad.map((userAgent, index) => reached(`8.8.8.${index}:8333`, userAgent))
    const text = lines(entries).join("\n")
    assert.notMatch(text, /[^\x20-\x7e\n]/)
    assert.match(text, /^ {2}__proto__ +1$/m)
    assert.match(text, /^ {2}"" +1$/m)
    assert.match(text, /^ {2}\\x1b\[2J\\x9b1m +1$/m)
    assert.deepStrictEqual(Object.keys(summary(entries).userAgents).toSorted(), bad.toSorted())
  })

  it("shows the fourteen most frequent of many, and how many others there are", () => {
    const entries = Array.from({ length: 100 }, (_, index) => reached(`8.8.8.${index}:8333`, `/${index % 40}/`))
    const shown = lines(entries).filter((line) => /^ {2}(\/|\d+ others)/.test(line))
    assert.lengthOf(shown, 15)
    assert.match(shown.at(-1)!, /^ {2}26 others {2,}58$/)
    assert.lengthOf(Object.keys(summary(entries).userAgents), 40)
  })

  it("fits a narrow terminal, and one that does not know its width", () => {
    const entries = [reached("8.8.8.8:8333", `/${"x".repeat(250)}/`)]
    for (const columns of [40, 60, 100]) {
      for (const line of lines(entries, columns)) assert.isAtMost(line.length, columns)
    }
    assert.isAbove(Math.max(...lines(entries, 0).map(({ length }) => length)), 250)
  })
})
