/** A binary heap: the least element first. */

/** Elements in the order of `compare`, which must never be 0 for two of them. */
export class Heap<A> {
  readonly #compare: (a: A, b: A) => number
  #items: Array<A> = []

  constructor(compare: (a: A, b: A) => number) {
    this.#compare = compare
  }

  get size(): number {
    return this.#items.length
  }

  get first(): A | undefined {
    return this.#items[0]
  }

  push(item: A): void {
    const items = this.#items
    let at = items.length
    items.push(item)
    while (at > 0) {
      const parent = (at - 1) >>> 1
      if (this.#compare(items[parent]!, item) <= 0) break
      items[at] = items[parent]!
      at = parent
    }
    items[at] = item
  }

  /** Removes the first element. */
  shift(): A | undefined {
    const items = this.#items
    const first = items[0]
    const last = items.pop()
    if (last === undefined || items.length === 0) return first
    let at = 0
    while (true) {
      let child = 2 * at + 1
      if (child >= items.length) break
      if (child + 1 < items.length && this.#compare(items[child + 1]!, items[child]!) < 0) child++
      if (this.#compare(last, items[child]!) <= 0) break
      items[at] = items[child]!
      at = child
    }
    items[at] = last
    return first
  }

  clear(): void {
    this.#items = []
  }
}
