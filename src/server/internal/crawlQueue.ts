/** A queue of values by their due times: a binary heap. Values of equal times keep their order. */

interface Slot<A> {
  readonly at: number
  readonly order: number
  readonly value: A
}

const isBefore = (one: Slot<unknown>, other: Slot<unknown>): boolean =>
  one.at < other.at || (one.at === other.at && one.order < other.order)

/** Adding and taking cost the logarithm of the size. */
export class DueQueue<A> {
  private readonly heap: Array<Slot<A>> = []
  private added = 0

  get size(): number {
    return this.heap.length
  }

  /** The first time; infinite if the queue is empty. */
  get firstAt(): number {
    return this.heap[0]?.at ?? Infinity
  }

  add(at: number, value: A): void {
    const { heap } = this
    const slot = { at, order: this.added++, value }
    let index = heap.length
    while (index > 0) {
      const parent = (index - 1) >> 1
      if (!isBefore(slot, heap[parent]!)) break
      heap[index] = heap[parent]!
      index = parent
    }
    heap[index] = slot
  }

  /** Takes the first value that is due. */
  take(now: number): A | undefined {
    const { heap } = this
    const first = heap[0]
    if (first === undefined || first.at > now) return undefined
    const last = heap.pop()!
    if (heap.length > 0) {
      let index = 0
      while (true) {
        let child = 2 * index + 1
        if (child >= heap.length) break
        if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
        if (!isBefore(heap[child]!, last)) break
        heap[index] = heap[child]!
        index = child
      }
      heap[index] = last
    }
    return first.value
  }
}
