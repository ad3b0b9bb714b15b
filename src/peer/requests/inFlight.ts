/**
 * The requests that a peer has not answered yet, with the callers that wait for each, and since when. It knows no messages; `answers.ts`
 * says which message answers which request. What happens for each item of a `getdata` takes the same time with 50,000 in flight as
 * with one; `written` looks at every request of its kind, of which there are few.
 *
 * Requests with a deadline stand in a line, in the order in which they were written, because a remote answers in that order:
 * the time of a request begins when the one before it was answered. A remote that sends 1,000 requested blocks one after the
 * other does not stall, however slow it is, and a request that it passes over is noticed although later answers arrive. Only the
 * first request in line has to be looked at.
 */
import type * as Wire from "../../Wire.ts"
import { type Entry, ItemTable } from "./itemTable.ts"

/** What a request asks for: an item of a `getdata` by its inventory type, anything else by the command of its message. */
export type Kind = number | "getblocktxn" | "getheaders" | "getblocks" | "getaddr"

/** The result of a request. */
export type Outcome =
  | {
      readonly _tag: "Found"
      readonly message: Wire.Message
      /** Of a filtered block: its transactions that came after it. */
      readonly transactions?: ReadonlyArray<Wire.Transaction> | undefined
    }
  /** The remote says that it does not have the item, or answered a later ping without sending it. */
  | { readonly _tag: "NotFound" }
  /** The remote answered a later ping, but not this request. */
  | { readonly _tag: "NoAnswer" }
  /** The same, and the headers that came do not connect to the locator. */
  | { readonly _tag: "DoesNotConnect" }

/** One requested item or message, shared by all callers that want it. */
export interface Request extends Entry {
  readonly kind: Kind
  /** Of an item. */
  readonly hash: Uint8Array
  /** Of a message: tells it from the others of its kind. */
  readonly key: string
  /** Milliseconds that the remote has; `Infinity` where silence is an answer. */
  readonly timeout: number
  /** The callers that wait, in a chain; no caller waits for what a program sent with `send`, or when all have left. */
  first: Subscription | undefined
  last: Subscription | undefined
  /** Grows from one written request to the next; 0 until it is written. */
  order: number
  /** How often it was written: each time is answered. */
  timesWritten: number
  /** When the time of the remote begins to count. */
  since: number
  /** Whether it still waits for its answer. */
  isOpen: boolean
  /** A message that may be the answer, used if no better one comes. It keeps the bytes of its payload alive. */
  candidate: Wire.Message | undefined
  isInLine: boolean
  earlier: Request | undefined
  later: Request | undefined
}

/** Takes the outcome of one of the requests of a caller, which gave each an index. */
export type Receive = (index: number, outcome: Outcome) => void

/** A caller that waits for a request. */
export interface Subscription {
  readonly request: Request
  /** Whether the caller has to send the request; otherwise it was sent, or another caller does. */
  readonly isNew: boolean
  readonly receive: Receive
  readonly index: number
  /** The caller that came next. */
  next: Subscription | undefined
}

/** The hash of an item, or what tells a message from the others of its kind. */
type Key = Uint8Array | string

/** The most requests of one kind that are tracked without a caller that waits: two full `getdata` messages. */
export const maxUnwatchedItems = 100_000
/** The same for other messages. A `getheaders` holds a locator of up to 3 KB. */
export const maxUnwatchedMessages = 100

/** Of a message. */
const noHash = new Uint8Array(0)

export class InFlight {
  /** The first request in line. */
  oldest: Request | undefined
  /** The order of the request that was written last. */
  lastOrder = 0
  /** How many requests are open. */
  size = 0
  #newest: Request | undefined
  readonly #timeoutOf: (kind: Kind) => number
  readonly #items = new ItemTable<Request>()
  /** The messages, by kind and key. A table is made when the first request of its kind is. */
  readonly #messages = new Map<Kind, Map<string, Request>>()
  /** How many requests of each kind are open. */
  readonly #counts = new Map<Kind, number>()

  constructor(timeoutOf: (kind: Kind) => number) {
    this.#timeoutOf = timeoutOf
  }

  /** Whether a request of that kind is open. */
  has(kind: Kind): boolean {
    return this.#count(kind) > 0
  }

  get(kind: Kind, key: Key): Request | undefined {
    return typeof key === "string" ? this.#messages.get(kind)?.get(key) : this.#items.get(kind, key)
  }

  /** The written messages of a kind, the oldest first. */
  written(kind: Kind): ReadonlyArray<Request> {
    const table = this.#messages.get(kind)
    if (table === undefined || table.size === 0) return []
    return Array.from(table.values())
      .filter(({ order }) => order > 0)
      .toSorted((one, other) => one.order - other.order)
  }

  /** Waits for an answer. */
  subscribe(kind: Kind, key: Key, receive: Receive, index = 0): Subscription {
    const open = this.get(kind, key)
    const request = open ?? this.#add(kind, key)
    const subscription: Subscription = { request, isNew: open === undefined, receive, index, next: undefined }
    if (request.last === undefined) request.first = subscription
    else request.last.next = subscription
    request.last = subscription
    return subscription
  }

  /**
   * Waits no longer. A request that was written stays open where it has a deadline: it is still to be answered, and the answer
   * must not be taken for that of another request.
   */
  unsubscribe(subscription: Subscription): void {
    const { next, request } = subscription
    let before: Subscription | undefined
    let other = request.first
    while (other !== undefined && other !== subscription) {
      before = other
      other = other.next
    }
    if (other === undefined) return
    if (before === undefined) request.first = next
    else before.next = next
    if (next === undefined) request.last = before
    if (request.first === undefined && request.isOpen && !request.isInLine) this.#remove(request)
  }

  /** The request was written, by the peer or by a caller. */
  markWritten(kind: Kind, key: Key, now: number): void {
    let request = this.get(kind, key)
    if (request === undefined) {
      const limit = typeof kind === "number" ? maxUnwatchedItems : maxUnwatchedMessages
      // Nobody waits for it, so it matters only for its deadline.
      if (this.#timeoutOf(kind) === Infinity || this.#count(kind) >= limit) return
      request = this.#add(kind, key)
    }
    request.timesWritten++
    // Of several times, the first one counts.
    if (request.order > 0) return
    request.order = ++this.lastOrder
    request.since = now
    if (request.timeout === Infinity) return
    request.earlier = this.#newest
    if (this.#newest === undefined) this.oldest = request
    else this.#newest.later = request
    this.#newest = request
    request.isInLine = true
  }

  /** The answer arrived: closes the request and answers every caller that waits. */
  answer(request: Request, outcome: Outcome, now: number): void {
    this.close(request, now)
    this.tell(request, outcome)
  }

  /** The answer, or its first part, arrived: the request is no longer open, and its callers are still to be answered. */
  close(request: Request, now: number): void {
    const { later } = request
    if (later !== undefined && later.since < now) later.since = now
    this.#remove(request)
  }

  tell(request: Request, outcome: Outcome): void {
    // A caller may make another one leave, which must not be told then. So they are taken out one at a time.
    for (let next = request.first; next !== undefined; next = request.first) {
      request.first = next.next
      if (request.first === undefined) request.last = undefined
      next.receive(next.index, outcome)
    }
  }

  /** The remote is at work on something else: the time of the first request in line begins now if it was written after `order`. */
  progress(order: number, now: number): void {
    if (this.oldest !== undefined && this.oldest.order > order && this.oldest.since < now) this.oldest.since = now
  }

  /** Closes all requests without answering them. */
  clear(): void {
    for (const request of this.#items) this.#remove(request)
    for (const table of this.#messages.values()) for (const request of table.values()) this.#remove(request)
  }

  #count(kind: Kind): number {
    return this.#counts.get(kind) ?? 0
  }

  #add(kind: Kind, key: Key): Request {
    const request: Request = {
      kind,
      // A copy: callers may use their bytes again, and those of a received message keep all of it alive.
      hash: typeof key === "string" ? noHash : new Uint8Array(key),
      key: typeof key === "string" ? key : "",
      timeout: this.#timeoutOf(kind),
      first: undefined,
      last: undefined,
      order: 0,
      timesWritten: 0,
      since: 0,
      isOpen: true,
      candidate: undefined,
      isInLine: false,
      earlier: undefined,
      later: undefined,
      chained: undefined
    }
    if (typeof key !== "string") this.#items.add(request)
    else {
      let table = this.#messages.get(kind)
      if (table === undefined) this.#messages.set(kind, (table = new Map()))
      table.set(key, request)
    }
    this.#counts.set(kind, this.#count(kind) + 1)
    this.size++
    return request
  }

  #remove(request: Request): void {
    if (!request.isOpen) return
    request.isOpen = false
    const { hash, key, kind } = request
    if (hash === noHash) this.#messages.get(kind)?.delete(key)
    else this.#items.remove(request)
    this.#counts.set(kind, this.#count(kind) - 1)
    this.size--
    if (!request.isInLine) return
    const { earlier, later } = request
    if (earlier === undefined) this.oldest = later
    else earlier.later = later
    if (later === undefined) this.#newest = earlier
    else later.earlier = earlier
    request.isInLine = false
    request.earlier = request.later = undefined
  }
}
