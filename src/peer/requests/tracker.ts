/**
 * What was asked of a peer, which message answers it, and whether the peer stalls: a machine without a clock.
 *
 * It is told of every message that is written and of every one that arrives. Data is matched by kind and hash, so that a
 * `tx` answers for itself only; transactions of a block by the hash of the block; headers by whether they follow the
 * locator. What carries no sign of its question (the `inv` for getblocks and mempool, addresses) is matched by order, and
 * only from the moment the question was written.
 *
 * Times are milliseconds of a clock that the caller lets stand still while our own side is busy: what the remote sent
 * meanwhile could not be seen, so that time is not held against it, and no deadline has to be moved.
 */
import * as Wire from "../../Wire.ts"
import * as Expectations from "./inFlight.ts"
import * as FilteredBlock from "./filteredBlock.ts"
import * as FilterRequests from "./compactFilters.ts"
import { blockTransactionsKey, hashOf, isInLocator, keyOf, locatorKey } from "./hashKey.ts"
import type { MessageHashes } from "../remoteState.ts"

/** Expectations of data with a deadline; beyond, the oldest one goes without. Two full getdata messages. */
export const maximumExpectedData = 100_000
/** The same for getheaders, each of which holds a locator of up to 3 KB. */
export const maximumExpectedHeaders = 100

export interface Settings {
  /** `headers` that follow the genesis block answer any getheaders: the remote knows nothing of its locator. */
  readonly genesisHash: Uint8Array
  /** From a getdata, or from the last answer to what was asked before it, to the stall. */
  readonly dataTimeout: number
  /** The same for getheaders. */
  readonly headersTimeout: number
}

/** What became of an item that was asked for. */
export type DataAnswer =
  | {
      readonly _tag: "Found"
      readonly message: Wire.Message
      /** Of a filtered block: what came behind it. */
      readonly transactions?: ReadonlyArray<Wire.Transaction> | undefined
    }
  /** The peer says that it has not got it. Core is silent about blocks it has not got. */
  | { readonly _tag: "NotFound" }

type Addresses = Wire.Addr | Wire.AddrV2

/** The transactions of a block that were asked for, or all of it: a remote need not look for them in an old one [152]. */
export type TransactionsAnswer = Wire.BlockTxn | Wire.BlockMessage

export interface Requests {
  readonly settings: Settings
  readonly genesis: string
  /** By type of inventory: with witnesses and without are different questions. Made when first needed. */
  readonly data: Map<number, Expectations.Book<DataAnswer>>
  readonly dataLine: Expectations.Line<DataAnswer>
  /** The same line, for remotes answer getdata and getblocktxn in the order they come. */
  readonly blockTransactions: Expectations.Book<DataAnswer>
  readonly headers: Expectations.Book<Wire.Headers>
  readonly blocks: Expectations.Book<Wire.Inv>
  readonly mempool: Expectations.Book<Wire.Inv>
  /** A filtered block that was asked for and came, while its transactions come. */
  filtered:
    | { readonly block: FilteredBlock.FilteredBlock; readonly expectation: Expectations.Expectation<DataAnswer> }
    | undefined
  readonly addresses: Expectations.Book<Addresses>
  /** Who waits for compact filters and their headers, and since when. */
  readonly filters: Map<FilterRequests.Taker, number>
  /** The last message of a single address since a getaddr was written; it keeps bytes alive, so not for long. */
  lonely: Addresses | undefined
}

/** A question that the peer is too slow to answer. */
export interface Overdue {
  readonly command: "getdata" | "getheaders" | "getblocktxn"
  /** What was asked for with getdata; the block of a getblocktxn. */
  readonly hash: Uint8Array | undefined
  /** Milliseconds that count: since the question, or since the last answer to what was asked before. */
  readonly waited: number
}

/** Items that are asked for once for all who want them. */
export interface DataQuestion {
  /** Those that nobody has asked for yet, each once. */
  readonly toSend: ReadonlyArray<Wire.InventoryItem>
  /**
   * Waits no longer, `answered` is not called any more. Returns those of `toSend` that were not written yet and that
   * others wait for by now: who leaves without having sent them must see to it that they are.
   */
  readonly cancel: () => ReadonlyArray<Wire.InventoryItem>
  /** The pong of a ping behind `toSend` is here: no more transactions come of a filtered block in it. */
  readonly nothingMore: () => void
}

const { ancestorPackageInfo, block, compactBlock, filteredBlock, tx, witnessFlag, wtx } = Wire.InventoryType
/** What a remote answers at all: other types are skipped. */
const answerable = new Set<number>([tx, tx | witnessFlag, block, block | witnessFlag, filteredBlock, compactBlock, wtx])

export const make = (settings: Settings): Requests => {
  const dataLine = Expectations.makeLine<DataAnswer>(maximumExpectedData)
  return {
    settings,
    genesis: keyOf(settings.genesisHash),
    data: new Map(),
    dataLine,
    filtered: undefined,
    blockTransactions: Expectations.makeBook(dataLine, true),
    headers: Expectations.makeBook(Expectations.makeLine(maximumExpectedHeaders), true),
    blocks: Expectations.makeBook(Expectations.makeLine(Infinity), false),
    mempool: Expectations.makeBook(Expectations.makeLine(Infinity), false),
    addresses: Expectations.makeBook(Expectations.makeLine(Infinity), false),
    filters: new Map(),
    lonely: undefined
  }
}

// ---- what goes out

const bookOf = (self: Requests, type: number): Expectations.Book<DataAnswer> => {
  let book = self.data.get(type)
  if (book === undefined) self.data.set(type, (book = Expectations.makeBook(self.dataLine, true)))
  return book
}

const questionTags: ReadonlySet<string> = new Set([
  "getdata",
  "getblocktxn",
  "getheaders",
  "getblocks",
  "mempool",
  "getaddr"
])

/** Whether `sent` wants to know of it. */
export const isQuestion = (message: Wire.Message): boolean => questionTags.has(message._tag)

/** To be called for every question that is written, whoever sent it. */
export const sent = (self: Requests, message: Wire.Message, now: number): void => {
  switch (message._tag) {
    case "getdata":
      for (const { hash, type } of message.items) {
        if (answerable.has(type)) Expectations.written(bookOf(self, type), keyOf(hash), now)
      }
      return
    case "getblocktxn":
      return Expectations.written(self.blockTransactions, blockTransactionsKey(message), now)
    case "getheaders":
      return Expectations.written(self.headers, locatorKey(message), now)
    case "getblocks":
      return Expectations.written(self.blocks, locatorKey(message), now)
    case "mempool":
      return Expectations.written(self.mempool, "", now)
    case "getaddr":
      if (self.addresses.line.oldest === undefined) self.lonely = undefined
      return Expectations.written(self.addresses, "", now)
    default:
      return
  }
}

// ---- what comes in

const found = (message: Wire.Message): DataAnswer => ({ _tag: "Found", message })
const notFound: DataAnswer = { _tag: "NotFound" }

const isWanted = (self: Requests, type: number): boolean => (self.data.get(type)?.all.size ?? 0) > 0

const answerData = (self: Requests, type: number, key: string, answer: DataAnswer, now: number): boolean => {
  const expectation = self.data.get(type)?.all.get(key)
  if (expectation === undefined) return false
  Expectations.answer(expectation, answer, now)
  return true
}

const hasWitness = (transaction: Wire.Transaction | undefined): boolean => {
  for (const input of transaction?.inputs ?? []) if (input.witness.length > 0) return true
  return false
}

/**
 * Answers the question with witnesses or the one without. If both were asked two answers come, and the one without
 * witnesses is not for who wants them.
 */
const answerEither = (
  self: Requests,
  type: number,
  key: string,
  message: Wire.Tx | Wire.BlockMessage,
  now: number
): boolean => {
  let answered = type
  if (!self.data.get(type)?.all.has(key)) answered |= witnessFlag
  else if (self.data.get(type | witnessFlag)?.all.has(key)) {
    // Where any transaction of a block has a witness its coinbase has one [141].
    const transaction = message._tag === "tx" ? message.transaction : message.block.transactions.at(0)
    if (hasWitness(transaction)) answered |= witnessFlag
  }
  return answerData(self, answered, key, found(message), now)
}

/** Tells of the filtered block with the transactions that have come. */
const filteredBlockEnds = (self: Requests): void => {
  if (self.filtered === undefined) return
  const { block, expectation } = self.filtered
  self.filtered = undefined
  Expectations.tell(expectation, { _tag: "Found", message: block.message, transactions: block.transactions })
}

const filteredBlockCame = (self: Requests, message: Wire.MerkleBlock, hashes: MessageHashes, now: number): boolean => {
  if (!isWanted(self, filteredBlock)) return false
  const key = keyOf(hashes.blockHash ?? Wire.blockHash(message.header))
  const expectation = self.data.get(filteredBlock)?.all.get(key)
  if (expectation === undefined) return false
  // Answers come in order, so the one before is complete.
  filteredBlockEnds(self)
  Expectations.close(expectation, now)
  if (expectation.waiting.length === 0) return true
  const block = FilteredBlock.make(message)
  self.filtered = { block, expectation }
  if (block.missing.size === 0) filteredBlockEnds(self)
  return true
}

const transactionCame = (self: Requests, message: Wire.Tx, hashes: MessageHashes, now: number): boolean => {
  if (self.filtered !== undefined) {
    FilteredBlock.transactionCame(self.filtered.block, message.transaction)
    if (self.filtered.block.missing.size === 0) filteredBlockEnds(self)
  }
  const byTxid =
    (isWanted(self, tx) || isWanted(self, tx | witnessFlag)) &&
    answerEither(self, tx, keyOf(hashes.txid ?? Wire.txid(message.transaction)), message, now)
  const byWtxid =
    isWanted(self, wtx) &&
    answerData(self, wtx, keyOf(hashes.wtxid ?? Wire.wtxid(message.transaction)), found(message), now)
  return byTxid || byWtxid
}

/** Those that wait for transactions of a block, the one that was asked first at the start. Few are asked at a time. */
const transactionsWanted = (self: Requests, blockKey: string): Array<Expectations.Expectation<DataAnswer>> =>
  Array.from(self.blockTransactions.all.values())
    .filter(({ key, order }) => order > 0 && key.startsWith(blockKey))
    .toSorted((one, other) => one.order - other.order)

const blockTransactionsCame = (self: Requests, message: Wire.BlockTxn, now: number): boolean => {
  if (self.blockTransactions.all.size === 0) return false
  const [oldest] = transactionsWanted(self, keyOf(message.blockHash))
  if (oldest === undefined) return false
  Expectations.answer(oldest, found(message), now)
  return true
}

const blockCame = (self: Requests, message: Wire.BlockMessage, hashes: MessageHashes, now: number): boolean => {
  const isWhole = isWanted(self, block) || isWanted(self, block | witnessFlag) || isWanted(self, compactBlock)
  if (!isWhole && self.blockTransactions.all.size === 0) return false
  const key = keyOf(hashes.blockHash ?? Wire.blockHash(message.block.header))
  const whole = answerEither(self, block, key, message, now)
  // Instead of a compact block of some depth a whole one comes [152].
  const compact = answerData(self, compactBlock, key, found(message), now)
  // It has the transactions of every index: nobody is left to take the answer to another's question for his own.
  const wanted = transactionsWanted(self, key)
  for (const expectation of wanted) Expectations.answer(expectation, found(message), now)
  return whole || compact || wanted.length > 0
}

const compactBlockCame = (self: Requests, message: Wire.CmpctBlock, hashes: MessageHashes, now: number): boolean =>
  isWanted(self, compactBlock) &&
  answerData(self, compactBlock, keyOf(hashes.blockHash ?? Wire.blockHash(message.header)), found(message), now)

const notFoundCame = (self: Requests, message: Wire.NotFound, now: number): boolean => {
  let answered = false
  for (const { hash, type } of message.items) {
    // Some leave the witness flag out when they name what they have not got.
    const other = type ^ witnessFlag
    if (!isWanted(self, type) && !isWanted(self, other)) continue
    const key = keyOf(hash)
    if (answerData(self, type, key, notFound, now) || answerData(self, other, key, notFound, now)) answered = true
  }
  return answered
}

/** The last wtxid is that of the transaction that was asked about [331]. */
const packageInfoCame = (self: Requests, message: Wire.AncPkgInfo, now: number): boolean => {
  const wtxid = message.wtxids.at(-1)
  return wtxid !== undefined && answerData(self, ancestorPackageInfo, keyOf(wtxid), found(message), now)
}

/**
 * Answers the oldest getheaders that the headers fit: any if there are none; else one whose locator, or the genesis
 * block, they follow, or whose stop hash the first one is. An announcement that fits cannot be told from the answer.
 */
const headersCame = (self: Requests, message: Wire.Headers, now: number): boolean => {
  if (self.headers.all.size === 0) return false
  const first = message.headers.at(0)
  const previous = first === undefined ? "" : keyOf(first.previousBlock)
  const fitsAny = first === undefined || previous === self.genesis
  let hash: string | undefined
  let oldest: Expectations.Expectation<Wire.Headers> | undefined
  // Few are asked at a time: `maximumExpectedHeaders`, and those that somebody waits for.
  for (const expectation of self.headers.all.values()) {
    const { key, order } = expectation
    if (order === 0 || (oldest !== undefined && oldest.order < order)) continue
    if (
      fitsAny ||
      isInLocator(key, previous) ||
      (first !== undefined && key.endsWith((hash ??= keyOf(Wire.blockHash(first)))))
    ) {
      oldest = expectation
    }
  }
  if (oldest === undefined) return false
  Expectations.answer(oldest, message, now)
  return true
}

const areAll = (items: Wire.List<Wire.InventoryItem>, type: number, orType: number): boolean => {
  for (const item of items) if (item.type !== type && item.type !== orType) return false
  return items.length > 0
}

const inventoryCame = (self: Requests, message: Wire.Inv, now: number): boolean => {
  const blocks = self.blocks.line.oldest
  const mempool = self.mempool.line.oldest
  if (blocks !== undefined && areAll(message.items, block, block)) Expectations.answer(blocks, message, now)
  else if (mempool !== undefined && areAll(message.items, tx, wtx)) Expectations.answer(mempool, message, now)
  else return false
  return true
}

/**
 * Nodes announce themselves with a single address at any time, soon after the handshake too: it is kept for the case that
 * nothing more comes, and does not answer a getaddr by itself.
 */
const addressesCame = (self: Requests, message: Addresses, now: number): boolean => {
  const { oldest } = self.addresses.line
  if (oldest === undefined) return false
  if (message.addresses.length === 1) {
    self.lonely = message
    return false
  }
  self.lonely = undefined
  Expectations.answer(oldest, message, now)
  return true
}

/** A thousand filters may take longer than a stall: whatever was asked behind them is answered behind them. */
const filtersCame = (self: Requests, message: FilterRequests.Answer, now: number): boolean => {
  const askedAt = FilterRequests.received(self.filters, message)
  if (askedAt === undefined) return false
  Expectations.postpone(self.dataLine, askedAt, now)
  Expectations.postpone(self.headers.line, askedAt, now)
  return true
}

/**
 * To be called for every message that arrives, with the hashes of it that were made already; true when it answers something.
 * Tells those who wait for it, inside the call. When nothing of its kind is waiting, nothing is hashed.
 */
export const received = (self: Requests, message: Wire.Message, hashes: MessageHashes, now: number): boolean => {
  switch (message._tag) {
    case "inv":
      return inventoryCame(self, message, now)
    case "tx":
      return transactionCame(self, message, hashes, now)
    case "block":
      return blockCame(self, message, hashes, now)
    case "headers":
      return headersCame(self, message, now)
    case "notfound":
      return notFoundCame(self, message, now)
    case "addr":
    case "addrv2":
      return addressesCame(self, message, now)
    case "ancpkginfo":
      return packageInfoCame(self, message, now)
    case "cfilter":
    case "cfheaders":
    case "cfcheckpt":
      return filtersCame(self, message, now)
    case "merkleblock":
      return filteredBlockCame(self, message, hashes, now)
    case "cmpctblock":
      return compactBlockCame(self, message, hashes, now)
    case "blocktxn":
      return blockTransactionsCame(self, message, now)
    default:
      return false
  }
}

// ---- stalls

/** The oldest question whose deadline has passed. Looks at two, however many there are. */
export const overdue = (self: Requests, now: number): Overdue | undefined => {
  const data = self.dataLine.oldest
  const headers = self.headers.line.oldest
  const dataIsLate = data !== undefined && now - data.since >= self.settings.dataTimeout
  const headersAreLate = headers !== undefined && now - headers.since >= self.settings.headersTimeout
  if (headersAreLate && !(dataIsLate && data.since < headers.since)) {
    return { command: "getheaders", hash: undefined, waited: now - headers.since }
  }
  if (!dataIsLate) return undefined
  const command = data.book === self.blockTransactions ? "getblocktxn" : "getdata"
  return { command, hash: hashOf(data.key), waited: now - data.since }
}

// ---- asking

/**
 * Asks for items, for each of which `answered` is called once with its index. Items of a type that is no request at all
 * are never answered, but by a `notfound`.
 */
export const askData = (
  self: Requests,
  items: Wire.List<Wire.InventoryItem>,
  answered: (index: number, answer: DataAnswer) => void
): DataQuestion => {
  const joined = Array.from(items, (item, index) => {
    const tell = (answer: DataAnswer): void => answered(index, answer)
    return { item, tell, ...Expectations.join(bookOf(self, item.type), keyOf(item.hash), tell) }
  })
  const mine = joined.filter(({ toSend }) => toSend)
  return {
    toSend: mine.map(({ item }) => item),
    cancel: () => {
      for (const { expectation, tell } of joined) Expectations.leave(expectation, tell)
      if (self.filtered?.expectation.waiting.length === 0) self.filtered = undefined
      return mine.filter(({ expectation }) => Expectations.isUnsent(expectation)).map(({ item }) => item)
    },
    nothingMore: () => {
      if (mine.some(({ expectation }) => expectation === self.filtered?.expectation)) filteredBlockEnds(self)
    }
  }
}

/**
 * Asks for transactions of a block; `answered` gets the next blocktxn of that block once the question was written, or all
 * of the block. Several questions about one block are answered in their order.
 */
export const askBlockTransactions = (
  self: Requests,
  message: Wire.GetBlockTxn,
  answered: (answer: TransactionsAnswer) => void
): Expectations.Question =>
  Expectations.ask(self.blockTransactions, blockTransactionsKey(message), (answer) => {
    if (answer._tag === "Found") answered(answer.message as TransactionsAnswer)
  })

/**
 * Asks for headers; `answered` gets the next ones that fit (see `headersCame`). Core answers with an empty message when it
 * has no more, bcoin with nothing: a ping sent behind the question proves then that nothing comes.
 */
export const askHeaders = (
  self: Requests,
  message: Wire.GetHeaders,
  answered: (headers: Wire.Headers) => void
): Expectations.OpenQuestion =>
  Expectations.withNothingMore<Wire.Headers>(Expectations.ask(self.headers, locatorKey(message), answered), () => ({
    _tag: "headers",
    headers: []
  }))

/**
 * Asks for an inventory; `answered` gets the next inv of blocks alone (getblocks) or of transactions alone (mempool)
 * once the question was written. An announcement cannot be told from the answer.
 *
 * A ping sent behind getblocks proves that nothing comes. Behind mempool it does not: Core answers that with its next
 * trickle, which may be seconds after the pong.
 */
export const askInventory = (
  self: Requests,
  message: Wire.GetBlocks | Wire.Mempool,
  answered: (inv: Wire.Inv) => void
): Expectations.OpenQuestion =>
  Expectations.withNothingMore<Wire.Inv>(
    message._tag === "mempool"
      ? Expectations.ask(self.mempool, "", answered)
      : Expectations.ask(self.blocks, locatorKey(message), answered),
    () => ({ _tag: "inv", items: [] })
  )

/**
 * Asks for addresses; `answered` gets the next addr or addrv2 once the question was written, but for those of a single
 * address (see `addressesCame`): the last of these is the answer when nothing more comes.
 */
export const askAddresses = (self: Requests, answered: (addresses: Addresses) => void): Expectations.OpenQuestion =>
  Expectations.withNothingMore<Addresses>(Expectations.ask(self.addresses, "", answered), () => {
    const last = self.lonely
    self.lonely = undefined
    return last ?? { _tag: "addr", addresses: [] }
  })

// ---- the end

/** How many questions are kept, for statistics. */
export const size = (self: Requests): number => {
  let size = self.headers.all.size + self.blocks.all.size + self.mempool.all.size + self.addresses.all.size
  for (const book of self.data.values()) size += book.all.size
  return size + self.blockTransactions.all.size + self.filters.size
}

/** Forgets all questions and tells nobody: that is up to the owner. To cancel one of them later does nothing. */
export const end = (self: Requests): void => {
  for (const book of self.data.values()) Expectations.clear(book)
  Expectations.clear(self.blockTransactions)
  Expectations.clear(self.headers)
  Expectations.clear(self.blocks)
  Expectations.clear(self.mempool)
  Expectations.clear(self.addresses)
  self.filters.clear()
  self.filtered = undefined
  self.lonely = undefined
}
