import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { PassThrough } from "node:stream"
import * as Screen from "../src/demo/screen.ts"
import { makeMemory } from "../src/output.ts"

/** What a progress bar draws on a terminal of that name. */
const drawn = Effect.fnUntraced(function* (TERM: string | undefined) {
  const stream = Object.assign(new PassThrough(), { isTTY: true, columns: 80, rows: 25 })
  let updates = 0
  yield* Screen.withBar(
    "blocks",
    2,
    (update) =>
      Effect.sync(() => {
        for (const done of [1, 2]) update(done)
        updates++
      }),
    { stream, TERM }
  ).pipe(Effect.provide(makeMemory().layer))
  assert.strictEqual(updates, 1, "what it is about runs, with a bar or without")
  return String(stream.read() ?? "")
})

describe("the progress bar", () => {
  it.effect("is drawn on a terminal", () =>
    Effect.gen(function* () {
      for (const term of ["xterm-256color", undefined]) assert.include(yield* drawn(term), "of 2")
    })
  )

  it.effect("is not drawn on a terminal that cannot move its cursor", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* drawn("dumb"), "")
    })
  )
})
