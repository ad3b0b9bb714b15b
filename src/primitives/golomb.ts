/**
 * Golomb-coded sets (BIP158): numbers in rising order. Each is written as its distance from the previous one: the distance divided
 * by 2^19 in unary, then its low 19 bits.
 *
 * All numbers are below 2^53, and so exact: those of a set of n are below n · 784,931, and in a malformed set each step of 2^19 takes
 * a bit, of at most 32,000,000.
 */

/** The low bits of a distance, which are not in unary. */
export const remainderBits = 19

const remainderSize = 2 ** remainderBits

/**
 * Maps a number of 64 bits into a range below 2^45: the high 64 bits of their product. It takes 6 ns (Node 24 on our machine), with
 * BigInts 55 ns and garbage. A filter of 10,000 elements is built in 3.7 ms and read in 0.05 ms.
 */
export const mapInto = (high: number, low: number, range: number): number => {
  const rangeHigh = Math.floor(range / 0x100000000)
  const middle = (range >>> 16) & 0xffff
  const rangeLow = range & 0xffff
  // Products of 32 and 16 bits, and sums of a few of them, are exact.
  const carry = Math.floor((low * middle + Math.floor((low * rangeLow) / 0x10000)) / 0x10000)
  return (
    high * rangeHigh +
    Math.floor((high * middle + Math.floor((high * rangeLow + low * rangeHigh + carry) / 0x10000)) / 0x10000)
  )
}

/** Appends a set of rising numbers to `start`. Zeros fill up the last byte. */
export const encodeSet = (start: Uint8Array, numbers: Float64Array): Uint8Array => {
  // Each number takes its remainder and a zero; all together take a one for each step of 2^19 up to the largest.
  const steps = numbers.length === 0 ? 0 : Math.floor(numbers[numbers.length - 1]! / remainderSize)
  const bytes = new Uint8Array(start.length + Math.ceil((numbers.length * (remainderBits + 1) + steps) / 8))
  bytes.set(start)
  let bit = start.length * 8
  let last = 0
  for (const number of numbers) {
    const distance = number - last
    last = number
    for (let quotient = Math.floor(distance / remainderSize); quotient > 0; quotient--, bit++) {
      bytes[bit >> 3]! |= 0x80 >> (bit & 7)
    }
    bit++
    const remainder = distance % remainderSize
    for (let left = remainderBits; left > 0;) {
      const room = 8 - (bit & 7)
      const taken = Math.min(room, left)
      left -= taken
      bytes[bit >> 3]! |= ((remainder >> left) & ((1 << taken) - 1)) << (room - taken)
      bit += taken
    }
  }
  return bytes.subarray(0, (bit + 7) >> 3)
}

/** The state of reading a set, number by number. */
export interface SetReader {
  readonly bytes: Uint8Array
  /** The next bit. */
  bit: number
  /** The last number. */
  value: number
}

export const makeReader = (bytes: Uint8Array, offset: number): SetReader => ({ bytes, bit: offset * 8, value: 0 })

/** Reads the next number; false where the bytes end before its end. */
export const advance = (reader: SetReader): boolean => {
  const { bytes } = reader
  const end = bytes.length * 8
  let bit = reader.bit
  const start = bit
  while (bit < end && (bytes[bit >> 3]! & (0x80 >> (bit & 7))) !== 0) bit++
  const quotient = bit - start
  bit++
  if (bit + remainderBits > end) return false
  // The 32 bits from this byte on hold the 19 of the remainder after at most 7 others. After the end there are zeros.
  const at = bit >> 3
  const word = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!
  reader.value += quotient * remainderSize + ((word << (bit & 7)) >>> (32 - remainderBits))
  reader.bit = bit + remainderBits
  return true
}
