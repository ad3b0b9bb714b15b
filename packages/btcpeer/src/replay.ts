/** `btcpeer replay`: a peer whose remote is a capture. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"
import * as Capture from "effect-bitcoin-peer/Capture"
import type { Endpoint } from "effect-bitcoin-peer/Connection"
import type { Nonce } from "effect-bitcoin-peer/Nonce"
import * as Peer from "effect-bitcoin-peer/Peer"
import { Failure } from "./failure.ts"
import { Output } from "./output.ts"
import { makeReport } from "./report.ts"
import * as Session from "./watch.ts"

/** The address of the recorded peer, which is the name of the folder. */
const remoteOf = (file: string): Endpoint | undefined => {
  const [, host, port] = /^\[?(.+?)\]?_(\d{1,5})$/.exec(file.split(/[/\\]/).at(-2) ?? "") ?? []
  return host === undefined ? undefined : { host: host.replaceAll("_", ":"), port: Number(port) }
}

const problemOf = (file: string, error: Capture.CaptureError): string => {
  const { reason } = error
  if (reason._tag === "FileFailed") return error.message
  if (reason.offset > 0) return `${file}: ${error.message}`
  return reason._tag === "Truncated"
    ? `${file}: no capture, or one that is cut off in its first record`
    : `${file}: no capture of Bitcoin Core`
}

const failed = (message: string): Failure => new Failure({ message })

export type Settings = Omit<Session.Settings, "timeout" | "transport" | "userAgent" | "replayed">

/** Succeeds when the whole capture was played, or the user ended it. Fails if the capture cannot be read, or with the end of the peer. */
export const replay = Effect.fnUntraced(function* (
  file: string,
  speed: number,
  options: Settings
): Effect.fn.Return<void, Failure, Nonce | Output | FileSystem.FileSystem> {
  if (file === "") return yield* failed("the name of the file is empty")
  const output = yield* Output
  const report = yield* makeReport(options.format)
  let problem: Capture.CaptureError | undefined

  const end = yield* Effect.gen(function* () {
    const pull = yield* Stream.toPull(Capture.read(file))
    // A file that is no capture at all is reported before anything is printed.
    const first = yield* Pull.catchDone(pull, () => Effect.fail(failed(`${file}: there is nothing in it`))).pipe(
      Effect.catchTag("CaptureError", (error) => Effect.fail(failed(problemOf(file, error))))
    )
    const records = Stream.concat(Stream.fromArray(first), Stream.fromPull(Effect.succeed(pull))).pipe(
      Stream.tapError((error) => Effect.sync(() => (problem = error)))
    )
    const connection = yield* Capture.replay(records, {
      network: options.network,
      speed,
      remoteAddress: remoteOf(file)
    })
    const settings = {
      ...options,
      transport: "v1" as const,
      timeout: Duration.infinity,
      userAgent: undefined,
      replayed: true
    }
    const make = (peerOptions: Peer.Options) => Peer.make(connection, peerOptions)
    const session = yield* Effect.mapError(Session.open(make, settings, report, undefined), (error) =>
      failed(problem === undefined ? `${file}: ${error.message}` : problemOf(file, problem))
    )
    return yield* session.stay(Session.untilAsked(output, options.limit))
  }).pipe(Effect.scoped)

  if (end._tag === "Requested") return
  if (problem !== undefined) return yield* failed(problemOf(file, problem))
  if (end._tag !== "RemoteClosed") return yield* failed(Peer.describeEnd(end))
})
