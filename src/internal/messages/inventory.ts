import type { List } from "../list.ts"
import type { BlockHeader } from "./block.ts"

/** 1 tx, 2 block, 3 filtered block, 4 compact block, 5 wtx; in getdata the witness flag 1<<30 may be set. */
export interface InventoryItem { readonly type: number; readonly hash: Uint8Array }
export interface Inv { readonly _tag: "inv"; readonly items: List<InventoryItem> }
export interface GetData { readonly _tag: "getdata"; readonly items: List<InventoryItem> }
export interface NotFound { readonly _tag: "notfound"; readonly items: List<InventoryItem> }
export interface GetHeaders {
  readonly _tag: "getheaders"
  readonly protocolVersion: number
  readonly locator: List<Uint8Array>
  readonly stopHash: Uint8Array
}
export interface GetBlocks {
  readonly _tag: "getblocks"
  readonly protocolVersion: number
  readonly locator: List<Uint8Array>
  readonly stopHash: Uint8Array
}
export interface Headers { readonly _tag: "headers"; readonly headers: List<BlockHeader> }
