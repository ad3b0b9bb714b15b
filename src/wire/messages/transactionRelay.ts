/** Messages of transaction relay that Bitcoin Core does not use by default: reconciliation (BIP330) and packages (BIP331). */
import { Reader } from "../reader.ts"
import { type List, OffsetList, readHashes, writeHashes, writeList } from "../list.ts"
import type { Codec } from "../codec.ts"
import {
  minTransactionSize,
  readTransaction,
  skipTransaction,
  type Transaction,
  writeTransaction
} from "./transaction.ts"

/**
 * A `getpkgtxns`, and so a `pkgtxns`, has at most 100 transactions.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxPackageTransactions = 100

/**
 * The count of `ancpkginfo` takes one or three bytes: at most 65,535 transactions.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxPackageInfo = 65_535

/**
 * Offers to reconcile transaction announcements (BIP330), before `verack`. This package reads and writes the message but does not
 * reconcile; as in Bitcoin Core without reconciliation, an offer after `verack` is ignored.
 *
 * @category models
 * @since 0.1.0
 */
export interface SendTxRcncl {
  readonly _tag: "sendtxrcncl"
  /** uint32; 1 today. */
  readonly version: number
  /** 64 bits: the sender's part of the salt of short ids. */
  readonly salt: bigint
}

/**
 * Offers to relay packages (BIP331), before `verack`. This package does not disconnect a peer that sends it later; nor does Bitcoin
 * Core, which does not know the message.
 *
 * @category models
 * @since 0.1.0
 */
export interface SendPackages {
  readonly _tag: "sendpackages"
  /** 64 bits: 1 for `getpkgtxns` and `pkgtxns`, 2 for `ancpkginfo`; unknown ones are kept. */
  readonly versions: bigint
}

/**
 * The wtxids of the unconfirmed ancestors of a transaction and, last, of the transaction itself (BIP331). Answers a `getdata` of
 * `InventoryType.ancestorPackageInfo`. At most 65,535; more is `TooMany`: message dropped.
 *
 * @category models
 * @since 0.1.0
 */
export interface AncPkgInfo {
  readonly _tag: "ancpkginfo"
  /** 32 bytes each, wire order. */
  readonly wtxids: List<Uint8Array>
}

/**
 * Asks for transactions; the receiver sends all of them or refuses (BIP331). At most 100; more is `TooMany`: disconnect.
 *
 * @category models
 * @since 0.1.0
 */
export interface GetPkgTxns {
  readonly _tag: "getpkgtxns"
  /** 32 bytes each, wire order. */
  readonly wtxids: List<Uint8Array>
}

/**
 * Answers a `getpkgtxns` with its transactions, in the same order (BIP331). At most 100; more is `TooMany`: message dropped.
 *
 * @category models
 * @since 0.1.0
 */
export interface PkgTxns {
  readonly _tag: "pkgtxns"
  readonly transactions: List<Transaction>
}

export const sendtxrcncl: Codec<SendTxRcncl> = {
  decode: (reader) => ({ _tag: "sendtxrcncl", version: reader.u32("version"), salt: reader.u64("salt") }),
  encode: (writer, message) => {
    writer.u32(message.version, "version")
    writer.u64(message.salt, "salt")
  }
}

export const sendpackages: Codec<SendPackages> = {
  decode: (reader) => ({ _tag: "sendpackages", versions: reader.u64("versions") }),
  encode: (writer, message) => writer.u64(message.versions, "versions")
}

export const ancpkginfo: Codec<AncPkgInfo> = {
  decode: (reader) => ({ _tag: "ancpkginfo", wtxids: readHashes(reader, "wtxids", maxPackageInfo) }),
  encode: (writer, message) => writeHashes(writer, message.wtxids, "wtxids", maxPackageInfo)
}

export const getpkgtxns: Codec<GetPkgTxns> = {
  decode: (reader) => {
    const wtxids = readHashes(reader, "wtxids")
    reader.atMost(maxPackageTransactions, wtxids.length, "wtxids")
    return { _tag: "getpkgtxns", wtxids }
  },
  encode: (writer, message) => writeHashes(writer, message.wtxids, "wtxids", maxPackageTransactions)
}

const transactionAt = (bytes: Uint8Array, offset: number): Transaction =>
  readTransaction(new Reader(bytes, "pkgtxns", offset))

export const pkgtxns: Codec<PkgTxns> = {
  decode: (reader) => {
    const count = reader.count("transactions", minTransactionSize, maxPackageTransactions)
    const start = reader.offset
    const offsets: Array<number> = []
    for (let i = 0; i < count; i++) {
      offsets.push(reader.offset)
      skipTransaction(reader)
    }
    return {
      _tag: "pkgtxns",
      transactions: new OffsetList(reader.bytes, start, reader.offset, offsets, transactionAt)
    }
  },
  encode: (writer, message) =>
    writeList(
      writer,
      message.transactions,
      "transactions",
      maxPackageTransactions,
      minTransactionSize,
      transactionAt,
      writeTransaction
    )
}
