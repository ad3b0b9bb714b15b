/**
 * Mines a regtest chain in memory: blocks that Bitcoin Core takes, with proof of work, coinbases, merkle roots and
 * witness commitments, and transactions that anyone can spend. Something to serve, without a node to ask for it.
 *
 * The same start time gives the same chain, byte for byte.
 */
import { Clock, Effect } from "effect"
import { Network, Wire } from "effect-bitcoin-peer"

/** The best chain that somebody knows, by height. */
export interface Chain {
  readonly blocks: ReadonlyArray<Wire.Block>
  readonly hashes: ReadonlyArray<Uint8Array>
}

const zeros = new Uint8Array(32)
const fromHex = (hex: string): Uint8Array =>
  Uint8Array.from({ length: hex.length / 2 }, (_, index) => Number.parseInt(hex.slice(index * 2, index * 2 + 2), 16))
const startsWith = (bytes: Uint8Array, prefix: Uint8Array): boolean =>
  prefix.every((byte, index) => bytes[index] === byte)

/** Whether two hashes are the same. */
export const sameHash = (one: Uint8Array, other: Uint8Array): boolean =>
  one.length === other.length && startsWith(one, other)

// ---- rules

/** The easiest proof of work there is: about every second hash has it. */
export const bits = 0x207fffff

/** What the miner may pay to itself, in satoshi. Regtest halves it every 150 blocks. */
export const subsidy = (height: number): number => Math.floor(50_0000_0000 / 2 ** Math.floor(height / 150))

/** So many blocks must follow a coinbase, itself included, before it can be spent. */
export const coinbaseMaturity = 100

/** Whether the hash of a header, a number of 256 bits with its lowest byte first, is at most the target it claims. */
export const hasProofOfWork = (header: Wire.BlockHeader, hash: Uint8Array = Wire.blockHash(header)): boolean => {
  const target = new Uint8Array(32)
  const exponent = header.bits >>> 24
  for (let i = 0; i < 3; i++) target[exponent - 3 + i] = header.bits >>> (8 * i)
  for (let i = 31; i >= 0; i--) if (hash[i] !== target[i]) return hash[i] < target[i]
  return true
}

/** Whether the header covers exactly the transactions of the block. */
export const hasMerkleRoot = ({ header, transactions }: Wire.Block): boolean =>
  sameHash(header.merkleRoot, Wire.merkleRoot(Array.from(transactions, Wire.txid)))

/** How the output of a coinbase starts that commits to the witnesses of its block: OP_RETURN, 36 bytes, a tag [141]. */
const commitmentPrefix = fromHex("6a24aa21a9ed")

/** The root of all witnesses, in which the coinbase counts as zeros, hashed with the coinbase's own witness [141]. */
const commitmentTo = (others: Iterable<Wire.Transaction>, reserved: Uint8Array): Uint8Array =>
  // A merkle root over two hashes is the double SHA-256 of them both.
  Wire.merkleRoot([Wire.merkleRoot([zeros, ...Array.from(others, Wire.wtxid)]), reserved])

const hasWitness = (transaction: Wire.Transaction): boolean =>
  Array.from(transaction.inputs).some(({ witness }) => witness.length > 0)

/**
 * Whether the coinbase commits to the witnesses of the block [141]: "none" when there is nothing to commit to, "wrong"
 * also when witnesses come without commitment.
 */
export const witnessCommitment = (block: Wire.Block): "right" | "wrong" | "none" => {
  const [coinbase, ...others] = block.transactions
  const commitments = Array.from(coinbase.outputs).filter(({ script }) => startsWith(script, commitmentPrefix))
  const commitment = commitments.at(-1)?.script.subarray(commitmentPrefix.length, commitmentPrefix.length + 32)
  if (commitment === undefined) return others.some(hasWitness) ? "wrong" : "none"
  const reserved = coinbase.inputs.at(0)?.witness.at(0)
  return reserved?.length === 32 && sameHash(commitment, commitmentTo(others, reserved)) ? "right" : "wrong"
}

// ---- transactions

/** OP_TRUE: needs nothing to be spent. */
export const anyone = Uint8Array.of(0x51)
/** Version 0, and the SHA-256 of a script that has to come with the witness: OP_TRUE again [141]. */
export const anyoneWithWitness = fromHex("00204ae81572f06e1b88fd5ced7a1a000945432e83e1551e6f721ee9c00b8cc33260")

/** An output that can be spent, and where it is. */
export interface Coin {
  readonly outPoint: Wire.OutPoint
  readonly output: Wire.TransactionOutput
}

/** The output of a transaction at an index, 0 where none is given. */
export const coinOf = (transaction: Wire.Transaction, index = 0): Coin => {
  const output = transaction.outputs.at(index)
  if (output === undefined) throw new RangeError(`the transaction has no output ${index}`)
  return { outPoint: { txid: Wire.txid(transaction), index }, output }
}

/** Moves a coin, less the fee, to a script: to `anyoneWithWitness` unless told otherwise. */
export const spend = (coin: Coin, script: Uint8Array = anyoneWithWitness, fee = 0): Wire.Transaction => ({
  version: 2,
  inputs: [
    {
      previousOutput: coin.outPoint,
      script: new Uint8Array(0),
      sequence: 0xffffffff,
      witness: sameHash(coin.output.script, anyoneWithWitness) ? [anyone] : []
    }
  ],
  outputs: [{ value: coin.output.value - fee, script }],
  lockTime: 0
})

/** The height as the first thing in the script of a coinbase [34], and a byte more, for it needs two at least. */
const heightScript = (height: number): Uint8Array => {
  if (height <= 16) return Uint8Array.of(0x50 + height, 0)
  const bytes: Array<number> = []
  for (let rest = height; rest > 0; rest >>>= 8) bytes.push(rest & 0xff)
  // The highest bit is the sign.
  if (bytes.at(-1)! >= 0x80) bytes.push(0)
  return Uint8Array.of(bytes.length, ...bytes, 0)
}

const coinbase = (height: number, others: ReadonlyArray<Wire.Transaction>): Wire.Transaction => {
  const commits = others.some(hasWitness)
  const outputs = [{ value: subsidy(height), script: anyone }]
  if (commits) {
    outputs.push({ value: 0, script: Uint8Array.of(...commitmentPrefix, ...commitmentTo(others, zeros)) })
  }
  const previousOutput = { txid: zeros, index: 0xffffffff }
  const witness = commits ? [zeros] : []
  return {
    version: 2,
    inputs: [{ previousOutput, script: heightScript(height), sequence: 0xffffffff, witness }],
    outputs,
    lockTime: 0
  }
}

// ---- blocks

/** The block that every regtest chain starts with. */
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

/** Mines the next block of a chain: its coinbase and the transactions. The chain stays as it was. */
export const mineBlock = (
  chain: Chain,
  options: { readonly timestamp: number; readonly transactions?: ReadonlyArray<Wire.Transaction> }
): Wire.Block => {
  const others = options.transactions ?? []
  const transactions = [coinbase(chain.blocks.length, others), ...others]
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
 * Mines so many blocks on top of the genesis block, ten minutes apart, the last one now. As soon as there are coinbases
 * to spend, every fourth block moves one to `anyoneWithWitness` and, in the same block, on from there.
 *
 * @example
 * ```ts
 * const chain = yield* mineChain(300)
 * console.log(chain.blocks.length) // 301: the genesis block is there as well
 * ```
 */
export const mineChain = Effect.fnUntraced(function* (count: number): Effect.fn.Return<Chain> {
  const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
  const blocks = [genesis]
  const hashes = [Wire.blockHash(genesis.header)]
  const chain: Chain = { blocks, hashes }
  for (let height = 1; height <= count; height++) {
    const transactions: Array<Wire.Transaction> = []
    if (height > coinbaseMaturity && height % 4 === 0) {
      const move = spend(coinOf(blocks[height - coinbaseMaturity].transactions.at(0)!))
      transactions.push(move, spend(coinOf(move)))
    }
    // A clock before 2011, such as a test's, still gives a chain whose time goes forward.
    const timestamp = Math.max(now - (count - height) * 600, genesis.header.timestamp + height)
    const block = mineBlock(chain, { timestamp, transactions })
    blocks.push(block)
    hashes.push(Wire.blockHash(block.header))
    // So long a computation shall not hold up the other fibers.
    if (height % 100 === 0) yield* Effect.yieldNow
  }
  return chain
})

/** The network of these blocks. */
export const network: Network.Network = Network.regtest
