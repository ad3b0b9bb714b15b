/** Appends the messages of one connection to its two files. */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as FileSystem from "effect/FileSystem"
import type { PlatformError } from "effect/PlatformError"
import type * as Scope from "effect/Scope"
import { joined } from "../primitives/bytes.ts"
import { CaptureError, writeRecord } from "./format.ts"
import { type Endpoint, formatEndpoint } from "../ConnectionError.ts"
import type { Recording } from "../transport/recording.ts"
import { WaitList } from "../primitives/waitList.ts"

/** The number of bytes that wait for the disk above which the peer pauses. One batch of messages can exceed it. */
const maximumWaiting = 1 << 20

/** The name of the folder of a connection, as in Bitcoin Core. Windows does not allow colons in names. */
export const folderOf = (remote: Endpoint): string => formatEndpoint(remote).replace(/[:/\\]/g, "_")

/** Opens a file to append to. The error names the file. */
const appendTo = (
  fs: FileSystem.FileSystem,
  path: string
): Effect.Effect<
  (records: ReadonlyArray<Uint8Array>) => Effect.Effect<void, CaptureError>,
  CaptureError,
  Scope.Scope
> =>
  Effect.map(
    Effect.mapError(fs.open(path, { flag: "a" }), fileFailed(path)),
    (file) => (records) =>
      records.length === 0 ? Effect.void : Effect.mapError(file.writeAll(joined(records)), fileFailed(path))
  )

export const fileFailed =
  (path: string) =>
  (cause: PlatformError): CaptureError =>
    new CaptureError({ reason: { _tag: "FileFailed", path, cause } })

export interface RecordOptions {
  readonly fs: FileSystem.FileSystem
  readonly clock: Clock.Clock
  readonly folder: string
  readonly onFailure: (error: CaptureError) => Effect.Effect<void>
}

/** Records until the scope ends. The end of the scope waits until all records are in the files. */
export const record = Effect.fnUntraced(function* ({
  clock,
  folder,
  fs,
  onFailure
}: RecordOptions): Effect.fn.Return<Recording, never, Scope.Scope> {
  let received: Array<Uint8Array> = []
  let sent: Array<Uint8Array> = []
  /** Bytes that are not in a file yet. */
  let waiting = 0
  let ending = false
  let over = false
  const arrived = new WaitList(() => (ending || received.length + sent.length > 0 ? Effect.void : undefined))
  const room = new WaitList(() => (over || waiting <= maximumWaiting ? Effect.void : undefined))

  const keep = (records: Array<Uint8Array>, command: string, payload: Uint8Array): void => {
    if (over) return
    const bytes = writeRecord({ time: Number(clock.currentTimeNanosUnsafe() / 1000n), command, payload })
    waiting += bytes.length
    records.push(bytes)
    arrived.wake()
  }

  const writing = Effect.gen(function* () {
    yield* Effect.mapError(fs.makeDirectory(folder, { recursive: true }), fileFailed(folder))
    const appendReceived = yield* appendTo(fs, `${folder}/msgs_recv.dat`)
    const appendSent = yield* appendTo(fs, `${folder}/msgs_sent.dat`)
    while (true) {
      yield* arrived.wait
      // The fiber that woke this one has more messages: wait, so that a batch is one write.
      if (!ending) yield* Effect.yieldNow
      const [ours, theirs, size] = [sent, received, waiting]
      if (ours.length + theirs.length === 0) return
      sent = []
      received = []
      yield* appendReceived(theirs)
      yield* appendSent(ours)
      waiting -= size
      room.wake()
    }
  }).pipe(
    Effect.scoped,
    Effect.onExit(() =>
      Effect.sync(() => {
        over = true
        received = []
        sent = []
        room.wake()
      })
    ),
    Effect.catch(onFailure)
  )

  yield* Effect.acquireRelease(Effect.forkDetach(writing, { startImmediately: true }), (fiber) => {
    ending = true
    arrived.wake()
    return Fiber.await(fiber)
  })
  return {
    received: (command, payload) => keep(received, command, payload),
    sent: (command, payload) => keep(sent, command, payload),
    room: room.wait
  }
})
