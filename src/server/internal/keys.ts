/** Keys of addresses for `Map` and `Set`, which compare byte arrays by identity. */
import { encode } from "effect/encoding/Hex"
import { type Address, group, type Host, NetworkId } from "../../Address.ts"

/** Equal for equal hosts: the number of the network and the bytes, one character each. */
export const hostKey = ({ address, networkId }: Host): string => String.fromCharCode(networkId, ...address)

/** Equal for equal addresses: the key of the host, then the port as one character. */
export const addressKey = (address: Address): string => hostKey(address) + String.fromCharCode(address.port)

/** Bytes of the subnet that one customer can have: a /24 of IPv4, a /64 of IPv6. Elsewhere an address is a whole key. */
const subnetLengths: { readonly [networkId: number]: number | undefined } = { [NetworkId.ipv4]: 3, [NetworkId.ipv6]: 8 }

/** Equal for hosts of the same /24 of IPv4 or /64 of IPv6, and for equal hosts of other networks. */
export const subnetKey = ({ address, networkId }: Host): string =>
  hostKey({ networkId, address: address.subarray(0, subnetLengths[networkId] ?? address.length) })

/** Service bits as 16 hexadecimal digits. */
export const hexOfServices = (services: bigint): string => services.toString(16).padStart(16, "0")

/** The key of the group of a host: its autonomous system, where a map knows it, or else the group of `Address`. Hexadecimal digits. */
export const groupKey = (host: Host, systemOf?: (host: Host) => Uint8Array | undefined): string => {
  const system = systemOf?.(host)
  return system === undefined ? group(host) : encode(system)
}
