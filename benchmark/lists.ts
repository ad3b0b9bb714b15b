/** Speed of decoding and encoding lists (inv, headers, addr, addrv2), compared with other libraries and hand-written loops. */
import * as Result from "effect/Result"
import { Wire } from "../src/index.ts"
import { type Kind, loadLibraries } from "./competitors.ts"
import { addresses, addressesV2, headers, inventory } from "./data.ts"
import { ask, type Competitor, printTable } from "./harness.ts"
import { buffer, compare, decodeAs, targetsOf, us } from "./shared.ts"

const libraries = loadLibraries()
const byHand = "loop by hand"

interface ByHand {
  readonly read: (payload: Uint8Array) => number
  readonly encode: () => Uint8Array
}

/** Decoding with every field read, and encoding of plain objects: ours, the libraries that can, and a hand-written loop. */
const askBoth = async (
  kind: Kind | "addrv2",
  title: string,
  message: Wire.Message,
  count: number,
  unit: string,
  read: (payload: Uint8Array) => number,
  hand: ByHand
): Promise<void> => {
  const payload = Result.getOrThrow(Wire.encode(message))
  const bytes = buffer(payload)
  const able = kind === "addrv2" ? [] : libraries.filter((library) => library[kind] !== undefined)
  const codecs = able.map((library) => ({ name: library.name, codec: library[kind as Kind]! }))
  compare(payload, Result.getOrThrow(Wire.encode(decodeAs(kind, payload))))
  compare(payload, hand.encode(), byHand)
  for (const { codec, name } of codecs) compare(payload, codec.encoder(bytes)(), name)
  const amount = { count, unit }
  await ask({
    title: `decode ${title}, all read`,
    competitors: [
      { name: us, run: () => read(payload) },
      ...codecs.map(({ codec, name }): Competitor => ({ name, run: () => codec.read(bytes) })),
      { name: byHand, run: () => hand.read(payload) }
    ],
    amount,
    targets: targetsOf(able)
  })
  await ask({
    title: `encode ${title}, made of plain objects`,
    competitors: [
      { name: us, run: () => Result.getOrThrow(Wire.encode(message)).length },
      ...codecs.map(({ codec, name }): Competitor => {
        const encode = codec.encoder(bytes)
        return { name, run: () => encode().length }
      }),
      { name: byHand, run: () => hand.encode().length }
    ],
    amount,
    targets: targetsOf(able)
  })
}

// ---- code without a library: one object per element, a DataView, the same checks

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

/** The count, and the offset of the first element; an element has at least `size` bytes. */
const countOf = (bytes: Uint8Array, view: DataView, most: number, size: number): readonly [number, number] => {
  const first = bytes[0]!
  const start = first < 0xfd ? 1 : 3
  const count = first < 0xfd ? first : view.getUint16(1, true)
  if (first > 0xfd || (first === 0xfd && count < 0xfd)) throw new Error("bad count")
  if (count > most || start + count * size > bytes.length) throw new Error("too many")
  return [count, start]
}

/** A buffer with the count, and the offset of the first element. */
const counted = (count: number, size: number): readonly [Uint8Array, DataView, number] => {
  const start = count < 0xfd ? 1 : 3
  const bytes = new Uint8Array(start + size)
  const view = viewOf(bytes)
  if (count < 0xfd) bytes[0] = count
  else {
    bytes[0] = 0xfd
    view.setUint16(1, count, true)
  }
  return [bytes, view, start]
}

const itemsByHand = (items: ReadonlyArray<Wire.InventoryItem>): ByHand => ({
  read: (payload) => {
    const view = viewOf(payload)
    const [count, start] = countOf(payload, view, 50_000, 36)
    const decoded: Array<Wire.InventoryItem> = []
    for (let i = 0, offset = start; i < count; i++, offset += 36) {
      decoded.push({ type: view.getUint32(offset, true), hash: payload.subarray(offset + 4, offset + 36) })
    }
    return foldItems(decoded)
  },
  encode: () => {
    const [bytes, view, start] = counted(items.length, items.length * 36)
    let offset = start
    for (const { hash, type } of items) {
      if (hash.length !== 32) throw new Error("bad hash")
      view.setUint32(offset, type, true)
      bytes.set(hash, offset + 4)
      offset += 36
    }
    return bytes
  }
})

const headersByHand = (list: ReadonlyArray<Wire.BlockHeader>): ByHand => ({
  read: (payload) => {
    const view = viewOf(payload)
    const [count, start] = countOf(payload, view, 2_000, 81)
    const decoded: Array<Wire.BlockHeader> = []
    for (let i = 0, offset = start; i < count; i++, offset += 81) {
      if (payload[offset + 80] !== 0) throw new Error("with transactions")
      decoded.push({
        version: view.getInt32(offset, true),
        previousBlock: payload.subarray(offset + 4, offset + 36),
        merkleRoot: payload.subarray(offset + 36, offset + 68),
        timestamp: view.getUint32(offset + 68, true),
        bits: view.getUint32(offset + 72, true),
        nonce: view.getUint32(offset + 76, true)
      })
    }
    return foldHeaders(decoded)
  },
  encode: () => {
    const [bytes, view, start] = counted(list.length, list.length * 81)
    let offset = start
    for (const { bits, merkleRoot, nonce, previousBlock, timestamp, version } of list) {
      if (previousBlock.length !== 32 || merkleRoot.length !== 32) throw new Error("bad hash")
      view.setInt32(offset, version, true)
      bytes.set(previousBlock, offset + 4)
      bytes.set(merkleRoot, offset + 36)
      view.setUint32(offset + 68, timestamp, true)
      view.setUint32(offset + 72, bits, true)
      view.setUint32(offset + 76, nonce, true)
      offset += 81
    }
    return bytes
  }
})

const addressesByHand = (list: ReadonlyArray<Wire.TimestampedAddress>): ByHand => ({
  read: (payload) => {
    const view = viewOf(payload)
    const [count, start] = countOf(payload, view, 1_000, 30)
    const decoded: Array<Wire.TimestampedAddress> = []
    for (let i = 0, offset = start; i < count; i++, offset += 30) {
      decoded.push({
        timestamp: view.getUint32(offset, true),
        services: view.getBigUint64(offset + 4, true),
        address: payload.subarray(offset + 12, offset + 28),
        port: view.getUint16(offset + 28)
      })
    }
    return foldAddresses(decoded)
  },
  encode: () => {
    const [bytes, view, start] = counted(list.length, list.length * 30)
    let offset = start
    for (const { address, port, services, timestamp } of list) {
      if (address.length !== 16) throw new Error("bad address")
      view.setUint32(offset, timestamp, true)
      view.setBigUint64(offset + 4, services, true)
      bytes.set(address, offset + 12)
      view.setUint16(offset + 28, port)
      offset += 30
    }
    return bytes
  }
})

/** Lengths of addresses, by network id. */
const lengths = [0, 4, 16, 10, 32, 32, 16]

/** Reads services of up to 16 bits only, which all entries here have. A library has to read larger ones as well. */
const addressesV2ByHand = (list: ReadonlyArray<Wire.AddressV2>): ByHand => ({
  read: (payload) => {
    const view = viewOf(payload)
    const [count, start] = countOf(payload, view, 1_000, 9)
    const decoded: Array<Wire.AddressV2> = []
    let offset = start
    for (let i = 0; i < count; i++) {
      const timestamp = view.getUint32(offset, true)
      if (payload[offset + 4] !== 0xfd) throw new Error("other services")
      const services = BigInt(view.getUint16(offset + 5, true))
      const networkId = payload[offset + 7]!
      const length = payload[offset + 8]!
      if (lengths[networkId] !== length || offset + 11 + length > payload.length) throw new Error("bad address")
      const address = payload.subarray(offset + 9, offset + 9 + length)
      decoded.push({ timestamp, services, networkId, address, port: view.getUint16(offset + 9 + length) })
      offset += 11 + length
    }
    return foldAddresses(decoded)
  },
  encode: () => {
    const [bytes, view, start] = counted(
      list.length,
      list.reduce((size, { address }) => size + 11 + address.length, 0)
    )
    let offset = start
    for (const { address, networkId, port, services, timestamp } of list) {
      if (lengths[networkId] !== address.length) throw new Error("bad address")
      view.setUint32(offset, timestamp, true)
      bytes[offset + 4] = 0xfd
      view.setUint16(offset + 5, Number(services), true)
      bytes[offset + 7] = networkId
      bytes[offset + 8] = address.length
      bytes.set(address, offset + 9)
      view.setUint16(offset + 9 + address.length, port)
      offset += 11 + address.length
    }
    return bytes
  }
})

// ---- all fields

const foldItems = (items: Iterable<Wire.InventoryItem>): number => {
  let sum = 0
  for (const { hash, type } of items) sum += type + hash[0]!
  return sum
}

const foldHeaders = (list: Iterable<Wire.BlockHeader>): number => {
  let sum = 0
  for (const { bits, merkleRoot, nonce, previousBlock, timestamp, version } of list) {
    sum += version + previousBlock[0]! + merkleRoot[0]! + timestamp + bits + nonce
  }
  return sum
}

const foldAddresses = (list: Iterable<Wire.TimestampedAddress | Wire.AddressV2>): number => {
  let sum = 0
  for (const { address, port, services, timestamp } of list) {
    sum += timestamp + Number(services) + port + (address.length > 0 ? 1 : 0)
  }
  return sum
}

for (const count of [1_000, 50_000]) {
  const items = inventory(count)
  await askBoth(
    "inv",
    `an inv of ${count.toLocaleString("en-US")}`,
    { _tag: "inv", items },
    count,
    "items",
    (payload) => foldItems(decodeAs("inv", payload).items),
    itemsByHand(items)
  )
}

const chain = headers(2_000)
await askBoth(
  "headers",
  "headers of 2,000",
  { _tag: "headers", headers: chain },
  chain.length,
  "headers",
  (payload) => foldHeaders(decodeAs("headers", payload).headers),
  headersByHand(chain)
)

const legacy = addresses(1_000)
await askBoth(
  "addr",
  "an addr of 1,000",
  { _tag: "addr", addresses: legacy },
  legacy.length,
  "addresses",
  (payload) => foldAddresses(decodeAs("addr", payload).addresses),
  addressesByHand(legacy)
)

const modern = addressesV2(1_000)
await askBoth(
  "addrv2",
  "an addrv2 of 1,000",
  { _tag: "addrv2", addresses: modern },
  modern.length,
  "addresses",
  (payload) => foldAddresses(decodeAs("addrv2", payload).addresses),
  addressesV2ByHand(modern)
)

printTable("lists: inv, headers, addr, addrv2")
