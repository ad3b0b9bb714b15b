/**
 * The requests of a peer that are answered: each asks what nobody has asked yet, waits for what was asked, and leaves
 * nothing behind when it ends, times out or is interrupted.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Wire from "../../Wire.ts"
import type { OpenQuestion, Question } from "./inFlight.ts"
import * as FilterRequests from "./compactFilters.ts"
import { fromAddr, noStop } from "../sending.ts"
import type { SendQueue } from "../sendQueue.ts"
import { notSendable, PeerError } from "../../PeerError.ts"
import * as Requests from "./tracker.ts"

/** How long to wait for an answer. */
export interface AskOptions {
  readonly timeout?: Duration.Input | undefined
}

/** What became of one item of `getData`. */
export type DataResult =
  /** The peer sent it: a tx, block, or what else its type asks for. */
  | {
      readonly _tag: "Found"
      readonly item: Wire.InventoryItem
      readonly message: Wire.Message
      /**
       * Of a filtered block: those of its transactions that the peer sent behind it. `MerkleBlock.verify` says which these
       * are; peers may leave out what they have sent or announced before.
       */
      readonly transactions?: ReadonlyArray<Wire.Transaction> | undefined
    }
  /** The peer says that it has not got it. */
  | { readonly _tag: "NotFound"; readonly item: Wire.InventoryItem }
  /** Neither came in time. Core says nothing of blocks that it has not got. */
  | { readonly _tag: "TimedOut"; readonly item: Wire.InventoryItem }

/** Items in one getdata, as in Core. */
const maximumBatch = 1_000
const defaultTimeout = Duration.seconds(30)
const defaultHeadersTimeout = Duration.seconds(90)
/** Core answers with its next turn of address relay: at once where that is the first, else after 30 s on average. */
const defaultAddressesTimeout = Duration.minutes(2)
/** For up to 1,000 filters of 20 KB. */
const defaultFiltersTimeout = Duration.minutes(2)
const basicFilter = 0

const refuse = (command: string, reason: Wire.WireReason): Effect.Effect<never, PeerError> =>
  Effect.fail(notSendable(new Wire.WireError({ command, reason })))

const timedOut = (what: string, after: Duration.Duration): PeerError =>
  new PeerError({ reason: { _tag: "TimedOut", what, after } })

export interface QuestionOptions {
  readonly requests: Requests.Requests
  readonly sendQueue: SendQueue<PeerError>
  /** The clock of the stall deadlines. */
  readonly now: () => number
  readonly protocolVersion: number
  /** What the peer offers. */
  readonly services: bigint
  /** A ping: what comes before its pong is all that comes. */
  readonly ping: Effect.Effect<unknown, PeerError>
  /** Somebody waits for an answer from now on. */
  readonly onAsk: () => void
}

export const makeQuestions = ({
  now,
  onAsk,
  ping,
  protocolVersion,
  requests,
  sendQueue,
  services
}: QuestionOptions) => {
  /** How to tell those who wait that there will be no answer. */
  const open = new Set<(error: PeerError) => void>()

  /** Puts a question into the outbox; whoever it is for gets it even if we lose interest. */
  const send = (message: Wire.Message): Effect.Effect<void, PeerError> => sendQueue.offer(message)

  /** Waits for a deferred that also fails when the peer ends. */
  const settle = <A>(
    answer: Deferred.Deferred<A, PeerError>,
    sending: Effect.Effect<void, PeerError>,
    leave: () => ReadonlyArray<Wire.Message>
  ): Effect.Effect<A, PeerError> => {
    const giveUp = (error: PeerError): void => void Deferred.doneUnsafe(answer, Effect.fail(error))
    let queued = false
    return Effect.suspend(() => {
      open.add(giveUp)
      onAsk()
      return Effect.andThen(
        Effect.tap(sending, () => Effect.sync(() => (queued = true))),
        Deferred.await(answer)
      )
    }).pipe(
      Effect.ensuring(
        Effect.sync(() => {
          open.delete(giveUp)
          const left = leave()
          // Others joined a question that we were to send and did not.
          if (!queued) {
            for (const message of left) sendQueue.force(message)
          }
        })
      )
    )
  }

  /** A question with one answer. Nothing is one too, when `behind` succeeds: a pong behind the question, or the time. */
  const askOne = <A>(
    message: Wire.Message,
    after: Duration.Duration,
    ask: (answered: (answer: A) => void) => Question & Partial<OpenQuestion>,
    behind: Effect.Effect<unknown, PeerError> = Effect.never
  ): Effect.Effect<A, PeerError> =>
    Effect.suspend(() => {
      const answer = Deferred.makeUnsafe<A, PeerError>()
      const question = ask((value) => void Deferred.doneUnsafe(answer, Effect.succeed(value)))
      const sending = question.toSend ? send(message) : Effect.void
      // Who joined a question that is on its way is told by the one who sent it.
      const nothingMore = question.toSend ? Effect.map(behind, () => question.nothingMore?.(now())) : Effect.void
      return settle(answer, sending, () => (question.cancel() ? [message] : [])).pipe(
        Effect.raceFirst(Effect.andThen(nothingMore, Effect.never)),
        Effect.timeoutOrElse({ duration: after, orElse: () => Effect.fail(timedOut(message._tag, after)) })
      )
    })

  const getHeaders = (
    locator: Wire.List<Uint8Array>,
    stopHash: Uint8Array = noStop,
    options?: AskOptions
  ): Effect.Effect<Wire.List<Wire.BlockHeader>, PeerError> => {
    const message: Wire.GetHeaders = { _tag: "getheaders", protocolVersion, locator, stopHash }
    const after = Duration.fromInputUnsafe(options?.timeout ?? defaultHeadersTimeout)
    return Effect.map(
      askOne<Wire.Headers>(
        message,
        after,
        (answered) => Requests.askHeaders(requests, message, answered),
        // A peer too old for pongs has to answer.
        Effect.catch(ping, () => Effect.never)
      ),
      ({ headers }) => headers
    )
  }

  const getBlocks = (
    locator: Wire.List<Uint8Array>,
    stopHash: Uint8Array = noStop,
    options?: AskOptions
  ): Effect.Effect<Wire.List<Wire.InventoryItem>, PeerError> => {
    const message: Wire.GetBlocks = { _tag: "getblocks", protocolVersion, locator, stopHash }
    const after = Duration.fromInputUnsafe(options?.timeout ?? defaultTimeout)
    return Effect.map(
      askOne<Wire.Inv>(
        message,
        after,
        (answered) => Requests.askInventory(requests, message, answered),
        // A peer with nothing to say says nothing. The pong of a ping behind the question proves that nothing comes.
        ping
      ),
      ({ items }) => items
    )
  }

  const getAddresses = (options?: AskOptions): Effect.Effect<ReadonlyArray<Wire.AddressV2>, PeerError> => {
    const after = Duration.fromInputUnsafe(options?.timeout ?? defaultAddressesTimeout)
    // A message of one address is held back, for it may be the node's own announcement; when the time is over it counts.
    const asked = askOne<Wire.Addr | Wire.AddrV2>(
      { _tag: "getaddr" },
      Duration.sum(after, Duration.seconds(1)),
      (answered) => Requests.askAddresses(requests, answered),
      Effect.sleep(after)
    )
    return Effect.flatMap(asked, (message) => {
      const addresses =
        message._tag === "addrv2" ? Array.from(message.addresses) : Array.from(message.addresses, fromAddr)
      return addresses.length > 0 ? Effect.succeed(addresses) : Effect.fail(timedOut("getaddr", after))
    })
  }

  /**
   * Nothing but the pong of a ping behind them says that a filtered block has no more transactions to come. A peer too old
   * for pongs has no filters.
   */
  const pongEnds = (sent: Effect.Effect<void>, nothingMore: () => void): Effect.Effect<never> =>
    Effect.andThen(sent, ping).pipe(Effect.map(nothingMore), Effect.ignore, Effect.andThen(Effect.never))

  const getData = (
    items: Wire.List<Wire.InventoryItem>,
    options?: AskOptions
  ): Effect.Effect<ReadonlyArray<DataResult>, PeerError> =>
    Effect.suspend(() => {
      const wanted = Array.from(items)
      if (wanted.length === 0) return Effect.succeed([])
      const after = Duration.fromInputUnsafe(options?.timeout ?? defaultTimeout)
      const results = wanted.map((item): DataResult => ({ _tag: "TimedOut", item }))
      const all = Deferred.makeUnsafe<ReadonlyArray<DataResult>, PeerError>()
      let left = wanted.length
      const question = Requests.askData(requests, wanted, (index, answer) => {
        results[index] = { ...answer, item: wanted[index]! }
        if (--left === 0) Deferred.doneUnsafe(all, Effect.succeed(results))
      })
      const batches: Array<Wire.Message> = []
      for (let from = 0; from < question.toSend.length; from += maximumBatch) {
        batches.push({ _tag: "getdata", items: question.toSend.slice(from, from + maximumBatch) })
      }
      const sent = Deferred.makeUnsafe<void>()
      const sending = Effect.tap(Effect.forEach(batches, send, { discard: true }), () =>
        Deferred.succeed(sent, undefined)
      )
      const settled = settle(all, sending, () => {
        const items = question.cancel()
        return items.length === 0 ? [] : [{ _tag: "getdata", items }]
      })
      const isFiltered = question.toSend.some(({ type }) => type === Wire.InventoryType.filteredBlock)
      return Effect.timeoutOrElse(
        isFiltered ? Effect.raceFirst(settled, pongEnds(Deferred.await(sent), question.nothingMore)) : settled,
        { duration: after, orElse: () => Effect.succeed(results) }
      )
    })

  const getBlockTransactions = (
    blockHash: Uint8Array,
    indexes: Wire.List<number>,
    options?: AskOptions
  ): Effect.Effect<Wire.BlockTxn | Wire.BlockMessage, PeerError> => {
    const message: Wire.GetBlockTxn = { _tag: "getblocktxn", blockHash, indexes }
    // A node that is asked for none disconnects.
    if (indexes.length === 0) {
      return Effect.suspend(() => refuse("getblocktxn", { _tag: "BadValue", field: "indexes", problem: "is empty" }))
    }
    return askOne<Wire.BlockTxn | Wire.BlockMessage>(
      message,
      Duration.fromInputUnsafe(options?.timeout ?? defaultTimeout),
      (answered) => Requests.askBlockTransactions(requests, message, answered)
    )
  }
  /** A question about compact filters: what answers it says so itself, and silence is no answer. */
  const askFilters = <A>(
    message: Wire.GetCFilters | Wire.GetCFHeaders | Wire.GetCFCheckpt,
    after: Duration.Duration,
    take: (done: (answer: A) => void) => FilterRequests.Taker
  ): Effect.Effect<A, PeerError> =>
    Effect.suspend(() => {
      const service = Wire.Service.compactFilters
      if ((services & service) === 0n) {
        return Effect.fail(new PeerError({ reason: { _tag: "NotOffered", what: message._tag, service } }))
      }
      const answer = Deferred.makeUnsafe<A, PeerError>()
      const taker = take((value) => void Deferred.doneUnsafe(answer, Effect.succeed(value)))
      requests.filters.set(taker, now())
      return settle(answer, send(message), () => {
        requests.filters.delete(taker)
        return []
      }).pipe(Effect.timeoutOrElse({ duration: after, orElse: () => Effect.fail(timedOut(message._tag, after)) }))
    })

  const getCompactFilters = (
    { blockHashes, filterType = basicFilter, startHeight }: FilterRequests.CompactFilterRange,
    options?: AskOptions
  ): Effect.Effect<ReadonlyArray<Wire.CFilter>, PeerError> =>
    Effect.suspend(() => {
      const hashes = Array.from(blockHashes)
      const count = hashes.length
      const stopHash = hashes.at(-1)
      if (stopHash === undefined) return Effect.succeed([])
      if (count > Wire.maxCompactFilters) {
        return refuse("getcfilters", {
          _tag: "TooMany",
          field: "blockHashes",
          count,
          limit: Wire.maxCompactFilters
        })
      }
      const after = Duration.fromInputUnsafe(options?.timeout ?? defaultFiltersTimeout)
      return askFilters<ReadonlyArray<Wire.CFilter>>(
        { _tag: "getcfilters", filterType, startHeight, stopHash },
        after,
        (done) => FilterRequests.takeFilters(filterType, hashes, done)
      )
    })

  const getCompactFilterHeaders = (
    { filterType = basicFilter, startHeight, stopHash, stopHeight }: FilterRequests.CompactFilterHeaderRange,
    options?: AskOptions
  ): Effect.Effect<Wire.CFHeaders, PeerError> =>
    Effect.suspend(() => {
      const limit = Wire.maxCompactFilterHeaders
      const count = stopHeight - startHeight + 1
      if (count > limit) return refuse("getcfheaders", { _tag: "TooMany", field: "stopHeight", count, limit })
      if (!(count >= 1)) {
        return refuse("getcfheaders", { _tag: "BadValue", field: "stopHeight", problem: "is below startHeight" })
      }
      const after = Duration.fromInputUnsafe(options?.timeout ?? defaultTimeout)
      return askFilters<Wire.CFHeaders>({ _tag: "getcfheaders", filterType, startHeight, stopHash }, after, (done) =>
        FilterRequests.takeHeaders(filterType, stopHash, count, done)
      )
    })

  const getCompactFilterCheckpoints = (
    stopHash: Uint8Array,
    filterType: number = basicFilter,
    options?: AskOptions
  ): Effect.Effect<Wire.List<Uint8Array>, PeerError> =>
    Effect.suspend(() => {
      const after = Duration.fromInputUnsafe(options?.timeout ?? defaultTimeout)
      const asked = askFilters<Wire.CFCheckpt>({ _tag: "getcfcheckpt", filterType, stopHash }, after, (done) =>
        FilterRequests.takeCheckpoints(filterType, stopHash, done)
      )
      return Effect.map(asked, ({ filterHeaders }) => filterHeaders)
    })

  return {
    getCompactFilters,
    getCompactFilterHeaders,
    getCompactFilterCheckpoints,
    getHeaders,
    getBlockTransactions,
    getBlocks,
    getAddresses,
    getData,
    /** How many wait for an answer. */
    open: (): number => open.size,
    /** Answers everyone who waits. */
    end: (error: PeerError): void => {
      Requests.end(requests)
      for (const giveUp of open) giveUp(error)
    }
  }
}
