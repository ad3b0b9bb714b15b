/** The order of checks: a message is read completely before its limits are checked. */
import { assert, describe, it } from "@effect/vitest"
import * as Wire from "../src/Wire.ts"
import { bounded } from "./fuzz/rules.ts"
import { reasonOf } from "./support/generators.ts"
import { limits, tooManyHeaders } from "./support/limits.ts"

describe("a message above a limit", () => {
  for (const { command, cut, field, reason, whole } of limits) {
    it(`${command} ${field}: is ${reason} if complete, and Truncated if truncated`, () => {
      const found = reasonOf(Wire.decode(command, whole.payload))
      assert.strictEqual(found._tag, reason)
      assert.strictEqual("field" in found && found.field, field)
      // Trailing bytes make no difference.
      const longer = new Uint8Array(whole.payload.length + 1)
      longer.set(whole.payload)
      assert.deepStrictEqual(reasonOf(Wire.decode(command, longer)), found)
      for (const payload of cut) assert.strictEqual(reasonOf(Wire.decode(command, payload))._tag, "Truncated")
    })
  }

  it("headers: is TooMany by its count alone, as in Bitcoin Core", () => {
    for (const payload of [tooManyHeaders.payload, ...tooManyHeaders.cut]) {
      assert.deepStrictEqual(reasonOf(Wire.decode("headers", payload)), {
        _tag: "TooMany",
        field: "headers",
        count: 2_001,
        limit: 2_000
      })
    }
  })

  it("allocates nothing for a count without its elements", () => {
    for (const { command, cut } of limits) {
      for (const payload of cut) bounded(`decoding a cut ${command}`, 1, () => Wire.decode(command, payload))
    }
  })
})
