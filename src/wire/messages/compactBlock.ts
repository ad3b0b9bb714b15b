/** The messages of compact blocks (BIP152): `cmpctblock`, `getblocktxn` and `blocktxn`. */
import { Reader } from "../reader.ts"
import { u32At } from "../../primitives/bytes.ts"
import { type Writer } from "../writer.ts"
import { checkList, type List, ListView, readList, writeEach, writeList } from "../list.ts"
import { type BlockHeader, headerSize, readHeader, readTransactions, writeHeader, writeTransactions } from "./block.ts"
import type { Codec } from "../codec.ts"
import {
  minTransactionSize,
  readTransaction,
  skipTransaction,
  type Transaction,
  writeTransaction
} from "./transaction.ts"

/**
 * A `cmpctblock` stands for at most 65,535 transactions: indexes have 16 bits.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxCompactTransactions = 65_535

/**
 * A transaction that a `cmpctblock` contains in full.
 *
 * @category models
 * @since 0.1.0
 */
export interface PrefilledTransaction {
  /** Its index in the block, 0 to 65535. On the wire, the difference to the previous index. */
  readonly index: number
  /** With its witnesses. */
  readonly transaction: Transaction
}

/**
 * BIP152, version 2: a block as short transaction ids, with the transactions that the receiver probably lacks included in full.
 * `CompactBlock` rebuilds the block.
 *
 * More than 65,535 short ids and prefilled transactions together is `TooMany`, an index above 65535 is `BadValue`: message
 * dropped.
 *
 * @category models
 * @since 0.1.0
 */
export interface CmpctBlock {
  readonly _tag: "cmpctblock"
  readonly header: BlockHeader
  /** 64 bits, which make the short ids of this message differ from those of any other. */
  readonly nonce: bigint
  /** 48 bits for each transaction that is not prefilled, in the order of the block. */
  readonly shortIds: List<number>
  /** In the order of the block; usually at least the coinbase. */
  readonly prefilled: List<PrefilledTransaction>
}

/**
 * BIP152: asks for transactions of a block that came as `cmpctblock`. An index above 65535 is `BadValue`: message dropped. A peer
 * that asks for no transaction is disconnected.
 *
 * @category models
 * @since 0.1.0
 */
export interface GetBlockTxn {
  readonly _tag: "getblocktxn"
  /** 32 bytes, wire order. */
  readonly blockHash: Uint8Array
  /** Indexes in the block, 0 to 65535, in rising order. On the wire, the differences between them. */
  readonly indexes: List<number>
}

/**
 * BIP152: the transactions that a `getblocktxn` asked for, in its order.
 *
 * @category models
 * @since 0.1.0
 */
export interface BlockTxn {
  readonly _tag: "blocktxn"
  /** 32 bytes, wire order. */
  readonly blockHash: Uint8Array
  /** With their witnesses. */
  readonly transactions: List<Transaction>
}

const maxIndex = 0xffff
const shortIdSize = 6
const maxShortId = 2 ** 48 - 1

const readShortId = (bytes: Uint8Array, offset: number): number =>
  u32At(bytes, offset) + (bytes[offset + 4] | (bytes[offset + 5] << 8)) * 0x100000000

const writeShortId = (writer: Writer, shortId: number): void => {
  if (!(Number.isInteger(shortId) && shortId >= 0 && shortId <= maxShortId)) {
    writer.badValue("shortIds", "is not an unsigned 48-bit integer")
  }
  const offset = writer.reserve(shortIdSize)
  for (let i = 0; i < shortIdSize; i++) writer.bytes[offset + i] = Math.floor(shortId / 2 ** (8 * i))
}

/** Reads an index, which is written as its distance from `first`, the lowest that it can be. */
const readIndex = (reader: Reader, first: number, field: string): number => {
  const index = first + reader.compactSize(field)
  return index > maxIndex ? reader.badValue(field, `is above ${maxIndex}`) : index
}

const writeIndex = (writer: Writer, first: number, index: number, field: string): void => {
  if (!(Number.isInteger(index) && index >= first && index <= maxIndex)) {
    writer.badValue(field, `is not an integer from ${first} to ${maxIndex}`)
  }
  writer.compactSize(index - first)
}

class Prefilled extends ListView<PrefilledTransaction> {
  readonly indexes: Uint16Array
  readonly offsets: Uint32Array

  constructor(reader: Reader, start: number, indexes: Uint16Array, offsets: Uint32Array) {
    super(reader.bytes, start, reader.offset, indexes.length)
    this.indexes = indexes
    this.offsets = offsets
  }

  get(index: number): PrefilledTransaction {
    const reader = new Reader(this.bytes, "cmpctblock", this.offsets[index])
    return { index: this.indexes[index], transaction: readTransaction(reader) }
  }
}

const readPrefilled = (reader: Reader, limit: number): Prefilled => {
  const count = reader.count("prefilled", 1 + minTransactionSize, limit)
  const start = reader.offset
  const indexes = new Uint16Array(count)
  const offsets = new Uint32Array(count)
  let next = 0
  for (let i = 0; i < count; i++) {
    const index = readIndex(reader, next, "prefilled.index")
    indexes[i] = index
    offsets[i] = reader.offset
    skipTransaction(reader)
    next = index + 1
  }
  return new Prefilled(reader, start, indexes, offsets)
}

const writePrefilled = (writer: Writer, list: List<PrefilledTransaction>, limit: number): void => {
  checkList(writer, list, "prefilled")
  writer.count(list.length, "prefilled", limit)
  if (list instanceof Prefilled) return writer.copy(list.bytes, list.start, list.end)
  let next = 0
  writeEach(writer, list, "prefilled", (writer, prefilled) => {
    writer.object(prefilled, "prefilled")
    const { index, transaction } = prefilled
    writeIndex(writer, next, index, "prefilled.index")
    writeTransaction(writer, transaction)
    next = index + 1
  })
}

export const cmpctblock: Codec<CmpctBlock> = {
  decode: (reader) => {
    const start = reader.offset
    reader.skip(headerSize, "header")
    const nonce = reader.u64("nonce")
    const shortIds = readList(reader, "shortIds", shortIdSize, readShortId, maxCompactTransactions)
    const prefilled = readPrefilled(reader, maxCompactTransactions - shortIds.length)
    return { _tag: "cmpctblock", header: readHeader(reader.bytes, start), nonce, shortIds, prefilled }
  },
  encode: (writer, message) => {
    const { prefilled, shortIds } = message
    writeHeader(writer, message.header)
    writer.u64(message.nonce, "nonce")
    writeList(writer, shortIds, "shortIds", maxCompactTransactions, shortIdSize, readShortId, writeShortId)
    writePrefilled(writer, prefilled, maxCompactTransactions - shortIds.length)
  }
}

class Indexes extends ListView<number> {
  readonly indexes: Uint16Array

  constructor(reader: Reader, start: number, indexes: Uint16Array) {
    super(reader.bytes, start, reader.offset, indexes.length)
    this.indexes = indexes
  }

  get(index: number): number {
    return this.indexes[index]
  }
}

export const getblocktxn: Codec<GetBlockTxn> = {
  decode: (reader) => {
    const blockHash = reader.view(32, "blockHash")
    const indexes = new Uint16Array(reader.count("indexes", 1, maxIndex + 1))
    const start = reader.offset
    let next = 0
    for (let i = 0; i < indexes.length; i++) {
      const index = readIndex(reader, next, "indexes")
      indexes[i] = index
      next = index + 1
    }
    return { _tag: "getblocktxn", blockHash, indexes: new Indexes(reader, start, indexes) }
  },
  encode: (writer, { blockHash, indexes }) => {
    writer.fixed(blockHash, 32, "blockHash")
    checkList(writer, indexes, "indexes")
    writer.count(indexes.length, "indexes", maxIndex + 1)
    if (indexes instanceof Indexes) return writer.copy(indexes.bytes, indexes.start, indexes.end)
    let next = 0
    writeEach(writer, indexes, "indexes", (writer, index) => {
      writeIndex(writer, next, index, "indexes")
      next = index + 1
    })
  }
}

export const blocktxn: Codec<BlockTxn> = {
  decode: (reader) => ({
    _tag: "blocktxn",
    blockHash: reader.view(32, "blockHash"),
    transactions: readTransactions(reader)
  }),
  encode: (writer, { blockHash, transactions }) => {
    writer.fixed(blockHash, 32, "blockHash")
    writeTransactions(writer, transactions)
  }
}
