/** Records, memory files and recorded peers for the tests of Capture. */
import { assert } from "@effect/vitest"
import { Effect, Exit, FileSystem, Layer, Result, Scope } from "effect"
import { Capture, Connection, Nonce, Peer } from "effect-bitcoin-peer"
import { memoryFiles } from "./files.ts"
import { concat } from "./generators.ts"
import { network, scripted } from "./peers.ts"

export const encode = (captured: Capture.Captured): Uint8Array => Result.getOrThrow(Capture.encode(captured))
export const time = 1_700_000_000_123_456
export const ping: Capture.Captured = { time, command: "ping", payload: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8) }
export const empty: Capture.Captured = { time: time + 1, command: "verack", payload: new Uint8Array(0) }
export const odd: Capture.Captured = { time: 0, command: "x y~12345678", payload: Uint8Array.of(0xff) }
export const three = concat(encode(ping), encode(empty), encode(odd))

export const cut = (bytes: Uint8Array, size: number): Array<Uint8Array> =>
  Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) => bytes.slice(index * size, (index + 1) * size))

export const readAll = (chunks: ReadonlyArray<Uint8Array>) => {
  const reader = Capture.makeReader()
  const records = chunks.flatMap((chunk) => reader.push(chunk))
  return { records, reader, error: reader.end()?.reason }
}

/** Starts a recording to files in memory. */
export const recorded = (files: ReturnType<typeof memoryFiles>, options: Partial<Capture.LayerOptions> = {}) =>
  Layer.provide(Capture.layer({ directory: "dir", ...options }), Layer.succeed(FileSystem.FileSystem, files.fileSystem))

export const folder = "dir/message_capture/192.0.2.2_8333"

export const recordsOf = (files: ReturnType<typeof memoryFiles>, file: string) => {
  const { error, records } = readAll([files.files.get(file)!])
  assert.isUndefined(error)
  return records
}
export const commandsOf = (files: ReturnType<typeof memoryFiles>, name: string): ReadonlyArray<string> =>
  recordsOf(files, `${folder}/${name}`).map(({ command }) => command)

/** A recorded peer during its handshake. The test plays the remote; `end` ends the peer. */
export const recordedPeer = Effect.fnUntraced(function* (
  files: ReturnType<typeof memoryFiles>,
  options: Partial<Capture.LayerOptions> = {},
  peerOptions: Peer.Options = {},
  pairOptions: Connection.PairOptions = {}
) {
  const pair = yield* Connection.makePair(pairOptions)
  const remote = scripted(pair[1])
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const making = yield* Peer.make(pair[0], { network, ...peerOptions }).pipe(
    Effect.provide(recorded(files, options)),
    Effect.provide(Nonce.layer),
    Scope.provide(scope),
    Effect.forkChild({ startImmediately: true })
  )
  yield* remote.receiveUntil("version")
  return { remote, making, end: Scope.close(scope, Exit.void), pair }
})
