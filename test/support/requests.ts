/** Small messages for the tests of requests: the same number gives the same message. */
import * as Requests from "../../src/peer/requests/tracker.ts"
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
export const header = (number: number, previousBlock = hash(0)): Wire.BlockHeader => ({
  version: 1,
  previousBlock,
  merkleRoot: hash(0),
  timestamp: 0,
  bits: 0,
  nonce: number
})
export const block = (number: number, witness = false): Wire.BlockMessage => ({
  _tag: "block",
  block: { header: header(number), transactions: [transaction(0, witness)] }
})
export const blockHash = (number: number): Uint8Array => Wire.blockHash(header(number))
/** A filtered block of these transactions, all of which match; by default none, which proves nothing. */
export const filteredBlock = (number: number, ...txs: ReadonlyArray<Wire.Tx>): Wire.MerkleBlock => {
  const transactions = txs.map(({ transaction }) => transaction)
  const merkleRoot = txs.length === 0 ? hash(0) : Wire.merkleRoot(transactions.map(Wire.txid))
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

export const genesisHash = hash(0xffff)
export const make = (): Requests.Requests => Requests.make({ genesisHash, dataTimeout: 30_000, headersTimeout: 90_000 })

/** A message arrives, of which no hash was made yet. */
export const received = (machine: Requests.Requests, message: Wire.Message, now: number): boolean =>
  Requests.received(machine, message, {}, now)
