/** Whether a block is the one that its header commits to, by the rules of Bitcoin Core's `IsBlockMutated`. */
import { assert, describe, it } from "@effect/vitest"
import { Block, CompactBlock, Network, Wire } from "effect-bitcoin-peer"
import * as Result from "effect/Result"
import * as Regtest from "effect-bitcoin-peer/testing/RegtestChain"
import { decoded, encoded } from "./support/generators.ts"
import { blocks, readBlock } from "./support/vectors.ts"

const zeros = new Uint8Array(32)
const { segwitHeight } = Network.mainnet
/** Just before and at mainnet's activation of BIP141. */
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

/** A block with this coinbase; what it commits to is right. */
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
    ["none, no commitment", blockOf(withoutWitness, {}), undefined, undefined],
    ["some, with their commitment", blockOf(withWitness, committed), undefined, undefined],
    ["that of the coinbase alone, with a commitment", blockOf(withoutWitness, committed), undefined, undefined],
    ["some, without a commitment", blockOf(withWitness, {}), "UnexpectedWitness", "UnexpectedWitness"],
    ["of the coinbase, no commitment", blockOf([], { reserved: [zeros] }), "UnexpectedWitness", "UnexpectedWitness"],
    ["some, none of the coinbase", blockOf(withWitness, { commits: true }), "NoReservedValue", "NoReservedValue"],
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
      "another reserved value",
      blockOf(withWitness, { commits: true, reserved: [new Uint8Array(32).fill(1)] }),
      "OtherWitnesses",
      "OtherWitnesses"
    ],
    // Only the height distinguishes these two: a block without its witnesses, and a block older than segregated witness.
    ["all cut off, after activation", blockOf(withoutWitness, { commits: true }), "NoReservedValue", undefined],
    ["none, before activation", blockOf(withoutWitness, { commits: true, script: before }), undefined, undefined],
    // Without a height, the block itself decides.
    ["none, no height", blockOf(withoutWitness, { commits: true, script: Uint8Array.of(0xff) }), undefined, undefined],
    ["some, before activation", blockOf(withWitness, { ...committed, script: before }), "UnexpectedWitness", undefined]
  ]

  for (const [name, block, atHeight, bySight] of cases) {
    it(`${name}: ${atHeight ?? "not mutated"}; height unknown: ${bySight ?? "not mutated"}`, () => {
      assert.strictEqual(Block.mutation(block, { segwitHeight }), atHeight)
      assert.strictEqual(Block.mutation(block), bySight)
      assert.strictEqual(Block.isMutated(block, { segwitHeight }), atHeight !== undefined)
      // As it came from the network.
      const received = (decoded("block", encoded({ _tag: "block", block })) as Wire.BlockMessage).block
      assert.strictEqual(Block.mutation(received, { segwitHeight }), atHeight)
    })
  }

  it("are those of the coinbase's last commitment", () => {
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

  it("are not hashed where their wtxids are given", () => {
    const block = blockOf(withWitness, committed)
    const wtxids = [undefined, Wire.wtxid(withWitness[0]), zeros]
    assert.strictEqual(Block.mutation(block, { wtxids }), "OtherWitnesses")
  })
})

describe("the transactions of a block", () => {
  it("are others than the header commits to where one is changed, missing or too many", () => {
    const block = blockOf(withoutWitness, {})
    const all = Array.from(block.transactions)
    for (const transactions of [all.slice(0, -1), [...all, spending(9)], [all[0], all[2], all[1]]]) {
      assert.strictEqual(Block.mutation({ ...block, transactions }), "OtherTransactions")
    }
  })

  it("repeat where the end of an odd list is doubled, which keeps the merkle root (CVE-2012-2459)", () => {
    const block = blockOf(withoutWitness, {})
    const transactions = [...block.transactions, Array.from(block.transactions).at(-1)!]
    assert.deepStrictEqual(headed(transactions).header, block.header)
    assert.strictEqual(Block.mutation({ ...block, transactions }), "RepeatedTransactions")
  })

  it("begin with a coinbase, so that none of 64 bytes can be read as two hashes of the tree", () => {
    assert.strictEqual(Block.mutation(headed([])), "NoCoinbase")
    assert.strictEqual(Block.mutation(headed(withoutWitness)), "NoCoinbase")
    // A transaction of 64 bytes, which could be two hashes of the tree.
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
    // Negative, cut off, too large, no number, and nothing at all.
    for (const script of [[1, 0x80], [3, 1, 2], [5, 1, 1, 1, 1, 1], [0xac], []]) assert.isUndefined(of(...script))
    assert.isUndefined(Block.height(headed(withoutWitness)))
  })
})

describe("a compact block", () => {
  it("of a block with a commitment but no witness is the block, as that of mainnet's 481,815", () => {
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

describe("blocks mined here", () => {
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
    it(`${file} is not mutated, and is once its witnesses are cut off where it has some`, () => {
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
