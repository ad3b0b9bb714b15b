/** The union of all messages, and the table that leads from a command to its codec. */
import type * as Result from "effect/Result"
import { plainBytes } from "../primitives/bytes.ts"
import { Reader } from "./reader.ts"
import { withWriter, type Writer } from "./writer.ts"
import type { WireError } from "../WireError.ts"
import { attempt, checkLength, fail, failReading } from "./fail.ts"
import * as address from "./messages/address.ts"
import * as alert from "./messages/alert.ts"
import * as block from "./messages/block.ts"
import type { Codec } from "./codec.ts"
import * as compact from "./messages/compactBlock.ts"
import * as compactFilter from "./messages/compactFilter.ts"
import * as control from "./messages/control.ts"
import * as filter from "./messages/bloomFilter.ts"
import * as inventory from "./messages/inventory.ts"
import * as transaction from "./messages/transaction.ts"
import * as transactionRelay from "./messages/transactionRelay.ts"

/**
 * A message whose command this package does not know. It is not an error: the connection stays, and a program may handle it or
 * ignore it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Unknown {
  readonly _tag: "Unknown"
  /** 1 to 12 printable ASCII characters; the command of a received message can also be empty. */
  readonly command: string
  /** Not decoded, at most 4,000,000 bytes. */
  readonly payload: Uint8Array
}

/**
 * A message that has a type of its own. Its tag is the command on the wire.
 *
 * @category models
 * @since 0.1.0
 */
export type KnownMessage =
  | control.Version
  | control.Verack
  | control.WtxidRelay
  | control.SendAddrV2
  | control.SendHeaders
  | control.SendCmpct
  | control.Feature
  | control.Ping
  | control.Pong
  | control.GetAddr
  | address.Addr
  | address.AddrV2
  | inventory.Inv
  | inventory.GetData
  | inventory.NotFound
  | inventory.GetHeaders
  | inventory.Headers
  | inventory.GetBlocks
  | control.Mempool
  | control.FeeFilter
  | transaction.Tx
  | block.BlockMessage
  | filter.FilterLoad
  | filter.FilterAdd
  | filter.FilterClear
  | filter.MerkleBlock
  | compact.CmpctBlock
  | compact.GetBlockTxn
  | compact.BlockTxn
  | control.Reject
  | compactFilter.GetCFilters
  | compactFilter.CFilter
  | compactFilter.GetCFHeaders
  | compactFilter.CFHeaders
  | compactFilter.GetCFCheckpt
  | compactFilter.CFCheckpt
  | transactionRelay.SendTxRcncl
  | transactionRelay.SendPackages
  | transactionRelay.AncPkgInfo
  | transactionRelay.GetPkgTxns
  | transactionRelay.PkgTxns
  | alert.Alert

/**
 * Any message that a peer can send: a plain object with a tag. No message is ever changed in place.
 *
 * @category models
 * @since 0.1.0
 */
export type Message = KnownMessage | Unknown

const codecs: { readonly [Tag in KnownMessage["_tag"]]: Codec<Extract<KnownMessage, { readonly _tag: Tag }>> } = {
  version: control.version,
  verack: control.verack,
  wtxidrelay: control.wtxidrelay,
  sendaddrv2: control.sendaddrv2,
  sendheaders: control.sendheaders,
  sendcmpct: control.sendcmpct,
  feature: control.feature,
  ping: control.ping,
  pong: control.pong,
  getaddr: control.getaddr,
  addr: address.addr,
  addrv2: address.addrv2,
  inv: inventory.inv,
  getdata: inventory.getdata,
  notfound: inventory.notfound,
  getheaders: inventory.getheaders,
  headers: inventory.headers,
  getblocks: inventory.getblocks,
  mempool: control.mempool,
  feefilter: control.feefilter,
  tx: transaction.tx,
  block: block.block,
  filterload: filter.filterload,
  filteradd: filter.filteradd,
  filterclear: filter.filterclear,
  merkleblock: filter.merkleblock,
  cmpctblock: compact.cmpctblock,
  getblocktxn: compact.getblocktxn,
  blocktxn: compact.blocktxn,
  reject: control.reject,
  getcfilters: compactFilter.getcfilters,
  cfilter: compactFilter.cfilter,
  getcfheaders: compactFilter.getcfheaders,
  cfheaders: compactFilter.cfheaders,
  getcfcheckpt: compactFilter.getcfcheckpt,
  cfcheckpt: compactFilter.cfcheckpt,
  sendtxrcncl: transactionRelay.sendtxrcncl,
  sendpackages: transactionRelay.sendpackages,
  ancpkginfo: transactionRelay.ancpkginfo,
  getpkgtxns: transactionRelay.getpkgtxns,
  pkgtxns: transactionRelay.pkgtxns,
  alert: alert.alert
}

/** A `Map` and not an object, because a peer can send the command "constructor". */
const byCommand = new Map<string, Codec<Message>>(Object.entries(codecs) as Array<[string, Codec<Message>]>)

/**
 * The commands of all messages with a type of their own, each once.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * console.log(Wire.commands.slice(0, 3)) // ["version", "verack", "wtxidrelay"]
 * ```
 *
 * @category constants
 * @since 0.1.0
 */
export const commands = Object.freeze(Object.keys(codecs)) as ReadonlyArray<KnownMessage["_tag"]>

/**
 * The command of a message on the wire: its tag, or the `command` of an `Unknown`.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * console.log(Wire.command({ _tag: "ping", nonce: 1n })) // ping
 * console.log(Wire.command({ _tag: "Unknown", command: "greeting", payload: new Uint8Array(0) })) // greeting
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const commandOf = (message: Message): string => (message._tag === "Unknown" ? message.command : message._tag)

export type TrailingBytes = "tolerate" | "malformed" | undefined

/** Decodes a payload. Throws `WireError`. */
export const readMessage = (command: string, payload: Uint8Array, trailingBytes: TrailingBytes): Message => {
  const codec = byCommand.get(command)
  if (codec === undefined) return { _tag: "Unknown", command, payload }
  const reader = new Reader(payload, command)
  const message = codec.decode(reader)
  if (reader.offset < reader.end && trailingBytes === "malformed") {
    failReading(command, { _tag: "TrailingBytes", count: reader.remaining })
  }
  return message
}

/** For a payload that did not come through a parser, which checks its length. Throws `WireError`. */
export const readPayload = (command: string, payload: Uint8Array, trailingBytes: TrailingBytes): Message => {
  checkLength(command, payload)
  return readMessage(command, plainBytes(payload), trailingBytes)
}

const printable = /^[ -~]{1,12}$/

/** Throws `WireError` for a command that no frame can carry. */
export const checkCommand = (command: string): void => {
  if (typeof command !== "string" || !printable.test(command)) {
    fail(typeof command === "string" ? command : "", {
      _tag: "BadValue",
      field: "command",
      problem: "is not 1 to 12 printable ASCII characters"
    })
  }
}

/** Throws `WireError` for the message of a JavaScript caller that has no tag of a known message. */
const failTag = (message: { readonly _tag: string } | null | undefined): never => {
  if (typeof message !== "object" || message === null) {
    return fail("", { _tag: "BadValue", field: "message", problem: `is ${String(message)} and not an object` })
  }
  const tag: unknown = message._tag
  const shown =
    typeof tag === "string" ? JSON.stringify(tag) : typeof tag === "object" && tag !== null ? "an object" : String(tag)
  const problem = `is ${shown}, which is no message of this package`
  return fail("", { _tag: "BadValue", field: "_tag", problem })
}

/** Appends the payload of a message to the writer. Throws `WireError`. */
export const writeMessage = (writer: Writer, message: Message): void => {
  if (message?._tag === "Unknown") {
    checkCommand(message.command)
    writer.begin(message.command)
    writer.rest(message.payload, "payload")
  } else {
    const codec = byCommand.get(message?._tag) ?? failTag(message)
    writer.begin(message._tag)
    codec.encode(writer, message)
  }
}

/**
 * How strict `decode` is.
 *
 * @category options
 * @since 0.1.0
 */
export interface DecodeOptions {
  /** Whether bytes after the last field are tolerated (the default, as in Core) or fail with `TrailingBytes`. */
  readonly trailingBytes?: TrailingBytes
}

/**
 * The payload of a message, without frame, in a fresh buffer.
 *
 * Fails with `BadValue` where a field is missing or has another type than its own, a number does not fit its field, a hash is not
 * 32 bytes, an address does not have the length of its network, a character is not one byte or a transaction with outputs has no
 * inputs; with `TooMany` above the limit of a list or string; with `PayloadTooLarge` above 4,000,000 bytes. The list of a decoded
 * message is copied byte for byte.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const payload = Wire.encode({ _tag: "ping", nonce: 1n })
 * console.log(Result.getOrThrow(payload)) // Uint8Array(8) [1, 0, 0, 0, 0, 0, 0, 0]
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const encode = (message: Message): Result.Result<Uint8Array, WireError> =>
  attempt(() =>
    withWriter((writer) => {
      writeMessage(writer, message)
      return writer.take()
    })
  )

/**
 * The message in a payload; an `Unknown` for a command that this package does not know.
 *
 * The whole payload is checked: every length, that all bytes are there, and every count, before anything is allocated for it.
 * The lists, hashes and scripts of the message are views over `payload`, which must not be written to afterwards.
 *
 * Fails with `Truncated`, `BadCompactSize`, `TooMany`, `BadValue` or `TrailingBytes` (always for `feature`, else only where
 * `options` say so), and with `PayloadTooLarge` above 4,000,000 bytes. As in Bitcoin Core, the limit of a list is checked only after
 * the whole message was read: a message that is also cut off is `Truncated`.
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
 *
 * @category decoding
 * @since 0.1.0
 */
export const decode = (
  command: string,
  payload: Uint8Array,
  options?: DecodeOptions
): Result.Result<Message, WireError> => attempt(() => readPayload(command, payload, options?.trailingBytes))
