/**
 * Which received message answers which request.
 *
 * Data is matched by its kind and hash, so a `tx` answers the request for itself only; transactions of a block by the hash of
 * the block; headers by whether they connect to the locator. The answers to `getblocks` and `getaddr` carry no sign of their
 * request: they are matched by order, once the request was written.
 *
 * An answer is what was requested: a message that cannot be it answers nothing, and its sender misbehaves (CVE-2024-52921). The
 * request stays open; only the caller can send it to another peer.
 *
 * A remote handles our messages in their order, so the pong to a ping proves that everything requested before the ping was
 * answered, or never will be. Bitcoin Core is silent about blocks that it does not have, bcoin about headers.
 */
import * as Result from "effect/Result"
import * as Block from "../../Block.ts"
import * as MerkleBlock from "../../MerkleBlock.ts"
import type { EndReason } from "../../PeerError.ts"
import * as Wire from "../../Wire.ts"
import type { MessageHashes } from "../remoteState.ts"
import { hasWitness } from "../../wire/messages/transaction.ts"
import type { FilterAnswer, FilterRequest } from "./compactFilters.ts"
import { FilteredBlock } from "./filteredBlock.ts"
import { indexCount, isInLocator, keyOf } from "./hashKey.ts"
import type { InFlight, Outcome, Request } from "./inFlight.ts"

const { ancestorPackageInfo, block, compactBlock, filteredBlock, tx, witnessFlag, wtx } = Wire.InventoryType

export type BadAnswer = Extract<EndReason, { readonly _tag: "BadAnswer" }>

const badAnswer = (command: string, hash: Uint8Array | undefined, problem: string): BadAnswer => ({
  _tag: "BadAnswer",
  command,
  hash,
  problem
})

const found = (message: Wire.Message): Outcome => ({ _tag: "Found", message })
const notFound: Outcome = { _tag: "NotFound" }
const noAnswer: Outcome = { _tag: "NoAnswer" }
const doesNotConnect: Outcome = { _tag: "DoesNotConnect" }

const noRequests: ReadonlyArray<Request> = []

/** The kinds of requests that a block answers. */
const blockKinds = [block, block | witnessFlag, compactBlock, "getblocktxn"] as const

const hashOfBlock = (header: Wire.BlockHeader, { blockHash }: MessageHashes): Uint8Array =>
  blockHash ?? Wire.blockHash(header)

/** The index of the first header that does not follow the one before it; `undefined` if all do. */
const brokenLink = (headers: Wire.List<Wire.BlockHeader>): number | undefined => {
  let previous: Uint8Array | undefined
  let index = 0
  for (const header of headers) {
    if (previous !== undefined && !Wire.hashEquals(header.previousBlock, previous)) return index
    index++
    if (index < headers.length) previous = Wire.blockHash(header)
  }
  return undefined
}

const areBlocks = (items: Wire.List<Wire.InventoryItem>): boolean => {
  for (const { type } of items) if (type !== block) return false
  return items.length > 0
}

/** What became of a request with a deadline if the remote sends nothing more. A `getaddr` has none. */
const lastOutcome = ({ candidate, kind }: Request): Outcome => {
  switch (kind) {
    case "getheaders":
      return candidate === undefined ? noAnswer : doesNotConnect
    case "getblocks":
      return candidate === undefined ? noAnswer : found(candidate)
    default:
      return notFound
  }
}

export class Answers {
  /** Requests for compact filters and their headers. */
  readonly filterRequests = new Set<FilterRequest>()
  readonly #inFlight: InFlight
  /** Key of the genesis block. Headers that follow it answer any request: the remote knows nothing of the locator. */
  readonly #genesis: string
  readonly #segwitHeight: number
  /** A filtered block that came, while its transactions come. */
  #filtered: { readonly block: FilteredBlock; readonly request: Request } | undefined

  constructor(inFlight: InFlight, genesisHash: Uint8Array, segwitHeight: number) {
    this.#inFlight = inFlight
    this.#genesis = keyOf(genesisHash)
    this.#segwitHeight = segwitHeight
  }

  /** Whether the transactions of a filtered block are being collected. */
  get isCollecting(): boolean {
    return this.#filtered !== undefined
  }

  /**
   * To be called for every message that arrives, with the hashes of it that were made already. Returns the end of a peer whose
   * message cannot be the answer that it seems to be.
   */
  received(message: Wire.Message, hashes: MessageHashes, now: number): BadAnswer | undefined {
    switch (message._tag) {
      case "block":
        return this.#block(message, hashes, now)
      case "headers":
        return this.#headers(message, now)
      case "merkleblock":
        return this.#filteredBlock(message, hashes, now)
      case "blocktxn":
        return this.#blockTransactions(message, now)
      case "tx":
        this.#transaction(message, hashes, now)
        return undefined
      case "notfound":
        this.#notFound(message, now)
        return undefined
      case "inv":
        this.#inventory(message, now)
        return undefined
      case "addr":
      case "addrv2":
        this.#addresses(message, now)
        return undefined
      case "cmpctblock":
        this.#compactBlock(message, hashes, now)
        return undefined
      case "ancpkginfo":
        this.#packageInfo(message, now)
        return undefined
      case "cfilter":
      case "cfheaders":
      case "cfcheckpt":
        this.#filters(message, now)
        return undefined
      default:
        return undefined
    }
  }

  /** The remote has answered everything up to the request of that order, so the rest of these gets no answer any more. */
  settle(order: number, now: number): void {
    const inFlight = this.#inFlight
    if (this.#filtered !== undefined && this.#filtered.request.order <= order) this.#endFiltered()
    for (const request of this.filterRequests) {
      if (request.order > 0 && request.order <= order && this.filterRequests.delete(request)) request.noAnswer()
    }
    for (let next = inFlight.oldest; next !== undefined && next.order <= order; next = inFlight.oldest) {
      inFlight.answer(next, lastOutcome(next), now)
    }
  }

  /** To be called when a caller has left: transactions are collected only while a caller waits for them. */
  left(): void {
    if (this.#filtered?.request.first === undefined) this.#filtered = undefined
  }

  clear(): void {
    this.filterRequests.clear()
    this.#filtered = undefined
  }

  #answer(kind: number, hash: Uint8Array, outcome: Outcome, now: number): boolean {
    const request = this.#inFlight.get(kind, hash)
    if (request === undefined) return false
    this.#inFlight.answer(request, outcome, now)
    return true
  }

  #transaction(message: Wire.Tx, hashes: MessageHashes, now: number): void {
    const inFlight = this.#inFlight
    const isWanted = inFlight.has(tx) || inFlight.has(tx | witnessFlag)
    if (isWanted || this.#filtered !== undefined) {
      const txid = hashes.txid ?? Wire.txid(message.transaction)
      if (this.#filtered !== undefined) {
        this.#filtered.block.add(message.transaction, txid)
        if (this.#filtered.block.isComplete) this.#endFiltered()
      }
      if (isWanted) {
        // If the transaction is requested both with witnesses and without, two answers come.
        const [first, second] = hasWitness(message.transaction.inputs) ? [tx | witnessFlag, tx] : [tx, tx | witnessFlag]
        if (!this.#answer(first, txid, found(message), now)) this.#answer(second, txid, found(message), now)
      }
    }
    if (inFlight.has(wtx)) {
      this.#answer(wtx, hashes.wtxid ?? Wire.wtxid(message.transaction), found(message), now)
    }
  }

  /**
   * Answers the requests for a block that was not changed on the way. Without witnesses it answers only the request without them,
   * unless it has none.
   *
   * A remote may send an old block whole instead of as a compact block, or instead of some of its transactions (BIP152). Then it
   * answers every request for its transactions, so that no later answer is taken for that of another request.
   */
  #block(message: Wire.BlockMessage, hashes: MessageHashes, now: number): BadAnswer | undefined {
    const inFlight = this.#inFlight
    if (!blockKinds.some((kind) => inFlight.has(kind))) return undefined
    const received = message.block
    const hash = hashOfBlock(received.header, hashes)
    const plain = inFlight.get(block, hash)
    const full = inFlight.get(block | witnessFlag, hash)
    const compact = inFlight.get(compactBlock, hash)
    const parts = this.#transactionRequests(hash)
    const wantsWitness = full !== undefined || compact !== undefined || parts.length > 0
    if (!wantsWitness && plain === undefined) return undefined
    const answered = found(message)
    if (wantsWitness && Block.mutation(received, { segwitHeight: this.#segwitHeight }) === undefined) {
      // If it is requested without witnesses as well, two answers come. A block without witnesses is the same in both.
      const isFull = full !== undefined && (plain === undefined || hasWitness(received.transactions.at(0)!.inputs))
      const first = isFull ? full : plain
      if (first !== undefined) inFlight.answer(first, answered, now)
      if (compact !== undefined) inFlight.answer(compact, answered, now)
      for (const request of parts) inFlight.answer(request, answered, now)
      return undefined
    }
    const mutation = Block.mutation(received, plain === undefined ? { segwitHeight: this.#segwitHeight } : {})
    if (mutation !== undefined) return badAnswer("block", hash, Block.describeMutation(mutation))
    if (plain !== undefined) inFlight.answer(plain, answered, now)
    return undefined
  }

  #compactBlock(message: Wire.CmpctBlock, hashes: MessageHashes, now: number): void {
    if (!this.#inFlight.has(compactBlock)) return
    this.#answer(compactBlock, hashOfBlock(message.header, hashes), found(message), now)
  }

  /** Requests for transactions of a block, the oldest first. */
  #transactionRequests(blockHash: Uint8Array): ReadonlyArray<Request> {
    if (!this.#inFlight.has("getblocktxn")) return noRequests
    const blockKey = keyOf(blockHash)
    return this.#inFlight.written("getblocktxn").filter(({ key }) => key.startsWith(blockKey))
  }

  #blockTransactions(message: Wire.BlockTxn, now: number): BadAnswer | undefined {
    if (!this.#inFlight.has("getblocktxn")) return undefined
    const [oldest] = this.#transactionRequests(message.blockHash)
    if (oldest === undefined) return undefined
    const expected = indexCount(oldest.key)
    const count = message.transactions.length
    if (count !== expected) {
      return badAnswer("blocktxn", message.blockHash.slice(), `has ${count} transactions instead of ${expected}`)
    }
    // If it was written twice, the next answer is not that of another request either.
    if (oldest.timesWritten > 1) {
      oldest.timesWritten--
      this.#inFlight.tell(oldest, found(message))
    } else this.#inFlight.answer(oldest, found(message), now)
    return undefined
  }

  #filteredBlock(message: Wire.MerkleBlock, hashes: MessageHashes, now: number): BadAnswer | undefined {
    if (!this.#inFlight.has(filteredBlock)) return undefined
    const hash = hashOfBlock(message.header, hashes)
    const request = this.#inFlight.get(filteredBlock, hash)
    if (request === undefined) return undefined
    const matches = MerkleBlock.verify(message)
    if (Result.isFailure(matches)) return badAnswer("merkleblock", hash, matches.failure.message)
    // Answers come in order, so the filtered block before is complete.
    this.#endFiltered()
    this.#inFlight.close(request, now)
    if (request.first === undefined) return undefined
    this.#filtered = { block: new FilteredBlock(message, matches.success), request }
    if (this.#filtered.block.isComplete) this.#endFiltered()
    return undefined
  }

  /** No more transactions of the filtered block come. */
  #endFiltered(): void {
    if (this.#filtered === undefined) return
    const { block, request } = this.#filtered
    this.#filtered = undefined
    this.#inFlight.tell(request, { _tag: "Found", message: block.message, transactions: block.transactions })
  }

  #notFound(message: Wire.NotFound, now: number): void {
    const inFlight = this.#inFlight
    for (const { hash, type } of message.items) {
      // Some remotes leave the witness flag out.
      const other = type ^ witnessFlag
      if (!inFlight.has(type) && !inFlight.has(other)) continue
      if (!this.#answer(type, hash, notFound, now)) this.#answer(other, hash, notFound, now)
    }
  }

  /** The last wtxid is the one of the requested transaction (BIP331). */
  #packageInfo(message: Wire.AncPkgInfo, now: number): void {
    const wtxid = message.wtxids.at(-1)
    if (wtxid !== undefined) this.#answer(ancestorPackageInfo, wtxid, found(message), now)
  }

  /**
   * Answers the oldest request that the headers fit: any if there are none; else one whose locator they connect to, or whose stop
   * hash is the first of them. An announcement that fits cannot be told from the answer.
   */
  #headers(message: Wire.Headers, now: number): BadAnswer | undefined {
    const requests = this.#inFlight.written("getheaders")
    if (requests.length === 0) return undefined
    const first = message.headers.at(0)
    const previous = first === undefined ? "" : keyOf(first.previousBlock)
    const fitsAny = first === undefined || previous === this.#genesis
    let firstKey: string | undefined
    const answered = requests.find(
      ({ key }) => fitsAny || isInLocator(key, previous) || key.endsWith((firstKey ??= keyOf(Wire.blockHash(first))))
    )
    if (answered === undefined) {
      // It is a wrong answer, or an announcement before the answer: if nothing that fits comes, the callers learn of it.
      for (const request of requests) request.candidate = message
      return undefined
    }
    const broken = brokenLink(message.headers)
    if (broken !== undefined) {
      return badAnswer("headers", undefined, `header ${broken + 1} does not follow the one before`)
    }
    this.#inFlight.answer(answered, found(message), now)
    return undefined
  }

  /** Answers the oldest `getblocks`. A single block may be announced at any time, so it is the answer only if no other comes. */
  #inventory(message: Wire.Inv, now: number): void {
    const [oldest] = this.#inFlight.written("getblocks")
    if (oldest === undefined || !areBlocks(message.items)) return
    if (message.items.length === 1) oldest.candidate = message
    else this.#inFlight.answer(oldest, found(message), now)
  }

  /** Answers `getaddr`. A node may announce itself with a single address at any time, so it is the answer only if no other comes. */
  #addresses(message: Wire.Addr | Wire.AddrV2, now: number): void {
    const [oldest] = this.#inFlight.written("getaddr")
    if (oldest === undefined) return
    if (message.addresses.length === 1) oldest.candidate = message
    else this.#inFlight.answer(oldest, found(message), now)
  }

  /** A thousand filters may take longer than a deadline: requests that were written later are answered later. */
  #filters(message: FilterAnswer, now: number): void {
    for (const { order, receive } of this.filterRequests) {
      if (receive(message)) return this.#inFlight.progress(order, now)
    }
  }
}
