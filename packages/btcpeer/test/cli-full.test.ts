/** `--json=full`: all of each message, and transactions as Bitcoin Core prints them. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Readable } from "node:stream"
import * as Events from "btcpeer/events"
import * as Network from "effect-bitcoin-peer/Network"
import * as Wire from "effect-bitcoin-peer/Wire"
import { decode } from "../src/decode.ts"
import { makeMemory } from "../src/output.ts"
import { rawTransaction } from "../src/rawTransaction.ts"
import { addressOf, assembly, scriptType } from "../src/script.ts"
import { contentOf } from "../src/summary.ts"
import { decoded, encoded, examples } from "../../../test/support/generators.ts"
import {
  captures,
  readBlock,
  readCapture,
  readTransactions,
  readVector,
  readVectorText
} from "../../../test/support/vectors.ts"

const eventOf = Schema.decodeUnknownSync(Events.FromLine)

const decodeFull = Effect.fnUntraced(function* (bytes: Uint8Array, network = Network.mainnet, as?: string) {
  const memory = makeMemory()
  yield* decode("-", { format: "full", as, network }, () => Readable.from([Buffer.from(bytes)])).pipe(
    Effect.provide(memory.layer)
  )
  return memory.lines
})

const script = (digits: string): Uint8Array => Uint8Array.from(Buffer.from(digits, "hex"))

describe("--json=full", () => {
  it.effect.each(captures)("has all of every message of %s, and the events can be decoded", (name) =>
    Effect.gen(function* () {
      const lines = yield* decodeFull(readVector(`captures/${name}.dat`))
      const messages = readCapture(name)
      assert.strictEqual(lines.length, messages.length)
      for (const [index, { command, payload }] of messages.entries()) {
        const event = eventOf(lines[index])
        assert(event.event === "message" && event.content !== undefined)
        assert.strictEqual(event.command, command)
        assert.isTrue(Buffer.compare(encoded(event.content), payload) === 0, `${command}: the bytes differ`)
      }
    })
  )

  it("has all of a message of every type", () => {
    const encode = Schema.encodeSync(Events.Message)
    for (const example of examples) {
      const message = decoded(Wire.command(example), encoded(example))
      const content = contentOf(message, "full", Network.regtest)
      const event = encode({ event: "message", bytes: 1, ...content } as Events.Message)
      const back = Schema.decodeUnknownSync(Events.Message)(JSON.parse(JSON.stringify(event)))
      assert.deepStrictEqual(back.content, Wire.toPlain(message))
    }
  })

  it("has fields that --json has not", () => {
    for (const message of examples) {
      assert.doesNotHaveAnyKeys(contentOf(message, "summary", Network.regtest), ["content", "transaction"])
    }
  })

  it.effect("has the entries of an inv under the names of WireJson", () =>
    Effect.gen(function* () {
      const items = [
        { type: 2, hash: new Uint8Array(32).fill(0xab) },
        { type: 5, hash: new Uint8Array(32).fill(1) }
      ]
      const [line] = yield* decodeFull(encoded({ _tag: "inv", items }), Network.mainnet, "inv")
      assert.deepStrictEqual(JSON.parse(line!).content, {
        _tag: "inv",
        items: [
          { type: 2, hash: "ab".repeat(32) },
          { type: 5, hash: "01".repeat(32) }
        ]
      })
    })
  )

  it.effect("has the addresses of the network of the file, or else of --network", () =>
    Effect.gen(function* () {
      const transaction: Wire.Transaction = {
        version: 2,
        inputs: [
          {
            previousOutput: { txid: new Uint8Array(32).fill(3), index: 1 },
            script: script(""),
            sequence: 5,
            witness: []
          }
        ],
        outputs: [{ value: 1, script: script("0014751e76e8199196d454941c45d1b3a323f1433bd6") }],
        lockTime: 0
      }
      const addressIn = (line: string | undefined) => JSON.parse(line!).transaction.vout[0].scriptPubKey.address
      const raw = encoded({ _tag: "tx", transaction })
      assert.match(addressIn((yield* decodeFull(raw))[0]), /^bc1q/)
      assert.match(addressIn((yield* decodeFull(raw, Network.signet))[0]), /^tb1q/)
      const { magic } = Network.regtest
      const stream = Result.getOrThrow(Wire.encodeFrames(magic, [{ _tag: "tx", transaction }]))
      assert.match(addressIn((yield* decodeFull(stream))[0]), /^bcrt1q/)
    })
  )

  it.effect("has a lone transaction with the fields of decoderawtransaction", () =>
    Effect.gen(function* () {
      const block = decoded("block", readBlock("block482683")) as Wire.BlockMessage
      const coinbase = block.block.transactions.at(0)!
      const [line] = yield* decodeFull(encoded({ _tag: "tx", transaction: coinbase }))
      const { transaction } = JSON.parse(line!)
      const [input] = transaction.vin
      assert.strictEqual(Object.keys(transaction).join(), "txid,hash,version,size,vsize,weight,locktime,vin,vout")
      assert.deepStrictEqual(Object.keys(input), ["coinbase", "txinwitness", "sequence"])
      assert.deepStrictEqual(input.txinwitness, ["00".repeat(32)])
      assert.strictEqual(transaction.size, Wire.transactionSize(coinbase))
      assert.notStrictEqual(transaction.hash, transaction.txid)
      assert.strictEqual(transaction.weight, 4 * transaction.size - 3 * 36)
      assert.strictEqual(transaction.vsize, Math.ceil(transaction.weight / 4))
    })
  )
})

describe("a transaction with the fields of decoderawtransaction", () => {
  const printed = JSON.parse(new TextDecoder().decode(readVector("core/decoded-transactions.json"))) as Readonly<
    Record<"raw" | "tx_valid" | "tx_invalid", ReadonlyArray<Record<string, unknown>>>
  >
  const raw = Object.values(JSON.parse(readVectorText("core/raw-transactions.json")) as Record<string, string>)
  const files = {
    raw: raw.map(script),
    tx_valid: readTransactions("tx_valid"),
    tx_invalid: readTransactions("tx_invalid")
  }

  /** Without descriptors, which we do not print. */
  const withoutDescriptors = (key: string, value: unknown): unknown => (key === "desc" ? undefined : value)

  it.each(["raw", "tx_valid", "tx_invalid"] as const)("is what Bitcoin Core prints, of all in %s", (file) => {
    assert.lengthOf(printed[file], files[file].length)
    for (const [index, bytes] of files[file].entries()) {
      const transaction = Result.getOrThrow(Wire.decodeRawTransaction(bytes))
      assert.strictEqual(
        JSON.stringify(rawTransaction(transaction, Network.mainnet)),
        JSON.stringify(printed[file][index], withoutDescriptors)
      )
    }
  })
})

describe("an output script", () => {
  const key = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"

  // Addresses of BIP173, BIP350 and the genesis block.
  it.each([
    ["76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac", "pubkeyhash", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"],
    [
      "0014751e76e8199196d454941c45d1b3a323f1433bd6",
      "witness_v0_keyhash",
      "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
    ],
    [`5120${key}`, "witness_v1_taproot", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"],
    [
      "5128751e76e8199196d454941c45d1b3a323f1433bd6751e76e8199196d454941c45d1b3a323f1433bd6",
      "witness_unknown",
      "bc1pw508d6qejxtdg4y5r3zarvary0c5xw7kw508d6qejxtdg4y5r3zarvary0c5xw7kt5nd6y"
    ],
    ["6002751e", "witness_unknown", "bc1sw50qgdz25j"],
    ["51024e73", "anchor", "bc1pfeessrawgf"],
    ["0003010203", "nonstandard", undefined],
    [`2102${key}ac`, "pubkey", undefined],
    [`2105${key}ac`, "nonstandard", undefined],
    ["6a0401020304", "nulldata", undefined],
    ["6a04010203", "nonstandard", undefined],
    [`512102${key}51ae`, "multisig", undefined],
    [`522102${key}51ae`, "nonstandard", undefined],
    [`512102${key}2103${key}52ae`, "multisig", undefined],
    [`512102${key}51ae51`, "nonstandard", undefined],
    ["", "nonstandard", undefined]
  ])("%s is %s", (digits, type, address) => {
    assert.strictEqual(scriptType(script(digits)), type)
    assert.strictEqual(addressOf(script(digits), Network.mainnet), address)
  })

  it("has an address on each network", () => {
    const witness = script("00201863143c14c5166804bd19203356da136c985678cd4d27a1b8c6329604903262")
    assert.strictEqual(
      addressOf(witness, Network.testnet3),
      "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7"
    )
    for (const network of Network.all) assert.isString(addressOf(witness, network), network.name)
  })
})

describe("assembly", () => {
  // DER of the signature in block 170, the first payment, and its hash type.
  const signature =
    "304402204e45e16932b8af514961a1d3a1a25fdf3f4f7732e9d624c6c61548ab5fb8cd410220181522ec8eca07de4860a4acdd12909d831cc56cbbac4622082221a8768d1d09"

  it.each([
    ["00", "0"],
    ["4f51606162", "-1 1 16 OP_NOP OP_VER"],
    ["0101", "1"],
    ["0181", "-1"],
    ["0180", "0"],
    ["0400000080", "0"],
    ["04ffffffff", "-2147483647"],
    ["050102030405", "0102030405"],
    [
      "76a9b1b2babbff50",
      "OP_DUP OP_HASH160 OP_CHECKLOCKTIMEVERIFY OP_CHECKSEQUENCEVERIFY OP_CHECKSIGADD OP_UNKNOWN OP_INVALIDOPCODE OP_RESERVED"
    ],
    ["4c0101", "1"],
    ["4d050001020304054e0500000001020304ff", "0102030405 01020304ff"],
    ["7605010203", "OP_DUP [error]"],
    ["764d05", "OP_DUP [error]"]
  ])("of %s is %s", (digits, text) => {
    assert.strictEqual(assembly(script(digits)), text)
  })

  it("shows the hash type of a signature in an input by its name", () => {
    const push = (type: string): Uint8Array => script(`47${signature}${type}`)
    assert.strictEqual(assembly(push("01"), true), `${signature}[ALL]`)
    assert.strictEqual(assembly(push("83"), true), `${signature}[SINGLE|ANYONECANPAY]`)
    assert.strictEqual(assembly(push("04"), true), `${signature}04`)
    assert.strictEqual(assembly(push("01")), `${signature}01`, "not in an output")
  })
})
