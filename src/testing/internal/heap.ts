/** A binary heap whose elements can be cancelled. */
import { heapify, pop, push } from "../../primitives/heap.ts"

/** An element. It is cancelled when `run` is undefined. */
export interface Entry<A> {
  readonly at: number
  readonly order: number
  run: A | undefined
}

const isBefore = (a: Entry<unknown>, b: Entry<unknown>): boolean => a.at < b.at || (a.at === b.at && a.order < b.order)

/** Below this size cancelled elements are not worth a sweep. */
const sweepFrom = 64

/** Elements by their times; those of equal times in the order in which they were added. */
export class Heap<A> {
  #entries: Array<Entry<A>> = []
  #order = 0
  #cancelled = 0

  /** The number of elements that are not cancelled. */
  get size(): number {
    return this.#entries.length - this.#cancelled
  }

  /** The number of elements that are in memory, cancelled ones included. */
  get held(): number {
    return this.#entries.length
  }

  /** The earliest element. */
  get first(): Entry<A> | undefined {
    while (this.#cancelled > 0 && this.#entries.length > 0 && this.#entries[0]!.run === undefined) {
      this.#cancelled--
      pop(this.#entries, isBefore)
    }
    return this.#entries[0]
  }

  add(at: number, run: A): Entry<A> {
    const entry: Entry<A> = { at, order: this.#order++, run }
    push(this.#entries, entry, isBefore)
    return entry
  }

  /** Removes the earliest element and returns what it has. */
  take(): A | undefined {
    const entry = this.first
    if (entry === undefined) return undefined
    pop(this.#entries, isBefore)
    const run = entry.run
    entry.run = undefined
    return run
  }

  /** Cancels an element; nothing happens if it was taken. The heap forgets it in time: it never holds more than twice its elements. */
  cancel(entry: Entry<A>): void {
    if (entry.run === undefined) return
    entry.run = undefined
    this.#cancelled++
    if (this.#entries.length < sweepFrom || this.#cancelled * 2 < this.#entries.length) return
    this.#entries = this.#entries.filter(({ run }) => run !== undefined)
    this.#cancelled = 0
    heapify(this.#entries, isBefore)
  }

  clear(): void {
    for (const entry of this.#entries) entry.run = undefined
    this.#entries = []
    this.#cancelled = 0
  }
}
