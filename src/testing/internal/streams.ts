/** Bytes that say where they belong, and readers of a certain number of them. */
import * as Effect from "effect/Effect"
import type { Connection } from "../../Connection.ts"
import type { ConnectionError } from "../../ConnectionError.ts"
import { above, same } from "./rule.ts"

const chunk = 65_536

/**
 * Bytes of a stream from an offset. Each depends on its place.
 *
 * @category helpers
 * @since 0.1.0
 */
export const patterned = (length: number, from = 0): Uint8Array => {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) bytes[i] = ((from + i) * 31 + ((from + i) >>> 8)) & 0xff
  return bytes
}

/**
 * Writes a number of patterned bytes in chunks, and returns how many are not sent yet.
 *
 * @category helpers
 * @since 0.1.0
 */
export const fill = (connection: Connection, total: number): number => {
  let waiting = 0
  for (let from = 0; from < total; from += chunk) {
    waiting = connection.write(patterned(Math.min(chunk, total - from), from))
  }
  return waiting
}

export const joined = (pieces: ReadonlyArray<Uint8Array>): Uint8Array => {
  const bytes = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0))
  let offset = 0
  for (const piece of pieces) {
    bytes.set(piece, offset)
    offset += piece.length
  }
  return bytes
}

/**
 * Pulls exactly this many bytes.
 *
 * @category helpers
 * @since 0.1.0
 */
export const pullBytes = Effect.fnUntraced(function* (
  connection: Connection,
  length: number
): Effect.fn.Return<Uint8Array, ConnectionError> {
  const pieces: Array<Uint8Array> = []
  let got = 0
  while (got < length) {
    const batch = yield* connection.pull
    above(batch.length, 0)
    for (const bytes of batch) {
      above(bytes.length, 0)
      pieces.push(bytes)
      got += bytes.length
    }
  }
  same(got, length)
  return joined(pieces)
})

/**
 * Pulls until the connection ends.
 *
 * @category helpers
 * @since 0.1.0
 */
export const pullToEnd = Effect.fnUntraced(function* (
  connection: Connection
): Effect.fn.Return<{ readonly bytes: Uint8Array; readonly error: ConnectionError }> {
  const pieces: Array<Uint8Array> = []
  while (true) {
    const result = yield* Effect.result(connection.pull)
    if (result._tag === "Failure") return { bytes: joined(pieces), error: result.failure }
    pieces.push(...result.success)
  }
})
