/** `btcpeer decode`: the messages in a file, or in standard input. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Readable } from "node:stream"
import type { Network } from "effect-bitcoin-peer/Network"
import { Failure } from "./failure.ts"
import { encodingOf, inputs } from "./hexText.ts"
import { keyBeside, openInput, problemOf, pullUntil } from "./input.ts"
import { Output } from "./output.ts"
import { makeReport } from "./report.ts"
import { beginsWithHeader, deobfuscate, detect, find, type Form, formOf, headSize, scannerOf } from "./scan.ts"
import type { Found } from "./scanner.ts"
import { contentOf, type Format } from "./summary.ts"
import { counted } from "./text.ts"

/** In bytes. Text is read as a whole; all else in pieces. */
const maximumText = 1 << 28

const empty = new Uint8Array(0)

const microseconds = (time: number): string =>
  new Date(Math.floor(time / 1000)).toISOString().replace("Z", `${String(time % 1000).padStart(3, "0")}Z`)

/** How many messages are printed before other fibers may run: one of them ends the command on Ctrl-C. */
const turn = 256

export interface DecodeOptions {
  readonly format: Format
  /** The network of the addresses of a transaction, if the input does not hold it. */
  readonly network: Network
  /** The value of `--as`. */
  readonly as: string | undefined
}

/** How a file is read: its form, and the key with which it is obfuscated. */
interface Plan {
  readonly form: Form
  readonly key?: Uint8Array | undefined
}

/** Throws an `Error` if the input is not what `as` says. */
const planOf = (head: Uint8Array, isAll: boolean, file: string, as: string | undefined): Plan | undefined => {
  const obfuscated = (): Plan | undefined => {
    const key = file !== "-" && (as === undefined || as === "blockfile") ? keyBeside(file) : undefined
    if (key === undefined) return undefined
    const plain = deobfuscate(head, key, 0)
    const form = as === undefined ? detect(plain, false) : formOf(as, plain)
    return form?._tag === "BlockFile" ? { form: { ...form, key }, key } : undefined
  }
  if (as === undefined) {
    const form = detect(head, isAll)
    return form === undefined ? obfuscated() : { form }
  }
  try {
    return { form: formOf(as, head) }
  } catch (error) {
    const plan = obfuscated()
    if (plan === undefined) throw error
    return plan
  }
}

/** Succeeds when all of the input was decoded. Fails otherwise, after it printed the messages that could be decoded. */
export const decode = Effect.fnUntraced(function* (
  file: string,
  { as, format, network }: DecodeOptions,
  stdin: () => Readable = () => process.stdin
): Effect.fn.Return<void, Failure, Output | Scope.Scope> {
  const { room } = yield* Output
  const report = yield* makeReport(format)
  if (file === "") return yield* new Failure({ message: "the name of the file is empty" })
  const name = file === "-" ? "standard input" : file
  const failed = (problem: string) => new Failure({ message: `${name}: ${problem}` })
  const readable = Effect.mapError((cause: Error) => failed(problemOf(cause, file)))
  const checked = <A>(evaluate: () => A) =>
    Effect.mapError(Effect.try({ try: evaluate, catch: (error) => error as Error }), (error) => failed(error.message))

  let messages = 0
  let broken = 0

  const print = (found: Found, form: Form, line: number | undefined): void => {
    const isLone = form._tag === "Payload"
    const of = "network" in form ? form.network : network
    const place = line === undefined ? { offset: found.offset } : { line }
    const time = found.time === undefined ? undefined : microseconds(found.time)
    const context = { ...place, ...(time !== undefined && { time }), bytes: found.bytes }
    const where = line === undefined ? (isLone ? undefined : `@${found.offset}`) : `line ${line}`
    const when = time === undefined ? where : time.slice(11, -1)
    const note = when === undefined ? {} : { when: when.padEnd(time === undefined ? 9 : 0) }
    if (found._tag === "Damaged") {
      broken++
      const { command, problem: message, reason } = found
      report({ event: "dropped", ...context, command, reason, message }, note)
    } else {
      messages++
      report({ event: "message", ...context, ...contentOf(found.message, format, of) }, note)
    }
  }

  const printAll = Effect.fnUntraced(function* (all: Iterable<Found>, form: Form, line?: number) {
    for (const found of all) {
      print(found, form, line)
      if ((messages + broken) % turn === 0) yield* Effect.yieldNow
      const full = room()
      if (full !== undefined) yield* full
    }
  })

  const unknown = (what: string, bytes: Uint8Array) => {
    const advice = beginsWithHeader(bytes)
      ? "it begins with a block header: try --as block (which is cut off then), merkleblock or cmpctblock"
      : "say what it is with --as"
    return failed(`${what} no transaction, block, capture or stream of a known network; ${advice}`)
  }

  const input = yield* openInput(file, stdin)
  const head = yield* readable(pullUntil(input, headSize))
  if (encodingOf(head.bytes) !== undefined) {
    // Hexadecimal digits. An empty input is text, too.
    const rest = yield* readable(pullUntil(input, maximumText))
    if (!rest.ended) return yield* failed(`text of more than ${maximumText >> 20} MiB`)
    const all = yield* checked(() => inputs(new Uint8Array(Buffer.concat([head.bytes, rest.bytes])), as))
    const unrecognised: Array<(typeof all)[number]> = []
    for (const one of all) {
      const form = as === undefined ? detect(one.bytes) : yield* checked(() => formOf(as, one.bytes))
      if (form === undefined) unrecognised.push(one)
      else yield* printAll(find(form, one.bytes), form, one.line)
    }
    const [first] = unrecognised
    if (first !== undefined) {
      const what =
        first.line === undefined
          ? "this is"
          : unrecognised.length === 1
            ? `line ${first.line} is`
            : `${unrecognised.length} of ${all.length} lines, the first one line ${first.line}, are`
      return yield* unknown(what, all.length === 1 ? first.bytes : empty)
    }
  } else {
    const plan = yield* checked(() => planOf(head.bytes, head.ended, file, as))
    if (plan === undefined) return yield* unknown("this is", head.bytes)
    const { form, key } = plan
    if (form._tag === "Payload") {
      if (!head.ended) return yield* failed(`longer than any message, which has at most ${headSize - 1} bytes`)
      yield* printAll(find(form, head.bytes), form)
    } else {
      const scanner = scannerOf(form)
      let offset = 0
      let piece: Uint8Array | undefined = head.bytes
      while (piece !== undefined) {
        scanner.push(key === undefined ? piece : deobfuscate(piece, key, offset))
        offset += piece.length
        yield* printAll(scanner, form)
        piece = yield* readable(input.pull)
      }
      scanner.end()
      yield* printAll(scanner, form)
    }
  }
  if (broken > 0) return yield* failed(`${broken} damaged, ${counted(messages, "message")} decoded`)
}, Effect.scoped)
