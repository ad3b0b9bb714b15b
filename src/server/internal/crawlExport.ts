/** The results of a crawl in the formats of other crawlers. */
import { type Address, format, formatHost, isRoutable } from "../../Address.ts"
import type { Network } from "../../Network.ts"
import { Service } from "../../Wire.ts"
import type { Entry } from "./crawlFrontier.ts"

/** The fields of a node in bitnodes' API; those about its place and owner are unknown here. */
type SnapshotNode = readonly [
  protocolVersion: number,
  userAgent: string,
  connectedSince: number,
  services: number,
  startHeight: number,
  ...place: ReadonlyArray<null>
]

const unknownPlace = Array.from({ length: 8 }, () => null)

const seconds = (millis: number): number => Math.floor(millis / 1000)

const isReached = (entry: Entry): boolean => entry.node !== undefined && entry.failures === 0 && entry.reachedAt > 0

/** A snapshot as bitnodes gives it: `nodes` by address. */
export const snapshotOf = (entries: Iterable<Entry>, now: number): string => {
  const nodes: Record<string, SnapshotNode> = {}
  let latestHeight = 0
  for (const entry of entries) {
    if (!isReached(entry)) continue
    const { protocolVersion, startHeight, userAgent } = entry.node!
    // JSON has no integers of 64 bits; bits above 53 are not in use.
    const services = Number(entry.services)
    nodes[format(entry.address)] = [
      protocolVersion,
      userAgent,
      seconds(entry.reachedSince),
      services,
      startHeight,
      ...unknownPlace
    ]
    latestHeight = Math.max(latestHeight, startHeight)
  }
  const snapshot = {
    timestamp: seconds(now),
    total_nodes: Object.keys(nodes).length,
    latest_height: latestHeight,
    nodes
  }
  return `${JSON.stringify(snapshot)}\n`
}

/** Reliability above the first number with more visits than the second makes a node good, for one of the windows (sipa's seeder). */
const good: ReadonlyArray<readonly [reliability: number, visits: number]> = [
  [0.85, 2],
  [0.7, 4],
  [0.55, 8],
  [0.45, 16],
  [0.35, 32]
]

const isGood = (entry: Entry, network: Network): boolean => {
  if (entry.address.port !== network.port || (entry.services & Service.network) === 0n || !isRoutable(entry.address)) {
    return false
  }
  if (entry.visits <= 3 && entry.successes * 2 >= entry.visits) return true
  return good.some(
    ([reliability, visits], window) =>
      (entry.uptime[2 * window] ?? 0) > reliability && (entry.uptime[2 * window + 1] ?? 0) > visits
  )
}

/** Always with a port: Bitcoin Core's makeseeds.py wants the 0 of I2P. */
const addressText = (address: Address): string => (address.port === 0 ? `${formatHost(address)}:0` : format(address))

const quoted = (text: string): string => JSON.stringify(text).replace(/[\x7f-\uffff]/g, "?")

/** The lines of `dnsseed.dump`, best nodes first. */
export const seedDumpOf = (entries: Iterable<Entry>, network: Network): string => {
  const rows = Array.from(entries)
    .filter((entry) => entry.node !== undefined)
    .map((entry) => ({ entry, isGood: isGood(entry, network), month: entry.uptime[8] ?? 0 }))
    .toSorted((one, other) => Number(other.isGood) - Number(one.isGood) || other.month - one.month)
  const lines = rows.map(({ entry, isGood }) => {
    const percent = [0, 1, 2, 3, 4].map(
      (window) => `${((entry.uptime[2 * window] ?? 0) * 100).toFixed(2).padStart(6)}%`
    )
    const { protocolVersion, startHeight, userAgent } = entry.node!
    return [
      addressText(entry.address).padEnd(47),
      String(Number(isGood)).padStart(4),
      String(seconds(entry.reachedAt)).padStart(11),
      percent.join(" "),
      String(startHeight).padStart(6),
      entry.services.toString(16).padStart(8, "0"),
      `${String(protocolVersion).padStart(5)} ${quoted(userAgent)}`
    ].join("  ")
  })
  const head =
    "# address                                        good  lastSuccess    %(2h)   %(8h)   %(1d)   %(7d)  %(30d)  blocks      svcs  version"
  return `${[head, ...lines].join("\n")}\n`
}
