/** All messages, and the one place where a command leads to a codec. */
import { maxPayloadLength } from "./limits.ts"
import { plainBytes } from "../primitives/bytes.ts"
import { Reader } from "./reader.ts"
import { type Writer } from "./writer.ts"
import { fail, failReading } from "./fail.ts"
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
 * A message with a command that this package does not know. It is no error: hand it on or ignore it, the connection
 * stays.
 */
export interface Unknown {
  readonly _tag: "Unknown"
  /** 1 to 12 printable ASCII characters; a received one can also be empty. */
  readonly command: string
  /** As it came, at most 4,000,000 bytes. */
  readonly payload: Uint8Array
}

/** Messages with a type of their own. The tag is the command on the wire. */
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

/** Whatever a peer can send: a plain object with a tag, never changed. */
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

/** A `Map`, because a peer can also send the command "constructor". */
const byCommand = new Map<string, Codec<Message>>(Object.entries(codecs) as Array<[string, Codec<Message>]>)

/** The commands with a codec. */
export const knownCommands: ReadonlyArray<string> = Array.from(byCommand.keys())

export const commandOf = (message: Message): string => (message._tag === "Unknown" ? message.command : message._tag)

export type TrailingBytes = "tolerate" | "malformed" | undefined

/** Throws `WireError`. */
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

/** For payloads that did not come through the parser, which looks at the length before it keeps anything. */
export const readPayload = (command: string, payload: Uint8Array, trailingBytes: TrailingBytes): Message => {
  if (payload.length > maxPayloadLength) {
    failReading(command, { _tag: "PayloadTooLarge", length: payload.length, limit: maxPayloadLength })
  }
  return readMessage(command, plainBytes(payload), trailingBytes)
}

const printable = /^[ -~]{1,12}$/

/** Writes the payload behind what the writer holds. Throws `WireError`. */
export const writeMessage = (writer: Writer, message: Message): void => {
  writer.begin(commandOf(message))
  if (message._tag === "Unknown") {
    if (!printable.test(message.command)) {
      fail(message.command, {
        _tag: "BadValue",
        field: "command",
        problem: "is not 1 to 12 printable ASCII characters"
      })
    }
    writer.raw(message.payload)
  } else {
    byCommand.get(message._tag)!.encode(writer, message)
  }
}
