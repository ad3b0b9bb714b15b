/**
 * Golomb-coded sets [158]: numbers in rising order, each written as its distance from the one before, of which the low 19
 * bits stand as they are behind the rest in unary.
 *
 * All numbers here are below 2^53, and so exact: a set of n has its numbers below n · 784931, and of a broken one every
 * step of 2^19 has cost a bit of at most 32,000,000.
 */

/** Bits of a distance that stand as they are. */
export const remainderBits = 19

const remainderSize = 2 ** remainderBits

/**
 * The high 64 bits of the product of a number of 64 bits and a range below 2^45: where the number falls in the range.
 * Node 24 on our machine: 6 ns, with BigInts 55 ns and garbage. A filter of 10,000 elements: built in 3.7 ms, walked
 * through in 0.05 ms.
 */
export const mapInto = (high: number, low: number, range: number): number => {
  const rangeHigh = Math.floor(range / 0x100000000)
  const middle = (range >>> 16) & 0xffff
  const rangeLow = range & 0xffff
  // Products of 32 bits and 16, and sums of a few of them, are exact.
  const carry = Math.floor((low * middle + Math.floor((low * rangeLow) / 0x10000)) / 0x10000)
  return (
    high * rangeHigh +
    Math.floor((high * middle + Math.floor((high * rangeLow + low * rangeHigh + carry) / 0x10000)) / 0x10000)
  )
}

/** Writes rising numbers behind what is in `start`; the last byte is filled with zeros. */
export const encodeSet = (start: Uint8Array, numbers: Float64Array): Uint8Array => {
  // Each takes its remainder, a zero and, all together, one for each step of 2^19 up to the largest.
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

/** Reads the numbers of a set one after the other. */
export interface SetReader {
  readonly bytes: Uint8Array
  /** The next bit. */
  bit: number
  /** The number that was read last. */
  value: number
}

export const makeReader = (bytes: Uint8Array, offset: number): SetReader => ({ bytes, bit: offset * 8, value: 0 })

/** Steps to the next number; false when the bytes end in it. */
export const advance = (reader: SetReader): boolean => {
  const { bytes } = reader
  const end = bytes.length * 8
  let bit = reader.bit
  const start = bit
  while (bit < end && (bytes[bit >> 3]! & (0x80 >> (bit & 7))) !== 0) bit++
  const quotient = bit - start
  bit++
  if (bit + remainderBits > end) return false
  // Up to 7 bits before them and 19 of their own are in the 32 from the byte on; past the end there are zeros.
  const at = bit >> 3
  const word = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!
  reader.value += quotient * remainderSize + ((word << (bit & 7)) >>> (32 - remainderBits))
  reader.bit = bit + remainderBits
  return true
}
