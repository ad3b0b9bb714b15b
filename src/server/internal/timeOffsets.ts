/** The differences of the clocks of outbound peers from ours. They only serve to warn the operator: no clock is adjusted. */

/** The number of offsets that are kept, the least for a median, and the largest median without a warning, in seconds. */
const kept = 50
const least = 5
const tolerance = 10 * 60

export class TimeOffsets {
  /** In seconds, the oldest first. */
  readonly #offsets: Array<number> = []

  /** Takes the offset of an outbound peer, its clock minus ours, in seconds. */
  add(offset: number): void {
    this.#offsets.push(offset)
    if (this.#offsets.length > kept) this.#offsets.shift()
  }

  /** In seconds; 0 with fewer than five peers. */
  get median(): number {
    if (this.#offsets.length < least) return 0
    const sorted = this.#offsets.toSorted((a, b) => a - b)
    return sorted[sorted.length >> 1]!
  }

  /** The warning, if our clock seems to be wrong. */
  get warning(): string | undefined {
    const { median } = this
    return Math.abs(median) <= tolerance
      ? undefined
      : `the clock of this machine is ${Math.abs(median)} s ${median > 0 ? "behind" : "ahead of"} those of most peers`
  }
}
