/** Chains that are mined in memory: valid by the rules of their network, deterministic, with forks. */
import { assert, describe, it } from "@effect/vitest"
import { Block, Wire } from "effect-bitcoin-peer"
import { RegtestChain } from "effect-bitcoin-peer/testing"

const { anyone, coinOf, extend, fork, forkHeight, spend, start } = RegtestChain

const assertValid = (chain: RegtestChain.Chain): void => {
  for (const [height, block] of chain.blocks.entries()) {
    assert.deepStrictEqual(chain.hashes[height], Wire.blockHash(block.header))
    assert.isTrue(RegtestChain.hasProofOfWork(block.header))
    const txids = Array.from(block.transactions, (transaction) => Wire.txid(transaction))
    assert.deepStrictEqual(block.header.merkleRoot, Wire.merkleRoot(txids))
    if (height > 0) assert.deepStrictEqual(block.header.previousBlock, chain.hashes[height - 1])
  }
}

describe("RegtestChain", () => {
  it("extends a chain and leaves it as it was", () => {
    const chain = extend(start, 10)
    assert.strictEqual(start.blocks.length, 1)
    assert.strictEqual(chain.blocks.length, 11)
    assertValid(chain)
    const times = chain.blocks.map(({ header }) => header.timestamp - RegtestChain.genesis.header.timestamp)
    assert.deepStrictEqual(times.slice(0, 4), [0, 600, 1200, 1800])
  })

  it("gives the same blocks for the same seed, and others for another one", () => {
    assert.deepStrictEqual(extend(start, 5, { seed: 7 }), extend(start, 5, { seed: 7 }))
    assert.strictEqual(forkHeight(extend(start, 5, { seed: 7 }), extend(start, 5, { seed: 8 })), 0)
    assert.deepStrictEqual(extend(extend(start, 2), 3), extend(start, 5))
  })

  it("forks at a height", () => {
    const chain = extend(start, 20)
    const other = fork(chain, 17, 4, { seed: 0xfffffffe })
    assertValid(other)
    assert.strictEqual(other.blocks.length, 22)
    assert.strictEqual(forkHeight(chain, other), 17)
    assert.strictEqual(forkHeight(chain, fork(chain, 20, 2)), 20)
    for (const height of [-1, 21, 1.5]) assert.throws(() => fork(chain, height, 1), /no block at height/)
  })

  it("mines the transactions that it is given, and commits to their witnesses", () => {
    const funded = extend(start, 101)
    const coin = coinOf(funded.blocks[1]!.transactions.at(0)!)
    const first = spend(coin)
    const second = spend(coinOf(first), anyone)
    const chain = extend(funded, 1, { transactions: () => [first, second] })
    assertValid(chain)
    const block = chain.blocks.at(-1)!
    assert.strictEqual(block.transactions.length, 3)
    assert.isUndefined(Block.mutation(block))
    const usual = extend(start, 120, { transactions: RegtestChain.usualTransactions })
    assertValid(usual)
    assert.deepStrictEqual(
      usual.blocks.slice(100).map(({ transactions }) => transactions.length),
      [1, 1, 1, 1, 3, 1, 1, 1, 3, 1, 1, 1, 3, 1, 1, 1, 3, 1, 1, 1, 3]
    )
  })
})
