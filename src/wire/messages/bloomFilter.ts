/** The messages of bloom filters (BIP37): the filter of a connection, and filtered blocks. */
import { maxCompactSize } from "../limits.ts"
import { type List, readHashes, writeHashes } from "../list.ts"
import { fail } from "../fail.ts"
import { type BlockHeader, headerSize, readHeader, writeHeader } from "./block.ts"
import type { Codec } from "../codec.ts"

/**
 * A bloom filter is at most 36,000 bytes.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxFilterSize = 36_000

/**
 * A bloom filter has at most 50 hash functions.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxFilterHashFunctions = 50

/**
 * The element of a `filteradd` is at most 520 bytes, the largest push of a script.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxFilterElementSize = 520

/**
 * BIP37: asks to announce only transactions that match this bloom filter, and sets the filter of filtered blocks. Replaces the
 * previous filter. The receiver must offer `Service.bloom`. More than 36,000 bytes or 50 hash functions is `TooMany`:
 * disconnect. `BloomFilter` makes and reads it.
 *
 * @category models
 * @since 0.1.0
 */
export interface FilterLoad {
  readonly _tag: "filterload"
  /** At most 36,000 bytes. Bit n of the filter is bit n % 8, counted from the lowest, of byte n / 8. */
  readonly filter: Uint8Array
  /** At most 50; uint32. */
  readonly hashFunctions: number
  /** Makes the hash functions of two filters differ; uint32. */
  readonly tweak: number
  /** One byte. Its lowest two bits say which outpoints are added on a match: 0 none, 1 all, 2 pay to pubkey only. */
  readonly flags: number
}

/**
 * BIP37: adds an element to the filter. More than 520 bytes is `TooMany`: disconnect.
 *
 * @category models
 * @since 0.1.0
 */
export interface FilterAdd {
  readonly _tag: "filteradd"
  /** At most 520 bytes. */
  readonly data: Uint8Array
}

/**
 * BIP37: removes the filter, and so asks to announce all transactions. No payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface FilterClear {
  readonly _tag: "filterclear"
}

/**
 * BIP37: the header of a block and the part of its merkle tree that proves which transactions matched. Answers a `getdata` for a
 * filtered block; the matching transactions follow as `tx` messages.
 *
 * `decode` checks the form only. `MerkleBlock.verify` checks the proof and gives the transactions. Hashes and flags have no limit
 * but the size of the message.
 *
 * @category models
 * @since 0.1.0
 */
export interface MerkleBlock {
  readonly _tag: "merkleblock"
  readonly header: BlockHeader
  /** The number of transactions of the whole block; uint32. */
  readonly transactionCount: number
  /** Hashes of nodes of the merkle tree, depth first; 32 bytes each in wire order. */
  readonly hashes: List<Uint8Array>
  /** One bit for each visited node, depth first, lowest bit first: whether the node, or a node below it, matched. */
  readonly flags: Uint8Array
}

const hashFunctions = "hashFunctions"

export const filterload: Codec<FilterLoad> = {
  decode: (reader) => {
    const filter = reader.varBytes("filter")
    const count = reader.u32(hashFunctions)
    const tweak = reader.u32("tweak")
    const flags = reader.u8("flags")
    reader.atMost(maxFilterSize, filter.length, "filter")
    reader.atMost(maxFilterHashFunctions, count, hashFunctions)
    return { _tag: "filterload", filter, hashFunctions: count, tweak, flags }
  },
  encode: (writer, message) => {
    writer.varBytes(message.filter, "filter", maxFilterSize)
    const count = message.hashFunctions
    writer.u32(count, hashFunctions)
    if (count > maxFilterHashFunctions) {
      fail(writer.command, { _tag: "TooMany", field: hashFunctions, count, limit: maxFilterHashFunctions })
    }
    writer.u32(message.tweak, "tweak")
    writer.u8(message.flags, "flags")
  }
}

export const filteradd: Codec<FilterAdd> = {
  decode: (reader) => {
    const data = reader.varBytes("data")
    reader.atMost(maxFilterElementSize, data.length, "data")
    return { _tag: "filteradd", data }
  },
  encode: (writer, message) => writer.varBytes(message.data, "data", maxFilterElementSize)
}

const cleared: FilterClear = Object.freeze({ _tag: "filterclear" })

export const filterclear: Codec<FilterClear> = { decode: () => cleared, encode: () => {} }

export const merkleblock: Codec<MerkleBlock> = {
  decode: (reader) => {
    const start = reader.offset
    reader.skip(headerSize, "header")
    return {
      _tag: "merkleblock",
      header: readHeader(reader.bytes, start),
      transactionCount: reader.u32("transactionCount"),
      hashes: readHashes(reader, "hashes"),
      flags: reader.varBytes("flags")
    }
  },
  encode: (writer, message) => {
    writeHeader(writer, message.header)
    writer.u32(message.transactionCount, "transactionCount")
    writeHashes(writer, message.hashes, "hashes", maxCompactSize)
    writer.varBytes(message.flags, "flags")
  }
}
