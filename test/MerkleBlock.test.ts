/** Filtered blocks (BIP37): partial merkle trees, their proofs, and the proofs that are refused. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as MerkleBlock from "../src/MerkleBlock.ts"
import * as Wire from "../src/Wire.ts"
import { bytes, concat, decoded, encoded, integer, messages, plain, u32 } from "./support/generators.ts"
import { blocks, captures, readBlock, readCapture, readVector } from "./support/vectors.ts"

const noHash = new Uint8Array(32)

const transactionsOf = (count: number): ReadonlyArray<Wire.Transaction> =>
  Array.from({ length: count }, (_, lockTime) => ({ version: 1, inputs: [], outputs: [], lockTime }))

const blockOf = (transactions: ReadonlyArray<Wire.Transaction>): Wire.Block => ({
  header: {
    version: 1,
    previousBlock: noHash,
    merkleRoot: Wire.merkleRoot(transactions.map(Wire.txid)),
    timestamp: 0,
    bits: 0,
    nonce: 0
  },
  transactions
})

/** A block of `count` transactions, filtered for some of them. */
const filtered = (count: number, ...indexes: ReadonlyArray<number>): Wire.MerkleBlock =>
  MerkleBlock.make(blockOf(transactionsOf(count)), (_, __, index) => indexes.includes(index)).merkleBlock

const matchesOf = (message: Wire.MerkleBlock): ReadonlyArray<MerkleBlock.Match> =>
  Result.getOrThrow(MerkleBlock.verify(message))

const reasonOf = (message: Wire.MerkleBlock): MerkleBlock.MerkleBlockReason => {
  const result = MerkleBlock.verify(message)
  if (Result.isSuccess(result)) throw new Error("expected a MerkleBlockError")
  assert.match(result.failure.message, /^merkleblock: /)
  return result.failure.reason
}

describe("a filtered block", () => {
  // As in Core's pmt_tests.
  const counts = [1, 2, 3, 4, 7, 17, 56, 100, 127, 256, 312, 513, 1000, 4095]

  it.prop(
    "proves the chosen transactions, also after decoding, and proves nothing if one bit of a hash is changed",
    [integer(0, counts.length - 1), integer(0, 7), u32, u32],
    ([which, rarity, seed, damage]) => {
      const count = counts[which]
      let state = seed
      const indexes = new Set(
        Array.from({ length: count }, (_, index) => index).filter(() => {
          state = (Math.imul(state, 1664525) + 1013904223) >>> 0
          return state >>> 16 < 65536 >> rarity
        })
      )
      const block = blockOf(transactionsOf(count))
      const { merkleBlock, transactions } = MerkleBlock.make(block, (_, __, index) => indexes.has(index))
      const expected = Array.from(indexes, (index) => ({ index, txid: Wire.txid(transactionsOf(count)[index]) }))
      assert.deepStrictEqual(matchesOf(merkleBlock), expected)
      assert.deepStrictEqual(
        Array.from(transactions, ({ lockTime }) => lockTime),
        Array.from(indexes)
      )

      const payload = encoded(merkleBlock)
      assert.deepStrictEqual(plain(matchesOf(decoded("merkleblock", payload) as Wire.MerkleBlock)), expected)
      // The bound of Core's merkleblock.h, for the bytes after the header.
      const leaves = Math.min(count, 1 + indexes.size * (1 + Math.ceil(Math.log2(count))))
      assert.isAtMost(payload.length - 80, 10 + Math.ceil((258 * leaves) / 8))

      const hashes = Array.from(merkleBlock.hashes, (hash) => hash.slice())
      hashes[damage % hashes.length][damage & 31] ^= 1 << (damage >>> 29)
      return MerkleBlock.verify({ ...merkleBlock, hashes })._tag === "Failure"
    },
    { arbitrary: { runs: 60, seed: 1 } }
  )

  it("without a match has only the root", () => {
    const message = filtered(9)
    assert.strictEqual(message.transactionCount, 9)
    assert.deepStrictEqual(Array.from(message.hashes), [message.header.merkleRoot])
    assert.deepStrictEqual(message.flags, Uint8Array.of(0))
    assert.deepStrictEqual(matchesOf(message), [])
  })

  it("for the first of three transactions has the flags and hashes of BIP37, depth first", () => {
    const block = blockOf(transactionsOf(3))
    const [a, b, c] = transactionsOf(3).map(Wire.txid)
    const { merkleBlock } = MerkleBlock.make(block, (_, __, index) => index === 0)
    // The root, its left child and the first transaction match; the second transaction and the right child do not.
    assert.deepStrictEqual(merkleBlock.flags, Uint8Array.of(0b00111))
    assert.deepStrictEqual(Array.from(merkleBlock.hashes), [a, b, Wire.merkleRoot([c, c])])
  })

  it("calls the filter once for each transaction, in order, with its txid", () => {
    const asked: Array<readonly [number, Uint8Array, number]> = []
    MerkleBlock.make(blockOf(transactionsOf(5)), ({ lockTime }, txid, index) => {
      asked.push([lockTime, txid, index])
      return false
    })
    assert.deepStrictEqual(
      asked,
      transactionsOf(5).map((transaction, index) => [index, Wire.txid(transaction), index] as const)
    )
  })

  it("of a block without transactions can be made, and proves nothing", () => {
    assert.deepStrictEqual(reasonOf(filtered(0)), { _tag: "NoTransactions" })
  })
})

describe("verify refuses", () => {
  const message = filtered(7, 2, 6)

  it("a count of transactions that no block can have", () => {
    const most = { ...message, transactionCount: 16_666 }
    assert.notStrictEqual(reasonOf(most)._tag, "TooManyTransactions")
    for (const count of [16_667, 0xffffffff]) {
      assert.deepStrictEqual(reasonOf({ ...message, transactionCount: count }), {
        _tag: "TooManyTransactions",
        count,
        limit: 16_666
      })
    }
    assert.deepStrictEqual(reasonOf({ ...message, transactionCount: 0 }), { _tag: "NoTransactions" })
  })

  it("more hashes than transactions", () => {
    const hashes = Array.from({ length: 8 }, () => noHash)
    assert.deepStrictEqual(reasonOf({ ...message, hashes }), { _tag: "TooManyHashes", count: 8, limit: 7 })
  })

  it("too few or too many hashes", () => {
    const hashes = Array.from(message.hashes)
    assert.deepStrictEqual(reasonOf({ ...message, hashes: hashes.slice(0, -1) }), { _tag: "MissingHashes" })
    assert.deepStrictEqual(reasonOf({ ...message, hashes: [] }), { _tag: "MissingHashes" })
    assert.deepStrictEqual(reasonOf({ ...message, hashes: [...hashes, noHash] }), { _tag: "UnusedHashes", count: 1 })
  })

  it("too few or too many flags", () => {
    const { flags } = message
    assert.strictEqual(flags.length, 2)
    assert.deepStrictEqual(reasonOf({ ...message, flags: flags.subarray(0, 1) }), { _tag: "MissingFlags" })
    assert.deepStrictEqual(reasonOf({ ...message, flags: new Uint8Array(0) }), { _tag: "MissingFlags" })
    assert.deepStrictEqual(reasonOf({ ...message, flags: Uint8Array.of(...flags, 0) }), {
      _tag: "UnusedFlags",
      count: 1
    })
  })

  it("no message for nonzero padding bits in the last byte of flags, as in Core", () => {
    const flags = Uint8Array.from(message.flags, (byte, index) => (index === 1 ? byte | 0x80 : byte))
    assert.notDeepEqual(flags, message.flags)
    assert.deepStrictEqual(matchesOf({ ...message, flags }), matchesOf(message))
  })

  it("a root that is not the header's", () => {
    const header = { ...message.header, merkleRoot: noHash }
    assert.deepStrictEqual(reasonOf({ ...message, header }), { _tag: "WrongRoot", root: message.header.merkleRoot })
    // With another transaction count, the same hashes and flags are another tree.
    assert.strictEqual(MerkleBlock.verify({ ...message, transactionCount: 5 })._tag, "Failure")
  })

  it("equal children, which could stand for more transactions (CVE-2012-2459)", () => {
    // Transactions 9 and 10 are repeated at the end, and the root is that of ten transactions (Core's pmt_malleability).
    const transactions = transactionsOf(10)
    const repeated = [...transactions, transactions[8], transactions[9]]
    assert.deepStrictEqual(blockOf(repeated).header, blockOf(transactions).header)
    const { merkleBlock } = MerkleBlock.make(blockOf(repeated), (_, __, index) => index === 9 || index === 10)
    assert.deepStrictEqual(reasonOf(merkleBlock), { _tag: "RepeatedHash" })
  })

  it.prop(
    "or accepts any decoded message without a defect",
    [messages.merkleblock, integer(0, 40), bytes(20)],
    ([message, transactionCount, flags]) =>
      [message, { ...message, transactionCount }, { ...message, transactionCount, flags }].every((message) =>
        ["Success", "Failure"].includes(MerkleBlock.verify(message)._tag)
      ),
    { arbitrary: { runs: 300, seed: 2 } }
  )

  it("a message of the largest size whose flags are not all used", () => {
    const hashes = Array.from({ length: 16_666 }, (_, index) => Uint8Array.from({ length: 32 }, (_, i) => index >> i))
    const flags = new Uint8Array(3_000_000).fill(0xff)
    assert.strictEqual(reasonOf({ ...message, transactionCount: 16_666, hashes, flags })._tag, "UnusedFlags")
  })
})

describe("filtered blocks that other software made", () => {
  it("merkle300025: proves two transactions of block 300025, and the block filtered for these has the same bytes", () => {
    const block = (decoded("block", readBlock("block300025")) as Wire.BlockMessage).block
    const txids = Array.from(block.transactions, (transaction) => Wire.hashToHex(Wire.txid(transaction)))
    const payload = readVector("merkleblock/merkle300025.raw")
    const message = decoded("merkleblock", payload) as Wire.MerkleBlock
    assert.strictEqual(Wire.hashToHex(Wire.blockHash(message.header)), blocks[0].hash)
    assert.strictEqual(message.transactionCount, txids.length)
    const matches = matchesOf(message)
    assert.strictEqual(matches.length, 2)
    for (const { index, txid } of matches) assert.strictEqual(txids[index], Wire.hashToHex(txid))
    const wanted = new Set(matches.map(({ txid }) => Wire.hashToHex(txid)))
    const { merkleBlock, transactions } = MerkleBlock.make(block, (_, txid) => wanted.has(Wire.hashToHex(txid)))
    assert.strictEqual(Buffer.compare(encoded(merkleBlock), payload), 0)

    // bcoin's own format: the message, the number of matching transactions, and these transactions.
    const extended = readVector("merkleblock/merkle300025-extended.raw")
    const bytes = transactions.map((transaction) => Result.getOrThrow(Wire.encodeTransaction(transaction)))
    assert.strictEqual(Buffer.compare(concat(payload, [2], ...bytes), extended), 0)
  })

  it("captures: each merkleblock of Core proves the transactions that follow it", () => {
    let seen = 0
    for (const name of captures) {
      const records = readCapture(name)
      for (const [at, { command, payload }] of records.entries()) {
        if (command !== "merkleblock") continue
        seen++
        const matches = matchesOf(decoded(command, payload) as Wire.MerkleBlock)
        const following = records.slice(at + 1, at + 1 + matches.length)
        const sent = following.map(({ command, payload }) =>
          Wire.txid((decoded(command, payload) as Wire.Tx).transaction)
        )
        assert.deepStrictEqual(
          sent.map(Wire.hashToHex),
          matches.map(({ txid }) => Wire.hashToHex(txid))
        )
      }
    }
    assert.isAtLeast(seen, 1)
  })

  for (const { file } of blocks) {
    it(`${file}: filtered for every 50th transaction, it proves these`, () => {
      const block = (decoded("block", readBlock(file)) as Wire.BlockMessage).block
      const { merkleBlock } = MerkleBlock.make(block, (_, __, index) => index % 50 === 0)
      const expected = Array.from(block.transactions, Wire.txid).filter((_, index) => index % 50 === 0)
      assert.deepStrictEqual(
        matchesOf(merkleBlock).map(({ txid }) => txid),
        expected
      )
    })
  }
})
