/** When added nodes are dialled again. */
import { assert, describe, it } from "@effect/vitest"
import type { Target } from "../../src/server/Dialer.ts"
import { AddedNodes } from "../../src/server/internal/backoff.ts"
import { makeRandom } from "../../src/server/internal/random.ts"

const make = () => new AddedNodes(makeRandom(new Uint8Array(16)))
const node: Target = { host: "node.example", port: 8333 }

describe("an added node", () => {
  it("is due at once, once, and whatever the case of its name", () => {
    const nodes = make()
    assert.isTrue(nodes.add(node, 100))
    assert.isFalse(nodes.add({ host: "NODE.example", port: 8333 }, 100))
    assert.isUndefined(nodes.due(99))
    const due = nodes.due(100)!
    nodes.started(due, 100)
    assert.isUndefined(nodes.due(1e12))
    assert.strictEqual(nodes.nextAt, Number.POSITIVE_INFINITY)
  })

  it("waits from half of 1, 2, 4 … s up to the whole, and at most 5 min", () => {
    const nodes = make()
    nodes.add(node, 0)
    const waits: Array<number> = []
    for (let now = 0, i = 0; i < 20; i++) {
      const due = nodes.due(now)!
      nodes.started(due, now)
      nodes.ended(due, now, undefined, true)
      const wait = nodes.nextAt - now
      const whole = Math.min(300_000, 1_000 * 2 ** i)
      assert.isAtLeast(wait, whole / 2)
      assert.isAtMost(wait, whole)
      waits.push(wait / whole)
      now = nodes.nextAt
    }
    assert.isAbove(new Set(waits).size, 15, "the waits are random")
  })

  it("begins anew only after a connection that lived for two minutes", () => {
    const nodes = make()
    nodes.add(node, 0)
    const due = nodes.due(0)!
    for (let i = 0; i < 6; i++) nodes.ended(due, 0, 119_999, true)
    assert.isAtLeast(nodes.nextAt, 16_000)
    nodes.ended(due, 0, 120_000, true)
    assert.isAtMost(nodes.nextAt, 1_000)
  })

  it("waits for longest where another try is of no use, and is never given up", () => {
    const nodes = make()
    nodes.add(node, 0)
    nodes.ended(nodes.due(0)!, 0, undefined, false)
    assert.isAtLeast(nodes.nextAt, 150_000)
    assert.isAtMost(nodes.nextAt, 300_000)
  })

  it("is not punished for an interruption on this side", () => {
    const nodes = make()
    nodes.add(node, 0)
    const due = nodes.due(0)!
    nodes.started(due, 0)
    nodes.withdrawn(due, 50)
    assert.strictEqual(nodes.nextAt, 50)
    assert.strictEqual(due.attempts, 0)
  })

  it("is not dialled while it is unreachable, and is looked at again after a restart", () => {
    const nodes = make()
    nodes.add(node, 0)
    nodes.markUnreachable(node, "no way")
    assert.isUndefined(nodes.due(1e12))
    nodes.restart(1_000)
    assert.isDefined(nodes.due(6_000))
  })

  it("does not come back with all others at once after a restart", () => {
    const nodes = make()
    for (let i = 0; i < 100; i++) nodes.add({ host: `n${i}.example`, port: 8333 }, 0)
    nodes.restart(0)
    const times = nodes.all.map(({ nextAt }) => nextAt)
    assert.isAtMost(Math.max(...times), 5_000)
    assert.isAbove(new Set(times.map((time) => Math.floor(time / 500))).size, 8)
  })
})
