/**
 * The messages of the Bitcoin peer-to-peer protocol and their bytes: types, limits, `encode`, `decode` and the frames of the
 * version 1 transport. Pure and synchronous: nothing here reads a socket, knows the time or keeps a connection.
 *
 * A message is a plain object whose `_tag` is its command, so that it can be spread and compared. Hashes are 32 bytes
 * in wire order, as views over the bytes that arrived; `hashToHex` prints them reversed, as people write them. The lists of a
 * decoded message are views as well (see `List`): `decode` checks all elements, and makes one each time it is asked for. `toPlain`
 * copies a message into arrays and bytes of its own.
 *
 * Bytes that cannot be read, and messages that cannot be written, give a `WireError`, in a `Result` or an event. No input from
 * the network throws.
 */
export { maxPayloadLength } from "./wire/limits.ts"
export {
  type Dropped,
  encodeFrame,
  encodeFrames,
  makeParser,
  type Parser,
  type ParserEvent,
  type ParserOptions,
  type Received
} from "./wire/frameV1.ts"
export { hashEquals, hashFromHex, hashToHex } from "./wire/hashHex.ts"
export type { List } from "./wire/list.ts"
export {
  type Addr,
  type AddressV2,
  type AddrV2,
  formatAddress,
  maxAddresses,
  maxAddressLength,
  type TimestampedAddress
} from "./wire/messages/address.ts"
export { type Alert, maxAlertCommentLength, maxAlertStatusLength } from "./wire/messages/alert.ts"
export {
  type Block,
  blockHash,
  type BlockHeader,
  type BlockMessage,
  decodeBlockHeader,
  merkleRoot
} from "./wire/messages/block.ts"
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
  serviceNames,
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
export {
  commandOf as command,
  commands,
  decode,
  type DecodeOptions,
  encode,
  type KnownMessage,
  type Message,
  type Unknown
} from "./wire/messages.ts"
export {
  decodeRawTransaction,
  decodeTransaction,
  isCoinbase,
  encodeTransaction,
  type OutPoint,
  type Transaction,
  type TransactionInput,
  type TransactionOutput,
  transactionSize,
  type Tx,
  txid,
  wtxid
} from "./wire/messages/transaction.ts"
export {
  type AncPkgInfo,
  type GetPkgTxns,
  maxPackageInfo,
  maxPackageTransactions,
  type PkgTxns,
  type SendPackages,
  type SendTxRcncl
} from "./wire/messages/transactionRelay.ts"
export { type Plain, toPlain } from "./wire/plain.ts"
export { ProtocolVersion } from "./wire/protocolVersion.ts"
export { WireError, type WireReason } from "./WireError.ts"
