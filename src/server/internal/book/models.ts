/** What an address book is and gives, as types, and the error of its files. */
import * as Data from "effect/Data"
import type * as Result from "effect/Result"
import type * as Address from "../../../Address.ts"
import type { Network } from "../../../Network.ts"
import type { AddressV2 } from "../../../Wire.ts"
import type { NetworkName } from "../networkNames.ts"
import type { Random } from "../random.ts"

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
 * An address in a list.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListedAddress {
  readonly address: AddressV2
  /** Who told of it; the address itself where the format does not say it. */
  readonly source: Address.Host
  /** When it was last reached, in seconds since 1970; 0 for never, or where the format does not say it. */
  readonly lastSuccess: number
}

/**
 * A list of addresses out of a file.
 *
 * @category models
 * @since 0.1.0
 */
export interface List {
  readonly found: ReadonlyArray<ListedAddress>
  /** How many entries are not addresses. */
  readonly skipped: number
  /** What is wrong with the file, or with the first entry that was skipped. */
  readonly problem: string | undefined
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
   * What is wrong with the file; `undefined` if it is whole. All addresses of a damaged file that could be read are in the new table, as
   * if their sources had told of them again. Set the file aside before it is overwritten.
   */
  readonly damage: string | undefined
}
