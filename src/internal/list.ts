/**
 * A list that is read, never changed: every array is one, and so are the lists of decoded messages, which are views
 * over the payload and make an element when it is asked for. Use `for … of`, `at`, or `Array.from(list)`.
 */
export interface List<out A> extends Iterable<A> {
  readonly length: number
  at(index: number): A | undefined
}
