/** `btcpeer peers`: the addresses of nodes in a file, printed or converted to another format, and the bans in one. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { randomBytes } from "node:crypto"
import * as fs from "node:fs"
import type { Readable } from "node:stream"
import * as Address from "effect-bitcoin-peer/Address"
import * as Network from "effect-bitcoin-peer/Network"
import * as Wire from "effect-bitcoin-peer/Wire"
import * as AddressBook from "effect-bitcoin-peer/server/AddressBook"
import * as BanList from "effect-bitcoin-peer/server/BanList"
import { networkNameOf } from "effect-bitcoin-peer/server/Dialer"
import { Failure } from "./failure.ts"
import { openInput, problemOf, pullUntil } from "./input.ts"
import { Output } from "./output.ts"
import { clean, cleanJson, counted } from "./text.ts"

/** In bytes. A full `peers.dat` has less than 8 MB. */
const maximumSize = 1 << 28

/** The formats that `--to` takes. */
export const formats = ["peers.dat", "peers.json", "json", "lines"] as const

export interface PeersOptions {
  /** The network of a file that does not say it. */
  readonly network: Network.Network
  readonly format: "text" | "json"
  readonly to: { readonly format: AddressBook.Format; readonly file: string } | undefined
}

/** What a file holds. */
interface Contents {
  /** The format, as people call it. */
  readonly name: string
  readonly network: Network.Network
  readonly list: ReadonlyArray<AddressBook.ListedAddress>
  /** The tables of a `peers.dat`. */
  readonly book: AddressBook.Book | undefined
  /** How many entries were lost. */
  readonly lost: number
  /** What is wrong with the file, or with the first entry that was lost. */
  readonly problem: string | undefined
}

/** Nothing secret is drawn from it. The key of a new book is. */
const random = { next: Math.random, below: (bound: number) => Math.floor(Math.random() * bound) }

const readPeersDat = (
  bytes: Uint8Array,
  network: Network.Network,
  now: number
): Result.Result<Contents, AddressBook.AddressBookError> =>
  Result.gen(function* () {
    const { book, damage, lost } = yield* AddressBook.parse(bytes, now, { network, random })
    // In the order of the file.
    const { found: list } = yield* AddressBook.decodeList(bytes, "peers.dat", { network, now })
    const problem = damage ?? (lost === 0 ? undefined : "addresses are there twice, or cannot exist")
    return { name: "peers.dat", network, list, book, lost, problem }
  })

const readAnchors = (bytes: Uint8Array, network: Network.Network): Contents | undefined => {
  const anchors = AddressBook.decodeAnchors(bytes, network)
  if (Result.isFailure(anchors)) return undefined
  const list = anchors.success.map((address) => ({ address, source: address, lastSuccess: 0 }))
  return { name: "anchors.dat", network, list, book: undefined, lost: 0, problem: undefined }
}

/** Recognises a file by its contents, and reads it: one that begins with the magic of a network, or text. */
const readFile = (bytes: Uint8Array, network: Network.Network, now: number): Result.Result<Contents, string> => {
  const found = Network.fromMagic(bytes.subarray(0, 4))
  if (bytes.length >= 4 && found !== undefined) {
    const anchors = readAnchors(bytes, found)
    if (anchors !== undefined) return Result.succeed(anchors)
    return Result.mapError(readPeersDat(bytes, found, now), ({ message, reason }) =>
      reason._tag === "Unreadable" ? "neither peers.dat nor anchors.dat, or too damaged to read" : message
    )
  }
  // A file of text has no such characters.
  if (bytes.subarray(0, 1_024).some((byte) => byte < 0x09)) {
    return Result.fail("is not text, and does not begin with the magic of a known network")
  }
  const start = new TextDecoder().decode(bytes.subarray(0, 1_024)).trimStart()
  // A line can begin with the bracket of an IPv6 address.
  const isArray = start.startsWith("[") && !/^\[[0-9a-f.]*:[0-9a-f:.]*\]/i.test(start)
  const format = isArray ? "json" : start.startsWith("{") ? "peers.json" : "lines"
  return Result.mapBoth(AddressBook.decodeList(bytes, format, { network, now }), {
    onFailure: ({ message }) => message,
    onSuccess: ({ found: list, problem, skipped }) => ({
      name: format,
      network,
      list,
      book: undefined,
      lost: skipped,
      problem
    })
  })
}

/** The bans of a `banlist.json`, which is text with this key near its beginning. */
const readBans = (bytes: Uint8Array): BanList.BanFile | undefined =>
  /^\s*\{[\s\S]*"banned_nets"/.test(new TextDecoder().decode(bytes.subarray(0, 1_024)))
    ? BanList.decode(bytes)
    : undefined

/** One ban for people: its subnet, whether it holds, since when and why. */
const banLine = ({ created, reason, subnet, until }: BanList.Ban, now: number): string => {
  const ended = until * 1_000 <= now ? " (ended)" : ""
  const why = reason === undefined ? "" : `  ${reason}`
  return `${BanList.formatSubnet(subnet).padEnd(24)} until ${timeText(until)}${ended}  since ${timeText(created)}${why}`
}

const printBans = Effect.fnUntraced(function* ({ bans }: BanList.BanFile, format: "text" | "json", now: number) {
  const { line, room } = yield* Output
  if (format === "text") line(`banlist.json: ${counted(bans.length, "ban")}`)
  for (const ban of bans) {
    const { created, reason, subnet, until } = ban
    const entry = { address: BanList.formatSubnet(subnet), ban_created: created, banned_until: until, reason }
    line(format === "json" ? cleanJson(JSON.stringify(entry)) : clean(banLine(ban, now)))
    const full = room()
    if (full !== undefined) yield* full
  }
})

/** A list as a book, whose places have room for one address each. */
const asBook = ({ book: known, list, network }: Contents, now: number): AddressBook.Book => {
  if (known !== undefined) return known
  const book = AddressBook.make({ network, random, key: new Uint8Array(randomBytes(32)) })
  for (const { address, lastSuccess, source } of list) {
    book.add([address], source, now)
    if (lastSuccess > 0) book.good(address, lastSuccess * 1_000)
  }
  return book
}

/** A converted file, how many addresses are in it, and why not all of them are. */
const convert = (
  contents: Contents,
  format: AddressBook.Format,
  now: number
): { readonly bytes: Uint8Array; readonly count: number; readonly note: string } => {
  const { list } = contents
  if (format === "json" || format === "lines") {
    const addresses = list.map(({ address }) => address)
    return { bytes: AddressBook.encodeList(addresses, format), count: list.length, note: "" }
  }
  const book = asBook(contents, now)
  const { cjdns, i2p } = book.stats()
  const leftOut = format === "peers.json" ? cjdns.total + i2p.total : 0
  const unplaced = list.length - book.size
  const notes = [
    ...(unplaced === 0
      ? []
      : [`${unplaced} that are there twice, are unreachable from elsewhere, or have no free place`]),
    ...(leftOut === 0 ? [] : [`${leftOut} of I2P and CJDNS, which btcd does not have`])
  ]
  const note = notes.length === 0 ? "" : ` (without ${notes.join(", ")})`
  return { bytes: book.exportAs(format), count: book.size - leftOut, note }
}

const timeText = (seconds: number): string =>
  seconds === 0 ? "never" : new Date(seconds * 1_000).toISOString().slice(0, 16).replace("T", " ")

/** One address for people: where it stands, when it was seen, what it offers, who told of it. */
const addressLine = (where: string, address: Wire.AddressV2, source: string): string => {
  const services = Wire.serviceNames(address.services).join(",") || "-"
  return `${where}${Wire.formatAddress(address).padEnd(24)} seen ${timeText(address.timestamp)}  ${services}  from ${source}`
}

/** The lines before the addresses of a book: how many there are of each network. */
const summaryLines = (book: AddressBook.Book): ReadonlyArray<string> => {
  const { all_networks: all, ...networks } = book.stats()
  return Object.entries({ ...networks, all })
    .filter(([, { total }]) => total > 0)
    .map(([name, { new: ofNew, total, tried }]) => `  ${name.padEnd(6)} ${ofNew} new, ${tried} tried, ${total} in all`)
}

/** The lines of a book: every place of its tables. */
function* bookLines(book: AddressBook.Book, format: "text" | "json"): Iterable<string> {
  const { new: ofNew, tried } = book.entries()
  if (format === "text") yield* summaryLines(book)
  for (const [table, entries] of [
    ["new", ofNew],
    ["tried", tried]
  ] as const) {
    for (const [place, entry] of Object.entries(entries)) {
      if (format === "json") yield JSON.stringify({ table, place, ...entry })
      else {
        const address = {
          ...hostOf(entry.address),
          port: entry.port,
          services: BigInt(entry.services),
          timestamp: entry.time
        }
        yield addressLine(`${table} ${place}`.padEnd(13), address, entry.source)
      }
    }
  }
}

function* listLines(list: Contents["list"], format: "text" | "json"): Iterable<string> {
  for (const { address, source } of list) {
    if (format === "text") yield addressLine("", address, Address.formatHost(source))
    else {
      const { port, services, timestamp: time } = address
      const host = Address.formatHost(address)
      yield JSON.stringify({ address: host, port, services: Number(services), time, network: networkNameOf(address) })
    }
  }
}

const print = Effect.fnUntraced(function* (contents: Contents, format: "text" | "json") {
  const { line, room } = yield* Output
  const { book, list, name, network } = contents
  if (format === "text") line(`${name} of ${network.name}: ${counted(list.length, "address")}`)
  for (const text of book === undefined ? listLines(list, format) : bookLines(book, format)) {
    line(format === "json" ? cleanJson(text) : text)
    const full = room()
    if (full !== undefined) yield* full
  }
})

/** The host of a text that the book made. */
const hostOf = (text: string): Address.Host => Result.getOrThrow(Address.parseHost(text))

const write = (file: string, bytes: Uint8Array): Effect.Effect<void, Failure> =>
  Effect.mapError(
    Effect.try({
      // An existing file stays: it may be the only copy of a book.
      try: () => fs.writeFileSync(file, bytes, { flag: "wx", mode: 0o600 }),
      catch: (error) => error as NodeJS.ErrnoException
    }),
    (error) =>
      new Failure({
        message: `--output: ${file}: ${error.code === "EEXIST" ? "exists already" : problemOf(error, file)}`
      })
  )

/**
 * Prints or converts a file of addresses, or prints one of bans. Fails for a file that cannot be read, and after the rest was printed or written for one of which
 * a part was lost.
 */
export const peers = Effect.fnUntraced(function* (
  file: string,
  { format, network, to }: PeersOptions,
  stdin: () => Readable = () => process.stdin
): Effect.fn.Return<void, Failure, Output | Scope.Scope> {
  const { line } = yield* Output
  const name = file === "-" ? "standard input" : file
  const failed = (problem: string) => new Failure({ message: `${name}: ${problem}` })
  if (file === "") return yield* new Failure({ message: "the name of the file is empty" })
  const input = yield* openInput(file, stdin)
  const { bytes, ended } = yield* Effect.mapError(pullUntil(input, maximumSize), (cause) =>
    failed(problemOf(cause, file))
  )
  if (!ended) return yield* failed(`more than ${maximumSize >> 20} MiB`)
  if (bytes.length === 0) return yield* failed("is empty")

  const now = yield* Clock.currentTimeMillis
  const banned = readBans(new Uint8Array(bytes))
  if (banned !== undefined) {
    if (to !== undefined) return yield* failed("is a list of bans, which has no other format")
    yield* printBans(banned, format, now)
    const [first] = banned.skipped
    const problem = banned.damage ?? (first === undefined ? undefined : `entry ${first.index}: ${first.problem}`)
    if (problem === undefined) return
    const { bans, skipped } = banned
    return yield* failed(`${counted(skipped.length, "entry")} lost, ${counted(bans.length, "ban")} read: ${problem}`)
  }
  const read = readFile(new Uint8Array(bytes), network, now)
  if (Result.isFailure(read)) return yield* failed(read.failure)
  const contents = read.success
  if (to === undefined) yield* print(contents, format)
  else {
    const { bytes, count, note } = convert(contents, to.format, now)
    yield* write(to.file, bytes)
    line(`${to.file}: ${counted(count, "address")} of ${contents.network.name}, as ${to.format}${note}`)
  }
  const { list, lost, problem } = contents
  if (problem !== undefined) {
    return yield* failed(`${counted(lost, "entry")} lost, ${counted(list.length, "address")} read: ${problem}`)
  }
}, Effect.scoped)
