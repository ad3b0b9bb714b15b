/** The rate of dials of a server: a bucket of tokens, one for each dial. */
export class DialRate {
  readonly #perSecond: number
  readonly #burst: number
  #tokens: number
  #filledAt = 0

  constructor(perSecond: number, burst: number) {
    this.#perSecond = perSecond
    this.#burst = burst
    this.#tokens = burst
  }

  #fill(now: number): void {
    this.#tokens = Math.min(this.#burst, this.#tokens + ((now - this.#filledAt) / 1_000) * this.#perSecond)
    this.#filledAt = now
  }

  /** The time from which on a dial is allowed: `now` or later. */
  allowedAt(now: number): number {
    this.#fill(now)
    return this.#tokens >= 1 ? now : now + Math.ceil(((1 - this.#tokens) / this.#perSecond) * 1_000)
  }

  take(now: number): void {
    this.#fill(now)
    this.#tokens--
  }
}
