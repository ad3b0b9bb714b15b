/** The output of the demo: aligned lines, a progress bar on a terminal, a table. */
import { SingleBar } from "cli-progress"
import Table from "cli-table3"
import * as Effect from "effect/Effect"
import { Output } from "../output.ts"
import { rowTexts, widest, wrapped } from "../text.ts"

const labelWidth = 12
/** Room for ` 4,900 of 4,900` after a bar. */
const countWidth = 18

export const title = (text: string): Effect.Effect<void, never, Output> =>
  Effect.map(Output, ({ columns, line, paint }) => {
    for (const part of wrapped(text, columns() ?? Infinity, 0)) line(paint("bold", part))
  })

/** A label and its text, in one line or more. */
export const lines = (label: string, ...texts: ReadonlyArray<string>): Effect.Effect<void, never, Output> =>
  Effect.map(Output, ({ columns, line, paint }) => {
    for (const [index, text] of texts.entries()) {
      const whole = `${index === 0 ? paint("cyan", label.padEnd(labelWidth)) : " ".repeat(labelWidth)}${text}`
      for (const part of wrapped(whole, columns() ?? Infinity, labelWidth)) line(part)
    }
  })

const units = ["B", "KiB", "MiB", "GiB"]

export const size = (bytes: number): string => {
  let unit = 0
  let value = bytes
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

/** The stream for a bar, and its kind of terminal. */
export interface Terminal {
  readonly stream: NodeJS.WritableStream
  readonly TERM: string | undefined
}

/**
 * Runs an effect and shows its progress in a bar, which disappears at the end. Without a terminal, and on a terminal that cannot move
 * its cursor, no bar is shown.
 */
export const withBar = <A, E, R>(
  label: string,
  total: number,
  use: (update: (done: number) => void) => Effect.Effect<A, E, R>,
  { stream, TERM }: Terminal = { stream: process.stdout, TERM: process.env["TERM"] }
): Effect.Effect<A, E, R | Output> => {
  if (TERM === "dumb") return use(() => {})
  return Effect.acquireUseRelease(
    Effect.flatMap(Output, ({ columns, flush, paint }) => {
      const bar = new SingleBar({
        stream,
        format: `${paint("cyan", label.padEnd(labelWidth))}{bar} {value} of {total}`,
        barsize: Math.min(40, (columns() ?? Infinity) - labelWidth - countWidth),
        barCompleteChar: "█",
        barIncompleteChar: "░",
        hideCursor: true,
        clearOnComplete: true,
        // Every end of the command releases the bar.
        gracefulExit: false
      })
      return Effect.as(
        Effect.tap(flush, () => Effect.sync(() => bar.start(total, 0))),
        bar
      )
    }),
    (bar) => use((done) => bar.update(done)),
    (bar) => Effect.sync(() => bar.stop())
  )
}

/** Rows of text, the first column to the left, the others to the right; the last row is a sum. */
export const table = (
  head: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<string>>
): Effect.Effect<void, never, Output> =>
  Effect.map(Output, ({ columns, line, paint }) => {
    const drawn = new Table({
      head: head.map((text) => paint("cyan", text)),
      colAligns: head.map((_, index) => (index === 0 ? "left" : "right")),
      // Its own colours do not ask whether they are wanted.
      style: { head: [], border: [], compact: true }
    })
    for (const [index, row] of rows.entries()) {
      drawn.push(index === rows.length - 1 ? row.map((text) => paint("bold", text)) : [...row])
    }
    const rowsDrawn = drawn.toString().split("\n")
    const available = columns() ?? Infinity
    const fitting =
      widest(rowsDrawn) <= available
        ? rowsDrawn
        : rowTexts(head, rows).flatMap((text) => wrapped(`  ${text}`, available, 4))
    for (const row of fitting) line(row)
  })
