/**
 * The process around a command: lines to its output, and requests to stop. A service, so that a test can stand for the process.
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
     * Writes a line to stdout, after the lines that wait. Never throws. The text must be safe: see `text.ts`. `oneOfMany` allows to leave
     * the line out while more than `maximumWaiting` bytes wait.
     */
    readonly line: (text: string, oneOfMany?: boolean) => void
    /** Writes a line to stderr. */
    readonly error: (text: string) => void
    /**
     * `undefined` if stdout has room, else an effect that waits until its reader has caught up. A command that writes many lines asks
     * between them, so that few lines wait in memory even if the reader is slow.
     */
    readonly room: () => Effect.Effect<void> | undefined
    /** Waits until all lines are written. */
    readonly flush: Effect.Effect<void>
    /** The width of the terminal; `undefined` if stdout is not a terminal. */
    readonly columns: () => number | undefined
    /** Colours a text if stdout is a terminal with colours. */
    readonly paint: (style: Style, text: string) => string
    /**
     * Waits for a request to stop, and returns its reason: Ctrl-C, SIGTERM, or a closed stdout. While no fiber waits here, such a request
     * interrupts the command.
     */
    readonly stop: Effect.Effect<string>
  }
>()("effect-bitcoin-peer/cli/Output") {}

/**
 * How many bytes of lines may wait that cannot make a peer wait: those of messages before the end of the handshake, and of dropped
 * messages. Further lines are left out and counted.
 */
export const maximumWaiting = 8 * 1024 * 1024

/** Lines of one turn of the event loop are written together, up to about this many bytes. */
const gatherAt = 16_384

/** A second Ctrl-C ends the process at once. One within this many milliseconds is the first one again, which `npm run` forwards. */
const repeatedWithin = 500

export interface Process {
  readonly output: Output["Service"]
  /** Sets the callback for a request to stop that no command waits for. */
  readonly onInterrupt: (interrupt: () => void) => void
  /** Whether a signal asked to stop, and not only the end of the reader of stdout. */
  readonly signalled: () => boolean
  /** Whether the reader of stdout closed it. */
  readonly abandoned: () => boolean
  /** Whether writing to stdout failed for another reason, which was printed. */
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
    // A reader that stops early, as `head` does, is no failure; a full disk is one.
    if (cause.code !== "EPIPE") {
      failed = true
      stderr.write(`btcpeer: standard output: ${cause.message}\n`)
    }
    stop("nobody reads the output any more")
  }
  stdout.on("error", onError)
  stderr.on("error", () => {})

  /** Lines of this turn. Writing them one by one takes ten times as long, and more memory than the text. */
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
    // stdout and stderr are the same terminal: their lines keep their order.
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
      // The callback of an empty write comes after all writes before it have ended.
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

/** An output for tests, which keeps the lines in arrays. */
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
