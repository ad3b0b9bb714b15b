/**
 * Bloom filters (BIP37): sets of byte strings that contain everything that was inserted, and by chance some other strings. A light
 * client sends one in `filterload`, and then receives only the transactions that match.
 *
 * A filter is a plain object that is changed in place: by `insert`, and by `matches`, which adds outpoints as the filter's `update`
 * says. All other functions are pure. Bits, sizes and rules are those of Bitcoin Core's `CBloomFilter`.
 */
import { setU32At } from "./primitives/bytes.ts"
import { murmur3 } from "./primitives/murmur3.ts"
import { isPayToPubkey, nextPush } from "./primitives/scriptPush.ts"
import * as Wire from "./Wire.ts"

/**
 * What `matches` adds to the filter when an output matches, so that a transaction that spends it matches as well: nothing, its
 * outpoint, or its outpoint only for pay-to-pubkey and bare multisig (the inputs that spend other outputs contain the matching
 * bytes themselves).
 *
 * @category models
 * @since 0.1.0
 */
export type Update = "none" | "all" | "p2pubkeyOnly"

/**
 * A bloom filter. It is changed in place.
 *
 * @category models
 * @since 0.1.0
 */
export interface BloomFilter {
  /** The bits, at most 36,000 bytes. A filter of 0 bytes contains and matches everything, and inserting does nothing. */
  readonly bytes: Uint8Array
  /** At most 50. A filter with 0 hash functions contains everything. */
  readonly hashFunctions: number
  /** uint32. */
  readonly tweak: number
  readonly update: Update
}

/**
 * How `make` makes a filter.
 *
 * @category options
 * @since 0.1.0
 */
export interface MakeOptions {
  /** The number of elements to be inserted, at least 1. Outpoints that `matches` adds count too. */
  readonly elements: number
  /**
   * The share, from 0 to 1, of other strings that the full filter contains. A higher rate hides the elements better and costs
   * bandwidth.
   */
  readonly falsePositiveRate: number
  /** A random uint32, so that two filters contain different strings by chance. */
  readonly tweak: number
  /** "all" by default. */
  readonly update?: Update | undefined
}

const updates: ReadonlyArray<Update> = ["none", "all", "p2pubkeyOnly"]

/**
 * An empty filter of the right size, at most 36,000 bytes and 50 hash functions. As in Core, few elements with a high rate give 0
 * bytes, and more than 144,000 elements give 0 hash functions: such filters match everything.
 *
 * @example
 * ```ts
 * import { BloomFilter } from "effect-bitcoin-peer"
 *
 * const filter = BloomFilter.make({ elements: 10, falsePositiveRate: 0.0001, tweak: 0x12345678 })
 * const publicKeyHash = Uint8Array.from({ length: 20 }, (_, i) => i)
 * BloomFilter.insert(filter, publicKeyHash)
 * console.log(BloomFilter.contains(filter, publicKeyHash)) // true
 * console.log(BloomFilter.toFilterLoad(filter).filter.length) // 23
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: MakeOptions): BloomFilter => {
  const { falsePositiveRate, tweak, update = "all" } = options
  const elements = Math.max(1, options.elements)
  const bits = (-elements * Math.log(falsePositiveRate)) / (Math.LN2 * Math.LN2)
  const size = Math.floor(Math.max(0, Math.min(Math.trunc(bits), Wire.maxFilterSize * 8)) / 8)
  const hashFunctions = Math.min(Math.trunc(Math.floor((size * 8) / elements) * Math.LN2), Wire.maxFilterHashFunctions)
  return { bytes: new Uint8Array(size), hashFunctions, tweak: tweak >>> 0, update }
}

/**
 * The filter in a `filterload`, with a copy of its bytes. Reserved flags are ignored.
 *
 * @example
 * ```ts
 * import { BloomFilter, Peer } from "effect-bitcoin-peer"
 *
 * const filters = new WeakMap<Peer.Peer, BloomFilter.BloomFilter>()
 * export const handlers: Peer.Handlers = {
 *   filterload: (message, peer) => void filters.set(peer, BloomFilter.fromFilterLoad(message)),
 *   filterclear: (_, peer) => void filters.delete(peer)
 * }
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const fromFilterLoad = (message: Wire.FilterLoad): BloomFilter => ({
  bytes: message.filter.slice(),
  hashFunctions: message.hashFunctions,
  tweak: message.tweak,
  // The value 3 is undefined: no outpoints are added. The other bits are reserved.
  update: updates[message.flags & 3] ?? "none"
})

/**
 * The `filterload` for this filter, with a copy of its bytes: elements that are inserted later are not in it.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { BloomFilter, Wire } from "effect-bitcoin-peer"
 *
 * const filter = BloomFilter.make({ elements: 3, falsePositiveRate: 0.01, tweak: 0, update: "none" })
 * console.log(Result.getOrThrow(Wire.encode(BloomFilter.toFilterLoad(filter))).length) // 1 + 3 + 4 + 4 + 1 = 13
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const toFilterLoad = ({ bytes, hashFunctions, tweak, update }: BloomFilter): Wire.FilterLoad => ({
  _tag: "filterload",
  filter: bytes.slice(),
  hashFunctions,
  tweak,
  flags: updates.indexOf(update)
})

/** The bit of an element for one of the hash functions. */
const bitOf = ({ bytes, tweak }: BloomFilter, hashFunction: number, data: Uint8Array): number =>
  murmur3(Math.imul(hashFunction, 0xfba4c795) + tweak, data) % (bytes.length * 8)

/**
 * Inserts an element: a public key or its hash, a script hash, a txid in wire order, or the data of a `filteradd`.
 *
 * @example
 * ```ts
 * import { BloomFilter, Wire } from "effect-bitcoin-peer"
 *
 * const filter = BloomFilter.make({ elements: 10, falsePositiveRate: 0.0001, tweak: 1 })
 * BloomFilter.insert(filter, Wire.hashFromHex("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"))
 * console.log(BloomFilter.contains(filter, new Uint8Array(32))) // false
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const insert = (self: BloomFilter, data: Uint8Array): void => {
  if (self.bytes.length === 0) return
  for (let i = 0; i < self.hashFunctions; i++) {
    const bit = bitOf(self, i, data)
    self.bytes[bit >>> 3] |= 1 << (bit & 7)
  }
}

/**
 * Whether an element was inserted: false is certain, true can be by chance.
 *
 * @category predicates
 * @since 0.1.0
 */
export const contains = (self: BloomFilter, data: Uint8Array): boolean => {
  if (self.bytes.length === 0) return true
  for (let i = 0; i < self.hashFunctions; i++) {
    const bit = bitOf(self, i, data)
    if ((self.bytes[bit >>> 3] & (1 << (bit & 7))) === 0) return false
  }
  return true
}

/** An outpoint as on the wire, 36 bytes. */
const outPointBytes = (txid: Uint8Array, index: number): Uint8Array => {
  const bytes = new Uint8Array(36)
  bytes.set(txid)
  setU32At(bytes, 32, index)
  return bytes
}

/**
 * Inserts an outpoint, so that a transaction that spends it matches.
 *
 * @example
 * ```ts
 * import { BloomFilter, Wire } from "effect-bitcoin-peer"
 *
 * const txid = Wire.hashFromHex("4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b")
 * const filter = BloomFilter.make({ elements: 10, falsePositiveRate: 0.0001, tweak: 1 })
 * BloomFilter.insertOutPoint(filter, { txid, index: 0 })
 * console.log(BloomFilter.containsOutPoint(filter, { txid, index: 0 })) // true
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const insertOutPoint = (self: BloomFilter, { index, txid }: Wire.OutPoint): void =>
  insert(self, outPointBytes(txid, index))

/**
 * Whether an outpoint was inserted, by `insertOutPoint` or by `matches`.
 *
 * @category predicates
 * @since 0.1.0
 */
export const containsOutPoint = (self: BloomFilter, { index, txid }: Wire.OutPoint): boolean =>
  contains(self, outPointBytes(txid, index))

/** Whether the filter contains data that a script pushes. A push that is cut off ends the search. */
const containsPush = (self: BloomFilter, script: Uint8Array): boolean => {
  for (let push = nextPush(script, 0); push !== undefined; push = nextPush(script, push.end)) {
    if (push.end > push.start && contains(self, script.subarray(push.start, push.end))) return true
  }
  return false
}

/**
 * Whether a transaction matches: by its txid, by data that the script of an output pushes, by an outpoint that it spends, or by
 * data that the script of an input pushes. Witnesses are not searched.
 *
 * All outputs are searched, even after a match, and the outpoints of matching ones are inserted as `update` says. So call it once
 * for each transaction, in the order of the block. Give the txid where it is known, to save hashing.
 *
 * The data of each push is hashed once for each hash function, so at most 50 times. For a transaction of 4 MB that is 0.5 s with
 * one push, and at worst 1 s, with 2 million pushes of one byte (Node 24 on our machine).
 *
 * @example
 * ```ts
 * import { BloomFilter } from "effect-bitcoin-peer"
 *
 * const key = new Uint8Array(20).fill(7)
 * const filter = BloomFilter.make({ elements: 10, falsePositiveRate: 0.0001, tweak: 5 })
 * BloomFilter.insert(filter, key)
 * const payment = { version: 2, inputs: [], outputs: [{ value: 1000, script: Uint8Array.of(0, 20, ...key) }], lockTime: 0 }
 * console.log(BloomFilter.matches(filter, payment)) // true
 * ```
 *
 * @category predicates
 * @since 0.1.0
 */
export const matches = (
  self: BloomFilter,
  transaction: Wire.Transaction,
  txid: Uint8Array = Wire.txid(transaction)
): boolean => {
  if (self.bytes.length === 0) return true
  let found = contains(self, txid)
  let index = 0
  for (const { script } of transaction.outputs) {
    if (containsPush(self, script)) {
      found = true
      if (self.update === "all" || (self.update === "p2pubkeyOnly" && isPayToPubkey(script))) {
        insertOutPoint(self, { txid, index })
      }
    }
    index++
  }
  if (found) return true
  for (const { previousOutput, script } of transaction.inputs) {
    if (containsOutPoint(self, previousOutput) || containsPush(self, script)) return true
  }
  return false
}
