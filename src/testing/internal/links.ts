/** The link between two hosts: a latency and a bandwidth for each direction. */

/** The numbers of a link, drawn already. */
export interface LinkNumbers {
  /** Milliseconds in one direction. */
  readonly latency: number
  /** Bytes in a second, in each direction. */
  readonly bandwidth: number
  /** The mean life of a connection in milliseconds, until it is lost. */
  readonly lifetime: number
}

/** All connections between two hosts share it. */
export class Link {
  readonly numbers: LinkNumbers
  /** The number of the host and the time until which its direction transmits. */
  readonly #busy = new Map<number, number>()

  constructor(numbers: LinkNumbers) {
    this.numbers = numbers
  }

  /** When bytes that this host sends now have arrived, in whole milliseconds. */
  arrival(from: number, size: number, now: number): number {
    const { bandwidth, latency } = this.numbers
    if (bandwidth === Number.POSITIVE_INFINITY) return Math.ceil(now + latency)
    const sent = Math.max(now, this.#busy.get(from) ?? 0) + (size / bandwidth) * 1_000
    this.#busy.set(from, sent)
    return Math.ceil(sent + latency)
  }
}
