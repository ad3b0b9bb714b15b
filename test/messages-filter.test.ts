/** The messages of bloom filters (BIP37). */
import { assert, describe, it } from "@effect/vitest"
import * as Wire from "../src/Wire.ts"
import { concat, decoded, encoded, examples, plain, reasonOf } from "./support/generators.ts"

const merkleblock = examples.find((message) => message._tag === "merkleblock")!

describe("filterload", () => {
  const largest: Wire.FilterLoad = {
    _tag: "filterload",
    filter: new Uint8Array(36_000).fill(0xa5),
    hashFunctions: 50,
    tweak: 0xffffffff,
    flags: 0xff
  }

  it("has a filter of at most 36,000 bytes", () => {
    const payload = encoded(largest)
    assert.strictEqual(payload.length, 3 + 36_000 + 9)
    assert.deepStrictEqual(plain(decoded("filterload", payload)), largest)
    const tooMany = { _tag: "TooMany", field: "filter", count: 36_001, limit: 36_000 } as const
    assert.deepStrictEqual(reasonOf(Wire.encode({ ...largest, filter: new Uint8Array(36_001) })), tooMany)
    const bytes = concat([0xfd, 0xa1, 0x8c], new Uint8Array(36_001 + 9))
    assert.deepStrictEqual(reasonOf(Wire.decode("filterload", bytes)), tooMany)
  })

  it("has at most 50 hash functions", () => {
    const tooMany = { _tag: "TooMany", field: "hashFunctions", count: 51, limit: 50 } as const
    assert.deepStrictEqual(reasonOf(Wire.encode({ ...largest, hashFunctions: 51 })), tooMany)
    assert.deepStrictEqual(reasonOf(Wire.decode("filterload", Uint8Array.of(0, 51, 0, 0, 0, 0, 0, 0, 0, 0))), tooMany)
  })

  it("may have an empty filter and 0 hash functions", () => {
    const message: Wire.FilterLoad = { ...largest, filter: new Uint8Array(0), hashFunctions: 0 }
    assert.deepStrictEqual(plain(decoded("filterload", encoded(message))), message)
  })

  it("is refused with numbers that do not fit", () => {
    for (const wrong of [{ hashFunctions: -1 }, { hashFunctions: 1.5 }, { tweak: 2 ** 32 }, { flags: 256 }]) {
      assert.strictEqual(reasonOf(Wire.encode({ ...largest, ...wrong }))._tag, "BadValue")
    }
  })
})

describe("filteradd", () => {
  it("has at most 520 bytes", () => {
    const message: Wire.FilterAdd = { _tag: "filteradd", data: new Uint8Array(520).fill(7) }
    assert.deepStrictEqual(plain(decoded("filteradd", encoded(message))), message)
    const tooMany = { _tag: "TooMany", field: "data", count: 521, limit: 520 } as const
    assert.deepStrictEqual(reasonOf(Wire.encode({ ...message, data: new Uint8Array(521) })), tooMany)
    assert.deepStrictEqual(reasonOf(Wire.decode("filteradd", concat([0xfd, 0x09, 0x02], new Uint8Array(521)))), tooMany)
  })
})

describe("merkleblock", () => {
  it("limits hashes and flags only by the size of the payload", () => {
    const fixed = encoded({ ...merkleblock, hashes: [], flags: new Uint8Array(0) }).subarray(0, 84)
    const hashes = 124_990
    const payload = concat(fixed, [0xfe, 0x3e, 0xe8, 1, 0], new Uint8Array(hashes * 32), [3, 1, 2, 3])
    const message = decoded("merkleblock", payload) as Wire.MerkleBlock
    assert.strictEqual(message.hashes.length, hashes)
    assert.deepStrictEqual(message.flags, Uint8Array.of(1, 2, 3))
    for (const count of [
      [0xfd, 0xff, 0xff],
      [0xfe, 0, 0, 0, 2]
    ]) {
      assert.strictEqual(
        reasonOf(Wire.decode("merkleblock", concat(fixed, count, new Uint8Array(99))))._tag,
        "Truncated"
      )
      assert.strictEqual(reasonOf(Wire.decode("merkleblock", concat(fixed, [0], count)))._tag, "Truncated")
    }
  })

  it("has hashes that are views over the payload", () => {
    const payload = encoded(merkleblock)
    assert.strictEqual((decoded("merkleblock", payload) as Wire.MerkleBlock).hashes.at(1)?.buffer, payload.buffer)
  })

  it("is refused with a hash that is not 32 bytes or a count that is not uint32", () => {
    for (const wrong of [{ hashes: [new Uint8Array(31)] }, { transactionCount: -1 }, { transactionCount: 2 ** 32 }]) {
      assert.strictEqual(reasonOf(Wire.encode({ ...merkleblock, ...wrong }))._tag, "BadValue")
    }
  })
})

describe("bytes after the last field", () => {
  it("are tolerated, or TrailingBytes where the options say so", () => {
    for (const command of ["filterload", "filteradd", "filterclear", "merkleblock"]) {
      const payload = concat(encoded(examples.find((message) => message._tag === command)!), [1, 2])
      assert.strictEqual(decoded(command, payload)._tag, command)
      const strict = Wire.decode(command, payload, { trailingBytes: "malformed" })
      assert.deepStrictEqual(reasonOf(strict), { _tag: "TrailingBytes", count: 2 })
    }
  })
})
