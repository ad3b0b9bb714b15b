/** What the rules of a suite need. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Connection } from "../../Connection.ts"
import type { ConnectionError } from "../../ConnectionError.ts"
import { fail } from "./rule.ts"

/** A rule and the effect that checks it. */
export interface Rule {
  readonly name: string
  readonly test: Effect.Effect<void, never, Scope.Scope>
}

/** A failure of the effect breaks the rule, too. */
export const makeRule = (name: string, test: () => Effect.Effect<void, unknown, Scope.Scope>): Rule => ({
  name,
  test: Effect.suspend(test).pipe(
    Effect.catch((error) =>
      Effect.sync(() => fail(`it failed: ${error instanceof Error ? error.message : String(error)}`))
    )
  )
})

export interface Setup {
  readonly make: (options: {
    readonly closeTimeout?: Duration.Input
  }) => Effect.Effect<
    { readonly a: Connection; readonly b: Connection; readonly resetB: Effect.Effect<void> },
    ConnectionError,
    Scope.Scope
  >
  readonly time: "virtual" | "real"
  readonly capacity: number
  readonly heldBy?: ((end: Connection) => number) | undefined
  /** Lets time pass. */
  readonly passes: (millis: number) => Effect.Effect<void>
  /** Waits until all pending work that needs no further call is done. */
  readonly settle: Effect.Effect<void>
}
