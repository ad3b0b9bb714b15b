/**
 * A set that forgets: it remembers the last `elements` keys, and up to half as many more, in a fixed number of bytes. It may also
 * take a key for one of them that was never added. The sizes and the generations are those of Bitcoin Core's `CRollingBloomFilter`.
 *
 * The places of a key come from one SipHash under a secret of 128 bits and from double hashing. Core computes MurmurHash3 for each
 * place: that is slower, and its collisions do not depend on the seed, so that they can be prepared.
 */
import { type SipKey, sipHash } from "../../primitives/siphash.ts"
import type { Random } from "./random.ts"

const bound = 0x1_0000_0000

const newKey = (random: Random): SipKey => {
  const word = () => random.below(bound) | 0
  return [word(), word(), word(), word()]
}

export class RollingFilter {
  readonly #random: Random
  readonly #hashes: number
  readonly #perGeneration: number
  /** Two bits for each place, the low and the high bit of the generation that set it; 0 is an empty place. */
  readonly #low: Uint32Array
  readonly #high: Uint32Array
  readonly #out = new Uint32Array(2)
  #key: SipKey
  #generation = 1
  #inGeneration = 0

  /** `falsePositives` is the highest rate at which keys that were not added are found, such as 0.001. */
  constructor(elements: number, falsePositives: number, random: Random) {
    const logRate = Math.log(falsePositives)
    this.#hashes = Math.max(1, Math.min(Math.round(logRate / Math.log(0.5)), 50))
    this.#perGeneration = Math.ceil(elements / 2)
    const bits = Math.ceil((-this.#hashes * this.#perGeneration * 3) / Math.log(1 - Math.exp(logRate / this.#hashes)))
    const words = Math.ceil(bits / 64) * 2
    this.#low = new Uint32Array(words)
    this.#high = new Uint32Array(words)
    this.#random = random
    this.#key = newKey(random)
  }

  get byteLength(): number {
    return this.#low.byteLength + this.#high.byteLength
  }

  add(key: Uint8Array): void {
    if (this.#inGeneration === this.#perGeneration) this.#nextGeneration()
    this.#inGeneration++
    const lowBit = this.#generation & 1
    const highBit = this.#generation >>> 1
    this.#hash(key)
    for (let n = 0; n < this.#hashes; n++) {
      const place = this.#place(n)
      const bit = place & 31
      const at = place >>> 5
      this.#low[at] = (this.#low[at]! & ~(1 << bit)) | (lowBit << bit)
      this.#high[at] = (this.#high[at]! & ~(1 << bit)) | (highBit << bit)
    }
  }

  has(key: Uint8Array): boolean {
    this.#hash(key)
    for (let n = 0; n < this.#hashes; n++) {
      const place = this.#place(n)
      if ((((this.#low[place >>> 5]! | this.#high[place >>> 5]!) >>> (place & 31)) & 1) === 0) return false
    }
    return true
  }

  /** Forgets everything, under a new key: what was found by mistake before will not be found again. */
  reset(): void {
    this.#low.fill(0)
    this.#high.fill(0)
    this.#generation = 1
    this.#inGeneration = 0
    this.#key = newKey(this.#random)
  }

  #hash(key: Uint8Array): void {
    sipHash(this.#key, key, this.#out)
  }

  /** The cubic term keeps two keys apart whose first places differ by their steps ("enhanced double hashing"). */
  #place(n: number): number {
    const hash = (this.#out[0]! + Math.imul(n, this.#out[1]!) + (n * n * n - n) / 6) >>> 0
    return Math.floor((hash / bound) * this.#low.length * 32)
  }

  /** Generations have the numbers 1, 2 and 3. The places of the one whose number comes up again are emptied. */
  #nextGeneration(): void {
    this.#inGeneration = 0
    this.#generation = this.#generation === 3 ? 1 : this.#generation + 1
    const low = -(this.#generation & 1)
    const high = -(this.#generation >>> 1)
    for (let i = 0; i < this.#low.length; i++) {
      const keep = (this.#low[i]! ^ low) | (this.#high[i]! ^ high)
      this.#low[i] = this.#low[i]! & keep
      this.#high[i] = this.#high[i]! & keep
    }
  }
}
