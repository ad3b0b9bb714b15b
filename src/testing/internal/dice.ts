/** Random numbers from a seed. The same seed gives the same numbers; they are no secrets. */
import { murmur3 } from "../../primitives/murmur3.ts"

/** Random numbers from a seed. */
export interface Dice {
  /** At least 0 and below 1, with 32 random bits. */
  readonly next: () => number
  /** An integer from 0 to `bound` - 1. */
  readonly below: (bound: number) => number
  readonly bytes: (size: number) => Uint8Array
  /** Other numbers for each label. They do not depend on how many numbers were drawn before. */
  readonly derive: (label: string) => Dice
}

const encoder = new TextEncoder()

const from = (start: number): Dice => {
  let state = start
  // mulberry32.
  const word = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return (mixed ^ (mixed >>> 14)) >>> 0
  }
  const next = (): number => word() / 0x1_0000_0000
  return {
    next,
    below: (bound) => Math.floor(next() * bound),
    bytes: (size) => {
      const bytes = new Uint8Array(size)
      for (let i = 0, rest = 0; i < size; i++, rest >>>= 8) {
        if ((i & 3) === 0) rest = word()
        bytes[i] = rest & 0xff
      }
      return bytes
    },
    derive: (label) => from(murmur3(start, encoder.encode(label)))
  }
}

export const makeDice = (seed: number | string): Dice => from(murmur3(0x5eed, encoder.encode(String(seed))))
