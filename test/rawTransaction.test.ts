/** Raw transactions of wallet tools, with and without witnesses, decoded as by Bitcoin Core's `decoderawtransaction`. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import { Wire } from "effect-bitcoin-peer"
import { concat, reasonOf } from "./support/generators.ts"
import { readVectorText } from "./support/vectors.ts"

const read = (bytes: Uint8Array): Wire.Transaction => Result.getOrThrow(Wire.decodeRawTransaction(bytes))
const counts = ({ inputs, outputs }: Wire.Transaction): ReadonlyArray<number> => [inputs.length, outputs.length]

const version = [1, 0, 0, 0]
const lockTime = [0, 0, 0, 0]
const output = (...script: ReadonlyArray<number>): Uint8Array => concat(new Uint8Array(8), [script.length], script)
const input = (...script: ReadonlyArray<number>): Uint8Array =>
  concat(new Uint8Array(36).fill(1), [script.length], script, [0, 0, 0, 0])
const coinbaseInput = (...script: ReadonlyArray<number>): Uint8Array =>
  concat(new Uint8Array(32), [0xff, 0xff, 0xff, 0xff, script.length], script, [0, 0, 0, 0])

const inOneForm = {
  "no inputs and one output": [concat(version, [0, 1], output(0x75), lockTime), [0, 1]],
  "no inputs and two outputs": [concat(version, [0, 2], output(0x75), output(), lockTime), [0, 2]],
  "no inputs and no outputs": [concat(version, [0, 0], lockTime), [0, 0]],
  "inputs without witnesses": [concat(version, [1], input(), [1], output(), lockTime), [1, 1]],
  "the witness form": [concat(version, [0, 1, 1], input(), [1], output(), [1, 1, 7], lockTime), [1, 1]]
} as const

describe("a raw transaction", () => {
  for (const [name, [bytes, expected]] of Object.entries(inOneForm)) {
    it(`decodes: ${name}`, () => assert.deepStrictEqual(counts(read(bytes)), expected))
  }

  it("does not decode with trailing or missing bytes, in either form", () => {
    for (const [bytes] of Object.values(inOneForm)) {
      assert.isTrue(Result.isFailure(Wire.decodeRawTransaction(concat(bytes, [0]))))
      assert.isTrue(Result.isFailure(Wire.decodeRawTransaction(bytes.subarray(0, -1))))
    }
    assert.strictEqual(reasonOf(Wire.decodeRawTransaction(new Uint8Array(0)))._tag, "Truncated")
    assert.strictEqual(reasonOf(Wire.decodeRawTransaction(new Uint8Array(4_000_001)))._tag, "PayloadTooLarge")
  })
})

/**
 * Bytes that decode in both forms: with a witness as one input with this script and one output; without, as a single output.
 * The amount of that output ends within the outpoint of the input, and its script is the rest: `fill`, then `inputScript`.
 */
const ambiguous = (inputScript: ReadonlyArray<number>, fill: number): Uint8Array => {
  const rest = concat([inputScript.length], inputScript, [0, 0, 0, 0], [1], output(0x51), [1, 1, 0x51])
  const script = concat(new Uint8Array(28).fill(fill), rest)
  return concat(version, [0, 1], [1], new Uint8Array(7).fill(1), [script.length], script, lockTime)
}

describe("bytes that are a transaction in both forms", () => {
  // OP_NOP10 (the last valid opcode), an invalid opcode, and a truncated push.
  const [last, invalid, cutOff] = [0xb9, 0xba, 0x02]
  const forms = (bytes: Uint8Array) => counts(read(bytes))

  it("decode in the witness form if its scripts are valid, even if those of the other form are valid as well", () => {
    for (const fill of [0x51, invalid]) assert.deepStrictEqual(forms(ambiguous([last], fill)), [1, 1])
  })

  it("decode in the form without witnesses if only its scripts are valid", () => {
    for (const script of [invalid, cutOff]) {
      const bytes = ambiguous([script], 0x51)
      assert.deepStrictEqual(forms(bytes), [0, 1])
      assert.deepStrictEqual(counts(Result.getOrThrow(Wire.decodeTransaction(bytes))), [1, 1])
    }
  })

  it("decode in the witness form if the scripts of neither form are valid", () => {
    for (const script of [invalid, cutOff]) assert.deepStrictEqual(forms(ambiguous([script], invalid)), [1, 1])
  })
})

describe("an invalid input script", () => {
  it("of a coinbase is ignored, because it is not a script", () => {
    const bytes = concat(version, [0, 1, 1], coinbaseInput(0xff), [1], output(), [1, 1, 7], lockTime)
    assert.isTrue(Wire.isCoinbase(read(bytes)))
    assert.deepStrictEqual(counts(read(bytes)), [1, 1])
  })
})

describe("the transactions of Core's tools", () => {
  const raw = Object.entries(JSON.parse(readVectorText("core/raw-transactions.json")) as Record<string, string>)

  /** The counts of inputs and outputs that Bitcoin Core's `decoderawtransaction` gives. */
  const expected: Record<string, readonly [inputs: number, outputs: number]> = {
    "blanktxv1.hex": [0, 0],
    "blanktxv2.hex": [0, 0],
    "tt-delout1-out.hex": [21, 1],
    "tt-locktime317000-out.hex": [21, 2],
    "txcreate1.hex": [3, 2],
    "txcreate2.hex": [0, 1],
    "txcreatedata2.hex": [1, 2],
    "txcreatedata_seq0.hex": [1, 1],
    "txcreatemultisig1.hex": [0, 1],
    "txcreatemultisig2.hex": [0, 1],
    "txcreatemultisig4.hex": [0, 1],
    "txcreateoutpubkey1.hex": [0, 1],
    "txcreateoutpubkey3.hex": [0, 1],
    "txcreatescript1.hex": [0, 1],
    "txcreatescript3.hex": [0, 1],
    "txcreatescript4.hex": [0, 1],
    "txcreatescript6.hex": [0, 1],
    "txcreatesignsegwit1.hex": [1, 1],
    "txcreatesignv2.hex": [1, 1],
    "txreplace1.hex": [3, 0],
    "txreplaceomittedn.hex": [3, 0],
    "txreplacesingleinput.hex": [1, 0]
  }

  for (const [name, hex] of raw) {
    it(`include ${name}, which decodes`, () => {
      const bytes = Uint8Array.from(Buffer.from(hex, "hex"))
      assert.deepStrictEqual(counts(read(bytes)), expected[name])
      assert.strictEqual(Wire.transactionSize(read(bytes)), bytes.length)
    })
  }

  it("are 22 in number", () => assert.strictEqual(raw.length, 22))
})
