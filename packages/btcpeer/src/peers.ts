/** `btcpeer peers`: the addresses of nodes in a file, printed or converted to another format. */
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
import { Failure } from "./failure.ts"
import { openInput, problemOf, pullUntil } from "./input.ts"
import { Output } from "./output.ts"
import { cleanJson, counted } from "./text.ts"

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
  readonly book: AddressBook.Book
  /** How many entries are not addresses, or are not in the book. */
  readonly lost: number
  /** What is wrong with the file, or with the first entry that is lost. */
  readonly problem: string | undefined
}

/** Only tables are drawn from it here. The key of a new book is secret. */
const random = { next: Math.random, below: (bound: number) => Math.floor(Math.random() * bound) }

const emptyBook = (network: Network.Network): AddressBook.Book =>
  AddressBook.make({ network, random, key: new Uint8Array(randomBytes(32)) })

const readPeersDat = (bytes: Uint8Array, network: Network.Network, now: number): Result.Result<Contents, Failure> =>
  Result.mapBoth(AddressBook.parse(bytes, now, { network, random }), {
    onFailure: ({ message, reason }) =>
      new Failure({
        message: reason._tag === "Unreadable" ? "neither peers.dat nor anchors.dat, or too damaged to read" : message
      }),
    onSuccess: ({ book, damage, lost }) => ({
      name: "peers.dat",
      book,
      lost,
      problem: damage ?? (lost === 0 ? undefined : "addresses are there twice, or cannot exist")
    })
  })

const readAnchors = (bytes: Uint8Array, network: Network.Network, now: number): Contents | undefined => {
  const anchors = AddressBook.decodeAnchors(bytes, network)
  if (Result.isFailure(anchors)) return undefined
  const book = emptyBook(network)
  for (const anchor of anchors.success) book.add([anchor], anchor, now)
  const lost = anchors.success.length - book.size
  return {
    name: "anchors.dat",
    book,
    lost,
    problem: lost === 0 ? undefined : "addresses cannot be reached from elsewhere"
  }
}

const readList = (
  bytes: Uint8Array,
  format: AddressBook.Format,
  network: Network.Network,
  now: number
): Result.Result<Contents, Failure> => {
  const book = emptyBook(network)
  return Result.mapBoth(book.importFrom(bytes, format, now), {
    onFailure: ({ message }) => new Failure({ message }),
    onSuccess: ({ problem, read, skipped }) => {
      const unused = read - book.size
      return {
        name: format,
        book,
        lost: skipped + unused,
        problem:
          problem ?? (unused === 0 ? undefined : "addresses are there twice, or cannot be reached from elsewhere")
      }
    }
  })
}

/**
 * Recognises a file by its contents, and reads it: one that begins with the magic of a network, or text. A `banlist.json` is an object
 * with "banned_nets"; it belongs here too.
 */
const readFile = (bytes: Uint8Array, network: Network.Network, now: number): Result.Result<Contents, Failure> => {
  const found = Network.fromMagic(bytes.subarray(0, 4))
  if (bytes.length >= 4 && found !== undefined) {
    const anchors = readAnchors(bytes, found, now)
    return anchors === undefined ? readPeersDat(bytes, found, now) : Result.succeed(anchors)
  }
  // A file of text has no such characters.
  if (bytes.subarray(0, 1_024).some((byte) => byte < 0x09)) {
    return Result.fail(new Failure({ message: "is not text, and does not begin with the magic of a known network" }))
  }
  const start = new TextDecoder().decode(bytes.subarray(0, 1_024)).trimStart()
  // A line can begin with the bracket of an IPv6 address.
  const isArray = start.startsWith("[") && !/^\[[0-9a-f.]*:[0-9a-f:.]*\]/i.test(start)
  return readList(bytes, isArray ? "json" : start.startsWith("{") ? "peers.json" : "lines", network, now)
}

const timeText = (seconds: number): string =>
  seconds === 0 ? "never" : new Date(seconds * 1_000).toISOString().slice(0, 16).replace("T", " ")

const servicesText = (services: number): string => Wire.serviceNames(BigInt(services)).join(",") || "-"

/** The lines before the addresses: how many there are of each network. */
const summaryLines = ({ book, name }: Contents): ReadonlyArray<string> => {
  const { all_networks: all, ...networks } = book.stats()
  const rows = Object.entries({ ...networks, all }).filter(([, { total }]) => total > 0)
  return [
    `${name} of ${book.network.name}: ${counted(all.total, "address")}`,
    ...rows.map(
      ([network, { new: ofNew, total, tried }]) =>
        `  ${network.padEnd(6)} ${ofNew} new, ${tried} tried, ${total} in all`
    )
  ]
}

/** Prints the summary, then every place of the tables with its address. */
const print = Effect.fnUntraced(function* (contents: Contents, format: "text" | "json") {
  const { line, room } = yield* Output
  const { new: ofNew, tried } = contents.book.entries()
  if (format === "text") for (const text of summaryLines(contents)) line(text)
  for (const [table, entries] of [
    ["new", ofNew],
    ["tried", tried]
  ] as const) {
    for (const [place, entry] of Object.entries(entries)) {
      if (format === "json") line(cleanJson(JSON.stringify({ table, place, ...entry })))
      else {
        const { port, services, source, time } = entry
        const address = entry.network === "i2p" ? entry.address : Address.format({ ...hostOf(entry.address), port })
        const where = `${table} ${place}`.padEnd(12)
        const seen = `seen ${timeText(time)}`
        line(`${where} ${address.padEnd(24)} ${seen}  ${servicesText(services)}  from ${source}`)
      }
      const full = room()
      if (full !== undefined) yield* full
    }
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
 * Prints or converts a file of addresses. Fails for a file that cannot be read, and after the rest was printed or written for one of which
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
  const read = readFile(new Uint8Array(bytes), network, now)
  if (Result.isFailure(read)) return yield* failed(read.failure.message)
  const contents = read.success
  const { book, lost, problem } = contents
  if (to === undefined) yield* print(contents, format)
  else {
    yield* write(to.file, book.exportAs(to.format))
    const { all_networks: all, cjdns, i2p } = book.stats()
    const leftOut = to.format === "peers.json" ? cjdns.total + i2p.total : 0
    const note = leftOut === 0 ? "" : ` (without ${leftOut} of I2P and CJDNS, which btcd does not have)`
    line(`${to.file}: ${counted(all.total - leftOut, "address")} of ${book.network.name}, as ${to.format}${note}`)
  }
  if (problem !== undefined) {
    return yield* failed(`${counted(lost, "entry")} lost, ${counted(book.size, "address")} read: ${problem}`)
  }
}, Effect.scoped)
