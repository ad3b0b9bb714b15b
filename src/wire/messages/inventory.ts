/** Inventory (`inv`, `getdata`, `notfound`), and headers with the messages that ask for them by a locator. */
import { u32At, viewOf } from "../../primitives/bytes.ts"
import { type Reader } from "../reader.ts"
import { type Writer } from "../writer.ts"
import { FixedList, type List, OffsetList, readHashes, readList, writeHashes, writeList } from "../list.ts"
import { type BlockHeader, headerSize, readHeader, writeHeader } from "./block.ts"
import type { Codec } from "../codec.ts"

/**
 * An `inv`, `getdata` or `notfound` has at most 50,000 items.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxInventoryItems = 50_000

/**
 * A `headers` has at most 2,000 headers.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxHeaders = 2_000

/**
 * The locator of `getheaders` and `getblocks` has at most 101 hashes. A peer that sends more is disconnected.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxLocatorHashes = 101

/**
 * The types of inventory items.
 *
 * @category constants
 * @since 0.1.0
 */
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
  /** Only in `notfound`: a package that `getpkgtxns` asked for, by the hash of its wtxids (BIP331). */
  packageTransactions: 6,
  /** Only in `getdata`: the unconfirmed ancestors of a transaction, by its wtxid, as `ancpkginfo` (BIP331). */
  ancestorPackageInfo: 7,
  /** Only in `getdata`: a flag that asks for a `tx` or `block` with its witnesses (BIP144). */
  witnessFlag: 0x40000000,
  /** Only in `getdata`: a transaction by txid, with its witnesses (BIP144). */
  witnessTx: 0x40000001,
  /** Only in `getdata`: a block with its witnesses (BIP144). `block` asks for it without them. */
  witnessBlock: 0x40000002
} as const

/**
 * The type and hash of a transaction or block, 36 bytes.
 *
 * @category models
 * @since 0.1.0
 */
export interface InventoryItem {
  /** See `InventoryType`; uint32. Unknown types are kept; a program should skip them. */
  readonly type: number
  /** 32 bytes, wire order. */
  readonly hash: Uint8Array
}

/**
 * Announces transactions or blocks: at most 50,000. More is `TooMany`: disconnect.
 *
 * @category models
 * @since 0.1.0
 */
export interface Inv {
  readonly _tag: "inv"
  readonly items: List<InventoryItem>
}

/**
 * Asks for transactions or blocks: at most 50,000. More is `TooMany`: disconnect. Nodes ask for at most 1,000 at once.
 *
 * @category models
 * @since 0.1.0
 */
export interface GetData {
  readonly _tag: "getdata"
  readonly items: List<InventoryItem>
}

/**
 * Answers a `getdata` with the items that the sender does not have: at most 50,000. More is `TooMany`: message dropped.
 *
 * @category models
 * @since 0.1.0
 */
export interface NotFound {
  readonly _tag: "notfound"
  readonly items: List<InventoryItem>
}

/**
 * Asks for the headers after a known block, at most 2,000 of them.
 *
 * @category models
 * @since 0.1.0
 */
export interface GetHeaders {
  readonly _tag: "getheaders"
  /** int32; without meaning today. */
  readonly protocolVersion: number
  /** Block hashes from the tip backwards, at most 101 of 32 bytes in wire order. More is `TooMany`: disconnect. */
  readonly locator: List<Uint8Array>
  /** The last block that the sender wants, 32 bytes in wire order; zeros for as many as possible. */
  readonly stopHash: Uint8Array
}

/**
 * Asks for an `inv` of the blocks after a known block, at most 500 of them.
 *
 * @category models
 * @since 0.1.0
 */
export interface GetBlocks {
  readonly _tag: "getblocks"
  /** int32; without meaning today. */
  readonly protocolVersion: number
  /** Block hashes from the tip backwards, at most 101 of 32 bytes in wire order. More is `TooMany`: disconnect. */
  readonly locator: List<Uint8Array>
  /** The last block that the sender wants, 32 bytes in wire order; zeros for as many as possible. */
  readonly stopHash: Uint8Array
}

/**
 * Block headers, oldest first: at most 2,000. More is `TooMany`: disconnect. On the wire a transaction count follows each header;
 * `encode` writes 0 and `decode` ignores it, as Bitcoin Core does.
 *
 * @category models
 * @since 0.1.0
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
  writer.object(item, "items")
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

/**
 * Calls `visit` for each item from index `from` on, with the bytes and offset where its hash begins. Of a decoded message, no view of
 * the hash is made.
 */
export const visitItems = (
  items: List<InventoryItem>,
  from: number,
  visit: (type: number, bytes: Uint8Array, offset: number) => void
): void => {
  const { length } = items
  if (items instanceof FixedList && items.read === readItem) {
    const { bytes, end, start } = items
    for (let offset = start + from * itemSize; offset < end; offset += itemSize) {
      visit(u32At(bytes, offset), bytes, offset + 4)
    }
  } else {
    for (let index = from; index < length; index++) {
      const { hash, type } = items.at(index)!
      visit(type, hash, 0)
    }
  }
}

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

/** Reads like `readHeader`, but marks a list whose bytes must not be copied: `encode` writes its counts as 0. */
const readOddHeader = (bytes: Uint8Array, offset: number): BlockHeader => readHeader(bytes, offset)

/** Reads headers with transaction counts that are not 0, each of one or more bytes. */
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
    // Checked at once, as in Core, which reads no header above the limit.
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
