/** Contract, to be filled in. */
import * as Result from "effect/Result"
import type { Addr, AddrV2 } from "./internal/messages/address.ts"
import type { BlockHeader, BlockMessage } from "./internal/messages/block.ts"
import type {
  Feature, FeeFilter, GetAddr, Mempool, Ping, Pong, Reject, SendAddrV2, SendCmpct, SendHeaders, Verack, Version,
  WtxidRelay
} from "./internal/messages/control.ts"
import type { GetBlocks, GetData, GetHeaders, Headers, Inv, NotFound } from "./internal/messages/inventory.ts"
import type { Transaction, Tx } from "./internal/messages/transaction.ts"
import { WireError } from "./internal/wireError.ts"

export type { List } from "./internal/list.ts"
export * from "./internal/messages/address.ts"
export * from "./internal/messages/block.ts"
export * from "./internal/messages/control.ts"
export * from "./internal/messages/inventory.ts"
export * from "./internal/messages/transaction.ts"
export { WireError, type WireReason } from "./internal/wireError.ts"

export interface Unknown { readonly _tag: "Unknown"; readonly command: string; readonly payload: Uint8Array }

export type KnownMessage =
  | Version | Verack | WtxidRelay | SendAddrV2 | SendHeaders | SendCmpct | Feature | Ping | Pong | GetAddr | Addr
  | AddrV2 | Inv | GetData | NotFound | GetHeaders | Headers | GetBlocks | Mempool | FeeFilter | Tx | BlockMessage
  | Reject

export type Message = KnownMessage | Unknown

/** 12-byte command of a message. */
export const command = (message: Message): string => (message._tag === "Unknown" ? message.command : message._tag)

export interface DecodeOptions { readonly trailingBytes?: "tolerate" | "malformed" | undefined }

export declare const encode: (message: Message) => Result.Result<Uint8Array, WireError>
export declare const decode: (
  command: string, payload: Uint8Array, options?: DecodeOptions
) => Result.Result<Message, WireError>

/** One or several messages as v1 frames in one fresh buffer. */
export declare const encodeFrames: (
  magic: Uint8Array, messages: ReadonlyArray<Message>
) => Result.Result<Uint8Array, WireError>

export interface Received { readonly _tag: "Received"; readonly message: Message; readonly size: number }
export interface Dropped { readonly _tag: "Dropped"; readonly error: WireError; readonly size: number }
export type ParserEvent = Received | Dropped

export interface Parser {
  readonly push: (chunk: Uint8Array) => ReadonlyArray<ParserEvent>
  /** Set once the stream cannot be read any further; `push` returns nothing from then on. */
  readonly failure: WireError | undefined
  /** Bytes held back for a frame that is not complete. */
  readonly buffered: number
}
export interface ParserOptions {
  readonly magic: Uint8Array
  readonly badChecksum?: "drop" | "disconnect" | undefined
  readonly malformed?: "drop" | "disconnect" | undefined
  readonly trailingBytes?: "tolerate" | "malformed" | undefined
}
export declare const makeParser: (options: ParserOptions) => Parser

export declare const blockHash: (header: BlockHeader) => Uint8Array
export declare const txid: (transaction: Transaction) => Uint8Array
export declare const wtxid: (transaction: Transaction) => Uint8Array
export declare const merkleRoot: (txids: ReadonlyArray<Uint8Array>) => Uint8Array
export declare const hashToHex: (hash: Uint8Array) => string
export declare const hashFromHex: (hex: string) => Uint8Array
export declare const encodeTransaction: (transaction: Transaction) => Result.Result<Uint8Array, WireError>
export declare const decodeTransaction: (bytes: Uint8Array) => Result.Result<Transaction, WireError>
