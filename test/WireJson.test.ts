/** `WireJson`: every message encodes to JSON and decodes from it. */
import { assert, describe, it } from "@effect/vitest"
import type * as Arbitrary from "effect/Arbitrary"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Wire from "../src/Wire.ts"
import * as WireJson from "../src/WireJson.ts"
import { decoded, encoded, examples, messages } from "./support/generators.ts"
import { blocks, captures, readBlock, readCapture, readTransactions, readVector } from "./support/vectors.ts"

const Text = Schema.fromJsonString(WireJson.Message)
const write = Schema.encodeSync(Text)
const read = Schema.decodeSync(Text)

/** Asserts that a message decodes from its own JSON to the same plain data and the same bytes on the wire. */
const returns = (message: Wire.Message, payload?: Uint8Array): void => {
  const back = read(write(message))
  if (payload === undefined) assert.deepStrictEqual(back, Wire.toPlain(message))
  else assert.isTrue(Buffer.compare(encoded(back), payload) === 0, `${message._tag}: the bytes differ`)
}

const alert = (): Wire.Message => {
  const signed = [
    ["01000000", "3766404f00000000", "b305434f00000000", "f2030000", "f1030000", "01", "f0030000"],
    ["1027000048ee0000", "02", "022f41", "00", "64000000", "00", "0353656e", "00"]
  ]
  const bytes = Buffer.from(signed.flat().join(""), "hex")
  return decoded("alert", Uint8Array.of(bytes.length, ...bytes, 2, 0x30, 0x45))
}

describe("a message of every type", () => {
  for (const [tag, generator] of Object.entries(messages)) {
    it.prop(
      `${tag}: decodes from its own JSON`,
      [generator as Arbitrary.Arbitrary<Wire.Message>],
      ([made]) => {
        const payload = encoded(made)
        returns(made)
        returns(decoded(Wire.command(made), payload), payload)
      },
      { arbitrary: { runs: 30, seed: tag } }
    )
  }

  it("alert: decodes from its own JSON", () => {
    const message = alert()
    returns(message)
    assert.include(JSON.stringify(Schema.encodeSync(WireJson.Message)(message)), '"userAgents":["2f41",""]')
  })

  it("has a schema", () => {
    const all = new Set([...examples, alert()].map(({ _tag }) => _tag))
    assert.deepStrictEqual(
      Wire.commands.filter((command) => !all.has(command)),
      []
    )
  })
})

describe("real messages", () => {
  for (const name of captures) {
    it(`${name}: each message decodes from its JSON to the same bytes`, () => {
      for (const { command, payload } of readCapture(name)) returns(decoded(command, payload), payload)
    })
  }

  for (const { file } of blocks) {
    it(`${file}: the block decodes from its JSON to the same bytes`, () => {
      const bytes = readBlock(file)
      returns(decoded("block", bytes), bytes)
    })
  }

  for (const number of [426884, 898352]) {
    it(`compact block ${number} decodes from its JSON to the same bytes`, () => {
      const bytes = readVector(`compact/compact${number}.raw`)
      returns(decoded("cmpctblock", bytes), bytes)
    })
  }

  it("filtered block 300,025 decodes from its JSON to the same bytes", () => {
    const bytes = readVector("merkleblock/merkle300025.raw")
    returns(decoded("merkleblock", bytes), bytes)
  })

  it("transactions of Bitcoin Core decode from their JSON, including amounts beyond 2^53", () => {
    let count = 0
    for (const bytes of [...readTransactions("tx_valid"), ...readTransactions("tx_invalid")]) {
      const transaction = Wire.decodeTransaction(bytes)
      if (Result.isFailure(transaction)) continue
      returns({ _tag: "tx", transaction: transaction.success })
      count++
    }
    assert.isAtLeast(count, 200)
  })
})

describe("the JSON", () => {
  const json = Schema.encodeSync(WireJson.Message)

  it("prints hashes as Bitcoin Core does, bytes as hex and 64-bit numbers as decimal strings", () => {
    const { block } = decoded("block", readBlock("block482683")) as Wire.BlockMessage
    const [coinbase] = Wire.toPlain(block).transactions
    const { header } = block
    assert.deepStrictEqual(
      json({
        _tag: "merkleblock",
        header,
        transactionCount: 1,
        hashes: [Wire.txid(coinbase!)],
        flags: Uint8Array.of(1, 0xfe)
      }),
      {
        _tag: "merkleblock",
        header: {
          version: 0x20000002,
          previousBlock: Wire.hashToHex(header.previousBlock),
          merkleRoot: Wire.hashToHex(header.merkleRoot),
          timestamp: header.timestamp,
          bits: header.bits,
          nonce: header.nonce
        },
        transactionCount: 1,
        hashes: [Wire.hashToHex(Wire.txid(coinbase!))],
        flags: "01fe"
      }
    )
    assert.deepStrictEqual(json({ _tag: "pong", nonce: 2n ** 64n - 1n }), {
      _tag: "pong",
      nonce: "18446744073709551615"
    })
  })

  it("omits a missing nonce or hash, and decodes it as undefined", () => {
    assert.strictEqual(write({ _tag: "ping", nonce: undefined }), '{"_tag":"ping"}')
    assert.deepStrictEqual(read('{"_tag":"ping"}'), { _tag: "ping", nonce: undefined })
    const reject = read('{"_tag":"reject","rejected":"tx","code":1,"reason":""}')
    assert.deepStrictEqual(reject, { _tag: "reject", rejected: "tx", code: 1, reason: "", hash: undefined })
  })

  it.each([
    ['{"_tag":"pong","nonce":"18446744073709551616"}', "nonce"],
    ['{"_tag":"pong","nonce":5}', "nonce"],
    ['{"_tag":"pong"}', "nonce"],
    ['{"_tag":"inv","items":[{"type":1,"hash":"ab"}]}', "hash"],
    ['{"_tag":"inv","items":[{"type":4294967296,"hash":"' + "0".repeat(64) + '"}]}', "type"],
    ['{"_tag":"inv","items":null}', "items"],
    ['{"_tag":"filteradd","data":"xyz"}', "data"],
    ['{"_tag":"feefilter","feeRate":0.5}', "feeRate"],
    ['{"_tag":"hello"}', "_tag"]
  ])("refuses %s and names the field", (text, field) => {
    const result = Schema.decodeResult(Text)(text)
    assert.isTrue(Result.isFailure(result))
    if (Result.isFailure(result)) assert.include(result.failure.message, field)
  })

  it("refuses a number of megabytes at once, and describes a wrong _tag in one short line", () => {
    const started = performance.now()
    for (const nonce of ["9".repeat(4_000_000), "1".repeat(21), "-1", "0x10", " 5", ""]) {
      const result = Schema.decodeResult(Text)(JSON.stringify({ _tag: "ping", nonce }))
      assert(Result.isFailure(result))
      assert.include(result.failure.message, "a decimal number of 1 to 20 digits")
      assert.isBelow(result.failure.message.length, 100)
    }
    // BigInt takes about two seconds for the first one.
    assert.isBelow(performance.now() - started, 1_000)
    for (const text of ['{"_tag":"hello"}', '{"_tag":5}', "{}", "[]", "5"]) {
      const result = Schema.decodeResult(Text)(text)
      assert(Result.isFailure(result))
      assert.match(result.failure.message, /^Expected an object whose "_tag" is .* the command of a message$/)
    }
  })

  it("refuses to encode a value that is not a message", () => {
    const encode = Schema.encodeUnknownResult(WireJson.Message)
    for (const value of [
      null,
      5,
      {},
      { _tag: "hello" },
      { _tag: "pong", nonce: 5 },
      { _tag: "inv", items: [{ type: 1, hash: new Uint8Array(31) }] }
    ]) {
      assert.isTrue(Result.isFailure(encode(value)), JSON.stringify(value))
    }
  })

  it("has a JSON Schema for other languages", () => {
    const { schema } = Schema.toJsonSchemaDocument(WireJson.Message)
    assert.include(JSON.stringify(schema), '"getblocktxn"')
  })
})
