/**
 * The transactions of a filtered block [37], which come behind its `merkleblock` as messages of their own: nothing but
 * their txids says that they belong to it.
 */
import * as Result from "effect/Result"
import * as MerkleBlock from "../../MerkleBlock.ts"
import * as Wire from "../../Wire.ts"
import { keyOf } from "./hashKey.ts"
import { transactionSize } from "../../wire/messages/transaction.ts"

export interface FilteredBlock {
  readonly message: Wire.MerkleBlock
  /** Keys of the txids that did not come yet. None for a message that proves nothing. */
  readonly missing: Set<string>
  /** In the order they came, which is that of the block. */
  readonly transactions: Array<Wire.Transaction>
  bytes: number
}

export const make = (message: Wire.MerkleBlock): FilteredBlock => {
  const matches = Result.getOrElse(MerkleBlock.verify(message), () => [])
  return { message, missing: new Set(matches.map(({ txid }) => keyOf(txid))), transactions: [], bytes: 0 }
}

/** Takes a transaction that belongs to the block. */
export const transactionCame = (self: FilteredBlock, transaction: Wire.Transaction): void => {
  if (!self.missing.delete(keyOf(Wire.txid(transaction)))) return
  self.transactions.push(transaction)
  self.bytes += transactionSize(transaction)
  // No block is larger: whoever invents one shall not fill our memory.
  if (self.bytes > Wire.maxPayloadLength) self.missing.clear()
}
