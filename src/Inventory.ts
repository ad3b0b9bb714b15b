/**
 * The blocks and transactions that one peer knows, and those that wait to be announced to it: plain operations on plain
 * data, with time and randomness as parameters. `Peer.announce` uses it; `makeKnown` is useful alone.
 *
 * Blocks are announced at once. Transactions trickle: they wait for the next turn, whose time is random, and are sent in
 * batches, so that no peer can tell when they arrived here. A hash that the peer knows is not announced to it. That is
 * checked when it is queued and again when it is sent.
 */
import { InventoryType, type InventoryItem } from "./Wire.ts"

/**
 * How many hashes of a peer are remembered: 1,000 as in btcd. Core remembers 50,000 in a filter.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultKnownInventory = 1_000
/**
 * The greatest number of entries in one inv of the trickle.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxTrickleBatch = 1_000

/**
 * A set of at most `limit` hashes, which forgets the least recently used one. An entry takes about 18 bytes, in typed
 * arrays that grow with the number of entries. It holds marks of 64 bits instead of the hashes themselves.
 *
 * @category models
 * @since 0.1.0
 */
export interface Known {
  readonly size: number
  /** Whether the hash of 32 bytes is in the set. Asking does not count as use. */
  has(hash: Uint8Array): boolean
  /**
   * Makes the hash the most recently used one, and removes the least recently used one if the set is full. True when the
   * hash was new.
   */
  add(hash: Uint8Array): boolean
  /** Adds the hash of 32 bytes that begins at this offset of `bytes`: a view of it takes as long to make as to add. */
  addAt(bytes: Uint8Array, offset: number): boolean
}

const none = -1
const hashSize = 32
const leastCapacity = 16
/** From this capacity on, the numbers of slots do not fit 16 bits. */
const wideCapacity = 1 << 15

// Shared by all empty sets.
const noMarks = new Int32Array(0)
const noLinks = new Int16Array(0)

/**
 * A hash is remembered by a mark of 64 bits, which depends on all its bytes and the seed. Of 1,000 known hashes, one has the mark of
 * another hash with a probability of 2^-54. The remote chooses hashes but does not know the seed.
 */
class KnownSet implements Known {
  size = 0
  readonly #limit: number
  readonly #seed: number
  #capacity = 0
  /** The halves of the mark that is looked for. */
  #low = 0
  #high = 0
  /** The mark of each slot, in two halves. */
  #marks: Int32Array = noMarks
  /**
   * Numbers of slots, in one array, because each has some 250 bytes of its own. First the neighbours of each slot in the order of use,
   * `#capacity` older ones, then as many newer ones; then the next slot of the same bucket of the table; then the table.
   */
  #links: Int16Array | Int32Array = noLinks
  #oldest = none
  #newest = none

  constructor(limit: number, seed: number) {
    this.#limit = limit
    this.#seed = seed | 0
  }

  has(hash: Uint8Array): boolean {
    if (this.size === 0) return false
    this.#look(hash, 0)
    return this.#find() !== none
  }

  add(hash: Uint8Array): boolean {
    return this.addAt(hash, 0)
  }

  addAt(bytes: Uint8Array, offset: number): boolean {
    if (this.#limit <= 0) return true
    this.#look(bytes, offset)
    const known = this.#find()
    if (known !== none) {
      if (known !== this.#newest) {
        this.#unlink(known)
        this.#linkAsNewest(known)
      }
      return false
    }
    if (this.size === this.#capacity && this.#capacity < this.#limit) this.#grow()
    let slot = this.size
    if (this.size === this.#capacity) {
      slot = this.#oldest
      this.#unchain(slot)
      this.#unlink(slot)
    } else this.size++
    this.#marks[slot * 2] = this.#low
    this.#marks[slot * 2 + 1] = this.#high
    this.#enchain(slot)
    this.#linkAsNewest(slot)
    return true
  }

  /** Looks for the hash at an offset from now on. */
  #look(bytes: Uint8Array, offset: number): void {
    let low = this.#seed
    let high = ~low
    for (let from = offset; from < offset + hashSize; from += 4) {
      const word = bytes[from]! | (bytes[from + 1]! << 8) | (bytes[from + 2]! << 16) | (bytes[from + 3]! << 24)
      low = Math.imul(low ^ word, 0x9e3779b1)
      low ^= low >>> 15
      high = Math.imul((high + word) | 0, 0x85ebca6b)
      high ^= high >>> 13
    }
    this.#low = low
    this.#high = high
  }

  /** Where the bucket of a mark with this lower half is, in `#links`. */
  #bucketOf(low: number): number {
    const table = this.#capacity * 3
    return table + (low & (this.#links.length - table - 1))
  }

  #find(): number {
    if (this.size === 0) return none
    const links = this.#links
    const marks = this.#marks
    const low = this.#low
    const high = this.#high
    const chained = this.#capacity * 2
    let slot = links[this.#bucketOf(low)]!
    while (slot !== none && !(marks[slot * 2] === low && marks[slot * 2 + 1] === high)) slot = links[chained + slot]!
    return slot
  }

  #enchain(slot: number): void {
    const links = this.#links
    const bucket = this.#bucketOf(this.#marks[slot * 2]!)
    links[this.#capacity * 2 + slot] = links[bucket]!
    links[bucket] = slot
  }

  #unchain(slot: number): void {
    const links = this.#links
    const chained = this.#capacity * 2
    let before = this.#bucketOf(this.#marks[slot * 2]!)
    while (links[before] !== slot) before = chained + links[before]!
    links[before] = links[chained + slot]!
  }

  #unlink(slot: number): void {
    const links = this.#links
    const capacity = this.#capacity
    const older = links[slot]!
    const newer = links[capacity + slot]!
    if (older === none) this.#oldest = newer
    else links[capacity + older] = newer
    if (newer === none) this.#newest = older
    else links[newer] = older
  }

  #linkAsNewest(slot: number): void {
    const links = this.#links
    const capacity = this.#capacity
    links[slot] = this.#newest
    links[capacity + slot] = none
    if (this.#newest === none) this.#oldest = slot
    else links[capacity + this.#newest] = slot
    this.#newest = slot
  }

  #grow(): void {
    const before = this.#capacity
    const capacity = Math.min(this.#limit, Math.max(leastCapacity, before * 2))
    const size = capacity * 3 + (1 << Math.ceil(Math.log2(capacity)))
    const links = (capacity < wideCapacity ? new Int16Array(size) : new Int32Array(size)).fill(none)
    links.set(this.#links.subarray(0, before))
    links.set(this.#links.subarray(before, before * 2), capacity)
    const marks = new Int32Array(capacity * 2)
    marks.set(this.#marks)
    this.#capacity = capacity
    this.#links = links
    this.#marks = marks
    for (let slot = 0; slot < this.size; slot++) this.#enchain(slot)
  }
}

/**
 * Makes an empty set of at most `atMost` hashes. `seed` is any number that a remote does not know: without it, a remote
 * could choose hashes that all fall into one bucket of the table.
 *
 * @example
 * ```ts
 * import { Inventory } from "effect-bitcoin-peer"
 *
 * const known = Inventory.makeKnown(1_000, 12345)
 * known.add(new Uint8Array(32)) // true
 * known.add(new Uint8Array(32)) // false
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeKnown = (atMost: number, seed: number): Known => new KnownSet(Math.trunc(atMost) || 0, seed)

/**
 * When the transactions that wait are announced.
 *
 * @category models
 * @since 0.1.0
 */
export type Trickle =
  /** After random times with this mean, in milliseconds: no peer learns when a transaction arrived here. */
  | { readonly _tag: "Poisson"; readonly mean: number }
  /** After this number of milliseconds, as in btcd; 0 announces at once. For tests: it is not random. */
  | { readonly _tag: "Fixed"; readonly interval: number }
  /** At the same random times as all other peers of the group. The default of `PeerServer.serve`. */
  | { readonly _tag: "Shared"; readonly turns: SharedTurns; readonly group: string }

/**
 * Random times that all peers of a network group share, as in Core for inbound peers. A spy with many connections then
 * learns no more about the arrival of a transaction than with one.
 *
 * @category models
 * @since 0.1.0
 */
export interface SharedTurns {
  /** The number of groups that are remembered. */
  readonly size: number
  /** Milliseconds from `now` to the next turn of the group. `random` is uniform in [0, 1). */
  readonly next: (group: string, now: number, random: number) => number
}

/** Above this number of groups, those whose turn has passed are forgotten. */
const maxGroups = 1_024

/**
 * Makes shared turns with this mean time between two turns, in milliseconds.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeSharedTurns = (mean: number): SharedTurns => {
  const turns = new Map<string, number>()
  return {
    get size() {
      return turns.size
    },
    next: (group, now, random) => {
      const at = turns.get(group)
      if (at !== undefined && at > now) return at - now
      if (turns.size >= maxGroups) {
        for (const [other, over] of turns) if (over <= now) turns.delete(other)
      }
      const wait = -Math.log1p(-random) * mean
      turns.set(group, now + wait)
      return wait
    }
  }
}

/**
 * Core's timing: a mean of 2 s for outbound peers and of 5 s for inbound ones.
 *
 * @category getters
 * @since 0.1.0
 */
export const defaultTrickle = (direction: "inbound" | "outbound"): Trickle => ({
  _tag: "Poisson",
  mean: direction === "inbound" ? 5_000 : 2_000
})

/**
 * Milliseconds from `now` to the next turn. `random` is uniform in [0, 1).
 *
 * @category getters
 * @since 0.1.0
 */
export const nextTrickle = (trickle: Trickle, now: number, random: number): number => {
  switch (trickle._tag) {
    case "Poisson":
      return -Math.log1p(-random) * trickle.mean
    case "Fixed":
      return trickle.interval
    case "Shared":
      return trickle.turns.next(trickle.group, now, random)
  }
}

/**
 * A block or a transaction to announce, by one hash. `feeRate` of a transaction is in satoshi per 1,000 virtual bytes: it is not
 * announced to a peer whose feefilter is higher (BIP133).
 *
 * @category models
 * @since 0.1.0
 */
export interface ItemAnnouncement extends InventoryItem {
  readonly feeRate?: number | undefined
}

/**
 * A transaction to announce, by both of its hashes, each 32 bytes in wire order: the one that was agreed with the peer is announced
 * (BIP339).
 *
 * @category models
 * @since 0.1.0
 */
export interface TransactionAnnouncement {
  readonly txid: Uint8Array
  readonly wtxid: Uint8Array
  readonly feeRate?: number | undefined
}

/**
 * Something to announce.
 *
 * @category models
 * @since 0.1.0
 */
export type Announcement = ItemAnnouncement | TransactionAnnouncement

/**
 * What became of an announcement.
 *
 * - `"queued"`: a block is sent at once, a transaction at the next turn of the trickle. If the peer learns of it or raises its feefilter
 *   before that, it is skipped then.
 * - `"known"`: the peer announced it, sent it or asked for it, or it was announced to the peer.
 * - `"belowFeeFilter"`: the peer does not want transactions with such a fee rate now.
 * - `"notWanted"`: the peer wants no transactions, or not by a hash of this type.
 *
 * @category models
 * @since 0.1.0
 */
export type Announced = "queued" | "known" | "belowFeeFilter" | "notWanted"

/**
 * The form of an announcement by the one hash that was agreed with the peer.
 *
 * @category combinators
 * @since 0.1.0
 */
export const itemOf = (announcement: Announcement, { wtxidRelay }: Pick<Rules, "wtxidRelay">): ItemAnnouncement => {
  if ("hash" in announcement) return announcement
  const { feeRate, txid, wtxid } = announcement
  return wtxidRelay
    ? { type: InventoryType.wtx, hash: wtxid, feeRate }
    : { type: InventoryType.tx, hash: txid, feeRate }
}

/**
 * What decides whether a peer gets an announcement. It may change while transactions wait.
 *
 * @category models
 * @since 0.1.0
 */
export interface Rules {
  /** Whether transactions are announced by wtxid (type 5) instead of txid (type 1) (BIP339). */
  readonly wtxidRelay: boolean
  /** Whether the peer wants transactions (BIP37). */
  readonly relay: boolean
  /** The peer's feefilter (BIP133), in satoshi per 1,000 virtual bytes; 0 without one. */
  readonly feeFilter: number
}

/**
 * The hashes that a peer knows, and the transactions that wait for its next turn.
 *
 * @category models
 * @since 0.1.0
 */
export interface Inventory {
  readonly known: Known
  /** The transactions that wait for the next turn, in the order in which they were queued: the newest 50,000 at most. */
  readonly waiting: ReadonlyArray<ItemAnnouncement>
  /** Queues a transaction, if the peer wants it announced and does not know it. */
  readonly queue: (announcement: ItemAnnouncement, rules: Rules) => Announced
  /** Takes the transactions of a turn, in batches of at most 1,000. They are known from now on. */
  readonly take: (rules: Rules) => ReadonlyArray<ReadonlyArray<InventoryItem>>
}

/** Why a transaction is not announced, whether or not it is known. */
const unwanted = ({ feeRate, type }: ItemAnnouncement, rules: Rules): Announced | undefined => {
  if (!rules.relay || type !== (rules.wtxidRelay ? InventoryType.wtx : InventoryType.tx)) return "notWanted"
  return feeRate !== undefined && feeRate < rules.feeFilter ? "belowFeeFilter" : undefined
}

/** Transactions that wait for a peer that takes no announcements; above, the older half is dropped. */
const maxWaiting = 50_000

class PeerInventory implements Inventory {
  readonly known: Known
  waiting: Array<ItemAnnouncement> = []

  constructor(known: Known) {
    this.known = known
  }

  queue(announcement: ItemAnnouncement, rules: Rules): Announced {
    if (this.known.has(announcement.hash)) return "known"
    const why = unwanted(announcement, rules)
    if (why !== undefined) return why
    if (this.waiting.length >= maxWaiting) this.waiting.splice(0, maxWaiting / 2)
    this.waiting.push(announcement)
    return "queued"
  }

  take(rules: Rules): ReadonlyArray<ReadonlyArray<InventoryItem>> {
    const turn = this.waiting
    this.waiting = []
    const batches: Array<Array<InventoryItem>> = []
    for (const announcement of turn) {
      // While it waited it may have become known, or its fee too low. A duplicate is known by now.
      if (unwanted(announcement, rules) !== undefined || !this.known.add(announcement.hash)) continue
      const last = batches.at(-1)
      const item: InventoryItem = { type: announcement.type, hash: announcement.hash }
      if (last !== undefined && last.length < maxTrickleBatch) last.push(item)
      else batches.push([item])
    }
    return batches
  }
}

/**
 * Makes an inventory in which no hash is known and no transaction waits.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (knownInventory: number, seed: number): Inventory =>
  new PeerInventory(makeKnown(knownInventory, seed))
