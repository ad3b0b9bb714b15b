import type { List } from "../list.ts"
import type { Transaction } from "./transaction.ts"

/** 80 bytes. */
export interface BlockHeader {
  readonly version: number
  readonly previousBlock: Uint8Array
  readonly merkleRoot: Uint8Array
  /** Unix seconds, uint32. */
  readonly timestamp: number
  readonly bits: number
  readonly nonce: number
}
export interface Block { readonly header: BlockHeader; readonly transactions: List<Transaction> }
export interface BlockMessage { readonly _tag: "block"; readonly block: Block }
