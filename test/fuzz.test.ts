/**
 * A short fuzz run with fixed seeds, and inputs found by longer runs. fuzz.long.test.ts runs more seeds, and `npm run fuzz`
 * runs until it is stopped. The targets and their rules are in test/fuzz/targets.ts.
 */
import { assert, describe, it } from "@effect/vitest"
import { explain, run, shrink, targetNamed } from "./fuzz/loop.ts"
import { testInputs } from "./fuzz/inputsTest.ts"
import type { Target } from "./fuzz/rules.ts"
import { targets } from "./fuzz/targets.ts"
import { dice } from "./support/dice.ts"

testInputs(500)

/** Inputs that once showed a bug, shrunk as far as possible. */
const findings: ReadonlyArray<readonly [what: string, target: string, hex: string]> = [
  [
    "a headers message with a nonzero transaction count is encoded with 0, from views and from plain data",
    "payload:headers",
    `01${"00".repeat(80)}6b`
  ]
]

describe("inputs that once failed", () => {
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
      if (at >= 0 && input.indexOf(9, at) > at) throw new Error("a 9 after a 7")
    }
  }

  it("finds an input that breaks a rule, and shrinks it as far as possible", () => {
    const found = Array.from({ length: 50 }, (_, seed) => run(broken, seed)).find((finding) => finding !== undefined)
    assert.deepStrictEqual(found?.input, Uint8Array.of(7, 9))
    assert.include(explain(found!), "--target broken --hex 0709")
  })

  it("stops shrinking after the given number of tries", () => {
    let tries = 0
    const check = (input: Uint8Array): void => {
      tries++
      if (input.length === 1_000) throw new Error("not shrunk")
    }
    assert.strictEqual(shrink({ ...broken, check }, new Uint8Array(1_000).fill(1), 5).length, 1_000)
    assert.strictEqual(tries, 5)
  })

  it("makes the same input from the same seed, and different inputs from different seeds", () => {
    for (const target of targets) {
      assert.deepStrictEqual(target.make(dice(1)), target.make(dice(1)))
      const different = new Set(
        Array.from({ length: 20 }, (_, seed) => Buffer.from(target.make(dice(seed))).toString("hex"))
      )
      assert.isAbove(different.size, 10, target.name)
    }
  })
})
