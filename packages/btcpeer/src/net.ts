/** `btcpeer net`: the peers of a server in a running program, as `bitcoin-cli -netinfo 4` shows those of a node. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { FetchHttpClient, type HttpClientError } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import type * as Schema from "effect/Schema"
import * as StatusApi from "effect-bitcoin-peer/server/StatusApi"
import { Failure } from "./failure.ts"
import { netTable } from "./netTable.ts"
import { Output } from "./output.ts"

/** The status of a program that names no port of its own. */
export const defaultUrl = `http://127.0.0.1:${StatusApi.defaultPort}`

/** Reads the URL of a status. Throws an `Error` that describes the problem. */
export const parseUrl = (text: string): URL => {
  const url = URL.parse(text)
  if (url === null || !/^https?:$/.test(url.protocol)) throw new Error(`not a URL such as ${defaultUrl}`)
  if (url.username !== "" || url.password !== "") throw new Error("a user and a password are not used")
  return url
}

/** How long an answer may take. */
const patience = Duration.seconds(5)
/** The table is shown anew after this time. */
const interval = Duration.seconds(2)

type AskError = HttpClientError.HttpClientError | Schema.SchemaError | StatusApi.RequestRefused

/** The first code of an error of the system, such as ECONNREFUSED, in the causes of an error. */
const codeOf = (error: unknown): string | undefined => {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 5; cause = cause.cause, depth++) {
    if ("code" in cause && typeof cause.code === "string") return cause.code
  }
  return undefined
}

const problems: Readonly<Record<string, string>> = {
  ECONNREFUSED: "the connection was refused",
  ECONNRESET: "the connection was reset",
  ENOTFOUND: "no such host",
  EAI_AGAIN: "the name cannot be resolved now"
}

const problemOf = (error: AskError, from: string): string => {
  if (error._tag === "RequestRefused") return `${from} refuses the request: ${error.message}`
  if (error._tag === "HttpClientError") {
    const { reason } = error
    if (reason._tag === "TransportError") {
      const code = codeOf(reason.cause)
      return `nothing answers at ${from}${code === undefined ? "" : `: ${problems[code] ?? code}`}`
    }
    if (reason._tag === "StatusCodeError" || reason._tag === "DecodeError") {
      const { status } = reason.response
      if (status !== 200) return `no status of a server at ${from}: HTTP status ${status}`
    }
  }
  return `no status of a server at ${from}: the answer is something else`
}

/** The size of the terminal, and whether it can move its cursor. */
export interface Terminal {
  readonly rows: () => number | undefined
  readonly TERM: string | undefined
}

const home = "\u001b[H"
const clearLine = "\u001b[K"
const clearBelow = "\u001b[J"
const clearAll = "\u001b[2J"

/** Lines that take the place of the last ones at the top of a terminal. What does not fit is left out. */
export const screen = (
  lines: ReadonlyArray<string>,
  columns: number,
  rows: number,
  isFirst: boolean
): ReadonlyArray<string> => {
  // The last row stays empty: a line break in it would scroll.
  const fitting = lines.slice(0, Math.max(1, rows - 1))
  return fitting.map((line, index) => {
    const start = index === 0 ? (isFirst ? clearAll + home : home) : ""
    const end = index === fitting.length - 1 ? clearLine + clearBelow : clearLine
    return start + line.slice(0, columns) + end
  })
}

/**
 * Shows the table once, or with `watch` until the user stops it. Fails if nothing answers, or something else than a status of a server.
 */
export const net = Effect.fnUntraced(function* (
  url: URL,
  watch: boolean,
  version: string,
  terminal: Terminal = { rows: () => process.stdout.rows, TERM: process.env["TERM"] }
): Effect.fn.Return<void, Failure, Output> {
  const output = yield* Output
  const from = url.href.replace(/\/$/, "")
  const client = yield* HttpApiClient.make(StatusApi.api, { baseUrl: from }).pipe(Effect.provide(FetchHttpClient.layer))
  const ask = Effect.all([client.network(), client.peers()], { concurrency: 2 }).pipe(
    Effect.mapError((error) => new Failure({ message: problemOf(error, from) })),
    Effect.timeoutOrElse({
      duration: patience,
      orElse: () => Effect.fail(new Failure({ message: `no answer from ${from} within ${Duration.format(patience)}` }))
    })
  )
  const lines = Effect.gen(function* () {
    const [network, peers] = yield* ask
    const now = Math.floor((yield* Clock.currentTimeMillis) / 1_000)
    return netTable(network, peers, now, `btcpeer client v${version}`)
  })
  const print = (texts: ReadonlyArray<string>): void => texts.forEach((text) => output.line(text))
  if (!watch) return print(yield* lines)

  let isFirst = true
  const show = Effect.map(lines, (texts) => {
    const columns = output.columns()
    if (columns === undefined || terminal.TERM === "dumb") print(isFirst ? texts : ["", ...texts])
    else print(screen(texts, columns, terminal.rows() ?? Infinity, isFirst))
    isFirst = false
  })
  yield* Effect.raceFirst(output.stop, Effect.forever(Effect.andThen(show, Effect.sleep(interval))))
})
