/** The decoders on real bytes: captures of Bitcoin Core, blocks, and transactions of its unit tests. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Wire from "../src/Wire.ts"
import { decoded, encoded, plain } from "./support/generators.ts"
import { blocks, captures, readBlock, readCapture, readChain, readTransactions } from "./support/vectors.ts"

const decodedBlock = (bytes: Uint8Array): Wire.Block => (decoded("block", bytes) as Wire.BlockMessage).block

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

/** One comparison of two strings is far faster than `deepStrictEqual` of large arrays. */
const sameBytes = (actual: Uint8Array, expected: Uint8Array): void =>
  assert.isTrue(Buffer.compare(actual, expected) === 0, "the bytes differ")

describe("captures of a Bitcoin Core node", () => {
  for (const name of captures) {
    it(`${name}: every message decodes and encodes to the same bytes, from views and from plain arrays`, () => {
      let known = 0
      for (const { command, payload } of readCapture(name)) {
        const message = Result.getOrThrow(Wire.decode(command, payload, { trailingBytes: "malformed" }))
        sameBytes(encoded(message), payload)
        sameBytes(encoded(plain(message)), payload)
        assert.strictEqual(Wire.command(message), command)
        if (message._tag !== "Unknown") known++
      }
      assert.isAtLeast(known, 8)
    })

    it(`${name}: the frames of all messages parse in one chunk and in chunks of 100 bytes`, () => {
      const magic = Uint8Array.of(0xfa, 0xbf, 0xb5, 0xda)
      const records = readCapture(name)
      const stream = Result.getOrThrow(
        Wire.encodeFrames(
          magic,
          records.map(({ command, payload }) => decoded(command, payload))
        )
      )
      const whole = Wire.makeParser({ magic }).push(stream)
      const parser = Wire.makeParser({ magic })
      const parts: Array<Wire.ParserEvent> = []
      for (let i = 0; i < stream.length; i += 100) parts.push(...parser.push(stream.subarray(i, i + 100)))
      for (const events of [whole, parts]) {
        assert.strictEqual(events.length, records.length)
        events.forEach((event, index) => {
          assert.strictEqual(event.size, records[index].payload.length + 24)
          if (event._tag === "Received") sameBytes(encoded(event.message), records[index].payload)
          else assert.fail(event.error.message)
        })
      }
    })
  }

  it("light-client-sent: the addrv2 entries print the addresses that the node had been given", () => {
    const payload = readCapture("light-client-sent").find(({ command }) => command === "addrv2")!.payload
    const message = decoded("addrv2", payload) as Wire.AddrV2
    const printed = Array.from(message.addresses, Wire.formatAddress)
    assert.isTrue(
      printed.some((address) => /^\d+\.\d+\.\d+\.\d+:\d+$/.test(address)),
      printed.join(" ")
    )
    assert.isTrue(
      printed.some((address) => /^\[[0-9a-f:]+\]:\d+$/.test(address)),
      printed.join(" ")
    )
  })
})

describe("blocks", () => {
  for (const { file, hash, witness } of blocks) {
    it(`${file}: encodes to the same bytes, has the known hash, and its txids give its merkle root`, () => {
      const bytes = readBlock(file)
      const block = decodedBlock(bytes)
      sameBytes(encoded({ _tag: "block", block }), bytes)
      sameBytes(encoded(plain({ _tag: "block", block })), bytes)
      sameBytes(encoded({ _tag: "block", block: { ...block, transactions: Array.from(block.transactions) } }), bytes)
      assert.strictEqual(Wire.hashToHex(Wire.blockHash(block.header)), hash)
      const txids = Array.from(block.transactions, Wire.txid)
      assert.strictEqual(hex(Wire.merkleRoot(txids)), hex(block.header.merkleRoot))
      assert.strictEqual(
        Array.from(block.transactions).some((tx) => Array.from(tx.inputs).some((input) => input.witness.length > 0)),
        witness
      )
    })

    it(`${file}: a transaction has the same ids within its block, rebuilt as plain data and on its own`, () => {
      for (const transaction of decodedBlock(readBlock(file)).transactions) {
        const bytes = Result.getOrThrow(Wire.encodeTransaction(transaction))
        const alone = Result.getOrThrow(Wire.decodeTransaction(bytes))
        const rebuilt = plain(transaction)
        sameBytes(Wire.txid(alone), Wire.txid(transaction))
        sameBytes(Wire.wtxid(alone), Wire.wtxid(transaction))
        sameBytes(Wire.txid(rebuilt), Wire.txid(transaction))
        sameBytes(Wire.wtxid(rebuilt), Wire.wtxid(transaction))
      }
    })
  }

  it("the witness commitment of a block (BIP141) is the merkle root of its wtxids", () => {
    const { transactions } = decodedBlock(readBlock("21868c2c"))
    const coinbase = transactions.at(0)!
    const wtxids = Array.from(transactions, (transaction, index) =>
      index === 0 ? new Uint8Array(32) : Wire.wtxid(transaction)
    )
    const pair = [Wire.merkleRoot(wtxids), coinbase.inputs.at(0)!.witness.at(0)!]
    // The merkle root of two hashes is the double SHA-256 of both: here of the witness root and the reserved value.
    const commitment = Array.from(coinbase.outputs).findLast((output) => hex(output.script).startsWith("6a24aa21a9ed"))!
    assert.strictEqual(hex(Wire.merkleRoot(pair)), hex(commitment.script.subarray(6, 38)))
  })

  it("mainnet 1 to 255: each block names the previous one, back to the genesis block", () => {
    let previous = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
    const chain = readChain()
    assert.strictEqual(chain.length, 255)
    for (const bytes of chain) {
      const block = decodedBlock(bytes)
      sameBytes(encoded(plain({ _tag: "block", block })), bytes)
      assert.strictEqual(Wire.hashToHex(block.header.previousBlock), previous)
      assert.strictEqual(hex(Wire.merkleRoot(Array.from(block.transactions, Wire.txid))), hex(block.header.merkleRoot))
      previous = Wire.hashToHex(Wire.blockHash(block.header))
    }
  })
})

describe("transactions of Bitcoin Core", () => {
  it("tx_valid.json: every transaction encodes to the same bytes, from views and from plain arrays", () => {
    const all = readTransactions("tx_valid")
    assert.isAtLeast(all.length, 100)
    for (const bytes of all) {
      const transaction = Result.getOrThrow(Wire.decodeTransaction(bytes))
      sameBytes(Result.getOrThrow(Wire.encodeTransaction(transaction)), bytes)
      sameBytes(Result.getOrThrow(Wire.encodeTransaction(plain(transaction))), bytes)
    }
  })

  it("tx_invalid.json: every transaction that decodes encodes to the same bytes, and decoding never throws", () => {
    for (const bytes of readTransactions("tx_invalid")) {
      const result = Wire.decodeTransaction(bytes)
      if (Result.isSuccess(result)) sameBytes(Result.getOrThrow(Wire.encodeTransaction(result.success)), bytes)
    }
  })
})
