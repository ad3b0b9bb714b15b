/**
 * Random numbers for decisions that a remote must not predict. A generator is passed in to every machine of the server: tests make it
 * from a fixed key and get the same run each time.
 */
import { type SipKey, sipHash, sipKey } from "../../primitives/siphash.ts"

/**
 * Uniform random numbers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Random {
  /** At least 0 and below 1, with 32 random bits. */
  readonly next: () => number
  /** An integer from 0 to `bound` - 1, for a bound of at most 2^32. */
  readonly below: (bound: number) => number
}

/**
 * SipHash of a counter, under a secret key of 16 bytes: make the key with `SecureRandom` once. Effect's `Random` is not meant for
 * secrets, and a call of the system for each number takes 7 µs.
 */
export const makeRandom = (key: Uint8Array): Random => {
  const secret: SipKey = sipKey(key)
  const counter = new Uint8Array(8)
  const out = new Uint32Array(2)
  let used = 2
  const word = (): number => {
    if (used === 2) {
      for (let i = 0; i < 8 && (counter[i] = (counter[i]! + 1) & 0xff) === 0; i++);
      sipHash(secret, counter, out)
      used = 0
    }
    return out[used++]!
  }
  const next = (): number => word() / 0x1_0000_0000
  return { next, below: (bound) => Math.floor(next() * bound) }
}

/** Random bytes. */
export const bytesOf = (random: Random, size: number): Uint8Array =>
  Uint8Array.from({ length: size }, () => random.below(256))

/** Milliseconds of an exponential distribution with this mean, as Bitcoin Core draws the times of its timers. */
export const exponential = (random: Random, mean: number): number => -Math.log1p(-random.next()) * mean

/** Moves the elements of an array into a random order. */
export const shuffle = <A>(random: Random, array: Array<A>): Array<A> => {
  for (let i = array.length - 1; i > 0; i--) {
    const j = random.below(i + 1)
    const kept = array[i]!
    array[i] = array[j]!
    array[j] = kept
  }
  return array
}
