/**
 * Which answer about compact filters (BIP157) belongs to whom. Each answer names its blocks, so only the callers that wait
 * are remembered. Two callers with the same request send it twice, and each takes one answer.
 */
import * as Wire from "../../Wire.ts"
import { keyOf } from "./hashKey.ts"

/**
 * Blocks whose filters are requested.
 *
 * @category models
 * @since 0.1.0
 */
export interface CompactFilterRange {
  /** One byte; 0, the basic filter of BIP158, by default. */
  readonly filterType?: number | undefined
  /** Height of the first block. */
  readonly startHeight: number
  /** The hash of each block, by height: at most 1,000, each 32 bytes in wire order. */
  readonly blockHashes: Wire.List<Uint8Array>
}

/**
 * Blocks whose filter headers are requested: at most 2,000.
 *
 * @category models
 * @since 0.1.0
 */
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

export type FilterQuestion = Wire.GetCFilters | Wire.GetCFHeaders | Wire.GetCFCheckpt
export type FilterAnswer = Wire.CFilter | Wire.CFHeaders | Wire.CFCheckpt

/** Takes an answer if it is the one to its request; returns whether it is. */
export type FilterReceiver = (answer: FilterAnswer) => boolean

/** A caller that waits for answers about compact filters. */
export interface FilterRequest {
  readonly question: FilterQuestion
  readonly receive: FilterReceiver
  /** Called when the remote answered a later ping, and not everything that was requested. */
  readonly noAnswer: () => void
  /** Its place among the requests that were written, 0 before. */
  order: number
}

/** Takes the filters of all blocks; `done` gets them by height, for any order of arrival. */
export const receiveFilters = (
  filterType: number,
  blockHashes: ReadonlyArray<Uint8Array>,
  done: (filters: ReadonlyArray<Wire.CFilter>) => void
): FilterReceiver => {
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

/** Takes the first answer that `isAnswer` accepts. */
const receiveOne = <A extends FilterAnswer>(
  isAnswer: (answer: FilterAnswer) => answer is A,
  done: (answer: A) => void
): FilterReceiver => {
  let isOpen = true
  return (answer) => {
    if (!isOpen || !isAnswer(answer)) return false
    isOpen = false
    done(answer)
    return true
  }
}

/** Takes the answer with that type, last block and number of blocks. */
export const receiveHeaders = (
  filterType: number,
  stopHash: Uint8Array,
  count: number,
  done: (answer: Wire.CFHeaders) => void
): FilterReceiver =>
  receiveOne(
    (answer): answer is Wire.CFHeaders =>
      answer._tag === "cfheaders" &&
      answer.filterType === filterType &&
      answer.filterHashes.length === count &&
      Wire.hashEquals(answer.stopHash, stopHash),
    done
  )

/** Takes the answer with that type and last block. */
export const receiveCheckpoints = (
  filterType: number,
  stopHash: Uint8Array,
  done: (answer: Wire.CFCheckpt) => void
): FilterReceiver =>
  receiveOne(
    (answer): answer is Wire.CFCheckpt =>
      answer._tag === "cfcheckpt" && answer.filterType === filterType && Wire.hashEquals(answer.stopHash, stopHash),
    done
  )
