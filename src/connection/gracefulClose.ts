import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { startTimer } from "../primitives/timer.ts"
import type { WaitList } from "../primitives/waitList.ts"

/** Long enough for an answer from the other end of the world. */
export const defaultCloseTimeout = Duration.millis(500)

/** What a connection must be able to do to be closed softly. All idempotent, none throws. */
export interface Closable {
  /** Whether nothing is left to close. */
  isOver(): boolean
  /** Waits until it is over. */
  readonly over: WaitList
  /** Pulls fail from now on; what was written is flushed, then comes our end. */
  begin(): void
  /** Now. */
  destroyUnsafe(): void
}

/** Begins the end, gives the other side `timeout` to answer, then destroys. Destroys as well when interrupted. */
export const gracefulClose = (connection: Closable, timeout: Duration.Input): Effect.Effect<void> =>
  Effect.contextWith((context: Context.Context<never>) => {
    connection.begin()
    if (connection.isOver()) return Effect.void
    const destroy = () => connection.destroyUnsafe()
    // Without it, even no time at all would wait for a TestClock to be moved.
    if (!Duration.isPositive(Duration.fromInputUnsafe(timeout))) return Effect.sync(destroy)
    const stop = startTimer(context, timeout, destroy)
    return Effect.onExit(connection.over.wait, (exit) =>
      Effect.sync(() => {
        stop()
        if (Exit.isFailure(exit)) destroy()
      })
    )
  })
