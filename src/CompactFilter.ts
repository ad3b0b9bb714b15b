/**
 * Compact filters (BIP158): the scripts that a block pays to or spends from, in about 20 bits each. A light client downloads
 * filters (BIP157), searches them for its scripts, and downloads the blocks that match. Pure and synchronous.
 *
 * A filter matches every script of its block, and one in 784,931 other scripts by chance.
 */
import * as Bytes from "effect/Bytes"
import * as Data from "effect/Data"
import * as Result from "effect/Result"
import { Reader } from "./wire/reader.ts"
import { advance, encodeSet, makeReader, mapInto, remainderBits, type SetReader } from "./primitives/golomb.ts"
import { doubleSha256 } from "./primitives/sha256.ts"
import { sipHash, type SipKey, sipKey } from "./primitives/siphash.ts"
import * as Wire from "./Wire.ts"

/**
 * The type of basic filters, those of this module, in the messages of BIP157.
 *
 * @category constants
 * @since 0.1.0
 */
export const basicFilterType = 0

/**
 * One in this many scripts that are not in a block matches its filter by chance.
 *
 * @category constants
 * @since 0.1.0
 */
export const falsePositiveRate = 784_931

/**
 * Why a filter cannot be read or built, or filter headers are wrong.
 *
 * @category errors
 * @since 0.1.0
 */
export type CompactFilterReason =
  /** The count of elements is not a CompactSize in its shortest form. */
  | { readonly _tag: "BadCount" }
  /** The bytes end before the last of `count` elements. */
  | { readonly _tag: "Truncated"; readonly count: number }
  /** Whole bytes, `bytes` of them, are left over after the last element. */
  | { readonly _tag: "TrailingBytes"; readonly bytes: number }
  /** A filter cannot be built, because the script of an output that the block spends is not known. */
  | { readonly _tag: "MissingScript"; readonly output: Wire.OutPoint }
  /** A hash does not have 32 bytes. */
  | { readonly _tag: "BadHash"; readonly length: number }
  /** The filter header at `height` is not the known one. */
  | { readonly _tag: "WrongHeader"; readonly height: number }

const describe = (reason: CompactFilterReason): string => {
  switch (reason._tag) {
    case "BadCount":
      return "the count of elements is not a valid CompactSize"
    case "Truncated":
      return `the filter ends before the last of its ${reason.count} elements`
    case "TrailingBytes":
      return `${reason.bytes} bytes are left over after the last element`
    case "MissingScript":
      return `the script of output ${reason.output.index} of ${Wire.hashToHex(reason.output.txid)} is not known`
    case "BadHash":
      return `a hash has ${reason.length} bytes instead of 32`
    case "WrongHeader":
      return `the filter header at height ${reason.height} is not the known one`
  }
}

/**
 * The error of a filter that cannot be decoded or built, or of wrong filter headers. A peer that sent them is faulty or
 * malicious: ask another one.
 *
 * @category errors
 * @since 0.1.0
 */
export class CompactFilterError extends Data.TaggedError("CompactFilterError")<{
  readonly reason: CompactFilterReason
}> {
  override get message(): string {
    return describe(this.reason)
  }
}

const failed = (reason: CompactFilterReason): Result.Result<never, CompactFilterError> =>
  Result.fail(new CompactFilterError({ reason }))

/**
 * A filter whose form was checked, ready to be searched.
 *
 * @category models
 * @since 0.1.0
 */
export interface CompactFilter {
  /** The hash of its block, 32 bytes in wire order. The first 16 bytes are the key of the hash function. */
  readonly blockHash: Uint8Array
  /** The number of different scripts in the filter. */
  readonly count: number
  /** The bytes of `cfilter`: the count and the coded set. A view over the decoded bytes. */
  readonly bytes: Uint8Array
}

/**
 * Reads the filter in a `cfilter`; `blockHash` is in wire order.
 *
 * Steps through all elements once, in time linear in the bytes for any count, and allocates nothing. Fails with `BadCount`,
 * `Truncated`, `TrailingBytes` (as in Bitcoin Core; the padding bits of the last byte are ignored) or `BadHash`.
 * Only the hash of a filter shows that it belongs to the block: see `verifyHeaders`.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { CompactFilter, Network } from "effect-bitcoin-peer"
 *
 * const genesis = Network.testnet3.genesisHash
 * const filter = Result.getOrThrow(CompactFilter.decode(genesis, Uint8Array.of(1, 0x9d, 0xfc, 0xa8)))
 * console.log(filter.count, CompactFilter.matches(filter, Uint8Array.of(0x51))) // 1 false
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const decode = (blockHash: Uint8Array, bytes: Uint8Array): Result.Result<CompactFilter, CompactFilterError> => {
  if (blockHash.length !== 32) return failed({ _tag: "BadHash", length: blockHash.length })
  const start = readStart(bytes)
  if (start === undefined) return failed({ _tag: "BadCount" })
  const { count, offset } = start
  // Each element takes at least its remainder and the last bit of its quotient.
  if (count * (remainderBits + 1) > (bytes.length - offset) * 8) return failed({ _tag: "Truncated", count })
  const reader = makeReader(bytes, offset)
  for (let i = 0; i < count; i++) if (!advance(reader)) return failed({ _tag: "Truncated", count })
  const left = bytes.length - ((reader.bit + 7) >> 3)
  if (left > 0) return failed({ _tag: "TrailingBytes", bytes: left })
  return Result.succeed({ blockHash, count, bytes })
}

const readStart = (bytes: Uint8Array): { readonly count: number; readonly offset: number } | undefined => {
  const reader = new Reader(bytes, "cfilter")
  try {
    return { count: reader.compactSize("filter"), offset: reader.offset }
  } catch (error) {
    if (error instanceof Wire.WireError) return undefined
    throw error
  }
}

/** A hash, low half first. A shared buffer that is read right after it is written, so that no script needs an array. */
const hash = new Uint32Array(2)

const numberOf = (key: SipKey, script: Uint8Array, range: number): number => {
  sipHash(key, script, hash)
  return mapInto(hash[1]!, hash[0]!, range)
}

/**
 * Whether the block may pay to or spend from a script; false is certain. See `matchesAny` for several scripts.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { CompactFilter } from "effect-bitcoin-peer"
 *
 * const blockHash = new Uint8Array(32)
 * const bytes = CompactFilter.encode(blockHash, [Uint8Array.of(0x51)])
 * const filter = Result.getOrThrow(CompactFilter.decode(blockHash, bytes))
 * console.log(CompactFilter.matches(filter, Uint8Array.of(0x51))) // true
 * ```
 *
 * @category predicates
 * @since 0.1.0
 */
export const matches = (filter: CompactFilter, script: Uint8Array): boolean => matchesAny(filter, [script])

/**
 * Whether the block may pay to or spend from one of the scripts; false is certain.
 *
 * It hashes and sorts the scripts, then reads the filter once, up to the first match. No filter contains an empty script.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { CompactFilter } from "effect-bitcoin-peer"
 *
 * const blockHash = new Uint8Array(32)
 * const [mine, other] = [Uint8Array.of(0x51), Uint8Array.of(0x52)]
 * const bytes = CompactFilter.encode(blockHash, [mine])
 * const filter = Result.getOrThrow(CompactFilter.decode(blockHash, bytes))
 * console.log(CompactFilter.matchesAny(filter, [other, mine]), CompactFilter.matchesAny(filter, [other])) // true false
 * ```
 *
 * @category predicates
 * @since 0.1.0
 */
export const matchesAny = (filter: CompactFilter, scripts: ReadonlyArray<Uint8Array>): boolean => {
  if (filter.count === 0 || scripts.length === 0) return false
  const key = sipKey(filter.blockHash)
  const range = filter.count * falsePositiveRate
  const wanted = Float64Array.from(scripts, (script) => (script.length === 0 ? Infinity : numberOf(key, script, range)))
  if (wanted.length > 1) wanted.sort()
  const reader: SetReader = makeReader(filter.bytes, readStart(filter.bytes)?.offset ?? 0)
  let index = 0
  for (let i = 0; i < filter.count && advance(reader); i++) {
    while (wanted[index]! < reader.value) if (++index === wanted.length) return false
    if (wanted[index] === reader.value) return true
  }
  return false
}

/** The numbers of different scripts, in rising order: a script of two outputs is one element. */
const different = (key: SipKey, scripts: Iterable<Uint8Array>): Float64Array => {
  // Keyed by 53 bits of the hash. Scripts that share them are compared.
  const found = new Map<number, ReadonlyArray<Uint8Array>>()
  const halves: Array<number> = []
  for (const script of scripts) {
    sipHash(key, script, hash)
    const bucket = hash[1]! * 0x200000 + (hash[0]! >>> 11)
    const same = found.get(bucket)
    if (same?.some((other) => Bytes.Equivalence(other, script))) continue
    found.set(bucket, same === undefined ? [script] : [...same, script])
    halves.push(hash[1]!, hash[0]!)
  }
  const count = halves.length / 2
  const range = count * falsePositiveRate
  const numbers = new Float64Array(count)
  for (let i = 0; i < count; i++) numbers[i] = mapInto(halves[i * 2]!, halves[i * 2 + 1]!, range)
  numbers.sort()
  return numbers
}

const countBytes = (count: number): Uint8Array => {
  if (count < 0xfd) return Uint8Array.of(count)
  return count <= 0xffff
    ? Uint8Array.of(0xfd, count, count >> 8)
    : Uint8Array.of(0xfe, count, count >> 8, count >> 16, count >> 24)
}

/**
 * The bytes of a filter of any elements, for the block with this hash (32 bytes in wire order). Equal elements count once. See
 * `build` for the elements of a block.
 *
 * @example
 * ```ts
 * import { CompactFilter } from "effect-bitcoin-peer"
 *
 * console.log(CompactFilter.encode(new Uint8Array(32), [])) // Uint8Array [0]
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const encode = (blockHash: Uint8Array, elements: Iterable<Uint8Array>): Uint8Array => {
  const numbers = different(sipKey(blockHash), elements)
  return encodeSet(countBytes(numbers.length), numbers)
}

/**
 * The scripts of the outputs that the inputs of a block spend, those of the coinbase left out.
 *
 * @category models
 * @since 0.1.0
 */
export type PreviousScripts =
  /** The scripts, in the order of the inputs. */
  | ReadonlyArray<Uint8Array>
  /** A function that returns the script of an output, or `undefined` if it is unknown. */
  | ((output: Wire.OutPoint) => Uint8Array | undefined)

const opReturn = 0x6a

/** Whether the filter contains the script of an output: not if it is empty or unspendable (BIP158). */
const isElement = (script: Uint8Array): boolean => script.length > 0 && script[0] !== opReturn

/**
 * The bytes of the basic filter of a block: the scripts of its outputs, except OP_RETURN and empty ones, and the scripts of the
 * outputs that it spends, except empty ones. A function for `previous` need not know outputs of the block itself.
 *
 * Fails with `MissingScript`.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { CompactFilter, Wire } from "effect-bitcoin-peer"
 *
 * const header = { version: 1, previousBlock: new Uint8Array(32), merkleRoot: new Uint8Array(32), timestamp: 0, bits: 0, nonce: 0 }
 * const coinbase = { previousOutput: { txid: new Uint8Array(32), index: 0xffffffff }, script: new Uint8Array(2), sequence: 0, witness: [] }
 * const script = Uint8Array.of(0x51)
 * const block = { header, transactions: [{ version: 1, inputs: [coinbase], outputs: [{ value: 1, script }], lockTime: 0 }] }
 *
 * const bytes = Result.getOrThrow(CompactFilter.build(block, []))
 * const filter = Result.getOrThrow(CompactFilter.decode(Wire.blockHash(header), bytes))
 * console.log(filter.count, CompactFilter.matches(filter, script)) // 1 true
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const build = (block: Wire.Block, previous: PreviousScripts): Result.Result<Uint8Array, CompactFilterError> => {
  const elements: Array<Uint8Array> = []
  for (const { outputs } of block.transactions) {
    for (const { script } of outputs) if (isElement(script)) elements.push(script)
  }
  let own: Map<string, Uint8Array> | undefined
  const scriptOf = (output: Wire.OutPoint, index: number): Uint8Array | undefined => {
    if (typeof previous !== "function") return previous[index]
    return previous(output) ?? (own ??= outputsOf(block)).get(nameOf(output.txid, output.index))
  }
  let index = 0
  let isCoinbase = true
  for (const { inputs } of block.transactions) {
    for (const { previousOutput } of isCoinbase ? [] : inputs) {
      const script = scriptOf(previousOutput, index++)
      if (script === undefined) return failed({ _tag: "MissingScript", output: previousOutput })
      if (script.length > 0) elements.push(script)
    }
    isCoinbase = false
  }
  return Result.succeed(encode(Wire.blockHash(block.header), elements))
}

const nameOf = (txid: Uint8Array, index: number): string => `${Wire.hashToHex(txid)}:${index}`

const outputsOf = (block: Wire.Block): Map<string, Uint8Array> => {
  const scripts = new Map<string, Uint8Array>()
  for (const transaction of block.transactions) {
    const txid = Wire.txid(transaction)
    let index = 0
    for (const { script } of transaction.outputs) scripts.set(nameOf(txid, index++), script)
  }
  return scripts
}

/**
 * The hash of a filter, as in `cfheaders`: SHA-256 twice over its bytes, count included. 32 bytes in wire order.
 *
 * @example
 * ```ts
 * import { CompactFilter, Wire } from "effect-bitcoin-peer"
 *
 * const hash = CompactFilter.filterHash(Uint8Array.of(1, 0x9d, 0xfc, 0xa8))
 * const header = CompactFilter.filterHeader(hash, new Uint8Array(32))
 * console.log(Wire.hashToHex(header)) // 21584579b7eb08997773e5aeff3a7f932700042d0ed2a6129012b7d7ae81b750
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const filterHash = (bytes: Uint8Array): Uint8Array => doubleSha256(bytes)

/**
 * The filter header of a block: SHA-256 twice over the hash of its filter and the filter header of the previous block, which is
 * zeros for the genesis block. All are 32 bytes in wire order. See the example of `filterHash`.
 *
 * @category getters
 * @since 0.1.0
 */
export const filterHeader = (hash: Uint8Array, previous: Uint8Array): Uint8Array => {
  const both = new Uint8Array(64)
  both.set(hash)
  both.set(previous, 32)
  return doubleSha256(both)
}

/**
 * The filter headers that `verifyHeaders` compares with.
 *
 * @category models
 * @since 0.1.0
 */
export interface KnownHeaders {
  /** The requested height, which is that of the first hash in the answer. */
  readonly startHeight: number
  /** Filter headers at heights 1,000, 2,000 and so on, as in a `cfcheckpt`. Heights after its end are not compared. */
  readonly checkpoints?: Wire.List<Uint8Array> | undefined
  /** The filter header before the first one, where it is known. */
  readonly previous?: Uint8Array | undefined
}

/**
 * The filter headers of the blocks of a `cfheaders`, by height, if they agree with the known ones.
 *
 * The header before the first one is compared with `previous`, with the checkpoint at its height, or with zeros before the genesis
 * block; each header at a multiple of 1,000 is compared with its checkpoint. A filter is right if its header is the one in this
 * list. Fails with `WrongHeader` for the first header that differs.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { CompactFilter, Wire } from "effect-bitcoin-peer"
 *
 * const zeros = new Uint8Array(32)
 * const hashes = [CompactFilter.filterHash(Uint8Array.of(1, 0x9d, 0xfc, 0xa8))]
 * const answer: Wire.CFHeaders = { _tag: "cfheaders", filterType: 0, stopHash: zeros, previousFilterHeader: zeros, filterHashes: hashes }
 * console.log(Result.isSuccess(CompactFilter.verifyHeaders(answer, { startHeight: 0 }))) // true
 * console.log(Result.isSuccess(CompactFilter.verifyHeaders(answer, { startHeight: 5, previous: hashes[0] }))) // false
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const verifyHeaders = (
  answer: Wire.CFHeaders,
  { checkpoints, previous, startHeight }: KnownHeaders
): Result.Result<ReadonlyArray<Uint8Array>, CompactFilterError> => {
  const isRight = (header: Uint8Array, height: number): boolean => {
    const known =
      height % Wire.compactFilterCheckpointInterval !== 0 || height === 0
        ? undefined
        : checkpoints?.at(height / Wire.compactFilterCheckpointInterval - 1)
    return known === undefined || Wire.hashEquals(known, header)
  }
  let header = answer.previousFilterHeader
  const before = startHeight === 0 ? zeros : previous
  if ((before !== undefined && !Wire.hashEquals(before, header)) || !isRight(header, startHeight - 1)) {
    return failed({ _tag: "WrongHeader", height: startHeight - 1 })
  }
  const headers: Array<Uint8Array> = []
  for (const hash of answer.filterHashes) {
    header = filterHeader(hash, header)
    const height = startHeight + headers.length
    if (!isRight(header, height)) return failed({ _tag: "WrongHeader", height })
    headers.push(header)
  }
  return Result.succeed(headers)
}

const zeros = new Uint8Array(32)
