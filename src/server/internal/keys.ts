/** Keys of addresses for `Map` and `Set`, which compare byte arrays by identity. */
import type { Address, Host } from "../../Address.ts"

/** Equal for equal hosts: the number of the network and the bytes, one character each. */
export const hostKey = ({ address, networkId }: Host): string => String.fromCharCode(networkId, ...address)

/** Equal for equal addresses: the key of the host, then the port as one character. */
export const addressKey = (address: Address): string => hostKey(address) + String.fromCharCode(address.port)
