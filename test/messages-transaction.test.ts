/** Transactions with and without witnesses, and blocks. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Wire from "../src/Wire.ts"
import { concat, decoded, encoded, examples, plain, reasonOf } from "./support/generators.ts"

const { transaction } = examples.find((message) => message._tag === "tx") as Wire.Tx
const input = transaction.inputs.at(0)!

const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"))
const write = (of: Wire.Transaction): Uint8Array => Result.getOrThrow(Wire.encodeTransaction(of))
const read = (bytes: Uint8Array): Wire.Transaction => Result.getOrThrow(Wire.decodeTransaction(bytes))

const version = [2, 0, 0, 0]
const lockTime = [0, 0, 0, 0]
/** One input with an empty script. */
const oneInput = concat([1], new Uint8Array(36), [0], [0xff, 0xff, 0xff, 0xff])
/** One output with an empty script. */
const oneOutput = concat([1], new Uint8Array(8), [0])

describe("a transaction", () => {
  it("decodes with and without witnesses", () => {
    const plainForm = read(concat(version, oneInput, oneOutput, lockTime))
    const witnessForm = read(concat(version, [0, 1], oneInput, oneOutput, [1, 2, 9, 9], lockTime))
    assert.deepStrictEqual(plain(witnessForm), {
      ...plain(plainForm),
      inputs: [{ ...plainForm.inputs.at(0)!, witness: [Uint8Array.of(9, 9)] }]
    })
    assert.deepStrictEqual(Wire.txid(witnessForm), Wire.txid(plainForm))
    assert.notDeepEqual(Wire.wtxid(witnessForm), Wire.wtxid(plainForm))
  })

  it("is malformed with unknown flags", () => {
    for (const flags of [2, 3, 0x80, 0xff]) {
      const bytes = concat(version, [0, flags], oneInput, oneOutput, [0], lockTime)
      assert.strictEqual(reasonOf(Wire.decodeTransaction(bytes))._tag, "BadValue")
    }
  })

  it("is malformed in the witness form without any witness", () => {
    const superfluous = concat(version, [0, 1], oneInput, oneOutput, [0], lockTime)
    assert.strictEqual(reasonOf(Wire.decodeTransaction(superfluous))._tag, "BadValue")
    const nothing = concat(version, [0, 1, 0, 0], lockTime)
    assert.strictEqual(reasonOf(Wire.decodeTransaction(nothing))._tag, "BadValue")
  })

  it("without inputs decodes only if it has no outputs either, as in Bitcoin Core", () => {
    const empty = concat(version, [0, 0], lockTime)
    assert.deepStrictEqual(plain(read(empty)), { version: 2, inputs: [], outputs: [], lockTime: 0 })
    assert.deepStrictEqual(write(read(empty)), empty)
    assert.isTrue(Result.isFailure(Wire.decodeTransaction(concat(version, [0], oneOutput, lockTime))))
  })

  it("with outputs but no inputs is refused in every message, because its bytes would decode as the witness form", () => {
    const made = { ...transaction, inputs: [] }
    const { header } = (examples.find((message) => message._tag === "block") as Wire.BlockMessage).block
    const results = [
      Wire.encodeTransaction(made),
      Wire.encodeTransaction(Result.getOrThrow(Wire.decodeRawTransaction(concat(version, [0], oneOutput, lockTime)))),
      Wire.encode({ _tag: "tx", transaction: made }),
      Wire.encode({ _tag: "block", block: { header, transactions: [transaction, made] } }),
      Wire.encode({ _tag: "blocktxn", blockHash: new Uint8Array(32), transactions: [made] }),
      Wire.encode({
        _tag: "cmpctblock",
        header,
        nonce: 0n,
        shortIds: [],
        prefilled: [{ index: 0, transaction: made }]
      }),
      Wire.encode({ _tag: "pkgtxns", transactions: [made] })
    ]
    for (const result of results) {
      const reason = reasonOf(result)
      assert(reason._tag === "BadValue")
      assert.strictEqual(reason.field, "inputs")
    }
    // Wallet tools make such transactions; their ids are the hashes of these bytes.
    const raw = concat(version, [0], oneOutput, lockTime)
    const read = Result.getOrThrow(Wire.decodeRawTransaction(raw))
    assert.deepStrictEqual(Wire.txid(plain(read)), Wire.txid(read))
    assert.strictEqual(Wire.transactionSize(plain(read)), raw.length)
  })

  it("has an unsigned version of 32 bits", () => {
    const bytes = concat([0xff, 0xff, 0xff, 0xff], oneInput, oneOutput, lockTime)
    assert.strictEqual(read(bytes).version, 2 ** 32 - 1)
    assert.deepStrictEqual(write(plain(read(bytes))), bytes)
  })

  it("with trailing bytes is not one transaction", () => {
    const result = Wire.decodeTransaction(concat(write(transaction), [0]))
    assert.deepStrictEqual(reasonOf(result), { _tag: "TrailingBytes", count: 1 })
    assert.strictEqual(decoded("tx", concat(write(transaction), [0]))._tag, "tx")
  })

  it("keeps amounts beyond 2^53 as long as its decoded outputs are not replaced", () => {
    const bytes = concat(version, oneInput, [1], new Uint8Array(7).fill(0xff), [0x7f, 0], lockTime)
    const huge = read(bytes)
    assert.deepStrictEqual(write(huge), bytes)
    assert.deepStrictEqual(write({ ...huge, lockTime: 7 }), concat(bytes.subarray(0, -4), [7, 0, 0, 0]))
    assert.strictEqual(reasonOf(Wire.encodeTransaction(plain(huge)))._tag, "BadValue")
    const minusOne = read(concat(version, oneInput, [1], new Uint8Array(8).fill(0xff), [0], lockTime))
    assert.strictEqual(minusOne.outputs.at(0)?.value, -1)
    assert.deepStrictEqual(write(plain(minusOne)), write(minusOne))
  })

  it("can be spread and changed", () => {
    const bytes = write(transaction)
    const changed = { ...read(bytes), lockTime: 5 }
    assert.deepStrictEqual(write(changed), concat(bytes.subarray(0, -4), [5, 0, 0, 0]))
    assert.deepStrictEqual(Wire.wtxid(changed), Wire.wtxid({ ...transaction, lockTime: 5 }))
    const stripped = { ...changed, inputs: Array.from(changed.inputs, (input) => ({ ...input, witness: [] })) }
    assert.deepStrictEqual(Wire.txid(stripped), Wire.txid(changed))
    assert.deepStrictEqual(Wire.wtxid(stripped), Wire.txid(changed))
  })

  it("gives inputs and witnesses at any index, in any order", () => {
    const inputs = Array.from({ length: 50 }, (_, i) => ({
      ...input,
      script: new Uint8Array(i),
      witness: Array.from({ length: i % 4 }, (_, j) => new Uint8Array(i * j))
    }))
    const list = read(write({ ...transaction, inputs })).inputs
    for (const index of [49, 0, 25, 26, 27, 3, 3, 2, 49, 48, 0, -1]) {
      assert.deepStrictEqual(plain(list.at(index)), inputs.at(index))
    }
    assert.deepStrictEqual(plain(list), inputs)
    const stack = list.at(47)!.witness
    assert.deepStrictEqual(
      [stack.at(2), stack.at(0), stack.at(1), stack.at(-1), stack.at(3)],
      [inputs[47].witness[2], inputs[47].witness[0], inputs[47].witness[1], inputs[47].witness[2], undefined]
    )
  })

  it("has lists that support nested and incomplete iterations", () => {
    const item = (byte: number) => new Uint8Array(byte).fill(byte)
    const made: Wire.Transaction = {
      version: 1,
      inputs: [1, 2, 3].map((byte) => ({
        previousOutput: { txid: new Uint8Array(32).fill(byte), index: byte },
        script: item(byte),
        sequence: byte,
        // One input without a witness between two inputs with one.
        witness: byte === 2 ? [] : [item(byte), item(0), item(200)]
      })),
      outputs: [1, 2, 3].map((value) => ({ value, script: item(value) })),
      lockTime: 0
    }
    const { inputs, outputs } = (decoded("tx", encoded({ _tag: "tx", transaction: made })) as Wire.Tx).transaction
    for (const _ of inputs) break
    for (const outer of inputs) {
      for (const inner of inputs) {
        const expected = made.inputs.at(inner.sequence - 1)
        assert.deepStrictEqual({ ...inner, witness: Array.from(inner.witness) }, expected)
        assert.deepStrictEqual(plain(inputs.at(outer.sequence - 1)), made.inputs.at(outer.sequence - 1))
      }
    }
    for (const outer of outputs) {
      assert.deepStrictEqual(Array.from(outputs), made.outputs)
      assert.deepStrictEqual(outputs.at(outer.value - 1), outer)
    }
  })

  it("is refused if a value does not fit its field", () => {
    const outPoint = input.previousOutput
    const wrong: ReadonlyArray<Wire.Transaction> = [
      { ...transaction, version: 2 ** 32 },
      { ...transaction, version: -1 },
      { ...transaction, lockTime: -1 },
      { ...transaction, lockTime: 2 ** 32 },
      { ...transaction, inputs: [{ ...input, sequence: 1.5 }] },
      { ...transaction, inputs: [{ ...input, previousOutput: { ...outPoint, index: -1 } }] },
      { ...transaction, inputs: [{ ...input, previousOutput: { ...outPoint, txid: new Uint8Array(31) } }] },
      { ...transaction, outputs: [{ value: 2 ** 53, script: new Uint8Array(0) }] },
      { ...transaction, outputs: [{ value: 0.1, script: new Uint8Array(0) }] }
    ]
    for (const of of wrong) {
      assert.strictEqual(reasonOf(Wire.encodeTransaction(of))._tag, "BadValue")
      assert.throws(() => Wire.txid(of), Wire.WireError)
    }
  })

  it("is refused above 4,000,000 bytes, before more memory is allocated", () => {
    const script = new Uint8Array(1_000_000)
    const fits = { ...transaction, inputs: [input], outputs: Array.from({ length: 3 }, () => ({ value: 0, script })) }
    assert.isTrue(Result.isSuccess(Wire.encodeTransaction(fits)))
    const large = {
      ...fits,
      outputs: { length: 1_000, at: () => ({ value: 0, script }), [Symbol.iterator]: () => [][Symbol.iterator]() }
    }
    assert.strictEqual(reasonOf(Wire.encodeTransaction(large))._tag, "PayloadTooLarge")
  })

  it("has the known txid", () => {
    // The coinbase of the genesis block.
    const bytes = bytesOf(
      "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054696d6573" +
        "2030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420666f722062616e6b" +
        "73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f4cef38c4f355" +
        "04e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000"
    )
    const id = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
    assert.strictEqual(Wire.hashToHex(Wire.txid(read(bytes))), id)
    assert.strictEqual(Wire.hashToHex(Wire.wtxid(plain(read(bytes)))), id)
    assert.strictEqual(read(bytes).outputs.at(0)?.value, 50_0000_0000)
  })
})

describe("a block", () => {
  const block = examples.find((message) => message._tag === "block") as Wire.BlockMessage

  it("has transactions whose lists can be combined", () => {
    const other = { ...transaction, outputs: [{ value: 7, script: Uint8Array.of(1, 2, 3) }] }
    const two = { ...block, block: { ...block.block, transactions: [transaction, other] } }
    const [first, second] = (decoded("block", encoded(two)) as Wire.BlockMessage).block.transactions
    assert.deepStrictEqual(write({ ...first, outputs: second.outputs }), write(other))
    assert.deepStrictEqual(Wire.wtxid({ ...second, outputs: first.outputs }), Wire.wtxid(transaction))
  })

  it("may have no transactions", () => {
    const empty = { ...block, block: { ...block.block, transactions: [] } }
    assert.strictEqual(encoded(empty).length, 81)
    assert.deepStrictEqual(plain(decoded("block", encoded(empty))), empty)
  })

  it("is malformed if any of its transactions is", () => {
    const bytes = encoded(block)
    const superfluous = concat(bytes.subarray(0, 80), [1], version, [0, 1], oneInput, oneOutput, [0], lockTime)
    assert.strictEqual(reasonOf(Wire.decode("block", superfluous))._tag, "BadValue")
  })

  it("encodes with another header and the same decoded transactions", () => {
    const read = (decoded("block", encoded(block)) as Wire.BlockMessage).block
    const header = { ...read.header, nonce: 1 }
    const changed: Wire.Message = { _tag: "block", block: { ...read, header } }
    assert.deepStrictEqual(plain(decoded("block", encoded(changed))), plain(changed))
  })
})
