/** The table in which requested items are found. */
import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import { type Entry, ItemTable } from "../src/peer/requests/itemTable.ts"
import { integer } from "./support/generators.ts"
import { hash } from "./support/requests.ts"

const entry = (kind: number, hash: Uint8Array): Entry => ({ kind, hash, chained: undefined })

/** The same bytes; `read` is called for each byte that is read. */
const watched = (bytes: Uint8Array, read: () => void): Uint8Array =>
  new Proxy(bytes, {
    get: (target, key) => {
      read()
      return Reflect.get(target, key)
    }
  })

describe("the table of requested items", () => {
  const steps = Arbitrary.array(Arbitrary.all([integer(0, 2), integer(0, 200)]), { maxLength: 600 })

  it.prop("holds what a Map holds, whatever is added and removed", [steps], ([steps]) => {
    const table = new ItemTable<Entry>()
    const model = new Map<string, Entry>()
    for (const [kind, number] of steps) {
      const key = `${kind} ${number}`
      const known = model.get(key)
      assert.strictEqual(table.get(kind, hash(number)), known)
      if (known === undefined) {
        const added = entry(kind, hash(number))
        model.set(key, added)
        table.add(added)
      } else {
        model.delete(key)
        table.remove(known)
      }
      assert.strictEqual(table.size, model.size)
    }
    const left = [...table]
    assert.lengthOf(left, model.size)
    for (const each of model.values()) assert.include(left, each)
  })

  it("finds one of 20,000 hashes in a few steps, although a remote chose them", () => {
    const count = 20_000
    const secret = Int32Array.from({ length: 16 }, (_, at) => Math.imul(at + 1, 0x9e3779b1) ^ (at * 0x85ebca6b))
    /** A hash with the number in 15 of its bits. */
    const chosen = (places: (bit: number) => number) => (number: number) => {
      const bytes = new Uint8Array(32).fill(7)
      for (let bit = 0; bit < 15; bit++) {
        const place = places(bit)
        bytes[place >> 3]! ^= ((number >> bit) & 1) << (place & 7)
      }
      return bytes
    }
    for (const hashOf of [
      // The first 28 bytes are equal, or the last, or only the highest bit of each 16 differs.
      chosen((bit) => 28 * 8 + bit),
      chosen((bit) => bit),
      chosen((bit) => bit * 16 + 15)
    ]) {
      // Random once: a few secrets of a thousand are unlucky, and the test would fail by chance.
      const table = new ItemTable<Entry>(secret)
      for (let number = 0; number < count; number++) table.add(entry(1, hashOf(number)))
      let reads = 0
      const read = () => void reads++
      for (let number = 0; number < count; number++) {
        assert.isDefined(table.get(1, watched(hashOf(number), read)))
      }
      // 32 to find the bucket, 32 to compare, and those of other hashes in the same bucket.
      assert.isBelow(reads, 100 * count)
    }
  })
})
