/**
 * Where an address stands in the tables of the book: Bitcoin Core's hashes, of which 32 secret bytes are the key, so that nobody can aim
 * at a place.
 */
import * as Address from "../../../Address.ts"
import { setU32At, viewOf } from "../../../primitives/bytes.ts"
import { groupKey } from "../keys.ts"
import { checksum as firstWord } from "../../../primitives/sha256.ts"

export const newBuckets = 1_024
export const triedBuckets = 256
export const bucketSize = 64
/** How many buckets the addresses of one group can reach in the tried table. */
const triedBucketsOfGroup = 8
/** How many buckets the addresses that one source group tells can reach in the new table. */
const newBucketsOfSource = 64

/** The group of a host, where a map of autonomous systems knows it. */
export type GroupOf = (host: Address.Host) => Uint8Array | undefined

/** The value of a hexadecimal digit, by its character code. */
const nibble = (code: number): number => (code <= 0x39 ? code - 0x30 : code - 0x57)

/** About 2 MB. An attacker can send addresses of any number of groups. */
const mostCached = 16_384

const keySize = 32
const newLetter = 0x4e
const triedLetter = 0x4b

export class BookHash {
  readonly key: Uint8Array
  readonly #groupOf: GroupOf | undefined
  /** The key, then the bytes to hash. */
  readonly #bytes = new Uint8Array(256)
  #size = keySize
  /** Views of the first bytes by their number: a new one for each hash is work for the garbage collector. */
  readonly #views: Array<Uint8Array | undefined> = []
  /** New buckets by the groups of address and source: two double hashes of 1 µs each. */
  readonly #buckets = new Map<string, number>()

  constructor(key: Uint8Array, groupOf?: GroupOf) {
    this.key = key
    this.#bytes.set(key)
    this.#groupOf = groupOf
  }

  /** The group as hexadecimal digits. */
  groupOf(host: Address.Host): string {
    return groupKey(host, this.#groupOf)
  }

  newBucket(group: string, sourceGroup: string): number {
    const cacheKey = `${group} ${sourceGroup}`
    const known = this.#buckets.get(cacheKey)
    if (known !== undefined) return known
    this.#group(group)
    this.#group(sourceGroup)
    const slot = this.#hash() % newBucketsOfSource
    this.#group(sourceGroup)
    this.#u64(slot)
    const bucket = this.#hash() % newBuckets
    if (this.#buckets.size >= mostCached) this.#buckets.clear()
    this.#buckets.set(cacheKey, bucket)
    return bucket
  }

  triedBucket(address: Address.Address): number {
    this.#address(address)
    const slot = this.#hash() % triedBucketsOfGroup
    this.#group(this.groupOf(address))
    this.#u64(slot)
    return this.#hash() % triedBuckets
  }

  /** The position in a bucket of the new or the tried table. */
  position(isTried: boolean, bucket: number, address: Address.Address): number {
    this.#bytes[this.#size++] = isTried ? triedLetter : newLetter
    setU32At(this.#bytes, this.#size, bucket)
    this.#size += 4
    this.#address(address)
    return this.#hash() % bucketSize
  }

  /** The host in the 16 bytes of `addr`, or in all of its bytes, then the port; with their length. */
  #address({ address, networkId, port }: Address.Address): void {
    const bytes = this.#bytes
    let at = this.#size
    if (networkId === Address.NetworkId.ipv4) {
      bytes[at++] = 18
      bytes.fill(0, at, at + 10)
      bytes[at + 10] = 0xff
      bytes[at + 11] = 0xff
      at += 12
    } else bytes[at++] = address.length + 2
    for (let i = 0; i < address.length; i++) bytes[at++] = address[i]!
    bytes[at++] = port >>> 8
    bytes[at++] = port
    this.#size = at
  }

  #group(group: string): void {
    const size = group.length / 2
    this.#bytes[this.#size++] = size
    for (let i = 0; i < size; i++) {
      this.#bytes[this.#size++] = (nibble(group.charCodeAt(2 * i)) << 4) | nibble(group.charCodeAt(2 * i + 1))
    }
  }

  #u64(value: number): void {
    setU32At(this.#bytes, this.#size, value)
    setU32At(this.#bytes, this.#size + 4, 0)
    this.#size += 8
  }

  /** The lowest 32 of the 64 bits that Core takes: every number of places is a power of two. */
  #hash(): number {
    const view = (this.#views[this.#size] ??= viewOf(this.#bytes, 0, this.#size))
    const hash = firstWord(view)
    this.#size = keySize
    return hash
  }
}
