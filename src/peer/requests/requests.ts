/**
 * The requests of a peer that have an answer. Each sends the items that no other caller has requested, waits for the answer, and
 * leaves no open request when it ends, times out or is interrupted.
 *
 * Where silence may be the answer, a ping follows the request: its pong ends the wait.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import * as Wire from "../../Wire.ts"
import { notSendable, PeerError, type PeerReason } from "../../PeerError.ts"
import { fromAddr, noStop } from "../sending.ts"
import type { SendQueue } from "../sendQueue.ts"
import {
  type CompactFilterHeaderRange,
  type CompactFilterRange,
  type FilterQuestion,
  type FilterReceiver,
  receiveCheckpoints,
  receiveFilters,
  receiveHeaders
} from "./compactFilters.ts"
import { keyOf } from "./hashKey.ts"
import type { Outcome } from "./inFlight.ts"
import type { Question, RequestTracker } from "./tracker.ts"

/**
 * How long a request waits for its answer.
 *
 * @category options
 * @since 0.1.0
 */
export interface AskOptions {
  readonly timeout?: Duration.Input | undefined
}

/**
 * How `getTransaction` asks for a transaction.
 *
 * @category options
 * @since 0.1.0
 */
export interface TransactionOptions extends AskOptions {
  /** Which hash is given; by default the one that the two sides announce: the wtxid where `info.wtxidRelay`, else the txid. */
  readonly by?: "txid" | "wtxid" | undefined
}

/**
 * What became of one item of `getData`.
 *
 * @category models
 * @since 0.1.0
 */
export type DataResult =
  /** The peer sent it: a `tx`, a `block`, or another message that its type asks for. */
  | {
      readonly _tag: "Found"
      readonly item: Wire.InventoryItem
      readonly message: Wire.Message
      /**
       * Of a filtered block: those of its transactions that the peer sent after it. `MerkleBlock.verify` says which ones match;
       * peers may leave out those that they have sent or announced before.
       */
      readonly transactions?: ReadonlyArray<Wire.Transaction> | undefined
    }
  /** The peer does not have it: it said so, or it answered a later ping without sending it (as Bitcoin Core does for blocks). */
  | { readonly _tag: "NotFound"; readonly item: Wire.InventoryItem }
  /** The peer answered neither the request nor a later ping in time. */
  | { readonly _tag: "TimedOut"; readonly item: Wire.InventoryItem }

/** Items in one getdata, as in Core. */
const maxBatch = 1_000
const defaultTimeout = Duration.seconds(30)
const defaultHeadersTimeout = Duration.seconds(90)
/** Core answers with its next turn of address relay: at once where that is the first, else after 30 s on average. */
const defaultAddressesTimeout = Duration.minutes(2)
/** For up to 1,000 filters of 20 KB. */
const defaultFiltersTimeout = Duration.minutes(2)
const basicFilter = 0

const { tx, witnessBlock, witnessTx, wtx } = Wire.InventoryType
const isTransaction = ({ type }: Wire.InventoryItem): boolean => type === tx || type === witnessTx || type === wtx

const fail = (reason: PeerReason): Effect.Effect<never, PeerError> =>
  Effect.suspend(() => Effect.fail(new PeerError({ reason })))

const refuse = (command: string, reason: Wire.WireReason): Effect.Effect<never, PeerError> =>
  Effect.suspend(() => Effect.fail(notSendable(new Wire.WireError({ command, reason }))))

const timedOut = (what: string, after: Duration.Duration): Effect.Effect<never, PeerError> =>
  fail({ _tag: "TimedOut", what, after })

const getdatas = (items: ReadonlyArray<Wire.InventoryItem>): ReadonlyArray<Wire.GetData> =>
  Array.from({ length: Math.ceil(items.length / maxBatch) }, (_, index) => ({
    _tag: "getdata",
    items: items.slice(index * maxBatch, (index + 1) * maxBatch)
  }))

/**
 * Returns the timeout; fails for a message that cannot be encoded, and for a timeout that is no duration. Called before anything
 * waits for the answer: other callers would join a request that is never sent, and a hash of another length has the key of
 * another hash.
 */
const check = (
  messages: ReadonlyArray<Wire.Message>,
  timeout: Duration.Input
): Effect.Effect<Duration.Duration, PeerError> => {
  for (const message of messages) {
    const encoded = Wire.encode(message)
    if (Result.isFailure(encoded)) return Effect.fail(notSendable(encoded.failure))
  }
  const after = Duration.fromInput(timeout)
  return Option.isSome(after)
    ? Effect.succeed(after.value)
    : refuse(messages[0]!._tag, { _tag: "BadValue", field: "timeout", problem: "is not a duration" })
}

/** What is wrong with the hashes of blocks, which are no part of a message. */
const problemOf = (hashes: ReadonlyArray<unknown>): string | undefined => {
  const keys = new Set<string>()
  for (const hash of hashes) {
    if (!(hash instanceof Uint8Array) || hash.length !== 32) return "has an element that is not 32 bytes"
    keys.add(keyOf(hash))
  }
  return keys.size < hashes.length ? "has a block twice" : undefined
}

/** The fields of an argument that a caller without TypeScript may leave out: then each is missing. */
const fieldsOf = <A extends object>(range: A): A => (Predicate.isObject(range) ? range : ({} as A))

export interface RequestsOptions {
  readonly tracker: RequestTracker
  readonly sendQueue: SendQueue<PeerError>
  /** Queues a ping after requests; does nothing if the remote does not answer pings. */
  readonly probe: Effect.Effect<void>
  readonly protocolVersion: number
  /** Whether the two sides announce transactions by wtxid (BIP339). */
  readonly wtxidRelay: boolean
  /** The services that the remote offers. */
  readonly services: bigint
  /** To be put around every wait for an answer of the remote. */
  readonly asking: <A>(wait: Effect.Effect<A, PeerError>) => Effect.Effect<A, PeerError>
}

/** What a caller waits for, and how it is sent. */
interface Subscription<A> {
  readonly answer: Deferred.Deferred<A, PeerError>
  /** The messages that this caller has to send. */
  readonly messages: ReadonlyArray<Wire.Message>
  /** Whether a ping follows them. */
  readonly pings: boolean
  /** The result when the time is over. */
  readonly late: () => Effect.Effect<A, PeerError>
  /**
   * The caller waits no longer, and the send queue has accepted this many of `messages`, the first ones. Returns messages that the
   * caller must still send, because others wait for the answers.
   */
  readonly leave: (accepted: number) => ReadonlyArray<Wire.Message>
}

export class Requests {
  readonly #options: RequestsOptions
  /** Fail the callers that wait for an answer. */
  readonly #waiting = new Set<(error: PeerError) => void>()

  constructor(options: RequestsOptions) {
    this.#options = options
  }

  /** How many callers wait for an answer. */
  get open(): number {
    return this.#waiting.size
  }

  /** Fails every caller that waits. */
  fail(error: PeerError): void {
    this.#options.tracker.end()
    for (const fail of this.#waiting) fail(error)
  }

  // ---- blocks and transactions

  getData(
    items: Wire.List<Wire.InventoryItem>,
    options?: AskOptions
  ): Effect.Effect<ReadonlyArray<DataResult>, PeerError> {
    return Effect.suspend(() => {
      if (!Predicate.isIterable(items)) {
        return refuse("getdata", { _tag: "BadValue", field: "items", problem: "is not a list" })
      }
      const wanted = Array.from(items)
      if (wanted.length === 0) return Effect.succeed([])
      const results: Array<DataResult | undefined> = wanted.map(() => undefined)
      return Effect.flatMap(check(getdatas(wanted), options?.timeout ?? defaultTimeout), (after) =>
        this.#request(after, () => {
          const answer = Deferred.makeUnsafe<ReadonlyArray<DataResult>, PeerError>()
          let left = wanted.length
          const { leave, newItems } = this.#options.tracker.askItems(wanted, (index, outcome) => {
            const item = wanted[index]!
            results[index] = outcome._tag === "Found" ? { ...outcome, item } : { _tag: "NotFound", item }
            if (--left === 0) Deferred.doneUnsafe(answer, Effect.succeed(results as ReadonlyArray<DataResult>))
          })
          return {
            answer,
            messages: getdatas(newItems),
            // Every node says which transactions it does not have.
            pings: !newItems.every(isTransaction),
            late: () =>
              Effect.succeed(results.map((result, index) => result ?? { _tag: "TimedOut", item: wanted[index]! })),
            leave: (accepted) => getdatas(leave(accepted * maxBatch))
          }
        })
      )
    })
  }

  getBlock(hash: Uint8Array, options?: AskOptions): Effect.Effect<Wire.Block, PeerError> {
    return Effect.map(this.#item<Wire.BlockMessage>({ type: witnessBlock, hash }, options), ({ block }) => block)
  }

  getTransaction(hash: Uint8Array, options?: TransactionOptions): Effect.Effect<Wire.Transaction, PeerError> {
    const by = options?.by ?? (this.#options.wtxidRelay ? "wtxid" : "txid")
    const item = { type: by === "wtxid" ? wtx : witnessTx, hash }
    return Effect.map(this.#item<Wire.Tx>(item, options), ({ transaction }) => transaction)
  }

  getBlockTransactions(
    blockHash: Uint8Array,
    indexes: Wire.List<number>,
    options?: AskOptions
  ): Effect.Effect<Wire.BlockTxn | Wire.BlockMessage, PeerError> {
    return Effect.suspend(() =>
      // A node that is asked for none disconnects.
      Predicate.isIterable(indexes) && indexes.length === 0
        ? refuse("getblocktxn", { _tag: "BadValue", field: "indexes", problem: "is empty" })
        : this.#ask<Wire.BlockTxn | Wire.BlockMessage>(
            { _tag: "getblocktxn", blockHash, indexes },
            options?.timeout ?? defaultTimeout
          )
    )
  }

  // ---- chains

  getHeaders(
    locator: Wire.List<Uint8Array>,
    stopHash: Uint8Array = noStop,
    options?: AskOptions
  ): Effect.Effect<Wire.List<Wire.BlockHeader>, PeerError> {
    const { protocolVersion } = this.#options
    return Effect.map(
      this.#ask<Wire.Headers>(
        { _tag: "getheaders", protocolVersion, locator, stopHash },
        options?.timeout ?? defaultHeadersTimeout
      ),
      ({ headers }) => headers
    )
  }

  getBlocks(
    locator: Wire.List<Uint8Array>,
    stopHash: Uint8Array = noStop,
    options?: AskOptions
  ): Effect.Effect<Wire.List<Wire.InventoryItem>, PeerError> {
    const { protocolVersion } = this.#options
    return Effect.map(
      this.#ask<Wire.Inv>(
        { _tag: "getblocks", protocolVersion, locator, stopHash },
        options?.timeout ?? defaultTimeout
      ),
      ({ items }) => items
    )
  }

  // ---- addresses

  getAddresses(options?: AskOptions): Effect.Effect<ReadonlyArray<Wire.AddressV2>, PeerError> {
    const asked = this.#ask<Wire.Addr | Wire.AddrV2>({ _tag: "getaddr" }, options?.timeout ?? defaultAddressesTimeout)
    return Effect.map(asked, (message) =>
      message._tag === "addrv2" ? Array.from(message.addresses) : Array.from(message.addresses, fromAddr)
    )
  }

  // ---- compact filters

  getCompactFilters(
    range: CompactFilterRange,
    options?: AskOptions
  ): Effect.Effect<ReadonlyArray<Wire.CFilter>, PeerError> {
    return Effect.suspend(() => {
      const { blockHashes, filterType = basicFilter, startHeight } = fieldsOf(range)
      const bad = (problem: string) => refuse("getcfilters", { _tag: "BadValue", field: "blockHashes", problem })
      if (!Predicate.isIterable(blockHashes)) return bad("is not a list")
      const hashes = Array.from(blockHashes)
      const count = hashes.length
      const limit = Wire.maxCompactFilters
      if (count === 0) return Effect.succeed([])
      if (count > limit) return refuse("getcfilters", { _tag: "TooMany", field: "blockHashes", count, limit })
      const problem = problemOf(hashes)
      if (problem !== undefined) return bad(problem)
      return this.#askFilters<ReadonlyArray<Wire.CFilter>>(
        { _tag: "getcfilters", filterType, startHeight, stopHash: hashes[count - 1]! },
        options?.timeout ?? defaultFiltersTimeout,
        (done) => receiveFilters(filterType, hashes, done)
      )
    })
  }

  getCompactFilterHeaders(
    range: CompactFilterHeaderRange,
    options?: AskOptions
  ): Effect.Effect<Wire.CFHeaders, PeerError> {
    return Effect.suspend(() => {
      const { filterType = basicFilter, startHeight, stopHash, stopHeight } = fieldsOf(range)
      const limit = Wire.maxCompactFilterHeaders
      const count = stopHeight - startHeight + 1
      if (count > limit) return refuse("getcfheaders", { _tag: "TooMany", field: "stopHeight", count, limit })
      if (!(count >= 1)) {
        return refuse("getcfheaders", { _tag: "BadValue", field: "stopHeight", problem: "is below startHeight" })
      }
      return this.#askFilters<Wire.CFHeaders>(
        { _tag: "getcfheaders", filterType, startHeight, stopHash },
        options?.timeout ?? defaultTimeout,
        (done) => receiveHeaders(filterType, stopHash, count, done)
      )
    })
  }

  getCompactFilterCheckpoints(
    stopHash: Uint8Array,
    filterType: number = basicFilter,
    options?: AskOptions
  ): Effect.Effect<Wire.List<Uint8Array>, PeerError> {
    const asked = this.#askFilters<Wire.CFCheckpt>(
      { _tag: "getcfcheckpt", filterType, stopHash },
      options?.timeout ?? defaultTimeout,
      (done) => receiveCheckpoints(filterType, stopHash, done)
    )
    return Effect.map(asked, ({ filterHeaders }) => filterHeaders)
  }

  // ---- waiting

  /** Asks for one item, which a message of this type answers. */
  #item<A extends Wire.Message>(item: Wire.InventoryItem, options?: AskOptions): Effect.Effect<A, PeerError> {
    const timeout = options?.timeout ?? defaultTimeout
    return Effect.flatMap(this.getData([item], { timeout }), ([result]) => {
      switch (result?._tag) {
        case "Found":
          return Effect.succeed(result.message as A)
        case "NotFound":
          return fail({ _tag: "NotFound", what: "getdata", hash: item.hash })
        default:
          return timedOut("getdata", Duration.fromInputUnsafe(timeout))
      }
    })
  }

  /** Asks for one answer, of the type that answers the question. */
  #ask<A extends Wire.Message>(question: Question, timeout: Duration.Input): Effect.Effect<A, PeerError> {
    const command = question._tag
    const checked = Effect.suspend(() => check([question], timeout))
    return Effect.flatMap(checked, (after) =>
      this.#request(after, () => {
        const answer = Deferred.makeUnsafe<A, PeerError>()
        const { candidate, isNew, leave } = this.#options.tracker.ask(
          question,
          (outcome) => void Deferred.doneUnsafe(answer, resultOf<A>(question, outcome))
        )
        return {
          answer,
          messages: isNew ? [question] : [],
          pings: command !== "getaddr",
          late: () => {
            const only = command === "getaddr" ? candidate() : undefined
            return only === undefined ? timedOut(command, after) : Effect.succeed(only as A)
          },
          leave: (accepted) => (leave() && accepted === 0 ? [question] : [])
        }
      })
    )
  }

  /** Asks about compact filters. Each answer says what it answers. */
  #askFilters<A>(
    message: FilterQuestion,
    timeout: Duration.Input,
    receive: (done: (answer: A) => void) => FilterReceiver
  ): Effect.Effect<A, PeerError> {
    const { services, tracker } = this.#options
    const service = Wire.Service.compactFilters
    if ((services & service) === 0n) return fail({ _tag: "NotOffered", what: message._tag, service })
    const checked = Effect.suspend(() => check([message], timeout))
    return Effect.flatMap(checked, (after) =>
      this.#request(after, () => {
        const answer = Deferred.makeUnsafe<A, PeerError>()
        const leave = tracker.askFilters(
          message,
          receive((value) => void Deferred.doneUnsafe(answer, Effect.succeed(value))),
          () => void Deferred.doneUnsafe(answer, fail({ _tag: "NoAnswer", what: message._tag }))
        )
        return {
          answer,
          messages: [message],
          pings: true,
          late: () => timedOut(message._tag, after),
          leave: () => {
            leave()
            return []
          }
        }
      })
    )
  }

  /**
   * Subscribes, sends the messages and waits for the answer, or for the end of the peer. An interruption may come between any two
   * steps; where the caller has subscribed, it leaves.
   */
  #request<A>(after: Duration.Duration, subscribe: () => Subscription<A>): Effect.Effect<A, PeerError> {
    const { asking, probe, sendQueue } = this.#options
    return Effect.acquireUseRelease(
      Effect.sync(() => {
        const subscription = subscribe()
        const fail = (error: PeerError): void => void Deferred.doneUnsafe(subscription.answer, Effect.fail(error))
        this.#waiting.add(fail)
        return { ...subscription, fail, accepted: 0, isPinged: !subscription.pings }
      }),
      (request) => {
        const { answer, late, messages } = request
        const sent = Effect.forEach(
          messages,
          (message) => Effect.map(sendQueue.offer(message), () => void request.accepted++),
          { discard: true }
        )
        const ping = Effect.suspend(() => {
          if (request.isPinged || messages.length === 0) return Effect.void
          return Effect.map(probe, () => void (request.isPinged = true))
        })
        return asking(Effect.andThen(Effect.andThen(sent, ping), Deferred.await(answer))).pipe(
          Effect.timeoutOrElse({ duration: after, orElse: late })
        )
      },
      ({ accepted, fail, isPinged, leave }) =>
        Effect.suspend(() => {
          this.#waiting.delete(fail)
          // Others wait for requests that this caller was to send and did not.
          const left = leave(accepted)
          for (const message of left) sendQueue.force(message)
          return isPinged || accepted + left.length === 0 ? Effect.void : probe
        })
    )
  }
}

/** The answer to a question, or why there is none. */
const resultOf = <A extends Wire.Message>(question: Question, outcome: Outcome): Effect.Effect<A, PeerError> => {
  switch (outcome._tag) {
    case "Found":
      return Effect.succeed(outcome.message as A)
    case "NotFound":
      return fail({
        _tag: "NotFound",
        what: question._tag,
        hash: question._tag === "getblocktxn" ? question.blockHash : undefined
      })
    default:
      return fail({ _tag: outcome._tag, what: question._tag })
  }
}
