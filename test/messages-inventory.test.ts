/** Inventory, headers and locators; and the lists of decoded messages. */
import { assert, describe, it } from "@effect/vitest"
import { inspect } from "node:util"
import * as Wire from "../src/Wire.ts"
import { concat, decoded, encoded, examples, plain, reasonOf } from "./support/generators.ts"

const hash = Uint8Array.from({ length: 32 }, (_, i) => i)
const items = (count: number): Array<Wire.InventoryItem> => Array.from({ length: count }, () => ({ type: 5, hash }))

describe("inv, getdata and notfound", () => {
  it("have at most 50,000 items", () => {
    for (const _tag of ["inv", "getdata", "notfound"] as const) {
      const payload = encoded({ _tag, items: items(50_000) })
      assert.strictEqual(payload.length, 3 + 50_000 * 36)
      assert.strictEqual((decoded(_tag, payload) as Wire.Inv).items.length, 50_000)
      const tooMany = { _tag: "TooMany", field: "items", count: 50_001, limit: 50_000 } as const
      assert.deepStrictEqual(reasonOf(Wire.encode({ _tag, items: items(50_001) })), tooMany)
      const bytes = new Uint8Array(3 + 50_001 * 36)
      bytes.set([0xfd, 0x51, 0xc3])
      assert.deepStrictEqual(reasonOf(Wire.decode(_tag, bytes)), tooMany)
    }
  })

  it("keep unknown types and the witness flag", () => {
    const message: Wire.GetData = {
      _tag: "getdata",
      items: [0, 0xffffffff, Wire.InventoryType.block | Wire.InventoryType.witnessFlag].map((type) => ({ type, hash }))
    }
    assert.deepStrictEqual(plain(decoded("getdata", encoded(message))), message)
  })

  it("are refused with a hash that is not 32 bytes or a type that is not uint32", () => {
    for (const item of [
      { type: 1, hash: new Uint8Array(31) },
      { type: 1, hash: new Uint8Array(33) },
      { type: -1, hash },
      { type: 2 ** 32, hash }
    ]) {
      assert.strictEqual(reasonOf(Wire.encode({ _tag: "inv", items: [item] }))._tag, "BadValue")
    }
  })
})

describe("headers", () => {
  const [header] = (examples.find((message) => message._tag === "headers") as Wire.Headers).headers

  it("has at most 2,000 headers", () => {
    const payload = encoded({ _tag: "headers", headers: Array.from({ length: 2_000 }, () => header) })
    assert.strictEqual(payload.length, 3 + 2_000 * 81)
    assert.strictEqual((decoded("headers", payload) as Wire.Headers).headers.length, 2_000)
    const tooMany = Array.from({ length: 2_001 }, () => header)
    assert.strictEqual(reasonOf(Wire.encode({ _tag: "headers", headers: tooMany }))._tag, "TooMany")
    assert.strictEqual(
      reasonOf(Wire.decode("headers", concat([0xfd, 0xd1, 7], new Uint8Array(2_001 * 81))))._tag,
      "TooMany"
    )
  })

  it("ignores transaction counts, and encodes them as 0", () => {
    const bytes = encoded({ _tag: "headers", headers: [header] }).subarray(1, 81)
    const payload = concat([3], bytes, [0xfd, 0x00, 0x10], bytes, [7], bytes, [0xfe, 0, 0, 1, 0])
    const message = decoded("headers", payload) as Wire.Headers
    assert.deepStrictEqual(Array.from(message.headers), [header, header, header])
    const written = concat([3], bytes, [0], bytes, [0], bytes, [0])
    assert.deepStrictEqual(encoded(message), written)
    assert.deepStrictEqual(encoded(plain(message)), written)
    assert.strictEqual(reasonOf(Wire.decode("headers", concat([1], bytes, [0xfd, 1, 0])))._tag, "BadCompactSize")
  })

  it("is refused with a header that cannot be encoded", () => {
    for (const wrong of [
      { ...header, version: 2 ** 31 },
      { ...header, merkleRoot: new Uint8Array(0) },
      { ...header, nonce: -1 }
    ]) {
      assert.strictEqual(reasonOf(Wire.encode({ _tag: "headers", headers: [wrong] }))._tag, "BadValue")
    }
  })
})

describe("getheaders and getblocks", () => {
  it("have a locator of at most 101 hashes", () => {
    for (const _tag of ["getheaders", "getblocks"] as const) {
      const longest = { _tag, protocolVersion: 70016, locator: Array.from({ length: 101 }, () => hash), stopHash: hash }
      assert.deepStrictEqual(plain(decoded(_tag, encoded(longest))), longest)
      const tooMany = { _tag: "TooMany", field: "locator", count: 102, limit: 101 } as const
      assert.deepStrictEqual(reasonOf(Wire.encode({ ...longest, locator: [...longest.locator, hash] })), tooMany)
      assert.deepStrictEqual(reasonOf(Wire.decode(_tag, concat([0, 0, 0, 0, 102], new Uint8Array(103 * 32)))), tooMany)
    }
  })

  it("are refused with a hash that is not 32 bytes", () => {
    const message = { _tag: "getblocks", protocolVersion: 70016, locator: [hash], stopHash: hash } as const
    assert.strictEqual(reasonOf(Wire.encode({ ...message, stopHash: new Uint8Array(0) }))._tag, "BadValue")
    assert.strictEqual(reasonOf(Wire.encode({ ...message, locator: [new Uint8Array(64)] }))._tag, "BadValue")
  })
})

describe("a list of a decoded message", () => {
  const inv: Wire.Inv = { _tag: "inv", items: [1, 2, 3].map((type) => ({ type, hash: new Uint8Array(32).fill(type) })) }
  const { items: list } = decoded("inv", encoded(inv)) as Wire.Inv

  it("has the elements of an array at the same indexes", () => {
    const array = Array.from(list)
    assert.deepStrictEqual(array, Array.from(inv.items))
    for (const index of [0, 1, 2, 3, -1, -3, -4, 1.7, -0.5, Number.NaN, Infinity]) {
      assert.deepStrictEqual(list.at(index), array.at(index), `${index}`)
    }
  })

  it("can be iterated twice, also at the same time", () => {
    assert.deepStrictEqual(Array.from(list), Array.from(list))
    const pairs: Array<string> = []
    for (const a of list) for (const b of list) pairs.push(`${a.type}${b.type}`)
    assert.deepStrictEqual(pairs, ["11", "12", "13", "21", "22", "23", "31", "32", "33"])
  })

  it("prints its elements", () => {
    assert.strictEqual(JSON.parse(JSON.stringify(list)).length, 3)
    assert.include(inspect(list), "type: 2")
  })

  it("gives views over the payload, without copies", () => {
    const payload = encoded(inv)
    assert.strictEqual((decoded("inv", payload) as Wire.Inv).items.at(0)?.hash.buffer, payload.buffer)
  })

  it("may be any object with length, at and an iterator for encoding", () => {
    const own: Wire.List<Wire.InventoryItem> = {
      length: 2,
      at: (index) => inv.items.at(index),
      [Symbol.iterator]: () => inv.items[Symbol.iterator]()
    }
    assert.deepStrictEqual(plain(decoded("inv", encoded({ _tag: "inv", items: own }))), {
      _tag: "inv",
      items: Array.from(inv.items).slice(0, 2)
    })
    // A list that encodes another message while it is read must not disturb the buffer in use.
    const nested = { ...own, at: (index: number) => (encoded({ _tag: "ping", nonce: 1n }), inv.items.at(index)) }
    assert.deepStrictEqual(encoded({ _tag: "inv", items: nested }), encoded({ _tag: "inv", items: own }))
  })

  it("is refused in a message with elements of another type", () => {
    const addr = decoded("addr", encoded(examples.find((message) => message._tag === "addr")!)) as Wire.Addr
    const wrong = addr.addresses as unknown as Wire.List<Wire.InventoryItem>
    assert.strictEqual(reasonOf(Wire.encode({ _tag: "inv", items: wrong }))._tag, "BadValue")
  })

  it("is refused if it has fewer elements than its length", () => {
    const short = {
      length: 4,
      at: (index: number) => inv.items.at(index),
      [Symbol.iterator]: () => inv.items[Symbol.iterator]()
    }
    assert.strictEqual(reasonOf(Wire.encode({ _tag: "inv", items: short }))._tag, "BadValue")
  })
})
