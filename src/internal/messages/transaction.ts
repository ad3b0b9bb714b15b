import type { List } from "../list.ts"

export interface OutPoint { readonly txid: Uint8Array; readonly index: number }
export interface TransactionInput {
  readonly previousOutput: OutPoint
  readonly script: Uint8Array
  readonly sequence: number
  /** The stack of BIP141; empty without a witness. */
  readonly witness: List<Uint8Array>
}
export interface TransactionOutput {
  /** Satoshi. Exact within ±2^53, four times all the money there is. */
  readonly value: number
  readonly script: Uint8Array
}
export interface Transaction {
  /** int32 */
  readonly version: number
  readonly inputs: List<TransactionInput>
  readonly outputs: List<TransactionOutput>
  readonly lockTime: number
}
export interface Tx { readonly _tag: "tx"; readonly transaction: Transaction }
