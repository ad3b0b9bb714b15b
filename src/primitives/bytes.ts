/**
 * Reads and writes numbers in bytes by index arithmetic, little-endian. A `DataView` would cost an object for each message and
 * throw `RangeError`. These functions check nothing: `Reader` and `Writer` check before they call them.
 */

/** The same bytes as a plain `Uint8Array`. Sockets give `Buffer`s, whose `subarray` is slow and which print differently. */
export const plainBytes = (bytes: Uint8Array): Uint8Array =>
  Object.getPrototypeOf(bytes) === Uint8Array.prototype
    ? bytes
    : new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const allocate = (
  globalThis as { readonly Buffer?: { readonly allocUnsafeSlow?: undefined | ((size: number) => Uint8Array) } }
).Buffer?.allocUnsafeSlow

const poolSize = 8_192
/** The rest of a pool, from which buffers are cut. */
let pool = new Uint8Array(0)
let poolUsed = 0

/**
 * A buffer that the caller overwrites completely, at once. On Node it is not zeroed first, which saves a fifth of the cost of 1 MB
 * (160 µs against 200). From 65 to 4,096 bytes it is cut from a pool, because V8 takes 0.2 µs to allocate such a buffer outside
 * its heap, as long as it takes to write a transaction; 8 KiB of the pool then live as long as the buffer. Node's pool gives
 * objects of another class, which take as long again to convert.
 */
export const unwritten = (size: number): Uint8Array => {
  if (size <= 64) return new Uint8Array(size)
  if (size > 4_096) return allocate === undefined ? new Uint8Array(size) : plainBytes(allocate(size))
  if (poolUsed + size > pool.length) {
    pool = new Uint8Array(poolSize)
    poolUsed = 0
  }
  poolUsed += size
  return viewOf(pool, poolUsed - size, poolUsed)
}

/** The parts, one after the other, in a new buffer. A single part is returned itself. */
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

/** A view of a part of `bytes`, which must exist. It takes 12 ns; `subarray`, which looks up a species first, takes 19. */
export const viewOf = (bytes: Uint8Array, start: number, end: number): Uint8Array =>
  new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start)

/** The 32 bytes of a hash, as a view. */
export const hashAt = (bytes: Uint8Array, offset: number): Uint8Array => viewOf(bytes, offset, offset + 32)

export const u32At = (bytes: Uint8Array, offset: number): number =>
  (bytes[offset] | (bytes[offset + 1] << 8) | (bytes[offset + 2] << 16) | (bytes[offset + 3] << 24)) >>> 0

export const i32At = (bytes: Uint8Array, offset: number): number =>
  bytes[offset] | (bytes[offset + 1] << 8) | (bytes[offset + 2] << 16) | (bytes[offset + 3] << 24)

/** Exact within ±2^53, which is four times the final supply in satoshi. */
export const i64At = (bytes: Uint8Array, offset: number): number =>
  i32At(bytes, offset + 4) * 0x100000000 + u32At(bytes, offset)

/** Service bits usually have only a low half: 8 ns, and 25 ns for both halves. */
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

/** The size of a CompactSize in bytes, by its first byte. */
export const compactSizeWidth = (first: number): number =>
  first < 0xfd ? 1 : first === 0xfd ? 3 : first === 0xfe ? 5 : 9

/** Reads a CompactSize that was checked before, so it is at most 0x02000000. */
export const compactSizeAt = (bytes: Uint8Array, offset: number): number => {
  const first = bytes[offset]
  if (first < 0xfd) return first
  return first === 0xfd ? bytes[offset + 1] | (bytes[offset + 2] << 8) : u32At(bytes, offset + 1)
}

/** The offset after a length-prefixed string that was checked before. */
export const skipVarBytesAt = (bytes: Uint8Array, offset: number): number =>
  offset + compactSizeWidth(bytes[offset]) + compactSizeAt(bytes, offset)

/** A view of the length-prefixed bytes at `offset`, which were checked before. */
export const varBytesAt = (bytes: Uint8Array, offset: number): Uint8Array => {
  const start = offset + compactSizeWidth(bytes[offset])
  return viewOf(bytes, start, start + compactSizeAt(bytes, offset))
}
