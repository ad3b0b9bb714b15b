/** `peers.dat` and `anchors.dat`: Bitcoin Core's own files, and files that are damaged or cut off anywhere. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Address from "../../src/Address.ts"
import * as Network from "../../src/Network.ts"
import { doubleSha256 } from "../../src/primitives/sha256.ts"
import * as AddressBook from "../../src/server/AddressBook.ts"
import { concat } from "../support/generators.ts"
import { dice } from "../support/dice.ts"
import { readVector, readVectorText } from "../support/vectors.ts"
import { host, makeBook, randomOf, start, told } from "../support/books.ts"

const options = { network: Network.regtest, random: randomOf(5) }
const file = readVector("core/peers.dat")
const raw: AddressBook.RawEntries = JSON.parse(readVectorText("core/getrawaddrman.json"))
/** When the file was written, and nothing in it is too old. */
const then = Math.max(...[...Object.values(raw.new), ...Object.values(raw.tried)].map(({ time }) => time)) * 1_000

const parse = (bytes: Uint8Array, with_ = options) => AddressBook.parse(bytes, then, with_)
const parsed = (bytes: Uint8Array, with_ = options) => Result.getOrThrow(parse(bytes, with_))
const errorOf = (result: Result.Result<unknown, AddressBook.AddressBookError>): AddressBook.AddressBookError => {
  if (Result.isSuccess(result)) throw new Error("expected an AddressBookError")
  return result.failure
}
/** The same bytes but for some of them, with a right checksum. */
const changed = (bytes: Uint8Array, offset: number, ...values: ReadonlyArray<number>): Uint8Array => {
  const content = bytes.slice(0, -32)
  content.set(values, offset)
  return concat(content, doubleSha256(content))
}
/** All addresses with their sources, as texts in order. */
const addressesOf = (book: AddressBook.Book): ReadonlyArray<string> => {
  const { new: ofNew, tried } = book.entries()
  const entries = [...Object.values(ofNew), ...Object.values(tried)]
  return [...new Set(entries.map(({ address, port, source }) => `${address} ${port} ${source}`))].toSorted()
}
const isPart = (part: ReadonlyArray<string>, all: ReadonlyArray<string>): boolean =>
  part.every((text) => all.includes(text))

/** How many of the 44 addresses have a place of their own when all of them are new again. */
const kept = 44

/** Offsets in the header. */
const formatAt = 4
const compatibleAt = 5
const newCountAt = 38
const triedCountAt = 42
const headerSize = 50

describe("peers.dat of Bitcoin Core", () => {
  it("gives every address at the place where Core has it", () => {
    const { book, damage, lost } = parsed(file)
    assert.deepStrictEqual([lost, damage], [0, undefined])
    assert.deepStrictEqual(book.entries(), raw)
    for (const name of ["ipv4", "ipv6", "onion", "i2p", "cjdns"] as const) {
      const count = (entries: AddressBook.RawEntries["new"]): number =>
        Object.values(entries).filter(({ network }) => network === name).length
      const [ofNew, tried] = [count(raw.new), count(raw.tried)]
      assert.isAbove(ofNew + tried, 0)
      assert.deepStrictEqual(book.stats()[name], { new: ofNew, tried, total: ofNew + tried })
    }
    assert.deepStrictEqual(book.stats().all_networks, { new: 23, tried: 21, total: 44 })
    assert.isUndefined(book.check())
  })

  it("is written again byte for byte", () => {
    assert.deepStrictEqual(parsed(file).book.serialize(), file)
  })

  it("keeps what an entry holds", () => {
    const book = makeBook()
    const source = host("252.2.2.2")
    const texts = ["1.2.3.4:8333", "[2a01::1]:1", "[fc01::1]:65535", `${"a".repeat(52)}.b32.i2p`]
    for (const [index, text] of texts.entries()) book.add([told(text, start, 1n << BigInt(21 * index))], source, start)
    book.good(told(texts[0]!), start)
    book.good(told(texts[1]!), start + 5_000)
    book.good(told("9.9.9.9:1"), start + 9_000)
    for (const text of texts) book.attempt(told(text), true, start)
    const restored = parsed(book.serialize()).book
    for (const text of texts) {
      // The file does not hold the last try.
      assert.deepStrictEqual(restored.find(told(text)), { ...book.find(told(text))!, lastTry: 0 }, text)
    }
    assert.deepStrictEqual(restored.entries(), book.entries())
    assert.deepStrictEqual(restored.serialize(), book.serialize())
  })

  it("of an empty book is small, and read again", () => {
    const bytes = makeBook().serialize()
    assert.strictEqual(bytes.length, headerSize + 4 * 1_024 + 64)
    assert.deepStrictEqual([parsed(bytes).book.size, parsed(bytes).damage], [0, undefined])
  })

  it("loses addresses that cannot exist, and counts them", () => {
    const book = makeBook()
    const all = ["5.5.5.5", "6.6.6.6", "7.7.7.7", "8.8.8.8"].map((text) => told(text))
    book.add(all, host("::"), start)
    for (const address of all.slice(2)) assert.isTrue(book.good(address, start))
    const bytes = book.serialize()
    const find = (byte: number): number => bytes.findIndex((_, at) => [0, 1, 2, 3].every((i) => bytes[at + i] === byte))
    const other = changed(changed(bytes, find(6), 0, 0, 0, 0), find(8), 255, 255, 255, 255)
    const { book: restored, damage, lost } = parsed(other)
    assert.deepStrictEqual([restored.size, lost, damage], [2, 2, undefined])
    assert.isUndefined(restored.check())
  })

  it("loses an address that stands there twice, and one of a network from the future", () => {
    const book = makeBook()
    book.add([told("5.5.5.5:1", start), told("6.6.6.6:1", start), told("7.7.7.7:1", start)], host("9.9.9.9"), start)
    const bytes = book.serialize()
    const addressAt = bytes.findIndex((_, at) => [0, 1, 2, 3].every((i) => bytes[at + i] === 6))
    const twice = parsed(changed(bytes, addressAt, 5, 5, 5, 5))
    assert.deepStrictEqual([twice.book.size, twice.lost, twice.damage], [2, 1, undefined])
    const unknown = parsed(changed(bytes, addressAt - 2, 77))
    assert.deepStrictEqual([unknown.book.size, unknown.lost, unknown.damage], [2, 1, undefined])
    assert.isUndefined(unknown.book.check())
  })

  it("loses a tried address whose place is taken", () => {
    const { book } = parsed(file)
    const other = parsed(changed(file, 6, ...new Uint8Array(32).fill(1)))
    // Under another key some of the tried addresses collide, or not: all that is left is consistent.
    assert.strictEqual(other.book.size + other.lost, book.size)
    assert.isUndefined(other.book.check())
  })
})

describe("a damaged peers.dat", () => {
  it("that is cut off at any byte gives every address before the cut, as new, or an error", () => {
    const all = addressesOf(parsed(file).book)
    let most = 0
    for (let length = 0; length < file.length; length++) {
      const result = parse(file.subarray(0, length))
      if (length < headerSize) {
        assert.strictEqual(errorOf(result).reason._tag, "Unreadable", String(length))
        continue
      }
      const { book, damage, lost } = Result.getOrThrow(result)
      assert.isDefined(damage, String(length))
      assert.strictEqual(book.size + lost, 44, String(length))
      assert.isAtLeast(book.size, most, String(length))
      most = book.size
      assert.strictEqual(book.stats().all_networks.tried, 0)
      if (length % 101 !== 0) continue
      assert.isUndefined(book.check())
      assert.isTrue(isPart(addressesOf(book), all))
    }
    assert.strictEqual(most, kept)
  })

  it("of which one byte is another gives addresses or an error", () => {
    const random = dice(9)
    for (let offset = 0; offset < file.length; offset += offset < headerSize ? 1 : 3) {
      const bytes = file.slice()
      bytes[offset]! ^= 1 + random.below(255)
      const result = parse(bytes)
      if (Result.isFailure(result)) {
        assert.isBelow(offset, headerSize)
        continue
      }
      const { book, damage, lost } = result.success
      assert.isDefined(damage, String(offset))
      assert.isAtLeast(lost, 0)
      // A changed entry costs itself; one that cannot be read, also those after it.
      if (offset >= headerSize + 44 * 80) assert.strictEqual(book.size, kept)
      if (offset % 101 === 0) assert.isUndefined(book.check())
    }
  })

  it("says what is wrong", () => {
    const damageOf = (bytes: Uint8Array): string | undefined => parsed(bytes).damage
    assert.strictEqual(damageOf(file.subarray(0, 1_000)), "address 23 at byte 959 cannot be read")
    assert.strictEqual(damageOf(file.subarray(0, -1)), "it is cut off after its addresses")
    assert.strictEqual(damageOf(file.with(file.length - 1, 0)), "its checksum is wrong")
    assert.strictEqual(damageOf(changed(file, newCountAt, 1, 0, 1, 0)), "it cannot have 65537 new addresses")
    assert.strictEqual(damageOf(changed(file, triedCountAt, 255, 255, 255, 255)), "it cannot have -1 tried addresses")
  })

  it("takes memory and time for what it holds, not for what it promises", () => {
    const counts = [0xff, 0xff, 0, 0, 0, 0x40, 0, 0]
    const { book, damage } = parsed(changed(file.slice(0, 200), newCountAt, ...counts))
    assert.isDefined(damage)
    assert.isAtMost(book.size, 2)
    // A bucket with 2^31 - 1 addresses.
    const bucketsAt = file.length - 64 - 4 * (1_024 + 23)
    const { book: whole } = parsed(changed(file, bucketsAt, 0xff, 0xff, 0xff, 0x7f))
    assert.strictEqual(whole.size, kept)
  })

  it("with random contents after a header gives no exception", () => {
    const random = dice(77)
    for (let i = 0; i < 300; i++) {
      const bytes = concat(file.subarray(0, headerSize + random.below(400)), random.bytes(random.below(6_000)))
      const { book } = parsed(bytes)
      assert.isUndefined(book.check())
    }
  })
})

describe("a peers.dat that must not be read", () => {
  it("is of another network", () => {
    const error = errorOf(parse(file, { ...options, network: Network.mainnet }))
    assert.strictEqual(error.message, "is a peers.dat of another network, with magic fabfb5da")
  })

  it("is newer, and says that older programs cannot read it", () => {
    const newer = changed(changed(file, formatAt, 6), compatibleAt, 32 + 5)
    assert.strictEqual(errorOf(parse(newer)).message, "is a peers.dat of version 6, which only newer programs can read")
    // Newer, but this program can read it.
    assert.strictEqual(parsed(changed(file, formatAt, 6)).book.size, 44)
  })

  it("is older than addresses of BIP155", () => {
    const old = changed(file, formatAt, 2, 32)
    assert.deepStrictEqual(errorOf(parse(old)).reason, { _tag: "OlderFormat", version: 2 })
  })

  it("does not say which programs can read it", () => {
    for (const bytes of [
      changed(file, compatibleAt, 31),
      changed(file, compatibleAt, 37),
      new Uint8Array(6_000),
      new TextEncoder().encode("1.2.3.4:8333\n".repeat(100))
    ]) {
      assert.strictEqual(
        errorOf(parse(bytes)).message,
        "cannot be read as peers.dat: it does not say which programs can read it"
      )
    }
  })
})

describe("anchors.dat", () => {
  const anchors = [told("1.2.3.4:8333", start, 1_033n), told(`${"a".repeat(52)}.b32.i2p`, start, 1n << 40n)]

  it("of Core is read, and written again byte for byte", () => {
    const bytes = readVector("core/anchors.dat")
    const decoded = Result.getOrThrow(AddressBook.decodeAnchors(bytes, Network.regtest))
    assert.deepStrictEqual(
      decoded.map((address) => Address.format(address)),
      ["127.0.0.1:19555", "127.0.0.1:19556"]
    )
    assert.deepStrictEqual(AddressBook.encodeAnchors(decoded, Network.regtest), bytes)
  })

  it("has the layout of Core: magic, count, addresses, checksum", () => {
    const content = Uint8Array.from(
      Buffer.from("fabfb5da 01 605b0320 00f15365 fd0904 01 04 01020304 208d".replaceAll(" ", ""), "hex")
    )
    assert.deepStrictEqual(
      AddressBook.encodeAnchors(anchors.slice(0, 1), Network.regtest),
      concat(content, doubleSha256(content))
    )
  })

  it("is read again", () => {
    for (const some of [[], anchors]) {
      const bytes = AddressBook.encodeAnchors(some, Network.regtest)
      assert.deepStrictEqual(Result.getOrThrow(AddressBook.decodeAnchors(bytes, Network.regtest)), some)
    }
  })

  it("that is cut off or changed at any byte is refused", () => {
    const bytes = AddressBook.encodeAnchors(anchors, Network.regtest)
    for (let length = 0; length < bytes.length; length++) {
      assert.isTrue(Result.isFailure(AddressBook.decodeAnchors(bytes.subarray(0, length), Network.regtest)))
      assert.isTrue(
        Result.isFailure(AddressBook.decodeAnchors(bytes.with(length, bytes[length]! ^ 1), Network.regtest))
      )
    }
    const error = errorOf(AddressBook.decodeAnchors(bytes, Network.signet))
    assert.strictEqual(error.message, "cannot be read as anchors.dat: it is of another network")
  })

  it("keeps the anchors beside one of an unknown network", () => {
    const bytes = AddressBook.encodeAnchors(anchors, Network.regtest)
    // The network of the first one comes after magic, count, version, time and 3 bytes of services.
    const decoded = Result.getOrThrow(AddressBook.decodeAnchors(changed(bytes, 16, 99), Network.regtest))
    assert.deepStrictEqual(
      decoded.map((address) => Address.format(address)),
      [Address.format(anchors[1]!)]
    )
  })
})
