/** The rate of dials of a server: a token bucket with one token for each dial. */
import { TokenBucket } from "./tokenBucket.ts"

export class DialRate {
  readonly #perSecond: number
  readonly #bucket: TokenBucket

  constructor(perSecond: number, burst: number) {
    this.#perSecond = perSecond
    this.#bucket = new TokenBucket({ perSecond, capacity: burst }, 0)
  }

  /** The time from which on a dial is allowed: `now` or later. */
  allowedAt(now: number): number {
    const tokens = this.#bucket.refill(now)
    return tokens >= 1 ? now : now + Math.ceil(((1 - tokens) / this.#perSecond) * 1_000)
  }

  /** Counts a dial, which must be allowed at this time. */
  take(now: number): void {
    this.#bucket.refill(now)
    this.#bucket.take()
  }
}
