/**
 * Mines a regtest chain in memory. Bitcoin Core accepts its blocks: they have proof of work, coinbases, merkle roots and witness
 * commitments. Anyone can spend the coins. A test or a demo serves such a chain (`ServingPeer`) where it has no node to connect to.
 *
 * The same start time gives the same chain, byte for byte.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Hex from "effect/encoding/Hex"
import * as Result from "effect/Result"
import * as Network from "../Network.ts"
import * as Wire from "../Wire.ts"

/**
 * A chain of blocks and their hashes, both by height.
 *
 * @category models
 * @since 0.1.0
 */
export interface Chain {
  readonly blocks: ReadonlyArray<Wire.Block>
  readonly hashes: ReadonlyArray<Uint8Array>
}

/**
 * The network of these chains: `Network.regtest`.
 *
 * @category constants
 * @since 0.1.0
 */
export const network: Network.Network = Network.regtest

const zeros = new Uint8Array(32)
const fromHex = (hex: string): Uint8Array => Result.getOrThrow(Hex.decode(hex))

// ---- rules

/**
 * The target of every block, in the compact form of headers. It is the easiest one: half of all hashes meet it.
 *
 * @category constants
 * @since 0.1.0
 */
export const bits = 0x207fffff

/**
 * The block subsidy at a height, in satoshi. It halves every 150 blocks on regtest.
 *
 * @category getters
 * @since 0.1.0
 */
export const subsidy = (height: number): number => Math.floor(50_0000_0000 / 2 ** Math.floor(height / 150))

/**
 * The maturity of a coinbase, in blocks: the block at height `h + coinbaseMaturity` may spend the coinbase at height `h`.
 *
 * @category constants
 * @since 0.1.0
 */
export const coinbaseMaturity = 100

/**
 * Whether the hash of a header meets the target in the header. The hash is read as a number of 256 bits, lowest byte first.
 *
 * @category predicates
 * @since 0.1.0
 */
export const hasProofOfWork = (header: Wire.BlockHeader, hash: Uint8Array = Wire.blockHash(header)): boolean => {
  const target = new Uint8Array(32)
  const exponent = header.bits >>> 24
  for (let i = 0; i < 3; i++) target[exponent - 3 + i] = header.bits >>> (8 * i)
  for (let i = 31; i >= 0; i--) if (hash[i] !== target[i]) return hash[i] < target[i]
  return true
}

/** The beginning of the output that commits to the witnesses of a block: OP_RETURN, a push of 36 bytes, a tag (BIP141). */
const commitmentPrefix = fromHex("6a24aa21a9ed")

/** The commitment (BIP141): the root of all wtxids, where the coinbase counts as zeros, hashed with the witness of the coinbase. */
const commitmentTo = (others: Iterable<Wire.Transaction>): Uint8Array =>
  // The merkle root of two hashes is the double SHA-256 of both.
  Wire.merkleRoot([Wire.merkleRoot([zeros, ...Array.from(others, Wire.wtxid)]), zeros])

const hasWitness = (transaction: Wire.Transaction): boolean =>
  Array.from(transaction.inputs).some(({ witness }) => witness.length > 0)

// ---- transactions

/**
 * The script `OP_TRUE`. An output with it can be spent with an empty script.
 *
 * @category constants
 * @since 0.1.0
 */
export const anyone = Uint8Array.of(0x51)

/**
 * A pay-to-witness-script-hash output script (BIP141) for the witness script `OP_TRUE`. To spend it, put `anyone` in the witness.
 *
 * @category constants
 * @since 0.1.0
 */
export const anyoneWithWitness = fromHex("00204ae81572f06e1b88fd5ced7a1a000945432e83e1551e6f721ee9c00b8cc33260")

/**
 * An output that can be spent, and its outpoint.
 *
 * @category models
 * @since 0.1.0
 */
export interface Coin {
  readonly outPoint: Wire.OutPoint
  readonly output: Wire.TransactionOutput
}

/**
 * The output of a transaction at an index; the first one by default. Throws a `RangeError` if it does not exist.
 *
 * @category constructors
 * @since 0.1.0
 */
export const coinOf = (transaction: Wire.Transaction, index = 0): Coin => {
  const output = transaction.outputs.at(index)
  if (output === undefined) throw new RangeError(`the transaction has no output ${index}`)
  return { outPoint: { txid: Wire.txid(transaction), index }, output }
}

/**
 * A transaction that moves a coin to a script, by default to `anyoneWithWitness`. The coin is one that anyone can spend. The fee is
 * in satoshi, 0 by default: Bitcoin Core mines such a transaction in a block and does not accept it for relay. 1,000 suffice there.
 *
 * @category constructors
 * @since 0.1.0
 */
export const spend = (coin: Coin, script: Uint8Array = anyoneWithWitness, fee = 0): Wire.Transaction => ({
  version: 2,
  inputs: [
    {
      previousOutput: coin.outPoint,
      script: new Uint8Array(0),
      sequence: 0xffffffff,
      witness: Wire.hashEquals(coin.output.script, anyoneWithWitness) ? [anyone] : []
    }
  ],
  outputs: [{ value: coin.output.value - fee, script }],
  lockTime: 0
})

/** The script of a coinbase: the height (BIP34), and one more byte, because the script must have at least two. */
const heightScript = (height: number): Uint8Array => {
  if (height <= 16) return Uint8Array.of(0x50 + height, 0)
  const bytes: Array<number> = []
  for (let rest = height; rest > 0; rest >>>= 8) bytes.push(rest & 0xff)
  // The highest bit is the sign.
  if (bytes.at(-1)! >= 0x80) bytes.push(0)
  return Uint8Array.of(bytes.length, ...bytes, 0)
}

/** The bytes of a number after the height in the coinbase: they make blocks of one height different. */
const nonceScript = (nonce: number): Uint8Array =>
  nonce === 0
    ? new Uint8Array(0)
    : Uint8Array.of(4, nonce & 0xff, (nonce >>> 8) & 0xff, (nonce >>> 16) & 0xff, nonce >>> 24)

const coinbase = (height: number, others: ReadonlyArray<Wire.Transaction>, nonce: number): Wire.Transaction => {
  const commits = others.some(hasWitness)
  const outputs = [{ value: subsidy(height), script: anyone }]
  if (commits) outputs.push({ value: 0, script: Uint8Array.of(...commitmentPrefix, ...commitmentTo(others)) })
  const previousOutput = { txid: zeros, index: 0xffffffff }
  const witness = commits ? [zeros] : []
  return {
    version: 2,
    inputs: [
      {
        previousOutput,
        script: Uint8Array.of(...heightScript(height), ...nonceScript(nonce)),
        sequence: 0xffffffff,
        witness
      }
    ],
    outputs,
    lockTime: 0
  }
}

// ---- blocks

/**
 * The first block of every regtest chain.
 *
 * @category constants
 * @since 0.1.0
 */
export const genesis: Wire.Block = {
  header: {
    version: 1,
    previousBlock: zeros,
    merkleRoot: Wire.hashFromHex("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"),
    timestamp: 1296688602,
    bits,
    nonce: 2
  },
  transactions: [
    {
      version: 1,
      inputs: [
        {
          previousOutput: { txid: zeros, index: 0xffffffff },
          script: Uint8Array.of(
            ...fromHex("04ffff001d010445"),
            ...new TextEncoder().encode("The Times 03/Jan/2009 Chancellor on brink of second bailout for banks")
          ),
          sequence: 0xffffffff,
          witness: []
        }
      ],
      outputs: [
        {
          value: 50_0000_0000,
          script: fromHex(
            "4104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac"
          )
        }
      ],
      lockTime: 0
    }
  ]
}

/**
 * Mines the next block of a chain: its coinbase, then the transactions. The chain is not changed.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 * import { RegtestChain } from "effect-bitcoin-peer/testing"
 *
 * const { genesis } = RegtestChain
 * const chain = { blocks: [genesis], hashes: [Wire.blockHash(genesis.header)] }
 * const block = RegtestChain.mineBlock(chain, { timestamp: genesis.header.timestamp + 600 })
 * console.log(RegtestChain.hasProofOfWork(block.header)) // true
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const mineBlock = (
  chain: Chain,
  options: {
    /** In seconds. Later than that of most of the last eleven blocks, as in every chain. */
    readonly timestamp: number
    readonly transactions?: ReadonlyArray<Wire.Transaction> | undefined
    /** A number in the coinbase, of 32 bits: another one makes another block at the same height. 0 by default. */
    readonly extraNonce?: number | undefined
  }
): Wire.Block => {
  const others = options.transactions ?? []
  const transactions = [coinbase(chain.blocks.length, others, options.extraNonce ?? 0), ...others]
  const header = {
    version: 0x20000000,
    previousBlock: chain.hashes.at(-1) ?? zeros,
    merkleRoot: Wire.merkleRoot(transactions.map(Wire.txid)),
    timestamp: options.timestamp,
    bits,
    nonce: 0
  }
  while (!hasProofOfWork(header)) header.nonce++
  return { header, transactions }
}

/**
 * The chain of the genesis block alone.
 *
 * @category constants
 * @since 0.1.0
 */
export const start: Chain = { blocks: [genesis], hashes: [Wire.blockHash(genesis.header)] }

/**
 * The transactions of the next block of a chain that `mineChain` mines: as soon as coinbases are mature, every fourth block spends one to
 * `anyoneWithWitness`, and in the same block spends that output again, with a witness.
 *
 * @category constructors
 * @since 0.1.0
 */
export const usualTransactions = (chain: Chain): ReadonlyArray<Wire.Transaction> => {
  const height = chain.blocks.length
  if (height <= coinbaseMaturity || height % 4 !== 0) return []
  const move = spend(coinOf(chain.blocks[height - coinbaseMaturity]!.transactions.at(0)!))
  return [move, spend(coinOf(move))]
}

/**
 * How blocks are added to a chain.
 *
 * @category options
 * @since 0.1.0
 */
export interface ExtendOptions {
  /** The same seed gives the same blocks; another one gives others. An integer of 32 bits, 0 by default. */
  readonly seed?: number | undefined
  /** Seconds between two blocks; 600 by default. */
  readonly interval?: number | undefined
  /** The transactions of the next block of the chain, without its coinbase. None by default; `usualTransactions` has some. */
  readonly transactions?: ((chain: Chain) => ReadonlyArray<Wire.Transaction>) | undefined
}

/**
 * Mines `count` blocks on top of a chain and returns the longer chain; the given one is not changed. A block takes some 100 µs.
 *
 * @example
 * ```ts
 * import { RegtestChain } from "effect-bitcoin-peer/testing"
 *
 * const chain = RegtestChain.extend(RegtestChain.start, 20)
 * // The same start, then three blocks in place of the last two: a reorganisation for a node that follows the longest chain.
 * const other = RegtestChain.fork(chain, 18, 3, { seed: 1 })
 * console.log(other.blocks.length - 1, RegtestChain.forkHeight(chain, other)) // 21 18
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const extend = (chain: Chain, count: number, options: ExtendOptions = {}): Chain => {
  const { interval = 600, seed = 0, transactions } = options
  const blocks = [...chain.blocks]
  const hashes = [...chain.hashes]
  const longer: Chain = { blocks, hashes }
  for (let i = 0; i < count; i++) {
    const timestamp = blocks.at(-1)!.header.timestamp + interval
    const block = mineBlock(longer, { timestamp, extraNonce: seed, transactions: transactions?.(longer) })
    blocks.push(block)
    hashes.push(Wire.blockHash(block.header))
  }
  return longer
}

/**
 * Mines `count` blocks on top of the block at a height, and returns that chain. With a seed that was not used before, the blocks differ
 * from those of the given chain. Throws a `RangeError` for a height that the chain does not have.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fork = (chain: Chain, height: number, count: number, options: ExtendOptions = {}): Chain => {
  if (!Number.isInteger(height) || height < 0 || height >= chain.blocks.length) {
    throw new RangeError(`the chain has no block at height ${height}; its tip is at ${chain.blocks.length - 1}`)
  }
  return extend(
    { blocks: chain.blocks.slice(0, height + 1), hashes: chain.hashes.slice(0, height + 1) },
    count,
    options
  )
}

/**
 * The height of the last block that two chains have in common; -1 if they have none.
 *
 * @category getters
 * @since 0.1.0
 */
export const forkHeight = (one: Chain, other: Chain): number => {
  let height = 0
  while (
    height < one.hashes.length &&
    height < other.hashes.length &&
    Wire.hashEquals(one.hashes[height]!, other.hashes[height]!)
  ) {
    height++
  }
  return height - 1
}

/**
 * Mines `count` blocks after the genesis block, ten minutes apart; the last one has the current time.
 *
 * As soon as coinbases are mature, every fourth block spends one to `anyoneWithWitness`, and in the same block spends that output
 * again, with a witness. Yields to other fibers every hundred blocks.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { RegtestChain } from "effect-bitcoin-peer/testing"
 *
 * export const program = Effect.gen(function*() {
 *   const chain = yield* RegtestChain.mineChain(300)
 *   console.log(chain.blocks.length) // 301, with the genesis block
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const mineChain = Effect.fnUntraced(function* (count: number): Effect.fn.Return<Chain> {
  const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
  const blocks = [genesis]
  const hashes = [Wire.blockHash(genesis.header)]
  const chain: Chain = { blocks, hashes }
  for (let height = 1; height <= count; height++) {
    // With a clock before 2011, as in tests, the timestamps still increase.
    const timestamp = Math.max(now - (count - height) * 600, genesis.header.timestamp + height)
    const block = mineBlock(chain, { timestamp, transactions: usualTransactions(chain) })
    blocks.push(block)
    hashes.push(Wire.blockHash(block.header))
    if (height % 100 === 0) yield* Effect.yieldNow
  }
  return chain
})
