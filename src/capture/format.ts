/**
 * The records of a capture, as Bitcoin Core writes them. Pure and synchronous.
 *
 * A record is the time as uint64 in microseconds since the epoch, the command in 12 bytes padded with zeros, the length
 * of the payload as uint32, all little-endian, and the payload without a frame.
 */
import * as Data from "effect/Data"
import type { PlatformError } from "effect/PlatformError"
import { maxPayloadLength } from "../wire/limits.ts"
import { plainBytes, setU32At, u32At } from "../primitives/bytes.ts"
import { readCommand } from "../wire/frameV1.ts"
import { fail } from "../wire/fail.ts"

const headerSize = 24
const commandOffset = 8
const lengthOffset = 20

/**
 * A message of a connection with the time when it was sent or received.
 *
 * @category models
 * @since 0.1.0
 */
export interface Captured {
  /** Microseconds since the epoch, at most 2^53 - 1: the year 2255. */
  readonly time: number
  /** At most 12 printable ASCII characters. It may be a command that this package does not know. */
  readonly command: string
  /** At most 4,000,000 bytes, without a frame. It may be malformed. */
  readonly payload: Uint8Array
}

/**
 * Why a capture could not be read or written. Offsets are those of the record, in bytes from the start of the capture.
 *
 * @category errors
 * @since 0.1.0
 */
export type CaptureReason =
  /**
   * The capture ends inside the record that starts here: at least `missing` bytes are missing. The records before it
   * were returned.
   */
  | { readonly _tag: "Truncated"; readonly offset: number; readonly missing: number }
  /** The payload is longer than any message: this is not a capture, or it is damaged. Later records cannot be found. */
  | { readonly _tag: "PayloadTooLarge"; readonly offset: number; readonly length: number; readonly limit: number }
  /** The command is not printable ASCII padded with zeros: this is not a capture, or it is damaged. */
  | { readonly _tag: "BadCommand"; readonly offset: number }
  /** The time is after the year 2255: this is not a capture, or it is damaged. */
  | { readonly _tag: "BadTime"; readonly offset: number }
  /** The file could not be read, made or written: it does not exist, no permission, a full disk. */
  | { readonly _tag: "FileFailed"; readonly path: string; readonly cause: PlatformError }

const fileProblem = ({ reason }: PlatformError): string => {
  if (reason._tag === "NotFound") return "no such file or directory"
  if (reason._tag === "PermissionDenied") return "permission denied"
  const cause = reason.cause
  if (!(cause instanceof Error)) return reason.message
  const code = "code" in cause ? cause.code : undefined
  return code === "EISDIR" ? "is a directory" : code === "ENOTDIR" ? "not a directory" : cause.message
}

const describe = (reason: CaptureReason): string => {
  switch (reason._tag) {
    case "Truncated":
      return `the capture ends inside the record at byte ${reason.offset}: ${reason.missing === 1 ? "1 byte is" : `${reason.missing} bytes are`} missing`
    case "PayloadTooLarge":
      return `no record at byte ${reason.offset}: a payload of ${reason.length} bytes is above ${reason.limit}`
    case "BadCommand":
      return `no record at byte ${reason.offset}: the command is not printable`
    case "BadTime":
      return `no record at byte ${reason.offset}: the time is after the year 2255`
    case "FileFailed":
      return `${reason.path}: ${fileProblem(reason.cause)}`
  }
}

/**
 * A capture that could not be read or written. `reason` says why.
 *
 * @category errors
 * @since 0.1.0
 */
export class CaptureError extends Data.TaggedError("CaptureError")<{ readonly reason: CaptureReason }> {
  override get message(): string {
    return describe(this.reason)
  }
}

/** Encodes a record. Throws `WireError` if it is not allowed. */
export const writeRecord = ({ command, payload, time }: Captured): Uint8Array => {
  if (!/^[ -~]{0,12}$/.test(command)) {
    fail(command, { _tag: "BadValue", field: "command", problem: "is not at most 12 printable ASCII characters" })
  }
  if (!Number.isSafeInteger(time) || time < 0) {
    fail(command, { _tag: "BadValue", field: "time", problem: "is not a whole number from 0 to 2^53 - 1" })
  }
  if (payload.length > maxPayloadLength) {
    fail(command, { _tag: "PayloadTooLarge", length: payload.length, limit: maxPayloadLength })
  }
  const bytes = new Uint8Array(headerSize + payload.length)
  setU32At(bytes, 0, time % 0x100000000)
  setU32At(bytes, 4, Math.floor(time / 0x100000000))
  for (let i = 0; i < command.length; i++) bytes[commandOffset + i] = command.charCodeAt(i)
  setU32At(bytes, lengthOffset, payload.length)
  bytes.set(payload, headerSize)
  return bytes
}

/**
 * Turns chunks of a capture into records, however the chunks are cut. Each file needs a reader of its own.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reader {
  /**
   * Takes a chunk and returns the records that it completes. Payloads are views over the chunk, which must not be
   * written to afterwards.
   */
  readonly push: (chunk: Uint8Array) => ReadonlyArray<Captured>
  /** Set once the capture cannot be read on; `push` returns nothing from then on. */
  readonly failure: CaptureError | undefined
  /** The error if the capture ends here: undefined after a whole record. */
  readonly end: () => CaptureError | undefined
  /** Bytes held for a record that is not complete yet. */
  readonly buffered: number
}

const nothing: ReadonlyArray<Captured> = Object.freeze([])
const empty = new Uint8Array(0)

class RecordReader implements Reader {
  #failure: CaptureError | undefined
  /** The offset of the next record, or of the one that is held. */
  #offset = 0
  /** The beginning of an incomplete record, in a buffer of at most twice its size. */
  #held = empty
  #heldLength = 0
  /** The size of that record as far as it is known: at least its header. */
  #needed = headerSize

  get failure(): CaptureError | undefined {
    return this.#failure
  }

  get buffered(): number {
    return this.#heldLength
  }

  push(input: Uint8Array): ReadonlyArray<Captured> {
    if (this.#failure !== undefined || input.length === 0) return nothing
    const chunk = plainBytes(input)
    const records: Array<Captured> = []
    let at = 0
    while (this.#failure === undefined && at < chunk.length) {
      at = this.#heldLength === 0 ? this.#next(chunk, at, records) : this.#resume(chunk, at, records)
    }
    if (this.#failure !== undefined) this.#release()
    return records
  }

  end(): CaptureError | undefined {
    if (this.#failure !== undefined || this.#heldLength === 0) return this.#failure
    const missing = this.#needed - this.#heldLength
    return new CaptureError({ reason: { _tag: "Truncated", offset: this.#offset, missing } })
  }

  /** Reads the record that starts at `at`, or holds its beginning. */
  #next(chunk: Uint8Array, at: number, records: Array<Captured>): number {
    if (chunk.length - at < headerSize) return this.#resume(chunk, at, records)
    const length = this.#check(chunk, at)
    if (this.#failure !== undefined) return at
    const end = at + headerSize + length
    if (end > chunk.length) return this.#resume(chunk, at, records)
    this.#complete(chunk, at, end, records)
    return end
  }

  /** Takes bytes of the record that is held, up to the end of its header or of the record. */
  #resume(chunk: Uint8Array, at: number, records: Array<Captured>): number {
    const size = Math.min(chunk.length - at, this.#needed - this.#heldLength)
    const length = this.#heldLength + size
    if (length > this.#held.length) {
      const grown = new Uint8Array(Math.min(this.#needed, Math.max(length, 2 * this.#held.length)))
      grown.set(this.#held.subarray(0, this.#heldLength))
      this.#held = grown
    }
    this.#held.set(chunk.subarray(at, at + size), this.#heldLength)
    this.#heldLength = length
    if (length === headerSize) this.#needed += this.#check(this.#held, 0)
    if (length === this.#needed && this.#failure === undefined) {
      const held = this.#held
      this.#release()
      this.#complete(held, 0, length, records)
    }
    return at + size
  }

  #complete(bytes: Uint8Array, start: number, end: number, records: Array<Captured>): void {
    records.push({
      time: u32At(bytes, start + 4) * 0x100000000 + u32At(bytes, start),
      command: readCommand(bytes, start + commandOffset) ?? "",
      payload: bytes.subarray(start + headerSize, end)
    })
    this.#offset += end - start
  }

  /** The length of the payload. Sets the failure before any memory is used for it. */
  #check(bytes: Uint8Array, start: number): number {
    const offset = this.#offset
    const length = u32At(bytes, start + lengthOffset)
    if (u32At(bytes, start + 4) >= 0x200000) this.#failure = new CaptureError({ reason: { _tag: "BadTime", offset } })
    else if (readCommand(bytes, start + commandOffset) === undefined) {
      this.#failure = new CaptureError({ reason: { _tag: "BadCommand", offset } })
    } else if (length > maxPayloadLength) {
      const reason = { _tag: "PayloadTooLarge", offset, length, limit: maxPayloadLength } as const
      this.#failure = new CaptureError({ reason })
    }
    return length
  }

  #release(): void {
    this.#held = empty
    this.#heldLength = 0
    this.#needed = headerSize
  }
}

/**
 * Makes a reader that is at the start of a capture.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeReader = (): Reader => new RecordReader()
