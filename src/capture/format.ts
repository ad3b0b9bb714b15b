/**
 * The records of a capture as Bitcoin Core writes it: uint64 microseconds since the epoch, 12 bytes of command padded with
 * zeros, uint32 length, all little-endian, and the payload, without a frame around it. Pure and synchronous.
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

/** A message as it went over the wire, and when. */
export interface Captured {
  /** Microseconds since the epoch, at most 2^53 - 1, which is in the year 2255. */
  readonly time: number
  /** At most 12 characters of printable ASCII; not necessarily one that this package knows. */
  readonly command: string
  /** Without a frame around it, at most 4,000,000 bytes. Need not be well-formed. */
  readonly payload: Uint8Array
}

/** Why a capture could not be read or written. Offsets are those of the record, in bytes from the start. */
export type CaptureReason =
  /** It ends inside the record that starts here: `missing` bytes at least are not there. All before it was handed out. */
  | { readonly _tag: "Truncated"; readonly offset: number; readonly missing: number }
  /** A payload longer than any message: no capture, or a damaged one. Nothing behind it can be found. */
  | { readonly _tag: "PayloadTooLarge"; readonly offset: number; readonly length: number; readonly limit: number }
  /** Not printable ASCII padded with zeros: no capture, or a damaged one. */
  | { readonly _tag: "BadCommand"; readonly offset: number }
  /** Behind the year 2255: no capture, or a damaged one. */
  | { readonly _tag: "BadTime"; readonly offset: number }
  /** The file could not be read, made or written: there is none, no permission, a full disk. */
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
      return `the record at byte ${reason.offset} is none: a payload of ${reason.length} bytes is above ${reason.limit}`
    case "BadCommand":
      return `the record at byte ${reason.offset} is none: its command is not printable`
    case "BadTime":
      return `the record at byte ${reason.offset} is none: its time is behind the year 2255`
    case "FileFailed":
      return `${reason.path}: ${fileProblem(reason.cause)}`
  }
}

/** A capture that could not be read or written; `reason` says why. */
export class CaptureError extends Data.TaggedError("CaptureError")<{ readonly reason: CaptureReason }> {
  override get message(): string {
    return describe(this.reason)
  }
}

/** The record. Throws `WireError` when it cannot be one. */
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

/** Turns chunks of a capture into records, however the chunks are cut. It is not shared: one reader a file. */
export interface Reader {
  /**
   * The records that are complete with this chunk. Payloads are views over the chunk, which must not be written to
   * afterwards.
   */
  readonly push: (chunk: Uint8Array) => ReadonlyArray<Captured>
  /** Set once the capture cannot be read any further; `push` returns nothing from then on. */
  readonly failure: CaptureError | undefined
  /** What it means that nothing more comes: undefined behind a whole record. */
  readonly end: () => CaptureError | undefined
  /** Bytes held back for a record that is not complete. */
  readonly buffered: number
}

const nothing: ReadonlyArray<Captured> = Object.freeze([])
const empty = new Uint8Array(0)

class RecordReader implements Reader {
  #failure: CaptureError | undefined
  /** Where in the capture the next record, or the one that is held, starts. */
  #offset = 0
  /** The beginning of a record that is not complete, in a buffer at most twice as large. */
  #held = empty
  #heldLength = 0
  /** How long that record is, as far as it is known: its header, at least. */
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

  /** Reads the record that starts at `at`, or keeps the beginning of it. */
  #next(chunk: Uint8Array, at: number, records: Array<Captured>): number {
    if (chunk.length - at < headerSize) return this.#resume(chunk, at, records)
    const length = this.#check(chunk, at)
    if (this.#failure !== undefined) return at
    const end = at + headerSize + length
    if (end > chunk.length) return this.#resume(chunk, at, records)
    this.#complete(chunk, at, end, records)
    return end
  }

  /** Takes what belongs to the record that is held, up to the end of its header or its own. */
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

  /** The length of the payload, or a failure: before anything is kept for it. */
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

export const makeReader = (): Reader => new RecordReader()
