/** Mutated blocks: whether transactions and witnesses match the header, by the rules of Core's `IsBlockMutated`. */
import { assert, describe, it } from "@effect/vitest"
import { Block, CompactBlock, Network, Wire } from "effect-bitcoin-peer"
import * as Result from "effect/Result"
import * as Regtest from "effect-bitcoin-peer/testing/RegtestChain"
import { decoded, encoded } from "./support/generators.ts"
import { blocks, readBlock } from "./support/vectors.ts"

const zeros = new Uint8Array(32)
const { segwitHeight } = Network.mainnet
/** Heights just before and at the activation of BIP141 on mainnet. */
const before = Uint8Array.of(3, 0x17, 0x5a, 0x07)
const active = Uint8Array.of(3, 0x20, 0x5a, 0x07)

const spending = (lockTime: number, witness: ReadonlyArray<Uint8Array> = []): Wire.Transaction => ({
  version: 2,
  inputs: [{ previousOutput: { txid: zeros, index: 7 }, script: new Uint8Array(0), sequence: 0, witness }],
  outputs: [{ value: 1, script: Uint8Array.of(0x51) }],
  lockTime
})
const withoutWitness = [spending(0), spending(1)]
const withWitness = [spending(0), spending(1, [Uint8Array.of(1)])]

const headed = (transactions: ReadonlyArray<Wire.Transaction>): Wire.Block => ({
  header: {
    version: 4,
    previousBlock: zeros,
    merkleRoot: Wire.merkleRoot(transactions.map(Wire.txid)),
    timestamp: 0,
    bits: 1,
    nonce: 0
  },
  transactions
})

interface Coinbase {
  readonly script?: Uint8Array
  readonly commits?: boolean
  readonly reserved?: ReadonlyArray<Uint8Array>
}

/** A block with this coinbase and correct commitments. */
const blockOf = (others: ReadonlyArray<Wire.Transaction>, { commits, reserved = [], script = active }: Coinbase) => {
  const root = Wire.merkleRoot([zeros, ...others.map(Wire.wtxid)])
  const commitment = Uint8Array.of(0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed, ...Wire.merkleRoot([root, zeros]))
  const coinbase: Wire.Transaction = {
    version: 1,
    inputs: [{ previousOutput: { txid: zeros, index: 0xffffffff }, script, sequence: 0, witness: reserved }],
    outputs: [{ value: 1, script: Uint8Array.of(0x51) }, ...(commits ? [{ value: 0, script: commitment }] : [])],
    lockTime: 0
  }
  return headed([coinbase, ...others])
}

describe("the witnesses of a block", () => {
  const committed = { commits: true, reserved: [zeros] }
  const cases: ReadonlyArray<
    readonly [
      name: string,
      block: Wire.Block,
      atHeight: Block.Mutation | undefined,
      bySight: Block.Mutation | undefined
    ]
  > = [
    ["no witness, no commitment", blockOf(withoutWitness, {}), undefined, undefined],
    ["witnesses with their commitment", blockOf(withWitness, committed), undefined, undefined],
    ["only the coinbase witness, with a commitment", blockOf(withoutWitness, committed), undefined, undefined],
    ["witnesses without a commitment", blockOf(withWitness, {}), "UnexpectedWitness", "UnexpectedWitness"],
    [
      "only the coinbase witness, without a commitment",
      blockOf([], { reserved: [zeros] }),
      "UnexpectedWitness",
      "UnexpectedWitness"
    ],
    [
      "witnesses without the coinbase witness",
      blockOf(withWitness, { commits: true }),
      "NoReservedValue",
      "NoReservedValue"
    ],
    [
      "a reserved value of 31 bytes",
      blockOf(withWitness, { commits: true, reserved: [new Uint8Array(31)] }),
      "NoReservedValue",
      "NoReservedValue"
    ],
    [
      "two reserved values",
      blockOf(withWitness, { commits: true, reserved: [zeros, zeros] }),
      "NoReservedValue",
      "NoReservedValue"
    ],
    [
      "a wrong reserved value",
      blockOf(withWitness, { commits: true, reserved: [new Uint8Array(32).fill(1)] }),
      "OtherWitnesses",
      "OtherWitnesses"
    ],
    // Only the height distinguishes a block whose witnesses were removed from one before the activation of segregated witness.
    [
      "all witnesses removed, after activation",
      blockOf(withoutWitness, { commits: true }),
      "NoReservedValue",
      undefined
    ],
    ["no witness, before activation", blockOf(withoutWitness, { commits: true, script: before }), undefined, undefined],
    // A coinbase without a height is checked by the contents of the block alone.
    [
      "no witness, no height in the coinbase",
      blockOf(withoutWitness, { commits: true, script: Uint8Array.of(0xff) }),
      undefined,
      undefined
    ],
    [
      "witnesses, before activation",
      blockOf(withWitness, { ...committed, script: before }),
      "UnexpectedWitness",
      undefined
    ]
  ]

  for (const [name, block, atHeight, bySight] of cases) {
    it(`${name}: ${atHeight ?? "not mutated"}; with unknown activation height: ${bySight ?? "not mutated"}`, () => {
      assert.strictEqual(Block.mutation(block, { segwitHeight }), atHeight)
      assert.strictEqual(Block.mutation(block), bySight)
      assert.strictEqual(Block.isMutated(block, { segwitHeight }), atHeight !== undefined)
      // The same block decoded from a message.
      const received = (decoded("block", encoded({ _tag: "block", block })) as Wire.BlockMessage).block
      assert.strictEqual(Block.mutation(received, { segwitHeight }), atHeight)
    })
  }

  it("are checked against the last commitment of the coinbase", () => {
    const { header, transactions } = blockOf(withWitness, committed)
    const [coinbase, ...others] = transactions
    const outputs = Array.from(coinbase.outputs)
    const wrong = { value: 0, script: outputs[1].script.with(20, outputs[1].script[20] ^ 1) }
    const of = (...commitments: ReadonlyArray<Wire.TransactionOutput>) =>
      Block.mutation({ ...headed([{ ...coinbase, outputs: commitments }, ...others]) })
    assert.strictEqual(header.version, 4)
    assert.isUndefined(of(wrong, outputs[1]))
    assert.strictEqual(of(outputs[1], wrong), "OtherWitnesses")
  })

  it("are not hashed if the caller gives their wtxids", () => {
    const block = blockOf(withWitness, committed)
    const wtxids = [undefined, Wire.wtxid(withWitness[0]), zeros]
    assert.strictEqual(Block.mutation(block, { wtxids }), "OtherWitnesses")
  })
})

describe("the transactions of a block", () => {
  it("give OtherTransactions if one is missing, added or moved", () => {
    const block = blockOf(withoutWitness, {})
    const all = Array.from(block.transactions)
    for (const transactions of [all.slice(0, -1), [...all, spending(9)], [all[0], all[2], all[1]]]) {
      assert.strictEqual(Block.mutation({ ...block, transactions }), "OtherTransactions")
    }
  })

  it("give RepeatedTransactions if the end of an odd list is repeated, which keeps the merkle root (CVE-2012-2459)", () => {
    const block = blockOf(withoutWitness, {})
    const transactions = [...block.transactions, Array.from(block.transactions).at(-1)!]
    assert.deepStrictEqual(headed(transactions).header, block.header)
    assert.strictEqual(Block.mutation({ ...block, transactions }), "RepeatedTransactions")
  })

  it("give NoCoinbase if the first is not a coinbase, also for a 64-byte transaction that looks like two hashes", () => {
    assert.strictEqual(Block.mutation(headed([])), "NoCoinbase")
    assert.strictEqual(Block.mutation(headed(withoutWitness)), "NoCoinbase")
    // A transaction of 64 bytes could also be two hashes of the merkle tree.
    const sixtyFour = { ...spending(0), outputs: [{ value: 1, script: new Uint8Array(4) }] }
    assert.strictEqual(Wire.transactionSize(sixtyFour), 64)
    assert.strictEqual(Block.mutation(headed([sixtyFour])), "NoCoinbase")
  })
})

describe("the height of a block", () => {
  it("is the number that its coinbase pushes first (BIP34)", () => {
    const of = (...script: ReadonlyArray<number>) => Block.height(blockOf([], { script: Uint8Array.from(script) }))
    assert.deepStrictEqual([of(0x51, 0), of(0x60, 0), of(0, 0)], [1, 16, 0])
    assert.deepStrictEqual([of(1, 17), of(2, 0x80, 0), of(3, 0x17, 0x5a, 7)], [17, 128, 481_815])
    // A negative number, a truncated push, a too long one, no push, and an empty script.
    for (const script of [[1, 0x80], [3, 1, 2], [5, 1, 1, 1, 1, 1], [0xac], []]) assert.isUndefined(of(...script))
    assert.isUndefined(Block.height(headed(withoutWitness)))
  })
})

describe("a compact block", () => {
  it("is rebuilt for a block with a commitment but no witness, such as mainnet's 481,815", () => {
    const block = blockOf(withoutWitness, { commits: true, script: before })
    const message = Result.getOrThrow(CompactBlock.make(block, { nonce: 1n }))
    for (const options of [{}, { segwitHeight }]) {
      const rebuilt = Result.getOrThrow(CompactBlock.rebuild(message, withoutWitness, options))
      assert.strictEqual(rebuilt._tag, "Complete")
    }
    const part = Result.getOrThrow(CompactBlock.rebuild(message, []))
    assert(part._tag === "Incomplete")
    const answer = Result.getOrThrow(CompactBlock.answer(block, part.request))
    assert.isTrue(Result.isSuccess(CompactBlock.complete(part, answer, { segwitHeight })))
    const later = Result.getOrThrow(CompactBlock.make(blockOf(withoutWitness, { commits: true }), { nonce: 1n }))
    assert.isTrue(Result.isFailure(CompactBlock.rebuild(later, withoutWitness, { segwitHeight })))
  })
})

describe("the txids of a block", () => {
  it("are computed once for a decoded block, and each time for one that can change", () => {
    const block = blockOf(withWitness, {})
    const decodedBlock = (decoded("block", encoded({ _tag: "block", block })) as Wire.BlockMessage).block
    const expected = Array.from(block.transactions, Wire.txid)
    for (const each of [block, decodedBlock]) assert.deepStrictEqual(Block.txids(each), expected)
    assert.strictEqual(Block.txids(decodedBlock), Block.txids(decodedBlock))
    const transactions = Array.from(block.transactions)
    const changing = { ...block, transactions }
    assert.deepStrictEqual(Block.txids(changing), expected)
    transactions.pop()
    assert.deepStrictEqual(Block.txids(changing), expected.slice(0, -1))
  })
})

describe("blocks of RegtestChain", () => {
  it("are not mutated, with witnesses and without", () => {
    const chain = { blocks: [Regtest.genesis], hashes: [Wire.blockHash(Regtest.genesis.header)] }
    for (const transactions of [[], withoutWitness, withWitness]) {
      const block = Regtest.mineBlock(chain, { timestamp: 1_700_000_000, transactions })
      assert.isUndefined(Block.mutation(block, { segwitHeight: 0 }))
      assert.strictEqual(Block.height(block), 1)
    }
  })
})

describe("real blocks", () => {
  for (const { file, witness } of blocks) {
    it(`${file} is not mutated, but is mutated if it has witnesses and they are removed`, () => {
      const { block } = decoded("block", readBlock(file)) as Wire.BlockMessage
      const segwitHeight = file === "block928816" || file === "block898352" ? Network.testnet3.segwitHeight : 481_824
      assert.isUndefined(Block.mutation(block, { segwitHeight }))
      const cut = Array.from(block.transactions, (transaction) => ({
        ...transaction,
        inputs: Array.from(transaction.inputs, (input) => ({ ...input, witness: [] }))
      }))
      const expected = witness ? "NoReservedValue" : undefined
      assert.strictEqual(Block.mutation({ ...block, transactions: cut }, { segwitHeight }), expected)
    })
  }
})
