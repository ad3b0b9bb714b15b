/** A binary heap in an array: the element that is before all others comes first. */

/** Whether `a` comes before `b`: a strict order. */
export type IsBefore<A> = (a: A, b: A) => boolean

const siftUp = <A>(heap: Array<A>, from: number, isBefore: IsBefore<A>): void => {
  const item = heap[from]!
  let at = from
  while (at > 0) {
    const parent = (at - 1) >>> 1
    if (!isBefore(item, heap[parent]!)) break
    heap[at] = heap[parent]!
    at = parent
  }
  heap[at] = item
}

const siftDown = <A>(heap: Array<A>, from: number, isBefore: IsBefore<A>): void => {
  const item = heap[from]!
  let at = from
  while (true) {
    let child = 2 * at + 1
    if (child >= heap.length) break
    if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++
    if (!isBefore(heap[child]!, item)) break
    heap[at] = heap[child]!
    at = child
  }
  heap[at] = item
}

export const push = <A>(heap: Array<A>, item: A, isBefore: IsBefore<A>): void => {
  siftUp(heap, heap.push(item) - 1, isBefore)
}

/** Removes the first element and returns it. */
export const pop = <A>(heap: Array<A>, isBefore: IsBefore<A>): A | undefined => {
  const first = heap[0]
  const last = heap.pop()
  if (heap.length > 0) {
    heap[0] = last!
    siftDown(heap, 0, isBefore)
  }
  return first
}

/** Makes a heap of an array in any order. */
export const heapify = <A>(items: Array<A>, isBefore: IsBefore<A>): void => {
  for (let at = (items.length >>> 1) - 1; at >= 0; at--) siftDown(items, at, isBefore)
}
