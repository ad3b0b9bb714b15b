import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

/**
 * Does something after that long on the Clock of the context; the result calls it off. For what waits in a callback anyway:
 * a fiber that sleeps costs a third of a race.
 */
export const startTimer = (
  context: Context.Context<never>,
  duration: Duration.Input,
  onTime: () => void
): (() => void) => {
  const fiber = Effect.runForkWith(context)(Effect.andThen(Effect.sleep(duration), Effect.sync(onTime)))
  return () => fiber.interruptUnsafe()
}
