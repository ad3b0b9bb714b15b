/**
 * Captures: the messages of a connection, in the files that Bitcoin Core writes with `-capturemessages`. A layer records
 * the messages that the peers of a program receive and send; `read` reads the files; `replay` is a `Connection` that
 * plays a capture back.
 *
 * A capture is a list of records: the time as uint64 in microseconds since the epoch, the command in 12 bytes padded
 * with zeros, the length of the payload as uint32, all little-endian, and the payload. There is no frame header and no
 * network magic.
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
 * Encodes a record. Fails with `BadValue` if the command is not at most 12 printable ASCII characters or the time is not
 * an integer from 0 to 2^53 - 1, and with `PayloadTooLarge` above 4,000,000 bytes.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Capture } from "effect-bitcoin-peer"
 *
 * const bytes = Capture.encode({ time: 1_700_000_000_000_000, command: "verack", payload: new Uint8Array(0) })
 * Result.getOrThrow(bytes).length // 24
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const encode = (captured: Captured): Result.Result<Uint8Array, WireError> => attempt(() => writeRecord(captured))

/**
 * Decodes the bytes of a capture. Memory holds one record and the last chunk. Fails as `read` does.
 *
 * @category decoding
 * @since 0.1.0
 */
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
 * Reads the records of a file of any length. Fails with `CaptureError`: if the file cannot be read, after the last whole
 * record of a file that was cut off, and at bytes that are not a record.
 *
 * @example
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
 *
 * @category decoding
 * @since 0.1.0
 */
export const read = (path: string): Stream.Stream<Captured, CaptureError, FileSystem.FileSystem> =>
  Stream.unwrap(Effect.map(FileSystem.FileSystem, (fs) => decode(Stream.mapError(fs.stream(path), fileFailed(path)))))

/**
 * Where `layer` records, and how it reports failures.
 *
 * @category options
 * @since 0.1.0
 */
export interface LayerOptions {
  /** The directory. It is created if needed, with `message_capture` in it. */
  readonly directory: string
  /** Gets the reason when a recording ends before its connection. By default it is logged as a warning. */
  readonly onFailure?: ((error: CaptureError, remote: Connection.Endpoint) => Effect.Effect<void>) | undefined
}

/**
 * Records the messages of each peer that is made with this layer, its handshake included, as Bitcoin Core does: in
 * `DIRECTORY/message_capture/<address>_<port>/msgs_recv.dat` and `msgs_sent.dat`, with `_` for each colon. It appends to
 * files that exist. A received message is recorded if its checksum is right, also if it is unknown or malformed. The
 * times are the `Clock`'s.
 *
 * Each message is recorded: while more than 1 MiB of a connection waits for the disk, its peer neither reads nor writes.
 * All records are in the files when the peer has ended. If a file cannot be written, the recording ends, `onFailure`
 * gets the error, and the peer goes on. The layer fails with `FileFailed` if the directory cannot be made.
 *
 * @example
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
 *
 * @category layers
 * @since 0.1.0
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

/**
 * How a capture is played back.
 *
 * @category options
 * @since 0.1.0
 */
export interface ReplayOptions {
  /**
   * The network whose frames the connection carries, that of the peer to be made; mainnet by default. A capture does not
   * tell.
   */
  readonly network?: Network.Network | undefined
  /**
   * The speed, as a multiple of the recorded one, above 0; 1 by default. `Infinity` sends as fast as the peer pulls.
   */
  readonly speed?: number | undefined
  /** The address of the remote. */
  readonly remoteAddress?: Connection.Endpoint | undefined
  /**
   * Called with the bytes that are written to the connection until we end it, in order. Otherwise they are dropped. Must
   * not throw.
   */
  readonly onWrite?: ((bytes: Uint8Array) => void) | undefined
}

/**
 * Makes a connection whose remote sends the messages of a capture, for any bytes that are written to it: a peer can be made over
 * one side of a recorded connection, its handshake included.
 *
 * The first message arrives at once, and each other one as long after it as it was recorded, by the `Clock`; a
 * `TestClock` works. Times are rounded up to the millisecond. After the last message the remote closes the connection.
 * If reading the capture fails, the connection is reset after the last message, with the error as the `cause`. At most
 * 64 KiB and one message are read ahead.
 *
 * The remote answers no requests. A peer that plays more than a few minutes needs `pingInterval: "Infinity"`, so that an
 * unanswered ping does not end it.
 *
 * @example
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
 *
 * @category constructors
 * @since 0.1.0
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
  // The remote has ended by itself, but the bytes are still part of what the peer wanted to send.
  const write = (bytes: Uint8Array): number => {
    if (ended) return -1
    onWrite?.(bytes)
    return 0
  }
  return { localAddress, remoteAddress, pull, write, drained, close: ending(close), destroy: ending(destroy) }
})
