import { u32At, viewOf } from "../../primitives/bytes.ts"
import { type Reader } from "../reader.ts"
import { type Writer } from "../writer.ts"
import { FixedList, type List, OffsetList, readHashes, readList, writeHashes, writeList } from "../list.ts"
import { type BlockHeader, headerSize, readHeader, writeHeader } from "./block.ts"
import type { Codec } from "../codec.ts"

/** An `inv`, `getdata` or `notfound` has at most 50,000 items. */
export const maxInventoryItems = 50_000

/** A `headers` has at most 2,000 headers. */
export const maxHeaders = 2_000

/** The locator of `getheaders` and `getblocks` has at most 101 hashes; who sends more is disconnected. */
export const maxLocatorHashes = 101

/** What an inventory item is. In `getdata` alone, `witnessFlag` can be added to `tx` and `block`. */
export const InventoryType = {
  /** A transaction by txid. */
  tx: 1,
  /** A block. */
  block: 2,
  /** A block as `merkleblock` (BIP37). */
  filteredBlock: 3,
  /** A block as `cmpctblock` (BIP152). */
  compactBlock: 4,
  /** A transaction by wtxid (BIP339). */
  wtx: 5,
  /** In `notfound` alone: a package that `getpkgtxns` asked for, by the hash of its wtxids (BIP331). */
  packageTransactions: 6,
  /** In `getdata` alone: the unconfirmed ancestors of a transaction by wtxid, as `ancpkginfo` (BIP331). */
  ancestorPackageInfo: 7,
  /** Together with its witnesses (BIP144): a flag that is added to `tx` or `block`. */
  witnessFlag: 0x40000000,
  /** In `getdata` alone: a transaction by txid, with its witnesses (BIP144). */
  witnessTx: 0x40000001,
  /** In `getdata` alone: a block with its witnesses (BIP144). `block` asks for one without them. */
  witnessBlock: 0x40000002
} as const

/** Names a transaction or block, 36 bytes. */
export interface InventoryItem {
  /** See `InventoryType`; uint32. Unknown types are kept as they came and are to be skipped. */
  readonly type: number
  /** 32 bytes, wire order. */
  readonly hash: Uint8Array
}

/** Announces transactions or blocks: at most 50,000, more is `TooMany`. */
export interface Inv {
  readonly _tag: "inv"
  readonly items: List<InventoryItem>
}

/** Asks for transactions or blocks: at most 50,000, more is `TooMany`; ask for at most 1,000 at a time. */
export interface GetData {
  readonly _tag: "getdata"
  readonly items: List<InventoryItem>
}

/** Answers a `getdata` for what is not there: at most 50,000 items, more is `TooMany`. */
export interface NotFound {
  readonly _tag: "notfound"
  readonly items: List<InventoryItem>
}

/** Asks for the headers after a known block, at most 2,000 of them. */
export interface GetHeaders {
  readonly _tag: "getheaders"
  /** int32; has no meaning any more. */
  readonly protocolVersion: number
  /** Block hashes from the tip backwards, at most 101 of 32 bytes in wire order. More is `TooMany`: disconnect. */
  readonly locator: List<Uint8Array>
  /** The last block that is wanted, 32 bytes in wire order; zeros for as many as possible. */
  readonly stopHash: Uint8Array
}

/** Asks for an `inv` of the blocks after a known block, at most 500 of them. */
export interface GetBlocks {
  readonly _tag: "getblocks"
  /** int32; has no meaning any more. */
  readonly protocolVersion: number
  /** Block hashes from the tip backwards, at most 101 of 32 bytes in wire order. More is `TooMany`: disconnect. */
  readonly locator: List<Uint8Array>
  /** The last block that is wanted, 32 bytes in wire order; zeros for as many as possible. */
  readonly stopHash: Uint8Array
}

/**
 * Block headers, oldest first: at most 2,000, more is `TooMany`. On the wire each is followed by a transaction count,
 * which is written as 0 and, as in Bitcoin Core, not looked at.
 */
export interface Headers {
  readonly _tag: "headers"
  readonly headers: List<BlockHeader>
}

const itemSize = 36

const readItem = (bytes: Uint8Array, offset: number): InventoryItem => ({
  type: u32At(bytes, offset),
  hash: viewOf(bytes, offset + 4, offset + itemSize)
})

const writeItem = (writer: Writer, item: InventoryItem): void => {
  const offset = writer.reserve(itemSize)
  writer.setU32(offset, item.type, "items.type")
  writer.setFixed(offset + 4, item.hash, 32, "items.hash")
}

const readItems = (reader: Reader): List<InventoryItem> => {
  const items = readList(reader, "items", itemSize, readItem)
  reader.atMost(maxInventoryItems, items.length, "items")
  return items
}

const writeItems = (writer: Writer, message: { readonly items: List<InventoryItem> }): void =>
  writeList(writer, message.items, "items", maxInventoryItems, itemSize, readItem, writeItem)

export const inv: Codec<Inv> = {
  decode: (reader) => ({ _tag: "inv", items: readItems(reader) }),
  encode: writeItems
}

export const getdata: Codec<GetData> = {
  decode: (reader) => ({ _tag: "getdata", items: readItems(reader) }),
  encode: writeItems
}

export const notfound: Codec<NotFound> = {
  decode: (reader) => ({ _tag: "notfound", items: readItems(reader) }),
  encode: writeItems
}

interface Locator {
  readonly protocolVersion: number
  readonly locator: List<Uint8Array>
  readonly stopHash: Uint8Array
}

const readLocator = (reader: Reader): Locator => {
  const protocolVersion = reader.i32("protocolVersion")
  const locator = readHashes(reader, "locator")
  const stopHash = reader.view(32, "stopHash")
  reader.atMost(maxLocatorHashes, locator.length, "locator")
  return { protocolVersion, locator, stopHash }
}

const writeLocator = (writer: Writer, message: Locator): void => {
  writer.i32(message.protocolVersion, "protocolVersion")
  writeHashes(writer, message.locator, "locator", maxLocatorHashes)
  writer.fixed(message.stopHash, 32, "stopHash")
}

export const getheaders: Codec<GetHeaders> = {
  decode: (reader) => ({ _tag: "getheaders", ...readLocator(reader) }),
  encode: writeLocator
}

export const getblocks: Codec<GetBlocks> = {
  decode: (reader) => ({ _tag: "getblocks", ...readLocator(reader) }),
  encode: writeLocator
}

const writeHeaderEntry = (writer: Writer, header: BlockHeader): void => {
  writeHeader(writer, header)
  writer.compactSize(0)
}

const entrySize = headerSize + 1

/** Of entries that are written differently than they came. */
const readOddHeader = (bytes: Uint8Array, offset: number): BlockHeader => readHeader(bytes, offset)

/** Entries with another transaction count than 0, which takes a byte, or more of them. */
const readOddHeaders = (reader: Reader, count: number): List<BlockHeader> => {
  const start = reader.offset
  const offsets: Array<number> = []
  for (let i = 0; i < count; i++) {
    offsets.push(reader.offset)
    reader.skip(headerSize, "headers")
    reader.compactSize("headers.transactionCount")
  }
  return new OffsetList(reader.bytes, start, reader.offset, offsets, readOddHeader)
}

export const headers: Codec<Headers> = {
  decode: (reader) => {
    // Judged at once, as in Core, which reads no header then.
    const count = reader.count("headers", entrySize, maxHeaders)
    const { bytes, offset } = reader
    for (let i = 1; i <= count; i++) {
      if (bytes[offset + i * entrySize - 1] !== 0) return { _tag: "headers", headers: readOddHeaders(reader, count) }
    }
    const headers = new FixedList(bytes, offset, count, entrySize, readHeader)
    reader.offset = headers.end
    return { _tag: "headers", headers }
  },
  encode: (writer, message) =>
    writeList(writer, message.headers, "headers", maxHeaders, entrySize, readHeader, writeHeaderEntry)
}
