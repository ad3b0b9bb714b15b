/** A timer on the Clock of a context. */
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/**
 * Calls `onTime` after this duration on the Clock of the context; the result cancels it. For code that waits in a
 * callback: a fiber that sleeps costs a third of a race.
 */
export const startTimer = (
  context: Context.Context<never>,
  duration: Duration.Input,
  onTime: () => void
): (() => void) => {
  const fiber = Effect.runForkWith(context)(Effect.andThen(Effect.sleep(duration), Effect.sync(onTime)))
  return () => fiber.interruptUnsafe()
}
