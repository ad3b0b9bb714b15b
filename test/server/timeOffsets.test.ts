/** The clocks of outbound peers. */
import { assert, describe, it } from "@effect/vitest"
import { TimeOffsets } from "../../src/server/internal/timeOffsets.ts"

describe("the offsets of the clocks of peers", () => {
  it("count from five peers on, by their median", () => {
    const offsets = new TimeOffsets()
    for (const offset of [1, 100, 3, 5]) offsets.add(offset)
    assert.strictEqual(offsets.median, 0)
    offsets.add(9_000)
    assert.strictEqual(offsets.median, 5)
    assert.isUndefined(offsets.warning)
  })

  it("warn from ten minutes on, in either direction", () => {
    for (const [offset, warning] of [
      [600, undefined],
      [601, "the clock of this machine is 601 s behind those of most peers"],
      [-601, "the clock of this machine is 601 s ahead of those of most peers"]
    ] as const) {
      const offsets = new TimeOffsets()
      for (let i = 0; i < 5; i++) offsets.add(offset)
      assert.strictEqual(offsets.warning, warning)
    }
  })

  it("are those of the last 50 peers", () => {
    const offsets = new TimeOffsets()
    for (let i = 0; i < 100; i++) offsets.add(i < 50 ? 5_000 : 1)
    assert.strictEqual(offsets.median, 1)
  })
})
