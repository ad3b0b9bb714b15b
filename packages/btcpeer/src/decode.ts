/** `btcpeer decode`: the messages in a file, or in what is piped in. */
import * as Effect from "effect/Effect"
import * as fs from "node:fs"
import type { Readable } from "node:stream"
import { Failure } from "./failure.ts"
import { beginsWithHeader, find, type Form, type Found, detect, formOf, inputs } from "./scan.ts"
import { Output } from "./output.ts"
import { makeReport } from "./report.ts"
import { summarise } from "./summary.ts"
import { counted } from "./text.ts"

/** More than any file of a node; whatever never ends shall not take all memory. */
const maximumInput = 1 << 30

const problems: Readonly<Record<string, string>> = {
  ENOENT: "no such file",
  EISDIR: "is a directory",
  ENOTDIR: "no such file",
  EACCES: "permission denied",
  EPERM: "permission denied"
}

const problemOf = (cause: Error): string =>
  ("code" in cause && typeof cause.code === "string" ? problems[cause.code] : undefined) ?? cause.message

/** Reads to the end. */
const readAll = (source: Readable): Effect.Effect<Uint8Array, Error> =>
  Effect.callback<Uint8Array, Error>((resume) => {
    const chunks: Array<Buffer> = []
    let size = 0
    source.on("data", (chunk: Buffer) => {
      size += chunk.length
      if (size > maximumInput) source.destroy(new Error("larger than 1 GiB"))
      else chunks.push(chunk)
    })
    source.on("error", (cause) => resume(Effect.fail(cause)))
    source.on("end", () => resume(Effect.sync(() => new Uint8Array(Buffer.concat(chunks)))))
    return Effect.sync(() => void source.destroy())
  })

const microseconds = (time: bigint): string =>
  new Date(Number(time / 1000n)).toISOString().replace("Z", `${String(time % 1000n).padStart(3, "0")}Z`)

/** How many are decoded between two looks at whether the user wants to stop. */
const turn = 256

export interface DecodeOptions {
  readonly json: boolean
  /** What it is, where the bytes do not tell. */
  readonly as: string | undefined
}

/** Decodes a file, or stdin for `-`. Fails when something in it is damaged, after all the rest was printed. */
export const decode = Effect.fnUntraced(function* (
  file: string,
  { as, json }: DecodeOptions,
  stdin: () => Readable = () => process.stdin
): Effect.fn.Return<void, Failure, Output> {
  const { room } = yield* Output
  const report = yield* makeReport(json)
  if (file === "") return yield* new Failure({ message: "the name of the file is empty" })
  const name = file === "-" ? "standard input" : file
  const source = file === "-" ? stdin : () => fs.createReadStream(file)
  const failed = (problem: string) => new Failure({ message: `${name}: ${problem}` })
  const given = yield* Effect.mapError(
    Effect.suspend(() => readAll(source())),
    (cause) => failed(problemOf(cause))
  )
  const checked = <A>(evaluate: () => A) =>
    Effect.mapError(Effect.try({ try: evaluate, catch: (error) => error as Error }), (error) => failed(error.message))

  const all = yield* checked(() => inputs(given, as))
  let messages = 0
  let broken = 0

  const print = (found: Found, form: Form, line: number | undefined): void => {
    const place = line === undefined ? { offset: found.offset } : { line }
    const time = found.time === undefined ? undefined : microseconds(found.time)
    const context = { ...place, ...(time !== undefined && { time }), bytes: found.bytes }
    const where = line === undefined ? (form._tag === "Payload" ? undefined : `@${found.offset}`) : `line ${line}`
    const when = time === undefined ? where : time.slice(11, -1)
    const note = when === undefined ? {} : { when: when.padEnd(time === undefined ? 9 : 0) }
    if (found._tag === "Damaged") {
      broken++
      const { command, problem: message, reason } = found
      report({ event: "dropped", ...context, command, reason, message }, note)
    } else {
      messages++
      report({ event: "message", ...context, ...summarise(found.message) }, note)
    }
  }

  const unrecognised: Array<number | undefined> = []
  for (const { bytes, line } of all) {
    const form = as === undefined ? detect(bytes) : yield* checked(() => formOf(as, bytes))
    if (form === undefined) {
      unrecognised.push(line)
      continue
    }
    for (const found of find(form, bytes)) {
      print(found, form, line)
      if ((messages + broken) % turn === 0) yield* Effect.yieldNow
      const full = room()
      if (full !== undefined) yield* full
    }
  }
  if (unrecognised.length > 0) {
    const [first] = unrecognised
    const what =
      first === undefined
        ? "this is"
        : unrecognised.length === 1
          ? `line ${first} is`
          : `${unrecognised.length} of ${all.length} lines, the first one line ${first}, are`
    const advice =
      all.length === 1 && beginsWithHeader(all[0]!.bytes)
        ? "it begins with a block header: try --as block (which is cut off then), merkleblock or cmpctblock"
        : "say what it is with --as"
    return yield* failed(`${what} no transaction, block, capture or stream of a known network; ${advice}`)
  }
  if (broken > 0) {
    return yield* failed(`${broken} damaged, ${counted(messages, "message")} decoded`)
  }
})
