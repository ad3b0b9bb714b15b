/** Events as lines for people. Text of a peer is escaped (see `text.ts`). */
import Table from "cli-table3"
import * as Duration from "effect/Duration"
import type { Stats } from "effect-bitcoin-peer/Peer"
import type { Dropped, EmptyCommand, Event, Handshake, Message, Summary } from "./events.ts"
import type { Output } from "./output.ts"
import {
  bitcoin,
  clean,
  cleanBytes,
  commandName,
  counted,
  grouped,
  milliseconds,
  rowTexts,
  sortedCommands,
  widest,
  wrapped
} from "./text.ts"

type Paint = Output["Service"]["paint"]

const time = (seconds: number): string => {
  const date = new Date(seconds * 1000)
  return Number.isNaN(date.getTime()) ? `${seconds}` : `${date.toISOString().slice(0, 19)}Z`
}

/** `3 tx, 1 block` */
const kinds = (counts: Readonly<Record<string, number>>): string =>
  Object.entries(counts)
    .map(([name, count]) => `${grouped(count)} ${name}`)
    .join(", ")

const join = (...parts: ReadonlyArray<string | undefined>): string =>
  parts.filter((part) => part !== undefined && part !== "").join("  ")

const words = (...parts: ReadonlyArray<string | undefined>): string =>
  parts.filter((part) => part !== undefined && part !== "").join(" ")

const services = (names: ReadonlyArray<string>): string => (names.length === 0 ? "no services" : names.join(" "))

/** The type of the filter, unless it is 0, the only one in use. */
const filter = ({ filterType }: { readonly filterType: number }): string =>
  filterType === 0 ? "" : `filter type ${filterType}`

/** Takes only summaries without content, so that the compiler finds the case that is missing in `describe`. */
const noContent: (summary: Extract<Summary, { readonly command: EmptyCommand }>) => string = () => ""

/** The summary of a message for people. */
export const describe = (summary: Summary): string => {
  // First of all, because the command of an unknown message can be any text.
  if ("unknown" in summary) return "unknown command"
  switch (summary.command) {
    case "version":
      return join(
        `${summary.protocolVersion} "${cleanBytes(summary.userAgent)}"`,
        `height ${summary.startHeight}`,
        services(summary.services),
        summary.relay ? undefined : "no relay",
        time(summary.timestamp)
      )
    case "sendcmpct":
      return `version ${summary.version}, ${summary.announce ? "high" : "low"} bandwidth`
    case "feature":
      return join(`"${cleanBytes(summary.id)}"`, summary.data)
    case "ping":
      return summary.nonce === undefined ? "no nonce" : `nonce ${summary.nonce}`
    case "pong":
      return `nonce ${summary.nonce}`
    case "addr":
    case "addrv2":
      return summary.count === 0
        ? "no addresses"
        : `${counted(summary.count, "address")} (${kinds(summary.networks)}), first ${clean(summary.first ?? "")}`
    case "inv":
    case "getdata":
    case "notfound":
      return summary.count === 0 ? "nothing" : `${kinds(summary.types)}, first ${summary.first}`
    case "getheaders":
    case "getblocks":
      return join(
        summary.first === undefined ? "from the genesis block" : `from ${summary.first}`,
        `(${counted(summary.count, "hash")})`,
        summary.stop === undefined ? undefined : `to ${summary.stop}`
      )
    case "headers":
      return summary.count === 0
        ? "no headers"
        : summary.count === 1
          ? `1 header ${summary.first}`
          : `${counted(summary.count, "header")} ${summary.first} to ${summary.last}`
    case "feefilter":
      return `${grouped(summary.feeRate)} sat/kvB`
    case "tx":
      return join(
        summary.txid,
        `${summary.coinbase ? "coinbase" : counted(summary.inputs, "input")}, ${counted(summary.outputs, "output")}`,
        bitcoin(summary.value),
        summary.wtxid === summary.txid ? undefined : "witness"
      )
    case "block":
      return join(summary.hash, counted(summary.transactions, "transaction"), time(summary.timestamp))
    case "filterload":
      return join(
        counted(summary.size, "byte"),
        counted(summary.hashFunctions, "hash function"),
        `tweak ${summary.tweak}`,
        `update ${summary.update}`
      )
    case "filteradd":
      return summary.data
    case "merkleblock":
      return join(
        summary.hash,
        summary.invalid === undefined
          ? `${grouped(summary.matches ?? 0)} of ${counted(summary.transactions, "transaction")}`
          : `proves nothing: ${summary.invalid}`,
        summary.first === undefined ? undefined : `first ${summary.first}`,
        time(summary.timestamp)
      )
    case "cmpctblock":
      return join(
        summary.hash,
        `${counted(summary.transactions, "transaction")}, ${grouped(summary.prefilled)} prefilled`,
        time(summary.timestamp)
      )
    case "getblocktxn":
    case "blocktxn":
      return join(summary.hash, counted(summary.transactions, "transaction"))
    case "reject":
      return join(
        `${cleanBytes(summary.rejected)}: "${cleanBytes(summary.reason)}" (0x${summary.code.toString(16)})`,
        summary.hash
      )
    case "getcfilters":
    case "getcfheaders":
      return join(`from height ${grouped(summary.startHeight)} to ${summary.stop}`, filter(summary))
    case "cfilter":
      return join(summary.block, counted(summary.size, "byte"), filter(summary))
    case "cfheaders":
      return join(`${counted(summary.count, "hash")} to ${summary.stop}`, filter(summary))
    case "getcfcheckpt":
      return join(`to ${summary.stop}`, filter(summary))
    case "cfcheckpt":
      return join(`${counted(summary.count, "filter header")} to ${summary.stop}`, filter(summary))
    case "sendtxrcncl":
      return join(`version ${summary.version}`, `salt ${summary.salt}`)
    case "sendpackages":
      return `versions ${summary.versions}`
    case "ancpkginfo":
    case "getpkgtxns":
    case "pkgtxns":
      return summary.count === 0
        ? "no transactions"
        : `${counted(summary.count, "transaction")}, first ${summary.first}`
    case "alert":
      return join(`${summary.id}: "${cleanBytes(summary.statusBar)}"`, `until ${time(summary.expiration)}`)
    default:
      return noContent(summary)
  }
}

const arrows = { in: "<-", out: "->" } as const

const sizeOf = (bytes: number): string => `${grouped(bytes)} B`.padStart(11)

const numberOf = (event: { readonly peer?: number | undefined }): string | undefined =>
  event.peer === undefined ? undefined : `#${event.peer}`

export interface Note {
  /** Before a line for people: the time or the place. */
  readonly when?: string
  /** After a line for people. */
  readonly extra?: string
}

/** One line: time or place, peer, direction, command, size, summary. */
const messageLine = (paint: Paint, event: Message, note: Note): string =>
  join(
    note.when === undefined ? undefined : paint("dim", note.when),
    numberOf(event),
    event.direction === undefined ? undefined : paint("dim", arrows[event.direction]),
    paint(
      "unknown" in event ? "yellow" : event.direction === "out" ? "cyan" : "green",
      cleanBytes(event.command).padEnd(12)
    ),
    sizeOf(event.bytes),
    describe(event),
    note.extra
  )

const droppedLine = (paint: Paint, event: Dropped, note: Note): string =>
  join(
    note.when === undefined ? undefined : paint("dim", note.when),
    numberOf(event),
    paint("red", `!! ${cleanBytes(event.command).padEnd(9)}`),
    sizeOf(event.bytes),
    paint("red", cleanBytes(event.message))
  )

/** Where the values of `handshakeLines` begin. */
const valueColumn = 14

/** Several lines: the address and version of the peer. */
const handshakeLines = (paint: Paint, event: Handshake): ReadonlyArray<string> => {
  const features = [
    event.features.addrv2 ? "addrv2" : "",
    event.features.wtxidRelay ? "wtxidrelay" : "",
    event.relay ? "" : "no transactions",
    ...event.features.announced.map(({ id }) => cleanBytes(id))
  ].filter((feature) => feature !== "")
  const verb = paint("bold", event.direction === "inbound" ? "Accepted" : "Connected to")
  return [
    `${words(verb, numberOf(event), clean(event.address))} (${clean(event.network)}) in ${milliseconds(event.milliseconds)}`,
    ...[
      ["user agent", `"${cleanBytes(event.userAgent)}"`],
      [
        "protocol",
        `${event.protocolVersion}, transport ${event.transport}${event.transport === "v2" ? ", encrypted" : ""}`
      ],
      ...(event.sessionId === undefined ? [] : [["session id", event.sessionId]]),
      ["services", services(event.services)],
      ["height", grouped(event.startHeight)],
      ["clock", `${event.timeOffset > 0 ? "+" : ""}${event.timeOffset} s`],
      ["features", features.length === 0 ? "none" : features.join(", ")]
    ].map(([name = "", value = ""]) => `  ${paint("dim", name.padEnd(valueColumn - 4))}  ${value}`)
  ]
}

/** A table without lines between its columns. */
const chars = {
  top: "",
  "top-mid": "",
  "top-left": "",
  "top-right": "",
  bottom: "",
  "bottom-mid": "",
  "bottom-left": "",
  "bottom-right": "",
  left: "",
  "left-mid": "",
  mid: "",
  "mid-mid": "",
  right: "",
  "right-mid": "",
  middle: " "
}

const cell = (value: number | undefined): string => (value === undefined ? "-" : grouped(value))

const statsHead = ["", "received", "bytes", "sent", "bytes"]

/** Messages and bytes by command: a small table, or a line for each row if the table is too wide. */
const statsLines = (paint: Paint, stats: Stats, columns: number): ReadonlyArray<string> => {
  const table = new Table({
    head: statsHead,
    chars,
    colAligns: ["left", "right", "right", "right", "right"],
    style: { head: [], border: [], compact: true }
  })
  const counts = sortedCommands(stats.received, stats.sent).map((command) => {
    const [received, sent] = [stats.received[command], stats.sent[command]]
    const name = commandName(command)
    return [name, cell(received?.messages), cell(received?.bytes), cell(sent?.messages), cell(sent?.bytes)]
  })
  const { bytesReceived, bytesSent, messagesReceived, messagesSent } = stats
  counts.push(["total", ...[messagesReceived, bytesReceived, messagesSent, bytesSent].map(grouped)])
  table.push(...counts)
  const drawn = table
    .toString()
    .split("\n")
    .map((row) => ` ${row.trimEnd()}`)
  const isNarrow = widest(drawn) > columns
  const [head = "", ...rows] = isNarrow ? ["", ...rowTexts(statsHead, counts).map((text) => `  ${text}`)] : drawn
  const facts = [
    stats.lastPing === undefined ? "" : `last ping ${milliseconds(Duration.toMillis(stats.lastPing))}`,
    stats.minimumPing === undefined ? "" : `fastest ping ${milliseconds(Duration.toMillis(stats.minimumPing))}`,
    stats.messagesDropped === 0 ? "" : paint("red", `${counted(stats.messagesDropped, "message")} dropped`)
  ].filter((fact) => fact !== "")
  return [...(isNarrow ? [] : [paint("dim", head)]), ...rows, ...(facts.length === 0 ? [] : [`  ${facts.join(", ")}`])]
}

/** An event as lines for people, of at most `columns` columns. */
export const textLines = (
  paint: Paint,
  event: Event,
  note: Note,
  columns: number = Infinity
): ReadonlyArray<string> => {
  const indent = event.event === "handshake" ? valueColumn : 4
  return unbroken(paint, event, note, columns).flatMap((text) => wrapped(text, columns, indent))
}

const unbroken = (paint: Paint, event: Event, note: Note, columns: number): ReadonlyArray<string> => {
  switch (event.event) {
    case "message":
      return [messageLine(paint, event, note)]
    case "dropped":
      return [droppedLine(paint, event, note)]
    case "pong":
      // The line of the message has the round trip, as `extra`.
      return []
    case "failed":
      // stderr has it.
      return []
    case "listening":
      return [`${paint("bold", "Listening")} on ${clean(event.address)} (${clean(event.network)})`]
    case "handshake":
      return handshakeLines(paint, event)
    case "refused":
      return [
        `${words(paint("yellow", "Refused"), numberOf(event), clean(event.address ?? ""))}: ${clean(event.message)}`
      ]
    case "disconnected": {
      const who = words(paint("bold", "Disconnected"), numberOf(event), clean(event.address ?? ""))
      return [`${who}: ${clean(event.message)}`, ...statsLines(paint, event.stats, columns)]
    }
  }
}
