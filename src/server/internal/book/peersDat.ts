/**
 * `peers.dat`, version 4, as Bitcoin Core writes and reads it: all entries, and the buckets of those in the new table. The buckets of the
 * tried table follow from the key.
 *
 * Layout: the magic; u8 format; u8 32 + the lowest format whose readers can read it; the key; i32 number of new entries; i32 number of
 * tried entries; i32 1,024 xor 2^30; the entries; for each new bucket an i32 count and that many i32 numbers of new entries; the version
 * of the map of autonomous systems, 32 bytes; the double SHA-256 of all that.
 */
import * as Address from "../../../Address.ts"
import { doubleSha256 } from "../../../primitives/sha256.ts"
import { Tables, type TablesOptions, mostReferences } from "./tables.ts"
import { check } from "./check.ts"
import { type DiskAddress, DiskReader, DiskWriter } from "./disk.ts"
import { networkOf, unspecified } from "./entries.ts"
import { bucketSize, newBuckets, triedBuckets } from "./hash.ts"

const ourFormat = 4
/** The first one with addresses in the form of BIP155 (Core 0.21). Older files are not read. */
const oldestFormat = 3
const compatibilityBase = 32
const bucketsFlag = 1 << 30
const keySize = 32
const hashSize = 32
/** An entry without services, whose address and source are of unknown networks and empty. */
const smallestEntry = 27

const mostNew = newBuckets * bucketSize
const mostTried = triedBuckets * bucketSize

const isEqual = (one: Uint8Array, other: Uint8Array): boolean =>
  one.length === other.length && one.every((byte, at) => byte === other[at])

/** Without a map of autonomous systems. */
export const noAsmap: Uint8Array = new Uint8Array(hashSize)

// ---- writing

/** The file of a book. `asmapVersion` is the hash of the map by which it finds groups. */
export const write = (tables: Tables, magic: Uint8Array, asmapVersion: Uint8Array = noAsmap): Uint8Array => {
  const { entries, places } = tables
  const writer = new DiskWriter(4_096 + 80 * entries.size + 4 * newBuckets)
  writer.raw(magic)
  writer.u8(ourFormat)
  writer.u8(compatibilityBase + ourFormat)
  writer.raw(tables.hash.key)
  writer.u32(tables.newSize)
  writer.u32(tables.triedSize)
  writer.u32(newBuckets ^ bucketsFlag)

  const ids = entries.order.subarray(0, entries.size).toSorted()
  const numbers = new Int32Array(entries.capacity)
  let next = 0
  for (const isTried of [0, 1]) {
    for (const id of ids) {
      if (entries.isTried[id] !== isTried) continue
      numbers[id] = next++
      writer.address({ ...entries.address(id), timestamp: entries.time[id]!, services: entries.services[id]! })
      writer.host(entries.source(id))
      writer.i64(entries.lastSuccess[id]!)
      writer.u32(entries.attempts[id]!)
    }
  }
  for (let bucket = 0; bucket < newBuckets; bucket++) {
    const ids = places.subarray(bucket * bucketSize, (bucket + 1) * bucketSize).filter((id) => id !== -1)
    writer.u32(ids.length)
    for (const id of ids) writer.u32(numbers[id]!)
  }
  writer.raw(asmapVersion)
  writer.raw(doubleSha256(writer.bytes.subarray(0, writer.offset)))
  return writer.written()
}

// ---- reading

/** An entry of a file. */
export interface DiskEntry {
  readonly address: DiskAddress
  readonly source: Address.Host
  /** Seconds; 0 for never. */
  readonly lastSuccess: number
  readonly attempts: number
  readonly isTried: boolean
}

/** Why a file has nothing that can be read. */
export type Unreadable =
  | { readonly _tag: "NotPeersDat"; readonly problem: string }
  | { readonly _tag: "OtherNetwork"; readonly magic: Uint8Array }
  | { readonly _tag: "OtherFormat"; readonly format: number; readonly isNewer: boolean }

interface Header {
  readonly key: Uint8Array
  readonly newCount: number
  readonly triedCount: number
  readonly bucketCount: number
  /** What is wrong with the counts. The entries can be read all the same. */
  readonly damage: string | undefined
}

const readHeader = (reader: DiskReader, magic: Uint8Array | undefined): Header | Unreadable => {
  const found = reader.view(4)
  const format = reader.u8()
  const compatible = reader.u8() - compatibilityBase
  if (reader.failed) return { _tag: "NotPeersDat", problem: `has ${reader.bytes.length} bytes` }
  if (compatible < 0 || compatible > format || format >= compatibilityBase) {
    return { _tag: "NotPeersDat", problem: "does not say which programs can read it" }
  }
  if (magic !== undefined && !isEqual(found, magic)) return { _tag: "OtherNetwork", magic: found }
  if (compatible > ourFormat) return { _tag: "OtherFormat", format, isNewer: true }
  if (format < oldestFormat) return { _tag: "OtherFormat", format, isNewer: false }
  const key = reader.view(keySize)
  const newCount = reader.i32()
  const triedCount = reader.i32()
  const bucketCount = reader.i32() ^ bucketsFlag
  if (reader.failed) return { _tag: "NotPeersDat", problem: `ends after ${reader.bytes.length} bytes` }
  let damage: string | undefined
  if (newCount < 0 || newCount > mostNew) damage = `it cannot have ${newCount} new addresses`
  else if (triedCount < 0 || triedCount > mostTried) damage = `it cannot have ${triedCount} tried addresses`
  return { key, newCount, triedCount, bucketCount, damage }
}

/** An entry; `undefined` where its address is of a network that this program does not know. */
const readEntry = (reader: DiskReader, isTried: boolean): DiskEntry | undefined => {
  const address = reader.address()
  const source = reader.host()
  const lastSuccess = reader.i64()
  const attempts = reader.i32()
  return address && { address, source: source ?? unspecified, lastSuccess, attempts, isTried }
}

/**
 * Gives the entries to `visit`, one after the other: kept all at once they would cost more than the book. Returns how many there were, and
 * what is wrong with the file so far.
 */
const visitEntries = (
  reader: DiskReader,
  { damage, newCount, triedCount }: Header,
  visit: (entry: DiskEntry | undefined, number: number) => void
): { readonly count: number; readonly damage: string | undefined } => {
  const most = damage === undefined ? newCount + triedCount : mostNew + mostTried
  for (let number = 0; number < most; number++) {
    const start = reader.offset
    const entry = readEntry(reader, number >= newCount)
    if (reader.failed) {
      return { count: number, damage: damage ?? `address ${number} at byte ${start} cannot be read` }
    }
    visit(entry, number)
  }
  return { count: most, damage }
}

/** What follows the entries. */
interface Tail {
  /** Pairs of a bucket and the number of a new entry. */
  readonly buckets: ReadonlyArray<number>
  readonly asmapVersion: Uint8Array
}

/** Reads the rest of a file; a text says what is wrong with it. */
const readTail = (reader: DiskReader, { bucketCount, newCount }: Header): Tail | string => {
  const buckets: Array<number> = []
  for (let bucket = 0; bucket < bucketCount && !reader.failed; bucket++) {
    const count = reader.i32()
    for (let i = 0; i < count && !reader.failed; i++) {
      const number = reader.i32()
      if (number >= 0 && number < newCount) buckets.push(bucket, number)
    }
  }
  const asmapVersion = reader.view(hashSize)
  const end = reader.offset
  const checksum = reader.view(hashSize)
  if (reader.failed) return "it is cut off after its addresses"
  if (!isEqual(checksum, doubleSha256(reader.bytes.subarray(0, end)))) return "its checksum is wrong"
  return { buckets, asmapVersion }
}

/** What a file lists. */
export interface Contents {
  readonly entries: ReadonlyArray<DiskEntry>
  /** How many entries are of networks that this program does not know. */
  readonly unknown: number
  /** Why not all of the file could be read, or trusted. */
  readonly damage: string | undefined
}

/** Reads the entries of a file, as far as it goes. Takes time and memory in proportion to its length. */
export const read = (bytes: Uint8Array, magic: Uint8Array | undefined): Contents | Unreadable => {
  const reader = new DiskReader(bytes)
  const header = readHeader(reader, magic)
  if ("_tag" in header) return header
  const entries: Array<DiskEntry> = []
  const { count, damage } = visitEntries(reader, header, (entry) => {
    if (entry !== undefined) entries.push(entry)
  })
  const tail = damage === undefined ? readTail(reader, header) : damage
  return { entries, unknown: count - entries.length, damage: typeof tail === "string" ? tail : undefined }
}

/** A book out of a file. */
export interface Restored {
  readonly tables: Tables
  /** How many entries of the file are not in the book. */
  readonly lost: number
  /** What is wrong with the file; its entries are all in the new table then. */
  readonly damage: string | undefined
}

export interface RestoreOptions extends Omit<TablesOptions, "key"> {
  /** For a damaged file. */
  readonly now: number
  readonly asmapVersion?: Uint8Array | undefined
}

/** Reads a book. */
export const restore = (bytes: Uint8Array, magic: Uint8Array, options: RestoreOptions): Restored | Unreadable => {
  const reader = new DiskReader(bytes)
  const header = readHeader(reader, magic)
  if ("_tag" in header) return header
  const start = reader.offset
  const fail = (damage: string): Restored => salvage(new DiskReader(bytes, start), header, damage, options)
  if (header.damage !== undefined) return fail(header.damage)

  const key = header.key.slice()
  const expected = Math.min(header.newCount + header.triedCount, Math.floor(bytes.length / smallestEntry))
  const tables = new Tables({ ...options, key, expected })
  const ids = new Int32Array(expected)
  const { count, damage } = visitEntries(reader, header, (entry, number) => {
    ids[number] = entry === undefined ? -1 : insert(tables, entry)
  })
  if (damage !== undefined) return fail(damage)
  const tail = readTail(reader, header)
  if (typeof tail === "string") return fail(tail)
  const isSame = header.bucketCount === newBuckets && isEqual(tail.asmapVersion, options.asmapVersion ?? noAsmap)
  putInBuckets(tables, tail.buckets, ids, isSame)
  for (const id of ids) {
    if (id !== -1 && tables.entries.isTried[id] === 0 && tables.entries.references[id] === 0) tables.remove(id)
  }
  const problem = check(tables, false)
  return problem === undefined ? { tables, lost: count - tables.entries.size, damage: undefined } : fail(problem)
}

/** Makes an entry, in its place if it is tried. -1 if it cannot exist, is there already, or its place is taken. */
const insert = (tables: Tables, { address, attempts, isTried, lastSuccess, source }: DiskEntry): number => {
  const network = networkOf(address)
  // Network 0 is that of all addresses that are not routable. Core keeps those of them that can exist.
  if (network === 0 && !Address.isValid(address)) return -1
  const place = isTried ? tables.triedPlace(address) : -1
  if (isTried && tables.places[place] !== -1) return -1
  const id = tables.create(address, source, network)
  if (id === -1) return -1
  const { entries } = tables
  entries.services[id] = address.services
  entries.time[id] = address.timestamp
  entries.lastSuccess[id] = Math.max(isTried ? 1 : 0, lastSuccess)
  entries.attempts[id] = Math.max(0, attempts)
  if (isTried) tables.putTried(place, id)
  return id
}

/** Puts new entries where they were; if the buckets mean something else now, where their first sources put them. */
const putInBuckets = (tables: Tables, buckets: ReadonlyArray<number>, ids: Int32Array, isSame: boolean): void => {
  for (let i = 0; i < buckets.length; i += 2) {
    const bucket = buckets[i]!
    const id = ids[buckets[i + 1]!]!
    if (id === -1 || tables.entries.references[id]! >= mostReferences) continue
    const place = isSame
      ? bucket * bucketSize + tables.hash.position(false, bucket, tables.entries.address(id))
      : tables.homePlace(id)
    if (tables.places[place] === -1) tables.putNew(place, id)
    else if (isSame) {
      const home = tables.homePlace(id)
      if (tables.places[home] === -1) tables.putNew(home, id)
    }
  }
}

/**
 * A damaged file may have wrong buckets, so its addresses are told to an empty book, each by its source. Under the same key most of them
 * get their old places. A damaged key is as secret as the right one.
 */
const salvage = (reader: DiskReader, header: Header, damage: string, options: RestoreOptions): Restored => {
  const tables = new Tables({ ...options, key: header.key.slice() })
  const { count } = visitEntries(reader, header, (entry) => {
    if (entry !== undefined) tables.add([entry.address], entry.source, options.now)
  })
  const promised = header.damage === undefined ? header.newCount + header.triedCount : count
  return { tables, lost: promised - tables.entries.size, damage }
}
