import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Waiters } from "./waiters.ts"

/** Long enough for an answer from the other end of the world. */
export const defaultCloseTimeout = Duration.millis(500)

/** What a connection must be able to do to be closed softly. All idempotent, none throws. */
export interface Closable {
  /** Whether nothing is left to close. */
  isOver(): boolean
  /** Waits until it is over. */
  readonly over: Waiters
  /** Pulls fail from now on; what was written is flushed, then comes our end. */
  begin(): void
  /** Now. */
  destroyUnsafe(): void
}

/** Begins the end, gives the other side `timeout` to answer, then destroys. Destroys as well when interrupted. */
export const gracefulClose = (connection: Closable, timeout: Duration.Input): Effect.Effect<void> => {
  const destroy = Effect.sync(() => connection.destroyUnsafe())
  // Without it, even no time at all would wait for a TestClock to be moved.
  const waits = Duration.isPositive(Duration.fromInputUnsafe(timeout))
  // A forked fiber, for only a fiber can sleep on the Clock; and no race, for a finalizer is not interruptible.
  const destroyLater = Effect.forkChild(Effect.delay(destroy, timeout), { startImmediately: true })
  return Effect.suspend(() => {
    connection.begin()
    if (connection.isOver()) return Effect.void
    if (!waits) return destroy
    return Effect.flatMap(destroyLater, (timer) => Effect.ensuring(connection.over.wait, Fiber.interrupt(timer)))
  }).pipe(Effect.onInterrupt(() => destroy))
}
