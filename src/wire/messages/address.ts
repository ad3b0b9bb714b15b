/** Addresses of other peers: `addr`, and `addrv2` (BIP155), which also carries Tor, I2P and CJDNS. */
import { compactSizeAt, compactSizeWidth, u32At, u64At, varBytesAt, viewOf } from "../../primitives/bytes.ts"
import { type Reader } from "../reader.ts"
import { type Writer } from "../writer.ts"
import { isIn, prefixes } from "../../address/ranges.ts"
import { addressLengths, formatHostAndPort } from "../../address/text.ts"
import { type List, OffsetList, readList, writeList } from "../list.ts"
import type { Codec } from "../codec.ts"
import { addressFieldsOf, type NetworkAddress, setAddress } from "./control.ts"

/**
 * An `addr` or `addrv2` has at most 1,000 addresses.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxAddresses = 1_000

/**
 * An address of `addrv2` is at most 512 bytes (BIP155), for any network.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxAddressLength = 512

/**
 * An address of `addr` with the time it was last seen, 30 bytes.
 *
 * @category models
 * @since 0.1.0
 */
export interface TimestampedAddress extends NetworkAddress {
  /** Unix seconds, uint32. */
  readonly timestamp: number
}

/**
 * Addresses of other peers: at most 1,000. More is `TooMany`: disconnect.
 *
 * @category models
 * @since 0.1.0
 */
export interface Addr {
  readonly _tag: "addr"
  readonly addresses: List<TimestampedAddress>
}

/**
 * An address of BIP155.
 *
 * @category models
 * @since 0.1.0
 */
export interface AddressV2 {
  /** Unix seconds, uint32. */
  readonly timestamp: number
  /** 64 service bits; unknown bits are kept. */
  readonly services: bigint
  /** 1 IPv4 (4 bytes), 2 IPv6 (16), 4 Tor v3 (32), 5 I2P (32), 6 CJDNS (16). */
  readonly networkId: number
  /** In network order, with the length that the network has. */
  readonly address: Uint8Array
  /** 0 to 65535; 0 for I2P. */
  readonly port: number
}

/**
 * Addresses of other peers in the form of BIP155: at most 1,000. More is `TooMany`: disconnect.
 *
 * As in Bitcoin Core, `decode` leaves out entries of unknown networks, of any length (3, Tor v2, is unknown), and
 * entries with an IPv6 address that embeds one of another network (IPv4, Tor v2 or Core's internal names). A known network
 * with a wrong length (`BadValue`), or an address above 512 bytes (`TooMany`), drops the whole message. `encode` refuses all of
 * these with `BadValue`.
 *
 * @category models
 * @since 0.1.0
 */
export interface AddrV2 {
  readonly _tag: "addrv2"
  readonly addresses: List<AddressV2>
}

const addressSize = 30

const readTimestampedAddress = (bytes: Uint8Array, offset: number): TimestampedAddress => ({
  timestamp: u32At(bytes, offset),
  services: u64At(bytes, offset + 4),
  address: viewOf(bytes, offset + 12, offset + 28),
  port: (bytes[offset + 28] << 8) | bytes[offset + 29]
})

const addressFields = addressFieldsOf("addresses")

const writeTimestampedAddress = (writer: Writer, address: TimestampedAddress): void => {
  writer.object(address, "addresses")
  const offset = writer.reserve(addressSize)
  writer.setU32(offset, address.timestamp, "addresses.timestamp")
  setAddress(writer, offset + 4, address, addressFields)
}

export const addr: Codec<Addr> = {
  decode: (reader) => {
    const addresses = readList(reader, "addresses", addressSize, readTimestampedAddress)
    reader.atMost(maxAddresses, addresses.length, "addresses")
    return { _tag: "addr", addresses }
  },
  encode: (writer, message) =>
    writeList(
      writer,
      message.addresses,
      "addresses",
      maxAddresses,
      addressSize,
      readTimestampedAddress,
      writeTimestampedAddress
    )
}

const isHidden = (bytes: Uint8Array, offset: number): boolean =>
  isIn(bytes, prefixes.mapped, offset) ||
  isIn(bytes, prefixes.onionCat, offset) ||
  isIn(bytes, prefixes.internal, offset)

const readAddressV2 = (bytes: Uint8Array, offset: number): AddressV2 => {
  const servicesAt = offset + 4
  const first = bytes[servicesAt]
  const networkAt = servicesAt + compactSizeWidth(first)
  const address = varBytesAt(bytes, networkAt + 1)
  const portAt = networkAt + 1 + compactSizeWidth(bytes[networkAt + 1]) + address.length
  return {
    timestamp: u32At(bytes, offset),
    services: first === 0xff ? u64At(bytes, servicesAt + 1) : BigInt(compactSizeAt(bytes, servicesAt)),
    networkId: bytes[networkAt],
    address,
    port: (bytes[portAt] << 8) | bytes[portAt + 1]
  }
}

/** Tor v2, which ended in 2021. As in Core, its entries are dropped like those of an unknown network. */
const torV2 = 3

/** The length of an address of a network; 0 for a network whose entries are dropped, of any length. */
const lengthOf = (networkId: number): number => (networkId === torV2 ? 0 : (addressLengths[networkId] ?? 0))

/** Steps over an entry; returns whether it is kept. */
const scanAddressV2 = (reader: Reader): boolean => {
  reader.skip(4, "addresses.timestamp")
  reader.compactBits("addresses.services")
  const networkId = reader.u8("addresses.networkId")
  const length = reader.limited("addresses.address", maxAddressLength)
  const expected = lengthOf(networkId)
  if (expected !== 0 && length !== expected) {
    reader.badValue("addresses.address", `has ${length} bytes instead of ${expected} for network ${networkId}`)
  }
  const address = reader.offset
  reader.skip(length, "addresses.address")
  reader.skip(2, "addresses.port")
  return expected !== 0 && !(networkId === 2 && isHidden(reader.bytes, address))
}

const writeAddressV2 = (writer: Writer, address: AddressV2): void => {
  writer.object(address, "addresses")
  writer.u32(address.timestamp, "addresses.timestamp")
  writer.compactBits(address.services, "addresses.services")
  writer.u8(address.networkId, "addresses.networkId")
  const expected = lengthOf(address.networkId)
  if (expected === 0) writer.badValue("addresses.networkId", "is not 1, 2, 4, 5 or 6")
  writer.compactSize(expected)
  writer.fixed(address.address, expected, "addresses.address")
  if (address.networkId === 2 && isHidden(address.address, 0)) {
    writer.badValue("addresses.address", "hides an address of another network in an IPv6 address")
  }
  writer.u16be(address.port, "addresses.port")
}

/** An entry without its address: timestamp, services, network id, length, port. */
const minAddressV2Size = 9

export const addrv2: Codec<AddrV2> = {
  decode: (reader) => {
    const count = reader.count("addresses", minAddressV2Size)
    const start = reader.offset
    const offsets: Array<number> = []
    for (let i = 0; i < count; i++) {
      const offset = reader.offset
      if (scanAddressV2(reader)) offsets.push(offset)
    }
    reader.atMost(maxAddresses, count, "addresses")
    const view = new OffsetList(reader.bytes, start, reader.offset, offsets, readAddressV2)
    // A view is encoded by copying its bytes. If entries were left out, an array prevents that they are encoded again.
    return { _tag: "addrv2", addresses: offsets.length === count ? view : Array.from(view) }
  },
  encode: (writer, message) =>
    writeList(writer, message.addresses, "addresses", maxAddresses, minAddressV2Size, readAddressV2, writeAddressV2)
}

/**
 * An address as people write it: `1.2.3.4:8333` (IPv4, also where it is mapped into IPv6), `[2001:db8::1]:8333` (IPv6
 * and CJDNS), `….onion:8333` (Tor, with the checksum of version 3), `….b32.i2p` (without its port, which is 0).
 *
 * The address of an unknown network is written as hexadecimal.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const address = { timestamp: 0, services: 1n, networkId: 1, address: Uint8Array.of(1, 2, 3, 4), port: 8333 }
 * console.log(Wire.formatAddress(address)) // 1.2.3.4:8333
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const formatAddress = (address: NetworkAddress | AddressV2): string => {
  const { address: bytes, port } = address
  return formatHostAndPort("networkId" in address ? address.networkId : 2, bytes, port)
}
