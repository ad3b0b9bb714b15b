/** Tests on the virtual clock, which waits for all fibers before it moves, those that the test started included. */
import { it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import { VirtualClock } from "effect-bitcoin-peer/testing"

export const virtual = <A, E>(name: string, effect: () => Effect.Effect<A, E, Scope.Scope>): void =>
  it.live(name, () => Effect.provide(Effect.suspend(effect), VirtualClock.layer))
