/** How far the clocks of outbound peers are from ours. Nobody adjusts a clock by them: they only warn the operator. */

/** The peers whose offsets are kept, and how many of them make a median worth a word. */
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

  /** What is wrong with our clock, if it seems to be wrong. */
  get warning(): string | undefined {
    const { median } = this
    return Math.abs(median) <= tolerance
      ? undefined
      : `the clock of this machine is ${Math.abs(median)} s ${median > 0 ? "behind" : "ahead of"} those of most peers`
  }
}
