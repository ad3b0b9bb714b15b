/** Whether the parts of a book agree: for tests, and after a file was read. */
import type { Tables } from "./tables.ts"
import { mostReferences } from "./tables.ts"
import { networks } from "./entries.ts"
import { bucketSize, newBuckets } from "./hash.ts"

/**
 * What is wrong with a book; `undefined` if nothing is. `isHashed` also computes each place again, which takes two to four hashes for each
 * address, and looks for each address.
 */
export const check = (tables: Tables, isHashed = true): string | undefined => {
  const { counts, entries, masks, places, sizes } = tables
  const { isTried, lastSuccess, network, order, references } = entries
  /** In how many places an entry was found. */
  const found = new Uint8Array(entries.capacity)
  const foundCounts = new Uint8Array(counts.length)
  let foundSize = 0
  for (let place = 0; place < places.length; place++) {
    const id = places[place]!
    if (id === -1) continue
    const bucket = Math.floor(place / bucketSize)
    if (isTried[id] !== (bucket < newBuckets ? 0 : 1)) return `entry ${id} is in the wrong table`
    if (isTried[id] === 1 && found[id] !== 0) return `entry ${id} is tried, and in another place`
    if (isHashed && !isInPlace(tables, id, place)) return `entry ${id} does not belong to place ${place}`
    if (found[id] === 0) foundSize++
    found[id]!++
    foundCounts[bucket * networks.length + network[id]!]!++
  }
  if (foundSize !== entries.size) return `${foundSize} entries are in buckets instead of ${entries.size}`
  for (let at = 0; at < counts.length; at++) {
    const bucket = Math.floor(at / networks.length)
    if (counts[at] !== foundCounts[at]) return `the count ${at} is wrong`
    if (((masks[bucket]! >> (at % networks.length)) & 1) !== (counts[at] === 0 ? 0 : 1))
      return `mask ${bucket} is wrong`
  }

  const foundSizes = new Int32Array(sizes.length)
  for (let at = 0; at < entries.size; at++) {
    const id = order[at]!
    if (!entries.isAt(id, at)) return `entry ${id} does not know its place in the random order`
    if (isHashed && entries.find(entries.address(id)) !== id) return `entry ${id} is not found by its address`
    if (found[id] === 0) return `entry ${id} of the random order is in no bucket`
    if (isTried[id] === 1 && lastSuccess[id] === 0) return `entry ${id} is tried without a success`
    if (references[id] !== (isTried[id] === 1 ? 0 : found[id])) return `entry ${id} has a wrong number of references`
    if (found[id]! > mostReferences) return `entry ${id} has too many references`
    foundSizes[(isTried[id] === 1 ? networks.length : 0) + network[id]!]!++
  }
  for (let at = 0; at < sizes.length; at++) if (sizes[at] !== foundSizes[at]) return `the size ${at} is wrong`
  for (const id of tables.collisions) {
    if (found[id] === 0 || isTried[id] === 1) return `entry ${id} waits for a place, but is not new`
  }
  return undefined
}

const isInPlace = (tables: Tables, id: number, place: number): boolean => {
  const address = tables.entries.address(id)
  const bucket = Math.floor(place / bucketSize)
  return bucket < newBuckets
    ? tables.hash.position(false, bucket, address) === place % bucketSize
    : tables.triedPlace(address) === place
}
