/** Draws addresses from a book: one to dial, or many to tell others. */
import * as Address from "../../../Address.ts"
import type { NetworkName } from "../networkNames.ts"
import { type Tables, seconds } from "./tables.ts"
import { networks } from "./entries.ts"
import { bucketSize, newBuckets } from "./hash.ts"

/** The buckets to draw from. Only one draw runs at a time. */
const candidates = new Int16Array(newBuckets)

export interface SelectOptions {
  /** Only from the new table. */
  readonly newOnly?: boolean | undefined
  /** Only of these networks; of all networks if left out. */
  readonly networks?: ReadonlySet<NetworkName> | undefined
}

/** Which of `networks` are asked for, as bits. */
const maskOf = (names: ReadonlySet<NetworkName> | undefined): number => {
  if (names === undefined) return (1 << networks.length) - 1
  let mask = 0
  for (const [number, name] of networks.entries()) if (names.has(name)) mask |= 1 << number
  return mask
}

const sizeOf = ({ sizes }: Tables, isTried: boolean, mask: number): number => {
  let size = 0
  for (let network = 0; network < networks.length; network++) {
    if ((mask & (1 << network)) !== 0) size += sizes[(isTried ? networks.length : 0) + network]!
  }
  return size
}

/** Collects the buckets that have an entry of the networks, and returns their number. */
const collect = ({ masks }: Tables, isTried: boolean, mask: number): number => {
  const end = isTried ? masks.length : newBuckets
  let found = 0
  for (let bucket = isTried ? newBuckets : 0; bucket < end; bucket++) {
    if ((masks[bucket]! & mask) !== 0) candidates[found++] = bucket
  }
  return found
}

/**
 * Draws an entry to dial: from either table with the same chance, each bucket with the same chance, then from a random position on. So an
 * attacker who fills one bucket gains nothing elsewhere. -1 if the book has no such entry.
 *
 * The smallest chance of an entry is 0.01 × 0.66^8 and grows by a fifth with each miss, so that there are at most 44 misses. Bitcoin Core
 * draws from all buckets until it finds one that is not empty, which gives the same distribution.
 */
export const select = (
  tables: Tables,
  at: number,
  { networks: names, newOnly = false }: SelectOptions = {}
): number => {
  const { entries, places, random } = tables
  const now = seconds(at)
  const mask = maskOf(names)
  const ofNew = sizeOf(tables, false, mask)
  const ofTried = newOnly ? 0 : sizeOf(tables, true, mask)
  if (ofNew + ofTried === 0) return -1
  const isTried = ofTried > 0 && (ofNew === 0 || random.below(2) === 1)
  const count = collect(tables, isTried, mask)
  for (let factor = 1; ; factor *= 1.2) {
    const start = candidates[random.below(count)]! * bucketSize
    let position = random.below(bucketSize)
    let id = places[start + position]!
    while (id === -1 || (mask & (1 << entries.network[id]!)) === 0) {
      position = (position + 1) % bucketSize
      id = places[start + position]!
    }
    if (random.next() < factor * tables.chance(id, now)) return id
  }
}

export interface GetAddressesOptions {
  /** At most this many. */
  readonly maximum?: number | undefined
  /** At most this share of the book, in percent. */
  readonly percent?: number | undefined
  readonly network?: NetworkName | undefined
  /** Also those that are too bad to be told to others. */
  readonly unfiltered?: boolean | undefined
}

/** The numbers that Bitcoin Core gives to networks, in the first byte of a group: an IPv6 address that tunnels IPv4 counts as IPv4. */
const classOf = (host: Address.Host): number => Number.parseInt(Address.group(host).slice(0, 2), 16)

/** Draws entries to tell others, each with the same chance. */
export const getAddresses = (
  tables: Tables,
  at: number,
  { maximum = Infinity, network, percent = 100, unfiltered = false }: GetAddressesOptions = {}
): Array<number> => {
  const { entries, random } = tables
  const now = seconds(at)
  const most = Math.min(maximum, Math.floor((Math.min(percent, 100) * entries.size) / 100))
  const wanted = network === undefined ? -1 : networks.indexOf(network)
  const found: Array<number> = []
  for (let i = 0; i < entries.size && found.length < most; i++) {
    entries.swap(i, i + random.below(entries.size - i))
    const id = entries.order[i]!
    if (wanted !== -1 && classOf(entries.address(id)) !== wanted) continue
    if (unfiltered || !tables.isTerrible(id, now)) found.push(id)
  }
  return found
}
