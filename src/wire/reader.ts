/**
 * Reads a payload. Throws `WireError` and nothing else; `decode` and the parsers catch it. Every read is checked against the end
 * of the payload first, so that no input causes another exception.
 */
import { compactSizeAt, compactSizeWidth, i32At, i64At, u32At, u64At, viewOf } from "../primitives/bytes.ts"
import { failReading } from "./fail.ts"
import { maxCompactSize } from "./limits.ts"

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

  /** For ports, the only big-endian numbers of the protocol. */
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

  /** A CompactSize that carries 64 bits, for services in `addrv2`, instead of a size. */
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

  /**
   * Checks a count or length against its limit. If exceeding the limit ends the connection, this check comes after the whole
   * message was read: a message that is also truncated is only dropped, as in Bitcoin Core.
   */
  atMost(limit: number, count: number, field: string): void {
    if (count > limit) failReading(this.command, { _tag: "TooMany", field, count, limit })
  }

  /** A length or count that is at most `limit`. */
  limited(field: string, limit: number): number {
    const count = this.compactSize(field)
    if (count > limit) this.atMost(limit, count, field)
    return count
  }

  /**
   * A count of elements that take at least `size` bytes each. Fails before any element is made unless these bytes are there,
   * so that a count alone never allocates memory.
   */
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

  /** A string with one character for each byte, so that no byte is lost. */
  text(field: string, limit: number): string {
    return String.fromCharCode.apply(null, this.varBytes(field, limit) as unknown as Array<number>)
  }
}
