import { assert, describe, it } from "@effect/vitest"
import { makeRandom } from "../../src/server/internal/random.ts"
import { RollingFilter } from "../../src/server/internal/rollingFilter.ts"

const random = makeRandom(new Uint8Array(16).fill(3))

const key = (): Uint8Array => new Uint8Array(Uint32Array.of(random.below(2 ** 32), random.below(2 ** 32)).buffer)
const keys = (count: number): ReadonlyArray<Uint8Array> => Array.from({ length: count }, key)

const found = (filter: RollingFilter, count: number): number => keys(count).filter((one) => filter.has(one)).length

describe("RollingFilter", () => {
  it("has the sizes of Bitcoin Core", () => {
    // Core's formula for the bits, in pairs of words of 64.
    assert.strictEqual(new RollingFilter(5_000, 0.001, random).byteLength, 26_960)
    assert.strictEqual(new RollingFilter(50_000, 1e-6, random).byteLength, 539_168)
  })

  it("remembers the last 100 of 399, and finds about 1 % of others", () => {
    const filter = new RollingFilter(100, 0.01, random)
    const added = keys(399)
    for (const one of added) filter.add(one)
    for (const one of added.slice(299)) assert.isTrue(filter.has(one))
    // One before the next generation: it is as full as it can be.
    const mistakes = found(filter, 10_000)
    assert.isAbove(mistakes, 30)
    assert.isBelow(mistakes, 150)
  })

  it("forgets everything, and takes another key", () => {
    const filter = new RollingFilter(100, 0.01, random)
    const added = keys(100)
    for (const one of added) filter.add(one)
    const others = keys(20_000)
    const mistaken = others.filter((one) => filter.has(one))
    assert.isNotEmpty(mistaken)
    filter.reset()
    for (const one of added) assert.isFalse(filter.has(one))
    for (const one of added) filter.add(one)
    const again = mistaken.filter((one) => filter.has(one))
    assert.isBelow(again.length, mistaken.length / 2)
  })

  it("always knows the last 100 while it rolls", () => {
    const filter = new RollingFilter(100, 0.01, random)
    const added = keys(2_000)
    for (const [i, one] of added.entries()) {
      if (i >= 100) assert.isTrue(filter.has(added[i - 100]!))
      filter.add(one)
      assert.isTrue(filter.has(one))
    }
    // What was added 200 and more ago is forgotten, so the filter does not fill up.
    assert.isBelow(added.slice(0, 1_000).filter((one) => filter.has(one)).length, 50)
  })

  it("has room for all of them", () => {
    const filter = new RollingFilter(1_000, 0.001, random)
    const added = keys(399)
    for (const one of added) filter.add(one)
    for (const one of added) assert.isTrue(filter.has(one))
  })

  it("finds one in a million of others at the size of the discouraged hosts", () => {
    const filter = new RollingFilter(50_000, 1e-6, random)
    for (const one of keys(74_999)) filter.add(one)
    assert.isAtMost(found(filter, 200_000), 2)
  })

  it("places the same key elsewhere in each filter", () => {
    const mistakes = (): ReadonlySet<number> => {
      const filter = new RollingFilter(100, 0.01, random)
      for (let i = 0; i < 149; i++) filter.add(Uint8Array.of(1, i))
      const all = Array.from({ length: 10_000 }, (_, i) => i)
      return new Set(all.filter((i) => filter.has(Uint8Array.of(2, i >>> 8, i & 255))))
    }
    const first = mistakes()
    const both = [...mistakes()].filter((i) => first.has(i))
    assert.isAbove(first.size, 20)
    assert.isBelow(both.length, first.size / 4)
  })
})
