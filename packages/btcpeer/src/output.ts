/**
 * What a command sees of the process around it: lines out, the wish to stop in. A service, so that tests take the place of
 * the process.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { styleText } from "node:util"

export type Style = Parameters<typeof styleText>[0]

export class Output extends Context.Service<
  Output,
  {
    /**
     * Writes a line to stdout, at once or behind what waits there. Never throws. Safe text only: see `text.ts`. One of
     * very many can be left out when far too much waits.
     */
    readonly line: (text: string, oneOfMany?: boolean) => void
    /** Writes a line to stderr. */
    readonly error: (text: string) => void
    /**
     * Nothing when there is room; else waits until whoever reads stdout has caught up. Whoever writes many lines asks
     * between them, so that few wait in memory however slow the reader is.
     */
    readonly room: () => Effect.Effect<void> | undefined
    /** Waits until all lines are written. */
    readonly flush: Effect.Effect<void>
    /** How wide the terminal is; `undefined` where stdout is none, and lines may have any length. */
    readonly columns: () => number | undefined
    /** Colours where stdout is a terminal that wants them, and leaves the text alone elsewhere. */
    readonly paint: (style: Style, text: string) => string
    /**
     * Waits until the command shall end, and returns why: Ctrl-C, SIGTERM, or nobody reads stdout any more. While nobody
     * waits, the same wish interrupts the command.
     */
    readonly stop: Effect.Effect<string>
  }
>()("effect-bitcoin-peer/cli/Output") {}

/**
 * How many bytes of lines may wait when nobody could be made to wait for room: what a remote causes before its handshake
 * is done, and bytes that are no messages. Lines beyond are left out, and counted.
 */
export const maximumWaiting = 8 * 1024 * 1024

/** How much of what is written in one turn is written together. */
const gatherAt = 16_384

/** A second Ctrl-C ends the process at once, unless it is the first one again: `npm run` hands on what the terminal sent, too. */
const repeatedWithin = 500

export interface Process {
  readonly output: Output["Service"]
  /** Sets who is interrupted by a wish to stop while no command waits for it. */
  readonly onInterrupt: (interrupt: () => void) => void
  /** Whether it was a signal, and not just the reader of stdout that left. */
  readonly signalled: () => boolean
  /** Whether stdout was closed by whoever read it. */
  readonly abandoned: () => boolean
  /** Whether stdout took no more, for another reason than that; it was said. */
  readonly failed: () => boolean
}

/** The output of this process. Made once, by `main.ts`. */
export const makeProcess = (process: NodeJS.Process): Process => {
  const { stderr, stdout } = process
  const waiters = new Set<(why: string) => void>()
  const coloured = styleText("red", "x", { stream: stdout }) !== "x"
  let interrupt: (() => void) | undefined
  let stopped: string | undefined
  let signalledAt: number | undefined
  let abandoned = false
  let failed = false
  let leftOut = 0

  const stop = (why: string): void => {
    stopped = why
    if (waiters.size === 0) interrupt?.()
    for (const waiter of waiters) waiter(why)
  }
  const onSignal = (): void => {
    const now = performance.now()
    if (signalledAt !== undefined && now - signalledAt > repeatedWithin) process.exit(130)
    if (signalledAt !== undefined) return
    signalledAt = now
    stop("interrupted")
  }
  process.on("SIGINT", onSignal)
  process.on("SIGTERM", onSignal)
  const onError = (cause: NodeJS.ErrnoException | null | undefined): void => {
    if (abandoned || cause === null || cause === undefined) return
    abandoned = true
    // A reader that leaves, as `head` does, is no failure; a full disk is.
    if (cause.code !== "EPIPE") {
      failed = true
      stderr.write(`btcpeer: standard output: ${cause.message}\n`)
    }
    stop("nobody reads the output any more")
  }
  stdout.on("error", onError)
  stderr.on("error", () => {})

  /** Lines of this turn, written together: one by one costs ten times as much, and more memory than the text. */
  let gathered = ""

  const write = (): void => {
    if (gathered !== "" && !abandoned) stdout.write(gathered, onError)
    gathered = ""
  }
  const line = (text: string, oneOfMany = false): void => {
    if (abandoned) return
    if (oneOfMany && stdout.writableLength + gathered.length > maximumWaiting) {
      leftOut++
      return
    }
    if (gathered === "") queueMicrotask(write)
    gathered += `${text}\n`
  }
  const error = (text: string): void => {
    // On a terminal both are one: in the order in which they were said.
    write()
    stderr.write(`${text}\n`)
  }
  const tellLeftOut = (): void => {
    if (leftOut > 0) error(`btcpeer: ${leftOut} lines were left out: the output is read too slowly`)
    leftOut = 0
  }
  const drained = Effect.callback<void>((resume) => {
    const done = (): void => {
      stdout.off("drain", done)
      stdout.off("close", done)
      tellLeftOut()
      resume(Effect.void)
    }
    stdout.on("drain", done)
    stdout.on("close", done)
    return Effect.sync(() => {
      stdout.off("drain", done)
      stdout.off("close", done)
    })
  })

  return {
    output: {
      line,
      error,
      room: () => {
        if (gathered.length > gatherAt) write()
        return abandoned || !stdout.writableNeedDrain ? undefined : drained
      },
      // The callback of a last, empty write comes when all before it are written, or failed.
      flush: Effect.callback<void>((resume) => {
        write()
        tellLeftOut()
        if (abandoned) resume(Effect.void)
        else stdout.write("", () => resume(Effect.void))
      }),
      columns: () => (stdout.isTTY ? stdout.columns : undefined),
      paint: (style, text) => (coloured ? styleText(style, text, { validateStream: false }) : text),
      stop: Effect.callback<string>((resume) => {
        if (stopped !== undefined) return resume(Effect.succeed(stopped))
        const waiter = (why: string): void => resume(Effect.succeed(why))
        waiters.add(waiter)
        return Effect.sync(() => void waiters.delete(waiter))
      })
    },
    onInterrupt: (how) => {
      interrupt = how
    },
    signalled: () => signalledAt !== undefined,
    abandoned: () => abandoned,
    failed: () => failed
  }
}

/** Keeps the lines in arrays: for tests. */
export const makeMemory = (stop: Effect.Effect<string> = Effect.never, columns?: number) => {
  const lines: Array<string> = []
  const errors: Array<string> = []
  const layer = Layer.succeed(
    Output,
    Output.of({
      line: (text) => void lines.push(text),
      error: (text) => void errors.push(text),
      room: () => undefined,
      flush: Effect.void,
      columns: () => columns,
      paint: (_, text) => text,
      stop
    })
  )
  return { lines, errors, layer }
}
