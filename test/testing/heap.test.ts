/** The heap of timers against a sorted list, and its memory. */
import { assert, describe, it } from "@effect/vitest"
import { type Entry, Heap } from "../../src/testing/internal/heap.ts"
import { dice } from "../support/dice.ts"

describe("Heap", () => {
  it("gives what was added and not cancelled, by time and then by order", () => {
    for (let seed = 0; seed < 200; seed++) {
      const random = dice(seed)
      const heap = new Heap<number>()
      const model: Array<Entry<number>> = []
      let next = 0
      for (let step = 0; step < 500; step++) {
        const kind = random.below(10)
        if (kind < 5) model.push(heap.add(random.below(50), next++))
        else if (kind < 8 && model.length > 0) heap.cancel(model.splice(random.below(model.length), 1)[0]!)
        else {
          model.sort((a, b) => a.at - b.at || a.order - b.order)
          const expected = model.shift()
          assert.strictEqual(heap.first, expected)
          const value = expected?.run
          assert.strictEqual(heap.take(), value)
          if (expected !== undefined) heap.cancel(expected)
        }
        assert.strictEqual(heap.size, model.length)
      }
    }
  })

  it("forgets what is cancelled", () => {
    const heap = new Heap<number>()
    heap.add(1_000_000, 0)
    for (let i = 0; i < 100_000; i++) heap.cancel(heap.add(999_999, i))
    assert.strictEqual(heap.size, 1)
    assert.isAtMost(heap.held, 64)
  })
})
