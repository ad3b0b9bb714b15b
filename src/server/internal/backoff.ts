/**
 * The added nodes of a server with their back-off: one record each. A `Schedule` could not be inspected, nor reset by a connection that
 * lived long enough.
 */
import type { Target } from "../Dialer.ts"
import { addressKey } from "./keys.ts"
import type { Random } from "./random.ts"

/** The longest wait, in milliseconds: no added node is ever given up. */
const longestWait = 5 * 60_000
const shortestWait = 1_000
/** A connection that lived this long resets the back-off; a shorter one counts as a failure. */
const goodLife = 2 * 60_000
/** After an outage the first tries spread over this time. */
const spread = 5_000

/** An added node. */
export interface Added {
  readonly target: Target
  /** Tries since the last connection that lived long enough. */
  attempts: number
  /** When the last try began and ended; 0 before the first one. */
  lastStart: number
  lastEnd: number
  /** The time of the next try; infinite while one runs or a peer is connected. */
  nextAt: number
  /** Why it is not dialled, if the dialer has no way to it. */
  unreachable: string | undefined
}

/** Equal for equal targets. Names are equal in any case. */
export const targetKey = (target: Target): string =>
  "host" in target ? `${target.host.toLowerCase()}:${target.port}` : addressKey(target)

export class AddedNodes {
  readonly #nodes = new Map<string, Added>()
  readonly #random: Random

  constructor(random: Random) {
    this.#random = random
  }

  get all(): ReadonlyArray<Added> {
    return [...this.#nodes.values()]
  }

  has(target: Target): boolean {
    return this.#nodes.has(targetKey(target))
  }

  get(target: Target): Added | undefined {
    return this.#nodes.get(targetKey(target))
  }

  /** False when it was added before. */
  add(target: Target, now: number): boolean {
    const key = targetKey(target)
    if (this.#nodes.has(key)) return false
    this.#nodes.set(key, { target, attempts: 0, lastStart: 0, lastEnd: 0, nextAt: now, unreachable: undefined })
    return true
  }

  remove(target: Target): boolean {
    return this.#nodes.delete(targetKey(target))
  }

  /** The node that has been due longest, if one is due. */
  due(now: number): Added | undefined {
    let first: Added | undefined
    for (const node of this.#nodes.values()) {
      if (node.unreachable === undefined && node.nextAt <= now && (first === undefined || node.nextAt < first.nextAt)) {
        first = node
      }
    }
    return first
  }

  /** The time of the next try of any node; infinite if there is no such time. */
  get nextAt(): number {
    let first = Number.POSITIVE_INFINITY
    for (const { nextAt, unreachable } of this.#nodes.values()) {
      if (unreachable === undefined && nextAt < first) first = nextAt
    }
    return first
  }

  started(node: Added, now: number): void {
    node.lastStart = now
    node.nextAt = Number.POSITIVE_INFINITY
  }

  /**
   * A try or a peer of the node has ended. `lived` is the time in milliseconds since its handshake, undefined if it did not
   * come to that. Where `retry` is false, another try soon is of no use, and the longest wait follows.
   */
  ended(node: Added, now: number, lived: number | undefined, retry: boolean): void {
    node.lastEnd = now
    if (lived !== undefined && lived >= goodLife) node.attempts = 0
    const wait = retry ? Math.min(longestWait, shortestWait * 2 ** node.attempts) : longestWait
    node.attempts++
    node.nextAt = now + wait / 2 + (this.#random.next() * wait) / 2
  }

  /** The try was interrupted on this side, which says nothing about the node. */
  withdrawn(node: Added, now: number): void {
    node.nextAt = now
  }

  markUnreachable(target: Target, why: string): void {
    const node = this.#nodes.get(targetKey(target))
    if (node !== undefined) node.unreachable = why
  }

  /** After an outage: the next tries of all nodes spread over five seconds, and unreachable ones are looked at again. */
  restart(now: number): void {
    for (const node of this.#nodes.values()) {
      node.unreachable = undefined
      node.attempts = 0
      if (Number.isFinite(node.nextAt)) node.nextAt = now + this.#random.next() * spread
    }
  }
}
