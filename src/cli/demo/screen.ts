/** What the demo shows to a person: aligned lines, a progress bar on terminals, a table. Colours only where they show. */
import { SingleBar } from "cli-progress"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import Table from "cli-table3"
import { styleText } from "node:util"

// Looks at stdout itself: no colours when it is piped, or when NO_COLOR is set.
const paint = (format: Parameters<typeof styleText>[0], text: string): string => styleText(format, text)

const labelWidth = 12

/** A label and what there is to say, in one line or more. */
export const line = (label: string, ...lines: ReadonlyArray<string>): Effect.Effect<void> =>
  Console.log(`${paint("cyan", label.padEnd(labelWidth))}${lines.join(`\n${" ".repeat(labelWidth)}`)}`)

export const title = (text: string): Effect.Effect<void> => Console.log(paint("bold", text))

/** One line on stderr that says what went wrong. */
export const failed = (step: string, problem: string): Effect.Effect<void> =>
  Console.error(`${paint("red", `${step} failed:`)} ${problem}`)

export const count = (value: number): string => value.toLocaleString("en-US")

const units = ["B", "KiB", "MiB", "GiB"]

export const size = (bytes: number): string => {
  let unit = 0
  let value = bytes
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

export const millis = (value: number): string =>
  value < 10 ? `${value.toFixed(2)} ms` : value < 10_000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`

/** Runs an effect beside a progress bar, which is gone when it ends. Without a terminal there is none. */
export const withBar = <A, E, R>(
  label: string,
  total: number,
  use: (update: (done: number) => void) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  Effect.acquireUseRelease(
    Effect.sync(() => {
      const bar = new SingleBar({
        stream: process.stdout,
        format: `${paint("cyan", label.padEnd(labelWidth))}{bar} {value} of {total}`,
        barCompleteChar: "█",
        barIncompleteChar: "░",
        hideCursor: true,
        clearOnComplete: true,
        // The scope of the demo stops it.
        gracefulExit: false
      })
      bar.start(total, 0)
      return bar
    }),
    (bar) => use((done) => bar.update(done)),
    (bar) => Effect.sync(() => bar.stop())
  )

/** Rows of text, the first column to the left, the others to the right; the last row is a sum. */
export const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): Effect.Effect<void> => {
  const drawn = new Table({
    head: head.map((text) => paint("cyan", text)),
    colAligns: head.map((_, index) => (index === 0 ? "left" : "right")),
    // Its own colours do not ask whether they show.
    style: { head: [], border: [], compact: true }
  })
  for (const [index, row] of rows.entries()) {
    drawn.push(index === rows.length - 1 ? row.map((text) => paint("bold", text)) : [...row])
  }
  return Console.log(drawn.toString())
}
