/**
 * Checks that a block is the one that its header commits to, and reads its height. Pure and synchronous; proof of work and the
 * validity of transactions are not checked.
 *
 * A block with other transactions or witnesses than its header commits to is *mutated*: a node changed it in transit. This does
 * not make the block with this hash invalid: another peer may still send the right one (CVE-2024-52921).
 */
import { doubleSha256 } from "./primitives/sha256.ts"
import { merkleTree, TransactionList } from "./wire/messages/block.ts"
import { coinbaseInput, hasWitness } from "./wire/messages/transaction.ts"
import * as Wire from "./Wire.ts"

/**
 * Why a block is mutated.
 *
 * @category models
 * @since 0.1.0
 */
export type Mutation =
  /**
   * The first transaction is not a coinbase: no such block is valid. Only in such a block can a transaction of 64 bytes be
   * read as two hashes of the merkle tree for less than 2^224 of work.
   */
  | "NoCoinbase"
  /** The merkle root of the transactions is not the one in the header. */
  | "OtherTransactions"
  /** Transactions repeat in a way that keeps the merkle root (CVE-2012-2459). */
  | "RepeatedTransactions"
  /** The coinbase commits to witnesses (BIP141), but does not have the required witness of one item of 32 bytes. */
  | "NoReservedValue"
  /** The coinbase commits to other witnesses (BIP141). */
  | "OtherWitnesses"
  /** Transactions have witnesses, but the coinbase has no commitment to them. */
  | "UnexpectedWitness"

const descriptions: { readonly [M in Mutation]: string } = {
  NoCoinbase: "the first transaction is not a coinbase",
  OtherTransactions: "the header commits to other transactions",
  RepeatedTransactions: "the block repeats transactions",
  NoReservedValue: "the coinbase has a commitment without its witness",
  OtherWitnesses: "the coinbase commits to other witnesses",
  UnexpectedWitness: "the block has witnesses without a commitment"
}

/**
 * A mutation in words, for a person.
 *
 * @category getters
 * @since 0.1.0
 */
export const describeMutation = (mutation: Mutation): string => descriptions[mutation]

/**
 * How a block is checked.
 *
 * @category options
 * @since 0.1.0
 */
export interface CheckOptions {
  /**
   * The first height with segregated witness: `Network.segwitHeight`, or 0. From this height on, a commitment to witnesses is
   * checked; below it, no transaction may have a witness. The height is the one in the coinbase (BIP34), which cannot be changed
   * without changing the merkle root.
   *
   * If left out, a block without any witness passes, with any commitment in its coinbase. Such a block is from before segregated
   * witness, or was requested without witnesses (`InventoryType.block`).
   */
  readonly segwitHeight?: number | undefined
  /** Known wtxids, by index in the block. They are not checked, and save hashing, which is most of the work. */
  readonly wtxids?: ReadonlyArray<Uint8Array | undefined> | undefined
}

const zeros = new Uint8Array(32)

/** The beginning of the script that commits to the witnesses: OP_RETURN, a push of 36 bytes, a tag (BIP141). */
const commitmentPrefix = Uint8Array.of(0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed)
const commitmentSize = 38

const startsWith = (bytes: Uint8Array, prefix: Uint8Array): boolean => {
  for (let i = 0; i < prefix.length; i++) if (bytes[i] !== prefix[i]) return false
  return true
}

/** The hash to which the coinbase commits, in the last of its outputs that has one. */
const commitmentOf = (coinbase: Wire.Transaction): Uint8Array | undefined => {
  let commitment: Uint8Array | undefined
  for (const { script } of coinbase.outputs) {
    if (script.length >= commitmentSize && startsWith(script, commitmentPrefix)) {
      commitment = script.subarray(commitmentPrefix.length, commitmentSize)
    }
  }
  return commitment
}

/** The number that a script pushes first; `undefined` unless it has at most 4 bytes and is not negative. */
const pushedNumber = (script: Uint8Array): number | undefined => {
  const opcode = script[0]
  if (opcode === undefined) return undefined
  if (opcode > 0x50 && opcode <= 0x60) return opcode - 0x50
  if (opcode > 4 || script.length < 1 + opcode || (opcode > 0 && script[opcode]! >= 0x80)) return undefined
  let number = 0
  for (let i = opcode; i > 0; i--) number = number * 0x100 + script[i]!
  return number
}

/**
 * The height in the coinbase of a block (BIP34); `undefined` if it has no height.
 *
 * Blocks must have it from 227,931 on, on mainnet. In an older block, the number can be anything.
 *
 * @example
 * ```ts
 * import { Block } from "effect-bitcoin-peer"
 *
 * const header = { version: 4, previousBlock: new Uint8Array(32), merkleRoot: new Uint8Array(32), timestamp: 0, bits: 0, nonce: 0 }
 * const previousOutput = { txid: new Uint8Array(32), index: 0xffffffff }
 * const script = Uint8Array.of(3, 0x17, 0x5a, 0x07)
 * const coinbase = { version: 1, inputs: [{ previousOutput, script, sequence: 0, witness: [] }], outputs: [], lockTime: 0 }
 * console.log(Block.height({ header, transactions: [coinbase] })) // 481815
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const height = (block: Wire.Block): number | undefined => {
  const coinbase = block.transactions.at(0)
  const input = coinbase && coinbaseInput(coinbase)
  return input && pushedNumber(input.script)
}

/** In an array. It takes half the time of `Array.from`, which for a small block is as long as hashing. */
const arrayOf = (list: Wire.List<Wire.Transaction>): ReadonlyArray<Wire.Transaction> => {
  if (Array.isArray(list)) return list as ReadonlyArray<Wire.Transaction>
  const array: Array<Wire.Transaction> = []
  for (let i = 0; i < list.length; i++) array.push(list.at(i)!)
  return array
}

/** `transactions` are those of the list. */
const txidsOf = (
  list: Wire.List<Wire.Transaction>,
  transactions: ReadonlyArray<Wire.Transaction>
): ReadonlyArray<Uint8Array> =>
  list instanceof TransactionList ? (list.txids ??= transactions.map(Wire.txid)) : transactions.map(Wire.txid)

/**
 * The txids of all transactions of a block, in their order, each 32 bytes in wire order.
 *
 * For a decoded block they are computed once, which takes about 2 ms for each megabyte: a block that `mutation` or a peer has checked
 * has them already. For a block that was made by hand they are computed each time, because its list can change.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Block, type Peer, Wire } from "effect-bitcoin-peer"
 *
 * export const firstTxid = (peer: Peer.Peer, hash: Uint8Array) =>
 *   Effect.map(peer.getBlock(hash), (block) => Wire.hashToHex(Block.txids(block)[0]!))
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const txids = ({ transactions }: Wire.Block): ReadonlyArray<Uint8Array> =>
  txidsOf(transactions, arrayOf(transactions))

/** `input` is that of the coinbase. */
const witnessMutation = (
  transactions: ReadonlyArray<Wire.Transaction>,
  input: Wire.TransactionInput,
  txids: ReadonlyArray<Uint8Array>,
  { segwitHeight, wtxids }: CheckOptions
): Mutation | undefined => {
  const coinbase = transactions[0]!
  const hasAny = hasWitness(coinbase.inputs) || transactions.some(({ inputs }) => hasWitness(inputs))
  const commitment = commitmentOf(coinbase)
  const stated = segwitHeight === undefined ? undefined : pushedNumber(input.script)
  // Without a known height, a witness in the block shows that segregated witness is active.
  const isChecked = stated === undefined ? hasAny : stated >= segwitHeight!
  if (!isChecked || commitment === undefined) return hasAny ? "UnexpectedWitness" : undefined
  const reserved = input.witness.at(0)
  if (input.witness.length !== 1 || reserved?.length !== 32) return "NoReservedValue"
  // The coinbase counts as zeros. For a transaction without witness, the txid is the wtxid.
  const hashes = transactions.map((transaction, index) =>
    index === 0
      ? zeros
      : (wtxids?.[index] ?? (hasWitness(transaction.inputs) ? Wire.wtxid(transaction) : txids[index]!))
  )
  const both = new Uint8Array(64)
  both.set(merkleTree(hashes).root)
  both.set(reserved, 32)
  return Wire.hashEquals(doubleSha256(both), commitment) ? undefined : "OtherWitnesses"
}

/**
 * Why a block is not the one that its header commits to; `undefined` if it is.
 *
 * The rules are those of Bitcoin Core's `IsBlockMutated`, except that a block without coinbase is always mutated. Each transaction
 * is hashed once, and once more where it has a witness.
 *
 * @example
 * ```ts
 * import { Block, Network, Wire } from "effect-bitcoin-peer"
 *
 * const previousOutput = { txid: new Uint8Array(32), index: 0xffffffff }
 * const script = Uint8Array.of(0x51, 0)
 * const coinbase = { version: 1, inputs: [{ previousOutput, script, sequence: 0, witness: [] }], outputs: [], lockTime: 0 }
 * const header = { version: 4, previousBlock: new Uint8Array(32), merkleRoot: Wire.txid(coinbase), timestamp: 0, bits: 0, nonce: 0 }
 *
 * const { segwitHeight } = Network.mainnet
 * console.log(Block.mutation({ header, transactions: [coinbase] }, { segwitHeight })) // undefined
 * console.log(Block.mutation({ header, transactions: [{ ...coinbase, lockTime: 1 }] }, { segwitHeight })) // OtherTransactions
 * ```
 *
 * @category predicates
 * @since 0.1.0
 */
export const mutation = (block: Wire.Block, options: CheckOptions = {}): Mutation | undefined => {
  const transactions = arrayOf(block.transactions)
  const input = transactions[0] && coinbaseInput(transactions[0])
  if (input === undefined) return "NoCoinbase"
  const hashes = txidsOf(block.transactions, transactions)
  const { ambiguous, root } = merkleTree(hashes)
  if (!Wire.hashEquals(root, block.header.merkleRoot)) return "OtherTransactions"
  return ambiguous ? "RepeatedTransactions" : witnessMutation(transactions, input, hashes, options)
}

/**
 * Whether a block is not the one that its header commits to. `mutation` gives the reason.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isMutated = (block: Wire.Block, options?: CheckOptions): boolean => mutation(block, options) !== undefined
