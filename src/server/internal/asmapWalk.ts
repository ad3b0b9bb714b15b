/**
 * A map of autonomous systems as Bitcoin Core stores it: a program that reads the 128 bits of an IPv6 address from the first one on, and
 * returns the number of an autonomous system.
 *
 *     RETURN  0    number   the result
 *     JUMP    10   distance reads one bit of the address: 0 goes on, 1 skips this number of bits of the program
 *     MATCH   110  pattern  reads as many bits as the pattern has. If one differs, the result is the default
 *     DEFAULT 111  number   the default from here on; 0, "not mapped", at the start
 *
 * The bits of the program begin with the lowest bit of each byte, those of an address with the highest. A number has a class in unary,
 * then its place within the class.
 */

/** What is wrong with a map, and the bit of the program at which it was found. */
export interface Flaw {
  readonly problem: Problem
  readonly bit: number
}

/**
 * Why a map is not used.
 *
 * - `Incomplete`: the file ends within an instruction, or before the last RETURN.
 * - `JumpTooFar`: a JUMP leads beyond the end of the file.
 * - `JumpsCross`: a JUMP leads out of the part that an earlier JUMP skips.
 * - `JumpInside`: a JUMP leads into the middle of an instruction.
 * - `Unreachable`: nothing leads to the instructions after a RETURN.
 * - `TooManyBits`: a path reads more than the 128 bits of an address.
 * - `UselessDefault`: a DEFAULT with a RETURN or another DEFAULT right after it.
 * - `SplitMatch`: two MATCH of fewer than 8 bits, one right after the other, which should be one.
 * - `BadPadding`: after the last RETURN follow more than 7 bits, or one that is not 0.
 *
 * @category errors
 * @since 0.1.0
 */
export type Problem =
  | "Incomplete"
  | "JumpTooFar"
  | "JumpsCross"
  | "JumpInside"
  | "Unreachable"
  | "TooManyBits"
  | "UselessDefault"
  | "SplitMatch"
  | "BadPadding"

const addressBits = 128

/** The kinds of instructions, as their classes in unary give them. */
const RETURN = 0
const JUMP = 1
const MATCH = 2
const DEFAULT = 3

/** The bits of each class of a kind of number. The first class begins at `minimum`, each other one after the class before it. */
interface Numbers {
  readonly minimum: number
  readonly sizes: ReadonlyArray<number>
}
const sizes = (from: number, to: number): ReadonlyArray<number> =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index)

const kinds: Numbers = { minimum: RETURN, sizes: [0, 0, 1] }
const systems: Numbers = { minimum: 1, sizes: sizes(15, 24) }
/** The highest bit only ends the pattern. */
const patterns: Numbers = { minimum: 2, sizes: sizes(1, 8) }
const distances: Numbers = { minimum: 17, sizes: sizes(5, 30) }

const ranOff = -1

/** Reads the numbers of a program. */
class Program {
  readonly #bytes: Uint8Array
  readonly end: number
  at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.end = bytes.length * 8
  }

  /** The next bit; `ranOff` at the end of the file. */
  bit(): number {
    if (this.at >= this.end) return ranOff
    const bit = (this.#bytes[this.at >>> 3]! >> (this.at & 7)) & 1
    this.at++
    return bit
  }

  /** The next number, below 2^31; `ranOff` if the file ends within it. */
  read({ minimum, sizes }: Numbers): number {
    let value = minimum
    for (let index = 0; index < sizes.length - 1; index++) {
      const more = this.bit()
      if (more === ranOff) return ranOff
      if (more === 0) return this.#place(value, sizes[index]!)
      value += 2 ** sizes[index]!
    }
    return this.#place(value, sizes[sizes.length - 1]!)
  }

  #place(first: number, size: number): number {
    let place = 0
    for (let index = 0; index < size; index++) {
      const bit = this.bit()
      if (bit === ranOff) return ranOff
      place = place * 2 + bit
    }
    return first + place
  }
}

/** The number of bits that a pattern has after its highest bit. */
const lengthOf = (pattern: number): number => 31 - Math.clz32(pattern)

/**
 * Checks a map as Bitcoin Core does: of a checked map every address gets a result. It follows all paths at once, from the first
 * instruction to the last, and takes about 120 ms for a map of 1.8 MB.
 */
export const flawOf = (bytes: Uint8Array): Flaw | undefined => {
  const program = new Program(bytes)
  /** Where the JUMPs lead that are still ahead, the nearest one last, and how many bits of the address are left there. */
  const jumps: Array<{ readonly to: number; readonly left: number }> = []
  let left = addressBits
  let before = JUMP
  let beforeWasShort = false
  while (program.at < program.end) {
    const bit = program.at
    const flaw = (problem: Problem): Flaw => ({ problem, bit })
    const next = jumps.at(-1)
    if (next !== undefined && bit >= next.to) return flaw("JumpInside")
    const kind = program.read(kinds)
    const value = kind === ranOff ? ranOff : program.read(operands[kind]!)
    if (value === ranOff) return flaw("Incomplete")
    switch (kind) {
      case RETURN: {
        if (before === DEFAULT) return flaw("UselessDefault")
        if (next === undefined) return isPadding(program) ? undefined : { problem: "BadPadding", bit: program.at }
        if (program.at < next.to) return { problem: "Unreachable", bit: program.at }
        if (program.at > next.to) return flaw("JumpInside")
        left = next.left
        jumps.pop()
        break
      }
      case JUMP: {
        if (value > program.end - program.at) return flaw("JumpTooFar")
        if (left === 0) return flaw("TooManyBits")
        left--
        const to = program.at + value
        if (next !== undefined && to >= next.to) return flaw("JumpsCross")
        jumps.push({ to, left })
        break
      }
      case MATCH: {
        const length = lengthOf(value)
        const isShort = length < 8
        if (before === MATCH && isShort && beforeWasShort) return flaw("SplitMatch")
        beforeWasShort = isShort
        if (left < length) return flaw("TooManyBits")
        left -= length
        break
      }
      default: {
        if (before === DEFAULT) return flaw("UselessDefault")
      }
    }
    before = kind
  }
  return { problem: "Incomplete", bit: program.end }
}

const operands: ReadonlyArray<Numbers> = [systems, distances, patterns, systems]

const isPadding = (program: Program): boolean => {
  if (program.end - program.at > 7) return false
  while (program.at < program.end) if (program.bit() !== 0) return false
  return true
}

/** The number that a map gives to the 16 bytes of an address; 0 if it is not mapped, and where a map was not checked and has a flaw. */
export const walk = (bytes: Uint8Array, address: Uint8Array): number => {
  const program = new Program(bytes)
  let used = 0
  const isOne = (): boolean => {
    const bit = (address[used >> 3]! >> (7 - (used & 7))) & 1
    used++
    return bit === 1
  }
  let unmatched = 0
  // Every turn moves on in the program.
  while (program.at < program.end) {
    const kind = program.read(kinds)
    const value = kind === ranOff ? ranOff : program.read(operands[kind]!)
    if (value === ranOff) return 0
    switch (kind) {
      case RETURN:
        return value
      case JUMP:
        if (used === addressBits) return 0
        if (isOne()) program.at += value
        break
      case MATCH: {
        const length = lengthOf(value)
        if (addressBits - used < length) return 0
        for (let index = length - 1; index >= 0; index--) {
          if (isOne() !== (((value >> index) & 1) === 1)) return unmatched
        }
        break
      }
      default:
        unmatched = value
    }
  }
  return 0
}
