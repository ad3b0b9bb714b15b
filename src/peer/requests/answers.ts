/**
 * Which received message answers which request.
 *
 * Data is matched by its kind and hash, so a `tx` answers the request for itself only; transactions of a block by the hash of
 * the block; headers by whether they connect to the locator. The answers to `getblocks` and `getaddr` carry no sign of their
 * request: they are matched by order, once the request was written.
 *
 * A remote handles our messages in their order, so the pong to a ping proves that everything requested before the ping was
 * answered, or never will be. Bitcoin Core is silent about blocks that it does not have, bcoin about headers.
 */
import * as Wire from "../../Wire.ts"
import type { MessageHashes } from "../remoteState.ts"
import type { FilterAnswer, FilterReceiver } from "./compactFilters.ts"
import { FilteredBlock } from "./filteredBlock.ts"
import { isInLocator, keyOf } from "./hashKey.ts"
import type { InFlight, Outcome, Request } from "./inFlight.ts"

const { ancestorPackageInfo, block, compactBlock, filteredBlock, tx, witnessFlag, wtx } = Wire.InventoryType

const found = (message: Wire.Message): Outcome => ({ _tag: "Found", message })
const notFound: Outcome = { _tag: "NotFound" }
const noAnswer: Outcome = { _tag: "NoAnswer" }
const doesNotConnect: Outcome = { _tag: "DoesNotConnect" }

const hasWitness = (transaction: Wire.Transaction | undefined): boolean => {
  for (const input of transaction?.inputs ?? []) if (input.witness.length > 0) return true
  return false
}

const areBlocks = (items: Wire.List<Wire.InventoryItem>): boolean => {
  for (const { type } of items) if (type !== block) return false
  return items.length > 0
}

/** What became of a request if the remote sends nothing more. */
const lastOutcome = ({ candidate, kind }: Request): Outcome => {
  switch (kind) {
    case "getheaders":
      return candidate === undefined ? noAnswer : doesNotConnect
    case "getblocks":
    case "getaddr":
      return candidate === undefined ? noAnswer : found(candidate)
    default:
      return notFound
  }
}

export class Answers {
  /** Callers that wait for compact filters or their headers, with `lastOrder` at the time of their request. */
  readonly filterReceivers = new Map<FilterReceiver, number>()
  readonly #inFlight: InFlight
  /** Key of the genesis block. Headers that follow it answer any request: the remote knows nothing of the locator. */
  readonly #genesis: string
  /** A filtered block that came, while its transactions come. */
  #filtered: { readonly block: FilteredBlock; readonly request: Request } | undefined

  constructor(inFlight: InFlight, genesisHash: Uint8Array) {
    this.#inFlight = inFlight
    this.#genesis = keyOf(genesisHash)
  }

  /** Whether the transactions of a filtered block are being collected. */
  get isCollecting(): boolean {
    return this.#filtered !== undefined
  }

  /** To be called for every message that arrives, with the hashes of it that were made already. */
  received(message: Wire.Message, hashes: MessageHashes, now: number): void {
    switch (message._tag) {
      case "tx":
        return this.#transaction(message, hashes, now)
      case "block":
        return this.#block(message, hashes, now)
      case "headers":
        return this.#headers(message, now)
      case "notfound":
        return this.#notFound(message, now)
      case "inv":
        return this.#inventory(message, now)
      case "addr":
      case "addrv2":
        return this.#addresses(message, now)
      case "merkleblock":
        return this.#filteredBlock(message, hashes, now)
      case "cmpctblock":
        return this.#compactBlock(message, hashes, now)
      case "blocktxn":
        return this.#blockTransactions(message, now)
      case "ancpkginfo":
        return this.#packageInfo(message, now)
      case "cfilter":
      case "cfheaders":
      case "cfcheckpt":
        return this.#filters(message, now)
    }
  }

  /** The remote has answered everything up to the request of that order, so the rest of these gets no answer any more. */
  settle(order: number, now: number): void {
    const inFlight = this.#inFlight
    if (this.#filtered !== undefined && this.#filtered.request.order <= order) this.#endFiltered()
    for (let next = inFlight.oldest; next !== undefined && next.order <= order; next = inFlight.oldest) {
      inFlight.answer(next, lastOutcome(next), now)
    }
  }

  /** To be called when a caller has left: transactions are collected only while somebody waits for them. */
  left(): void {
    if (this.#filtered?.request.subscribers.length === 0) this.#filtered = undefined
  }

  clear(): void {
    this.filterReceivers.clear()
    this.#filtered = undefined
  }

  #answer(kind: number, key: string, outcome: Outcome, now: number): boolean {
    const request = this.#inFlight.get(kind, key)
    if (request === undefined) return false
    this.#inFlight.answer(request, outcome, now)
    return true
  }

  /**
   * Answers the request with witnesses or the one without. If both are open two answers come, and the one without witnesses is not
   * for callers that want them.
   */
  #answerEither(type: number, key: string, message: Wire.Tx | Wire.BlockMessage, now: number): void {
    const inFlight = this.#inFlight
    let answered = type
    if (inFlight.get(type, key) === undefined) answered |= witnessFlag
    else if (inFlight.get(type | witnessFlag, key) !== undefined) {
      // If any transaction of a block has a witness, its coinbase has one (BIP141).
      const transaction = message._tag === "tx" ? message.transaction : message.block.transactions.at(0)
      if (hasWitness(transaction)) answered |= witnessFlag
    }
    this.#answer(answered, key, found(message), now)
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
      if (isWanted) this.#answerEither(tx, keyOf(txid), message, now)
    }
    if (inFlight.has(wtx)) {
      this.#answer(wtx, keyOf(hashes.wtxid ?? Wire.wtxid(message.transaction)), found(message), now)
    }
  }

  #block(message: Wire.BlockMessage, hashes: MessageHashes, now: number): void {
    const inFlight = this.#inFlight
    const kinds = [block, block | witnessFlag, compactBlock, "getblocktxn"] as const
    if (!kinds.some((kind) => inFlight.has(kind))) return
    const key = keyOf(hashes.blockHash ?? Wire.blockHash(message.block.header))
    this.#answerEither(block, key, message, now)
    // A remote may send an old block whole instead of as a compact block, or instead of some of its transactions (BIP152). Then it
    // answers every request for its transactions, so that no later answer is taken for that of another request.
    this.#answer(compactBlock, key, found(message), now)
    for (const request of this.#transactionRequests(key)) inFlight.answer(request, found(message), now)
  }

  #compactBlock(message: Wire.CmpctBlock, hashes: MessageHashes, now: number): void {
    if (!this.#inFlight.has(compactBlock)) return
    this.#answer(compactBlock, keyOf(hashes.blockHash ?? Wire.blockHash(message.header)), found(message), now)
  }

  /** Requests for transactions of a block, the oldest first. */
  #transactionRequests(blockKey: string): ReadonlyArray<Request> {
    return this.#inFlight.written("getblocktxn").filter(({ key }) => key.startsWith(blockKey))
  }

  #blockTransactions(message: Wire.BlockTxn, now: number): void {
    if (!this.#inFlight.has("getblocktxn")) return
    const [oldest] = this.#transactionRequests(keyOf(message.blockHash))
    if (oldest !== undefined) this.#inFlight.answer(oldest, found(message), now)
  }

  #filteredBlock(message: Wire.MerkleBlock, hashes: MessageHashes, now: number): void {
    if (!this.#inFlight.has(filteredBlock)) return
    const request = this.#inFlight.get(filteredBlock, keyOf(hashes.blockHash ?? Wire.blockHash(message.header)))
    if (request === undefined) return
    // Answers come in order, so the filtered block before is complete.
    this.#endFiltered()
    this.#inFlight.close(request, now)
    if (request.subscribers.length === 0) return
    this.#filtered = { block: new FilteredBlock(message), request }
    if (this.#filtered.block.isComplete) this.#endFiltered()
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
      const key = keyOf(hash)
      if (!this.#answer(type, key, notFound, now)) this.#answer(other, key, notFound, now)
    }
  }

  /** The last wtxid is the one of the requested transaction (BIP331). */
  #packageInfo(message: Wire.AncPkgInfo, now: number): void {
    const wtxid = message.wtxids.at(-1)
    if (wtxid !== undefined) this.#answer(ancestorPackageInfo, keyOf(wtxid), found(message), now)
  }

  /**
   * Answers the oldest request that the headers fit: any if there are none; else one whose locator they connect to, or whose stop
   * hash is the first of them. An announcement that fits cannot be told from the answer.
   */
  #headers(message: Wire.Headers, now: number): void {
    const requests = this.#inFlight.written("getheaders")
    if (requests.length === 0) return
    const first = message.headers.at(0)
    const previous = first === undefined ? "" : keyOf(first.previousBlock)
    const fitsAny = first === undefined || previous === this.#genesis
    let firstKey: string | undefined
    const answered = requests.find(
      ({ key }) => fitsAny || isInLocator(key, previous) || key.endsWith((firstKey ??= keyOf(Wire.blockHash(first))))
    )
    if (answered !== undefined) this.#inFlight.answer(answered, found(message), now)
    // It is a wrong answer, or an announcement before the answer: if nothing that fits comes, the callers learn of it.
    else for (const request of requests) request.candidate = message
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
    for (const [receive, order] of this.filterReceivers) {
      if (receive(message)) return this.#inFlight.progress(order, now)
    }
  }
}
