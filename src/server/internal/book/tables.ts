/**
 * The address book: Bitcoin Core's address manager. Addresses that others told of are in the new table, addresses that we have reached
 * in the tried table. The bucket of an address depends on its group and on the group of its source, so that an attacker with few groups
 * reaches few buckets only.
 *
 * Pure: time comes in as milliseconds, and random numbers from a generator. Inside, times are whole seconds, as in the file.
 */
import * as Address from "../../../Address.ts"
import type { AddressV2 } from "../../../Wire.ts"
import type { Random } from "../random.ts"
import { Entries, isWellFormed, networks, unspecified } from "./entries.ts"
import { BookHash, bucketSize, type GroupOf, newBuckets, triedBuckets } from "./hash.ts"

/** The most entries that the two tables can hold: each of them is in a place. */
const mostEntries = (newBuckets + triedBuckets) * bucketSize
/** The most buckets of the new table that an address can be in. */
export const mostReferences = 8
/** How many newcomers may wait until the occupants of their places were tested. */
const mostCollisions = 10

const hour = 3_600
const day = 24 * hour
/** Addresses that no node has seen for longer are terrible. */
const horizon = 30 * day
/** An address that was never reached is terrible after this many attempts. */
const attemptsWithoutSuccess = 3
/** An address that was reached is terrible after this many attempts in at least `failing`. */
const attemptsAfterSuccess = 10
const failing = 7 * day
/** An occupant of the tried table that was reached within this time stays. */
const replacement = 4 * hour
/** How long a newcomer waits for the test of an occupant that is never tried. */
const testWindow = 40 * 60

/** The clock of a test starts at 0, which means "never" in the columns. */
export const seconds = (now: number): number => Math.max(1, Math.floor(now / 1_000))

const isPort = (port: number): boolean => Number.isInteger(port) && port >= 0 && port <= 65_535

const isSameHost = (one: Address.Host, other: Address.Host): boolean =>
  one.networkId === other.networkId && one.address.every((byte, at) => byte === other.address[at])

/** The address itself: without a zone, and IPv4 not mapped into IPv6. */
export const canonical = (of: Address.Address): Address.Address => {
  const { address, networkId } = Address.canonical(of)
  return { networkId, address, port: of.port }
}

export interface TablesOptions {
  readonly key: Uint8Array
  readonly random: Random
  readonly groupOf?: GroupOf | undefined
  /** How many entries will come at once, from a file. */
  readonly expected?: number | undefined
}

export class Tables {
  readonly hash: BookHash
  readonly random: Random
  readonly entries: Entries
  /**
   * The numbers of the entries by bucket and position, -1 for an empty place: the buckets of the new table, then those of the tried
   * table.
   */
  readonly places = new Int32Array(mostEntries).fill(-1)
  /** How many entries of each network each bucket has. */
  readonly counts = new Uint8Array((newBuckets + triedBuckets) * networks.length)
  /** The networks of which each bucket has an entry, as bits. */
  readonly masks = new Uint8Array(newBuckets + triedBuckets)
  /** How many entries of each network are in the new table, and then in the tried table. */
  readonly sizes = new Int32Array(2 * networks.length)
  /** Entries of the new table whose place in the tried table is taken. */
  readonly collisions = new Set<number>()
  /** When anything was reached last, in seconds. Not 0, so that "never" is earlier. */
  #lastGood = 1

  constructor({ expected, groupOf, key, random }: TablesOptions) {
    this.hash = new BookHash(key, groupOf)
    this.random = random
    // One more while a new entry takes the place of another.
    this.entries = new Entries(key, mostEntries + 1, expected)
  }

  get newSize(): number {
    return this.#sum(0)
  }

  get triedSize(): number {
    return this.#sum(networks.length)
  }

  #sum(from: number): number {
    let sum = 0
    for (let i = 0; i < networks.length; i++) sum += this.sizes[from + i]!
    return sum
  }

  // ---- places

  /** Where an entry is, or would be, in the new table because of a source; the index in `places`. */
  newPlace(address: Address.Address, group: string, sourceGroup: string): number {
    const bucket = this.hash.newBucket(group, sourceGroup)
    return bucket * bucketSize + this.hash.position(false, bucket, address)
  }

  /** Where an entry is in the new table because of its first source. */
  homePlace(id: number): number {
    const address = this.entries.address(id)
    return this.newPlace(address, this.hash.groupOf(address), this.hash.groupOf(this.entries.source(id)))
  }

  triedPlace(address: Address.Address): number {
    const bucket = this.hash.triedBucket(address)
    return (newBuckets + bucket) * bucketSize + this.hash.position(true, bucket, address)
  }

  put(place: number, id: number): void {
    const bucket = Math.floor(place / bucketSize)
    const network = this.entries.network[id]!
    this.places[place] = id
    this.counts[bucket * networks.length + network]!++
    this.masks[bucket]! |= 1 << network
  }

  #take(place: number): void {
    const bucket = Math.floor(place / bucketSize)
    const network = this.entries.network[this.places[place]!]!
    this.places[place] = -1
    if (--this.counts[bucket * networks.length + network]! === 0) this.masks[bucket]! &= ~(1 << network)
  }

  /** Makes an entry that is in no bucket yet. It counts as new. -1 if the address has one. */
  create(address: Address.Address, source: Address.Host, network?: number): number {
    const id = this.entries.create(address, source, network)
    if (id !== -1) this.sizes[this.entries.network[id]!]!++
    return id
  }

  /** Removes an entry that is in no bucket. */
  remove(id: number): void {
    this.sizes[this.entries.network[id]!]!--
    this.collisions.delete(id)
    this.entries.remove(id)
  }

  putNew(place: number, id: number): void {
    this.put(place, id)
    this.entries.references[id]!++
  }

  putTried(place: number, id: number): void {
    const { isTried, network } = this.entries
    this.put(place, id)
    isTried[id] = 1
    this.sizes[network[id]!]!--
    this.sizes[networks.length + network[id]!]!++
  }

  /** Empties a place of the new table. An entry without another place is removed. */
  #clearNew(place: number): void {
    const id = this.places[place]!
    if (id === -1) return
    this.#take(place)
    if (--this.entries.references[id]! === 0) this.remove(id)
  }

  // ---- changes of addresses

  /**
   * Adds addresses that a source sent. Their times are set back by `penalty` seconds. Returns how many positions of the new table were
   * filled.
   */
  add(addresses: Iterable<AddressV2>, source: Address.Host, now: number, penalty = 0): number {
    const from = isWellFormed(source) ? Address.canonical(source) : unspecified
    const sourceGroup = this.hash.groupOf(from)
    let added = 0
    for (const address of addresses) if (this.#addOne(address, from, sourceGroup, seconds(now), penalty)) added++
    return added
  }

  #addOne(of: AddressV2, source: Address.Host, sourceGroup: string, now: number, asked: number): boolean {
    if (!isPort(of.port) || !Address.isRoutable(of)) return false
    const address = canonical(of)
    const { entries, places } = this
    const { references } = entries
    const penalty = isSameHost(address, source) ? 0 : asked
    const time = Math.max(0, of.timestamp - penalty)
    const found = entries.find(address)
    if (found === -1) return this.#addNew(address, of.services, time, source, sourceGroup, now)

    const isOnline = now - of.timestamp < day
    if (entries.time[found]! < of.timestamp - (isOnline ? hour : day) - penalty) entries.time[found] = time
    entries.services[found]! |= of.services
    if (of.timestamp <= entries.time[found]! || entries.isTried[found] === 1) return false
    const count = references[found]!
    if (count === mostReferences) return false
    // The chance of one more place halves with each place.
    if (count > 0 && this.random.below(2 ** count) !== 0) return false
    const place = this.newPlace(address, this.hash.groupOf(address), sourceGroup)
    const occupant = places[place]!
    if (occupant === found) return false
    if (occupant !== -1 && !this.isTerrible(occupant, now)) return false
    this.#clearNew(place)
    this.putNew(place, found)
    return true
  }

  #addNew(
    address: Address.Address,
    services: bigint,
    time: number,
    source: Address.Host,
    sourceGroup: string,
    now: number
  ): boolean {
    const { entries, places } = this
    const place = this.newPlace(address, this.hash.groupOf(address), sourceGroup)
    const occupant = places[place]!
    if (occupant !== -1 && !this.isTerrible(occupant, now) && entries.references[occupant]! <= 1) return false
    const id = this.create(address, source)
    entries.services[id] = services
    entries.time[id] = time
    this.#clearNew(place)
    this.putNew(place, id)
    return true
  }

  /** An address was dialled. A failure counts at most once for each time that anything was reached: an outage of ours costs one attempt. */
  attempt(address: Address.Address, countFailure: boolean, now: number): void {
    const { entries } = this
    const id = entries.find(canonical(address))
    if (id === -1) return
    entries.lastTry[id] = seconds(now)
    if (countFailure && entries.lastCountedAttempt[id]! < this.#lastGood) {
      entries.lastCountedAttempt[id] = seconds(now)
      entries.attempts[id]!++
    }
  }

  /**
   * An address was reached: the handshake of an outbound connection is complete. It moves to the tried table; or it waits, if its place
   * is taken. Its time stays, because others can ask for it. Returns whether it moved.
   */
  good(address: Address.Address, now: number): boolean {
    const time = seconds(now)
    this.#lastGood = Math.max(this.#lastGood, time)
    const id = this.entries.find(canonical(address))
    if (id === -1) return false
    this.#succeeded(id, time)
    if (this.entries.isTried[id] === 1) return false
    const place = this.triedPlace(this.entries.address(id))
    if (this.places[place] === -1) {
      this.#makeTried(id, place)
      return true
    }
    if (this.collisions.size < mostCollisions) this.collisions.add(id)
    return false
  }

  #succeeded(id: number, time: number): void {
    this.entries.lastSuccess[id] = time
    this.entries.lastTry[id] = time
    this.entries.attempts[id] = 0
  }

  /** Moves an entry to its place in the tried table. An occupant goes back to its first place in the new table, in place of another. */
  #makeTried(id: number, place: number): void {
    const { entries, places, sizes } = this
    this.collisions.delete(id)
    const home = this.homePlace(id)
    if (places[home] === id) this.#leaveNew(home, id)
    while (entries.references[id]! > 0) this.#leaveNew(places.indexOf(id), id)
    const occupant = places[place]!
    if (occupant !== -1) {
      const network = entries.network[occupant]!
      this.#take(place)
      entries.isTried[occupant] = 0
      sizes[networks.length + network]!--
      sizes[network]!++
      const back = this.homePlace(occupant)
      this.#clearNew(back)
      this.putNew(back, occupant)
    }
    this.putTried(place, id)
  }

  #leaveNew(place: number, id: number): void {
    this.#take(place)
    this.entries.references[id]!--
  }

  /** The occupant of a place that another address waits for. A feeler tests whether it still answers. */
  collision(): number {
    const { collisions } = this
    if (collisions.size === 0) return -1
    let left = this.random.below(collisions.size)
    for (const id of collisions) if (left-- === 0) return this.places[this.triedPlace(this.entries.address(id))]!
    return -1
  }

  /** Ends the wait of newcomers: the occupant answered, failed, or was not tried in time. */
  resolveCollisions(at: number): void {
    const now = seconds(at)
    const { lastSuccess, lastTry } = this.entries
    // A set may lose elements while it is iterated.
    for (const id of this.collisions) {
      const place = this.triedPlace(this.entries.address(id))
      const occupant = this.places[place]!
      if (occupant === -1 || now - lastSuccess[occupant]! < replacement) this.collisions.delete(id)
      else if (now - lastTry[occupant]! < replacement) {
        // Tried recently without success. Connecting may take a minute.
        if (now - lastTry[occupant]! > 60) this.#replace(id, place, now)
      } else if (now - lastSuccess[id]! > testWindow) this.#replace(id, place, now)
    }
  }

  #replace(id: number, place: number, now: number): void {
    this.#lastGood = Math.max(this.#lastGood, now)
    this.#succeeded(id, now)
    this.#makeTried(id, place)
  }

  /** A connection to an address ended. Its time becomes public, so do not call this for connections that must stay secret. */
  connected(address: Address.Address, now: number): void {
    const id = this.entries.find(canonical(address))
    if (id !== -1 && seconds(now) - this.entries.time[id]! > 20 * 60) this.entries.time[id] = seconds(now)
  }

  /** The services in the version message of an outbound peer. */
  setServices(address: Address.Address, services: bigint): void {
    const id = this.entries.find(canonical(address))
    if (id !== -1) this.entries.services[id] = services
  }

  // ---- quality

  /** Whether an entry may be overwritten and is not told to others. `now` is in seconds. */
  isTerrible(id: number, now: number): boolean {
    const { attempts, lastSuccess, lastTry, time } = this.entries
    if (lastTry[id] !== 0 && now - lastTry[id]! <= 60) return false
    if (time[id]! > now + 600 || now - time[id]! > horizon) return true
    if (lastSuccess[id] === 0) return attempts[id]! >= attemptsWithoutSuccess
    return now - lastSuccess[id]! > failing && attempts[id]! >= attemptsAfterSuccess
  }

  /** The chance that a draw takes the entry, 1 for one that did not fail. `now` is in seconds. */
  chance(id: number, now: number): number {
    const { attempts, lastTry } = this.entries
    const isRecent = lastTry[id] !== 0 && now - lastTry[id]! < 600
    return (isRecent ? 0.01 : 1) * 0.66 ** Math.min(attempts[id]!, 8)
  }
}
