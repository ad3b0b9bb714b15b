/** The tests of fuzz.test.ts and fuzz.long.test.ts: each target accepts its first inputs. */
import { assert, describe, it } from "@effect/vitest"
import { explain, run } from "./loop.ts"
import { targets } from "./targets.ts"

/** Registers a test for each target. A number of inputs, not a time: the tests are the same on every machine. */
export const testInputs = (inputs: number): void => {
  describe("the rules of a target hold for random inputs", () => {
    for (const target of targets) {
      // A payload target checks one command, so it needs fewer inputs than the targets that draw the command.
      const count = target.name.startsWith("payload:") ? Math.ceil(inputs / 5) : inputs
      it(`${target.name}: ${count} inputs`, { timeout: 300_000 }, () => {
        for (let seed = 0; seed < count; seed++) {
          const finding = run(target, seed)
          if (finding !== undefined) assert.fail(explain(finding))
        }
      })
    }
  })
}
