/** `btcpeer decode`: the forms that it recognises, and its output. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { Readable } from "node:stream"
import { decode, type DecodeOptions } from "../src/decode.ts"
import { detect, find, type Found } from "../src/scan.ts"
import { makeMemory } from "../src/output.ts"
import * as Network from "effect-bitcoin-peer/Network"
import * as Wire from "effect-bitcoin-peer/Wire"
import { concat, encoded } from "../../../test/support/generators.ts"
import {
  blocks,
  captures,
  readBlock,
  readTransactions,
  readVector,
  readVectorText
} from "../../../test/support/vectors.ts"
import { decodeLine, hash, header, transaction, txid } from "./support/fixtures.ts"

const { magic } = Network.regtest
const frames = (...all: ReadonlyArray<Wire.Message>): Uint8Array => Result.getOrThrow(Wire.encodeFrames(magic, all))
const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer)
const record = (command: string, payload: Uint8Array, length = payload.length): Uint8Array =>
  concat(
    new Uint8Array(BigUint64Array.of(1_700_000_000_123_456n).buffer),
    Buffer.from(command.padEnd(12, "\0")),
    u32(length),
    payload
  )
const block = encoded({ _tag: "block", block: { header, transactions: [transaction] } })
const tx = encoded({ _tag: "tx", transaction })
const ping = encoded({ _tag: "ping", nonce: 1n })

/** What is found, in short: the command, or the reason in capitals. */
const short = (found: Iterable<Found>): ReadonlyArray<string> =>
  Array.from(found, (item) =>
    item._tag === "Message" ? Wire.command(item.message) : `${item.reason.toUpperCase()} ${item.bytes}`
  )

const findAll = (bytes: Uint8Array): ReadonlyArray<Found> => {
  const form = detect(bytes)
  assert.isDefined(form)
  const all = Array.from(find(form!, bytes))
  let offset = 0
  for (const found of all) {
    assert.isAtLeast(found.offset, offset, "one after the other")
    offset = found.offset + found.bytes
  }
  return all
}

describe("the form of bytes", () => {
  it("a stream of frames, with an unknown command among them", () => {
    const stream = frames(
      { _tag: "verack" },
      { _tag: "Unknown", command: "greeting", payload: hash(1) },
      { _tag: "ping", nonce: 1n }
    )
    assert.deepStrictEqual(short(findAll(stream)), ["verack", "greeting", "ping"])
  })

  it("a damaged frame is reported, and the rest is found", () => {
    const stream = frames({ _tag: "verack" }, { _tag: "ping", nonce: 1n }, { _tag: "verack" })
    stream[24 + 30] = 1
    assert.deepStrictEqual(short(findAll(stream)), ["verack", "BADCHECKSUM 32", "verack"])
  })

  it("bytes between frames are reported, and the next frame is found", () => {
    const stream = concat(frames({ _tag: "verack" }), hash(9), frames({ _tag: "ping", nonce: 1n }))
    assert.deepStrictEqual(short(findAll(stream)), ["verack", "GARBAGE 32", "ping"])
  })

  it("a length beyond the end of the stream costs only its own frame", () => {
    const stream = frames({ _tag: "verack" }, { _tag: "ping", nonce: 1n }, { _tag: "verack" })
    stream.set(u32(1000), 24 + 16)
    assert.deepStrictEqual(short(findAll(stream)), ["verack", "CUT 32", "verack"])
    stream.set(u32(0xffffffff), 24 + 16)
    assert.deepStrictEqual(short(findAll(stream)), ["verack", "PAYLOADTOOLARGE 32", "verack"])
  })

  it("a stream that was cut anywhere is a stream and its end", () => {
    const stream = frames({ _tag: "verack" }, { _tag: "ping", nonce: 1n })
    for (let length = 25; length < stream.length; length++) {
      assert.deepStrictEqual(short(findAll(stream.subarray(0, length))), ["verack", `CUT ${length - 24}`])
    }
  })

  it("a capture, with the times of its records", () => {
    const found = findAll(
      concat(record("verack", new Uint8Array(0)), record("greeting", hash(1)), record("ping", ping))
    )
    assert.deepStrictEqual(short(found), ["verack", "greeting", "ping"])
    assert.strictEqual(found[0]!.time, 1_700_000_000_123_456)
  })

  it("a damaged record is reported, and the rest is found", () => {
    const bad = record("pong", Uint8Array.of(1, 2))
    const long = record("ping", ping, 5000)
    const good = record("ping", ping)
    assert.deepStrictEqual(short(findAll(concat(good, bad, good))), ["ping", "TRUNCATED 2", "ping"])
    assert.deepStrictEqual(short(findAll(concat(good, long, good))), ["ping", "CUT 32", "ping"])
    assert.deepStrictEqual(short(findAll(concat(good, hash(0), good))), ["ping", "GARBAGE 32", "ping"])
    assert.deepStrictEqual(short(findAll(concat(good, good.subarray(0, 10)))), ["ping", "CUT 10"])
  })

  it("a block file, with zeros at its end, one damaged block and one cut off", () => {
    const entry = (bytes: Uint8Array) => concat(magic, u32(bytes.length), bytes)
    const zeros = new Uint8Array(100)
    assert.deepStrictEqual(short(findAll(concat(entry(block), entry(block), zeros))), ["block", "block"])
    assert.deepStrictEqual(short(findAll(concat(entry(block), entry(block.subarray(0, 90)), entry(block)))), [
      "block",
      "TRUNCATED 90",
      "block"
    ])
    assert.deepStrictEqual(short(findAll(concat(entry(block), entry(block).subarray(0, 50)))), ["block", "CUT 50"])
  })

  it("a block and a transaction", () => {
    assert.deepStrictEqual(short(findAll(block)), ["block"])
    assert.deepStrictEqual(short(findAll(tx)), ["tx"])
  })

  it("unknown bytes", () => {
    for (const bytes of [
      hash(7),
      block.subarray(1),
      tx.subarray(0, -1),
      concat(tx, [0]),
      new Uint8Array(81),
      new Uint8Array(10)
    ]) {
      assert.isUndefined(detect(bytes))
    }
  })
})

/** Runs `decode` over bytes on stdin. */
const decodeBytes = Effect.fnUntraced(function* (given: Uint8Array | string, options: Partial<DecodeOptions> = {}) {
  const memory = makeMemory()
  const input = typeof given === "string" ? Buffer.from(given) : given
  const failure = yield* decode("-", { format: "text", as: undefined, network: Network.mainnet, ...options }, () =>
    Readable.from([Buffer.from(input)])
  ).pipe(
    Effect.provide(memory.layer),
    Effect.match({ onSuccess: () => undefined, onFailure: ({ message }) => message })
  )
  return { lines: memory.lines, failure }
})

describe("decode", () => {
  it.effect("reads a transaction without inputs or outputs, as tools write it, but not ten zeros", () =>
    Effect.gen(function* () {
      const digits = Buffer.from(tx).toString("hex")
      const noInputs = "02000000".padEnd(20, "0")
      const noOutputs = `0200000001${"00".repeat(41)}00${"00".repeat(4)}`
      for (const unfinished of [noInputs, noOutputs]) {
        const { failure, lines } = yield* decodeBytes(`${digits}\n${unfinished}\n`)
        assert.isUndefined(failure)
        assert.strictEqual(lines.length, 2)
      }
      const zeros = "00".repeat(10)
      assert.match((yield* decodeBytes(`${digits}\n${zeros}\n`)).failure ?? "", /line 2 is no transaction/)
      assert.isUndefined((yield* decodeBytes(zeros, { as: "tx" })).failure, "unless --as says that it is one")
    })
  )

  it.effect("reads both forms of a transaction, as Bitcoin Core's tools do", () =>
    Effect.gen(function* () {
      const raw = Object.values(JSON.parse(readVectorText("core/raw-transactions.json")) as Record<string, string>)
      assert.lengthOf(raw, 22)
      for (const text of raw) {
        for (const as of [undefined, "tx"]) {
          const { failure, lines } = yield* decodeBytes(text, { as })
          assert.isUndefined(failure)
          assert.lengthOf(lines, 1)
          assert.match(lines[0]!, /^tx /)
        }
      }
    })
  )

  it.effect("takes hexadecimal with a byte order mark, and in UTF-16 of both byte orders", () =>
    Effect.gen(function* () {
      const digits = `${Buffer.from(tx).toString("hex")}\r\n`
      const utf16le = Buffer.from(digits, "utf16le")
      const utf16be = Buffer.from(utf16le).swap16()
      for (const bytes of [
        concat([0xef, 0xbb, 0xbf], Buffer.from(digits)),
        utf16le,
        utf16be,
        concat([0xff, 0xfe], utf16le),
        concat([0xfe, 0xff], utf16be),
        concat([0xff, 0xfe], utf16le, utf16le)
      ]) {
        const { failure, lines } = yield* decodeBytes(bytes)
        assert.isUndefined(failure)
        for (const line of lines) assert.include(line, txid)
        assert.isNotEmpty(lines)
      }
      assert.match((yield* decodeBytes(concat([0xff, 0xfe], [0x41]))).failure ?? "", /not hexadecimal/)
      assert.match((yield* decodeBytes(concat([0xff, 0xfe]))).failure ?? "", /there is nothing in it/)
    })
  )

  it.effect("takes hexadecimal with 0x in front, in one line or several", () =>
    Effect.gen(function* () {
      const digits = Buffer.from(tx).toString("hex")
      const wrapped = digits.replace(/(.{60})/g, "$1\n")
      for (const text of [`0x${digits}`, `0X${digits.toUpperCase()}\n`, ` 0x${wrapped}\n`]) {
        const { failure, lines } = yield* decodeBytes(text)
        assert.isUndefined(failure)
        assert.lengthOf(lines, 1)
        assert.include(lines[0], txid)
      }
      assert.lengthOf((yield* decodeBytes(`0x${digits}\n0x${digits}\n`)).lines, 2)
      for (const text of ["0x", "0x0x00", "00x0"]) assert.isDefined((yield* decodeBytes(text)).failure)
    })
  )

  it.effect("takes hexadecimal: one thing in one line or several, and one thing in each line", () =>
    Effect.gen(function* () {
      const digits = Buffer.from(tx).toString("hex")
      const wrapped = digits.replace(/(.{60})/g, "$1\n").toUpperCase()
      for (const text of [digits, `${digits}\n`, ` ${wrapped}\r\n`]) {
        const { failure, lines } = yield* decodeBytes(text)
        assert.isUndefined(failure)
        assert.strictEqual(lines.length, 1)
        assert.include(lines[0], txid)
      }
      const both = `${digits}\n\n${Buffer.from(block).toString("hex")}\n`
      const events = (yield* decodeBytes(both, { format: "summary" })).lines.map((line) => decodeLine(line))
      assert.deepStrictEqual(
        events.map((event) => event.event === "message" && event.line),
        [1, 3]
      )
      const { lines } = yield* decodeBytes(both)
      assert.deepStrictEqual(
        lines.map((line) => line.split(/\s+/).slice(0, 3)),
        [
          ["line", "1", "tx"],
          ["line", "3", "block"]
        ]
      )
    })
  )

  it.effect("describes a bad input in one line", () =>
    Effect.gen(function* () {
      const cases: ReadonlyArray<readonly [Uint8Array | string, Partial<DecodeOptions>, RegExp]> = [
        ["", {}, /^standard input: there is nothing in it$/],
        [" \n", {}, /there is nothing in it$/],
        ["hello", {}, /text, but not hexadecimal: "h"$/],
        ["abc", {}, /an odd number of hexadecimal digits$/],
        ["aa\nzz", {}, /not hexadecimal: "z" in line 2$/],
        [hash(7), {}, /--as$/],
        ["aabb\nccdd", {}, /2 of 2 lines, the first one line 1, are .* --as$/],
        [hash(7), { as: "stream" }, /no stream: there is no frame of a known network in it$/],
        [hash(7), { as: "blockfile" }, /no blockfile: there is no block of a known network in it$/],
        [tx, { as: "TX" }, /--as TX is not one of /],
        [tx.subarray(0, 20), { as: "tx" }, /1 damaged/],
        [concat(tx, [0]), { as: "tx" }, /1 damaged/]
      ]
      for (const [given, options, expected] of cases) {
        const { failure } = yield* decodeBytes(given, options)
        assert.match(failure ?? "", expected)
        assert.notInclude(failure, "\n")
      }
    })
  )

  it.effect("reads a payload as --as names it", () =>
    Effect.gen(function* () {
      const { failure, lines } = yield* decodeBytes(ping, { as: "ping", format: "summary" })
      assert.isUndefined(failure)
      assert.deepStrictEqual(
        lines.map((line) => JSON.parse(line)),
        [{ event: "message", offset: 0, command: "ping", bytes: 8, nonce: "0000000000000001" }]
      )
    })
  )

  it.effect("prints every line of JSON by the schema, also those of damage, and fails at the end", () =>
    Effect.gen(function* () {
      const { failure, lines } = yield* decodeBytes(
        concat(record("pong", hash(1).subarray(1, 3)), record("ping", ping)),
        { format: "summary" }
      )
      assert.deepStrictEqual(
        lines.map((line) => decodeLine(line)),
        [
          {
            event: "dropped",
            offset: 0,
            time: "2023-11-14T22:13:20.123456Z",
            command: "pong",
            bytes: 2,
            reason: "Truncated",
            message: 'pong: payload ends inside "nonce" at byte 0'
          },
          {
            event: "message",
            offset: 26,
            time: "2023-11-14T22:13:20.123456Z",
            command: "ping",
            bytes: 8,
            nonce: "0000000000000001"
          }
        ]
      )
      assert.strictEqual(failure, "standard input: 1 damaged, 1 message decoded")
    })
  )
})

describe("decode of real bytes", () => {
  it.effect("a block that is cut off is not a block, but begins with its header", () =>
    Effect.gen(function* () {
      const cut = readBlock("block482683").subarray(0, 5000)
      const expected = /no transaction, .*; it begins with a block header: try --as block /
      assert.match((yield* decodeBytes(cut)).failure ?? "", expected)
      assert.match((yield* decodeBytes(Buffer.from(cut).toString("hex"))).failure ?? "", expected)
      assert.match((yield* decodeBytes(cut, { as: "block" })).failure ?? "", /1 damaged/)
      assert.notMatch((yield* decodeBytes(cut.subarray(1))).failure ?? "", /begins with/)
      assert.notMatch((yield* decodeBytes(cut.subarray(0, 79))).failure ?? "", /begins with/)
    })
  )

  for (const { file, hash } of blocks) {
    it.effect(`${file}: a block, also as hexadecimal`, () =>
      Effect.gen(function* () {
        const bytes = readBlock(file)
        for (const given of bytes.length < 300_000 ? [bytes, Buffer.from(bytes).toString("hex")] : [bytes]) {
          const { failure, lines } = yield* decodeBytes(given)
          assert.isUndefined(failure)
          assert.strictEqual(lines.length, 1)
          assert.include(lines[0], hash)
        }
      })
    )
  }

  for (const name of captures) {
    it.effect(`${name}: a capture`, () =>
      Effect.gen(function* () {
        const { failure, lines } = yield* decodeBytes(readVector(`captures/${name}.dat`), { format: "summary" })
        assert.isUndefined(failure)
        assert.isAtLeast(lines.length, 8)
        for (const line of lines) assert.strictEqual(decodeLine(line).event, "message")
        assert.strictEqual(JSON.parse(lines[0]!).command, "version")
      })
    )
  }

  it.effect("a block file", () =>
    Effect.gen(function* () {
      const { failure, lines } = yield* decodeBytes(readVector("blocks/mainnet-1-256.dat"))
      assert.isUndefined(failure)
      assert.strictEqual(lines.length, 255)
      assert.include(lines[0], "00000000839a8e6886ab5951d76f411475428afc90947ee320161bbf18eb6048")
    })
  )

  it.effect("the transactions of Bitcoin Core, as hexadecimal in one line each", () =>
    Effect.gen(function* () {
      const all = readTransactions("tx_valid")
      const { failure, lines } = yield* decodeBytes(all.map((bytes) => Buffer.from(bytes).toString("hex")).join("\n"))
      assert.isUndefined(failure)
      assert.strictEqual(lines.length, all.length)
      // And one by one: each is recognised as what it is.
      for (const bytes of all) assert.deepStrictEqual(detect(bytes), { _tag: "Payload", command: "tx" })
    })
  )

  it.effect("a filtered block, which is recognised by its proof", () =>
    Effect.gen(function* () {
      const bytes = readVector("merkleblock/merkle300025.raw")
      const { failure, lines } = yield* decodeBytes(bytes)
      assert.isUndefined(failure)
      assert.match(lines[0] ?? "", new RegExp(`merkleblock .*${blocks[0].hash} +2 of 461 transactions`))
      // One that is damaged could be anything.
      bytes[100]! ^= 1
      assert.match((yield* decodeBytes(bytes)).failure ?? "", /--as block .*, merkleblock or cmpctblock$/)
      assert.include((yield* decodeBytes(bytes, { as: "merkleblock" })).lines[0], "proves nothing")
    })
  )

  for (const [name, file] of [
    ["compact426884", "block426884"],
    ["compact898352", "block898352"]
  ] as const) {
    it.effect(`${name}: a compact block, which tells itself`, () =>
      Effect.gen(function* () {
        const { failure, lines } = yield* decodeBytes(readVector(`compact/${name}.raw`))
        assert.isUndefined(failure)
        assert.strictEqual(lines.length, 1)
        const whole = Result.getOrThrow(Wire.decode("block", readBlock(file)))
        assert(whole._tag === "block")
        const hash = Wire.hashToHex(Wire.blockHash(whole.block.header))
        assert.include(lines[0], "cmpctblock")
        assert.include(lines[0], `${hash}  ${whole.block.transactions.length} transactions, 1 prefilled`)
      })
    )
  }
})
