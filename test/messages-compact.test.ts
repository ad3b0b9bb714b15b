/** The messages of compact blocks (BIP152). */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Wire from "../src/Wire.ts"
import { concat, decoded, encoded, examples, plain, reasonOf } from "./support/generators.ts"

const example = <Tag extends Wire.Message["_tag"]>(tag: Tag) =>
  examples.find((message) => message._tag === tag) as Extract<Wire.Message, { readonly _tag: Tag }>
const compact = example("cmpctblock")
const request = example("getblocktxn")
const { transaction } = compact.prefilled.at(0)!
/** The smallest transaction: 10 bytes. */
const empty: Wire.Transaction = { version: 1, inputs: [], outputs: [], lockTime: 0 }
const hash = new Uint8Array(32)
/** Header and nonce. */
const beginning = new Uint8Array(88)

const problem = (message: Wire.Message): Wire.WireReason => reasonOf(Wire.encode(message))
const numbers = (length: number): ReadonlyArray<number> => Array.from({ length }, (_, index) => index)

describe("indexes", () => {
  it("are absolute, and encoded as the distance from the lowest possible one", () => {
    const payload = encoded({ _tag: "getblocktxn", blockHash: hash, indexes: [0, 1, 5, 300] })
    assert.deepStrictEqual(payload, concat(hash, [4, 0, 0, 3, 0xfd, 0x26, 0x01]))
    const { indexes } = decoded("getblocktxn", payload) as Wire.GetBlockTxn
    assert.deepStrictEqual(Array.from(indexes), [0, 1, 5, 300])
    assert.strictEqual(indexes.at(-1), 300)
  })

  it("of prefilled transactions are encoded in the same way", () => {
    const message = { ...compact, shortIds: [], prefilled: [3, 4].map((index) => ({ index, transaction: empty })) }
    const payload = encoded(message)
    const ten = encoded({ _tag: "tx", transaction: empty })
    assert.deepStrictEqual(payload.subarray(88), concat([0, 2, 3], ten, [0], ten))
    const { prefilled } = decoded("cmpctblock", payload) as Wire.CmpctBlock
    assert.deepStrictEqual(
      Array.from(prefilled, ({ index }) => index),
      [3, 4]
    )
    assert.strictEqual(prefilled.at(-1)?.index, 4)
    assert.isUndefined(prefilled.at(2))
  })

  it("are malformed above 65535, as one distance or as a sum", () => {
    const last = [0xfd, 0xff, 0xff]
    const legal = decoded("getblocktxn", concat(hash, [1], last)) as Wire.GetBlockTxn
    assert.deepStrictEqual(Array.from(legal.indexes), [65_535])
    for (const wrong of [
      [1, 0xfe, 0, 0, 1, 0],
      [2, ...last, 0],
      [2, 0, ...last],
      [1, 0xfe, 0, 0, 0, 2]
    ]) {
      assert.strictEqual(reasonOf(Wire.decode("getblocktxn", concat(hash, wrong)))._tag === "BadValue", true)
    }
    const ten = encoded({ _tag: "tx", transaction: empty })
    for (const wrong of [
      concat([0, 1, 0xfe, 0, 0, 1, 0], ten),
      concat([0, 2], last, ten, [0], ten),
      concat([0, 2, 0], ten, last, ten)
    ]) {
      const reason = reasonOf(Wire.decode("cmpctblock", concat(beginning, wrong)))
      assert.deepStrictEqual(reason, { _tag: "BadValue", field: "prefilled.index", problem: "is above 65535" })
    }
  })

  it("that do not ascend, or are not integers of 16 bits, are refused by the encoder", () => {
    for (const indexes of [[1, 1], [2, 1], [-1], [0.5], [65_536], [Number.NaN]]) {
      assert.strictEqual(problem({ ...request, indexes })._tag, "BadValue")
      const prefilled = indexes.map((index) => ({ index, transaction }))
      assert.strictEqual(problem({ ...compact, prefilled })._tag, "BadValue")
    }
  })

  it("are at most 65,536, one of each value", () => {
    const all = encoded({ ...request, indexes: numbers(65_536) })
    assert.strictEqual(all.length, 32 + 5 + 65_536)
    assert.strictEqual((decoded("getblocktxn", all) as Wire.GetBlockTxn).indexes.at(-1), 65_535)
    assert.strictEqual(problem({ ...request, indexes: numbers(65_537) })._tag, "TooMany")
    const count = [0xfe, 1, 0, 1, 0]
    assert.strictEqual(
      reasonOf(Wire.decode("getblocktxn", concat(hash, count, new Uint8Array(65_537))))._tag,
      "TooMany"
    )
  })

  it("may be empty: the message decodes", () => {
    const none = decoded("getblocktxn", concat(hash, [0])) as Wire.GetBlockTxn
    assert.strictEqual(none.indexes.length, 0)
  })
})

describe("short ids", () => {
  it("have 48 bits, lowest byte first", () => {
    const payload = encoded({ ...compact, shortIds: [0x060504030201, 2 ** 48 - 1], prefilled: [] })
    assert.deepStrictEqual(payload.subarray(88), concat([2, 1, 2, 3, 4, 5, 6, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]))
    assert.deepStrictEqual(Array.from((decoded("cmpctblock", payload) as Wire.CmpctBlock).shortIds), [
      0x060504030201,
      2 ** 48 - 1
    ])
  })

  it("of other sizes are refused by the encoder", () => {
    for (const shortId of [-1, 2 ** 48, 0.5, Number.NaN]) {
      assert.strictEqual(problem({ ...compact, shortIds: [shortId] })._tag, "BadValue")
    }
  })

  it("and prefilled transactions together are at most 65,535", () => {
    const most = { ...compact, shortIds: numbers(65_534), prefilled: [{ index: 0, transaction: empty }] }
    const payload = encoded(most)
    assert.deepStrictEqual(encoded(plain(decoded("cmpctblock", payload))), payload)
    assert.strictEqual(problem({ ...most, shortIds: numbers(65_535) })._tag, "TooMany")
    assert.strictEqual(problem({ ...most, shortIds: numbers(65_536), prefilled: [] })._tag, "TooMany")
    const six = new Uint8Array(65_535 * 6)
    const ten = encoded({ _tag: "tx", transaction: empty })
    const count = [0xfd, 0xff, 0xff]
    assert.isTrue(Result.isSuccess(Wire.decode("cmpctblock", concat(beginning, count, six, [0]))))
    const reason = reasonOf(Wire.decode("cmpctblock", concat(beginning, count, six, [1, 0], ten)))
    assert.deepStrictEqual(reason, { _tag: "TooMany", field: "prefilled", count: 1, limit: 0 })
  })
})

describe("counts without their elements", () => {
  const counts: ReadonlyArray<ReadonlyArray<number>> = [
    [0xfd, 0xfd, 0xff],
    [0xfe, 0, 0, 1, 0],
    [0xfe, 0, 0, 0, 2],
    [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
  ]
  it("allocate nothing", () => {
    const before = process.memoryUsage().arrayBuffers
    for (const count of counts) {
      for (const [command, payload] of [
        ["cmpctblock", concat(beginning, count)],
        ["cmpctblock", concat(beginning, [0], count)],
        ["getblocktxn", concat(hash, count)],
        ["blocktxn", concat(hash, count)]
      ] as const) {
        assert.include(["TooMany", "Truncated", "BadCompactSize"], reasonOf(Wire.decode(command, payload))._tag)
      }
    }
    assert.isBelow(process.memoryUsage().arrayBuffers - before, 100_000)
  })
})

describe("bytes after the last field", () => {
  it("are tolerated unless the options say otherwise", () => {
    for (const tag of ["cmpctblock", "getblocktxn", "blocktxn"] as const) {
      const payload = concat(encoded(example(tag)), [1])
      assert.isTrue(Result.isSuccess(Wire.decode(tag, payload)))
      const strict = Wire.decode(tag, payload, { trailingBytes: "malformed" })
      assert.deepStrictEqual(reasonOf(strict), { _tag: "TrailingBytes", count: 1 })
    }
  })
})
