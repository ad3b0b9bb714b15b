/** Compact filters (BIP158): vectors, building, searching, malformed filters, and verifying filter headers (BIP157). */
import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Result from "effect/Result"
import * as CompactFilter from "../src/CompactFilter.ts"
import { advance, encodeSet, makeReader, mapInto } from "../src/primitives/golomb.ts"
import { sipHash, sipKey } from "../src/primitives/siphash.ts"
import * as Wire from "../src/Wire.ts"
import { bytes, bytesOf, concat, decoded, integer, u32 } from "./support/generators.ts"
import { readBlock, readCapture, readVectorText } from "./support/vectors.ts"

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"))

const reasonOf = (result: Result.Result<unknown, CompactFilter.CompactFilterError>) => {
  if (Result.isSuccess(result)) throw new Error("expected a CompactFilterError")
  assert.isNotEmpty(result.failure.message)
  return result.failure.reason
}

/** All numbers of a filter. */
const numbersOf = (filter: CompactFilter.CompactFilter, offset: number): Array<number> => {
  const reader = makeReader(filter.bytes, offset)
  return Array.from({ length: filter.count }, () => {
    assert.isTrue(advance(reader))
    return reader.value
  })
}

const blockHash = Uint8Array.from({ length: 32 }, (_, i) => i)
const script = (number: number): Uint8Array => Uint8Array.of(0x51, number, number >> 8, number >> 16)
const scripts = (count: number, from = 0): Array<Uint8Array> =>
  Array.from({ length: count }, (_, index) => script(from + index))

const header: Wire.BlockHeader = {
  version: 1,
  previousBlock: new Uint8Array(32),
  merkleRoot: new Uint8Array(32),
  timestamp: 0,
  bits: 0,
  nonce: 0
}
const transaction = (spends: ReadonlyArray<Wire.OutPoint>, scripts: ReadonlyArray<Uint8Array>): Wire.Transaction => ({
  version: 1,
  inputs: spends.map((previousOutput) => ({ previousOutput, script: new Uint8Array(0), sequence: 0, witness: [] })),
  outputs: scripts.map((script) => ({ value: 1, script })),
  lockTime: 0
})
const coinbase = (...scripts: ReadonlyArray<Uint8Array>): Wire.Transaction =>
  transaction([{ txid: new Uint8Array(32), index: 0xffffffff }], scripts)

interface Vector {
  readonly name: string
  readonly block: Wire.Block
  readonly hash: string
  readonly previousScripts: ReadonlyArray<Uint8Array>
  readonly previousHeader: string
  readonly filter: string
  readonly header: string
}

const vectors = (): ReadonlyArray<Vector> =>
  (JSON.parse(readVectorText("bip158/testnet-19.json")) as Array<Array<unknown>>).slice(1).map((row) => ({
    name: `${row[0] as number} ${row[7] as string}`,
    hash: row[1] as string,
    block: (decoded("block", fromHex(row[2] as string)) as Wire.BlockMessage).block,
    previousScripts: (row[3] as Array<string>).map(fromHex),
    previousHeader: row[4] as string,
    filter: row[5] as string,
    header: row[6] as string
  }))

describe("the vectors of BIP158", () => {
  it("match the built filter and filter header of every block, and each filter matches the block's scripts", () => {
    const all = vectors()
    assert.lengthOf(all, 10)
    for (const { block, filter, hash, header, name, previousHeader, previousScripts } of all) {
      assert.strictEqual(Wire.hashToHex(Wire.blockHash(block.header)), hash, name)
      const built = Result.getOrThrow(CompactFilter.build(block, previousScripts))
      assert.strictEqual(hex(built), filter, name)
      const made = CompactFilter.filterHeader(CompactFilter.filterHash(built), Wire.hashFromHex(previousHeader))
      assert.strictEqual(Wire.hashToHex(made), header, name)

      const read = Result.getOrThrow(CompactFilter.decode(Wire.blockHash(block.header), fromHex(filter)))
      for (const script of previousScripts) assert.strictEqual(CompactFilter.matches(read, script), script.length > 0)
      for (const { outputs } of block.transactions) {
        for (const { script } of outputs) {
          const isElement = script.length > 0 && script[0] !== 0x6a
          assert.strictEqual(CompactFilter.matches(read, script), isElement, name)
        }
      }
      assert.isFalse(CompactFilter.matchesAny(read, scripts(100)))
    }
  })
})

describe("the filters that a Bitcoin Core node sent", () => {
  it("hash to the hashes in cfheaders, whose chain of filter headers reaches those in cfcheckpt", () => {
    const messages = readCapture("light-client-sent").map(({ command, payload }) => decoded(command, payload))
    const filters = messages.filter((message) => message._tag === "cfilter")
    const answers = messages.filter((message) => message._tag === "cfheaders")
    const checkpoints = messages.filter((message) => message._tag === "cfcheckpt")
    const questions = readCapture("light-client-received")
      .map(({ command, payload }) => decoded(command, payload))
      .filter((message) => message._tag === "getcfheaders")
    assert.isNotEmpty(filters)
    assert.isNotEmpty(answers)
    assert.isNotEmpty(checkpoints)
    const hashes = answers.flatMap(({ filterHashes }) => Array.from(filterHashes, hex))
    for (const filter of filters) {
      const read = Result.getOrThrow(CompactFilter.decode(filter.blockHash, filter.filter))
      assert.isAtLeast(read.count, 1)
      assert.include(hashes, hex(CompactFilter.filterHash(filter.filter)))
    }
    for (const [index, answer] of answers.entries()) {
      const { startHeight } = questions[index]!
      const { filterHeaders } = checkpoints[0]!
      const headers = CompactFilter.verifyHeaders(answer, { startHeight, checkpoints: filterHeaders })
      assert.lengthOf(Result.getOrThrow(headers), answer.filterHashes.length)
    }
  })
})

describe("building a filter", () => {
  it("takes the scripts of outputs, except OP_RETURN and empty ones, and of spent outputs, each once", () => {
    const [spent, paid] = [script(1), script(2)]
    const unspendable = Uint8Array.of(0x6a, 1, 2)
    const none = new Uint8Array(0)
    const outputs = Array.from({ length: 3 }, (_, index) => ({ txid: blockHash, index }))
    const block = { header, transactions: [coinbase(paid, unspendable), transaction(outputs, [none, paid, spent])] }
    const built = Result.getOrThrow(CompactFilter.build(block, [spent, none, unspendable]))
    assert.deepStrictEqual(built, CompactFilter.encode(Wire.blockHash(header), [paid, spent, unspendable]))
  })

  it("asks a function for the scripts of spent outputs, and takes those created in the same block from the block", () => {
    const first = coinbase(script(1))
    const own = { txid: Wire.txid(first), index: 0 }
    const other = { txid: blockHash, index: 7 }
    const block = { header, transactions: [first, transaction([other, own], [script(2)])] }
    const built = CompactFilter.build(block, ({ index }) => (index === 7 ? script(3) : undefined))
    assert.deepStrictEqual(
      Result.getOrThrow(built),
      CompactFilter.encode(Wire.blockHash(header), [script(1), script(2), script(3)])
    )
    const missing = CompactFilter.build(block, () => undefined)
    assert.deepStrictEqual(reasonOf(missing), { _tag: "MissingScript", output: other })
    assert.deepStrictEqual(reasonOf(CompactFilter.build(block, [script(3)])), { _tag: "MissingScript", output: own })
  })

  it("without elements gives one zero byte", () => {
    assert.deepStrictEqual(CompactFilter.encode(blockHash, []), Uint8Array.of(0))
    const filter = Result.getOrThrow(CompactFilter.decode(blockHash, Uint8Array.of(0)))
    assert.isFalse(CompactFilter.matchesAny(filter, scripts(10)))
  })
})

describe("searching a filter", () => {
  it.prop(
    "finds every element, alone and among others, and agrees with a set of all numbers",
    { elements: Arbitrary.array(bytes(80, 1), { maxLength: 300 }), key: bytesOf(32), others: integer(0, 200) },
    ({ elements, key, others }) => {
      const filter = Result.getOrThrow(CompactFilter.decode(key, CompactFilter.encode(key, elements)))
      const unique = new Set(elements.map(hex))
      assert.strictEqual(filter.count, unique.size)
      const strangers = scripts(others)
      for (const element of elements) {
        assert.isTrue(CompactFilter.matches(filter, element))
        assert.isTrue(CompactFilter.matchesAny(filter, [...strangers, element]))
      }
      const range = BigInt(filter.count) * 784_931n
      const numbers = new Set(numbersOf(filter, filter.count < 0xfd ? 1 : 3).map(BigInt))
      const out = new Uint32Array(2)
      const isIn = (script: Uint8Array): boolean => {
        sipHash(sipKey(key), script, out)
        return numbers.has((((BigInt(out[1]!) << 32n) | BigInt(out[0]!)) * range) >> 64n)
      }
      assert.strictEqual(CompactFilter.matchesAny(filter, strangers), strangers.some(isIn))
    },
    { arbitrary: { runs: 60, seed: 1 } }
  )

  it("has about one false positive in 784,931 searches", () => {
    const filter = Result.getOrThrow(CompactFilter.decode(blockHash, CompactFilter.encode(blockHash, scripts(10_000))))
    let found = 0
    for (let from = 1; from <= 100; from++) {
      if (CompactFilter.matchesAny(filter, scripts(10_000, from * 10_000))) found++
    }
    // 1,000,000 searches: 1.27 matches are expected.
    assert.isBelow(found, 8)
  })

  it("never finds an empty script", () => {
    const filter = Result.getOrThrow(CompactFilter.decode(blockHash, CompactFilter.encode(blockHash, scripts(3))))
    assert.isFalse(CompactFilter.matches(filter, new Uint8Array(0)))
    assert.isTrue(CompactFilter.matchesAny(filter, [new Uint8Array(0), script(1)]))
  })
})

describe("mapping a hash into a range", () => {
  it.prop(
    "is the high half of the product, exactly",
    [u32, u32, integer(0, 2 ** 45 - 1)],
    ([high, low, range]) => {
      const exact = (((BigInt(high) << 32n) | BigInt(low)) * BigInt(range)) >> 64n
      assert.strictEqual(BigInt(mapInto(high, low, range)), exact)
    },
    { arbitrary: { runs: 2_000, seed: 2 } }
  )

  it("is exact at the limits of the range", () => {
    const words = [0, 1, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff]
    const ranges = [0, 1, 784_931, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 33_554_432 * 784_931, 2 ** 45 - 1]
    for (const high of words) {
      for (const low of words) {
        for (const range of ranges) {
          const exact = (((BigInt(high) << 32n) | BigInt(low)) * BigInt(range)) >> 64n
          assert.strictEqual(BigInt(mapInto(high, low, range)), exact, `${high} ${low} ${range}`)
        }
      }
    }
  })
})

describe("a coded set", () => {
  it.prop(
    "decodes to the encoded numbers, for any start and distances",
    [bytes(5), Arbitrary.array(integer(0, 2 ** 25), { maxLength: 100 })],
    ([start, distances]) => {
      let sum = 0
      const numbers = distances.map((distance) => (sum += distance))
      const coded = encodeSet(start, Float64Array.from(numbers))
      const reader = makeReader(coded, start.length)
      for (const number of numbers) {
        assert.isTrue(advance(reader))
        assert.strictEqual(reader.value, number)
      }
      assert.strictEqual((reader.bit + 7) >> 3, coded.length)
      assert.deepStrictEqual(coded.subarray(0, start.length), start)
    },
    { arbitrary: { runs: 200, seed: 3 } }
  )
})

describe("a broken filter", () => {
  const whole = CompactFilter.encode(blockHash, scripts(50))

  it("truncated at any byte is Truncated, and an empty one BadCount", () => {
    assert.deepStrictEqual(reasonOf(CompactFilter.decode(blockHash, new Uint8Array(0))), { _tag: "BadCount" })
    for (let size = 1; size < whole.length; size++) {
      assert.deepStrictEqual(reasonOf(CompactFilter.decode(blockHash, whole.subarray(0, size))), {
        _tag: "Truncated",
        count: 50
      })
    }
  })

  it("with bytes after the last element is TrailingBytes", () => {
    const longer = concat(whole, [0, 0, 0])
    assert.deepStrictEqual(reasonOf(CompactFilter.decode(blockHash, longer)), { _tag: "TrailingBytes", bytes: 3 })
    const fewer = concat([49], whole.subarray(1))
    assert.strictEqual(reasonOf(CompactFilter.decode(blockHash, fewer))._tag, "TrailingBytes")
  })

  it("with a wrong count allocates nothing", () => {
    for (const count of [[0xfe, 0, 0, 0, 2], [0xfd, 0xff, 0xff], [51]]) {
      const lying = concat(count, whole.subarray(1))
      assert.strictEqual(reasonOf(CompactFilter.decode(blockHash, lying))._tag, "Truncated")
    }
    for (const count of [
      [0xfd, 50, 0],
      [0xfe, 1, 0, 0, 2],
      [0xff, 50, 0, 0, 0, 0, 0, 0, 0],
      [0xfd, 1]
    ]) {
      assert.deepStrictEqual(reasonOf(CompactFilter.decode(blockHash, Uint8Array.from(count))), { _tag: "BadCount" })
    }
  })

  it("of the largest size, all ones or all zeros, is decoded in time linear in its size", () => {
    for (const byte of [0xff, 0]) {
      const long = new Uint8Array(4_000_000).fill(byte)
      long.set([0xfe, 0, 0, 2, 0])
      assert.isTrue(Result.isFailure(CompactFilter.decode(blockHash, long)))
    }
  })

  it("with a block hash that is not 32 bytes is BadHash", () => {
    const short = CompactFilter.decode(blockHash.subarray(1), whole)
    assert.deepStrictEqual(reasonOf(short), { _tag: "BadHash", length: 31 })
  })

  it.prop(
    "of any bytes decodes or fails without a defect, and can be searched if it decodes",
    [bytes(60), integer(0, 6)],
    ([tail, count]) => {
      const result = CompactFilter.decode(blockHash, concat([count], tail))
      if (Result.isSuccess(result)) CompactFilter.matchesAny(result.success, scripts(3))
      else assert.isNotEmpty(result.failure.message)
    },
    { arbitrary: { runs: 500, seed: 4 } }
  )
})

describe("verifying headers", () => {
  const filterHashes = scripts(2_500).map(CompactFilter.filterHash)
  const chain: Array<Uint8Array> = []
  for (const hash of filterHashes) chain.push(CompactFilter.filterHeader(hash, chain.at(-1) ?? new Uint8Array(32)))
  const checkpoints = [chain[1_000]!, chain[2_000]!]
  const answer = (from: number, to: number): Wire.CFHeaders => ({
    _tag: "cfheaders",
    filterType: 0,
    stopHash: blockHash,
    previousFilterHeader: from === 0 ? new Uint8Array(32) : chain[from - 1]!,
    filterHashes: filterHashes.slice(from, to)
  })

  it("returns the filter headers of a chain that matches its checkpoints", () => {
    for (const [from, to] of [
      [0, 2_000],
      [1, 1_001],
      [1_001, 2_001],
      [2_001, 2_500],
      [1_000, 1_001]
    ] as const) {
      const headers = CompactFilter.verifyHeaders(answer(from, to), { startHeight: from, checkpoints })
      assert.deepStrictEqual(Result.getOrThrow(headers), chain.slice(from, to))
    }
  })

  it("fails at the first checkpoint after a wrong filter hash", () => {
    const wrong = answer(500, 2_400)
    const changed = Array.from(wrong.filterHashes)
    changed[100] = blockHash
    const result = CompactFilter.verifyHeaders({ ...wrong, filterHashes: changed }, { startHeight: 500, checkpoints })
    assert.deepStrictEqual(reasonOf(result), { _tag: "WrongHeader", height: 1_000 })
  })

  it("compares the previous header with a checkpoint, a known header, or zeros before the genesis block", () => {
    const wrong = (from: number): Wire.CFHeaders => ({ ...answer(from, from + 1), previousFilterHeader: blockHash })
    for (const [from, known] of [
      [0, {}],
      [1_001, { checkpoints }],
      [7, { previous: chain[6]! }]
    ] as const) {
      assert.deepStrictEqual(reasonOf(CompactFilter.verifyHeaders(wrong(from), { startHeight: from, ...known })), {
        _tag: "WrongHeader",
        height: from - 1
      })
    }
    // Without a known header there is nothing to compare with.
    assert.isTrue(Result.isSuccess(CompactFilter.verifyHeaders(wrong(7), { startHeight: 7, checkpoints })))
  })
})

describe("the filter of a mainnet block", () => {
  it("matches all its output scripts except empty and OP_RETURN ones, with any scripts of spent outputs", () => {
    const { block } = decoded("block", readBlock("block482683")) as Wire.BlockMessage
    const built = Result.getOrThrow(CompactFilter.build(block, () => script(7)))
    const filter = Result.getOrThrow(CompactFilter.decode(Wire.blockHash(block.header), built))
    for (const { outputs } of block.transactions) {
      for (const { script } of outputs) {
        if (script.length > 0 && script[0] !== 0x6a) assert.isTrue(CompactFilter.matches(filter, script))
      }
    }
  })
})
