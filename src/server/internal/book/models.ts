/** The types of the address book, and the error of its files. */
import * as Data from "effect/Data"
import * as Hex from "effect/encoding/Hex"
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
        return `is a ${format} of another network, with magic ${Hex.encode(reason.magic)}`
      case "NewerFormat":
        return `is a ${format} of version ${reason.version}, which only newer programs can read`
      case "OlderFormat":
        return `is a ${format} of version ${reason.version}, from before Bitcoin Core 0.21; start Core once to convert it`
    }
  }
}

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
 * An address in the book, with the results of dialling it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  /** Its time, in Unix seconds, is when the node was last seen: by other nodes, or at the end of a connection of ours. */
  readonly address: AddressV2
  /** The node that first sent it. */
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
 * The addresses to choose from.
 *
 * @category options
 * @since 0.1.0
 */
export interface SelectOptions {
  /** Only addresses of the new table, for a feeler. */
  readonly newOnly?: boolean | undefined
  /** Only of these networks; of all networks if left out. */
  readonly networks?: ReadonlySet<NetworkName> | undefined
}

/**
 * The addresses that `getAddresses` returns.
 *
 * @category options
 * @since 0.1.0
 */
export interface GetOptions {
  /** At most this many; no limit if left out. */
  readonly maximum?: number | undefined
  /** At most this share of the book, in percent; 100 if left out. */
  readonly percent?: number | undefined
  /** Only of this network. A tunnel for IPv4 in IPv6 counts as IPv4, as in Core. */
  readonly network?: NetworkName | undefined
  /** Also "terrible" addresses, which are not relayed: old, from the future, or failed too often. */
  readonly unfiltered?: boolean | undefined
}

/**
 * The key of a cached answer to getaddr: the network of the peer, and our own address and port to which it is connected. Peers with the
 * same key get the same answer.
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
  /** The node that sent it. In a format without sources it is the address itself. */
  readonly source: Address.Host
  /** When it was last reached, in seconds since 1970; 0 for never, and in formats without this time. */
  readonly lastSuccess: number
}

/**
 * The addresses of a file.
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
 * The result of an import.
 *
 * @category models
 * @since 0.1.0
 */
export interface Imported {
  /** Addresses that were added to the book. The others were known, not routable, or their position was taken. */
  readonly added: number
  /** Addresses in the file. */
  readonly read: number
  /** Entries that are not addresses. */
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
   * Adds addresses that `source` sent to the new table. Their times are set back by `penalty` seconds (0 by default), except for the
   * address of the source itself. Addresses that are not routable are ignored. Returns the number of positions that were filled.
   */
  readonly add: (addresses: Iterable<AddressV2>, source: Address.Host, now: number, penalty?: number) => number
  /**
   * Records a dial. With `countFailure` it counts as a failed attempt, but only once between two successes of any address, so that an
   * outage of our own costs an address one attempt. Do not count failures while this machine seems to be offline.
   */
  readonly attempt: (address: Address.Address, countFailure: boolean, now: number) => void
  /**
   * Records a completed handshake of an outbound connection. The address moves to the tried table. If its position there is taken, it
   * stays in the new table until the occupant was tested: see `collision`. Returns whether it moved.
   */
  readonly good: (address: Address.Address, now: number) => boolean
  /**
   * Records the end of a connection: the time at which the node was seen becomes `now`, if it is more than 20 minutes old. Other nodes can
   * get that time with getaddr, so call this for full-relay, manual and addr-fetch connections only.
   */
  readonly connected: (address: Address.Address, now: number) => void
  /** Replaces the services of an address by those in its version message. */
  readonly setServices: (address: Address.Address, services: bigint) => void
  /** Chooses an address to dial, at random, and prefers those that failed rarely. `undefined` if no address fits. */
  readonly select: (now: number, options?: SelectOptions) => Selected | undefined
  /** An occupant of the tried table whose position another address waits for. A feeler tests it before other addresses. */
  readonly collision: () => Selected | undefined
  /** Settles collisions: an occupant that answered stays, one that did not is replaced. Call it before `select`. */
  readonly resolveCollisions: (now: number) => void
  /** Addresses of the book in random order. */
  readonly getAddresses: (now: number, options?: GetOptions) => ReadonlyArray<AddressV2>
  /**
   * The answer to getaddr: at most 1,000 addresses and 23 % of the book, without those that `isExcluded` rejects. It is cached for 21 to
   * 27 hours for each `Requester`. Its times are set back by up to two days and rounded to hours, so that equal times do not
   * link two answers. Peers with the permission `addr` get `getAddresses` instead.
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
   * Adds the addresses of a file. An address that was reached counts as `good` at that time. Entries without services count as full nodes
   * with witnesses, entries without a time as seen five days ago. From a damaged file all readable addresses are taken.
   */
  readonly importFrom: (bytes: Uint8Array, format: Format, now: number) => Result.Result<Imported, AddressBookError>
  /** Checks the invariants of the tables, for tests. Returns the first violation, or `undefined`. Takes half a second for a full book. */
  readonly check: () => string | undefined
}

/**
 * The options of a book.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  readonly network: Network
  /** Random numbers that others cannot predict. */
  readonly random: Random
  /** The 32 secret bytes that decide the bucket and position of an address; from `random` by default. */
  readonly key?: Uint8Array | undefined
  /** The network group of a host, from a map of autonomous systems. `undefined` stands for `Address.group`. */
  readonly groupOf?: ((host: Address.Host) => Uint8Array | undefined) | undefined
  /** The double SHA-256 of that map. Addresses of a file that was written with another map get new buckets. */
  readonly asmapVersion?: Uint8Array | undefined
}

/**
 * A book that was read from a file.
 *
 * @category models
 * @since 0.1.0
 */
export interface Parsed {
  readonly book: Book
  /** Entries of the file that are not in the book. */
  readonly lost: number
  /**
   * The problem of a damaged file; `undefined` for an intact one. The readable addresses of a damaged file are all in the new table, as if
   * their sources had sent them again. Set the file aside before it is overwritten.
   */
  readonly damage: string | undefined
}
