/** Hashes, encoding and decoding of single messages, CompactSize and errors. */
import { assert, describe, it } from "@effect/vitest"
import * as Wire from "../src/Wire.ts"
import { decoded, encoded, examples, reasonOf } from "./support/generators.ts"

describe("hashes", () => {
  const genesis = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"

  it("print in reversed hex, and parse from it", () => {
    const hash = Wire.hashFromHex(genesis)
    assert.strictEqual(hash[0], 0x6f)
    assert.strictEqual(Wire.hashToHex(hash), genesis)
    assert.deepStrictEqual(Wire.hashFromHex(genesis.toUpperCase()), hash)
  })

  it("are refused unless they are 64 hexadecimal digits", () => {
    for (const text of [
      "",
      genesis.slice(1),
      `${genesis}0`,
      genesis.replace("6f", "6g"),
      `0x${genesis.slice(2)}`,
      `${genesis}\n`
    ]) {
      assert.throws(() => Wire.hashFromHex(text), Wire.WireError)
    }
  })

  it("of blocks cover the 80 bytes of the header", () => {
    const header = {
      version: 1,
      previousBlock: new Uint8Array(32),
      merkleRoot: Wire.hashFromHex("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"),
      timestamp: 1231006505,
      bits: 0x1d00ffff,
      nonce: 2083236893
    }
    assert.strictEqual(Wire.hashToHex(Wire.blockHash(header)), genesis)
    assert.throws(() => Wire.blockHash({ ...header, bits: -1 }), Wire.WireError)
  })

  it("of an odd level of a merkle tree pair the last one with itself", () => {
    const [a, b, c] = [1, 2, 3].map((byte) => new Uint8Array(32).fill(byte))
    assert.deepStrictEqual(Wire.merkleRoot([]), new Uint8Array(32))
    assert.deepStrictEqual(Wire.merkleRoot([a]), a)
    assert.deepStrictEqual(Wire.merkleRoot([a, b, c]), Wire.merkleRoot([a, b, c, c]))
    const left = Wire.merkleRoot([a, b])
    assert.deepStrictEqual(Wire.merkleRoot([a, b, c]), Wire.merkleRoot([left, Wire.merkleRoot([c, c])]))
    assert.deepStrictEqual(a, new Uint8Array(32).fill(1))
  })
})

describe("a message", () => {
  it("has its tag as command, or the field `command` for Unknown", () => {
    for (const message of examples) {
      assert.strictEqual(Wire.command(message), message._tag === "Unknown" ? message.command : message._tag)
    }
  })

  it("has encoded bytes that later encodings do not change, small or large", () => {
    const item = (byte: number) => ({ type: byte, hash: new Uint8Array(32).fill(byte) })
    for (const count of [1, 1_000, 7_000, 8_000, 50_000]) {
      const payload = encoded({ _tag: "inv", items: Array.from({ length: count }, () => item(1)) })
      const copy = payload.slice()
      encoded({ _tag: "inv", items: Array.from({ length: count }, () => item(2)) })
      assert.isTrue(Buffer.compare(payload, copy) === 0, `${count} items`)
    }
  })

  it("has own properties, so that it can be spread", () => {
    for (const message of examples) {
      if (message._tag === "Unknown") continue
      const spread = { ...decoded(message._tag, encoded(message)) }
      assert.deepStrictEqual(Object.keys(spread).toSorted(), Object.keys(message).toSorted())
    }
  })

  it("can be decoded from a Buffer of Node, into plain Uint8Arrays", () => {
    const unknown = { _tag: "Unknown", command: "x", payload: Buffer.from([1, 2, 3]) } as const
    assert.deepStrictEqual(encoded(unknown), Uint8Array.of(1, 2, 3))
    const hash = encoded({ _tag: "inv", items: [{ type: 1, hash: new Uint8Array(32) }] })
    const inv = decoded("inv", Buffer.from(hash)) as Wire.Inv
    assert.strictEqual(Object.getPrototypeOf(inv.items.at(0)?.hash), Uint8Array.prototype)
  })
})

const blockWithCount = (...count: ReadonlyArray<number>): Wire.WireReason =>
  reasonOf(Wire.decode("block", Uint8Array.from([...new Uint8Array(80), ...count])))

describe("a CompactSize", () => {
  it("must be in its shortest form", () => {
    for (const count of [
      [0xfd, 0xfc, 0],
      [0xfd, 0, 0],
      [0xfe, 0xff, 0xff, 0, 0],
      [0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]
    ]) {
      assert.deepStrictEqual(blockWithCount(...count), { _tag: "BadCompactSize", field: "transactions", offset: 80 })
    }
  })

  it("is at most 0x02000000", () => {
    assert.strictEqual(blockWithCount(0xfe, 0, 0, 0, 2)._tag, "Truncated")
    assert.strictEqual(blockWithCount(0xfe, 1, 0, 0, 2)._tag, "BadCompactSize")
    assert.strictEqual(blockWithCount(0xff, 0, 0, 0, 0, 1, 0, 0, 0)._tag, "BadCompactSize")
  })

  it("that is cut off is Truncated", () => {
    for (const count of [[], [0xfd], [0xfd, 1], [0xfe, 1, 2, 3], [0xff, 1, 2, 3, 4, 5, 6, 7]]) {
      assert.deepStrictEqual(blockWithCount(...count), { _tag: "Truncated", field: "transactions", offset: 80 })
    }
  })
})

describe("a WireError", () => {
  it("has a message of one line with the command and the problem", () => {
    const result = Wire.decode("pong", Uint8Array.of(1))
    assert.strictEqual(
      result._tag === "Failure" && result.failure.message,
      `pong: payload ends inside "nonce" at byte 0`
    )
    assert.strictEqual(result._tag === "Failure" && result.failure.command, "pong")
  })

  it("does not change Error.stackTraceLimit", () => {
    const limit = Error.stackTraceLimit
    Wire.decode("pong", new Uint8Array(1))
    assert.strictEqual(Error.stackTraceLimit, limit)
  })
})
