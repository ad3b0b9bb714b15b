/** Random numbers from a seed: the same seed gives the same run. */

/** Random numbers from a seed (mulberry32). */
export const dice = (seed: number) => {
  let state = seed | 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000
  }
  return {
    /** A random integer from 0 to `bound` - 1. */
    below: (bound: number): number => Math.floor(next() * bound),
    chance: (probability: number): boolean => next() < probability,
    pick: <A>(of: ReadonlyArray<A>): A => of[Math.floor(next() * of.length)]!,
    bytes: (size: number): Uint8Array => Uint8Array.from({ length: size }, () => Math.floor(next() * 256))
  }
}

export type Dice = ReturnType<typeof dice>
