/** The messages of compact filters (BIP157). The filters themselves are in CompactFilter.ts. */
import { maxCompactSize } from "../limits.ts"
import { type Reader } from "../reader.ts"
import { type Writer } from "../writer.ts"
import { type List, readHashes, writeHashes } from "../list.ts"
import type { Codec } from "../codec.ts"

/**
 * A `getcfilters` asks for the filters of at most 1,000 blocks.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxCompactFilters = 1_000

/**
 * A `getcfheaders` asks for, and a `cfheaders` has, the filter hashes of at most 2,000 blocks.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxCompactFilterHeaders = 2_000

/**
 * A filter in a `cfilter` is at most 262,144 bytes: a block of 4,000,000 weight has no more elements than fit into that (the limit of btcd).
 *
 * @category constants
 * @since 0.1.0
 */
export const maxCompactFilterLength = 262_144

/**
 * A `cfcheckpt` has the filter header of each block whose height is a multiple of 1,000, the first at 1,000.
 *
 * @category constants
 * @since 0.1.0
 */
export const compactFilterCheckpointInterval = 1_000

/**
 * Asks for the filters of a range of blocks (BIP157). A receiver that does not offer `Service.compactFilters` disconnects.
 *
 * The other checks need the chain and belong to the handler of a serving node: Bitcoin Core also disconnects for a type other
 * than 0, a last block that it does not know or does not serve, a first height above the last one, and more than 1,000 blocks.
 *
 * @category models
 * @since 0.1.0
 */
export interface GetCFilters {
  readonly _tag: "getcfilters"
  /** One byte; 0 is the basic filter of BIP158. */
  readonly filterType: number
  /** Height of the first block, uint32. */
  readonly startHeight: number
  /** Hash of the last block, 32 bytes in wire order. */
  readonly stopHash: Uint8Array
}

/**
 * The filter of a block (BIP157). A `getcfilters` is answered with one for each block, in order.
 *
 * @category models
 * @since 0.1.0
 */
export interface CFilter {
  readonly _tag: "cfilter"
  /** One byte; 0 is the basic filter of BIP158. */
  readonly filterType: number
  /** 32 bytes, wire order. */
  readonly blockHash: Uint8Array
  /**
   * The number of elements and the coded set, which are the bytes that are hashed. At most 262,144; more is `TooMany`: message
   * dropped. See `CompactFilter.decode`.
   */
  readonly filter: Uint8Array
}

/**
 * Asks for the filter hashes of a range of at most 2,000 blocks (BIP157). All else is as for `GetCFilters`.
 *
 * @category models
 * @since 0.1.0
 */
export interface GetCFHeaders {
  readonly _tag: "getcfheaders"
  /** One byte; 0 is the basic filter of BIP158. */
  readonly filterType: number
  /** Height of the first block, uint32. */
  readonly startHeight: number
  /** Hash of the last block, 32 bytes in wire order. */
  readonly stopHash: Uint8Array
}

/**
 * Answers a `getcfheaders` (BIP157) with filter hashes. `CompactFilter.verifyHeaders` makes filter headers of them. At most
 * 2,000; more is `TooMany`: disconnect.
 *
 * @category models
 * @since 0.1.0
 */
export interface CFHeaders {
  readonly _tag: "cfheaders"
  /** One byte; 0 is the basic filter of BIP158. */
  readonly filterType: number
  /** Hash of the last block, 32 bytes in wire order. */
  readonly stopHash: Uint8Array
  /** The filter header of the block before the first one, 32 bytes in wire order; zeros before the genesis block. */
  readonly previousFilterHeader: Uint8Array
  /** 32 bytes each, by height. */
  readonly filterHashes: List<Uint8Array>
}

/**
 * Asks for the filter headers of all blocks at multiples of 1,000 (BIP157). All else is as for `GetCFilters`.
 *
 * @category models
 * @since 0.1.0
 */
export interface GetCFCheckpt {
  readonly _tag: "getcfcheckpt"
  /** One byte; 0 is the basic filter of BIP158. */
  readonly filterType: number
  /** Hash of the last block of the chain, 32 bytes in wire order. */
  readonly stopHash: Uint8Array
}

/**
 * Answers a `getcfcheckpt` (BIP157).
 *
 * @category models
 * @since 0.1.0
 */
export interface CFCheckpt {
  readonly _tag: "cfcheckpt"
  /** One byte; 0 is the basic filter of BIP158. */
  readonly filterType: number
  /** Hash of the last block of the chain, 32 bytes in wire order. */
  readonly stopHash: Uint8Array
  /** Filter headers of the blocks at heights 1,000, 2,000 and so on, 32 bytes each. */
  readonly filterHeaders: List<Uint8Array>
}

interface Range {
  readonly filterType: number
  readonly startHeight: number
  readonly stopHash: Uint8Array
}

const readRange = (reader: Reader): Range => ({
  filterType: reader.u8("filterType"),
  startHeight: reader.u32("startHeight"),
  stopHash: reader.view(32, "stopHash")
})

const writeRange = (writer: Writer, message: Range): void => {
  writer.u8(message.filterType, "filterType")
  writer.u32(message.startHeight, "startHeight")
  writer.fixed(message.stopHash, 32, "stopHash")
}

export const getcfilters: Codec<GetCFilters> = {
  decode: (reader) => ({ _tag: "getcfilters", ...readRange(reader) }),
  encode: writeRange
}

export const getcfheaders: Codec<GetCFHeaders> = {
  decode: (reader) => ({ _tag: "getcfheaders", ...readRange(reader) }),
  encode: writeRange
}

export const cfilter: Codec<CFilter> = {
  decode: (reader) => ({
    _tag: "cfilter",
    filterType: reader.u8("filterType"),
    blockHash: reader.view(32, "blockHash"),
    filter: reader.varBytes("filter", maxCompactFilterLength)
  }),
  encode: (writer, message) => {
    writer.u8(message.filterType, "filterType")
    writer.fixed(message.blockHash, 32, "blockHash")
    writer.varBytes(message.filter, "filter", maxCompactFilterLength)
  }
}

export const cfheaders: Codec<CFHeaders> = {
  decode: (reader) => {
    const filterType = reader.u8("filterType")
    const stopHash = reader.view(32, "stopHash")
    const previousFilterHeader = reader.view(32, "previousFilterHeader")
    const filterHashes = readHashes(reader, "filterHashes")
    reader.atMost(maxCompactFilterHeaders, filterHashes.length, "filterHashes")
    return { _tag: "cfheaders", filterType, stopHash, previousFilterHeader, filterHashes }
  },
  encode: (writer, message) => {
    writer.u8(message.filterType, "filterType")
    writer.fixed(message.stopHash, 32, "stopHash")
    writer.fixed(message.previousFilterHeader, 32, "previousFilterHeader")
    writeHashes(writer, message.filterHashes, "filterHashes", maxCompactFilterHeaders)
  }
}

export const getcfcheckpt: Codec<GetCFCheckpt> = {
  decode: (reader) => ({
    _tag: "getcfcheckpt",
    filterType: reader.u8("filterType"),
    stopHash: reader.view(32, "stopHash")
  }),
  encode: (writer, message) => {
    writer.u8(message.filterType, "filterType")
    writer.fixed(message.stopHash, 32, "stopHash")
  }
}

export const cfcheckpt: Codec<CFCheckpt> = {
  decode: (reader) => ({
    _tag: "cfcheckpt",
    filterType: reader.u8("filterType"),
    stopHash: reader.view(32, "stopHash"),
    filterHeaders: readHashes(reader, "filterHeaders")
  }),
  encode: (writer, message) => {
    writer.u8(message.filterType, "filterType")
    writer.fixed(message.stopHash, 32, "stopHash")
    writeHashes(writer, message.filterHeaders, "filterHeaders", maxCompactSize)
  }
}
