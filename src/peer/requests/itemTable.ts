/**
 * A hash table of the items that are requested, by type and hash. A `Map` of strings cost a string for each look-up.
 *
 * Others choose the hashes: a remote announces any that it likes. So the bucket of a hash depends on secret random multipliers: two
 * different hashes share one of the most buckets, 2^17, with a probability of 2^-17, whatever they are (multilinear hashing, Lemire and
 * Kaser, "Strongly universal string hashing is fast").
 */

/** Something in the table. */
export interface Entry {
  readonly kind: number | string
  /** 32 bytes. */
  readonly hash: Uint8Array
  /** The next one in the same bucket. */
  chained: Entry | undefined
}

const leastBuckets = 1 << 5
const mostBuckets = 1 << 17

const emptyBuckets = (count: number): Array<undefined> => Array.from({ length: count })

/** One for each 16 bits of a hash. Made when first needed: some runtimes have no randomness while modules are loaded. */
let multipliers: Int32Array | undefined

export class ItemTable<A extends Entry> {
  size = 0
  #buckets: Array<A | undefined> = emptyBuckets(leastBuckets)
  readonly #multipliers = (multipliers ??= crypto.getRandomValues(new Int32Array(16)))

  get(kind: number | string, hash: Uint8Array): A | undefined {
    let entry = this.#buckets[this.#bucketOf(hash)]
    while (entry !== undefined && !(entry.kind === kind && isSame(entry.hash, hash))) entry = entry.chained as A
    return entry
  }

  /** Adds an entry that is not in the table. */
  add(entry: A): void {
    if (++this.size > this.#buckets.length && this.#buckets.length < mostBuckets) this.#grow()
    this.#enchain(entry)
  }

  /** Removes an entry that is in the table. */
  remove(entry: A): void {
    this.size--
    const bucket = this.#bucketOf(entry.hash)
    let before = this.#buckets[bucket]!
    if (before === entry) this.#buckets[bucket] = entry.chained as A | undefined
    else {
      while (before.chained !== entry) before = before.chained as A
      before.chained = entry.chained
    }
    entry.chained = undefined
    // A caller that asked for 50,000 once must not cost a megabyte for ever.
    if (this.size === 0 && this.#buckets.length > leastBuckets) this.#buckets = emptyBuckets(leastBuckets)
  }

  /** All entries, in no order. An entry may be removed while its turn lasts. */
  *[Symbol.iterator](): IterableIterator<A> {
    for (const first of this.#buckets) {
      for (let entry = first; entry !== undefined;) {
        const next = entry.chained as A | undefined
        yield entry
        entry = next
      }
    }
  }

  #bucketOf(hash: Uint8Array): number {
    const multipliers = this.#multipliers
    let sum = 0
    for (let i = 0; i < 16; i++) sum = (sum + Math.imul(multipliers[i]!, hash[2 * i]! | (hash[2 * i + 1]! << 8))) | 0
    // Only the upper 17 bits are as random as that.
    return (sum >>> 15) & (this.#buckets.length - 1)
  }

  #enchain(entry: A): void {
    const bucket = this.#bucketOf(entry.hash)
    entry.chained = this.#buckets[bucket]
    this.#buckets[bucket] = entry
  }

  #grow(): void {
    const entries = [...this]
    this.#buckets = emptyBuckets(this.#buckets.length * 4)
    for (const entry of entries) this.#enchain(entry)
  }
}

const isSame = (one: Uint8Array, other: Uint8Array): boolean => {
  for (let i = 0; i < 32; i++) if (one[i] !== other[i]) return false
  return true
}
