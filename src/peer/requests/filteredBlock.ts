/**
 * The transactions of a filtered block (BIP37), which come after its `merkleblock` as messages of their own: only their txids say
 * that they belong to it.
 */
import type * as MerkleBlock from "../../MerkleBlock.ts"
import * as Wire from "../../Wire.ts"
import { keyOf } from "./hashKey.ts"

export class FilteredBlock {
  readonly message: Wire.MerkleBlock
  /** Transactions that came, in the order of the block. */
  readonly transactions: Array<Wire.Transaction> = []
  /** Keys of the txids that did not come yet. */
  readonly #missing: Set<string>
  #bytes = 0

  constructor(message: Wire.MerkleBlock, matches: ReadonlyArray<MerkleBlock.Match>) {
    this.message = message
    this.#missing = new Set(matches.map(({ txid }) => keyOf(txid)))
  }

  get isComplete(): boolean {
    return this.#missing.size === 0
  }

  /** Takes a transaction if it belongs to the block. */
  add(transaction: Wire.Transaction, txid: Uint8Array): void {
    if (!this.#missing.delete(keyOf(txid))) return
    this.transactions.push(transaction)
    this.#bytes += Wire.transactionSize(transaction)
    // No block is larger: a remote that invents one must not fill our memory.
    if (this.#bytes > Wire.maxPayloadLength) this.#missing.clear()
  }
}
