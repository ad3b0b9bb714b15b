/** Events to stdout: as JSON for programs, as lines for people. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { type Event, toLine } from "./events.ts"
import { Output } from "./output.ts"
import { type Note, textLines } from "./print.ts"
import type { Format } from "./summary.ts"

/** Prints an event at once. */
export type Report = (event: Event, note?: Note) => void

export const makeReport = (format: Format): Effect.Effect<Report, never, Output> =>
  Effect.map(Output, ({ columns, line, paint }) => (event, note = {}) => {
    const oneOfMany = event.event === "message" || event.event === "dropped"
    if (format !== "text") line(toLine(event), oneOfMany)
    else for (const text of textLines(paint, event, note, columns())) line(text, oneOfMany)
  })

/** The current time: as ISO 8601 for programs, and as the time of day (UTC) for people. */
export const makeNow: Effect.Effect<() => { readonly time: string; readonly when: string }> = Effect.map(
  Clock.Clock,
  (clock) => () => {
    const time = new Date(clock.currentTimeMillisUnsafe()).toISOString()
    return { time, when: time.slice(11, 23) }
  }
)
