/** `Wire.toPlain`: messages that can be cloned, posted, compared and kept. */
import { assert, describe, it } from "@effect/vitest"
import type * as Arbitrary from "effect/Arbitrary"
import { deepStrictEqual } from "node:assert"
import { MessageChannel, receiveMessageOnPort } from "node:worker_threads"
import * as Wire from "../src/Wire.ts"
import { concat, decoded, encoded, examples, messages } from "./support/generators.ts"
import { blocks, captures, readBlock, readCapture } from "./support/vectors.ts"

/** A message of every type, decoded from the wire. */
const received = examples.map((example) => decoded(Wire.command(example), encoded(example)))

const bytesIn = (value: unknown): Array<Uint8Array> =>
  value instanceof Uint8Array
    ? [value]
    : typeof value === "object" && value !== null
      ? Object.values(value).flatMap(bytesIn)
      : []

describe("a plain message", () => {
  for (const [tag, generator] of Object.entries(messages)) {
    it.prop(
      `${tag}: equals the message that was encoded, and encodes to the same bytes`,
      [generator as Arbitrary.Arbitrary<Wire.Message>],
      ([made]) => {
        const payload = encoded(made)
        const copy = Wire.toPlain(decoded(Wire.command(made), payload))
        // Node's comparison also compares prototypes: a clone has Object.prototype, the generated message has no prototype.
        deepStrictEqual(copy, structuredClone(made))
        assert.deepStrictEqual(encoded(copy), payload)
      },
      { arbitrary: { runs: 20, seed: tag } }
    )
  }

  it("has arrays instead of views, at any depth", () => {
    const [block] = received.filter((message) => message._tag === "block").map(Wire.toPlain)
    assert.strictEqual(block!.block.transactions[1]!.inputs[0]!.witness[1]!.length, 33)
    const inv = received.find((message) => message._tag === "inv")
    assert.isUndefined((inv!.items as unknown as Record<number, unknown>)[0])
    assert.strictEqual(Wire.toPlain(inv!).items[1]!.type, 0x40000002)
  })

  it("can be cloned and posted", () => {
    const { port1, port2 } = new MessageChannel()
    for (const message of received) {
      const copy = Wire.toPlain(message)
      deepStrictEqual(structuredClone(copy), copy)
      port1.postMessage(copy)
      deepStrictEqual(receiveMessageOnPort(port2)!.message, copy)
    }
    port1.close()
  })

  it("shares no bytes with the received payload, and its fields share no bytes with each other", () => {
    for (const message of received) {
      const buffers = bytesIn(Wire.toPlain(message)).map((bytes) => {
        assert.strictEqual(bytes.byteLength, bytes.buffer.byteLength, message._tag)
        return bytes.buffer
      })
      assert.strictEqual(new Set(buffers).size, buffers.length, message._tag)
    }
  })

  it("has Uint8Arrays instead of the caller's Buffers, because a slice of a Buffer is a view", () => {
    const payload = Buffer.from("plain")
    const copy = Wire.toPlain<Wire.Unknown>({ _tag: "Unknown", command: "x", payload })
    assert.strictEqual(Object.getPrototypeOf(copy.payload), Uint8Array.prototype)
    payload[0] = 0
    assert.deepStrictEqual(
      copy.payload,
      Uint8Array.from([..."plain"], (letter) => letter.charCodeAt(0))
    )
  })

  it("does not change when the received bytes change", () => {
    const payload = encoded({
      _tag: "getheaders",
      protocolVersion: 1,
      locator: [new Uint8Array(32)],
      stopHash: new Uint8Array(32)
    })
    const copy = Wire.toPlain(decoded("getheaders", payload))
    payload.fill(1)
    assert.isTrue(bytesIn(copy).every((bytes) => bytes.every((byte) => byte === 0)))
  })

  it("keeps fields that are undefined, and -0 and integers beyond 2^53 as they are", () => {
    deepStrictEqual(Wire.toPlain({ _tag: "ping", nonce: undefined } as Wire.Ping), { _tag: "ping", nonce: undefined })
    const feefilter = decoded("feefilter", concat([1, 0, 0, 0, 0, 0, 0, 0x70]))
    deepStrictEqual(Wire.toPlain(feefilter), feefilter)
  })

  it("can be made of a part of a message: a block, a transaction, a header", () => {
    for (const { file } of blocks.slice(2, 4)) {
      const { block } = decoded("block", readBlock(file)) as Wire.BlockMessage
      const copy: Wire.Block = Wire.toPlain(block)
      assert.deepStrictEqual(Array.from(copy.transactions, Wire.txid), Array.from(block.transactions, Wire.txid))
      const [transaction] = Wire.toPlain(block).transactions
      deepStrictEqual(Wire.toPlain(block.transactions.at(0)!), transaction)
    }
  })

  for (const name of captures) {
    it(`${name}: encodes to the bytes that Bitcoin Core sent, for every message`, () => {
      for (const { command, payload } of readCapture(name)) {
        assert.isTrue(Buffer.compare(encoded(Wire.toPlain(decoded(command, payload))), payload) === 0, command)
      }
    })
  }
})
