/** A token bucket: an average rate that allows bursts. */

/** How a bucket fills. */
export interface BucketOptions {
  /** Tokens that come back in a second. */
  readonly perSecond: number
  /** It is not refilled above this. `add` may go above it. */
  readonly capacity: number
  /** The tokens at the start. The default is `capacity`. */
  readonly start?: number | undefined
}

/** Times are milliseconds. A clock that runs backwards gives no tokens and takes none away. */
export class TokenBucket {
  readonly #options: BucketOptions
  #tokens: number
  #refilledAt: number

  constructor(options: BucketOptions, now: number) {
    this.#options = options
    this.#tokens = options.start ?? options.capacity
    this.#refilledAt = now
  }

  /** The tokens at this time, with fractions. */
  refill(now: number): number {
    const { capacity, perSecond } = this.#options
    if (this.#tokens < capacity) {
      const since = Math.max(0, now - this.#refilledAt)
      this.#tokens = Math.min(capacity, this.#tokens + (since / 1_000) * perSecond)
    }
    this.#refilledAt = now
    return this.#tokens
  }

  /** Takes one token, if there is one. It does not refill: a batch counts with the tokens of its beginning. */
  take(): boolean {
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }

  /** Adds tokens, even above the capacity. */
  add(tokens: number): void {
    this.#tokens += tokens
  }
}
