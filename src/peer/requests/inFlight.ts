/**
 * What is expected of a peer and who waits for it: the book-keeping of `requests.ts`, which knows the messages. Every
 * operation is O(1) in the number of expectations, so that 50,000 of them do not make a message dear.
 */

/** One answer that is expected, however many wait for it. */
export interface Expectation<A> {
  readonly book: Book<A>
  readonly key: string
  /** Empty for what was sent by hand, and when all who asked have left. */
  readonly waiting: Array<(answer: A) => void>
  /**
   * "Asked": somebody has undertaken to send the question, it is not written yet. "Written": on its way, who asks now
   * need not send it. "Abandoned": written, and all who asked have left; most likely they waited in vain, so the next who
   * asks sends it once more. "Closed": answered or forgotten.
   */
  phase: "Asked" | "Written" | "Abandoned" | "Closed"
  /** Grows from one written question to the next; 0 until it was written. */
  order: number
  /** When it was written, the first time. */
  writtenAt: number
  /** From when on the remote's time counts. */
  since: number
  isInLine: boolean
  earlier: Expectation<A> | undefined
  later: Expectation<A> | undefined
}

/**
 * Questions that were written, the oldest first. A remote answers in the order it was asked: until it has answered what
 * was asked before, the time of a question does not count. So whoever asks for 1,000 blocks at once takes nobody for
 * stalled who sends one after the other, and a hash that is passed over is noticed though others arrive. Only the
 * oldest need be looked at.
 */
export interface Line<A> {
  /** When it is longer, the oldest loses its deadline, and is forgotten if nobody waits for it. */
  readonly limit: number
  oldest: Expectation<A> | undefined
  newest: Expectation<A> | undefined
  length: number
  written: number
}

/** Expectations of one kind. */
export interface Book<A> {
  readonly line: Line<A>
  /** Whether silence is a stall. If it can be an answer, a question that nobody waits for is of no interest. */
  readonly hasDeadline: boolean
  readonly all: Map<string, Expectation<A>>
}

export const makeLine = <A>(limit: number): Line<A> => ({
  limit,
  oldest: undefined,
  newest: undefined,
  length: 0,
  written: 0
})

export const makeBook = <A>(line: Line<A>, hasDeadline: boolean): Book<A> => ({ line, hasDeadline, all: new Map() })

const unlink = <A>(expectation: Expectation<A>): void => {
  const { earlier, later } = expectation
  const { line } = expectation.book
  if (earlier === undefined) line.oldest = later
  else earlier.later = later
  if (later === undefined) line.newest = earlier
  else later.earlier = earlier
  expectation.earlier = undefined
  expectation.later = undefined
  expectation.isInLine = false
  line.length--
}

const link = <A>(expectation: Expectation<A>): void => {
  const { line } = expectation.book
  expectation.earlier = line.newest
  if (line.newest === undefined) line.oldest = expectation
  else line.newest.later = expectation
  line.newest = expectation
  expectation.isInLine = true
  line.length++
}

const remove = <A>(expectation: Expectation<A>): void => {
  if (expectation.isInLine) unlink(expectation)
  expectation.book.all.delete(expectation.key)
  expectation.phase = "Closed"
}

const add = <A>(book: Book<A>, key: string, phase: "Asked" | "Written"): Expectation<A> => {
  const expectation: Expectation<A> = {
    book,
    key,
    waiting: [],
    phase,
    order: 0,
    writtenAt: 0,
    since: 0,
    isInLine: false,
    earlier: undefined,
    later: undefined
  }
  book.all.set(key, expectation)
  return expectation
}

/** Whether the one who joined an expectation has to send the question. */
export interface Joined<A> {
  readonly expectation: Expectation<A>
  readonly toSend: boolean
}

/** Waits with whoever waits for the same. */
export const join = <A>(book: Book<A>, key: string, tell: (answer: A) => void): Joined<A> => {
  const known = book.all.get(key)
  const toSend = known === undefined || known.phase === "Abandoned"
  const expectation = known ?? add(book, key, "Asked")
  if (toSend) expectation.phase = "Asked"
  expectation.waiting.push(tell)
  return { expectation, toSend }
}

/** Waits no longer. */
export const leave = <A>(expectation: Expectation<A>, tell: (answer: A) => void): void => {
  const at = expectation.waiting.indexOf(tell)
  if (at < 0) return
  expectation.waiting.splice(at, 1)
  if (expectation.waiting.length > 0 || expectation.phase === "Closed") return
  if (expectation.isInLine && expectation.book.hasDeadline) expectation.phase = "Abandoned"
  else remove(expectation)
}

/** Whether somebody waits for a question that is still to be written. */
export const isUnsent = <A>(expectation: Expectation<A>): boolean => expectation.phase === "Asked"

/** The question was written, asked for or not. */
export const written = <A>(book: Book<A>, key: string, now: number): void => {
  let expectation = book.all.get(key)
  if (expectation === undefined) {
    if (!book.hasDeadline) return
    expectation = add(book, key, "Written")
  }
  expectation.phase = "Written"
  // Written twice, the first time counts: that one is to be answered as well.
  if (expectation.isInLine) return
  const { line } = book
  expectation.order = ++line.written
  expectation.since = expectation.writtenAt = now
  link(expectation)
  const { oldest } = line
  if (line.length <= line.limit || oldest === undefined) return
  if (oldest.waiting.length === 0) remove(oldest)
  else unlink(oldest)
}

/** The answer is there, or has begun: the expectation is no more, and those who wait are still to be told. */
export const close = <A>(expectation: Expectation<A>, now: number): void => {
  const { later } = expectation
  if (later !== undefined && later.since < now) later.since = now
  remove(expectation)
}

/** An answer came to what was asked at that time, elsewhere: what was written later had to wait for it. */
export const postpone = <A>({ oldest }: Line<A>, askedAt: number, now: number): void => {
  if (oldest !== undefined && oldest.writtenAt >= askedAt && oldest.since < now) oldest.since = now
}

/** Tells everyone who waits. */
export const tell = <A>(expectation: Expectation<A>, value: A): void => {
  // One who is told may make another leave, who must then not be told.
  for (let tell = expectation.waiting.shift(); tell !== undefined; tell = expectation.waiting.shift()) tell(value)
}

/** The answer is there: closes the expectation, then tells everyone who waits. */
export const answer = <A>(expectation: Expectation<A>, value: A, now: number): void => {
  close(expectation, now)
  tell(expectation, value)
}

/** A question that is asked once for all who have it. */
export interface Question {
  /** Whether it has to be sent; else it is on its way for another. */
  readonly toSend: boolean
  /** Waits no longer, `answered` is not called any more. True when others wait for what was not written yet. */
  readonly cancel: () => boolean
}

/** A question to which silence can be the answer. */
export interface OpenQuestion extends Question {
  /**
   * Nothing comes any more, for instance because the pong of a ping behind the question is here: everyone who waits for
   * it gets an empty answer. Before the question was written this does nothing.
   */
  readonly nothingMore: (now: number) => void
}

export interface Asked<A> extends Question {
  readonly expectation: Expectation<A>
}

/** Asks what one answer is for. */
export const ask = <A>(book: Book<A>, key: string, answered: (answer: A) => void): Asked<A> => {
  const tell = (answer: A): void => answered(answer)
  const { expectation, toSend } = join(book, key, tell)
  return {
    expectation,
    toSend,
    cancel: () => {
      leave(expectation, tell)
      return toSend && isUnsent(expectation)
    }
  }
}

export const withNothingMore = <A>({ cancel, expectation, toSend }: Asked<A>, nothing: () => A): OpenQuestion => ({
  toSend,
  cancel,
  nothingMore: (now) => {
    if (expectation.isInLine) answer(expectation, nothing(), now)
  }
})

/** Forgets all, and tells nobody. */
export const clear = <A>(book: Book<A>): void => {
  for (const expectation of book.all.values()) remove(expectation)
}
