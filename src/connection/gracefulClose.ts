/** The graceful end of a connection: flush, send our end, wait for the end of the remote, then destroy. */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { startTimer } from "../primitives/timer.ts"
import type { WaitList } from "../primitives/waitList.ts"

/** How long `close` waits by default: long enough for an answer from the other side of the world. */
export const defaultCloseTimeout = Duration.millis(500)

/** A connection that can be closed gracefully. All members are idempotent, and none of them throws. */
export interface Closable {
  /** Whether both directions have ended. */
  isOver(): boolean
  /** Waits for that. */
  readonly over: WaitList
  /** From now on pulls fail. Written bytes are flushed, then our end is sent. */
  begin(): void
  /** Ends the connection at once. */
  destroyUnsafe(): void
}

/** Begins the end, waits at most `timeout` for the remote, then destroys. An interruption destroys as well. */
export const gracefulClose = (connection: Closable, timeout: Duration.Input): Effect.Effect<void> =>
  Effect.contextWith((context: Context.Context<never>) => {
    connection.begin()
    if (connection.isOver()) return Effect.void
    const destroy = () => connection.destroyUnsafe()
    // A timer of no time would wait for a TestClock to move.
    if (!Duration.isPositive(Duration.fromInputUnsafe(timeout))) return Effect.sync(destroy)
    const stop = startTimer(context, timeout, destroy)
    return Effect.onExit(connection.over.wait, (exit) =>
      Effect.sync(() => {
        stop()
        if (Exit.isFailure(exit)) destroy()
      })
    )
  })
