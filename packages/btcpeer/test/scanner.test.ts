/** Files with damage: whatever stands between them, all whole records are found, in bytes that come in pieces. */
import { assert, describe, it } from "@effect/vitest"
import * as Network from "effect-bitcoin-peer/Network"
import * as RegtestChain from "effect-bitcoin-peer/testing/RegtestChain"
import * as Wire from "effect-bitcoin-peer/Wire"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { dice } from "../../../test/support/dice.ts"
import { concat, encoded } from "../../../test/support/generators.ts"
import { readVector } from "../../../test/support/vectors.ts"
import { decode } from "../src/decode.ts"
import { makeMemory } from "../src/output.ts"
import { deobfuscate, detect, find, type FileForm, formOf, scannerOf } from "../src/scan.ts"
import type { Found } from "../src/scanner.ts"

const { magic } = Network.regtest
const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer)

const shortOf = (found: Found): string =>
  found._tag === "Message" ? `${Wire.command(found.message)} ${nameOf(found.message)}`.trim() : found.reason

/** The nonce of a ping, the timestamp of a block. */
const nameOf = (message: Wire.Message): string =>
  message._tag === "ping"
    ? String(message.nonce)
    : message._tag === "block"
      ? String(message.block.header.timestamp)
      : ""

const foundIn = (form: FileForm, bytes: Uint8Array): ReadonlyArray<string> => Array.from(find(form, bytes), shortOf)
const messagesIn = (form: FileForm, bytes: Uint8Array): ReadonlyArray<string> =>
  Array.from(find(form, bytes))
    .filter(({ _tag }) => _tag === "Message")
    .map(shortOf)

/** Blocks of a chain, named by their timestamps 1 to `count`, with transactions to make them longer. */
const blocksOf = (count: number): ReadonlyArray<Uint8Array> => {
  const hashes: Array<Uint8Array> = []
  const blocks: Array<Wire.Block> = []
  return Array.from({ length: count }, (_, index) => {
    const coin = RegtestChain.coinOf(RegtestChain.genesis.transactions.at(0)!)
    const transactions = Array.from({ length: index * 5 }, (_, fee) => RegtestChain.spend(coin, undefined, fee))
    const block = RegtestChain.mineBlock({ blocks, hashes }, { timestamp: index + 1, transactions })
    blocks.push(block)
    hashes.push(Wire.blockHash(block.header))
    return encoded({ _tag: "block", block })
  })
}
const blocks = blocksOf(4)
const entry = (block: Uint8Array, length = block.length): Uint8Array => concat(magic, u32(length), block)
const entries = blocks.map((block) => entry(block))
const blockFile: FileForm = { _tag: "BlockFile", network: Network.regtest }

const record = (payload: Uint8Array, length = payload.length): Uint8Array =>
  concat(
    new Uint8Array(BigUint64Array.of(1_700_000_000_123_456n).buffer),
    Buffer.from("ping".padEnd(12, "\0")),
    u32(length),
    payload
  )
const ping = (nonce: number): Uint8Array => encoded({ _tag: "ping", nonce: BigInt(nonce) })
const frame = (nonce: number, length?: number): Uint8Array => {
  const bytes = Result.getOrThrow(Wire.encodeFrames(magic, [{ _tag: "ping", nonce: BigInt(nonce) }]))
  if (length !== undefined) bytes.set(u32(length), 16)
  return bytes
}

describe("a block file", () => {
  const names = ["block 1", "block 2", "block 3", "block 4"]

  it("is read from its first block to its last", () => {
    const file = concat(...entries)
    assert.deepStrictEqual(detect(file), blockFile)
    assert.deepStrictEqual(foundIn(blockFile, file), names)
  })

  it("gives all whole blocks, with any bytes between them", () => {
    const [one, two, three, four] = entries as [Uint8Array, Uint8Array, Uint8Array, Uint8Array]
    const noise = new Uint8Array(1000).map((_, index) => (index * 7) & 0xff)
    const zeros = new Uint8Array(100)
    const cases: ReadonlyArray<readonly [string, ReadonlyArray<Uint8Array>, ReadonlyArray<string>]> = [
      ["noise", [one, noise, two, three, four], ["block 1", "damage", "block 2", "block 3", "block 4"]],
      ["zeros, which are not reported", [one, zeros, two, three, four, zeros], names],
      ["a magic", [one, magic, two, three, four], ["block 1", "damage", "block 2", "block 3", "block 4"]],
      [
        "a magic and zeros",
        [one, magic, zeros, two, three, four],
        ["block 1", "damage", "block 2", "block 3", "block 4"]
      ],
      ["half a record", [one, two.subarray(0, 400), three, four], ["block 1", "damage", "block 3", "block 4"]],
      [
        "the beginning of a record",
        [one, two.subarray(0, 10), three, four],
        ["block 1", "damage", "block 3", "block 4"]
      ],
      [
        "half a record at the end",
        [one, two, three, four.subarray(0, 300)],
        ["block 1", "block 2", "block 3", "damage"]
      ]
    ]
    for (const [name, parts, expected] of cases) {
      const found = Array.from(find(blockFile, concat(...parts)), (item) =>
        item._tag === "Message" ? shortOf(item) : "damage"
      )
      assert.deepStrictEqual(found, expected, name)
    }
  })

  it("gives all blocks, also one with a damaged length, and reports the length", () => {
    for (const length of [
      0,
      1,
      79,
      80,
      100,
      blocks[1]!.length - 1,
      blocks[1]!.length + 1,
      2000,
      3_999_999,
      4_000_001,
      0xffffffff
    ]) {
      const file = concat(entries[0]!, entry(blocks[1]!, length), entries[2]!, entries[3]!)
      const found = foundIn(blockFile, file)
      assert.deepStrictEqual(found, ["block 1", "BadLength", "block 2", "block 3", "block 4"], `length ${length}`)
    }
  })

  it("gives the blocks after a block that was changed so that it reads into the next record", () => {
    // The script of the coinbase, of which the length is changed, then covers the rest of its block and the next record.
    const block = blocks[0]!.slice()
    const scriptLength = 80 + 1 + 4 + 1 + 36
    const file = concat(entry(block), entries[1]!, entries[2]!)
    for (let length = 0; length < 0xfd; length++) {
      block[scriptLength] = length
      file.set(entry(block), 0)
      const messages = messagesIn(blockFile, file)
      assert.includeMembers([...messages], ["block 2", "block 3"], `length ${length}`)
    }
  })

  it("takes a block whose transactions were changed in place, as from a peer", () => {
    const block = blocks[1]!.slice()
    block[block.length - 10]! ^= 1
    assert.deepStrictEqual(messagesIn(blockFile, concat(entry(block), entries[2]!)), ["block 2", "block 3"])
  })

  it("gives the same in pieces of any size", () => {
    const random = dice(7)
    const file = concat(
      entries[0]!,
      new Uint8Array(50).fill(9),
      entry(blocks[1]!, 3_000_000),
      entries[2]!.subarray(0, 500),
      entries[2]!,
      new Uint8Array(100),
      entries[3]!.subarray(0, 100)
    )
    const whole = Array.from(find(blockFile, file))
    for (let run = 0; run < 50; run++) {
      const most = random.pick([1, 7, 100, 5_000])
      const scanner = scannerOf(blockFile)
      const found: Array<Found> = []
      for (let at = 0; at < file.length;) {
        const size = 1 + random.below(most)
        scanner.push(file.subarray(at, at + size))
        found.push(...scanner)
        at += size
      }
      scanner.end()
      found.push(...scanner)
      assert.deepStrictEqual(
        found.map((item) => [item.offset, item.bytes, shortOf(item)]),
        whole.map((item) => [item.offset, item.bytes, shortOf(item)])
      )
    }
  })

  it("of any length needs memory for one record and one piece", () => {
    const piece = new Uint8Array(1 << 20).map((_, index) => (index * 31) & 0xff)
    // Every 64 KiB something that looks like the header of a long record.
    for (let at = 0; at < piece.length; at += 1 << 16) piece.set(concat(magic, u32(3_900_000)), at)
    const scanner = scannerOf(blockFile)
    let most = 0
    for (let i = 0; i < 32; i++) {
      scanner.push(piece)
      for (const { _tag } of scanner) assert.strictEqual(_tag, "Damaged")
      most = Math.max(most, scanner.buffered)
    }
    assert.isAtMost(most, 4_000_008 + 2 * piece.length)
  })

  it("of mainnet gives 255 blocks, also when one length is wrong", () => {
    const file = readVector("blocks/mainnet-1-256.dat")
    const form: FileForm = { _tag: "BlockFile", network: Network.mainnet }
    const offsets = Array.from(find(form, file), ({ offset }) => offset)
    assert.lengthOf(offsets, 255)
    for (const offset of offsets.filter((_, index) => index % 25 === 3)) {
      const damaged = file.slice()
      damaged[offset + 5]! ^= 0x21
      const found = Array.from(find(form, damaged))
      assert.lengthOf(
        found.filter(({ _tag }) => _tag === "Message"),
        255
      )
      assert.lengthOf(found, 256)
    }
  })
})

describe("an obfuscated block file of Bitcoin Core", () => {
  const key = Uint8Array.of(0xd1, 2, 3, 4, 5, 6, 7, 8)
  const decodeFile = Effect.fnUntraced(function* (bytes: Uint8Array, withKey: boolean, as?: string) {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "btcpeer-"))
    const file = path.join(directory, "blk00000.dat")
    fs.writeFileSync(file, bytes)
    if (withKey) fs.writeFileSync(path.join(directory, "xor.dat"), key)
    const memory = makeMemory()
    const failure = yield* decode(file, { format: "summary", as, network: Network.mainnet }).pipe(
      Effect.provide(memory.layer),
      Effect.match({ onSuccess: () => undefined, onFailure: ({ message }) => message })
    )
    fs.rmSync(directory, { recursive: true })
    return { failure, lines: memory.lines.map((line) => JSON.parse(line)) }
  })
  const plain = concat(...entries)

  it.effect("is read with the key in xor.dat beside it, its padding without", () =>
    Effect.gen(function* () {
      const padded = concat(deobfuscate(plain, key, 0), new Uint8Array(1003))
      for (const as of [undefined, "blockfile"]) {
        const { failure, lines } = yield* decodeFile(padded, true, as)
        assert.isUndefined(failure)
        assert.deepStrictEqual(
          lines.map(({ timestamp }) => timestamp),
          [1, 2, 3, 4]
        )
      }
    })
  )

  it.effect("is not obfuscated if the key is zero, or the key of another directory", () =>
    Effect.gen(function* () {
      assert.lengthOf((yield* decodeFile(plain, true)).lines, 4)
      assert.lengthOf((yield* decodeFile(plain, false)).lines, 4)
      assert.match((yield* decodeFile(deobfuscate(plain, key, 0), false)).failure ?? "", /--as/)
    })
  )

  it.effect("may begin with damage, if --as names its form", () =>
    Effect.gen(function* () {
      const damaged = deobfuscate(concat(new Uint8Array(5).fill(3), plain), key, 0)
      const { failure, lines } = yield* decodeFile(damaged, true, "blockfile")
      assert.match(failure ?? "", /1 damaged, 4 messages decoded/)
      assert.lengthOf(lines, 5)
    })
  )

  it("is made plain the same in pieces as in one", () => {
    const whole = deobfuscate(plain, key, 0)
    for (const at of [1, 7, 8, 100]) {
      const pieces = [deobfuscate(plain.subarray(0, at), key, 0), deobfuscate(plain.subarray(at), key, at)]
      assert.deepStrictEqual(concat(...pieces), whole)
    }
  })
})

describe("captures and streams", () => {
  it("give the records after a record whose length covers them", () => {
    const file = concat(record(ping(1)), record(ping(2), 70), record(ping(3)), record(ping(4)), record(ping(5)))
    assert.deepStrictEqual(foundIn({ _tag: "Capture" }, file), [
      "ping 1",
      "TrailingBytes",
      "ping 3",
      "ping 4",
      "ping 5"
    ])
  })

  it("give the frames after a frame whose length covers them", () => {
    const file = concat(frame(1), frame(2, 72), frame(3), frame(4), frame(5))
    const form: FileForm = { _tag: "Stream", network: Network.regtest }
    assert.deepStrictEqual(detect(file), form)
    assert.deepStrictEqual(foundIn(form, file), ["ping 1", "BadChecksum", "ping 3", "ping 4", "ping 5"])
  })

  it("may begin in the middle of a frame, if --as names their form", () => {
    const file = concat(frame(1).subarray(9), frame(2))
    assert.isUndefined(detect(file))
    assert.deepStrictEqual(formOf("stream", file), { _tag: "Stream", network: Network.regtest })
    assert.deepStrictEqual(foundIn({ _tag: "Stream", network: Network.regtest }, file), ["Garbage", "ping 2"])
  })
})
