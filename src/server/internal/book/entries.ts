/**
 * The addresses of a book in columns, each under a number that its removal frees. An object and a text for each would take three times
 * the memory, and as many objects for the garbage collector to visit.
 */
import * as Address from "../../../Address.ts"
import { viewOf } from "../../../primitives/bytes.ts"
import { type SipKey, sipHash, sipKey } from "../../../primitives/siphash.ts"
import { networkNameOf } from "../networkNames.ts"
import type { NetworkName } from "../networkNames.ts"

/** The networks by their numbers in Bitcoin Core. */
export const networks: ReadonlyArray<NetworkName> = ["not_publicly_routable", "ipv4", "ipv6", "onion", "i2p", "cjdns"]

/** The number of the network of an address in `networks`. */
export const networkOf = (host: Address.Host): number => networks.indexOf(networkNameOf(host))

/** The longest address, of Tor and I2P. */
const stride = 32

/** The length of an address by its network (BIP155); Tor v2 and unknown networks are not stored. */
const lengths: ReadonlyArray<number> = [0, 4, 16, 0, 32, 32, 16]

/** Whether the bytes of a host are those of its network. */
export const isWellFormed = ({ address, networkId }: Address.Host): boolean =>
  lengths[networkId] === address.length && address.length > 0

/** The unspecified address, which stands for a source that cannot be stored, as in Bitcoin Core. */
export const unspecified: Address.Host = { networkId: Address.NetworkId.ipv6, address: new Uint8Array(16) }

const grown = <A extends { readonly length: number; set: (from: A) => void }>(from: A, to: A): A => {
  to.set(from)
  return to
}

export class Entries {
  /** Places in the columns, used or free. */
  capacity: number
  readonly #maximum: number
  /** How many numbers were ever given out: those below are in use or free. */
  #given = 0
  readonly #free: Array<number> = []

  #address: Uint8Array
  #networkId: Uint8Array
  #port: Uint16Array
  #source: Uint8Array
  #sourceNetworkId: Uint8Array
  /** The number of the network in `networks`. */
  network: Uint8Array
  services: BigUint64Array
  /** When a node was last seen there, in seconds; others can ask for it. */
  time: Uint32Array
  /** When we last tried it, in seconds; 0 for never. */
  lastTry: Float64Array
  /** When a try last counted as an attempt, in seconds. */
  lastCountedAttempt: Float64Array
  /** When we last reached it, in seconds; 0 for never. */
  lastSuccess: Float64Array
  /** Attempts that failed since the last success. */
  attempts: Int32Array
  /** How many buckets of the new table hold it. */
  references: Uint8Array
  isTried: Uint8Array
  /** Its place in `order`. */
  #place: Int32Array

  /** The numbers in use, in a random order. */
  order: Int32Array
  size = 0

  /** Numbers by address: open addressing, with -1 for an empty slot. Its length is a power of two, and at most two thirds are used. */
  #index: Int32Array
  readonly #sipKey: SipKey
  readonly #hash = new Uint32Array(2)
  /** An address and its port, for each length that an address can have. */
  readonly #hashed = new Map(lengths.map((length) => [length, new Uint8Array(length + 3)]))

  /** Room for `expected` entries is made at once, and for `maximum` at most. */
  constructor(key: Uint8Array, maximum: number, expected = 0) {
    const capacity = Math.min(Math.max(64, expected), maximum)
    this.#maximum = maximum
    this.capacity = capacity
    this.#sipKey = sipKey(key)
    this.#address = new Uint8Array(capacity * stride)
    this.#networkId = new Uint8Array(capacity)
    this.#port = new Uint16Array(capacity)
    this.#source = new Uint8Array(capacity * stride)
    this.#sourceNetworkId = new Uint8Array(capacity)
    this.network = new Uint8Array(capacity)
    this.services = new BigUint64Array(capacity)
    this.time = new Uint32Array(capacity)
    this.lastTry = new Float64Array(capacity)
    this.lastCountedAttempt = new Float64Array(capacity)
    this.lastSuccess = new Float64Array(capacity)
    this.attempts = new Int32Array(capacity)
    this.references = new Uint8Array(capacity)
    this.isTried = new Uint8Array(capacity)
    this.#place = new Int32Array(capacity)
    this.order = new Int32Array(capacity)
    let slots = 128
    while (capacity * 3 > slots * 2) slots *= 2
    this.#index = new Int32Array(slots).fill(-1)
  }

  #grow(): void {
    const capacity = Math.min(this.capacity * 2, this.#maximum)
    this.capacity = capacity
    this.#address = grown(this.#address, new Uint8Array(capacity * stride))
    this.#networkId = grown(this.#networkId, new Uint8Array(capacity))
    this.#port = grown(this.#port, new Uint16Array(capacity))
    this.#source = grown(this.#source, new Uint8Array(capacity * stride))
    this.#sourceNetworkId = grown(this.#sourceNetworkId, new Uint8Array(capacity))
    this.network = grown(this.network, new Uint8Array(capacity))
    this.services = grown(this.services, new BigUint64Array(capacity))
    this.time = grown(this.time, new Uint32Array(capacity))
    this.lastTry = grown(this.lastTry, new Float64Array(capacity))
    this.lastCountedAttempt = grown(this.lastCountedAttempt, new Float64Array(capacity))
    this.lastSuccess = grown(this.lastSuccess, new Float64Array(capacity))
    this.attempts = grown(this.attempts, new Int32Array(capacity))
    this.references = grown(this.references, new Uint8Array(capacity))
    this.isTried = grown(this.isTried, new Uint8Array(capacity))
    this.#place = grown(this.#place, new Int32Array(capacity))
    this.order = grown(this.order, new Int32Array(capacity))
  }

  /** Adds an address; it and its source are well formed. Returns its number, or -1 if it is there already. */
  create(of: Address.Address, source: Address.Host, network = networkOf(of)): number {
    const slot = this.#slotOf(of)
    if (this.#index[slot] !== -1) return -1
    if (this.#free.length === 0 && this.#given === this.capacity) this.#grow()
    const id = this.#free.pop() ?? this.#given++
    this.#address.set(of.address, id * stride)
    this.#networkId[id] = of.networkId
    this.#port[id] = of.port
    this.#source.set(source.address, id * stride)
    this.#sourceNetworkId[id] = source.networkId
    this.network[id] = network
    this.services[id] = 0n
    this.time[id] = 0
    this.lastTry[id] = 0
    this.lastCountedAttempt[id] = 0
    this.lastSuccess[id] = 0
    this.attempts[id] = 0
    this.references[id] = 0
    this.isTried[id] = 0
    this.#place[id] = this.size
    this.order[this.size++] = id
    if (this.size * 3 > this.#index.length * 2) this.#rebuild(this.#index.length * 2)
    else this.#index[slot] = id
    return id
  }

  remove(id: number): void {
    this.swap(this.#place[id]!, this.size - 1)
    this.#removeFromIndex(this.#slotOf(this.address(id)))
    this.size--
    this.#free.push(id)
  }

  /** Swaps two places of the random order. */
  swap(one: number, other: number): void {
    const { order } = this
    const first = order[one]!
    const second = order[other]!
    order[one] = second
    order[other] = first
    this.#place[second] = one
    this.#place[first] = other
  }

  /** The number of an address; -1 if it is not there. */
  find(of: Address.Address): number {
    return isWellFormed(of) ? this.#index[this.#slotOf(of)]! : -1
  }

  /** The address of an entry, as a view that another entry may overwrite later. */
  address(id: number): Address.Address {
    const networkId = this.#networkId[id]!
    const address = viewOf(this.#address, id * stride, id * stride + lengths[networkId]!)
    return { networkId, address, port: this.#port[id]! }
  }

  /** The source of an entry, as a view like that of `address`. */
  source(id: number): Address.Host {
    const networkId = this.#sourceNetworkId[id]!
    return { networkId, address: viewOf(this.#source, id * stride, id * stride + lengths[networkId]!) }
  }

  isAt(id: number, place: number): boolean {
    return this.#place[id] === place
  }

  /** The slot of an address in the index, or the empty one where it would be. */
  #slotOf(of: Address.Address): number {
    const index = this.#index
    const mask = index.length - 1
    let slot = this.#hashOf(of) & mask
    while (index[slot] !== -1 && !this.#equals(index[slot]!, of)) slot = (slot + 1) & mask
    return slot
  }

  #equals(id: number, { address, networkId, port }: Address.Address): boolean {
    if (this.#networkId[id] !== networkId || this.#port[id] !== port) return false
    for (let i = 0, at = id * stride; i < address.length; i++, at++) {
      if (this.#address[at] !== address[i]) return false
    }
    return true
  }

  /** Under a secret key, so that an attacker cannot send addresses that all have one slot. */
  #hashOf({ address, networkId, port }: Address.Address): number {
    const bytes = this.#hashed.get(address.length)!
    bytes[0] = networkId
    bytes[1] = port >>> 8
    bytes[2] = port
    bytes.set(address, 3)
    sipHash(this.#sipKey, bytes, this.#hash)
    return this.#hash[0]!
  }

  #rebuild(length: number): void {
    this.#index = new Int32Array(length).fill(-1)
    for (let place = 0; place < this.size; place++) {
      const id = this.order[place]!
      this.#index[this.#slotOf(this.address(id))] = id
    }
  }

  /** Empties a slot, and moves those after it that would no longer be found. */
  #removeFromIndex(slot: number): void {
    const index = this.#index
    const mask = index.length - 1
    let empty = slot
    for (let next = (slot + 1) & mask; index[next] !== -1; next = (next + 1) & mask) {
      const wanted = this.#hashOf(this.address(index[next]!)) & mask
      if (((next - wanted) & mask) < ((next - empty) & mask)) continue
      index[empty] = index[next]!
      empty = next
    }
    index[empty] = -1
  }
}
