/**
 * Messages as JSON, for files, logs and programs in other languages: a `Schema` codec of every message.
 *
 * The JSON has the fields of the message under the same names. Hashes are 64 hexadecimal digits, reversed as Bitcoin Core prints
 * them. Other bytes are hexadecimal in the order they are in, 64-bit numbers are decimal strings, and texts of the wire
 * have one character for each byte. A missing `nonce` or `hash` is a missing key.
 *
 * `Wire` does not need this module: a program that does not import it does not pay for `Schema`.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as SchemaTransformation from "effect/SchemaTransformation"
import * as Wire from "./Wire.ts"

const Hash = Schema.String.check(Schema.isPattern(/^[0-9a-fA-F]{64}$/, { expected: "64 hexadecimal digits" })).pipe(
  Schema.decodeTo(
    Schema.Uint8Array,
    SchemaTransformation.transform({ decode: Wire.hashFromHex, encode: Wire.hashToHex })
  )
)
const Bytes = Schema.Uint8ArrayFromHex
const U8 = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xff }))
const U16 = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 0xffff }))
const U32 = Schema.Int.check(Schema.isUint32())
const I32 = Schema.Int.check(Schema.isInt32())
const U48 = Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 2 ** 48 - 1 }))
// `BigInt` takes quadratic time: seconds for a text of some megabytes.
const U64 = Schema.String.check(Schema.isPattern(/^[0-9]{1,20}$/, { expected: "a decimal number of 1 to 20 digits" }))
  .pipe(Schema.decodeTo(Schema.BigInt, SchemaTransformation.bigintFromString))
  .check(Schema.isBetweenBigInt({ minimum: 0n, maximum: 2n ** 64n - 1n }))
/** A decoded message may have one beyond 2^53, which is inexact: `encode` of `Wire` refuses it. */
const I64 = Schema.Finite.check(
  Schema.makeFilter((value: number) => Number.isInteger(value), { expected: "an integer" })
)

/** A field that is `undefined` in a message and no key in JSON. */
const Absent = <S extends Schema.Constraint>(schema: S) =>
  Schema.optionalKey(schema).pipe(
    Schema.decodeTo(Schema.UndefinedOr(Schema.toType(schema)), {
      decode: SchemaGetter.transformOptional((given) => Option.some(Option.getOrUndefined(given))),
      encode: SchemaGetter.transformOptional(Option.filter((value) => value !== undefined))
    })
  )

const NetworkAddress = { services: U64, address: Bytes, port: U16 }
const TimestampedAddress = Schema.Struct({ timestamp: U32, ...NetworkAddress })
const AddressV2 = Schema.Struct({ timestamp: U32, services: U64, networkId: U8, address: Bytes, port: U16 })
const Items = { items: Schema.Array(Schema.Struct({ type: U32, hash: Hash })) }
const Locator = { protocolVersion: I32, locator: Schema.Array(Hash), stopHash: Hash }
const BlockHeader = Schema.Struct({
  version: I32,
  previousBlock: Hash,
  merkleRoot: Hash,
  timestamp: U32,
  bits: U32,
  nonce: U32
})
const Transaction = Schema.Struct({
  version: U32,
  inputs: Schema.Array(
    Schema.Struct({
      previousOutput: Schema.Struct({ txid: Hash, index: U32 }),
      script: Bytes,
      sequence: U32,
      witness: Schema.Array(Bytes)
    })
  ),
  outputs: Schema.Array(Schema.Struct({ value: I64, script: Bytes })),
  lockTime: U32
})
const FilterRange = { filterType: U8, startHeight: U32, stopHash: Hash }

/** A codec for the plain form of each message. */
const PlainMessage = Schema.TaggedUnion({
  version: {
    protocolVersion: I32,
    services: U64,
    timestamp: I64,
    receiver: Schema.Struct(NetworkAddress),
    sender: Schema.Struct(NetworkAddress),
    nonce: U64,
    userAgent: Schema.String,
    startHeight: I32,
    relay: Schema.Boolean
  },
  verack: {},
  wtxidrelay: {},
  sendaddrv2: {},
  sendheaders: {},
  sendcmpct: { announce: Schema.Boolean, version: U64 },
  feature: { id: Schema.String, data: Bytes },
  ping: { nonce: Absent(U64) },
  pong: { nonce: U64 },
  getaddr: {},
  addr: { addresses: Schema.Array(TimestampedAddress) },
  addrv2: { addresses: Schema.Array(AddressV2) },
  inv: Items,
  getdata: Items,
  notfound: Items,
  getheaders: Locator,
  headers: { headers: Schema.Array(BlockHeader) },
  getblocks: Locator,
  mempool: {},
  feefilter: { feeRate: I64 },
  tx: { transaction: Transaction },
  block: { block: Schema.Struct({ header: BlockHeader, transactions: Schema.Array(Transaction) }) },
  filterload: { filter: Bytes, hashFunctions: U32, tweak: U32, flags: U8 },
  filteradd: { data: Bytes },
  filterclear: {},
  merkleblock: { header: BlockHeader, transactionCount: U32, hashes: Schema.Array(Hash), flags: Bytes },
  cmpctblock: {
    header: BlockHeader,
    nonce: U64,
    shortIds: Schema.Array(U48),
    prefilled: Schema.Array(Schema.Struct({ index: U16, transaction: Transaction }))
  },
  getblocktxn: { blockHash: Hash, indexes: Schema.Array(U16) },
  blocktxn: { blockHash: Hash, transactions: Schema.Array(Transaction) },
  reject: { rejected: Schema.String, code: U8, reason: Schema.String, hash: Absent(Hash) },
  getcfilters: FilterRange,
  cfilter: { filterType: U8, blockHash: Hash, filter: Bytes },
  getcfheaders: FilterRange,
  cfheaders: { filterType: U8, stopHash: Hash, previousFilterHeader: Hash, filterHashes: Schema.Array(Hash) },
  getcfcheckpt: { filterType: U8, stopHash: Hash },
  cfcheckpt: { filterType: U8, stopHash: Hash, filterHeaders: Schema.Array(Hash) },
  sendtxrcncl: { version: U32, salt: U64 },
  sendpackages: { versions: U64 },
  ancpkginfo: { wtxids: Schema.Array(Hash) },
  getpkgtxns: { wtxids: Schema.Array(Hash) },
  pkgtxns: { transactions: Schema.Array(Transaction) },
  alert: {
    payload: Bytes,
    signature: Bytes,
    version: I32,
    relayUntil: I64,
    expiration: I64,
    id: I32,
    cancel: I32,
    alsoCancel: Schema.Array(I32),
    minimumVersion: I32,
    maximumVersion: I32,
    userAgents: Schema.Array(Bytes),
    priority: I32,
    comment: Schema.String,
    statusBar: Schema.String,
    reserved: Schema.String
  },
  Unknown: { command: Schema.String, payload: Bytes }
}).annotate({ message: 'Expected an object whose "_tag" is "Unknown" or the command of a message' })

/**
 * A message as JSON.
 *
 * @category models
 * @since 0.1.0
 */
export type MessageJson = typeof PlainMessage.Encoded

const isMessage = (value: unknown): value is Wire.Message =>
  typeof value === "object" && value !== null && "_tag" in value

/**
 * The codec of messages and JSON. It encodes any message, decoded from the wire or made by hand, and decodes to a message of plain
 * arrays (see `Wire.toPlain`).
 *
 * Types and ranges of numbers are checked in both directions. The limits of lists and texts are not: `Wire.encode` checks them.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Wire, WireJson } from "effect-bitcoin-peer"
 *
 * const MessageFromLine = Schema.fromJsonString(WireJson.Message)
 * const line = Schema.encodeSync(MessageFromLine)({ _tag: "inv", items: [{ type: 2, hash: new Uint8Array(32).fill(0xab, 31) }] })
 * console.log(line) // {"_tag":"inv","items":[{"type":2,"hash":"ab00000000000000000000000000000000000000000000000000000000000000"}]}
 *
 * const message: Wire.Message = Schema.decodeSync(MessageFromLine)('{"_tag":"ping","nonce":"18446744073709551615"}')
 * console.log(message) // { _tag: "ping", nonce: 18446744073709551615n }
 * ```
 *
 * @category schemas
 * @since 0.1.0
 */
export const Message: Schema.Codec<Wire.Message, MessageJson> = PlainMessage.pipe(
  Schema.decodeTo(
    Schema.declare(isMessage, { expected: "a message" }),
    SchemaTransformation.transform({ decode: (message): Wire.Message => message, encode: Wire.toPlain })
  )
)
