/**
 * Little-endian reading and writing. Both sides throw `WireError` and nothing else; `Wire` and the parser catch it.
 *
 * Every read is checked against the end before it happens, so that no input can cause another exception, and plain
 * index arithmetic is used instead of a `DataView`, which costs an object a message and throws `RangeError`.
 */
import { fail, failReading } from "./wireError.ts"

/** A message's payload, and so a transaction or a block, is at most 4,000,000 bytes. */
export const maxPayloadLength = 4_000_000

/** A count or length written as CompactSize is at most 0x02000000. */
export const maxCompactSize = 0x02000000

const maxU64 = 0xffffffffffffffffn

/** Effect's sockets and Node's give `Buffer`s, whose `subarray` is slow and whose printing differs. */
export const plainBytes = (bytes: Uint8Array): Uint8Array =>
  Object.getPrototypeOf(bytes) === Uint8Array.prototype
    ? bytes
    : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const node = (
  globalThis as {
    readonly Buffer?: Record<"allocUnsafe" | "allocUnsafeSlow", undefined | ((size: number) => Uint8Array)>
  }
).Buffer

/**
 * Bytes that the caller writes all of at once. Where Node can, they are not zeroed first, which is a fifth of what a new
 * buffer of 1 MB costs (160 µs against 200); and small ones above 64 bytes, which V8 makes outside of its heap in as long as
 * writing a transaction takes (0.2 µs), are cut from Node's pool, of which 8 KiB stay as long as one of them does.
 */
export const unwritten = (size: number): Uint8Array => {
  const allocate = size > 4_096 ? node?.allocUnsafeSlow : node?.allocUnsafe
  return size <= 64 || allocate === undefined ? new Uint8Array(size) : plainBytes(allocate(size))
}

/** All the bytes, one behind the other; a single part as it is. */
export const joined = (parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  if (parts.length === 1) return parts[0]
  let size = 0
  for (const part of parts) size += part.length
  const whole = unwritten(size)
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
  }
  return whole
}

/** A view of part of `bytes`, which must be there. 12 ns; `subarray`, which asks for a species first, takes 19. */
export const viewOf = (bytes: Uint8Array, start: number, end: number): Uint8Array =>
  new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start)

/** The 32 bytes of a hash, as a view. */
export const hashAt = (bytes: Uint8Array, offset: number): Uint8Array => viewOf(bytes, offset, offset + 32)

export const u32At = (bytes: Uint8Array, offset: number): number =>
  (bytes[offset] | (bytes[offset + 1] << 8) | (bytes[offset + 2] << 16) | (bytes[offset + 3] << 24)) >>> 0

export const i32At = (bytes: Uint8Array, offset: number): number =>
  bytes[offset] | (bytes[offset + 1] << 8) | (bytes[offset + 2] << 16) | (bytes[offset + 3] << 24)

/** Exact within ±2^53, which is four times all the money there is. */
export const i64At = (bytes: Uint8Array, offset: number): number =>
  i32At(bytes, offset + 4) * 0x100000000 + u32At(bytes, offset)

/** Service bits have a low half only: 8 ns, and 25 for both. */
export const u64At = (bytes: Uint8Array, offset: number): bigint => {
  const low = BigInt(u32At(bytes, offset))
  const high = u32At(bytes, offset + 4)
  return high === 0 ? low : (BigInt(high) << 32n) | low
}

/** Writes `value` modulo 2^32. */
export const setU32At = (bytes: Uint8Array, offset: number, value: number): void => {
  bytes[offset] = value
  bytes[offset + 1] = value >>> 8
  bytes[offset + 2] = value >>> 16
  bytes[offset + 3] = value >>> 24
}

/** Bytes that a CompactSize takes, by its first byte. */
export const compactSizeWidth = (first: number): number =>
  first < 0xfd ? 1 : first === 0xfd ? 3 : first === 0xfe ? 5 : 9

/** A CompactSize that was checked before, and so is at most 0x02000000. */
export const compactSizeAt = (bytes: Uint8Array, offset: number): number => {
  const first = bytes[offset]
  if (first < 0xfd) return first
  return first === 0xfd ? bytes[offset + 1] | (bytes[offset + 2] << 8) : u32At(bytes, offset + 1)
}

/** The offset behind a length-prefixed string that was checked before. */
export const skipVarBytesAt = (bytes: Uint8Array, offset: number): number =>
  offset + compactSizeWidth(bytes[offset]) + compactSizeAt(bytes, offset)

/** A view of the length-prefixed bytes at `offset`, which were checked before. */
export const varBytesAt = (bytes: Uint8Array, offset: number): Uint8Array => {
  const start = offset + compactSizeWidth(bytes[offset])
  return viewOf(bytes, start, start + compactSizeAt(bytes, offset))
}

export class Reader {
  declare readonly bytes: Uint8Array
  declare readonly command: string
  declare readonly end: number
  declare offset: number

  constructor(bytes: Uint8Array, command: string, offset = 0) {
    this.bytes = bytes
    this.command = command
    this.end = bytes.length
    this.offset = offset
  }

  get remaining(): number {
    return this.end - this.offset
  }

  truncated(field: string): never {
    return failReading(this.command, { _tag: "Truncated", field, offset: this.offset })
  }

  badValue(field: string, problem: string): never {
    return failReading(this.command, { _tag: "BadValue", field, problem })
  }

  skip(size: number, field: string): void {
    if (this.end - this.offset < size) this.truncated(field)
    this.offset += size
  }

  u8(field: string): number {
    if (this.offset >= this.end) this.truncated(field)
    return this.bytes[this.offset++]
  }

  /** Ports are the only big-endian numbers of the protocol. */
  u16be(field: string): number {
    const offset = this.offset
    this.skip(2, field)
    return (this.bytes[offset] << 8) | this.bytes[offset + 1]
  }

  u32(field: string): number {
    const offset = this.offset
    this.skip(4, field)
    return u32At(this.bytes, offset)
  }

  i32(field: string): number {
    const offset = this.offset
    this.skip(4, field)
    return i32At(this.bytes, offset)
  }

  i64(field: string): number {
    const offset = this.offset
    this.skip(8, field)
    return i64At(this.bytes, offset)
  }

  u64(field: string): bigint {
    const offset = this.offset
    this.skip(8, field)
    return u64At(this.bytes, offset)
  }

  view(size: number, field: string): Uint8Array {
    const offset = this.offset
    this.skip(size, field)
    return viewOf(this.bytes, offset, offset + size)
  }

  compactSize(field: string): number {
    const offset = this.offset
    if (offset >= this.end) this.truncated(field)
    const first = this.bytes[offset]
    if (first < 0xfd) {
      this.offset = offset + 1
      return first
    }
    this.skip(compactSizeWidth(first), field)
    const value = compactSizeAt(this.bytes, offset)
    if (first === 0xff || value > maxCompactSize || value < (first === 0xfd ? 0xfd : 0x10000)) {
      failReading(this.command, { _tag: "BadCompactSize", field, offset })
    }
    return value
  }

  /** A CompactSize that carries 64 bits instead of a size. */
  compactBits(field: string): bigint {
    const offset = this.offset
    if (offset >= this.end) this.truncated(field)
    if (this.bytes[offset] !== 0xff) {
      const first = this.bytes[offset]
      this.skip(compactSizeWidth(first), field)
      const value = compactSizeAt(this.bytes, offset)
      if (first >= 0xfd && value < (first === 0xfd ? 0xfd : 0x10000)) {
        failReading(this.command, { _tag: "BadCompactSize", field, offset })
      }
      return BigInt(value)
    }
    this.skip(9, field)
    const value = u64At(this.bytes, offset + 1)
    if (value < 0x100000000n) failReading(this.command, { _tag: "BadCompactSize", field, offset })
    return value
  }

  /** A length or count that is at most `limit`. */
  limited(field: string, limit: number): number {
    const count = this.compactSize(field)
    if (count > limit) failReading(this.command, { _tag: "TooMany", field, count, limit })
    return count
  }

  /** A count of elements that take at least `size` bytes each: none is made before these bytes are known to be there. */
  count(field: string, size: number, limit = maxCompactSize): number {
    const count = this.limited(field, limit)
    if (count * size > this.end - this.offset) this.truncated(field)
    return count
  }

  varBytes(field: string, limit = maxCompactSize): Uint8Array {
    return this.view(this.limited(field, limit), field)
  }

  skipVarBytes(field: string): void {
    this.skip(this.compactSize(field), field)
  }

  /** One character a byte, so that nothing is lost whatever the bytes are. */
  text(field: string, limit: number): string {
    return String.fromCharCode.apply(null, this.varBytes(field, limit) as unknown as Array<number>)
  }
}

/** Large enough for all but blocks and full lists; a buffer that had to grow past 256 KiB is not kept. */
const pooledSize = 16_384
const keptSize = 262_144

/** Room for what a frame has behind its payload, so that a large one is not copied for it. */
const trailerSize = 16

export class Writer {
  bytes: Uint8Array
  #view: DataView
  offset = 0
  command = ""
  /** Where the message in work must end. */
  limit = maxPayloadLength

  constructor(size: number) {
    this.bytes = new Uint8Array(size)
    this.#view = new DataView(this.bytes.buffer)
  }

  badValue(field: string, problem: string): never {
    return fail(this.command, { _tag: "BadValue", field, problem })
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

  /** Makes room for what is known to follow, so that a long list grows the buffer once, and to what it needs. */
  expect(size: number): void {
    const end = this.offset + size
    if (end > this.bytes.length && end <= this.limit) this.#grow(end + trailerSize)
  }

  #grow(size: number): void {
    const grown = new Uint8Array(size)
    grown.set(viewOf(this.bytes, 0, this.offset))
    this.bytes = grown
    this.#view = new DataView(grown.buffer)
  }

  /**
   * What was written and `trailer` bytes more, for good. A large buffer is not used again (see `withWriter`), and given away
   * unless much of it is empty.
   */
  take(trailer = 0): Uint8Array {
    const { bytes, offset } = this
    const size = offset + trailer
    if (bytes.length > keptSize && bytes.length >= size && bytes.length - size < offset / 8) {
      return viewOf(bytes, 0, size)
    }
    const taken = unwritten(size)
    taken.set(viewOf(bytes, 0, offset))
    return taken
  }

  u8(value: number, field: string): void {
    if ((value & 0xff) !== value) this.badValue(field, "is not an unsigned 8-bit integer")
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

  // What is set at an offset was reserved before, an entry of a list as a whole: inv and headers are written in half the
  // time that reserving each field takes.

  setU16be(offset: number, value: number, field: string): void {
    if ((value & 0xffff) !== value) this.badValue(field, "is not an unsigned 16-bit integer")
    this.bytes[offset] = value >>> 8
    this.bytes[offset + 1] = value
  }

  setU32(offset: number, value: number, field: string): void {
    if (value >>> 0 !== value) this.badValue(field, "is not an unsigned 32-bit integer")
    this.#view.setUint32(offset, value, true)
  }

  setI32(offset: number, value: number, field: string): void {
    if ((value | 0) !== value) this.badValue(field, "is not a signed 32-bit integer")
    this.#view.setInt32(offset, value, true)
  }

  setU64(offset: number, value: bigint, field: string): void {
    // Both are instructions to V8: 2 ns, where comparing and shifting took 29.
    if (BigInt.asUintN(64, value) !== value) this.badValue(field, "is not an unsigned 64-bit integer")
    this.#view.setBigUint64(offset, value, true)
  }

  setFixed(offset: number, bytes: Uint8Array, size: number, field: string): void {
    if (bytes.length !== size) this.badValue(field, `has ${bytes.length} bytes instead of ${size}`)
    this.bytes.set(bytes, offset)
  }

  i64(value: number, field: string): void {
    if (!Number.isSafeInteger(value)) this.badValue(field, "is not an integer within ±(2^53 - 1)")
    const offset = this.reserve(8)
    setU32At(this.bytes, offset, value % 0x100000000)
    setU32At(this.bytes, offset + 4, Math.floor(value / 0x100000000))
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
    if (value >= 0n && value <= 0xffffffffn) return this.compactSize(Number(value))
    if (value < 0n || value > maxU64) this.badValue(field, "is not an unsigned 64-bit integer")
    const offset = this.reserve(1)
    this.bytes[offset] = 0xff
    this.u64(value, field)
  }

  /** A count or length of what the user gave. */
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

  varBytes(bytes: Uint8Array, field: string, limit = maxPayloadLength): void {
    this.count(bytes.length, field, limit)
    this.raw(bytes)
  }

  text(text: string, field: string, limit: number): void {
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
 * Runs `write` with the pooled writer and gives back what `done` makes of it. The writer is taken out of the pool
 * meanwhile, since `write` may run a caller's own list, and that may encode something itself.
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
