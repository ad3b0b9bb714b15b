/**
 * Compact blocks (BIP152, version 2): a block as the short ids of its transactions, and back, from the transactions that
 * are there already.
 *
 * `make` gives the `cmpctblock` for a block. Who receives it calls `rebuild` with its mempool and has the block, or an
 * `Incomplete` whose `request` asks the sender for the rest; `complete` takes the answer. Who sent it answers with
 * `answer`. What can go wrong is a `CompactBlockError`: either the sender misbehaved, or it was bad luck and the whole
 * block has to be asked for. Pure; nothing here looks at proof of work, or at what the transactions do.
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

/** Why a block could not be rebuilt, or a question about one not be answered. */
export type CompactBlockReason =
  /** The message stands for no block, or asks for what is in none: the peer misbehaves. */
  | { readonly _tag: "Invalid"; readonly problem: string }
  /** A `blocktxn` has more or fewer transactions than were asked for: the peer misbehaves. */
  | { readonly _tag: "WrongCount"; readonly expected: number; readonly received: number }
  /** The answer is about another block than the question. Ignore it, the right one may still come. */
  | { readonly _tag: "OtherBlock"; readonly expected: Uint8Array; readonly received: Uint8Array }
  /** Two transactions of the block have the same short id, by chance: ask for the whole block. */
  | { readonly _tag: "ShortIdCollision"; readonly shortId: number }
  /**
   * The header, or the coinbase for the witnesses, commits to other transactions: one of the pool has the short id of
   * another by chance, or the peer sent wrong ones, which cannot be told apart. Ask for the whole block.
   */
  | { readonly _tag: "Mutated"; readonly problem: string }

const describe = (reason: CompactBlockReason): string => {
  switch (reason._tag) {
    case "Invalid":
    case "Mutated":
      return reason.problem
    case "WrongCount":
      return `${reason.received} transactions came, ${reason.expected} were asked for`
    case "OtherBlock":
      return `the answer is about block ${Wire.hashToHex(reason.received)}, not ${Wire.hashToHex(reason.expected)}`
    case "ShortIdCollision":
      return `two transactions have the short id ${reason.shortId.toString(16).padStart(12, "0")}`
  }
}

/** A compact block that led to no block. */
export class CompactBlockError extends Data.TaggedError("CompactBlockError")<{ readonly reason: CompactBlockReason }> {
  override get message(): string {
    return describe(this.reason)
  }

  /** Whether no honest peer sends such a message. Otherwise the whole block is to be asked for. */
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
 * The function that gives the short id, 48 bits, of a transaction by its wtxid, for the messages with this header and
 * nonce: SipHash-2-4 whose key is the SHA-256 of both.
 *
 * Throws a `WireError` for a header that cannot be encoded, which a decoded one never is.
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

// ---- the side that has the block

/** How a block is made compact. */
export interface MakeOptions {
  /** 64 random bits, for this block alone: so nobody can make transactions whose short ids collide. */
  readonly nonce: bigint
  /** Places of transactions, beside the coinbase, that the peer most likely has not got; 10 KB in all at most [152]. */
  readonly prefilled?: Iterable<number> | undefined
}

/**
 * The `cmpctblock` that stands for a block. The coinbase is prefilled, and what the options say.
 *
 * Fails with `BadValue` for a block without transactions, a place outside of the block and what cannot be encoded, with
 * `TooMany` for more than 65,535 transactions.
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
 */
export const make = (block: Wire.Block, options: MakeOptions): Result.Result<Wire.CmpctBlock, Wire.WireError> =>
  attempt(() => {
    const { header } = block
    const transactions = Array.from(block.transactions)
    const count = transactions.length
    const limit = Wire.maxCompactTransactions
    if (count === 0) refuse({ _tag: "BadValue", field: "prefilled", problem: "has no coinbase" })
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
 * The `blocktxn` that answers a `getblocktxn` about this block. Fails with `OtherBlock`, and with `Invalid` for a place that
 * is not in the block: the peer misbehaves.
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
    if (transaction === undefined) return fail({ _tag: "Invalid", problem: `no transaction ${index} in the block` })
    transactions.push(transaction)
  }
  return Result.succeed({ _tag: "blocktxn", blockHash, transactions })
}

// ---- the side that wants it

/** A transaction whose wtxid is known: hashing is most of the work of `rebuild`. */
export interface PoolEntry {
  /** 32 bytes, wire order. Taken for right: with a wrong one the witnesses of a rebuilt block are not known to be right. */
  readonly wtxid: Uint8Array
  readonly transaction: Wire.Transaction
}

/** Where transactions are looked for: a mempool, and what else is at hand. The same one may come twice. */
export type Pool = Iterable<Wire.Transaction | PoolEntry>

/** A block some of whose transactions have to be asked for. */
export interface Incomplete {
  readonly _tag: "Incomplete"
  readonly header: Wire.BlockHeader
  /** To be sent to whoever sent the compact block. */
  readonly request: Wire.GetBlockTxn
  /** In the order of the block, with the wtxid where it is known; `undefined` at the places that `request` names. */
  readonly found: ReadonlyArray<Found | undefined>
}

/** A transaction of the block that is there. */
export interface Found {
  readonly transaction: Wire.Transaction
  readonly wtxid: Uint8Array | undefined
}

/** What became of a compact block. */
export type Rebuilt = { readonly _tag: "Complete"; readonly block: Wire.Block } | Incomplete

/**
 * How a rebuilt block is checked, see `Block.CheckOptions`.
 *
 * @category options
 * @since 0.1.0
 */
export type CheckOptions = Pick<Block.CheckOptions, "segwitHeight">

/** The short ids in rising order, each with its place in the block. */
interface Wanted {
  readonly ids: Float64Array
  readonly places: Uint16Array
}

/**
 * Where an id is in a sorted list, or -1. The hash of a `Map` has no secret: 16,000 ids made to share a bucket take 0.5 s
 * to put into one, where honest ones take 2 ms, and four times as many take sixteen times as long.
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

/** Puts the prefilled transactions at their places. */
const prefill = (message: Wire.CmpctBlock, found: Array<Found | undefined>): CompactBlockReason | undefined => {
  let last = -1
  for (const { index, transaction } of message.prefilled) {
    if (transaction.inputs.length === 0 && transaction.outputs.length === 0) {
      return { _tag: "Invalid", problem: `the prefilled transaction ${index} is empty` }
    }
    if (index <= last || index >= found.length) {
      return { _tag: "Invalid", problem: `no place ${index} for a prefilled transaction` }
    }
    last = index
    found[index] = { transaction, wtxid: undefined }
  }
  return undefined
}

/** The short ids fill the places that are free, in order. */
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

/** Two different transactions of the pool with one short id leave its place empty, for it is unknown which one is meant. */
const fillFrom = (
  pool: Pool,
  shortId: (wtxid: Uint8Array) => number,
  wanted: Wanted,
  found: Array<Found | undefined>
) => {
  const { ids, places } = wanted
  const collided = new Set<number>()
  let missing = ids.length
  // As in Core, nobody looks for collisions once all is there: the merkle root tells.
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
 * The block that a `cmpctblock` stands for, from the transactions of a pool; or what has to be asked for.
 *
 * A complete block is the one that the header commits to, and so does its coinbase to the witnesses [141]. Fails with
 * `Invalid` (the peer misbehaves), `ShortIdCollision` and `Mutated` (ask for the whole block), as in Bitcoin Core. Time
 * and memory are bounded by the sizes of the message and of the pool, whatever is in the message: about 1 µs an
 * entry of the pool, and 5 more where its wtxid is not given.
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
 * The block, with the transactions that were missing: from the `blocktxn` that answers the request, or from the whole
 * block, which a node may send in its place. The state can be completed again, for instance with another's answer.
 *
 * Fails with `OtherBlock` (not the answer), `WrongCount` (the peer misbehaves) and `Mutated` (ask for the whole block).
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { CompactBlock, type Wire } from "effect-bitcoin-peer"
 *
 * export const blockOf = (incomplete: CompactBlock.Incomplete, answer: Wire.BlockTxn): Wire.Block | undefined =>
 *   Result.getOrElse(CompactBlock.complete(incomplete, answer), () => undefined)
 * ```
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

// ---- what a header commits to

/** The block, if it is the one that its header commits to, as in Core. */
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
