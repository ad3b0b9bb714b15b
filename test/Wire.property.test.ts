/** Properties of the codec: round trips, malformed bytes, wrong counts, incremental parsing. */
import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Result from "effect/Result"
import * as Wire from "../src/Wire.ts"
import {
  bytes,
  concat,
  decoded,
  encoded,
  examples,
  integer,
  message,
  messages,
  plain,
  transaction
} from "./support/generators.ts"

const magic = Uint8Array.of(0xf9, 0xbe, 0xb4, 0xd9)

const commands = [...examples.map(Wire.command), "alert"]

/** Reads every element of every lazy list. */
const touch = (value: unknown): string =>
  JSON.stringify(value, (_, part) => (typeof part === "bigint" ? `${part}` : part))

/**
 * Whether decoding, reading all lists and encoding again work without a defect. Alerts, integers beyond 2^53 and unknown
 * commands that no frame can have are not encoded.
 */
const isTotal = (command: string, payload: Uint8Array): boolean => {
  const result = Wire.decode(command, payload)
  if (Result.isFailure(result)) return result.failure instanceof Wire.WireError && result.failure.message.length > 0
  touch(result.success)
  const again = Wire.encode(result.success)
  const { _tag } = result.success
  return Result.isSuccess(again) || again.failure.message.includes("2^53") || _tag === "Unknown" || _tag === "alert"
}

describe("a message of every type", () => {
  for (const [tag, generator] of Object.entries(messages)) {
    it.prop(
      `${tag}: decodes to the encoded message, and encodes to the same bytes as views and as arrays`,
      [generator as Arbitrary.Arbitrary<Wire.Message>],
      ([sent]) => {
        const payload = encoded(sent)
        const received = decoded(Wire.command(sent), payload)
        assert.deepStrictEqual(plain(received), plain(sent))
        assert.deepStrictEqual(encoded(received), payload)
        assert.deepStrictEqual(encoded(plain(received)), payload)
      },
      { arbitrary: { runs: 60, seed: tag } }
    )
  }

  it("has exactly one example", () => {
    assert.deepStrictEqual(examples.map((example) => example._tag).toSorted(), Object.keys(messages).toSorted())
  })

  for (const example of examples) {
    it(`${example._tag}: truncated at any byte it is Truncated, or valid if the missing fields are optional`, () => {
      const payload = encoded(example)
      const optional = new Set<number>()
      if (example._tag === "version") for (const size of [46, 80, 91, 95]) optional.add(size)
      if (example._tag === "ping") optional.add(0)
      if (example._tag === "reject") optional.add(payload.length - 32)
      for (let size = 0; size < payload.length; size++) {
        const cut = Wire.decode(example._tag, payload.slice(0, size))
        if (example._tag === "Unknown" || optional.has(size)) assert.isTrue(Result.isSuccess(cut), `${size} bytes`)
        else assert.strictEqual(Result.isFailure(cut) && cut.failure.reason._tag, "Truncated", `${size} bytes`)
      }
    })

    it(`${example._tag}: with any one byte changed it decodes or fails without a defect`, () => {
      const payload = encoded(example)
      for (let offset = 0; offset < payload.length; offset++) {
        for (const value of [0, 1, 0x7f, 0xfc, 0xfd, 0xfe, 0xff, payload[offset] ^ 1]) {
          const changed = payload.slice()
          changed[offset] = value
          assert.isTrue(isTotal(example._tag, changed), `byte ${offset} = ${value}`)
        }
      }
    })
  }
})

describe("arbitrary bytes", () => {
  it.prop(
    "decode or fail without a defect, as every command",
    [bytes(400)],
    ([payload]) => commands.every((command) => isTotal(command, payload)),
    { arbitrary: { runs: 500, seed: 1 } }
  )

  it.prop(
    "decode or fail without a defect after a valid beginning, for every command",
    [message, integer(0, 400), bytes(400)],
    ([example, cut, tail]) => isTotal(Wire.command(example), concat(encoded(example).subarray(0, cut), tail)),
    { arbitrary: { runs: 1_000, seed: 2 } }
  )

  it.prop(
    "cause no defect in the parser, and no events after its failure",
    [bytes(400), bytes(3)],
    ([stream, magicTail]) => {
      const own = concat(magicTail, magic).subarray(0, 4)
      const parser = Wire.makeParser({ magic: own })
      parser.push(concat(own, stream))
      return parser.failure === undefined || parser.push(stream).length === 0
    },
    { arbitrary: { runs: 300, seed: 3 } }
  )
})

describe("a wrong count", () => {
  const counts = [
    [0xfd, 0xff, 0xff],
    [0xfe, 0xff, 0xff, 0xff, 0xff],
    [0xfe, 0, 0, 0, 2],
    [0xfe, 1, 0, 0, 2],
    [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]
  ]

  it("at any offset of any message causes no defect", () => {
    for (const example of examples) {
      const payload = encoded(example)
      for (let offset = 0; offset < payload.length; offset++) {
        for (const count of counts) {
          const lying = concat(payload.subarray(0, offset), count, payload.subarray(offset + 1))
          assert.isTrue(isTotal(example._tag, lying))
        }
      }
    }
  })

  it("at the start of a list is TooMany, Truncated or BadCompactSize, and allocates nothing", () => {
    const before = process.memoryUsage().arrayBuffers
    for (const command of ["inv", "getdata", "notfound", "addr", "addrv2", "headers"]) {
      const reasons = counts.map((count) => {
        const result = Wire.decode(command, Uint8Array.from(count))
        return Result.isFailure(result) ? result.failure.reason._tag : "decoded"
      })
      // A truncated message is Truncated, not TooMany, except `headers`, which is checked by its count alone.
      const cut = command === "headers" ? "TooMany" : "Truncated"
      assert.deepStrictEqual(reasons, [cut, "BadCompactSize", cut, "BadCompactSize", "BadCompactSize"])
    }
    const header = new Uint8Array(80)
    const reasons = counts.map((count) => {
      const result = Wire.decode("block", concat(header, count))
      return Result.isFailure(result) ? result.failure.reason._tag : "decoded"
    })
    assert.deepStrictEqual(reasons, ["Truncated", "BadCompactSize", "Truncated", "BadCompactSize", "BadCompactSize"])
    assert.isBelow(process.memoryUsage().arrayBuffers - before, 100_000)
  })
})

describe("incremental parsing", () => {
  it.prop(
    "gives the same events for any chunks of any stream",
    [
      Arbitrary.array(message, { minLength: 1, maxLength: 8 }),
      Arbitrary.array(integer(0, 600), { maxLength: 30 }),
      integer(1, 40)
    ],
    ([sent, sizes, rest]) => {
      const stream = Result.getOrThrow(Wire.encodeFrames(magic, sent))
      const parser = Wire.makeParser({ magic })
      const events: Array<Wire.ParserEvent> = []
      let offset = 0
      for (const size of sizes) events.push(...parser.push(stream.slice(offset, (offset += size))))
      for (; offset < stream.length; offset += rest) events.push(...parser.push(stream.slice(offset, offset + rest)))
      assert.deepStrictEqual(
        events.map((event) => (event._tag === "Received" ? plain(event.message) : event.error)),
        sent.map(plain)
      )
      assert.strictEqual(parser.buffered, 0)
      assert.isUndefined(parser.failure)
    },
    { arbitrary: { runs: 200, seed: 4 } }
  )
})

describe("a transaction", () => {
  it.prop(
    "has the same ids as views, as plain data, and with lists of both kinds",
    [transaction],
    ([made]) => {
      const read = Result.getOrThrow(Wire.decodeTransaction(Result.getOrThrow(Wire.encodeTransaction(made))))
      const mixed = [
        read,
        { ...read, inputs: made.inputs },
        { ...read, outputs: made.outputs },
        { ...made, inputs: Array.from(read.inputs) }
      ]
      for (const other of mixed) {
        assert.deepStrictEqual(Wire.txid(other), Wire.txid(made))
        assert.deepStrictEqual(Wire.wtxid(other), Wire.wtxid(made))
        assert.deepStrictEqual(Wire.encodeTransaction(other), Wire.encodeTransaction(made))
      }
    },
    { arbitrary: { runs: 100, seed: 5 } }
  )

  it.prop(
    "that is decoded and then changed encodes like plain data with the same change",
    [transaction, transaction],
    ([made, other]) => {
      const read = Result.getOrThrow(Wire.decodeTransaction(Result.getOrThrow(Wire.encodeTransaction(made))))
      const different = Result.getOrThrow(Wire.decodeTransaction(Result.getOrThrow(Wire.encodeTransaction(other))))
      const changes: ReadonlyArray<readonly [Wire.Transaction, Wire.Transaction]> = [
        [
          { ...read, lockTime: 5 },
          { ...made, lockTime: 5 }
        ],
        [
          { ...read, version: 0xffffffff },
          { ...made, version: 0xffffffff }
        ],
        [
          { ...read, inputs: different.inputs },
          { ...made, inputs: other.inputs }
        ],
        [
          { ...read, outputs: different.outputs },
          { ...made, outputs: other.outputs }
        ]
      ]
      for (const [changed, expected] of changes) {
        assert.deepStrictEqual(Wire.encodeTransaction(changed), Wire.encodeTransaction(expected))
        assert.deepStrictEqual(Wire.txid(changed), Wire.txid(expected))
        assert.deepStrictEqual(Wire.wtxid(changed), Wire.wtxid(expected))
      }
    },
    { arbitrary: { runs: 100, seed: 6 } }
  )
})
