import type { List } from "../list.ts"
import type { NetworkAddress } from "./control.ts"

export interface TimestampedAddress extends NetworkAddress {
  /** Unix seconds, 32 bits. */
  readonly timestamp: number
}
export interface Addr { readonly _tag: "addr"; readonly addresses: List<TimestampedAddress> }

/** An address of BIP155. Entries with an unknown `networkId` are dropped from a decoded message. */
export interface AddressV2 {
  readonly timestamp: number
  readonly services: bigint
  /** 1 IPv4 (4 bytes), 2 IPv6 (16), 3 Tor v2 (10), 4 Tor v3 (32), 5 I2P (32), 6 CJDNS (16). */
  readonly networkId: number
  readonly address: Uint8Array
  readonly port: number
}
export interface AddrV2 { readonly _tag: "addrv2"; readonly addresses: List<AddressV2> }
