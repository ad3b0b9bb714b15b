/** A network address as in `version` and `addr`: 26 bytes. IPv4 is written as an IPv4-mapped IPv6 address. */
export interface NetworkAddress {
  /** 64 service bits; unknown bits are kept. */
  readonly services: bigint
  /** 16 bytes, network order. */
  readonly address: Uint8Array
  readonly port: number
}

/** First message of a connection, both ways. Fields after `receiver` may be missing on the wire and take defaults. */
export interface Version {
  readonly _tag: "version"
  readonly protocolVersion: number
  readonly services: bigint
  /** Unix seconds; a negative time counts as 0. */
  readonly timestamp: number
  readonly receiver: NetworkAddress
  readonly sender: NetworkAddress
  /** 64 bits; 0 when missing. */
  readonly nonce: bigint
  /** BIP14; at most 256 bytes, one character a byte. */
  readonly userAgent: string
  readonly startHeight: number
  /** BIP37: whether transactions shall be announced; true when missing. */
  readonly relay: boolean
}
export interface Verack { readonly _tag: "verack" }
export interface WtxidRelay { readonly _tag: "wtxidrelay" }
export interface SendAddrV2 { readonly _tag: "sendaddrv2" }
export interface SendHeaders { readonly _tag: "sendheaders" }
export interface GetAddr { readonly _tag: "getaddr" }
export interface Mempool { readonly _tag: "mempool" }
/** BIP152. `announce` is the first byte (0 or 1, else the message is malformed); only `version` 2 counts today. */
export interface SendCmpct { readonly _tag: "sendcmpct"; readonly announce: boolean; readonly version: bigint }
/** BIP434: `id` of 4 to 80 bytes, one character a byte, `data` of at most 512 bytes, nothing after. */
export interface Feature { readonly _tag: "feature"; readonly id: string; readonly data: Uint8Array }
/** `nonce` is undefined in the empty ping of protocol versions up to 60000. */
export interface Ping { readonly _tag: "ping"; readonly nonce: bigint | undefined }
export interface Pong { readonly _tag: "pong"; readonly nonce: bigint }
/** BIP133: satoshi per 1,000 virtual bytes. Exact within ±2^53; outside of 0..21e14 it is to be ignored. */
export interface FeeFilter { readonly _tag: "feefilter"; readonly feeRate: number }
/** BIP61. `hash` (32 bytes) follows where `rejected` is tx or block. */
export interface Reject {
  readonly _tag: "reject"
  readonly rejected: string
  readonly code: number
  readonly reason: string
  readonly hash: Uint8Array | undefined
}
