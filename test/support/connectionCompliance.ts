/** The compliance suite of `effect-bitcoin-peer/testing` as tests of ours. */
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { ConnectionCompliance } from "effect-bitcoin-peer/testing"

export const { fill, patterned, pullBytes, pullToEnd } = ConnectionCompliance

/** Ten pauses of 5 ms. On a machine that stalls, one long pause could be a single turn of the event loop. */
export const quiet: Effect.Effect<void> = Effect.repeat(Effect.sleep(5), { times: 9 })

/** Registers the tests for one implementation. */
export const compliance = (name: string, implementation: ConnectionCompliance.Implementation): void => {
  const run = implementation.time === "virtual" ? it.effect : it.live
  describe(name, () => {
    for (const { name, test } of ConnectionCompliance.tests(implementation)) run(name, () => test)
  })
}
