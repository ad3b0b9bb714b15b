/** The format of a capture: writing and reading records. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Result } from "effect"
import { Capture } from "effect-bitcoin-peer"
import { bytes as bytesOf, concat, integer } from "./support/generators.ts"
import { encode, ping, empty, odd, three, cut, readAll } from "./support/captures.ts"

const captured: Arbitrary.Arbitrary<Capture.Captured> = Arbitrary.map(
  Arbitrary.all([integer(0, Number.MAX_SAFE_INTEGER), bytesOf(12), bytesOf(3000)]),
  ([time, letters, payload]) => ({
    time,
    command: Array.from(letters, (byte) => String.fromCharCode(0x20 + (byte % 0x5f))).join(""),
    payload
  })
)

describe("a record", () => {
  it("has the time, the command padded with zeros, the length and the payload", () => {
    assert.deepStrictEqual(
      Buffer.from(encode(ping)).toString("hex"),
      "4022201824 0a0600 70696e670000000000000000 08000000 0102030405060708".replaceAll(" ", "")
    )
  })

  it.prop(
    "decodes to the encoded value, for any split of the file",
    [Arbitrary.array(captured, { maxLength: 5 }), integer(1, 100)],
    ([all, size]) => {
      const { error, reader, records } = readAll(cut(concat(...all.map(encode)), size))
      assert.deepStrictEqual(records, all)
      assert.isUndefined(error)
      assert.strictEqual(reader.buffered, 0)
    }
  )

  it("is not encoded from invalid values", () => {
    const reasonOf = (fields: Partial<Capture.Captured>) => {
      const result = Capture.encode({ ...ping, ...fields })
      return Result.isFailure(result) ? result.failure.reason : undefined
    }
    for (const command of ["a command too long", "caf\xe9", "\0"]) {
      assert.deepInclude(reasonOf({ command }), { _tag: "BadValue", field: "command" })
    }
    for (const time of [-1, 0.5, NaN, 2 ** 53])
      assert.deepInclude(reasonOf({ time }), { _tag: "BadValue", field: "time" })
    assert.isUndefined(reasonOf({ payload: new Uint8Array(4_000_000) }))
    assert.deepInclude(reasonOf({ payload: new Uint8Array(4_000_001) }), { _tag: "PayloadTooLarge", length: 4_000_001 })
  })
})

describe("the reader", () => {
  it("returns all complete records of a truncated capture, with the place and kind of its end", () => {
    const starts = [0, 32, 56, 81]
    for (let length = 0; length <= three.length; length++) {
      for (const chunks of [[three.slice(0, length)], cut(three.slice(0, length), 1)]) {
        const { error, records } = readAll(chunks)
        const whole = starts.findLastIndex((start) => start <= length)
        assert.deepStrictEqual(records, [ping, empty, odd].slice(0, whole))
        if (length === starts[whole]) assert.isUndefined(error)
        else {
          const known = length - starts[whole] >= 24 ? starts[whole + 1] - length : 24 - (length - starts[whole])
          assert.deepStrictEqual(error, { _tag: "Truncated", offset: starts[whole], missing: known })
        }
      }
    }
  })

  const damaged = (at: number, ...values: ReadonlyArray<number>): Uint8Array => {
    const bytes = three.slice()
    bytes.set(values, 32 + at)
    return bytes
  }
  const wrong: ReadonlyArray<readonly [string, Uint8Array, Capture.CaptureReason]> = [
    ["a time after the year 2255", damaged(6, 0x20), { _tag: "BadTime", offset: 32 }],
    ["a time of 2^53, one more than the last", damaged(0, 0, 0, 0, 0, 0, 0, 0x20, 0), { _tag: "BadTime", offset: 32 }],
    ["a command that is not printable", damaged(9, 0x7f), { _tag: "BadCommand", offset: 32 }],
    ["a command with a byte after the first zero", damaged(19, 0x41), { _tag: "BadCommand", offset: 32 }],
    [
      "a payload one byte too long",
      damaged(20, 0x01, 0x09, 0x3d, 0),
      { _tag: "PayloadTooLarge", offset: 32, length: 4_000_001, limit: 4_000_000 }
    ]
  ]
  for (const [what, bytes, reason] of wrong) {
    it(`reads nothing after ${what}`, () => {
      for (const size of [1, 7, bytes.length]) {
        const { error, reader, records } = readAll(cut(bytes, size))
        assert.deepStrictEqual(error, reason)
        assert.deepStrictEqual(records, [ping])
        assert.strictEqual(reader.failure?.reason, error)
        assert.deepStrictEqual(reader.push(three), [])
        assert.strictEqual(reader.buffered, 0)
      }
    })
  }

  it("reads the largest payload", () => {
    const large = { ...ping, payload: new Uint8Array(4_000_000).fill(7) }
    const { error, records } = readAll(cut(encode(large), 65_536))
    assert.isUndefined(error)
    assert.strictEqual(records[0]!.payload.length, 4_000_000)
    assert.isTrue(records[0]!.payload.every((byte) => byte === 7))
  })

  it("allocates no memory for an announced length", () => {
    const header = encode({ ...ping, payload: new Uint8Array(0) })
    header.set([0, 0x09, 0x3d, 0], 20)
    const before = process.memoryUsage().arrayBuffers
    const readers = Array.from({ length: 100 }, () => {
      const reader = Capture.makeReader()
      reader.push(header)
      reader.push(Uint8Array.of(1))
      return reader
    })
    assert.isBelow(process.memoryUsage().arrayBuffers - before, 1_000_000)
    for (const reader of readers) assert.strictEqual(reader.buffered, 25)
  })

  it("returns payloads that later chunks do not change", () => {
    const reader = Capture.makeReader()
    const records = cut(concat(...Array.from({ length: 50 }, () => encode(ping))), 13).flatMap((chunk) =>
      reader.push(chunk)
    )
    for (const { payload } of records) assert.deepStrictEqual(payload, ping.payload)
  })
})
