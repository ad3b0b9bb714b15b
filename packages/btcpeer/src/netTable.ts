/**
 * The table of a server's peers, laid out as `bitcoin-cli -netinfo 4` lays it out, so that operators and their scripts find what they know.
 * Two differences: the unit of `age` stands below its column however wide the columns before it are, and peers with equal pings keep the
 * order of their numbers.
 */
import type { NetworkInfo } from "effect-bitcoin-peer/server/NetworkInfo"
import type { PeerInfo } from "effect-bitcoin-peer/server/PeerInfo"
import { cleanBytes } from "./text.ts"

const unroutable = "not_publicly_routable"
const shortName = (network: PeerInfo["network"]): string => (network === unroutable ? "npr" : network)

const types: Readonly<Record<PeerInfo["connection_type"], string>> = {
  "outbound-full-relay": "full",
  "block-relay-only": "block",
  manual: "manual",
  feeler: "feeler",
  "addr-fetch": "addr",
  "private-broadcast": "priv",
  inbound: ""
}

/** A letter for each service: l is NETWORK_LIMITED, 2 is P2P_V2, others are their first letters. */
const serviceLetters = (names: ReadonlyArray<string>): string =>
  names
    .map((name) =>
      name === "NETWORK_LIMITED" ? "l" : name === "P2P_V2" ? "2" : cleanBytes(name.charAt(0)).toLowerCase()
    )
    .join("")

/** Milliseconds of a time in seconds; a dash for what does not fit the column. */
const ping = (seconds: number | undefined): string => {
  if (seconds === undefined) return ""
  const milliseconds = Math.round(seconds * 1_000)
  return milliseconds > 999_999 ? "-" : String(milliseconds)
}

const secondsPerMinute = 60

/** Whole seconds or minutes since a time in Unix seconds, where 0 is never. */
const since = (time: number, now: number, unit: number, never = ""): string =>
  time === 0 ? never : String(Math.trunc((now - time) / unit))

interface Column {
  readonly head: string
  /** The text before the cell, which separates it from the column before. */
  readonly gap: string
  readonly width: number
  readonly cell: (peer: PeerInfo) => string
  /** What the last line of the table says below the column. */
  readonly unit: string
}

type Cell = (peer: PeerInfo) => string

const services: Cell = ({ servicesnames }) => serviceLetters(servicesnames)
const highBandwidth: Cell = ({ bip152_hb_from, bip152_hb_to }) =>
  (bip152_hb_to ? "." : " ") + (bip152_hb_from ? "*" : " ")
const processed: Cell = ({ addr_processed: count, addr_relay_enabled: relays }) =>
  count > 0 ? String(count) : relays ? "" : "."
const limited: Cell = ({ addr_rate_limited: count }) => (count > 0 ? String(count) : "")
const system: Cell = ({ mapped_as = 0 }) => (mapped_as > 0 ? String(mapped_as) : "")

const column = (head: string, width: number, cell: Cell, gap = "", unit = ""): Column => ({
  head,
  width,
  cell,
  gap,
  unit
})

const columnsOf = (peers: ReadonlyArray<PeerInfo>, now: number): ReadonlyArray<Column> => {
  const age: Cell = ({ conntime }) => since(conntime, now, secondsPerMinute)
  const transaction: Cell = ({ last_transaction, relaytxes }) =>
    since(last_transaction, now, secondsPerMinute, relaytxes ? "" : "*")
  const widest = (minimum: number, cell: Cell): number =>
    peers.reduce((width, peer) => Math.max(width, cell(peer).length), minimum)
  return [
    column("<->", 3, ({ inbound }) => (inbound ? "in" : "out")),
    column("type", 6, ({ connection_type }) => types[connection_type], " "),
    column("net", 5, ({ network }) => shortName(network), " "),
    column("serv", widest(6, services), services, " "),
    column("v", 2, ({ transport_protocol_type }) => transport_protocol_type.slice(1), " "),
    column("mping", 7, ({ minping }) => ping(minping), "", "ms"),
    column("ping", 7, ({ pingtime }) => ping(pingtime), "", "ms"),
    column("send", 5, ({ lastsend }) => since(lastsend, now, 1), "", "sec"),
    column("recv", 5, ({ lastrecv }) => since(lastrecv, now, 1), "", "sec"),
    column("txn", 5, transaction, "", "min"),
    column("blk", 5, ({ last_block }) => since(last_block, now, secondsPerMinute), "", "min"),
    column("hb", 2, highBandwidth, "  "),
    column("addrp", widest(5, processed), processed, " "),
    column("addrl", widest(6, limited), limited),
    column("age", widest(5, age), age, "", "min"),
    ...(peers.some((peer) => system(peer) !== "") ? [column("asmap", 7, system)] : []),
    column(
      "id",
      widest(2, ({ id }) => String(id)),
      ({ id }) => String(id),
      " "
    )
  ]
}

/** Inbound peers first, then by the smallest ping. Peers without a ping are the first ones. */
const inOrder = (one: PeerInfo, other: PeerInfo): number =>
  Number(other.inbound) - Number(one.inbound) || (one.minping ?? -1) - (other.minping ?? -1)

const peerTable = (unsorted: ReadonlyArray<PeerInfo>, now: number): ReadonlyArray<string> => {
  const peers = unsorted.toSorted(inOrder)
  const columns = columnsOf(peers, now)
  const addresses = peers.map(({ addr }) => cleanBytes(addr))
  const addressWidth = Math.max(...addresses.map(({ length }) => length)) + 1
  const line = (text: (column: Column) => string): string =>
    columns.map((column) => column.gap + text(column).padStart(column.width)).join("")
  return [
    `${line(({ head }) => head)} ${"address".padEnd(addressWidth)}version`,
    ...peers.map((peer, index) => {
      const version = `${peer.version}${cleanBytes(peer.subver)}`
      return `${line(({ cell }) => cell(peer))} ${addresses[index]!.padEnd(addressWidth)}${version === "0" ? "" : version}`
    }),
    line(({ unit }) => unit).trimEnd()
  ]
}

const cells = (texts: ReadonlyArray<string | number>): string => texts.map((text) => String(text).padStart(8)).join("")

/** How many peers there are, by direction and network. The row of outbound peers also counts two kinds of them. */
const countTable = ({ networks }: NetworkInfo, peers: ReadonlyArray<PeerInfo>): ReadonlyArray<string> => {
  const shown: Array<PeerInfo["network"]> = networks.filter(({ reachable }) => reachable).map(({ name }) => name)
  if (peers.some(({ network }) => network === unroutable)) shown.push(unroutable)
  const blocks = peers.filter(({ connection_type }) => connection_type === "block-relay-only").length
  const manual = peers.filter(({ connection_type }) => connection_type === "manual").length
  const hasManual = manual > 0
  const row = (head: string, of: ReadonlyArray<PeerInfo>, more: ReadonlyArray<number> = []): string => {
    const counts = shown.map((name) => of.filter(({ network }) => network === name).length)
    return head.padEnd(5) + cells([...counts, of.length, ...more])
  }
  return [
    " ".repeat(5) + cells([...shown.map(shortName), "total", "block", ...(hasManual ? ["manual"] : [])]),
    row(
      "in",
      peers.filter(({ inbound }) => inbound)
    ),
    row(
      "out",
      peers.filter(({ inbound }) => !inbound),
      hasManual ? [blocks, manual] : [blocks]
    ),
    row("total", peers)
  ]
}

const localAddresses = (addresses: NetworkInfo["localaddresses"]): ReadonlyArray<string> => {
  if (addresses.length === 0) return ["Local addresses: n/a"]
  const texts = addresses.map(({ address }) => cleanBytes(address))
  const width = Math.max(...texts.map(({ length }) => length)) + 1
  return [
    "Local addresses",
    ...addresses.map(
      ({ port, score }, index) =>
        `${texts[index]!.padEnd(width)}    port ${String(port).padStart(6)}    score ${String(score).padStart(6)}`
    )
  ]
}

/** The lines of the whole. `now` is Unix seconds; `client` names and versions this program. Text of remotes is escaped. */
export const netTable = (
  network: NetworkInfo,
  peers: ReadonlyArray<PeerInfo>,
  now: number,
  client: string
): ReadonlyArray<string> => {
  const { localservicesnames, protocolversion, subversion } = network
  const warnings = network.warnings.map((warning) => `Warning: ${cleanBytes(warning)}`)
  return [
    `${client} - server ${protocolversion}${cleanBytes(subversion)} - services ${serviceLetters(localservicesnames)}`,
    "",
    ...(peers.length === 0 ? [] : [...peerTable(peers, now), ""]),
    ...countTable(network, peers),
    "",
    ...localAddresses(network.localaddresses),
    ...(warnings.length === 0 && network.networkactive ? [] : [""]),
    ...(network.networkactive ? [] : ["The network is switched off."]),
    ...warnings
  ]
}
