/**
 * Which answer about compact filters [157] is whose: each says itself what it answers, so nothing has to be remembered but
 * who waits. Two with the same question ask twice, and each takes one answer.
 */
import * as Wire from "../../Wire.ts"
import { keyOf } from "./hashKey.ts"

/** Blocks whose filters are asked for. */
export interface CompactFilterRange {
  /** One byte; 0, the basic filter of BIP158, by default. */
  readonly filterType?: number | undefined
  /** Height of the first block. */
  readonly startHeight: number
  /** Of each block, by height: at most 1,000 of 32 bytes in wire order. */
  readonly blockHashes: Wire.List<Uint8Array>
}

/** Blocks whose filter headers are asked for: at most 2,000. */
export interface CompactFilterHeaderRange {
  /** One byte; 0, the basic filter of BIP158, by default. */
  readonly filterType?: number | undefined
  /** Height of the first block. */
  readonly startHeight: number
  /** Height of the last block. */
  readonly stopHeight: number
  /** Hash of the last block, 32 bytes in wire order. */
  readonly stopHash: Uint8Array
}

export type Answer = Wire.CFilter | Wire.CFHeaders | Wire.CFCheckpt

/** Takes an answer that is its own, and says so. */
export type Taker = (answer: Answer) => boolean

/** Who waits, and since when. */
export type Takers = ReadonlyMap<Taker, number>

/** To be called for every answer that arrives: since when somebody waits for it, undefined when nobody does. */
export const received = (takers: Takers, answer: Answer): number | undefined => {
  for (const [take, askedAt] of takers) if (take(answer)) return askedAt
  return undefined
}

/** Takes the filters of all blocks; `done` gets them by height, in whatever order they came. */
export const takeFilters = (
  filterType: number,
  blockHashes: ReadonlyArray<Uint8Array>,
  done: (filters: ReadonlyArray<Wire.CFilter>) => void
): Taker => {
  const wanted = new Map(blockHashes.map((hash, index) => [keyOf(hash), index]))
  const filters: Array<Wire.CFilter> = []
  return (answer) => {
    if (answer._tag !== "cfilter" || answer.filterType !== filterType) return false
    const key = keyOf(answer.blockHash)
    const index = wanted.get(key)
    if (index === undefined) return false
    wanted.delete(key)
    filters[index] = answer
    if (wanted.size === 0) done(filters)
    return true
  }
}

const isSame = (one: Uint8Array, other: Uint8Array): boolean => keyOf(one) === keyOf(other)

/** Takes the answer with that type, last block and number of blocks. */
export const takeHeaders = (
  filterType: number,
  stopHash: Uint8Array,
  count: number,
  done: (answer: Wire.CFHeaders) => void
): Taker => {
  let open = true
  return (answer) => {
    if (!open || answer._tag !== "cfheaders" || answer.filterType !== filterType) return false
    if (answer.filterHashes.length !== count || !isSame(answer.stopHash, stopHash)) return false
    open = false
    done(answer)
    return true
  }
}

/** Takes the answer with that type and last block. */
export const takeCheckpoints = (
  filterType: number,
  stopHash: Uint8Array,
  done: (answer: Wire.CFCheckpt) => void
): Taker => {
  let open = true
  return (answer) => {
    if (!open || answer._tag !== "cfcheckpt" || answer.filterType !== filterType) return false
    if (!isSame(answer.stopHash, stopHash)) return false
    open = false
    done(answer)
    return true
  }
}
