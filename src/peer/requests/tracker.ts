/**
 * What was requested from a peer, what became of it, and whether the peer stalls: a machine without a clock. It is told of every
 * message that is written and of every message that arrives.
 *
 * Times are milliseconds of a clock that the caller stops while our own side is busy: what the remote sent meanwhile could not
 * be read, so that time is not held against it.
 */
import * as Wire from "../../Wire.ts"
import type { MessageHashes } from "../remoteState.ts"
import { Answers, type BadAnswer } from "./answers.ts"
import { blockHashOf, blockTransactionsKey, locatorKey } from "./hashKey.ts"
import { InFlight, type Kind, type Outcome, type Receive, type Request } from "./inFlight.ts"
import type { FilterQuestion, FilterReceiver, FilterRequest } from "./compactFilters.ts"

export interface TrackerOptions {
  readonly genesisHash: Uint8Array
  /** The first height with segregated witness. */
  readonly segwitHeight: number
  /** Milliseconds for each item of a getdata, and for a getblocktxn and a getblocks. */
  readonly dataTimeout: number
  /** Milliseconds for a getheaders. */
  readonly headersTimeout: number
  /** Whether the remote answers pings (BIP31). */
  readonly answersPings: boolean
}

/** A message that asks for one answer. */
export type Question = Wire.GetHeaders | Wire.GetBlocks | Wire.GetBlockTxn | Wire.GetAddr

/** What to do about a remote that is too slow. */
export type Overdue =
  /** No ping was written after the request, so silence may be the answer: send one. */
  | { readonly _tag: "Ping" }
  | {
      readonly _tag: "Stalled"
      readonly command: "getdata" | "getheaders" | "getblocktxn" | "getblocks"
      /** The hash in the getdata or getblocktxn. */
      readonly hash: Uint8Array | undefined
      /** Milliseconds that the remote had. */
      readonly waited: number
    }

/** A request in which the caller takes part. */
export interface Asked {
  /** Whether the caller has to send the message: no other caller has sent it or will. */
  readonly isNew: boolean
  /** A message that may be the answer, if no better one comes. */
  readonly candidate: () => Wire.Message | undefined
  /**
   * The caller waits no longer. Returns true if it had to send the message, the message is not written, and others wait for the
   * answer: then the caller must still send it, unless the send queue has accepted it.
   */
  readonly leave: () => boolean
}

/** The same for the items of a getdata. */
export interface AskedItems {
  /** The items that the caller has to send, each once. */
  readonly newItems: ReadonlyArray<Wire.InventoryItem>
  /**
   * The caller waits no longer, and the send queue has accepted this many of `newItems`, the first ones. Returns the items that the
   * caller must still send, because others wait for them.
   */
  readonly leave: (accepted?: number) => ReadonlyArray<Wire.InventoryItem>
}

const { block, compactBlock, filteredBlock, tx, witnessFlag, wtx } = Wire.InventoryType
/** The types that every remote answers. */
const answeredTypes = new Set<Kind>([
  tx,
  tx | witnessFlag,
  block,
  block | witnessFlag,
  filteredBlock,
  compactBlock,
  wtx
])

const requestTags: ReadonlySet<string> = new Set([
  "getdata",
  "getblocktxn",
  "getheaders",
  "getblocks",
  "getaddr",
  "getcfilters",
  "getcfheaders",
  "getcfcheckpt"
] satisfies ReadonlyArray<Wire.Message["_tag"]>)

/** Whether a message is a request, so that a tracker has to be told of it. */
export const isRequest = ({ _tag }: Wire.Message): boolean => requestTags.has(_tag)

const keyOfQuestion = (question: Question): string => {
  switch (question._tag) {
    case "getblocktxn":
      return blockTransactionsKey(question)
    case "getheaders":
    case "getblocks":
      return locatorKey(question)
    case "getaddr":
      return ""
  }
}

/** Whether others wait for a request that is not written. */
const isUnsent = ({ first, isOpen, order }: Request): boolean => isOpen && order === 0 && first !== undefined

export class RequestTracker {
  readonly #options: TrackerOptions
  readonly #inFlight: InFlight
  readonly #answers: Answers
  /** Pings that were written while requests were open, by nonce, the oldest first; `order` is that of the last request before. */
  readonly #pings = new Map<bigint, { readonly order: number; readonly writtenAt: number }>()

  constructor(options: TrackerOptions) {
    this.#options = options
    const { answersPings, dataTimeout, headersTimeout } = options
    this.#inFlight = new InFlight((kind) => {
      switch (kind) {
        case "getaddr":
          return Infinity
        case "getheaders":
          return headersTimeout
        case "getblocktxn":
          return dataTimeout
        default:
          // A pong ends the wait for everything to which silence may be the answer.
          return answersPings || answeredTypes.has(kind) ? dataTimeout : Infinity
      }
    })
    this.#answers = new Answers(this.#inFlight, options.genesisHash, options.segwitHeight)
  }

  /** How many requests are open. */
  get size(): number {
    return this.#inFlight.size + this.#answers.filterRequests.size
  }

  /** Whether the transactions of a filtered block are being collected. */
  get isCollecting(): boolean {
    return this.#answers.isCollecting
  }

  // ---- messages

  /** To be called for every message that is written, by the peer or by a caller. */
  sent(message: Wire.Message, now: number): void {
    const inFlight = this.#inFlight
    switch (message._tag) {
      case "getdata":
        for (const { hash, type } of message.items) inFlight.markWritten(type, hash, now)
        return
      case "getblocktxn":
      case "getheaders":
      case "getblocks":
      case "getaddr":
        return inFlight.markWritten(message._tag, keyOfQuestion(message), now)
      case "getcfilters":
      case "getcfheaders":
      case "getcfcheckpt":
        for (const request of this.#answers.filterRequests) {
          if (request.question === message) request.order = ++inFlight.lastOrder
        }
        return
      case "ping":
        if (inFlight.oldest === undefined && !this.isCollecting && this.#answers.filterRequests.size === 0) {
          this.#pings.clear()
        } else if (message.nonce !== undefined)
          this.#pings.set(message.nonce, { order: inFlight.lastOrder, writtenAt: now })
    }
  }

  /**
   * To be called for every message that arrives, with the hashes of it that were made already. Tells those who wait for it. Returns
   * the end of a peer whose message cannot be the answer that it seems to be.
   */
  received(message: Wire.Message, hashes: MessageHashes, now: number): BadAnswer | undefined {
    if (message._tag !== "pong") return this.#answers.received(message, hashes, now)
    this.#ponged(message.nonce, now)
    return undefined
  }

  /** Bytes of a message arrived that is not complete yet: the remote is at work on the first request in line. */
  progress(now: number): void {
    this.#inFlight.progress(0, now)
  }

  #ponged(nonce: bigint, now: number): void {
    const ping = this.#pings.get(nonce)
    if (ping === undefined) return
    for (const [older, { order }] of this.#pings) if (order <= ping.order) this.#pings.delete(older)
    this.#answers.settle(ping.order, now)
  }

  // ---- stalls

  /** What to do about the first request in line, if its time is over. */
  overdue(now: number): Overdue | undefined {
    const oldest = this.#inFlight.oldest
    if (oldest === undefined || now - oldest.since < oldest.timeout) return undefined
    if (this.#options.answersPings) {
      const ping = Array.from(this.#pings.values()).find(({ order }) => order >= oldest.order)
      if (ping === undefined) return { _tag: "Ping" }
      if (now - ping.writtenAt < oldest.timeout) return undefined
    }
    const { kind, since } = oldest
    // A getaddr has no deadline, so it is never in line.
    if (kind === "getaddr") return undefined
    const command = typeof kind === "number" ? "getdata" : kind
    const hash = kind === "getblocktxn" ? blockHashOf(oldest.key) : typeof kind === "number" ? oldest.hash : undefined
    return { _tag: "Stalled", command, hash, waited: now - since }
  }

  // ---- callers

  /** Asks for the answer to a message. Callers with the same question share one request. */
  ask(question: Question, receive: (outcome: Outcome) => void): Asked {
    const subscription = this.#inFlight.subscribe(question._tag, keyOfQuestion(question), (_, outcome) =>
      receive(outcome)
    )
    const { isNew, request } = subscription
    return {
      isNew,
      candidate: () => request.candidate,
      leave: () => {
        this.#inFlight.unsubscribe(subscription)
        return isNew && isUnsent(request)
      }
    }
  }

  /** Asks for items; `receive` is called once for each of them, with its index. */
  askItems(items: ReadonlyArray<Wire.InventoryItem>, receive: Receive): AskedItems {
    const all = items.map(({ hash, type }, index) => this.#inFlight.subscribe(type, hash, receive, index))
    const mine = all.filter(({ isNew }) => isNew)
    return {
      newItems: mine.map(({ index }) => items[index]!),
      leave: (accepted = 0) => {
        for (const subscription of all) this.#inFlight.unsubscribe(subscription)
        this.#answers.left()
        return mine
          .slice(accepted)
          .filter(({ request }) => isUnsent(request))
          .map(({ index }) => items[index]!)
      }
    }
  }

  /** Hands answers about compact filters to the receiver, until the result is called. */
  askFilters(question: FilterQuestion, receive: FilterReceiver, noAnswer: () => void): () => void {
    const request: FilterRequest = { question, receive, noAnswer, order: 0 }
    this.#answers.filterRequests.add(request)
    return () => void this.#answers.filterRequests.delete(request)
  }

  /** Forgets all requests without answering them. Leaving one of them later does nothing. */
  end(): void {
    this.#inFlight.clear()
    this.#answers.clear()
    this.#pings.clear()
  }
}
