/** Formats the addresses of nodes as text. */
import { base32nopad } from "@scure/base"
import * as NetAddress from "effect/net/NetAddress"
import { encode as hex } from "effect/encoding/Hex"
import { sha3 } from "../primitives/sha256.ts"

/** The length of an address by its network (BIP155); 0 for network 0, which does not exist. */
export const addressLengths: ReadonlyArray<number> = [0, 4, 16, 10, 32, 32, 16]

const base32 = (bytes: Uint8Array): string => base32nopad.encode(bytes).toLowerCase()

/** The version in the names of Tor v3. */
export const onionVersion = 3

const onionPrefix = Uint8Array.from(".onion checksum", (character) => character.charCodeAt(0))

/** The checksum in a name of Tor v3 (rend-spec-v3): the name is base32 of the key, these two bytes and the version. */
export const onionChecksum = (key: Uint8Array): Uint8Array =>
  sha3(Uint8Array.of(...onionPrefix, ...key, onionVersion)).subarray(0, 2)

const formatIp = (address: Uint8Array): string =>
  NetAddress.formatIp(
    NetAddress.toCanonical(
      address.length === 4 ? NetAddress.ipv4FromBytesUnsafe(address) : NetAddress.ipv6FromBytesUnsafe(address)
    )
  )

/** The usual text of a host; `zone` belongs to IPv6 and is omitted if it is 0. */
export const formatHost = (networkId: number, address: Uint8Array, zone = 0): string => {
  switch (address.length === addressLengths[networkId] ? networkId : 0) {
    case 2:
      return zone === 0 ? formatIp(address) : `${formatIp(address)}%${zone}`
    case 1:
    case 6:
      return formatIp(address)
    case 3:
      return `${base32(address)}.onion`
    case 4:
      return `${base32(Uint8Array.of(...address, ...onionChecksum(address), onionVersion))}.onion`
    case 5:
      return `${base32(address)}.b32.i2p`
    default:
      return hex(address)
  }
}

/** A host and its port, with brackets around an IPv6 or CJDNS address. */
export const formatHostAndPort = (networkId: number, address: Uint8Array, port: number, zone?: number): string => {
  const host = formatHost(networkId, address, zone)
  // I2P has no ports: 0 is the only valid one.
  if (networkId === 5 && port === 0) return host
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`
}
