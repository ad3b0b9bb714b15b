/** Keys of addresses for `Map` and `Set`, which compare byte arrays by identity. */
import { type Address, type Host, NetworkId } from "../../Address.ts"

/** Equal for equal hosts: the number of the network and the bytes, one character each. */
export const hostKey = ({ address, networkId }: Host): string => String.fromCharCode(networkId, ...address)

/** Equal for equal addresses: the key of the host, then the port as one character. */
export const addressKey = (address: Address): string => hostKey(address) + String.fromCharCode(address.port)

/** Bytes of the subnet that one customer can have: a /24 of IPv4, a /64 of IPv6. Elsewhere an address is a whole key. */
const subnetLengths: { readonly [networkId: number]: number | undefined } = { [NetworkId.ipv4]: 3, [NetworkId.ipv6]: 8 }

/** Equal for hosts of the same /24 of IPv4 or /64 of IPv6, and for equal hosts of other networks. */
export const subnetKey = ({ address, networkId }: Host): string =>
  hostKey({ networkId, address: address.subarray(0, subnetLengths[networkId] ?? address.length) })
