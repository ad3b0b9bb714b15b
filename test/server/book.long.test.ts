/** The address book against its model, for 100,000 steps. */
import { assert, describe, it } from "@effect/vitest"
import { runScript } from "../support/bookScripts.ts"

describe("random scripts of 10,000 steps", () => {
  for (let seed = 101; seed <= 110; seed++) {
    it(`leave the book and its model equal, seed ${seed}`, () => {
      assert.isAbove(runScript(seed, 10_000, 1_000).added, 800)
    })
  }
})
