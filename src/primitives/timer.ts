/** A timer on the Clock of a context. */
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/**
 * Calls `onTime` after `duration` on the Clock of the context. The returned function cancels it. For code that waits in a
 * callback already: a sleeping fiber costs a third of an `Effect.race`.
 */
export const startTimer = (
  context: Context.Context<never>,
  duration: Duration.Input,
  onTime: () => void
): (() => void) => {
  const fiber = Effect.runForkWith(context)(Effect.andThen(Effect.sleep(duration), Effect.sync(onTime)))
  return () => fiber.interruptUnsafe()
}
