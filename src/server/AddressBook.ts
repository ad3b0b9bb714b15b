/**
 * The address book of a node: which addresses it knows, how well each of them did, which one to dial next, and what it tells others. It
 * is Bitcoin Core's address manager: the same tables, the same places for the same key, and the same file `peers.dat`.
 *
 * `make` gives a plain object whose methods are synchronous and take the time as a parameter. `AddressBook` is the service around it for
 * programs, which takes the time from the clock.
 *
 * @example
 * ```ts
 * import { Effect, Option, Result } from "effect"
 * import { Address, Network } from "effect-bitcoin-peer"
 * import * as AddressBook from "effect-bitcoin-peer/server/AddressBook"
 *
 * const program = Effect.gen(function*() {
 *   const book = yield* AddressBook.AddressBook
 *   yield* book.importFrom(new TextEncoder().encode("8.8.8.8:8333\n9.9.9.9"), "lines")
 *   const source = Result.getOrThrow(Address.parseHost("7.7.7.7"))
 *   const told = { ...Result.getOrThrow(Address.parse("1.2.3.4:8333")), services: 9n, timestamp: 1_700_000_000 }
 *   yield* book.add([told], source)
 *   const next = Option.getOrThrow(yield* book.select())
 *   console.log(Address.format(next.address)) // one of the three
 * }).pipe(Effect.provide(AddressBook.layerMemory({ network: Network.mainnet })))
 *
 * Effect.runSync(program)
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import { SecureRandom } from "effect/crypto"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Address from "../Address.ts"
import type { Network } from "../Network.ts"
import { type AddressV2, Service } from "../Wire.ts"
import type { NetworkName } from "./Dialer.ts"
import * as AnchorsDat from "./internal/book/anchorsDat.ts"
import { Answers } from "./internal/book/answers.ts"
import { check } from "./internal/book/check.ts"
import { networks } from "./internal/book/entries.ts"
import { bucketSize, newBuckets } from "./internal/book/hash.ts"
import * as PeersDat from "./internal/book/peersDat.ts"
import * as Draw from "./internal/book/select.ts"
import { canonical, Tables } from "./internal/book/tables.ts"
import * as Text from "./internal/book/text.ts"
import { networkNameOf } from "./internal/networkNames.ts"
import { makeRandom, type Random } from "./internal/random.ts"

// ---- errors

/**
 * Why a file cannot be read as addresses.
 *
 * @category errors
 * @since 0.1.0
 */
export type AddressBookReason =
  /** It is not of this format, or too damaged to find anything in it. */
  | { readonly _tag: "Unreadable"; readonly problem: string }
  /** It is of another network: the first four bytes are its magic. */
  | { readonly _tag: "OtherNetwork"; readonly magic: Uint8Array }
  /** A newer program wrote it, and it says that older ones cannot read it. Do not overwrite it. */
  | { readonly _tag: "NewerFormat"; readonly version: number }
  /** Bitcoin Core before 0.21 wrote it. */
  | { readonly _tag: "OlderFormat"; readonly version: number }

/**
 * A file cannot be read as addresses. Nothing of it was taken.
 *
 * @category errors
 * @since 0.1.0
 */
export class AddressBookError extends Data.TaggedError("AddressBookError")<{
  readonly format: Format | "anchors.dat"
  readonly reason: AddressBookReason
}> {
  override get message(): string {
    const { format, reason } = this
    switch (reason._tag) {
      case "Unreadable":
        return `cannot be read as ${format}: it ${reason.problem}`
      case "OtherNetwork":
        return `is a ${format} of another network, with magic ${hexOf(reason.magic)}`
      case "NewerFormat":
        return `is a ${format} of version ${reason.version}, which only newer programs can read`
      case "OlderFormat":
        return `is a ${format} of version ${reason.version}, from before Bitcoin Core 0.21; start Core once to convert it`
    }
  }
}

const hexOf = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")

// ---- models

/**
 * A format of lists of addresses.
 *
 * - `peers.dat`: Bitcoin Core's address manager, version 4 (Core 0.21 and later).
 * - `peers.json`: btcd's address manager, version 1 or 2. Its buckets are not kept: they are chosen at random. It has no addresses of
 *   I2P and CJDNS.
 * - `json`: an array, of objects as Core's `getnodeaddresses` prints them, or of arrays as in the snapshots of bitnodes (host, port,
 *   version, user agent, connected since, services). Written as `getnodeaddresses` does.
 * - `lines`: `host:port` or `host` in each line; `#` begins a comment.
 *
 * @category models
 * @since 0.1.0
 */
export type Format = "peers.dat" | "peers.json" | "json" | "lines"

/**
 * An address that the book chose.
 *
 * @category models
 * @since 0.1.0
 */
export interface Selected {
  readonly address: Address.Address
  readonly services: bigint
  /** When it was last tried, in milliseconds since 1970; 0 for never. */
  readonly lastTry: number
}

/**
 * What the book knows of an address.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  /** With the time in seconds at which a node was last seen there, as others told or at the end of a connection. */
  readonly address: AddressV2
  /** Who told of it first. */
  readonly source: Address.Host
  /** When it was last tried, in milliseconds since 1970; 0 for never. The file does not hold it. */
  readonly lastTry: number
  /** When it was last reached, in milliseconds since 1970; 0 for never. */
  readonly lastSuccess: number
  /** Failed attempts since the last success. */
  readonly attempts: number
  /** Whether it is in the tried table: it was reached, and holds its place there. */
  readonly isTried: boolean
  /** How many buckets have it: 1 to 8 for a new address, 1 for a tried one. */
  readonly multiplicity: number
}

/**
 * An entry as `getrawaddrman` of Bitcoin Core prints it.
 *
 * @category models
 * @since 0.1.0
 */
export interface RawEntry {
  readonly address: string
  readonly port: number
  readonly services: number
  /** Seconds. */
  readonly time: number
  readonly network: NetworkName
  readonly source: string
  readonly source_network: NetworkName
}

/**
 * All entries by table and `bucket/position`, as `getrawaddrman` of Bitcoin Core prints them.
 *
 * @category models
 * @since 0.1.0
 */
export interface RawEntries {
  readonly new: { readonly [place: string]: RawEntry }
  readonly tried: { readonly [place: string]: RawEntry }
}

/**
 * How many addresses the tables hold.
 *
 * @category models
 * @since 0.1.0
 */
export interface Count {
  readonly new: number
  readonly tried: number
  readonly total: number
}

/**
 * How many addresses of each network the tables hold, as `getaddrmaninfo` of Bitcoin Core prints it.
 *
 * @category models
 * @since 0.1.0
 */
export type Stats = { readonly [Network in Exclude<NetworkName, "not_publicly_routable"> | "all_networks"]: Count }

/**
 * Which addresses to choose from.
 *
 * @category models
 * @since 0.1.0
 */
export interface SelectOptions {
  /** Only addresses that were never reached, for a feeler. */
  readonly newOnly?: boolean | undefined
  /** Only of these networks; of all networks if left out. */
  readonly networks?: ReadonlySet<NetworkName> | undefined
}

/**
 * Which addresses to give.
 *
 * @category models
 * @since 0.1.0
 */
export interface GetOptions {
  /** At most this many; no limit if left out. */
  readonly maximum?: number | undefined
  /** At most this share of the book, in percent; 100 if left out. */
  readonly percent?: number | undefined
  /** Only of this network. A tunnel for IPv4 in IPv6 counts as IPv4, as in Core. */
  readonly network?: NetworkName | undefined
  /** Also addresses that are too bad to tell others: old, from the future, or failed too often. */
  readonly unfiltered?: boolean | undefined
}

/**
 * Who asks for addresses: the network over which the peer came, and our own address and port that it reached. An answer is the same for
 * all requesters with both in common.
 *
 * @category models
 * @since 0.1.0
 */
export interface Requester {
  readonly network: NetworkName
  readonly bind: string
}

/**
 * What came of an import.
 *
 * @category models
 * @since 0.1.0
 */
export interface Imported {
  /** Addresses that got a place in the book. The others were known, not routable, or lost against better ones. */
  readonly added: number
  /** Entries that are addresses. */
  readonly read: number
  /** Entries that are not. */
  readonly skipped: number
  /** What is wrong with the file, or with the first entry that was skipped. */
  readonly problem: string | undefined
}

/**
 * The address book as a plain object. All methods are synchronous; `now` is in milliseconds since 1970. An address that the book does
 * not have is ignored by all of them but `add`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Book {
  readonly network: Network
  /** The number of addresses. At most 81,920. */
  readonly size: number
  readonly hasNetwork: (network: NetworkName) => boolean
  readonly find: (address: Address.Address) => Entry | undefined
  /**
   * Takes addresses of which `source` told, as new. Their times are set back by `penalty` seconds (0 if left out), unless the source tells
   * of itself. What cannot be reached from elsewhere is ignored. Returns the number of addresses that got a place, or one more.
   */
  readonly add: (addresses: Iterable<AddressV2>, source: Address.Host, now: number, penalty?: number) => number
  /**
   * An address was dialled. `countFailure` counts a failed attempt, at most once for each time that any address was reached: an outage of
   * our own costs an address one attempt. Do not count while we seem to be offline.
   */
  readonly attempt: (address: Address.Address, countFailure: boolean, now: number) => void
  /**
   * The handshake of an outbound connection is complete, or that of a feeler. The address moves to the tried table. If its place is
   * taken, it waits there until the occupant was tested: see `collision`. Returns whether it moved.
   */
  readonly good: (address: Address.Address, now: number) => boolean
  /**
   * A connection to an address ended: the time at which it was seen is now, if it is more than 20 minutes old. Others can ask for that
   * time, so call this for full-relay, manual and addr-fetch connections only.
   */
  readonly connected: (address: Address.Address, now: number) => void
  /** Replaces the services of an address by those in its version message. */
  readonly setServices: (address: Address.Address, services: bigint) => void
  /** Chooses an address to dial. `undefined` if the book has none that fits. */
  readonly select: (now: number, options?: SelectOptions) => Selected | undefined
  /** The occupant of a place in the tried table for which another address waits: dial it with a feeler before others. */
  readonly collision: () => Selected | undefined
  /** Decides about the addresses that wait: an occupant that answered stays, one that did not is replaced. Call it before `select`. */
  readonly resolveCollisions: (now: number) => void
  /** Gives addresses in random order. */
  readonly getAddresses: (now: number, options?: GetOptions) => ReadonlyArray<AddressV2>
  /**
   * The answer to getaddr: at most 1,000 addresses and 23 % of the book, without those that `isExcluded` says. It is the same for 21 to 27
   * hours to all who ask over one network at one of our addresses. Each time in it is older than the true one by up to two days, and a
   * whole hour. Not for peers with the permission `addr`: give them `getAddresses`.
   */
  readonly answer: (
    requester: Requester,
    now: number,
    isExcluded?: (address: Address.Address) => boolean
  ) => ReadonlyArray<AddressV2>
  readonly stats: () => Stats
  readonly entries: () => RawEntries
  /** `peers.dat` of Bitcoin Core, to be saved. `parse` reads it. */
  readonly serialize: () => Uint8Array
  /** The addresses in a format for another program. `peers.dat` is the same as `serialize`. */
  readonly exportAs: (format: Format) => Uint8Array
  /**
   * Takes the addresses of a file into this book. An address that was reached counts as `good` at that time. Entries without services are
   * taken for full nodes with witnesses; those without a time, for seen five days ago. A damaged file gives what can be read.
   */
  readonly importFrom: (bytes: Uint8Array, format: Format, now: number) => Result.Result<Imported, AddressBookError>
  /** What is wrong inside the book, for tests; `undefined` if nothing is. It takes half a second for a full book. */
  readonly check: () => string | undefined
}

/**
 * Options of a book.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  readonly network: Network
  /** Random numbers that others cannot predict. */
  readonly random: Random
  /** 32 secret bytes that decide where an address stands. By default they are drawn from `random`. */
  readonly key?: Uint8Array | undefined
  /** The group of a host, where a map of autonomous systems knows it; `Address.group` for all others. */
  readonly groupOf?: ((host: Address.Host) => Uint8Array | undefined) | undefined
  /** The double SHA-256 of that map. A file that was written with another one has its addresses put into new buckets. */
  readonly asmapVersion?: Uint8Array | undefined
}

/**
 * A book out of a file.
 *
 * @category models
 * @since 0.1.0
 */
export interface Parsed {
  readonly book: Book
  /** Entries of the file that are not in the book. */
  readonly lost: number
  /**
   * What is wrong with the file; `undefined` if it is whole. Then all addresses that could be read are in the new table, under a new key.
   * Set the file aside before it is overwritten.
   */
  readonly damage: string | undefined
}

// ---- making books

const answerMaximum = 1_000
const answerPercent = 23
/** In seconds. Bitcoin Core takes this age for addresses with a time that cannot be. */
const ageWithoutTime = 5 * 24 * 3_600

const bytesOf = (random: Random, size: number): Uint8Array => Uint8Array.from({ length: size }, () => random.below(256))

const fromTables = (tables: Tables, { asmapVersion, network, random }: Options): Book => {
  const { entries, places, sizes } = tables
  const answers = new Answers(random)

  const addressOf = (id: number): Address.Address => {
    const { address, networkId, port } = entries.address(id)
    return { networkId, address: address.slice(), port }
  }
  const timestamped = (id: number): AddressV2 => ({
    timestamp: entries.time[id]!,
    services: entries.services[id]!,
    ...addressOf(id)
  })
  const selected = (id: number): Selected | undefined =>
    id === -1
      ? undefined
      : { address: addressOf(id), services: entries.services[id]!, lastTry: entries.lastTry[id]! * 1_000 }
  const entryOf = (id: number): Entry => {
    const isTried = entries.isTried[id] === 1
    const { address, networkId } = entries.source(id)
    return {
      address: timestamped(id),
      source: { networkId, address: address.slice() },
      lastTry: entries.lastTry[id]! * 1_000,
      lastSuccess: entries.lastSuccess[id]! * 1_000,
      attempts: entries.attempts[id]!,
      isTried,
      multiplicity: isTried ? 1 : entries.references[id]!
    }
  }
  const rawEntry = (id: number): RawEntry => {
    const address = entries.address(id)
    const source = entries.source(id)
    return {
      address: Address.formatHost(address),
      port: address.port,
      services: Number(entries.services[id]!),
      time: entries.time[id]!,
      network: networkNameOf(address),
      source: Address.formatHost(source),
      source_network: networkNameOf(source)
    }
  }
  const rawEntries = (first: number, end: number): { readonly [place: string]: RawEntry } => {
    const found: { [place: string]: RawEntry } = {}
    for (let place = first * bucketSize; place < end * bucketSize; place++) {
      const id = places[place]!
      if (id === -1) continue
      found[`${Math.floor(place / bucketSize) - first}/${place % bucketSize}`] = rawEntry(id)
    }
    return found
  }
  const countOf = (isCounted: (name: NetworkName) => boolean): Count => {
    let ofNew = 0
    let ofTried = 0
    for (const [number, name] of networks.entries()) {
      if (!isCounted(name)) continue
      ofNew += sizes[number]!
      ofTried += sizes[networks.length + number]!
    }
    return { new: ofNew, tried: ofTried, total: ofNew + ofTried }
  }
  const ofNetwork = (network: NetworkName): Count => countOf((name) => name === network)

  const getAddresses: Book["getAddresses"] = (now, options) =>
    Draw.getAddresses(tables, now, options).map((id) => timestamped(id))
  const serialize = (): Uint8Array => PeersDat.write(tables, network.magic, asmapVersion)
  const all = (): ReadonlyArray<AddressV2> => Array.from(entries.order.subarray(0, entries.size), timestamped)

  const take = (list: Text.List, now: number): Imported => {
    let added = 0
    for (const { address, lastSuccess, source } of list.found) {
      added += tables.add([address], source, now)
      if (lastSuccess > 0) tables.good(address, lastSuccess * 1_000)
    }
    return { added, read: list.found.length, skipped: list.skipped, problem: list.problem }
  }

  return {
    network,
    get size() {
      return entries.size
    },
    hasNetwork: (network) => ofNetwork(network).total > 0,
    find: (address) => {
      const id = entries.find(canonical(address))
      return id === -1 ? undefined : entryOf(id)
    },
    add: (addresses, source, now, penalty) => tables.add(addresses, source, now, penalty),
    attempt: (address, countFailure, now) => tables.attempt(address, countFailure, now),
    good: (address, now) => tables.good(address, now),
    connected: (address, now) => tables.connected(address, now),
    setServices: (address, services) => tables.setServices(address, services),
    select: (now, options) => selected(Draw.select(tables, now, options)),
    collision: () => selected(tables.collision()),
    resolveCollisions: (now) => tables.resolveCollisions(now),
    getAddresses,
    answer: (requester, now, isExcluded = () => false) =>
      answers.answer(requester, now, () =>
        getAddresses(now, { maximum: answerMaximum, percent: answerPercent }).filter((address) => !isExcluded(address))
      ),
    stats: () => ({
      ipv4: ofNetwork("ipv4"),
      ipv6: ofNetwork("ipv6"),
      onion: ofNetwork("onion"),
      i2p: ofNetwork("i2p"),
      cjdns: ofNetwork("cjdns"),
      all_networks: countOf(() => true)
    }),
    entries: () => ({
      new: rawEntries(0, newBuckets),
      tried: rawEntries(newBuckets, places.length / bucketSize)
    }),
    serialize,
    exportAs: (format) => {
      switch (format) {
        case "peers.dat":
          return serialize()
        case "peers.json":
          return encodeText(`${JSON.stringify(Text.peersJson(tables))}\n`)
        case "json":
          return encodeText(`${JSON.stringify(all().map(Text.nodeAddress), undefined, 2)}\n`)
        case "lines":
          return encodeText(
            all()
              .map((address) => `${Address.format(address)}\n`)
              .join("")
          )
      }
    },
    importFrom: (bytes, format, now) => Result.map(readList(bytes, format, network, now), (list) => take(list, now)),
    check: () => check(tables)
  }
}

/**
 * Makes an empty book.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: Options): Book =>
  fromTables(new Tables({ ...options, key: options.key ?? bytesOf(options.random, keySize) }), options)

const keySize = 32

/**
 * Reads a book from `peers.dat`, with the key of the file: every address stands where it stood. A file that is damaged or cut off gives
 * all addresses that can be read: see `Parsed`. Fails if nothing can be read, or must not be.
 *
 * `options.key` is for the book of a damaged file only.
 *
 * @example
 * ```ts
 * import { Network } from "effect-bitcoin-peer"
 * import * as AddressBook from "effect-bitcoin-peer/server/AddressBook"
 *
 * const random = { next: Math.random, below: (bound: number) => Math.floor(Math.random() * bound) } // SecureRandom in earnest
 * const options = { network: Network.mainnet, random }
 * const parsed = AddressBook.parse(AddressBook.make(options).serialize(), Date.now(), options)
 * console.log(parsed) // { _tag: "Success", success: { book, lost: 0, damage: undefined } }
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const parse = (bytes: Uint8Array, now: number, options: Options): Result.Result<Parsed, AddressBookError> => {
  const contents = PeersDat.read(bytes, options.network.magic)
  if ("_tag" in contents) return Result.fail(unreadable(contents))
  const key = options.key ?? bytesOf(options.random, keySize)
  const { damage, lost, tables } = PeersDat.restore(contents, { ...options, key, now })
  return Result.succeed({ book: fromTables(tables, options), lost, damage })
}

// ---- files

const encodeText = (text: string): Uint8Array => new TextEncoder().encode(text)

const fail = (format: Format | "anchors.dat", reason: AddressBookReason): AddressBookError =>
  new AddressBookError({ format, reason })

const unreadable = (found: PeersDat.Unreadable): AddressBookError => {
  switch (found._tag) {
    case "NotPeersDat":
      return fail("peers.dat", { _tag: "Unreadable", problem: found.problem })
    case "OtherNetwork":
      return fail("peers.dat", found)
    case "OtherFormat":
      return fail("peers.dat", { _tag: found.isNewer ? "NewerFormat" : "OlderFormat", version: found.format })
  }
}

const readList = (
  bytes: Uint8Array,
  format: Format,
  network: Network,
  now: number
): Result.Result<Text.List, AddressBookError> => {
  if (format === "peers.dat") {
    const contents = PeersDat.read(bytes, network.magic)
    if ("_tag" in contents) return Result.fail(unreadable(contents))
    const found = contents.entries.filter((entry) => entry !== undefined)
    return Result.succeed({ found, skipped: contents.entries.length - found.length, problem: contents.damage })
  }
  const text = new TextDecoder().decode(bytes)
  const time = Math.max(0, Math.floor(now / 1_000) - ageWithoutTime)
  const defaults: Text.Defaults = { port: network.port, services: Service.network | Service.witness, time }
  if (format === "lines") return Result.succeed(Text.readLines(text, defaults))
  const json = Result.try({ try: (): unknown => JSON.parse(text), catch: () => "is not JSON" })
  const list = Result.isFailure(json)
    ? json.failure
    : format === "json"
      ? Text.readJson(json.success, defaults)
      : Text.readPeersJson(json.success, defaults)
  return typeof list === "string"
    ? Result.fail(fail(format, { _tag: "Unreadable", problem: list }))
    : Result.succeed(list)
}

/**
 * The file `anchors.dat` of Bitcoin Core: the block-relay peers of the last run, to which the next one connects first.
 *
 * @category encoding
 * @since 0.1.0
 */
export const encodeAnchors = (anchors: ReadonlyArray<AddressV2>, network: Network): Uint8Array =>
  AnchorsDat.write(anchors, network.magic)

/**
 * The addresses of an `anchors.dat`. Addresses of unknown networks are left out. A damaged file gives none of them, as in Core: an anchor
 * is only worth its place if it is surely the old peer.
 *
 * @category decoding
 * @since 0.1.0
 */
export const decodeAnchors = (
  bytes: Uint8Array,
  network: Network
): Result.Result<ReadonlyArray<AddressV2>, AddressBookError> => {
  const anchors = AnchorsDat.read(bytes, network.magic)
  return typeof anchors === "string"
    ? Result.fail(fail("anchors.dat", { _tag: "Unreadable", problem: anchors }))
    : Result.succeed(anchors)
}

// ---- the service

/**
 * The address book of a program. Each method does what the one of `Book` does, at the time of the clock.
 *
 * @category models
 * @since 0.1.0
 */
export interface AddressBook {
  /** The plain object, for code that must not wait. */
  readonly book: Book
  readonly add: (addresses: Iterable<AddressV2>, source: Address.Host, penalty?: number) => Effect.Effect<number>
  readonly attempt: (address: Address.Address, countFailure: boolean) => Effect.Effect<void>
  readonly good: (address: Address.Address) => Effect.Effect<boolean>
  readonly connected: (address: Address.Address) => Effect.Effect<void>
  readonly setServices: (address: Address.Address, services: bigint) => Effect.Effect<void>
  readonly select: (options?: SelectOptions) => Effect.Effect<Option.Option<Selected>>
  readonly collision: Effect.Effect<Option.Option<Selected>>
  readonly resolveCollisions: Effect.Effect<void>
  readonly getAddresses: (options?: GetOptions) => Effect.Effect<ReadonlyArray<AddressV2>>
  readonly answer: (
    requester: Requester,
    isExcluded?: (address: Address.Address) => boolean
  ) => Effect.Effect<ReadonlyArray<AddressV2>>
  readonly stats: Effect.Effect<Stats>
  readonly entries: Effect.Effect<RawEntries>
  readonly exportAs: (format: Format) => Effect.Effect<Uint8Array>
  readonly importFrom: (bytes: Uint8Array, format: Format) => Effect.Effect<Imported, AddressBookError>
}

/**
 * The key of the service `AddressBook` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const AddressBook: Context.Service<AddressBook, AddressBook> = Context.Service<AddressBook>(
  "effect-bitcoin-peer/server/AddressBook"
)

const at = <A>(act: (now: number) => A): Effect.Effect<A> => Effect.map(Clock.currentTimeMillis, act)

/**
 * The service around a book.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromBook = (book: Book): AddressBook => {
  return {
    book,
    add: (addresses, source, penalty) => at((now) => book.add(addresses, source, now, penalty)),
    attempt: (address, countFailure) => at((now) => book.attempt(address, countFailure, now)),
    good: (address) => at((now) => book.good(address, now)),
    connected: (address) => at((now) => book.connected(address, now)),
    setServices: (address, services) => Effect.sync(() => book.setServices(address, services)),
    select: (options) => at((now) => Option.fromUndefinedOr(book.select(now, options))),
    collision: Effect.sync(() => Option.fromUndefinedOr(book.collision())),
    resolveCollisions: at((now) => book.resolveCollisions(now)),
    getAddresses: (options) => at((now) => book.getAddresses(now, options)),
    answer: (requester, isExcluded) => at((now) => book.answer(requester, now, isExcluded)),
    stats: Effect.sync(() => book.stats()),
    entries: Effect.sync(() => book.entries()),
    exportAs: (format) => Effect.sync(() => book.exportAs(format)),
    importFrom: (bytes, format) =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => Effect.fromResult(book.importFrom(bytes, format, now)))
  }
}

/**
 * An empty book in memory, with a `SecureRandom` that the caller provides.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemoryNoDeps = (
  options: Omit<Options, "random">
): Layer.Layer<AddressBook, never, SecureRandom.SecureRandom> =>
  Layer.effect(
    AddressBook,
    Effect.gen(function* () {
      const { randomBytes } = yield* SecureRandom.SecureRandom
      const key = options.key ?? (yield* randomBytes(keySize))
      return fromBook(make({ ...options, key, random: makeRandom(yield* randomBytes(16)) }))
    })
  )

/**
 * An empty book in memory, with the platform's `crypto.getRandomValues`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory = (options: Omit<Options, "random">): Layer.Layer<AddressBook> =>
  Layer.provide(layerMemoryNoDeps(options), SecureRandom.layerWebCrypto)
