/**
 * A short fuzz run, always the same, and what longer ones found (`npm run fuzz`). Rules and targets are in
 * `test/fuzz/targets.ts`.
 */
import { assert, describe, it } from "@effect/vitest"
import { explain, run, shrink, targetNamed } from "./fuzz/loop.ts"
import type { Target } from "./fuzz/rules.ts"
import { targets } from "./fuzz/targets.ts"
import { dice } from "./support/dice.ts"

/** Counted, not timed: the same on every machine. */
const runsOf = ({ name }: Target): number => (name.startsWith("payload:") ? 400 : 2_000)

/** They take a second; on a machine that does ten things at once much more. */
const timeout = 180_000

describe("whatever the bytes are, the rules hold", () => {
  for (const target of targets) {
    it(
      `${target.name}: ${runsOf(target)} inputs`,
      () => {
        for (let seed = 0; seed < runsOf(target); seed++) {
          const finding = run(target, seed)
          if (finding !== undefined) assert.fail(explain(finding))
        }
      },
      timeout
    )
  }
})

/** What was found once, as small as it could be made; each was a bug. */
const findings: ReadonlyArray<readonly [what: string, target: string, hex: string]> = [
  [
    "a header that claims transactions is written without them, decoded or not",
    "payload:headers",
    `01${"00".repeat(80)}6b`
  ]
]

describe("what was found before", () => {
  for (const [what, target, hex] of findings) {
    it(what, () => targetNamed(target).check(Uint8Array.from(Buffer.from(hex, "hex"))))
  }
})

describe("the fuzzer", () => {
  const broken: Target = {
    name: "broken",
    make: (dice) => dice.bytes(200),
    check: (input) => {
      const at = input.indexOf(7)
      if (at >= 0 && input.indexOf(9, at) > at) throw new Error("a 9 behind a 7")
    }
  }

  it("finds a rule that does not hold, and makes the input as small as it can be", () => {
    const found = Array.from({ length: 50 }, (_, seed) => run(broken, seed)).find((finding) => finding !== undefined)
    assert.deepStrictEqual(found?.input, Uint8Array.of(7, 9))
    assert.include(explain(found!), "--target broken --hex 0709")
  })

  it("stops to shrink after so many tries", () => {
    let tries = 0
    const check = (input: Uint8Array): void => {
      tries++
      if (input.length === 1_000) throw new Error("as long as it was")
    }
    assert.strictEqual(shrink({ ...broken, check }, new Uint8Array(1_000).fill(1), 5).length, 1_000)
    assert.strictEqual(tries, 5)
  })

  it("makes the same input of the same seed, and another of another", () => {
    for (const target of targets) {
      assert.deepStrictEqual(target.make(dice(1)), target.make(dice(1)))
      const different = new Set(
        Array.from({ length: 20 }, (_, seed) => Buffer.from(target.make(dice(seed))).toString("hex"))
      )
      assert.isAbove(different.size, 10, target.name)
    }
  })
})
