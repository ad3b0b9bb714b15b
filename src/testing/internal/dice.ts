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
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
  const below = (bound: number): number => Math.floor(next() * bound)
  return {
    next,
    below,
    bytes: (size) => Uint8Array.from({ length: size }, () => below(256)),
    derive: (label) => from(murmur3(start, encoder.encode(label)))
  }
}

export const makeDice = (seed: number | string): Dice => from(murmur3(0x5eed, encoder.encode(String(seed))))
