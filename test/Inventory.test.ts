/** The known inventory, and the transactions that wait for the trickle. */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Schema } from "effect"
import * as Inventory from "../src/Inventory.ts"

/** A hash that starts with the number, and is otherwise the same for all. */
const hash = (number: number): Uint8Array => {
  const bytes = new Uint8Array(32)
  new DataView(bytes.buffer).setUint32(0, number)
  return bytes
}
const tx = (number: number, feeRate?: number): Inventory.ItemAnnouncement => ({ type: 1, hash: hash(number), feeRate })
const wtx = (number: number): Inventory.ItemAnnouncement => ({ type: 5, hash: hash(number) })
const rules: Inventory.Rules = { wtxidRelay: false, relay: true, feeFilter: 0 }
const numbers = (batches: ReadonlyArray<ReadonlyArray<{ readonly hash: Uint8Array }>>): Array<Array<number>> =>
  batches.map((batch) => batch.map(({ hash }) => new DataView(hash.buffer).getUint32(0)))

describe("known inventory", () => {
  it("has the added hashes and no others", () => {
    const known = Inventory.makeKnown(1_000, 1)
    assert.isFalse(known.has(hash(1)))
    assert.isTrue(known.add(hash(1)))
    assert.isTrue(known.has(hash(1)))
    assert.isFalse(known.has(hash(2)))
    assert.isFalse(known.add(hash(1)))
    assert.strictEqual(known.size, 1)
  })

  it("copies hashes: it is not changed when the bytes of a hash are", () => {
    const known = Inventory.makeKnown(10, 1)
    const view = hash(1)
    known.add(view)
    view.fill(9)
    assert.isTrue(known.has(hash(1)))
    assert.isFalse(known.has(view))
  })

  it("forgets the least recently used hash when it is full", () => {
    const known = Inventory.makeKnown(3, 1)
    for (const number of [1, 2, 3]) known.add(hash(number))
    known.add(hash(1))
    known.add(hash(4))
    assert.deepStrictEqual(
      [1, 2, 3, 4].map((number) => known.has(hash(number))),
      [true, false, true, true]
    )
    assert.strictEqual(known.size, 3)
  })

  it("holds nothing with a limit of 0 or with an invalid limit", () => {
    for (const limit of [0, -1, Number.NaN]) {
      const known = Inventory.makeKnown(limit, 1)
      assert.isTrue(known.add(hash(1)))
      assert.isFalse(known.has(hash(1)))
    }
  })

  const operations = Arbitrary.array(
    Arbitrary.schema(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 60 }))),
    {
      maxLength: 400
    }
  )
  it.prop(
    "behaves like a Map in the order of use, for any limit",
    [operations, Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 40 }))],
    ([added, limit]) => {
      const known = Inventory.makeKnown(limit, 7)
      const model = new Set<number>()
      for (const number of added) {
        const isNew = !model.delete(number)
        model.add(number)
        if (model.size > limit) model.delete(model.values().next().value!)
        assert.strictEqual(known.add(hash(number)), isNew)
        assert.strictEqual(known.size, model.size)
      }
      for (let number = 0; number <= 60; number++) assert.strictEqual(known.has(hash(number)), model.has(number))
    },
    { arbitrary: { runs: 300, seed: 42, size: 150 } }
  )

  it("spreads hashes that differ in one byte only, whichever byte", () => {
    // An inv of 50,000 chosen hashes must not make each look at all others: this takes seconds if it does.
    for (const place of [0, 5, 17, 31]) {
      const known = Inventory.makeKnown(50_000, 99)
      const bytes = new Uint8Array(32)
      for (let number = 0; number < 50_000; number++) {
        bytes[place] = number & 0xff
        bytes[(place + 8) % 32] = number >> 8
        assert.isTrue(known.add(bytes))
      }
    }
  })
})

describe("a transaction that waits for the trickle", () => {
  it("is dropped when 50,000 newer ones wait, for a peer that takes none", () => {
    const inventory = Inventory.make(0, 1)
    const hashed = (number: number): Uint8Array => {
      const hash = new Uint8Array(32)
      new DataView(hash.buffer).setUint32(0, number)
      return hash
    }
    for (let number = 0; number < 120_000; number++) inventory.queue({ type: 1, hash: hashed(number) }, rules)
    assert.isAtMost(inventory.waiting.length, 50_000)
    assert.deepStrictEqual(inventory.waiting.at(-1)?.hash, hashed(119_999))
  })

  it("is announced in the order of the queue, in batches of at most 1,000", () => {
    const inventory = Inventory.make(10_000, 1)
    for (let number = 0; number < 2_500; number++) assert.strictEqual(inventory.queue(tx(number), rules), "queued")
    const batches = numbers(inventory.take(rules))
    assert.deepStrictEqual(
      batches.map(({ length }) => length),
      [1_000, 1_000, 500]
    )
    assert.deepStrictEqual(
      batches.flat(),
      Array.from({ length: 2_500 }, (_, number) => number)
    )
    assert.deepStrictEqual(inventory.take(rules), [])
  })

  it("is known after it was announced, and is not announced again", () => {
    const inventory = Inventory.make(1_000, 1)
    inventory.queue(tx(1), rules)
    inventory.take(rules)
    assert.strictEqual(inventory.queue(tx(1), rules), "known")
    assert.deepStrictEqual(inventory.take(rules), [])
  })

  it("is not queued when the peer knows it", () => {
    const inventory = Inventory.make(1_000, 1)
    inventory.known.add(hash(1))
    assert.strictEqual(inventory.queue(tx(1), rules), "known")
  })

  it("is skipped if it became known between queueing and sending", () => {
    const inventory = Inventory.make(1_000, 1)
    for (const number of [1, 2, 3]) inventory.queue(tx(number), rules)
    inventory.known.add(hash(2))
    assert.deepStrictEqual(numbers(inventory.take(rules)), [[1, 3]])
  })

  it("is announced once if it was queued twice", () => {
    const inventory = Inventory.make(1_000, 1)
    inventory.queue(tx(1), rules)
    inventory.queue(tx(1), rules)
    assert.deepStrictEqual(numbers(inventory.take(rules)), [[1]])
  })

  it("respects the feefilter, when it is queued and when it is sent", () => {
    const inventory = Inventory.make(1_000, 1)
    const filtered = { ...rules, feeFilter: 1_000 }
    assert.strictEqual(inventory.queue(tx(1, 999), filtered), "belowFeeFilter")
    assert.strictEqual(inventory.queue(tx(2, 1_000), filtered), "queued")
    assert.strictEqual(inventory.queue(tx(3), filtered), "queued", "without a fee rate the filter does not apply")
    assert.deepStrictEqual(numbers(inventory.take({ ...rules, feeFilter: 1_001 })), [[3]])
  })

  it("is not announced to a peer that wants no transactions", () => {
    assert.strictEqual(Inventory.make(1_000, 1).queue(tx(1), { ...rules, relay: false }), "notWanted")
  })

  it("is announced by wtxid if both sides agreed on that, and by txid otherwise", () => {
    const inventory = Inventory.make(1_000, 1)
    assert.strictEqual(inventory.queue(wtx(1), rules), "notWanted")
    assert.strictEqual(inventory.queue(tx(1), { ...rules, wtxidRelay: true }), "notWanted")
    assert.strictEqual(inventory.queue(wtx(1), { ...rules, wtxidRelay: true }), "queued")
  })
})

describe("the time of the next turn", () => {
  it("is exponential with the given mean", () => {
    let sum = 0
    for (let index = 0; index < 10_000; index++) {
      sum += Inventory.nextTrickle({ _tag: "Poisson", mean: 5_000 }, 0, (index + 0.5) / 10_000)
    }
    assert.approximately(sum / 10_000, 5_000, 10)
    assert.strictEqual(Inventory.nextTrickle({ _tag: "Poisson", mean: 5_000 }, 0, 0), 0)
    assert.isTrue(Number.isFinite(Inventory.nextTrickle({ _tag: "Poisson", mean: 5_000 }, 0, 1 - 2 ** -53)))
  })

  it("is the same for all peers of a group, until it has passed", () => {
    const turns = Inventory.makeSharedTurns(5_000)
    const next = (group: string, now: number, random: number) =>
      Inventory.nextTrickle({ _tag: "Shared", turns, group }, now, random)
    const first = next("1.2", 0, 0.5)
    assert.approximately(first, 5_000 * Math.LN2, 1e-9)
    assert.approximately(next("1.2", 1_000, 0.9), first - 1_000, 1e-9)
    assert.approximately(next("3.4", 1_000, 0.9), 5_000 * Math.log(10), 1e-6)
    assert.approximately(next("1.2", first, 0.5), first, 1e-9)
  })

  it("is remembered only for groups with a future turn, however many there were", () => {
    const turns = Inventory.makeSharedTurns(1)
    for (let group = 0; group < 200_000; group++) {
      turns.next(`group ${group}`, group * 100, 0.5)
      assert.isAtMost(turns.size, 1_024)
    }
  })

  it("is fixed as an option", () => {
    assert.strictEqual(Inventory.nextTrickle({ _tag: "Fixed", interval: 10_000 }, 0, 0.3), 10_000)
  })

  it("is 2 s on average to outbound peers and 5 s to inbound ones", () => {
    assert.deepStrictEqual(Inventory.defaultTrickle("outbound"), { _tag: "Poisson", mean: 2_000 })
    assert.deepStrictEqual(Inventory.defaultTrickle("inbound"), { _tag: "Poisson", mean: 5_000 })
  })
})
