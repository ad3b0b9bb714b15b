/** One connection of a simulated network: carries its bytes with latency, bandwidth, cuts and losses. */
import * as Effect from "effect/Effect"
import type { Pair } from "../../Connection.ts"
import { withoutStackTrace } from "../../primitives/withoutStackTrace.ts"
import type { Link } from "./links.ts"
import type { Timer, Timers } from "./timers.ts"

/** The network as a line sees it. */
export interface LineOptions {
  readonly timers: Timers
  readonly link: Link
  /** The number of the host at each end. */
  readonly hosts: readonly [number, number]
  /** Whether packets arrive now. */
  readonly isOpen: () => boolean
  /** Milliseconds in which bytes that do not arrive are sent again; then the line breaks. */
  readonly retransmitTimeout: number
  readonly onBytes: (from: 0 | 1, bytes: Uint8Array) => void
  /** What happens to the line: an end by that side, or its break, once. */
  readonly onEnd: (from: 0 | 1) => void
  readonly onOver: (cause: Error | undefined) => void
}

interface Direction {
  /** Packets in transit, in order. Each timer delivers the first one, also if it was started for another. */
  readonly parcels: Array<{ readonly bytes: Uint8Array | undefined; readonly arrive: () => void }>
  /** The number of timers that fired while no packet arrived. */
  lost: number
  /** The time of the last arrival: nothing overtakes. */
  last: number
  hasEnded: boolean
}

const makeDirection = (): Direction => ({ parcels: [], lost: 0, last: 0, hasEnded: false })

/** The error of the operating system, as the cause of a reset. */
export const systemError = (code: string, text: string): Error =>
  withoutStackTrace(() => Object.assign(new Error(`${code}: ${text}`), { code }))

export class Line {
  readonly hosts: readonly [number, number]
  readonly #options: LineOptions
  readonly #directions = [makeDirection(), makeDirection()] as const
  #pair: Pair | undefined
  #lingering: Timer | undefined
  isOver = false

  constructor(options: LineOptions) {
    this.#options = options
    this.hosts = options.hosts
  }

  /** The ends that this line connects. */
  connect(pair: Pair): void {
    this.#pair = pair
  }

  get ends(): Pair {
    return this.#pair!
  }

  /** A timer that ends the connection, called off when it has ended. */
  linger(timer: Timer): void {
    if (this.#lingering !== undefined) this.#options.timers.cancel(this.#lingering)
    this.#lingering = timer
  }

  readonly carry = (from: 0 | 1, bytes: Uint8Array | undefined, arrive: () => void): void => {
    if (this.isOver) return
    const { link, timers } = this.#options
    const direction = this.#directions[from]
    direction.parcels.push({ bytes, arrive })
    const arrival = link.arrival(this.hosts[from]!, bytes?.length ?? 0, timers.now)
    direction.last = Math.max(direction.last, arrival)
    timers.add(direction.last, () => this.#deliver(from))
  }

  /** Sends again what was lost: packets arrive again. */
  readonly resume = (): void => {
    const { link, timers } = this.#options
    for (const from of [0, 1] as const) {
      const direction = this.#directions[from]
      if (direction.lost === 0) continue
      direction.last = Math.max(direction.last, link.arrival(this.hosts[from]!, 0, timers.now))
      for (; direction.lost > 0; direction.lost--) timers.add(direction.last, () => this.#deliver(from))
    }
  }

  /** Breaks both ends. */
  reset(cause: Error): void {
    if (this.isOver) return
    this.#over(cause)
    Effect.runSync(this.ends.reset(cause))
  }

  #deliver(from: 0 | 1): void {
    if (this.isOver) return
    const { isOpen, onBytes, onEnd, retransmitTimeout, timers } = this.#options
    const direction = this.#directions[from]
    if (!isOpen()) {
      if (direction.lost++ === 0) {
        const since = timers.now
        timers.after(retransmitTimeout, () => {
          if (direction.lost > 0 && timers.now - since >= retransmitTimeout && !isOpen())
            this.reset(systemError("ETIMEDOUT", "nothing that was sent arrived"))
        })
      }
      return
    }
    const parcel = direction.parcels.shift()
    if (parcel === undefined) return
    if (parcel.bytes !== undefined) onBytes(from, parcel.bytes)
    else {
      direction.hasEnded = true
      onEnd(from)
      if (this.#directions[0].hasEnded && this.#directions[1].hasEnded) this.#over(undefined)
    }
    parcel.arrive()
  }

  #over(cause: Error | undefined): void {
    this.isOver = true
    if (this.#lingering !== undefined) this.#options.timers.cancel(this.#lingering)
    this.#options.onOver(cause)
  }
}
