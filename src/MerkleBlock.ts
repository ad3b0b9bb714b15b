/**
 * Filtered blocks (BIP37): the transactions of a block that match, and the part of its merkle tree that proves that they are in the
 * block. Pure and synchronous. The message is `Wire.MerkleBlock`; the filter is a `BloomFilter` or any function.
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"
import { doubleSha256 } from "./primitives/sha256.ts"
import * as Wire from "./Wire.ts"

/**
 * The most transactions that a block can have: the smallest valid one has a weight of 240, and a block one of 4,000,000.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxTransactions = 16_666

/**
 * A transaction that a filtered block proves to be in its block.
 *
 * @category models
 * @since 0.1.0
 */
export interface Match {
  /** Its index in the block; 0 is the coinbase. */
  readonly index: number
  /** 32 bytes in wire order. */
  readonly txid: Uint8Array
}

/**
 * Why a filtered block proves nothing. Its sender is faulty or malicious; the caller decides how to react.
 *
 * @category errors
 * @since 0.1.0
 */
export type MerkleBlockReason =
  /** The message says that the block has no transactions. */
  | { readonly _tag: "NoTransactions" }
  /** The message says that the block has more transactions than a block can have. */
  | { readonly _tag: "TooManyTransactions"; readonly count: number; readonly limit: number }
  /** The message has more hashes than the block has transactions. */
  | { readonly _tag: "TooManyHashes"; readonly count: number; readonly limit: number }
  /** The tree needs more hashes than the message has. */
  | { readonly _tag: "MissingHashes" }
  /** The tree needs more flags than the message has. */
  | { readonly _tag: "MissingFlags" }
  /** Hashes are left over after all nodes were visited. */
  | { readonly _tag: "UnusedHashes"; readonly count: number }
  /** Whole bytes of flags are left over after all nodes were visited. */
  | { readonly _tag: "UnusedFlags"; readonly count: number }
  /** The two children of a node are equal, so that the tree could also belong to more transactions (CVE-2012-2459). */
  | { readonly _tag: "RepeatedHash" }
  /** The root of the tree is not the one in the header. */
  | { readonly _tag: "WrongRoot"; readonly root: Uint8Array }

const describe = (reason: MerkleBlockReason): string => {
  switch (reason._tag) {
    case "NoTransactions":
      return "no transactions"
    case "TooManyTransactions":
      return `${reason.count} transactions, a block has at most ${reason.limit}`
    case "TooManyHashes":
      return `${reason.count} hashes for ${reason.limit} transactions`
    case "MissingHashes":
      return "not enough hashes"
    case "MissingFlags":
      return "not enough flags"
    case "UnusedHashes":
      return `${reason.count} hashes left over`
    case "UnusedFlags":
      return `${reason.count} bytes of flags left over`
    case "RepeatedHash":
      return "a node whose children are the same"
    case "WrongRoot":
      return `the merkle root is ${Wire.hashToHex(reason.root)}, not the one in the header`
  }
}

/**
 * The error of a filtered block that proves nothing.
 *
 * @category errors
 * @since 0.1.0
 */
export class MerkleBlockError extends Data.TaggedError("MerkleBlockError")<{ readonly reason: MerkleBlockReason }> {
  override get message(): string {
    return `merkleblock: ${describe(this.reason)}`
  }
}

/** The number of nodes of the tree at a height; 0 is the height of the transactions. */
const widthAt = (transactions: number, height: number): number => Math.ceil(transactions / 2 ** height)

const heightOf = (transactions: number): number => {
  let height = 0
  while (widthAt(transactions, height) > 1) height++
  return height
}

const pair = new Uint8Array(64)

const parentOf = (left: Uint8Array, right: Uint8Array): Uint8Array => {
  pair.set(left)
  pair.set(right, 32)
  return doubleSha256(pair)
}

const failed = (reason: MerkleBlockReason): Result.Result<never, MerkleBlockError> =>
  Result.fail(new MerkleBlockError({ reason }))

/**
 * The transactions that a filtered block proves to be in the block of its header, in their order. The list may be empty.
 *
 * It makes all checks of BIP37 and of Bitcoin Core: the counts, that all hashes and flags are used (the bits that fill up the last
 * byte of flags are ignored, as in Core), that no node has two equal children (CVE-2012-2459), and that the root is the one in the
 * header. The size of the message and `maxTransactions` bound the work.
 *
 * It does not check proof of work or the place of the header in the chain, and no filtered block proves that no transaction was
 * left out. A transaction of 64 bytes in the block can pose as an inner node with a forged transaction below it (CVE-2017-12842):
 * do not let much money depend on this proof alone.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { MerkleBlock, Wire } from "effect-bitcoin-peer"
 *
 * // A block of one transaction, which matched: its txid is the merkle root.
 * const txid = Wire.hashFromHex("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b")
 * const header = { version: 1, previousBlock: new Uint8Array(32), merkleRoot: txid, timestamp: 0, bits: 0, nonce: 0 }
 * const message: Wire.MerkleBlock = { _tag: "merkleblock", header, transactionCount: 1, hashes: [txid], flags: Uint8Array.of(1) }
 * console.log(Result.getOrThrow(MerkleBlock.verify(message))) // [{ index: 0, txid }]
 *
 * const lie = MerkleBlock.verify({ ...message, hashes: [new Uint8Array(32)] })
 * if (Result.isFailure(lie)) console.log(lie.failure.reason._tag) // WrongRoot
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const verify = (message: Wire.MerkleBlock): Result.Result<ReadonlyArray<Match>, MerkleBlockError> => {
  const { flags, hashes, header, transactionCount } = message
  if (transactionCount === 0) return failed({ _tag: "NoTransactions" })
  if (transactionCount > maxTransactions) {
    return failed({ _tag: "TooManyTransactions", count: transactionCount, limit: maxTransactions })
  }
  if (hashes.length > transactionCount) {
    return failed({ _tag: "TooManyHashes", count: hashes.length, limit: transactionCount })
  }
  const matches: Array<Match> = []
  let hashesUsed = 0
  let flagsUsed = 0
  let problem: MerkleBlockReason | undefined

  /** The hash of a node; `undefined` after a problem was found. */
  const visit = (height: number, index: number): Uint8Array | undefined => {
    if (flagsUsed >= flags.length * 8) {
      problem = { _tag: "MissingFlags" }
      return undefined
    }
    const matched = ((flags[flagsUsed >>> 3] >>> (flagsUsed & 7)) & 1) === 1
    flagsUsed++
    if (height === 0 || !matched) {
      const hash = hashes.at(hashesUsed++)
      if (hash === undefined) problem = { _tag: "MissingHashes" }
      else if (matched) matches.push({ index, txid: hash })
      return hash
    }
    const left = visit(height - 1, index * 2)
    if (left === undefined) return undefined
    // The parent of the last node of an odd row has this one child, which counts twice.
    if (index * 2 + 1 >= widthAt(transactionCount, height - 1)) return parentOf(left, left)
    const right = visit(height - 1, index * 2 + 1)
    if (right === undefined) return undefined
    if (Wire.hashEquals(left, right)) {
      problem = { _tag: "RepeatedHash" }
      return undefined
    }
    return parentOf(left, right)
  }

  const root = visit(heightOf(transactionCount), 0)
  if (root === undefined) return failed(problem!)
  const unusedHashes = hashes.length - hashesUsed
  if (unusedHashes > 0) return failed({ _tag: "UnusedHashes", count: unusedHashes })
  const unusedFlags = flags.length - Math.ceil(flagsUsed / 8)
  if (unusedFlags > 0) return failed({ _tag: "UnusedFlags", count: unusedFlags })
  return Wire.hashEquals(root, header.merkleRoot) ? Result.succeed(matches) : failed({ _tag: "WrongRoot", root })
}

/**
 * A filtered block, and the transactions to send after it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Filtered {
  readonly merkleBlock: Wire.MerkleBlock
  /** The matching transactions, in their order. BIP37 sends them without witnesses. */
  readonly transactions: ReadonlyArray<Wire.Transaction>
}

/**
 * Filters a block: `matches` is called once for each transaction, in order, with its txid and its index.
 *
 * For a bloom filter, `matches` is `(transaction, txid) => BloomFilter.matches(filter, transaction, txid)`; for a set of txids,
 * `(_, txid) => wanted.has(Wire.hashToHex(txid))`. The filtered block of a block without transactions proves nothing.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { MerkleBlock, Wire } from "effect-bitcoin-peer"
 *
 * const transactions = [1, 2, 3].map((lockTime) => ({ version: 2, inputs: [], outputs: [], lockTime }))
 * const merkleRoot = Wire.merkleRoot(transactions.map(Wire.txid))
 * const header = { version: 4, previousBlock: new Uint8Array(32), merkleRoot, timestamp: 0, bits: 0, nonce: 0 }
 *
 * const { merkleBlock } = MerkleBlock.make({ header, transactions }, ({ lockTime }) => lockTime === 2)
 * console.log(Result.getOrThrow(MerkleBlock.verify(merkleBlock)).map(({ index }) => index)) // [1]
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  block: Wire.Block,
  matches: (transaction: Wire.Transaction, txid: Uint8Array, index: number) => boolean
): Filtered => {
  const transactions: Array<Wire.Transaction> = []
  let hashesOfRow: Array<Uint8Array> = []
  let matchesOfRow: Array<boolean> = []
  for (const transaction of block.transactions) {
    const txid = Wire.txid(transaction)
    const matched = matches(transaction, txid, hashesOfRow.length)
    if (matched) transactions.push(transaction)
    hashesOfRow.push(txid)
    matchesOfRow.push(matched)
  }
  /** All rows of the tree, the transactions first. */
  const rows = [{ hashes: hashesOfRow, matches: matchesOfRow }]
  while (hashesOfRow.length > 1) {
    const [belowHashes, belowMatches] = [hashesOfRow, matchesOfRow]
    hashesOfRow = []
    matchesOfRow = []
    for (let i = 0; i < belowHashes.length; i += 2) {
      hashesOfRow.push(parentOf(belowHashes[i], belowHashes[i + 1] ?? belowHashes[i]))
      matchesOfRow.push(belowMatches[i] || belowMatches[i + 1] === true)
    }
    rows.push({ hashes: hashesOfRow, matches: matchesOfRow })
  }

  const hashes: Array<Uint8Array> = []
  const flags: Array<number> = []
  let flagCount = 0
  const visit = (height: number, index: number): void => {
    const row = rows[height]
    const matched = row.matches[index]
    if ((flagCount & 7) === 0) flags.push(0)
    if (matched) flags[flags.length - 1] |= 1 << (flagCount & 7)
    flagCount++
    if (height === 0 || !matched) hashes.push(row.hashes[index])
    else {
      visit(height - 1, index * 2)
      if (index * 2 + 1 < rows[height - 1].hashes.length) visit(height - 1, index * 2 + 1)
    }
  }
  const transactionCount = rows[0].hashes.length
  if (transactionCount > 0) visit(rows.length - 1, 0)
  return {
    merkleBlock: { _tag: "merkleblock", header: block.header, transactionCount, hashes, flags: Uint8Array.from(flags) },
    transactions
  }
}
