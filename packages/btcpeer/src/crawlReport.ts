/** What `btcpeer crawl` prints: an event for each visit, and a summary, for programs and for people. */
import * as Duration from "effect/Duration"
import * as Address from "effect-bitcoin-peer/Address"
import * as Peer from "effect-bitcoin-peer/Peer"
import type * as Crawler from "effect-bitcoin-peer/server/Crawler"
import { networkNameOf } from "effect-bitcoin-peer/server/Dialer"
import * as Wire from "effect-bitcoin-peer/Wire"
import type { Output } from "./output.ts"
import { cleanBytes, counted, grouped, wrapped } from "./text.ts"

const millisOf = (duration: Duration.Duration): number => Duration.toMillis(duration)

const hex64 = (value: bigint): string => value.toString(16).padStart(16, "0")

/** A visit for programs; with `full`, each address that the node told. */
export const visitEvent = (visit: Crawler.Visit, full: boolean): object => {
  const { answer, connect, handshake, total } = visit.timings
  const base = {
    event: "visit",
    time: new Date(visit.at).toISOString(),
    address: Address.format(visit.address),
    network: networkNameOf(visit.address),
    result: visit._tag === "Reached" ? "reached" : "failed"
  }
  const milliseconds = {
    ...(connect === undefined ? {} : { connect: millisOf(connect) }),
    ...(handshake === undefined ? {} : { handshake: millisOf(handshake) }),
    ...(answer === undefined ? {} : { answer: millisOf(answer) }),
    total: millisOf(total)
  }
  if (visit._tag === "Failed") return { ...base, reason: visit.problem, message: visit.error.message, milliseconds }
  const { info, learnt } = visit
  return {
    ...base,
    userAgent: info.userAgent,
    protocolVersion: info.remoteProtocolVersion,
    services: Wire.serviceNames(info.services),
    startHeight: info.startHeight,
    transport: info.transport,
    answer: visit.answer,
    ...(visit.end === undefined ? {} : { end: visit.end._tag, message: Peer.describeEnd(visit.end) }),
    learnt: learnt.length,
    ...(full
      ? {
          addresses: learnt.map((entry) => ({
            address: Address.format(entry),
            time: entry.timestamp,
            services: hex64(entry.services)
          }))
        }
      : {}),
    milliseconds
  }
}

interface Found {
  readonly network: string
  readonly millis: number
  /** Why the crawl ended before its end. */
  readonly stopped: string | undefined
  /** Visits of this run, and those with a handshake. */
  readonly visited: number
  readonly reached: number
  readonly entries: ReadonlyArray<Crawler.Entry>
}

interface NetworkCounts {
  found: number
  visited: number
  reached: number
}

type Tally = Record<string, number>

/** The summary of a crawl. Of "networks" and the rest all addresses count that are known, those of earlier runs too. */
export interface Summary {
  readonly event: "summary"
  readonly network: string
  readonly seconds: number
  readonly stopped?: string
  readonly visited: number
  readonly reached: number
  readonly found: number
  readonly networks: Readonly<Record<string, Readonly<NetworkCounts>>>
  /** The nodes that were reached in their last visit. */
  readonly userAgents: Readonly<Tally>
  readonly protocolVersions: Readonly<Tally>
  readonly transports: Readonly<Tally>
  /** The addresses whose last visit failed. */
  readonly failed: Readonly<Tally>
}

/** Most first. */
const byCount = (one: readonly [string, number], other: readonly [string, number]): number =>
  other[1] - one[1] || (one[0] < other[0] ? -1 : 1)

const sorted = (counts: ReadonlyMap<string, number>): Tally => Object.fromEntries([...counts].toSorted(byCount))

const add = (counts: Map<string, number>, key: string): void => void counts.set(key, (counts.get(key) ?? 0) + 1)

export const summaryEvent = ({ entries, millis, network, reached, stopped, visited }: Found): Summary => {
  const networks: Record<string, NetworkCounts> = {}
  const userAgents = new Map<string, number>()
  const versions = new Map<string, number>()
  const transports = new Map<string, number>()
  const failed = new Map<string, number>()
  for (const entry of entries) {
    const counts = (networks[networkNameOf(entry.address)] ??= { found: 0, visited: 0, reached: 0 })
    counts.found++
    if (entry.visits > 0) counts.visited++
    if (entry.state === "failed") add(failed, entry.problem ?? "Other")
    if (entry.state !== "reached" || entry.node === undefined) continue
    counts.reached++
    add(userAgents, entry.node.userAgent)
    add(versions, String(entry.node.protocolVersion))
    add(transports, entry.node.transport)
  }
  return {
    event: "summary",
    network,
    seconds: Math.round(millis / 100) / 10,
    ...(stopped === undefined ? {} : { stopped }),
    visited,
    reached,
    found: entries.length,
    networks,
    userAgents: sorted(userAgents),
    protocolVersions: sorted(versions),
    transports: sorted(transports),
    failed: sorted(failed)
  }
}

/** Rows of a table that are shown of many. */
const maximumRows = 15

/** A column of names and columns of numbers, without lines between them. */
const tableLines = (
  { paint }: Pick<Output["Service"], "paint">,
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>,
  columns: number
): ReadonlyArray<string> => {
  const all = [head, ...rows]
  const width = (column: number): number => Math.max(...all.map((row) => row[column]!.length))
  const numbers = head.slice(1).reduce((sum, _, column) => sum + width(column + 1) + 2, 0)
  const first = Math.max(8, Math.min(width(0), columns - numbers - 2))
  return all.map((row, index) => {
    const name = row[0]!.length <= first ? row[0]!.padEnd(first) : `${row[0]!.slice(0, first - 1)}…`
    const line = `  ${name}${row
      .slice(1)
      .map((cell, column) => `  ${cell.padStart(width(column + 1))}`)
      .join("")}`
    return index === 0 ? paint("dim", line) : line
  })
}

const tallyRows = (tally: Readonly<Tally>): ReadonlyArray<ReadonlyArray<string>> => {
  // Keys that are integers have an order of their own.
  const all = Object.entries(tally).toSorted(byCount)
  const shown = all.length > maximumRows ? all.slice(0, maximumRows - 1) : all
  const rest = all.slice(shown.length)
  const rows = shown.map(([name, count]) => [name === "" ? '""' : cleanBytes(name), grouped(count)])
  const others = rest.reduce((sum, [, count]) => sum + count, 0)
  return rest.length === 0 ? rows : [...rows, [`${grouped(rest.length)} others`, grouped(others)]]
}

/** The summary for people. */
export const summaryLines = (
  output: Pick<Output["Service"], "paint" | "columns">,
  summary: Summary
): ReadonlyArray<string> => {
  // A terminal may say 0 where it does not know its width.
  const columns = output.columns() || Infinity
  const { failed, found, networks, protocolVersions, reached, seconds, stopped, userAgents, visited } = summary
  const headline = `${output.paint("bold", `Crawled ${summary.network}`)} for ${seconds} s: found ${counted(found, "address")}, visited ${grouped(visited)}, reached ${counted(reached, "node")}${stopped === undefined ? "" : `; ${stopped}`}`
  const byNetwork = Object.entries(networks)
    .toSorted((one, other) => other[1].found - one[1].found)
    .map(([name, counts]) => [name, grouped(counts.found), grouped(counts.visited), grouped(counts.reached)])
  const tables: ReadonlyArray<readonly [ReadonlyArray<string>, ReadonlyArray<ReadonlyArray<string>>]> = [
    [["network", "found", "visited", "reached"], byNetwork],
    [["user agent", "nodes"], tallyRows(userAgents)],
    [["protocol version", "nodes"], tallyRows(protocolVersions)],
    [["not reached because", "addresses"], tallyRows(failed)]
  ]
  const lines = [...wrapped(headline, columns, 2)]
  for (const [head, rows] of tables) if (rows.length > 0) lines.push("", ...tableLines(output, head, rows, columns))
  return lines
}
