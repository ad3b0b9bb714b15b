/**
 * Compact blocks (BIP152, version 2): makes a block into short transaction ids, and rebuilds it from transactions that the receiver
 * has already.
 *
 * The sender makes a `cmpctblock` with `make`. The receiver calls `rebuild` with its mempool, and gets the block or an `Incomplete`,
 * whose `request` asks the sender for the missing transactions. The sender answers that with `answer`, and the receiver gives the
 * answer to `complete`. A failure is a `CompactBlockError`: either the peer misbehaved, or a short id collided by chance and the
 * receiver asks for the whole block. Pure and synchronous; proof of work and the validity of transactions are not checked.
 */
import * as Data from "effect/Data"
import * as Result from "effect/Result"
import * as Block from "./Block.ts"
import { Writer } from "./wire/writer.ts"
import { writeHeader } from "./wire/messages/block.ts"
import { sha256 } from "./primitives/sha256.ts"
import { sipHash, sipKey } from "./primitives/siphash.ts"
import { attempt } from "./wire/fail.ts"
import * as Wire from "./Wire.ts"

/**
 * Why a block was not rebuilt, or a `getblocktxn` not answered.
 *
 * @category errors
 * @since 0.1.0
 */
export type CompactBlockReason =
  /** The message cannot stand for a block, or asks for an index that the block does not have: the peer misbehaves. */
  | { readonly _tag: "Invalid"; readonly problem: string }
  /** A `blocktxn` has more or fewer transactions than the request: the peer misbehaves. */
  | { readonly _tag: "WrongCount"; readonly expected: number; readonly received: number }
  /** The answer is about another block than the request. Ignore it: the right answer may still come. */
  | { readonly _tag: "OtherBlock"; readonly expected: Uint8Array; readonly received: Uint8Array }
  /** Two transactions of the block have the same short id, by chance: ask for the whole block. */
  | { readonly _tag: "ShortIdCollision"; readonly shortId: number }
  /**
   * The block is not the one that its header commits to, see `Block.Mutation`: a transaction of the pool has the short id of
   * another one by chance, or the peer sent wrong transactions; the two cases cannot be told apart. Request the whole block.
   */
  | { readonly _tag: "Mutated"; readonly problem: string }

const describe = (reason: CompactBlockReason): string => {
  switch (reason._tag) {
    case "Invalid":
    case "Mutated":
      return reason.problem
    case "WrongCount":
      return `the answer has ${reason.received} transactions instead of ${reason.expected}`
    case "OtherBlock":
      return `the answer is about block ${Wire.hashToHex(reason.received)}, not ${Wire.hashToHex(reason.expected)}`
    case "ShortIdCollision":
      return `two transactions have the short id ${reason.shortId.toString(16).padStart(12, "0")}`
  }
}

/**
 * The error of a compact block that did not give a block.
 *
 * @category errors
 * @since 0.1.0
 */
export class CompactBlockError extends Data.TaggedError("CompactBlockError")<{ readonly reason: CompactBlockReason }> {
  override get message(): string {
    return describe(this.reason)
  }

  /** Whether the peer misbehaved: an honest peer never sends such a message. If false, request the whole block. */
  get misbehaved(): boolean {
    return this.reason._tag === "Invalid" || this.reason._tag === "WrongCount"
  }
}

const fail = (reason: CompactBlockReason): Result.Result<never, CompactBlockError> =>
  Result.fail(new CompactBlockError({ reason }))

const refuse = (reason: Wire.WireReason): never => {
  throw new Wire.WireError({ command: "cmpctblock", reason })
}

// ---- short ids

/**
 * Makes the function from a wtxid to the short id of 48 bits in a message with this header and nonce: SipHash-2-4 with the SHA-256 of
 * both as key.
 *
 * Throws a `WireError` for a header that cannot be encoded; a decoded header always can.
 *
 * @example
 * ```ts
 * import { CompactBlock } from "effect-bitcoin-peer"
 *
 * const zeros = new Uint8Array(32)
 * const header = { version: 1, previousBlock: zeros, merkleRoot: zeros, timestamp: 0, bits: 1, nonce: 0 }
 * const shortId = CompactBlock.shortIds(header, 7n)
 * console.log(shortId(zeros) === CompactBlock.shortIds(header, 8n)(zeros)) // false
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const shortIds = (header: Wire.BlockHeader, nonce: bigint): ((wtxid: Uint8Array) => number) => {
  const writer = new Writer(88)
  writer.begin("cmpctblock")
  writeHeader(writer, header)
  writer.u64(nonce, "nonce")
  const key = sipKey(sha256(writer.bytes))
  const hash = new Uint32Array(2)
  return (wtxid) => {
    sipHash(key, wtxid, hash)
    return (hash[1] & 0xffff) * 0x100000000 + hash[0]
  }
}

// ---- the sender of the block

/**
 * How `make` makes a block compact.
 *
 * @category options
 * @since 0.1.0
 */
export interface MakeOptions {
  /** 64 random bits, for this message only, so that an attacker cannot make transactions with colliding short ids. */
  readonly nonce: bigint
  /** Indexes of transactions, beside the coinbase, that the peer probably lacks: at most 10 KB together (BIP152). */
  readonly prefilled?: Iterable<number> | undefined
}

/**
 * The `cmpctblock` of a block, with the coinbase and the transactions of `options.prefilled` in full.
 *
 * Fails with `BadValue` for a block without transactions, an index outside the block and fields that cannot be encoded, and
 * with `TooMany` for more than 65,535 transactions.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { CompactBlock, Wire } from "effect-bitcoin-peer"
 *
 * const zeros = new Uint8Array(32)
 * const coinbase: Wire.Transaction = {
 *   version: 1,
 *   inputs: [{ previousOutput: { txid: zeros, index: 0xffffffff }, script: zeros, sequence: 0, witness: [] }],
 *   outputs: [{ value: 50_0000_0000, script: Uint8Array.of(0x51) }],
 *   lockTime: 0
 * }
 * const merkleRoot = Wire.txid(coinbase)
 * const header = { version: 1, previousBlock: zeros, merkleRoot, timestamp: 0, bits: 1, nonce: 0 }
 * const message = Result.getOrThrow(CompactBlock.make({ header, transactions: [coinbase] }, { nonce: 7n }))
 * console.log(message.shortIds.length, message.prefilled.length) // 0 1
 * console.log(Result.getOrThrow(CompactBlock.rebuild(message, []))._tag) // Complete
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (block: Wire.Block, options: MakeOptions): Result.Result<Wire.CmpctBlock, Wire.WireError> =>
  attempt(() => {
    const { header } = block
    const transactions = Array.from(block.transactions)
    const count = transactions.length
    const limit = Wire.maxCompactTransactions
    if (count === 0) refuse({ _tag: "BadValue", field: "prefilled", problem: "lacks the coinbase" })
    if (count > limit) refuse({ _tag: "TooMany", field: "shortIds", count, limit })
    const whole = new Set([0, ...(options.prefilled ?? [])])
    for (const index of whole) {
      if (transactions[index] === undefined) {
        refuse({ _tag: "BadValue", field: "prefilled.index", problem: `is not in the block: ${index}` })
      }
    }
    const shortId = shortIds(header, options.nonce)
    const ids: Array<number> = []
    const prefilled: Array<Wire.PrefilledTransaction> = []
    for (const [index, transaction] of transactions.entries()) {
      if (whole.has(index)) prefilled.push({ index, transaction })
      else ids.push(shortId(Wire.wtxid(transaction)))
    }
    return { _tag: "cmpctblock", header, nonce: options.nonce, shortIds: ids, prefilled }
  })

/**
 * The `blocktxn` that answers a `getblocktxn` about this block. Fails with `OtherBlock`, and with `Invalid` for an index that the
 * block does not have: the peer misbehaves.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { CompactBlock, type Peer, type Wire } from "effect-bitcoin-peer"
 *
 * export const handlers = (tip: Wire.Block): Peer.Handlers => ({
 *   getblocktxn: (request, peer) =>
 *     Effect.fromResult(CompactBlock.answer(tip, request)).pipe(
 *       Effect.flatMap(peer.send),
 *       Effect.catchTag("CompactBlockError", (error) => (error.misbehaved ? peer.disconnect(error.message) : Effect.void))
 *     )
 * })
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const answer = (
  block: Wire.Block,
  request: Wire.GetBlockTxn
): Result.Result<Wire.BlockTxn, CompactBlockError> => {
  const { blockHash, indexes } = request
  const expected = Wire.blockHash(block.header)
  if (!Wire.hashEquals(blockHash, expected)) return fail({ _tag: "OtherBlock", expected, received: blockHash })
  const transactions: Array<Wire.Transaction> = []
  for (const index of indexes) {
    const transaction = block.transactions.at(index)
    if (transaction === undefined) return fail({ _tag: "Invalid", problem: `the block has no transaction ${index}` })
    transactions.push(transaction)
  }
  return Result.succeed({ _tag: "blocktxn", blockHash, transactions })
}

// ---- the receiver of the block

/**
 * A transaction with its wtxid, which saves `rebuild` most of its work.
 *
 * @category models
 * @since 0.1.0
 */
export interface PoolEntry {
  /** 32 bytes in wire order. It is not checked: with a wrong one, a rebuilt block may have other witnesses. */
  readonly wtxid: Uint8Array
  readonly transaction: Wire.Transaction
}

/**
 * The transactions to rebuild a block from: a mempool and others. The same transaction may occur twice.
 *
 * @category models
 * @since 0.1.0
 */
export type Pool = Iterable<Wire.Transaction | PoolEntry>

/**
 * A block that lacks transactions, and the request for them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Incomplete {
  readonly _tag: "Incomplete"
  readonly header: Wire.BlockHeader
  /** The message to send to the peer that sent the compact block. */
  readonly request: Wire.GetBlockTxn
  /** The transactions in the order of the block; `undefined` at the indexes of `request`. */
  readonly found: ReadonlyArray<Found | undefined>
}

/**
 * A transaction of the block, with its wtxid where it is known.
 *
 * @category models
 * @since 0.1.0
 */
export interface Found {
  readonly transaction: Wire.Transaction
  readonly wtxid: Uint8Array | undefined
}

/**
 * The result of `rebuild`.
 *
 * @category models
 * @since 0.1.0
 */
export type Rebuilt = { readonly _tag: "Complete"; readonly block: Wire.Block } | Incomplete

/**
 * How a rebuilt block is checked, see `Block.CheckOptions`.
 *
 * @category options
 * @since 0.1.0
 */
export type CheckOptions = Pick<Block.CheckOptions, "segwitHeight">

/** The short ids in rising order, each with its index in the block. */
interface Wanted {
  readonly ids: Float64Array
  readonly places: Uint16Array
}

/**
 * The position of an id in a sorted list, or -1. A `Map` would be open to attack, since its hash has no secret: 16,000 ids made to
 * share a bucket take 0.5 s to insert, where honest ones take 2 ms, and four times as many take sixteen times as long.
 */
const search = (ids: Float64Array, id: number): number => {
  let from = 0
  let to = ids.length - 1
  while (from <= to) {
    const middle = (from + to) >>> 1
    const value = ids[middle]!
    if (value === id) return middle
    if (value < id) from = middle + 1
    else to = middle - 1
  }
  return -1
}

/** Puts the prefilled transactions at their indexes. */
const prefill = (message: Wire.CmpctBlock, found: Array<Found | undefined>): CompactBlockReason | undefined => {
  let last = -1
  for (const { index, transaction } of message.prefilled) {
    if (transaction.inputs.length === 0 && transaction.outputs.length === 0) {
      return { _tag: "Invalid", problem: `prefilled transaction ${index} is empty` }
    }
    if (index <= last || index >= found.length) {
      return { _tag: "Invalid", problem: `the block has no index ${index} for a prefilled transaction` }
    }
    last = index
    found[index] = { transaction, wtxid: undefined }
  }
  return undefined
}

/** The short ids with the indexes that are left, in order. */
const wantedOf = (message: Wire.CmpctBlock, found: ReadonlyArray<unknown>): Wanted | CompactBlockReason => {
  const ids = Float64Array.from(message.shortIds).toSorted()
  for (let i = 1; i < ids.length; i++) {
    if (ids[i] === ids[i - 1]) return { _tag: "ShortIdCollision", shortId: ids[i]! }
  }
  const places = new Uint16Array(ids.length)
  let place = 0
  for (const id of message.shortIds) {
    while (found[place] !== undefined) place++
    places[search(ids, id)] = place++
  }
  return { ids, places }
}

/** Fills in transactions of the pool. If two different ones have the same short id, both are left out: either may be right. */
const fillFrom = (
  pool: Pool,
  shortId: (wtxid: Uint8Array) => number,
  wanted: Wanted,
  found: Array<Found | undefined>
) => {
  const { ids, places } = wanted
  const collided = new Set<number>()
  let missing = ids.length
  // As in Core, the search ends once nothing is missing. The merkle root shows whether a transaction was wrong.
  if (missing === 0) return
  for (const entry of pool) {
    const known = "wtxid" in entry ? entry : { transaction: entry, wtxid: Wire.wtxid(entry) }
    const at = search(ids, shortId(known.wtxid))
    if (at < 0) continue
    const place = places[at]!
    const before = found[place]
    if (before !== undefined) {
      if (Wire.hashEquals(before.wtxid!, known.wtxid)) continue
      found[place] = undefined
      collided.add(place)
      missing++
    } else if (!collided.has(place)) {
      found[place] = known
      if (--missing === 0) return
    }
  }
}

/**
 * Rebuilds the block of a `cmpctblock` from the transactions of a pool, or gives the request for the missing ones.
 *
 * A complete block was checked by `Block.mutation`: its transactions and witnesses are those that the header commits to. Fails, as
 * in Bitcoin Core, with `Invalid` (the peer misbehaves), `ShortIdCollision` or `Mutated` (ask for the whole block). The sizes of
 * message and pool bound time and memory for any contents: about 1 µs for each entry of the pool, and 5 µs more if its wtxid is
 * not given. With `options.segwitHeight`, a coinbase that commits to witnesses must have its own, from that height on.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { CompactBlock, type Peer, type Wire } from "effect-bitcoin-peer"
 *
 * const mempool: Array<Wire.Transaction> = []
 * export const handlers: Peer.Handlers = {
 *   cmpctblock: Effect.fnUntraced(function*(message, peer) {
 *     const rebuilt = yield* Effect.fromResult(CompactBlock.rebuild(message, mempool))
 *     if (rebuilt._tag === "Complete") return rebuilt.block
 *     const { blockHash, indexes } = rebuilt.request
 *     const rest = yield* peer.getBlockTransactions(blockHash, indexes)
 *     return yield* Effect.fromResult(CompactBlock.complete(rebuilt, rest))
 *   })
 * }
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const rebuild = (
  message: Wire.CmpctBlock,
  pool: Pool,
  options: CheckOptions = {}
): Result.Result<Rebuilt, CompactBlockError> => {
  const { header, nonce } = message
  const count = message.shortIds.length + message.prefilled.length
  if (count === 0) return fail({ _tag: "Invalid", problem: "a block without transactions" })
  if (count > Wire.maxCompactTransactions) return fail({ _tag: "Invalid", problem: `${count} transactions in a block` })
  if (header.bits === 0) return fail({ _tag: "Invalid", problem: "a header without a target" })
  const found: Array<Found | undefined> = Array.from({ length: count }, () => undefined)
  const problem = prefill(message, found)
  if (problem !== undefined) return fail(problem)
  const wanted = wantedOf(message, found)
  if ("_tag" in wanted) return fail(wanted)
  fillFrom(pool, shortIds(header, nonce), wanted, found)
  const indexes: Array<number> = []
  for (let index = 0; index < count; index++) if (found[index] === undefined) indexes.push(index)
  if (indexes.length === 0) {
    return Result.map(checked(header, found as Array<Found>, options), (block) => ({ _tag: "Complete", block }))
  }
  const request: Wire.GetBlockTxn = { _tag: "getblocktxn", blockHash: Wire.blockHash(header), indexes }
  return Result.succeed({ _tag: "Incomplete", header, request, found })
}

/**
 * Completes a block with the missing transactions, from the `blocktxn` that answers the request, or from the whole block, which a
 * node may send instead. An `Incomplete` can be completed again, with the answer of another peer.
 *
 * Fails with `OtherBlock` (this is not the answer), `WrongCount` (the peer misbehaves) or `Mutated` (ask for the whole block).
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { CompactBlock, type Wire } from "effect-bitcoin-peer"
 *
 * export const blockOf = (incomplete: CompactBlock.Incomplete, answer: Wire.BlockTxn): Wire.Block | undefined =>
 *   Result.getOrElse(CompactBlock.complete(incomplete, answer), () => undefined)
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const complete = (
  { found, header, request }: Incomplete,
  answer: Wire.BlockTxn | Wire.BlockMessage,
  options: CheckOptions = {}
): Result.Result<Wire.Block, CompactBlockError> => {
  const expected = request.blockHash
  const received = answer._tag === "block" ? Wire.blockHash(answer.block.header) : answer.blockHash
  if (!Wire.hashEquals(received, expected)) return fail({ _tag: "OtherBlock", expected, received })
  if (answer._tag === "block") {
    return checked(
      header,
      Array.from(answer.block.transactions, (transaction) => ({ transaction, wtxid: undefined })),
      options
    )
  }
  const { indexes } = request
  const { transactions } = answer
  if (transactions.length !== indexes.length) {
    return fail({ _tag: "WrongCount", expected: indexes.length, received: transactions.length })
  }
  const all = found.slice()
  let next = 0
  for (const transaction of transactions) all[indexes.at(next++)!] = { transaction, wtxid: undefined }
  return checked(header, all as Array<Found>, options)
}

/** The block, if it is the one that its header commits to. */
const checked = (
  header: Wire.BlockHeader,
  all: ReadonlyArray<Found>,
  { segwitHeight }: CheckOptions
): Result.Result<Wire.Block, CompactBlockError> => {
  const block = { header, transactions: all.map(({ transaction }) => transaction) }
  const mutation = Block.mutation(block, { segwitHeight, wtxids: all.map(({ wtxid }) => wtxid) })
  return mutation === undefined
    ? Result.succeed(block)
    : fail({ _tag: "Mutated", problem: Block.describeMutation(mutation) })
}
