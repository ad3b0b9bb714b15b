/** Writes payloads into one pooled buffer. Throws `WireError` and nothing else; `encode` and similar functions catch it. */
import { setU32At, unwritten, viewOf } from "../primitives/bytes.ts"
import { notA } from "../primitives/types.ts"
import { fail } from "./fail.ts"
import { maxPayloadLength } from "./limits.ts"

/** Whether a value is bytes whose length takes one byte: most scripts. */
export const isShort = (value: Uint8Array | null | undefined): value is Uint8Array =>
  isBytes(value) && value.length < 0xfd

/** Whether a value has one byte for each element: a `Uint8Array`, not a wider array, an `ArrayBuffer` or a `DataView`. */
const isBytes = (value: Uint8Array | null | undefined): value is Uint8Array =>
  value?.byteLength !== undefined && value.byteLength === value.length

const maxU64 = 0xffffffffffffffffn

/** Large enough for all messages except blocks and full lists. A buffer that grew beyond 256 KiB is not kept. */
const pooledSize = 16_384
const keptSize = 262_144

/** Room for the tag after a payload (BIP324), so that a large frame is not copied for it. */
const trailerSize = 16

/**
 * Every write checks the type of its value as well, because callers without TypeScript pass anything. The checks cost nothing that
 * could be measured: `inv`, `headers`, `tx` and `block` took as long without them, by the fastest of seven runs.
 */
export class Writer {
  bytes: Uint8Array
  #view: DataView
  offset = 0
  command = ""
  /** Where the current message must end at the latest. */
  limit = maxPayloadLength

  constructor(size: number) {
    this.bytes = new Uint8Array(size)
    this.#view = new DataView(this.bytes.buffer)
  }

  badValue(field: string, problem: string): never {
    return fail(this.command, { _tag: "BadValue", field, problem })
  }

  wrongType(value: unknown, field: string, expected: string): never {
    return this.badValue(field, notA(value, expected))
  }

  notInteger(value: unknown, field: string, which: string): never {
    return typeof value === "number" ? this.badValue(field, `is not ${which}`) : this.wrongType(value, field, "number")
  }

  /** Fails for a part of a message that is not an object, before its fields are read. */
  object(value: object, field: string): void {
    if (typeof value !== "object" || value === null) this.wrongType(value, field, "object")
  }

  /** Starts the payload of a message at the current offset. */
  begin(command: string): number {
    this.command = command
    this.limit = this.offset + maxPayloadLength
    return this.offset
  }

  reserve(size: number): number {
    const offset = this.offset
    const end = offset + size
    if (end > this.limit) {
      const length = end - this.limit + maxPayloadLength
      fail(this.command, { _tag: "PayloadTooLarge", length, limit: maxPayloadLength })
    }
    if (end > this.bytes.length) this.#grow(Math.max(this.bytes.length * 2, end + trailerSize))
    this.offset = end
    return offset
  }

  /** Makes room for `size` bytes that follow, so that a long list grows the buffer once, and to the right size. */
  expect(size: number): void {
    const end = this.offset + size
    if (end > this.bytes.length && end <= this.limit) this.#grow(end + trailerSize)
  }

  #grow(size: number): void {
    const grown = unwritten(size)
    grown.set(viewOf(this.bytes, 0, this.offset))
    this.bytes = grown
    this.#view = new DataView(grown.buffer)
  }

  /**
   * The written bytes and room for `trailer` more, in a buffer that the caller keeps. A large buffer is not used again (see
   * `withWriter`), so it is given away without a copy unless much of it is empty.
   */
  take(trailer = 0): Uint8Array {
    const { bytes, offset } = this
    const size = offset + trailer
    if (bytes.length > keptSize && bytes.length >= size && bytes.length - size < offset / 8) {
      // The caller can reach the rest of the buffer, which may hold old memory of the process.
      bytes.fill(0, offset)
      return viewOf(bytes, 0, size)
    }
    const taken = unwritten(size)
    taken.set(viewOf(bytes, 0, offset))
    return taken
  }

  u8(value: number, field: string): void {
    if (typeof value !== "number" || (value & 0xff) !== value) {
      this.notInteger(value, field, "an unsigned 8-bit integer")
    }
    const offset = this.reserve(1)
    this.bytes[offset] = value
  }

  u16be(value: number, field: string): void {
    this.setU16be(this.reserve(2), value, field)
  }

  u32(value: number, field: string): void {
    this.setU32(this.reserve(4), value, field)
  }

  i32(value: number, field: string): void {
    this.setI32(this.reserve(4), value, field)
  }

  // The setters below write at an offset that was reserved before. Reserving an entry of a list at once, in place of each
  // field, halves the time to write inv and headers.

  setU16be(offset: number, value: number, field: string): void {
    if (typeof value !== "number" || (value & 0xffff) !== value) {
      this.notInteger(value, field, "an unsigned 16-bit integer")
    }
    this.bytes[offset] = value >>> 8
    this.bytes[offset + 1] = value
  }

  setU32(offset: number, value: number, field: string): void {
    if (typeof value !== "number" || value >>> 0 !== value) {
      this.notInteger(value, field, "an unsigned 32-bit integer")
    }
    this.#view.setUint32(offset, value, true)
  }

  setI32(offset: number, value: number, field: string): void {
    if (typeof value !== "number" || (value | 0) !== value) {
      this.notInteger(value, field, "a signed 32-bit integer")
    }
    this.#view.setInt32(offset, value, true)
  }

  setI64(offset: number, value: number, field: string): void {
    if (!Number.isSafeInteger(value)) this.notInteger(value, field, "an integer within ±(2^53 - 1)")
    // The remainder of a division of floating-point numbers is a call of 20 ns.
    const high = Math.floor(value / 0x100000000)
    this.#view.setUint32(offset, value - high * 0x100000000, true)
    this.#view.setInt32(offset + 4, high, true)
  }

  setU64(offset: number, value: bigint, field: string): void {
    if (typeof value !== "bigint") this.wrongType(value, field, "bigint")
    // V8 has an instruction for each: 2 ns, where comparing and shifting took 29.
    if (BigInt.asUintN(64, value) !== value) this.badValue(field, "is not an unsigned 64-bit integer")
    this.#view.setBigUint64(offset, value, true)
  }

  setFixed(offset: number, bytes: Uint8Array, size: number, field: string): void {
    // Strings and arrays have no `byteLength`. For other objects than bytes the two differ.
    if (bytes?.byteLength !== size || bytes.length !== size) this.#notBytes(bytes, size, field)
    this.bytes.set(bytes, offset)
  }

  #notBytes(bytes: Uint8Array, size: number, field: string): never {
    return isBytes(bytes)
      ? this.badValue(field, `has ${bytes.length} bytes instead of ${size}`)
      : this.wrongType(bytes, field, "Uint8Array")
  }

  i64(value: number, field: string): void {
    this.setI64(this.reserve(8), value, field)
  }

  u64(value: bigint, field: string): void {
    this.setU64(this.reserve(8), value, field)
  }

  compactSize(value: number): void {
    if (value < 0xfd) {
      const offset = this.reserve(1)
      this.bytes[offset] = value
    } else if (value <= 0xffff) {
      const offset = this.reserve(3)
      this.bytes[offset] = 0xfd
      this.bytes[offset + 1] = value
      this.bytes[offset + 2] = value >>> 8
    } else {
      const offset = this.reserve(5)
      this.bytes[offset] = 0xfe
      setU32At(this.bytes, offset + 1, value)
    }
  }

  compactBits(value: bigint, field: string): void {
    if (typeof value !== "bigint") this.wrongType(value, field, "bigint")
    if (value >= 0n && value <= 0xffffffffn) return this.compactSize(Number(value))
    if (value < 0n || value > maxU64) this.badValue(field, "is not an unsigned 64-bit integer")
    const offset = this.reserve(1)
    this.bytes[offset] = 0xff
    this.u64(value, field)
  }

  /** A count or length of a field of the caller's message. */
  count(count: number, field: string, limit: number): void {
    if (!(count <= limit)) fail(this.command, { _tag: "TooMany", field, count, limit })
    this.compactSize(count)
  }

  raw(bytes: Uint8Array): void {
    const offset = this.reserve(bytes.length)
    this.bytes.set(bytes, offset)
  }

  /** Copies part of the bytes of a decoded list. */
  copy(bytes: Uint8Array, start: number, end: number): void {
    this.raw(viewOf(bytes, start, end))
  }

  fixed(bytes: Uint8Array, size: number, field: string): void {
    this.setFixed(this.reserve(size), bytes, size, field)
  }

  /** The bytes of a field that needs no length. */
  rest(bytes: Uint8Array, field: string): void {
    if (!isBytes(bytes)) this.wrongType(bytes, field, "Uint8Array")
    this.raw(bytes)
  }

  varBytes(bytes: Uint8Array, field: string, limit = maxPayloadLength): void {
    if (!isBytes(bytes)) this.wrongType(bytes, field, "Uint8Array")
    const { length } = bytes
    if (!(length < 0xfd && length <= limit)) {
      this.count(length, field, limit)
      return this.raw(bytes)
    }
    // Most scripts and witnesses: one reservation, and no call to copy a few bytes.
    this.setVarBytes(this.reserve(length + 1), bytes)
  }

  /** Writes bytes shorter than 253 with their length, at an offset where there is room. */
  setVarBytes(offset: number, bytes: Uint8Array): void {
    const { length } = bytes
    this.bytes[offset] = length
    if (length > 4) this.bytes.set(bytes, offset + 1)
    else for (let i = 0; i < length; i++) this.bytes[offset + 1 + i] = bytes[i]!
  }

  boolean(value: boolean, field: string): void {
    if (typeof value !== "boolean") this.wrongType(value, field, "boolean")
    this.u8(value ? 1 : 0, field)
  }

  text(text: string, field: string, limit: number): void {
    if (typeof text !== "string") this.wrongType(text, field, "string")
    this.count(text.length, field, limit)
    const offset = this.reserve(text.length)
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i)
      if (code > 0xff) this.badValue(field, "has a character that is not a single byte")
      this.bytes[offset + i] = code
    }
  }
}

let pooled: Writer | undefined

/**
 * Runs `write` with the pooled writer and returns its result. Meanwhile the writer is not in the pool, because `write` may read
 * a caller's own list, which may encode another message.
 */
export const withWriter = <A>(write: (writer: Writer) => A): A => {
  const writer = pooled ?? new Writer(pooledSize)
  pooled = undefined
  writer.offset = 0
  try {
    return write(writer)
  } finally {
    if (writer.bytes.length <= keptSize) pooled = writer
  }
}
