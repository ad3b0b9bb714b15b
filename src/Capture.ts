/**
 * Captures: what went over a connection, in the files that Bitcoin Core writes with `-capturemessages`. A layer that records
 * what the peers of a program receive and send, a reader, and a `Connection` that plays a capture back.
 *
 * A capture is a list of records: uint64 microseconds since the epoch, 12 bytes of command padded with zeros, uint32 length
 * of the payload, all little-endian, and the payload, without a frame around it. It does not say of which network it is.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Layer from "effect/Layer"
import type * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Connection from "./Connection.ts"
import { type Captured, type CaptureError, makeReader, writeRecord } from "./capture/format.ts"
import { frameOf } from "./wire/frameV1.ts"
import { fileFailed, folderOf, record } from "./capture/recorder.ts"
import { Recorder } from "./transport/recording.ts"
import { attempt } from "./wire/fail.ts"
import { type WireError } from "./WireError.ts"
import * as Network from "./Network.ts"

export { type Captured, CaptureError, type CaptureReason, makeReader, type Reader } from "./capture/format.ts"
export { Recorder, type Recording } from "./transport/recording.ts"

/**
 * The record of a message. Fails with `BadValue` for a command that is not at most 12 printable ASCII characters and for a
 * time that is no whole number from 0 to 2^53 - 1, and with `PayloadTooLarge` above 4,000,000 bytes.
 *
 * ```ts
 * import { Result } from "effect"
 * import { Capture } from "effect-bitcoin-peer"
 *
 * const bytes = Capture.encode({ time: 1_700_000_000_000_000, command: "verack", payload: new Uint8Array(0) })
 * Result.getOrThrow(bytes).length // 24
 * ```
 */
export const encode = (captured: Captured): Result.Result<Uint8Array, WireError> => attempt(() => writeRecord(captured))

/** The records in the bytes of a capture, with at most one of them in memory beside the last bytes. Fails as `read` does. */
export const decode = <E, R>(bytes: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Captured, E | CaptureError, R> =>
  Stream.suspend(() => {
    const reader = makeReader()
    const end = Stream.suspend(() => {
      const error = reader.end()
      return error === undefined ? Stream.empty : Stream.fail(error)
    })
    return Stream.flatMap(bytes, (chunk) => {
      const records = Stream.fromArray(reader.push(chunk))
      return reader.failure === undefined ? records : Stream.concat(records, Stream.fail(reader.failure))
    }).pipe(Stream.concat(end))
  })

/**
 * The records of a file, one after the other, however long it is. Fails with `CaptureError`: when the file cannot be read,
 * behind the last whole record of one that was cut off, and where something is no record.
 *
 * ```ts
 * import { NodeServices } from "@effect/platform-node"
 * import { Console, Effect, Stream } from "effect"
 * import { Capture } from "effect-bitcoin-peer"
 *
 * const program = Capture.read("message_capture/127.0.0.1_18444/msgs_recv.dat").pipe(
 *   Stream.runForEach(({ command, payload }) => Console.log(`${command}: ${payload.length} bytes`)),
 *   Effect.catchTag("CaptureError", (error) => Console.error(error.message)),
 *   Effect.provide(NodeServices.layer)
 * )
 *
 * await Effect.runPromise(program)
 * ```
 */
export const read = (path: string): Stream.Stream<Captured, CaptureError, FileSystem.FileSystem> =>
  Stream.unwrap(Effect.map(FileSystem.FileSystem, (fs) => decode(Stream.mapError(fs.stream(path), fileFailed(path)))))

/** Where `layer` records, and who learns of failures. */
export interface LayerOptions {
  /** Made when it is not there, and `message_capture` in it. */
  readonly directory: string
  /** Learns why a recording ended before its connection did. By default that is one line of the log, a warning. */
  readonly onFailure?: ((error: CaptureError, remote: Connection.Endpoint) => Effect.Effect<void>) | undefined
}

/**
 * Records what each peer made below it receives and sends, its handshake included, as Bitcoin Core does:
 * `DIRECTORY/message_capture/<address>_<port>/msgs_recv.dat` and `msgs_sent.dat`, with `_` for each colon, and behind what is
 * there already. Received is what had a right checksum, also what is unknown or malformed. The times are the `Clock`'s.
 *
 * Nothing is left out: while more than 1 MiB of a connection waits for the disk, its peer neither reads nor writes. All is in
 * the files when the peer has ended. A file that cannot be written ends its recording, of which `onFailure` learns, and not
 * the peer. Fails with `FileFailed` when the directory cannot be made.
 *
 * ```ts
 * import { NodeServices } from "@effect/platform-node"
 * import { Effect, Layer } from "effect"
 * import { Capture, Network, Nonce, Peer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * const Recording = Capture.layer({ directory: "captures" }).pipe(Layer.provide(NodeServices.layer))
 *
 * const program = Effect.gen(function*() {
 *   const connection = yield* NodeConnection.connect({ host: "127.0.0.1", port: 18444 })
 *   const peer = yield* Peer.make(connection, { network: Network.regtest })
 *   return yield* peer.awaitShutdown
 * }).pipe(Effect.scoped, Effect.provide([Nonce.layer, Recording]))
 * ```
 */
export const layer = ({
  directory,
  onFailure
}: LayerOptions): Layer.Layer<never, CaptureError, FileSystem.FileSystem> =>
  Layer.effect(
    Recorder,
    Effect.gen(function* () {
      const fs = yield* FileSystem.FileSystem
      const base = `${directory}/message_capture`
      yield* Effect.mapError(fs.makeDirectory(base, { recursive: true }), fileFailed(base))
      return Effect.fnUntraced(function* ({ remoteAddress }: Connection.Connection) {
        const log = (error: CaptureError) =>
          Effect.logWarning(`recording ${Connection.formatEndpoint(remoteAddress)} ended: ${error.message}`)
        return yield* record({
          fs,
          clock: yield* Clock.Clock,
          folder: `${base}/${folderOf(remoteAddress)}`,
          onFailure: (error) => onFailure?.(error, remoteAddress) ?? log(error)
        })
      })
    })
  )

/** How a capture is played back. */
export interface ReplayOptions {
  /** Of whose frames the bytes are: that of the peer to be made; mainnet by default. A capture does not tell. */
  readonly network?: Network.Network | undefined
  /** How many times as fast as it was recorded, above 0; 1 by default, `Infinity` for as fast as it is pulled. */
  readonly speed?: number | undefined
  /** What to say of the remote. */
  readonly remoteAddress?: Connection.Endpoint | undefined
  /** Sees what is written to the connection until we end it, in order, which otherwise goes nowhere. Must not throw. */
  readonly onWrite?: ((bytes: Uint8Array) => void) | undefined
}

/**
 * A connection whose remote sends what a capture holds, whatever is written to it: a whole peer can be made over one side
 * of a recorded connection, its handshake included.
 *
 * The first message comes at once and each other one as long after it as recorded, by the `Clock`, so also under a
 * `TestClock`; times are rounded up to the millisecond. Then the remote closes. A capture that fails resets the connection
 * behind its last message, with its error as the `cause`. At most 64 KiB and a message are read ahead.
 *
 * Such a remote answers no question: a peer that plays more than a few minutes needs `pingInterval: "Infinity"`, so that a
 * ping without an answer does not end it.
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Capture } from "effect-bitcoin-peer"
 *
 * const record = { time: 0, command: "verack", payload: new Uint8Array(0) }
 * const program = Effect.scoped(Effect.gen(function*() {
 *   const connection = yield* Capture.replay(Stream.make(record))
 *   const [frame] = yield* connection.pull // 24 bytes: a verack without a payload
 *   const end = yield* Effect.flip(connection.pull) // reason._tag is "Closed"
 *   return [frame.length, end.reason._tag]
 * }))
 *
 * await Effect.runPromise(program)
 * ```
 */
export const replay = Effect.fnUntraced(function* <E, R>(
  records: Stream.Stream<Captured, E, R>,
  options: ReplayOptions = {}
): Effect.fn.Return<Connection.Connection, never, Scope.Scope | R> {
  const { onWrite, remoteAddress = { host: "replay", port: 0 }, speed = 1 } = options
  const { magic } = options.network ?? Network.mainnet
  const clock = yield* Clock.Clock
  const pair = yield* Connection.makePair({ addresses: [{ host: "localhost", port: 0 }, remoteAddress] })
  const [{ close, destroy, drained, localAddress, pull }, remote] = pair
  const startedAt = clock.currentTimeMillisUnsafe()
  let firstTime: number | undefined

  const play = ({ command, payload, time }: Captured): Effect.Effect<void, Connection.ConnectionError> => {
    firstTime ??= time
    const due = startedAt + (time - firstTime) / 1000 / speed
    const wait = Math.ceil(due - clock.currentTimeMillisUnsafe())
    const send = Effect.suspend(() =>
      remote.write(frameOf(magic, command, payload)) === 0 ? Effect.void : remote.drained
    )
    return wait > 0 ? Effect.andThen(Effect.sleep(wait), send) : send
  }
  yield* Stream.runForEach(records, play).pipe(
    Effect.matchCauseEffect({ onFailure: (cause) => pair.reset(Cause.squash(cause)), onSuccess: () => remote.close }),
    Effect.forkScoped({ startImmediately: true })
  )
  let ended = false
  const ending = (end: Effect.Effect<void>): Effect.Effect<void> =>
    Effect.suspend(() => {
      ended = true
      return end
    })
  // The remote reads nothing: what is written behind its last message was meant for it all the same.
  const write = (bytes: Uint8Array): number => {
    if (!ended) onWrite?.(bytes)
    return 0
  }
  return { localAddress, remoteAddress, pull, write, drained, close: ending(close), destroy: ending(destroy) }
})
