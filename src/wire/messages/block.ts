/** Blocks, their headers, hashes and merkle trees. */
import type * as Result from "effect/Result"
import type { WireError } from "../../WireError.ts"
import { attempt } from "../fail.ts"
import { i32At, plainBytes, u32At, viewOf } from "../../primitives/bytes.ts"
import { maxCompactSize } from "../limits.ts"
import { Reader } from "../reader.ts"
import { Writer } from "../writer.ts"
import { type List, OffsetList, writeList } from "../list.ts"
import { doubleSha256, doubleSha256Pairs } from "../../primitives/sha256.ts"
import {
  measureTransaction,
  minTransactionSize,
  readTransaction,
  skipTransaction,
  type Transaction,
  writeTransaction
} from "./transaction.ts"
import type { Codec } from "../codec.ts"

/**
 * The header of a block, 80 bytes. Its hash is the hash of the block.
 *
 * @category models
 * @since 0.1.0
 */
export interface BlockHeader {
  /** int32; its bits signal readiness for soft forks (BIP9). */
  readonly version: number
  /** Hash of the previous block, 32 bytes in wire order. */
  readonly previousBlock: Uint8Array
  /** Merkle root of the txids, 32 bytes in wire order. */
  readonly merkleRoot: Uint8Array
  /** Unix seconds, uint32. */
  readonly timestamp: number
  /** The target in compact form, uint32. */
  readonly bits: number
  /** uint32. */
  readonly nonce: number
}

/**
 * A block: a header and its transactions, with or without witnesses.
 *
 * @category models
 * @since 0.1.0
 */
export interface Block {
  readonly header: BlockHeader
  readonly transactions: List<Transaction>
}

/**
 * A block. `decode` checks that each transaction is well-formed, and nothing else: neither proof of work nor the merkle root. See
 * `Block.mutation`.
 *
 * @category models
 * @since 0.1.0
 */
export interface BlockMessage {
  readonly _tag: "block"
  readonly block: Block
}

export const headerSize = 80

export const readHeader = (bytes: Uint8Array, offset: number): BlockHeader => ({
  version: i32At(bytes, offset),
  previousBlock: viewOf(bytes, offset + 4, offset + 36),
  merkleRoot: viewOf(bytes, offset + 36, offset + 68),
  timestamp: u32At(bytes, offset + 68),
  bits: u32At(bytes, offset + 72),
  nonce: u32At(bytes, offset + 76)
})

export const writeHeader = (writer: Writer, header: BlockHeader): void => {
  writer.object(header, "header")
  const offset = writer.reserve(headerSize)
  writer.setI32(offset, header.version, "header.version")
  writer.setFixed(offset + 4, header.previousBlock, 32, "header.previousBlock")
  writer.setFixed(offset + 36, header.merkleRoot, 32, "header.merkleRoot")
  writer.setU32(offset + 68, header.timestamp, "header.timestamp")
  writer.setU32(offset + 72, header.bits, "header.bits")
  writer.setU32(offset + 76, header.nonce, "header.nonce")
}

const transactionAt = (bytes: Uint8Array, offset: number): Transaction =>
  readTransaction(new Reader(bytes, "block", offset))

/** The transactions of a decoded message. */
export class TransactionList extends OffsetList<Transaction> {
  /** Kept from the first call of `Block.txids`. */
  declare txids: ReadonlyArray<Uint8Array> | undefined

  constructor(bytes: Uint8Array, start: number, end: number, offsets: ArrayLike<number>) {
    super(bytes, start, end, offsets, transactionAt)
    this.txids = undefined
  }
}

/** Reads a list of transactions, as a view. */
export const readTransactions = (reader: Reader): List<Transaction> => {
  const count = reader.count("transactions", minTransactionSize)
  const first = reader.offset
  const offsets = new Uint32Array(count)
  for (let i = 0; i < count; i++) {
    offsets[i] = reader.offset
    skipTransaction(reader)
  }
  return new TransactionList(reader.bytes, first, reader.offset, offsets)
}

export const writeTransactions = (writer: Writer, transactions: List<Transaction>): void =>
  writeList(
    writer,
    transactions,
    "transactions",
    maxCompactSize,
    minTransactionSize,
    transactionAt,
    writeTransaction,
    measureTransaction
  )

export const block: Codec<BlockMessage> = {
  decode: (reader) => {
    const start = reader.offset
    reader.skip(headerSize, "header")
    const transactions = readTransactions(reader)
    return { _tag: "block", block: { header: readHeader(reader.bytes, start), transactions } }
  },
  encode: (writer, { block }) => {
    writer.object(block, "block")
    writeHeader(writer, block.header)
    writeTransactions(writer, block.transactions)
  }
}

/**
 * The hash of a block, 32 bytes in wire order: SHA-256 twice over the 80 bytes of its header.
 *
 * Throws a `WireError` for a header that cannot be encoded; a decoded header always can.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const genesis = {
 *   version: 1,
 *   previousBlock: new Uint8Array(32),
 *   merkleRoot: Wire.hashFromHex("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"),
 *   timestamp: 1231006505,
 *   bits: 0x1d00ffff,
 *   nonce: 2083236893
 * }
 * console.log(Wire.hashToHex(Wire.blockHash(genesis))) // 000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const blockHash = (header: BlockHeader): Uint8Array => {
  const writer = headerWriter ?? new Writer(headerSize)
  // A field of the header may be a function of the caller, which may make another hash.
  headerWriter = undefined
  writer.offset = 0
  writer.begin("block")
  writeHeader(writer, header)
  headerWriter = writer
  return doubleSha256(writer.bytes)
}

/** Its bytes are those of one header, so that they can be hashed without a view of them. */
let headerWriter: Writer | undefined

const sameHash = (bytes: Uint8Array, one: number, other: number): boolean => {
  for (let i = 0; i < 32; i++) if (bytes[one + i] !== bytes[other + i]) return false
  return true
}

/** The level of a tree that is being computed. Kept, because V8 allocates a buffer above 64 bytes outside of its heap. */
let kept = new Uint8Array(0)
const keptLevel = 32 * 4_096

const levelFor = (size: number): Uint8Array => {
  if (size > keptLevel) return new Uint8Array(size)
  if (kept.length < size) kept = new Uint8Array(Math.max(1_024, size * 2))
  return kept
}

/**
 * The merkle root, and whether a hash in the tree is paired with an equal one: then another list, longer or shorter, has the same
 * root (CVE-2012-2459). The root of one hash is that object.
 */
export const merkleTree = (
  txids: ReadonlyArray<Uint8Array>
): { readonly root: Uint8Array; readonly ambiguous: boolean } => {
  if (txids.length <= 1) return { root: txids[0] ?? new Uint8Array(32), ambiguous: false }
  const level = levelFor(32 * (txids.length + 1))
  for (let i = 0; i < txids.length; i++) level.set(txids[i], i * 32)
  let count = txids.length
  let ambiguous = false
  while (count > 1) {
    for (let i = 0; i + 1 < count; i += 2) ambiguous ||= sameHash(level, i * 32, i * 32 + 32)
    // An odd level pairs its last hash with itself.
    if (count % 2 === 1) level.copyWithin(count * 32, (count - 1) * 32, count++ * 32)
    doubleSha256Pairs(level, count)
    count /= 2
  }
  return { root: level.slice(0, 32), ambiguous }
}

/**
 * The merkle root of hashes of 32 bytes in wire order, as in a block header; zeros for no hashes.
 *
 * Two different lists can have one root (CVE-2012-2459). This function does not notice; `Block.mutation` does.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const only = Wire.hashFromHex("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b")
 * console.log(Wire.hashToHex(Wire.merkleRoot([only]))) // a block with one transaction: the root is its txid
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const merkleRoot = (txids: ReadonlyArray<Uint8Array>): Uint8Array => merkleTree(txids).root.slice()

/**
 * The header in the first 80 bytes of a block, `merkleblock` or `cmpctblock`. The other bytes are not read, which saves a program
 * that passes blocks on the time of decoding them. Fails with `Truncated` where there are fewer than 80 bytes.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 *
 * // The hash of a block that is passed on without decoding it: see `undecoded` of `makeParser`.
 * const relay = (message: Wire.Message) =>
 *   message._tag === "Unknown" && message.command === "block"
 *     ? Result.map(Wire.decodeBlockHeader(message.payload), Wire.blockHash)
 *     : undefined
 *
 * console.log(relay({ _tag: "verack" })) // undefined
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const decodeBlockHeader = (bytes: Uint8Array): Result.Result<BlockHeader, WireError> =>
  attempt(() => {
    const reader = new Reader(plainBytes(bytes), "block")
    reader.skip(headerSize, "header")
    return readHeader(reader.bytes, 0)
  })
