/**
 * The messages of the Bitcoin peer-to-peer protocol and the bytes they are made of: types, limits, `encode`, `decode` and
 * the frames of the version 1 transport. Pure and synchronous: nothing here reads a socket, knows a time or keeps a
 * connection.
 *
 * A message is a plain object whose `_tag` is its command, so that it can be spread and compared. Hashes are 32 bytes
 * in wire order, as views over the bytes that arrived; `hashToHex` prints them the usual way round. Lists of a decoded
 * message are views as well (see `List`): `decode` checks all of them, and makes an element when it is asked for.
 *
 * What is wrong with received bytes or with a message to send is a `WireError`, as a `Result` or an event. No input from
 * the network causes anything else.
 */
import * as Result from "effect/Result"
import { plainBytes } from "./primitives/bytes.ts"
import { Reader } from "./wire/reader.ts"
import { withWriter } from "./wire/writer.ts"
import * as frame from "./wire/frameV1.ts"
import type { Parser, ParserOptions } from "./wire/frameV1.ts"
import * as address from "./wire/messages/address.ts"
import * as block from "./wire/messages/block.ts"
import type { BlockHeader } from "./wire/messages/block.ts"
import * as control from "./wire/messages/control.ts"
import { commandOf, type Message, readPayload, type TrailingBytes, writeMessage } from "./wire/messages.ts"
import * as hash from "./wire/hashHex.ts"
import * as transaction from "./wire/messages/transaction.ts"
import type { Transaction } from "./wire/messages/transaction.ts"
import { attempt } from "./wire/fail.ts"
import { WireError } from "./WireError.ts"

export { maxPayloadLength } from "./wire/limits.ts"
export type { Dropped, Parser, ParserEvent, ParserOptions, Received } from "./wire/frameV1.ts"
export type { List } from "./wire/list.ts"
export {
  type Addr,
  type AddressV2,
  type AddrV2,
  maxAddresses,
  maxAddressLength,
  type TimestampedAddress
} from "./wire/messages/address.ts"
export { type Alert, maxAlertCommentLength, maxAlertStatusLength } from "./wire/messages/alert.ts"
export type { Block, BlockHeader, BlockMessage } from "./wire/messages/block.ts"
export {
  type BlockTxn,
  type CmpctBlock,
  type GetBlockTxn,
  maxCompactTransactions,
  type PrefilledTransaction
} from "./wire/messages/compactBlock.ts"
export {
  type CFCheckpt,
  type CFHeaders,
  type CFilter,
  compactFilterCheckpointInterval,
  type GetCFCheckpt,
  type GetCFHeaders,
  type GetCFilters,
  maxCompactFilterHeaders,
  maxCompactFilterLength,
  maxCompactFilters
} from "./wire/messages/compactFilter.ts"
export {
  type Feature,
  type FeeFilter,
  type GetAddr,
  maxCommandLength,
  maxFeatureDataLength,
  maxFeatureIdLength,
  maxRejectReasonLength,
  maxUserAgentLength,
  type Mempool,
  minFeatureIdLength,
  type NetworkAddress,
  type Ping,
  type Pong,
  type Reject,
  type SendAddrV2,
  type SendCmpct,
  type SendHeaders,
  Service,
  type Verack,
  type Version,
  type WtxidRelay
} from "./wire/messages/control.ts"
export {
  type FilterAdd,
  type FilterClear,
  type FilterLoad,
  maxFilterElementSize,
  maxFilterHashFunctions,
  maxFilterSize,
  type MerkleBlock
} from "./wire/messages/bloomFilter.ts"
export {
  type GetBlocks,
  type GetData,
  type GetHeaders,
  type Headers,
  type Inv,
  type InventoryItem,
  InventoryType,
  maxHeaders,
  maxInventoryItems,
  maxLocatorHashes,
  type NotFound
} from "./wire/messages/inventory.ts"
export type { KnownMessage, Message, Unknown } from "./wire/messages.ts"
export type { OutPoint, Transaction, TransactionInput, TransactionOutput, Tx } from "./wire/messages/transaction.ts"
export {
  type AncPkgInfo,
  type GetPkgTxns,
  maxPackageInfo,
  maxPackageTransactions,
  type PkgTxns,
  type SendPackages,
  type SendTxRcncl
} from "./wire/messages/transactionRelay.ts"
export { WireError, type WireReason } from "./WireError.ts"

/** How strict `decode` is. */
export interface DecodeOptions {
  /** Bytes left over after the last field: tolerate them (the default, as Core does), or `TrailingBytes`. */
  readonly trailingBytes?: TrailingBytes
}

/**
 * The command that a message has on the wire: its tag, or what an `Unknown` says.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * console.log(Wire.command({ _tag: "ping", nonce: 1n })) // ping
 * console.log(Wire.command({ _tag: "Unknown", command: "greeting", payload: new Uint8Array(0) })) // greeting
 * ```
 */
export const command = (message: Message): string => commandOf(message)

/**
 * The payload of a message, without frame, in a fresh buffer.
 *
 * Fails with `BadValue` where a number does not fit its field, a hash is not 32 bytes, an address has not the length of
 * its network or a character is not one byte; with `TooMany` above the limit of a list or string; with
 * `PayloadTooLarge` above 4,000,000 bytes. A list of a decoded message is copied as it came, byte for byte.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const payload = Wire.encode({ _tag: "ping", nonce: 1n })
 * console.log(Result.getOrThrow(payload)) // Uint8Array(8) [1, 0, 0, 0, 0, 0, 0, 0]
 * ```
 */
export const encode = (message: Message): Result.Result<Uint8Array, WireError> =>
  attempt(() =>
    withWriter((writer) => {
      writeMessage(writer, message)
      return writer.take()
    })
  )

/**
 * The message that a payload holds; an `Unknown` for a command this package does not know.
 *
 * The whole payload is checked: every count against its limit and against the bytes that follow before anything is
 * allocated, every length, and that all bytes are there. The lists, hashes and scripts of the message are views over
 * `payload`, which must not be written to afterwards. Fails with `Truncated`, `BadCompactSize`, `TooMany`, `BadValue`
 * or `TrailingBytes` (always for `feature`, else only where `options` say so), and with `PayloadTooLarge` above
 * 4,000,000 bytes. Such a message is dropped and counted; the connection stays unless the `Policy` says otherwise.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const message = Wire.decode("feefilter", Uint8Array.of(0xe8, 3, 0, 0, 0, 0, 0, 0))
 * console.log(Result.getOrThrow(message)) // { _tag: "feefilter", feeRate: 1000 }
 *
 * const short = Wire.decode("feefilter", Uint8Array.of(0xe8, 3))
 * if (Result.isFailure(short)) console.log(short.failure.message) // feefilter: payload ends inside "feeRate" at byte 0
 * ```
 */
export const decode = (
  command: string,
  payload: Uint8Array,
  options?: DecodeOptions
): Result.Result<Message, WireError> => attempt(() => readPayload(command, payload, options?.trailingBytes))

/**
 * Messages as version 1 frames, one behind the other in one fresh buffer.
 *
 * `magic` is the network's four bytes. Fails as `encode` does, for all messages if for one.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const magic = Uint8Array.of(0xfa, 0xbf, 0xb5, 0xda)
 * const bytes = Wire.encodeFrames(magic, [{ _tag: "verack" }, { _tag: "ping", nonce: 1n }])
 * console.log(Result.getOrThrow(bytes).length) // 24 + 24 + 8 = 56
 * ```
 */
export const encodeFrames = (
  magic: Uint8Array,
  messages: ReadonlyArray<Message>
): Result.Result<Uint8Array, WireError> => attempt(() => frame.writeFrames(magic, messages))

/**
 * A parser of version 1 frames, which takes the bytes of one connection in chunks of any size.
 *
 * A frame that is wholly in a chunk is decoded as a view over it; a chunk handed to `push` must therefore not be
 * written to any more. Frames that are wrong become `Dropped` events and the stream goes on: `BadChecksum` (looked at
 * first, then the payload is not), `BadCommand`, and whatever `decode` fails with. `WrongMagic`, noticed at the first
 * byte that differs, a length above 4,000,000 (`PayloadTooLarge`, noticed as soon as the header is there) and, with
 * "disconnect", the others are final: `push` returns what came before and `failure` is set. A header costs no memory
 * before its payload arrives, and buffers are never more than 256 KiB ahead of it.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const magic = Uint8Array.of(0xfa, 0xbf, 0xb5, 0xda)
 * const bytes = Result.getOrThrow(Wire.encodeFrames(magic, [{ _tag: "ping", nonce: 7n }]))
 * const parser = Wire.makeParser({ magic })
 * console.log(parser.push(bytes.subarray(0, 30)), parser.buffered) // [] 30
 * console.log(parser.push(bytes.subarray(30))) // [{ _tag: "Received", message: { _tag: "ping", nonce: 7n }, size: 32 }]
 * ```
 */
export const makeParser = (options: ParserOptions): Parser => frame.makeParser(options)

/**
 * The hash of a block, 32 bytes in wire order: SHA-256 twice over the 80 bytes of its header.
 *
 * Throws a `WireError` for a header that cannot be encoded, which a decoded one never is.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const genesis = {
 *   version: 1,
 *   previousBlock: new Uint8Array(32),
 *   merkleRoot: Wire.hashFromHex("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"),
 *   timestamp: 1231006505,
 *   bits: 0x1d00ffff,
 *   nonce: 2083236893
 * }
 * console.log(Wire.hashToHex(Wire.blockHash(genesis))) // 000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f
 * ```
 */
export const blockHash = (header: BlockHeader): Uint8Array => block.blockHash(header)

/**
 * The id of a transaction, 32 bytes in wire order: SHA-256 twice over its form without witnesses.
 *
 * Throws a `WireError` for a transaction that cannot be encoded, which a decoded one never is.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const coinbase = {
 *   previousOutput: { txid: new Uint8Array(32), index: 0xffffffff },
 *   script: Uint8Array.of(1, 2, 3),
 *   sequence: 0xffffffff,
 *   witness: [new Uint8Array(32)]
 * }
 * const transaction = { version: 2, inputs: [coinbase], outputs: [{ value: 50_0000_0000, script: Uint8Array.of(0x51) }], lockTime: 0 }
 * console.log(Wire.hashToHex(Wire.txid(transaction)) === Wire.hashToHex(Wire.wtxid(transaction))) // false
 * ```
 */
export const txid = (transaction_: Transaction): Uint8Array => transaction.txid(transaction_)

/**
 * The id of a transaction with its witnesses (BIP141), 32 bytes in wire order. Equal to `txid` where there are none.
 *
 * For the coinbase this is the hash of its bytes, not the zeros that BIP141's commitment takes in its place. Throws as
 * `txid` does.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const empty = { version: 1, inputs: [], outputs: [], lockTime: 0 }
 * console.log(Wire.hashToHex(Wire.wtxid(empty)) === Wire.hashToHex(Wire.txid(empty))) // true
 * ```
 */
export const wtxid = (transaction_: Transaction): Uint8Array => transaction.wtxid(transaction_)

/**
 * The merkle root of hashes of 32 bytes in wire order, as in a block header; zeros for no hashes.
 *
 * It does not look for the repeated hashes of CVE-2012-2459, with which two different lists have one root.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const only = Wire.hashFromHex("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b")
 * console.log(Wire.hashToHex(Wire.merkleRoot([only]))) // a block with one transaction: the root is its txid
 * ```
 */
export const merkleRoot = (txids: ReadonlyArray<Uint8Array>): Uint8Array => block.merkleRoot(txids)

/**
 * A hash as people write it: hexadecimal in lower case, reversed.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * console.log(Wire.hashToHex(Uint8Array.of(1, 2, 0xff))) // ff0201
 * ```
 */
export const hashToHex = (bytes: Uint8Array): string => hash.toHex(bytes)

/**
 * The 32 bytes, in wire order, of a hash as people write it: 64 hexadecimal digits of either case.
 *
 * Throws a `WireError` (`BadValue`) for anything else.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const genesis = Wire.hashFromHex("000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f")
 * console.log(genesis[0] === 0x6f, genesis[31] === 0) // true true
 * ```
 */
export const hashFromHex = (hex: string): Uint8Array => hash.fromHex(hex)

/**
 * The bytes of a transaction, with its witnesses where it has some (BIP144). Fails as `encode` does.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const bytes = Wire.encodeTransaction({ version: 1, inputs: [], outputs: [], lockTime: 0 })
 * console.log(Result.getOrThrow(bytes).length) // 10
 * ```
 */
export const encodeTransaction = (transaction_: Transaction): Result.Result<Uint8Array, WireError> =>
  encode({ _tag: "tx", transaction: transaction_ })

/**
 * The transaction that the bytes hold, with or without witnesses. Fails as `decode` does, and with `TrailingBytes` if
 * there is more than a transaction.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const transaction = Wire.decodeTransaction(Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, 0, 0))
 * console.log(Result.getOrThrow(transaction).version) // 2
 * ```
 */
export const decodeTransaction = (bytes: Uint8Array): Result.Result<Transaction, WireError> =>
  attempt(() => {
    const message = readPayload("tx", bytes, "malformed")
    return (message as Extract<Message, { readonly _tag: "tx" }>).transaction
  })

/**
 * The header in the first 80 bytes of a block, `merkleblock` or `cmpctblock`; what follows is not looked at, so that who
 * passes blocks on pays for no more. Fails with `Truncated` where there are fewer.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 *
 * // A block whose bytes are passed on as they came: see `undecoded` of `makeParser`.
 * const relay = (message: Wire.Message) =>
 *   message._tag === "Unknown" && message.command === "block"
 *     ? Result.map(Wire.decodeBlockHeader(message.payload), Wire.blockHash)
 *     : undefined
 *
 * console.log(relay({ _tag: "verack" })) // undefined
 * ```
 */
export const decodeBlockHeader = (bytes: Uint8Array): Result.Result<BlockHeader, WireError> =>
  attempt(() => {
    const reader = new Reader(plainBytes(bytes), "block")
    reader.skip(block.headerSize, "header")
    return block.readHeader(reader.bytes, 0)
  })

/**
 * Names of service bits, as Bitcoin Core prints them: lowest bit first, `UNKNOWN[2^n]` for those without a name.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * console.log(Wire.serviceNames(Wire.Service.network | Wire.Service.witness | 2n)) // ["NETWORK", "UNKNOWN[2^1]", "WITNESS"]
 * ```
 */
export const serviceNames = (bits: bigint): Array<string> => control.serviceNames(bits)

/**
 * An address as people write it: `1.2.3.4:8333` (IPv4, also where it is mapped into IPv6), `[2001:db8::1]:8333` (IPv6
 * and CJDNS), `….onion:8333` (Tor, with the checksum of version 3), `….b32.i2p` (the port, 0, is left out).
 *
 * An address of an unknown network is written as hexadecimal.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const address = { timestamp: 0, services: 1n, networkId: 1, address: Uint8Array.of(1, 2, 3, 4), port: 8333 }
 * console.log(Wire.formatAddress(address)) // 1.2.3.4:8333
 * ```
 */
export const formatAddress = (of: control.NetworkAddress | address.AddressV2): string => address.formatAddress(of)
