/** The networks by the names that Bitcoin Core prints. */
import { canonical, type Host, isRoutable, NetworkId } from "../../Address.ts"

/**
 * A network by the name that Bitcoin Core prints. `not_publicly_routable` is every address that cannot be reached from elsewhere, such as
 * 127.0.0.1 and 192.168.0.1.
 *
 * @category models
 * @since 0.1.0
 */
export type NetworkName = "ipv4" | "ipv6" | "onion" | "i2p" | "cjdns" | "not_publicly_routable"

/** The networks that addresses can be dialled in. */
export const publicNetworks = ["ipv4", "ipv6", "onion", "i2p", "cjdns"] as const

const names: { readonly [id: number]: NetworkName | undefined } = {
  [NetworkId.ipv4]: "ipv4",
  [NetworkId.ipv6]: "ipv6",
  [NetworkId.torV3]: "onion",
  [NetworkId.i2p]: "i2p",
  [NetworkId.cjdns]: "cjdns"
}

/** The network in which a host is dialled, also if it is not routable: 127.0.0.1 is "ipv4". */
export const wayOf = (host: Host): NetworkName => names[canonical(host).networkId] ?? "not_publicly_routable"

/**
 * The name that Bitcoin Core gives to the network of a host.
 *
 * @category getters
 * @since 0.1.0
 */
export const networkNameOf = (host: Host): NetworkName => (isRoutable(host) ? wayOf(host) : "not_publicly_routable")
