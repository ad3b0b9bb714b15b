/** A queue of values by their due times: a binary heap. Values of equal times keep their order. */
import { pop, push } from "../../primitives/heap.ts"

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
    push(this.heap, { at, order: this.added++, value }, isBefore)
  }

  /** Takes the first value that is due. */
  take(now: number): A | undefined {
    return this.firstAt > now ? undefined : pop(this.heap, isBefore)?.value
  }
}
