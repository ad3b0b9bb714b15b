/** The address book as a plain object: the tables with addresses as objects, and files of addresses. */
import * as Result from "effect/Result"
import * as Address from "../../../Address.ts"
import type { AddressV2 } from "../../../Wire.ts"
import { type NetworkName, networkNameOf } from "../networkNames.ts"
import { Answers } from "./answers.ts"
import { check } from "./check.ts"
import { networks } from "./entries.ts"
import { bucketSize, newBuckets } from "./hash.ts"
import { encodeList, encodeText, readList } from "./lists.ts"
import type { Book, Count, Entry, Imported, List, Options, RawEntry, Selected } from "./models.ts"
import * as PeersDat from "./peersDat.ts"
import * as Draw from "./select.ts"
import { canonical, type Tables } from "./tables.ts"
import * as Text from "./text.ts"

const answerMaximum = 1_000
const answerPercent = 23

/** The object around tables. */
export const fromTables = (tables: Tables, { asmapVersion, network, random }: Options): Book => {
  const { entries, places, sizes } = tables
  const answers = new Answers(random)

  const addressOf = (id: number): Address.Address => {
    const { address, networkId, port } = entries.address(id)
    return { networkId, address: address.slice(), port }
  }
  const timestamped = (id: number): AddressV2 => ({
    timestamp: entries.time[id]!,
    services: entries.services[id]!,
    ...addressOf(id)
  })
  const selected = (id: number): Selected | undefined =>
    id === -1
      ? undefined
      : { address: addressOf(id), services: entries.services[id]!, lastTry: entries.lastTry[id]! * 1_000 }
  const entryOf = (id: number): Entry => {
    const isTried = entries.isTried[id] === 1
    const { address, networkId } = entries.source(id)
    return {
      address: timestamped(id),
      source: { networkId, address: address.slice() },
      lastTry: entries.lastTry[id]! * 1_000,
      lastSuccess: entries.lastSuccess[id]! * 1_000,
      attempts: entries.attempts[id]!,
      isTried,
      multiplicity: isTried ? 1 : entries.references[id]!
    }
  }
  const rawEntry = (id: number): RawEntry => {
    const address = entries.address(id)
    const source = entries.source(id)
    return {
      address: Address.formatHost(address),
      port: address.port,
      services: Number(entries.services[id]!),
      time: entries.time[id]!,
      network: networkNameOf(address),
      source: Address.formatHost(source),
      source_network: networkNameOf(source)
    }
  }
  const rawEntries = (first: number, end: number): { readonly [place: string]: RawEntry } => {
    const found: { [place: string]: RawEntry } = {}
    for (let place = first * bucketSize; place < end * bucketSize; place++) {
      const id = places[place]!
      if (id === -1) continue
      found[`${Math.floor(place / bucketSize) - first}/${place % bucketSize}`] = rawEntry(id)
    }
    return found
  }
  const countOf = (isCounted: (name: NetworkName) => boolean): Count => {
    let ofNew = 0
    let ofTried = 0
    for (const [number, name] of networks.entries()) {
      if (!isCounted(name)) continue
      ofNew += sizes[number]!
      ofTried += sizes[networks.length + number]!
    }
    return { new: ofNew, tried: ofTried, total: ofNew + ofTried }
  }
  const ofNetwork = (network: NetworkName): Count => countOf((name) => name === network)

  const getAddresses: Book["getAddresses"] = (now, options) =>
    Draw.getAddresses(tables, now, options).map((id) => timestamped(id))
  const serialize = (): Uint8Array => PeersDat.write(tables, network.magic, asmapVersion)
  const all = (): ReadonlyArray<AddressV2> => Array.from(entries.order.subarray(0, entries.size), timestamped)

  const take = (list: List, now: number): Imported => {
    let added = 0
    for (const { address, lastSuccess, source } of list.found) {
      added += tables.add([address], source, now)
      if (lastSuccess > 0) tables.good(address, lastSuccess * 1_000)
    }
    return { added, read: list.found.length, skipped: list.skipped, problem: list.problem }
  }

  return {
    network,
    get size() {
      return entries.size
    },
    hasNetwork: (network) => ofNetwork(network).total > 0,
    find: (address) => {
      const id = entries.find(canonical(address))
      return id === -1 ? undefined : entryOf(id)
    },
    add: (addresses, source, now, penalty) => tables.add(addresses, source, now, penalty),
    attempt: (address, countFailure, now) => tables.attempt(address, countFailure, now),
    good: (address, now) => tables.good(address, now),
    connected: (address, now) => tables.connected(address, now),
    setServices: (address, services) => tables.setServices(address, services),
    select: (now, options) => selected(Draw.select(tables, now, options)),
    collision: () => selected(tables.collision()),
    resolveCollisions: (now) => tables.resolveCollisions(now),
    getAddresses,
    answer: (requester, now, isExcluded = () => false) =>
      answers.answer(requester, now, () =>
        getAddresses(now, { maximum: answerMaximum, percent: answerPercent }).filter((address) => !isExcluded(address))
      ),
    stats: () => ({
      ipv4: ofNetwork("ipv4"),
      ipv6: ofNetwork("ipv6"),
      onion: ofNetwork("onion"),
      i2p: ofNetwork("i2p"),
      cjdns: ofNetwork("cjdns"),
      all_networks: countOf(() => true)
    }),
    entries: () => ({
      new: rawEntries(0, newBuckets),
      tried: rawEntries(newBuckets, places.length / bucketSize)
    }),
    serialize,
    exportAs: (format) => {
      switch (format) {
        case "peers.dat":
          return serialize()
        case "peers.json":
          return encodeText(`${JSON.stringify(Text.peersJson(tables))}\n`)
        case "json":
        case "lines":
          return encodeList(all(), format)
      }
    },
    importFrom: (bytes, format, now) => Result.map(readList(bytes, format, network, now), (list) => take(list, now)),
    check: () => check(tables)
  }
}
