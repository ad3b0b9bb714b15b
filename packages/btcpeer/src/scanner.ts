/**
 * Finds the records of a file, one after the other, in bytes that come in chunks. Between two records that can be read anything may
 * stand: it is reported as damaged, and the scanner goes on at the next place where a record may start.
 *
 * Pure and synchronous. Keeps at most one record and one chunk in memory.
 */
import type * as Wire from "effect-bitcoin-peer/Wire"

/** A message, or bytes that are not a message. */
export type Found = {
  /** Where the record begins, in bytes from the start. */
  readonly offset: number
  /** Of a message, as the format counts it; of damage, up to the next record. */
  readonly bytes: number
  /** Microseconds since 1970, in a capture. */
  readonly time?: number | undefined
} & (
  | { readonly _tag: "Message"; readonly message: Wire.Message }
  | { readonly _tag: "Damaged"; readonly command: string; readonly reason: string; readonly problem: string }
)

/** The bytes at a place of a file. */
export type Step =
  /** A record of `size` bytes. `found` has offsets relative to its beginning. */
  | { readonly _tag: "Record"; readonly size: number; readonly found: ReadonlyArray<Found> }
  /** Not a record, or one that cannot be read. Goes on at the next place where a record may start, or after `size` bytes. */
  | {
      readonly _tag: "Damaged"
      readonly size?: number
      /** How many of the bytes are a header, which the result does not count. */
      readonly header?: number
      readonly time?: number | undefined
      readonly command?: string
      readonly reason: string
      readonly problem: string
    }
  /** `size` bytes from here are needed to tell. */
  | { readonly _tag: "NeedsMore"; readonly size: number }

/** A format of files. */
export interface Format {
  /** Reads the bytes at `at`. Never needs more bytes once `ended` is set. */
  readonly read: (bytes: Uint8Array, at: number, ended: boolean) => Step
  /** The first place from `from` on where a record may start; -1 if no record starts there. */
  readonly next: (bytes: Uint8Array, from: number) => number
  /** How many bytes `next` looks at to recognise a place. */
  readonly signature: number
  /** Whether bytes from `from` to `to`, which are not a record, need no report. `offset` is the place of the first one in the file. */
  readonly isPadding?: (bytes: Uint8Array, from: number, to: number, offset: number) => boolean
}

const empty = new Uint8Array(0)

/** Bytes that are not a record, while their end is not found. */
interface Damage {
  readonly offset: number
  readonly step: Extract<Step, { readonly _tag: "Damaged" }>
  isPadding: boolean
}

export class Scanner {
  readonly #format: Format
  #bytes: Uint8Array = empty
  /** Where in `#bytes` the next record is read. */
  #at = 0
  /** Where in the file `#bytes` begins. */
  #base = 0
  /** Chunks that are not part of `#bytes` yet: joining them one by one would copy a long record many times. */
  #chunks: Array<Uint8Array> = []
  #waiting = 0
  #needed = 1
  #ended = false
  #damage: Damage | undefined
  #found: Array<Found> = []

  constructor(format: Format) {
    this.#format = format
  }

  /** Adds bytes. They must not be written to afterwards. */
  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk)
    this.#waiting += chunk.length
  }

  /** Says that no more bytes come. */
  end(): void {
    this.#ended = true
  }

  /** How many bytes are kept. */
  get buffered(): number {
    return this.#bytes.length + this.#waiting
  }

  /** All messages and damages in the bytes so far. */
  *[Symbol.iterator](): Generator<Found> {
    for (let found = this.next(); found !== undefined; found = this.next()) yield found
  }

  /** The next message or damage; `undefined` if more bytes are needed, and after `end`, if nothing is left. */
  next(): Found | undefined {
    while (this.#found.length === 0) {
      if (!this.#join()) return undefined
      if (this.#damage !== undefined) this.#search(this.#damage)
      else if (this.#at < this.#bytes.length) this.#read()
      else if (this.#ended) return undefined
      else this.#needed = 1
    }
    return this.#found.shift()
  }

  /** Joins the bytes that are needed; false if they have not arrived yet. */
  #join(): boolean {
    const left = this.#bytes.length - this.#at
    if (left >= this.#needed && !(this.#ended && this.#chunks.length > 0)) return true
    if (left + this.#waiting < this.#needed && !this.#ended) return false
    if (this.#chunks.length > 0) {
      const parts = left === 0 ? this.#chunks : [this.#bytes.subarray(this.#at), ...this.#chunks]
      this.#base += this.#at
      this.#at = 0
      this.#bytes = parts.length === 1 ? parts[0]! : new Uint8Array(Buffer.concat(parts))
      this.#chunks = []
      this.#waiting = 0
    }
    return true
  }

  #read(): void {
    const step = this.#format.read(this.#bytes, this.#at, this.#ended)
    const offset = this.#base + this.#at
    if (step._tag === "NeedsMore") this.#needed = step.size
    else if (step._tag === "Record") {
      for (const found of step.found) this.#found.push({ ...found, offset: offset + found.offset })
      this.#at += step.size
      this.#needed = 1
    } else {
      this.#damage = { offset, step, isPadding: true }
      this.#needed = 1
    }
  }

  /** Goes to the end of the damage, as far as the bytes at hand allow. */
  #search(damage: Damage): void {
    const { offset, step } = damage
    const from = this.#at
    const { length } = this.#bytes
    // The first byte of the damage is passed: a record there was read already.
    const candidate = this.#format.next(this.#bytes, this.#base + from === offset ? from + 1 : from)
    const limit = step.size === undefined ? Infinity : offset + step.size - this.#base
    const end = Math.min(candidate < 0 ? Infinity : candidate, limit, this.#ended ? length : Infinity)
    const isEnd = end <= length
    const to = isEnd ? end : Math.max(from, length - this.#format.signature + 1)
    damage.isPadding &&= this.#format.isPadding?.(this.#bytes, from, to, this.#base + from) ?? false
    this.#at = to
    if (!isEnd) {
      this.#needed = length - to + 1
      return
    }
    this.#damage = undefined
    this.#needed = 1
    if (damage.isPadding && step.reason === "Garbage") return
    const bytes = this.#base + to - offset - (step.header ?? 0)
    const { command = "", problem, reason, time } = step
    this.#found.push({ _tag: "Damaged", offset, bytes: Math.max(0, bytes), time, command, reason, problem })
  }
}
