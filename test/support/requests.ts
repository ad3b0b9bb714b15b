/** Small messages for the tests of requests: the same number gives the same message. */
import { assert } from "@effect/vitest"
import type { BadAnswer } from "../../src/peer/requests/answers.ts"
import type { Outcome } from "../../src/peer/requests/inFlight.ts"
import * as Hex from "effect/encoding/Hex"
import * as Result from "effect/Result"
import { type Question, RequestTracker } from "../../src/peer/requests/tracker.ts"
import * as MerkleBlock from "../../src/MerkleBlock.ts"
import * as Wire from "../../src/Wire.ts"

export const { witnessFlag } = Wire.InventoryType

/** 32 bytes that start with the number. */
export const hash = (number: number): Uint8Array => {
  const bytes = new Uint8Array(32)
  new DataView(bytes.buffer).setUint32(0, number)
  return bytes
}
export const item = (type: number, hash: Uint8Array): Wire.InventoryItem => ({ type, hash })
export const transaction = (number: number, witness = false): Wire.Transaction => ({
  version: 2,
  inputs: [
    {
      previousOutput: { txid: hash(7), index: 0 },
      script: new Uint8Array(0),
      sequence: 0,
      witness: witness ? [hash(8)] : []
    }
  ],
  outputs: [],
  lockTime: number
})
export const tx = (number: number, witness = false): Wire.Tx => ({
  _tag: "tx",
  transaction: transaction(number, witness)
})
export const txid = (number: number): Uint8Array => Wire.txid(transaction(number))
export const wtxid = (number: number): Uint8Array => Wire.wtxid(transaction(number, true))
/** A commitment for a block in which only the coinbase has a witness: OP_RETURN, a push of 36 bytes, a tag, a hash (BIP141). */
const commitment = Result.getOrThrow(
  Hex.decode("6a24aa21a9ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9")
)
/** The only transaction of a block. Its witness changes neither its txid nor the hash of the block. */
const coinbase = (number: number, witness: boolean): Wire.Transaction => ({
  version: 2,
  inputs: [
    {
      previousOutput: { txid: new Uint8Array(32), index: 0xffffffff },
      script: Uint8Array.of(0x51, 0),
      sequence: 0,
      witness: witness ? [new Uint8Array(32)] : []
    }
  ],
  outputs: [{ value: 0, script: commitment }],
  lockTime: number
})
export const header = (number: number, previousBlock = hash(0)): Wire.BlockHeader => ({
  version: 1,
  previousBlock,
  merkleRoot: Wire.txid(coinbase(number, false)),
  timestamp: 0,
  bits: 0,
  nonce: number
})
export const block = (number: number, witness = false): Wire.BlockMessage => ({
  _tag: "block",
  block: { header: header(number), transactions: [coinbase(number, witness)] }
})
export const blockHash = (number: number): Uint8Array => Wire.blockHash(header(number))
/** A block with other transactions than its header commits to. */
export const mutatedBlock = (number: number): Wire.BlockMessage => ({
  _tag: "block",
  block: { header: header(number), transactions: [coinbase(number + 1, true)] }
})
/** A filtered block of these transactions, which all match; by default of one transaction that does not match. */
export const filteredBlock = (number: number, ...txs: ReadonlyArray<Wire.Tx>): Wire.MerkleBlock => {
  if (txs.length === 0) return MerkleBlock.make(block(number).block, () => false).merkleBlock
  const transactions = txs.map(({ transaction }) => transaction)
  const merkleRoot = Wire.merkleRoot(transactions.map(Wire.txid))
  return MerkleBlock.make({ header: { ...header(number), merkleRoot }, transactions }, () => true).merkleBlock
}
export const cmpctblock = (number: number): Wire.CmpctBlock => ({
  _tag: "cmpctblock",
  header: header(number),
  nonce: 0n,
  shortIds: [],
  prefilled: []
})
export const getblocktxn = (number: number, ...indexes: ReadonlyArray<number>): Wire.GetBlockTxn => ({
  _tag: "getblocktxn",
  blockHash: blockHash(number),
  indexes
})
export const blocktxn = (number: number, ...transactions: ReadonlyArray<Wire.Transaction>): Wire.BlockTxn => ({
  _tag: "blocktxn",
  blockHash: blockHash(number),
  transactions
})
export const getdata = (...items: ReadonlyArray<Wire.InventoryItem>): Wire.GetData => ({ _tag: "getdata", items })
export const notfound = (...items: ReadonlyArray<Wire.InventoryItem>): Wire.NotFound => ({ _tag: "notfound", items })
export const inv = (...types: ReadonlyArray<number>): Wire.Inv => ({
  _tag: "inv",
  items: types.map((type, index) => item(type, hash(index)))
})
export const getheaders = (locator: ReadonlyArray<Uint8Array>, stopHash = hash(0)): Wire.GetHeaders => ({
  _tag: "getheaders",
  protocolVersion: 70016,
  locator,
  stopHash
})
export const getblocks = (number: number): Wire.GetBlocks => ({ ...getheaders([hash(number)]), _tag: "getblocks" })
export const headers = (...headers: ReadonlyArray<Wire.BlockHeader>): Wire.Headers => ({ _tag: "headers", headers })
export const addr = (count: number): Wire.Addr => ({
  _tag: "addr",
  addresses: Array.from({ length: count }, () => ({
    timestamp: 0,
    services: 0n,
    address: new Uint8Array(16),
    port: count
  }))
})

export const ping = (nonce: bigint): Wire.Ping => ({ _tag: "ping", nonce })
export const pong = (nonce: bigint): Wire.Pong => ({ _tag: "pong", nonce })

export const genesisHash = hash(0xffff)
export const make = (answersPings = true): RequestTracker =>
  new RequestTracker({ genesisHash, segwitHeight: 0, dataTimeout: 30_000, headersTimeout: 90_000, answersPings })

/** Passes a received message to the tracker, without known hashes. */
export const received = (tracker: RequestTracker, message: Wire.Message, now = 0): BadAnswer | undefined =>
  tracker.received(message, {}, now)

export const found = (message: Wire.Message): Outcome => ({ _tag: "Found", message })
export const foundFiltered = (message: Wire.Message, ...numbers: ReadonlyArray<number>): Outcome => ({
  _tag: "Found",
  message,
  transactions: numbers.map((number) => tx(number).transaction)
})
export const notFound: Outcome = { _tag: "NotFound" }
export const noAnswer: Outcome = { _tag: "NoAnswer" }
export const doesNotConnect: Outcome = { _tag: "DoesNotConnect" }

/** Requests items, marks the getdata as sent if one is needed, and collects the outcomes by index. */
export const askItems = (tracker: RequestTracker, items: ReadonlyArray<Wire.InventoryItem>, now = 0) => {
  const outcomes: Array<Outcome | undefined> = items.map(() => undefined)
  const asked = tracker.askItems(items, (index, outcome) => {
    assert.isUndefined(outcomes[index], "a second outcome for one request")
    outcomes[index] = outcome
  })
  if (asked.newItems.length > 0) tracker.sent(getdata(...asked.newItems), now)
  return { ...asked, outcomes }
}

/** Makes a request, marks it as sent if it is new, and collects its outcome. */
export const ask = (tracker: RequestTracker, question: Question, now = 0) => {
  const outcomes: Array<Outcome> = []
  const asked = tracker.ask(question, (outcome) => {
    assert.isEmpty(outcomes, "a second outcome for one request")
    outcomes.push(outcome)
  })
  if (asked.isNew) tracker.sent(question, now)
  return { ...asked, outcomes }
}

/** A callback for a request that must not get an outcome. */
export const untold = (): void => assert.fail("the request got an outcome")
