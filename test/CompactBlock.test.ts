/** Compact blocks: making, rebuilding, requests for missing transactions, and errors. */
import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Result from "effect/Result"
import { CompactBlock, Wire } from "effect-bitcoin-peer"
import * as Regtest from "effect-bitcoin-peer/testing/RegtestChain"
import { decoded, encoded, integer, plain } from "./support/generators.ts"
import { readBlock, readCapture, readVector } from "./support/vectors.ts"

const zeros = new Uint8Array(32)
const nonce = 0x0123456789abcdefn

/** A transaction, with a witness unless given otherwise. */
const transaction = (
  lockTime: number,
  witness: ReadonlyArray<Uint8Array> = [Uint8Array.of(0x51)]
): Wire.Transaction => ({
  version: 2,
  inputs: [{ previousOutput: { txid: zeros, index: 7 }, script: new Uint8Array(0), sequence: 0, witness }],
  outputs: [{ value: 1, script: Uint8Array.of(0x51) }],
  lockTime
})
const blockOf = (transactions: ReadonlyArray<Wire.Transaction>): Wire.Block =>
  Regtest.mineBlock(
    { blocks: [Regtest.genesis], hashes: [Wire.blockHash(Regtest.genesis.header)] },
    { timestamp: 1_700_000_000, transactions }
  )

const others = Array.from({ length: 9 }, (_, index) => transaction(index))
const block = blockOf(others)
const all = Array.from(block.transactions)
const bytesOf = (block: Wire.Block): Uint8Array => encoded({ _tag: "block", block })
const bytes = bytesOf(block)
const made = (options: Partial<CompactBlock.MakeOptions> = {}, of = block): Wire.CmpctBlock =>
  Result.getOrThrow(CompactBlock.make(of, { nonce, ...options }))
const message = made()

const rebuilt = (message: Wire.CmpctBlock, pool: CompactBlock.Pool): CompactBlock.Rebuilt =>
  Result.getOrThrow(CompactBlock.rebuild(message, pool))
const incomplete = (message: Wire.CmpctBlock, pool: CompactBlock.Pool): CompactBlock.Incomplete => {
  const result = rebuilt(message, pool)
  assert(result._tag === "Incomplete")
  return result
}
const whole = (result: CompactBlock.Rebuilt): Wire.Block => {
  assert(result._tag === "Complete")
  return result.block
}
const errorOf = (result: Result.Result<unknown, CompactBlock.CompactBlockError>): CompactBlock.CompactBlockError => {
  assert(Result.isFailure(result))
  return result.failure
}
const tagOf = (result: Result.Result<unknown, CompactBlock.CompactBlockError>) => errorOf(result).reason._tag
const same = (actual: Wire.Block, expected: Uint8Array): void =>
  assert.isTrue(Buffer.compare(bytesOf(actual), expected) === 0, "another block")

describe("a compact block", () => {
  it("has the coinbase and the short ids of all other transactions, computed from wtxids", () => {
    const shortId = CompactBlock.shortIds(block.header, nonce)
    assert.deepStrictEqual(
      message.shortIds,
      others.map((other) => shortId(Wire.wtxid(other)))
    )
    assert.deepStrictEqual(message.prefilled, [{ index: 0, transaction: all[0] }])
    assert.deepStrictEqual([message.header, message.nonce], [block.header, nonce])
  })

  it("has other short ids with another nonce", () => {
    const other = new Set(made({ nonce: nonce + 1n }).shortIds)
    assert.isTrue(Array.from(message.shortIds).every((id) => !other.has(id)))
  })

  it("can have more transactions prefilled, each once and in order", () => {
    const more = made({ prefilled: [5, 0, 3, 5] })
    assert.deepStrictEqual(
      Array.from(more.prefilled, ({ index }) => index),
      [0, 3, 5]
    )
    assert.strictEqual(more.shortIds.length, all.length - 3)
    const received = decoded("cmpctblock", encoded(more)) as Wire.CmpctBlock
    same(whole(rebuilt(received, others)), bytes)
  })

  it("cannot be made from a block without transactions, or with a prefilled index outside the block", () => {
    const reasonOf = (of: Wire.Block, prefilled: ReadonlyArray<number>) => {
      const result = CompactBlock.make(of, { nonce, prefilled })
      return Result.isFailure(result) && result.failure.reason._tag
    }
    for (const index of [all.length, -1, 0.5, Number.NaN]) assert.strictEqual(reasonOf(block, [index]), "BadValue")
    assert.strictEqual(reasonOf({ ...block, transactions: [] }, []), "BadValue")
    const many = Array.from({ length: 65_536 }, () => all[1])
    assert.strictEqual(reasonOf({ ...block, transactions: many }, []), "TooMany")
  })
})

describe("a rebuilt block", () => {
  it("is complete if the pool has all transactions, in any order, among others or repeated", () => {
    const strangers = Array.from({ length: 50 }, (_, index) => transaction(1_000 + index))
    const pool = [...strangers, ...others.slice(1).toReversed(), ...others.slice(1), others[0]]
    same(whole(rebuilt(message, pool)), bytes)
    const entries = pool.map((transaction) => ({ transaction, wtxid: Wire.wtxid(transaction) }))
    same(whole(rebuilt(message, entries)), bytes)
    const byWtxid = new Map(entries.map((entry) => [Wire.hashToHex(entry.wtxid), entry]))
    same(whole(rebuilt(message, byWtxid.values())), bytes)
  })

  it("lists the indexes of missing transactions, and is completed with them", () => {
    for (const missing of [[1], [9], [1, 2, 5, 9], [1, 2, 3, 4, 5, 6, 7, 8, 9]]) {
      const pool = others.filter((_, index) => !missing.includes(index + 1))
      const part = incomplete(message, pool)
      assert.deepStrictEqual(part.request, {
        _tag: "getblocktxn",
        blockHash: Wire.blockHash(block.header),
        indexes: missing
      })
      const answer = Result.getOrThrow(CompactBlock.answer(block, part.request))
      assert.deepStrictEqual(
        answer.transactions,
        missing.map((index) => all[index])
      )
      for (const sent of [answer, decoded("blocktxn", encoded(answer)) as Wire.BlockTxn]) {
        same(Result.getOrThrow(CompactBlock.complete(part, sent)), bytes)
      }
    }
  })

  it("requests the coinbase if it is not prefilled", () => {
    const shortId = CompactBlock.shortIds(block.header, nonce)
    const bare = { ...message, shortIds: all.map((one) => shortId(Wire.wtxid(one))), prefilled: [] }
    assert.deepStrictEqual(incomplete(bare, others).request.indexes, [0])
    same(whole(rebuilt(bare, all)), bytes)
  })

  it("can be completed with the whole block instead of the missing transactions", () => {
    const part = incomplete(message, [])
    same(Result.getOrThrow(CompactBlock.complete(part, { _tag: "block", block })), bytes)
    const stripped = { ...block, transactions: [all[0], ...others.map(({ lockTime }) => transaction(lockTime, []))] }
    assert.strictEqual(tagOf(CompactBlock.complete(part, { _tag: "block", block: stripped })), "Mutated")
  })

  it("can be completed after a wrong answer", () => {
    const part = incomplete(message, others.slice(1))
    const { blockHash } = part.request
    const wrong: Wire.BlockTxn = { _tag: "blocktxn", blockHash, transactions: [transaction(77)] }
    assert.strictEqual(tagOf(CompactBlock.complete(part, wrong)), "Mutated")
    same(Result.getOrThrow(CompactBlock.complete(part, { ...wrong, transactions: [others[0]] })), bytes)
  })

  it("needs no witness commitment if no transaction has a witness", () => {
    const plainly = Array.from({ length: 3 }, (_, index) => transaction(index, []))
    const old = blockOf(plainly)
    same(whole(rebuilt(made({}, old), plainly)), bytesOf(old))
  })
})

describe("any block", () => {
  const sizes = integer(1, 40)
  const choice = Arbitrary.array(integer(0, 1), { minLength: 40, maxLength: 40 })

  it.prop(
    "is rebuilt, for any prefilled transactions and any pool",
    [sizes, choice, choice, integer(0, 0xffffffff)],
    ([size, prefilling, pooling, seed]) => {
      const transactions = Array.from({ length: size }, (_, index) =>
        transaction(index, index % 3 === 0 ? [zeros] : [])
      )
      const block = blockOf(transactions)
      const chosen = (bits: ReadonlyArray<number>) =>
        Array.from({ length: size }, (_, i) => i + 1).filter((i) => bits[i - 1])
      const [prefilled, pooled] = [chosen(prefilling), chosen(pooling)]
      const message = Result.getOrThrow(CompactBlock.make(block, { nonce: BigInt(seed), prefilled }))
      const received = decoded("cmpctblock", encoded(message)) as Wire.CmpctBlock
      const missing = chosen(prefilling.map((bit, index) => 1 - Math.max(bit, pooling[index])))
      const result = rebuilt(
        received,
        pooled.map((index) => transactions[index - 1])
      )
      if (result._tag === "Complete") {
        assert.isEmpty(missing)
        return same(result.block, bytesOf(block))
      }
      assert.deepStrictEqual(result.request.indexes, missing)
      const request = decoded("getblocktxn", encoded(result.request)) as Wire.GetBlockTxn
      const answer = encoded(Result.getOrThrow(CompactBlock.answer(block, request)))
      same(
        Result.getOrThrow(CompactBlock.complete(result, decoded("blocktxn", answer) as Wire.BlockTxn)),
        bytesOf(block)
      )
    },
    { arbitrary: { runs: 100, seed: 152 } }
  )
})

describe("a message is misbehavior of the sender if it", () => {
  const invalid = (changes: Partial<Wire.CmpctBlock>): void => {
    const error = errorOf(CompactBlock.rebuild({ ...message, ...changes }, others))
    assert.strictEqual(error.reason._tag, "Invalid")
    assert.isTrue(error.misbehaved)
  }

  it("has no transactions", () => invalid({ shortIds: [], prefilled: [] }))

  it("has a header without a target", () => invalid({ header: { ...block.header, bits: 0 } }))

  it("has an empty prefilled transaction", () => {
    invalid({ prefilled: [{ index: 0, transaction: { version: 1, inputs: [], outputs: [], lockTime: 0 } }] })
  })

  it("leaves an index with neither a short id nor a transaction", () => {
    const [{ transaction }] = message.prefilled as ReadonlyArray<Wire.PrefilledTransaction>
    const last = { index: message.shortIds.length, transaction }
    assert.strictEqual(tagOf(CompactBlock.rebuild({ ...message, prefilled: [last] }, others)), "Mutated")
    invalid({ prefilled: [{ ...last, index: last.index + 1 }] })
    invalid({ prefilled: [last, { ...last, index: 65_535 }] })
  })

  it("answers with more or fewer transactions than requested", () => {
    const part = incomplete(message, others.slice(2))
    const { blockHash } = part.request
    for (const transactions of [[], others.slice(0, 1), others.slice(0, 3)]) {
      const error = errorOf(CompactBlock.complete(part, { _tag: "blocktxn", blockHash, transactions }))
      assert.deepStrictEqual(error.reason, { _tag: "WrongCount", expected: 2, received: transactions.length })
      assert.isTrue(error.misbehaved)
    }
  })

  it("asks for an index that the block does not have", () => {
    const request: Wire.GetBlockTxn = { _tag: "getblocktxn", blockHash: Wire.blockHash(block.header), indexes: [1, 10] }
    const error = errorOf(CompactBlock.answer(block, request))
    assert.isTrue(error.misbehaved)
    assert.strictEqual(error.message, "the block has no transaction 10")
  })
})

describe("a failure that is no misbehavior, after which the caller requests the whole block,", () => {
  const unlucky = (result: Result.Result<unknown, CompactBlock.CompactBlockError>, tag: string, problem?: string) => {
    const error = errorOf(result)
    assert.strictEqual(error.reason._tag, tag)
    assert.isFalse(error.misbehaved)
    if (problem !== undefined) assert.strictEqual(error.message, problem)
  }

  it("is one short id for two transactions of the block", () => {
    const [first, ...rest] = Array.from(message.shortIds)
    unlucky(
      CompactBlock.rebuild({ ...message, shortIds: [first, ...rest.slice(1), first] }, others),
      "ShortIdCollision"
    )
  })

  it("is a transaction of the pool with the short id of another", () => {
    const wtxid = Wire.wtxid(others[3])
    const pool = [{ wtxid, transaction: transaction(99) }, ...others]
    unlucky(CompactBlock.rebuild(message, pool), "Mutated", "the header commits to other transactions")
  })

  it("is a transaction with the right txid and another witness", () => {
    const part = incomplete(message, others.slice(1))
    const { blockHash } = part.request
    const answer: Wire.BlockTxn = { _tag: "blocktxn", blockHash, transactions: [transaction(0, [zeros])] }
    unlucky(CompactBlock.complete(part, answer), "Mutated", "the coinbase commits to other witnesses")
  })

  it("is a witness without a commitment, or a commitment without the coinbase witness", () => {
    const plainly = [transaction(0, [])]
    const old = blockOf(plainly)
    const part = incomplete(made({}, old), [])
    const { blockHash } = part.request
    const answer: Wire.BlockTxn = { _tag: "blocktxn", blockHash, transactions: [transaction(0)] }
    unlucky(CompactBlock.complete(part, answer), "Mutated", "the block has witnesses without a commitment")
    const [coinbase] = all
    const bare = { ...coinbase, inputs: Array.from(coinbase.inputs, (input) => ({ ...input, witness: [] })) }
    const stripped = { ...message, prefilled: [{ index: 0, transaction: bare }] }
    unlucky(CompactBlock.rebuild(stripped, others), "Mutated", "the coinbase has a commitment without its witness")
    // The coinbase witness must be one item of 32 bytes.
    const twice = {
      ...coinbase,
      inputs: Array.from(coinbase.inputs, (input) => ({ ...input, witness: [zeros, zeros] }))
    }
    const longer = { ...message, prefilled: [{ index: 0, transaction: twice }] }
    unlucky(CompactBlock.rebuild(longer, others), "Mutated", "the coinbase has a commitment without its witness")
  })

  it("is a last commitment to other witnesses, even if an earlier one is right", () => {
    const [coinbase] = all
    const outputs = Array.from(coinbase.outputs)
    const right = outputs.at(-1)!
    const wrong = { ...right, script: right.script.with(20, right.script[20]! ^ 1) }
    const withOutputs = (...commitments: ReadonlyArray<Wire.TransactionOutput>): Wire.Block => {
      const first = { ...coinbase, outputs: [...outputs.slice(0, -1), ...commitments] }
      const transactions = [first, ...all.slice(1)]
      const merkleRoot = Wire.merkleRoot(transactions.map(Wire.txid))
      return { header: { ...block.header, merkleRoot }, transactions }
    }
    const good = withOutputs(wrong, right)
    same(whole(rebuilt(made({}, good), others)), bytesOf(good))
    const bad = made({}, withOutputs(right, wrong))
    unlucky(CompactBlock.rebuild(bad, others), "Mutated", "the coinbase commits to other witnesses")
  })

  it("is a first transaction that is not a coinbase", () => {
    const first = { ...message, prefilled: [{ index: 0, transaction: transaction(5) }] }
    unlucky(CompactBlock.rebuild(first, others), "Mutated", "the first transaction is not a coinbase")
  })

  it("is a repeated end of the list, with the same merkle root (CVE-2012-2459)", () => {
    const odd = blockOf([transaction(0, []), transaction(1, [])])
    const three = Array.from(odd.transactions)
    const repeated = { ...odd, transactions: [...three, three[2]] }
    const prefilled = [0, 1, 2, 3]
    unlucky(CompactBlock.rebuild(made({ prefilled }, repeated), []), "Mutated", "the block repeats transactions")
    assert.strictEqual(rebuilt(made({ prefilled: [1, 2] }, odd), [])._tag, "Complete")
  })

  it("is an answer about another block", () => {
    const part = incomplete(message, [])
    const answer: Wire.BlockTxn = { _tag: "blocktxn", blockHash: zeros, transactions: others }
    unlucky(CompactBlock.complete(part, answer), "OtherBlock")
    unlucky(CompactBlock.complete(part, { _tag: "block", block: blockOf([]) }), "OtherBlock")
    unlucky(CompactBlock.answer(block, { _tag: "getblocktxn", blockHash: zeros, indexes: [1] }), "OtherBlock")
  })
})

describe("two transactions of the pool with one short id", () => {
  const header = { version: 1, previousBlock: zeros, merkleRoot: zeros, timestamp: 0, bits: 1, nonce: 0 }
  const entry = (number: number): CompactBlock.PoolEntry => {
    const wtxid = new Uint8Array(32)
    new DataView(wtxid.buffer).setUint32(0, number)
    return { wtxid, transaction: transaction(number) }
  }
  // Found by trying the first 2^25 numbers.
  const [one, other] = [entry(12_107_076), entry(29_586_362)]
  const shortId = CompactBlock.shortIds(header, 7n)
  const { prefilled } = message
  const colliding: Wire.CmpctBlock = {
    _tag: "cmpctblock",
    header,
    nonce: 7n,
    shortIds: [shortId(entry(1).wtxid), shortId(one.wtxid), shortId(entry(2).wtxid)],
    prefilled
  }

  it("are both requested, because either may be in the block", () => {
    assert.strictEqual(shortId(one.wtxid), shortId(other.wtxid))
    assert.deepStrictEqual(incomplete(colliding, [one, other, entry(1)]).request.indexes, [2, 3])
    assert.deepStrictEqual(incomplete(colliding, [one, other, one, other, entry(1)]).request.indexes, [2, 3])
  })

  it("count as one if they are the same transaction", () => {
    assert.deepStrictEqual(incomplete(colliding, [one, one, entry(1)]).request.indexes, [3])
  })
})

describe("a compact block of 65,535 transactions", () => {
  it("gives a request for every transaction that the pool lacks", () => {
    const shortIds = Array.from({ length: 65_534 }, (_, index) => index * 2 ** 20)
    const received = decoded("cmpctblock", encoded({ ...message, shortIds })) as Wire.CmpctBlock
    const part = incomplete(received, others)
    assert.strictEqual(part.request.indexes.length, 65_534)
    assert.strictEqual(encoded(part.request).length, 32 + 3 + 65_534)
  })
})

const decodedBlock = (file: string): Wire.Block => (decoded("block", readBlock(file)) as Wire.BlockMessage).block

describe("real compact blocks", () => {
  for (const [compact, file] of [
    ["compact426884", "block426884"],
    ["compact898352", "block898352"]
  ] as const) {
    const read = () => {
      const payload = readVector(`compact/${compact}.raw`)
      const message = decoded("cmpctblock", payload) as Wire.CmpctBlock
      const transactions = Array.from(decodedBlock(file).transactions)
      return { payload, message, transactions, bytes: readBlock(file) }
    }

    it(`${compact}: encodes to the same bytes, as decoded and as plain data`, () => {
      const { message, payload } = read()
      assert.deepStrictEqual(encoded(message), payload)
      assert.deepStrictEqual(encoded(plain(message)), payload)
    })

    it(`${compact}: is rebuilt to the same bytes as the block of this number`, () => {
      const { bytes, message, transactions } = read()
      same(whole(rebuilt(message, transactions)), bytes)
    })

    it(`${compact}: is completed with every third transaction missing and requested`, () => {
      const { bytes, message, transactions } = read()
      const missing = transactions.flatMap((_, index) => (index % 3 === 1 ? [index] : []))
      const part = incomplete(
        message,
        transactions.filter((_, index) => index % 3 !== 1)
      )
      assert.deepStrictEqual(part.request.indexes, missing)
      const answer = Result.getOrThrow(CompactBlock.answer(decodedBlock(file), part.request))
      const received = decoded("blocktxn", encoded(answer)) as Wire.BlockTxn
      same(Result.getOrThrow(CompactBlock.complete(part, received)), bytes)
    })

    it(`${compact}: CompactBlock.make gives the same message from the block`, () => {
      const { message, payload } = read()
      const prefilled = Array.from(message.prefilled, ({ index }) => index)
      const again = CompactBlock.make(decodedBlock(file), { nonce: message.nonce, prefilled })
      assert.deepStrictEqual(encoded(Result.getOrThrow(again)), payload)
    })
  }

  for (const file of ["block482683", "21868c2c", "block928816"]) {
    it(`${file}: a block with witnesses is rebuilt from its compact block`, () => {
      const block = decodedBlock(file)
      const received = decoded("cmpctblock", encoded(made({}, block))) as Wire.CmpctBlock
      same(whole(rebuilt(received, block.transactions)), readBlock(file))
    })
  }

  it("block-relay: the two new blocks are rebuilt from the transactions of the same connection", () => {
    const messages = readCapture("block-relay-sent").map(({ command, payload }) => decoded(command, payload))
    const pool = messages.flatMap((message) => (message._tag === "tx" ? [message.transaction] : []))
    const compacts = messages.flatMap((message) => (message._tag === "cmpctblock" ? [message] : []))
    assert.strictEqual(pool.length, 5)
    const [first, second] = compacts.map((message) => whole(rebuilt(message, pool)))
    assert.strictEqual(first.transactions.length, 6)
    assert.strictEqual(second.transactions.length, 1)
    assert.deepStrictEqual(Wire.blockHash(first.header), second.header.previousBlock)
  })

  it("light-client: our answer to the getblocktxn is the blocktxn that Core sent", () => {
    const sent = readCapture("light-client-sent").map(({ command, payload }) => decoded(command, payload))
    const received = readCapture("light-client-received").map(({ command, payload }) => decoded(command, payload))
    const request = received.find((message) => message._tag === "getblocktxn")!
    const compact = sent.find((message) => message._tag === "cmpctblock")!
    const blocktxn = sent.find((message) => message._tag === "blocktxn")!
    const block = whole(rebuilt(compact, []))
    assert.deepStrictEqual(Array.from(request.indexes), [0])
    assert.deepStrictEqual(encoded(Result.getOrThrow(CompactBlock.answer(block, request))), encoded(blocktxn))
  })

  it("both sides of the captures announce version 2 in sendcmpct", () => {
    for (const name of ["block-relay", "light-client"]) {
      const versions = readCapture(`${name}-sent`).flatMap(({ command, payload }) => {
        const message = decoded(command, payload)
        return message._tag === "sendcmpct" ? [message] : []
      })
      assert.deepStrictEqual(versions, [{ _tag: "sendcmpct", announce: false, version: 2n }])
    }
    const asked = readCapture("block-relay-received").flatMap(({ command, payload }) => {
      const message = decoded(command, payload)
      return message._tag === "sendcmpct" ? [message] : []
    })
    // Core asks a peer that provided a block to announce the next ones as compact blocks (high-bandwidth mode).
    assert.deepStrictEqual(asked, [
      { _tag: "sendcmpct", announce: false, version: 2n },
      { _tag: "sendcmpct", announce: true, version: 2n }
    ])
  })
})
