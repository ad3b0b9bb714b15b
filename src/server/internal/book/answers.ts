/**
 * The cached answers to getaddr. All peers of one network at one of our addresses get the same answer for a day, so that many requests
 * reveal no more of the book than one (Bitcoin Core). The times in each answer are randomised, so that equal times do not link two answers,
 * and with them two addresses of this node.
 */
import type { AddressV2 } from "../../../Wire.ts"
import type { NetworkName } from "../networkNames.ts"
import type { Random } from "../random.ts"

const hour = 3_600
const day = 24 * hour

/** In milliseconds. */
const shortestLife = 21 * hour * 1_000
const longerLife = 6 * hour * 1_000

/** In seconds: how much older an address may seem, and the age above which others drop it soon. */
const blur = 2 * day
const oldest = 29 * day

/** The most answers in the cache; a further one replaces the one that expires first. Each has at most 1,000 addresses. */
const mostAnswers = 100

/** The network of a peer, and our address that it is connected to. */
export interface Requester {
  readonly network: NetworkName
  /** Our address and port of the connection, as text. */
  readonly bind: string
}

interface Answer {
  readonly until: number
  readonly addresses: ReadonlyArray<AddressV2>
}

/** A time for others: older by up to two days, never younger, a whole hour; not past 29 days unless it was. */
export const blurred = (time: number, now: number, random: Random): number => {
  const drawn = time - Math.floor(random.next() * blur)
  const seen = Math.max(drawn, Math.min(time, now - oldest))
  return Math.max(0, Math.floor(seen / hour) * hour)
}

export class Answers {
  readonly #random: Random
  readonly #answers = new Map<string, Answer>()

  constructor(random: Random) {
    this.#random = random
  }

  /** The answer that is kept, or a new one with the addresses that `draw` gives. `now` is in milliseconds. */
  answer({ bind, network }: Requester, now: number, draw: () => ReadonlyArray<AddressV2>): ReadonlyArray<AddressV2> {
    const key = `${network} ${bind}`
    const kept = this.#answers.get(key)
    if (kept !== undefined && now < kept.until) return kept.addresses
    for (const [key, { until }] of this.#answers) if (until <= now) this.#answers.delete(key)
    if (this.#answers.size >= mostAnswers) this.#forgetOne()
    const seconds = Math.floor(now / 1_000)
    const addresses = draw().map(({ address, networkId, port, services, timestamp }): AddressV2 => ({
      timestamp: blurred(timestamp, seconds, this.#random),
      services,
      networkId,
      address,
      port
    }))
    this.#answers.set(key, { until: now + shortestLife + this.#random.next() * longerLife, addresses })
    return addresses
  }

  #forgetOne(): void {
    const [first] = [...this.#answers].toSorted(([, one], [, other]) => one.until - other.until)
    if (first !== undefined) this.#answers.delete(first[0])
  }
}
