/** The messages of the handshake, of keep-alive and of settings: `version`, `ping`, `sendheaders`, `feefilter` and others. */
import type { Reader } from "../reader.ts"
import type { Writer } from "../writer.ts"
import { fail, failReading } from "../fail.ts"
import type { Codec } from "../codec.ts"

/**
 * A user agent is at most 256 bytes (BIP14).
 *
 * @category constants
 * @since 0.1.0
 */
export const maxUserAgentLength = 256

/**
 * A command, in a frame and in `reject`, is at most 12 bytes.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxCommandLength = 12

/**
 * The reason of a `reject` is at most 111 bytes.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxRejectReasonLength = 111

/**
 * The id of a `feature` is at least 4 bytes (BIP434).
 *
 * @category constants
 * @since 0.1.0
 */
export const minFeatureIdLength = 4

/**
 * The id of a `feature` is at most 80 bytes (BIP434).
 *
 * @category constants
 * @since 0.1.0
 */
export const maxFeatureIdLength = 80

/**
 * The data of a `feature` is at most 512 bytes (BIP434).
 *
 * @category constants
 * @since 0.1.0
 */
export const maxFeatureDataLength = 512

/**
 * The service bits in use. The services of a peer are 64 such bits; unknown ones are kept.
 *
 * @category constants
 * @since 0.1.0
 */
export const Service = {
  /** Serves all blocks. */
  network: 1n,
  /** Serves transaction filters (BIP37, BIP111). */
  bloom: 4n,
  /** Serves witnesses (BIP144). */
  witness: 8n,
  /** Serves compact block filters (BIP157). */
  compactFilters: 64n,
  /** Serves the last 288 blocks (BIP159). */
  networkLimited: 1024n,
  /** Accepts connections of the v2 transport (BIP324). */
  p2pV2: 2048n
} as const

const names = new Map<bigint, string>([
  [Service.network, "NETWORK"],
  [Service.bloom, "BLOOM"],
  [Service.witness, "WITNESS"],
  [Service.compactFilters, "COMPACT_FILTERS"],
  [Service.networkLimited, "NETWORK_LIMITED"],
  [Service.p2pV2, "P2P_V2"]
])

/**
 * Names of service bits, as Bitcoin Core prints them: lowest bit first, `UNKNOWN[2^n]` for those without a name.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * console.log(Wire.serviceNames(Wire.Service.network | Wire.Service.witness | 2n)) // ["NETWORK", "UNKNOWN[2^1]", "WITNESS"]
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const serviceNames = (bits: bigint): Array<string> => {
  const found: Array<string> = []
  for (let bit = 0n; bit < 64n; bit++) {
    const flag = 1n << bit
    if ((bits & flag) !== 0n) found.push(names.get(flag) ?? `UNKNOWN[2^${bit}]`)
  }
  return found
}

/**
 * A network address of `version` and `addr`: 26 bytes. IPv4 is written as an IPv4-mapped IPv6 address
 * (`::ffff:1.2.3.4`).
 *
 * @category models
 * @since 0.1.0
 */
export interface NetworkAddress {
  /** 64 service bits; unknown bits are kept. */
  readonly services: bigint
  /** 16 bytes, network order. */
  readonly address: Uint8Array
  /** 0 to 65535; the only number of the protocol that is big-endian on the wire. */
  readonly port: number
}

/**
 * The first message of a connection, in both directions. At least 46 bytes.
 *
 * The fields after `receiver` may be missing on the wire, from any of them except `nonce` on, and take defaults: zeros for `sender`
 * and `nonce`, an empty `userAgent`, a `startHeight` of 0 (Bitcoin Core assumes -1, and does not use it), and a `relay` of `true`.
 * `encode` writes all of them. A message that ends inside a field is `Truncated`, and a user agent above 256 bytes is `TooMany`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Version {
  readonly _tag: "version"
  /** int32. */
  readonly protocolVersion: number
  /** The 64 service bits of the sender; see `Service`. */
  readonly services: bigint
  /** Unix seconds, int64; a negative time is read as 0. */
  readonly timestamp: number
  /** The address of the receiver, as the sender sees it. */
  readonly receiver: NetworkAddress
  /** The address of the sender. No node uses it today: zeros except for the services. */
  readonly sender: NetworkAddress
  /** 64 random bits. A node that receives its own nonce is connected to itself. 0 when missing. */
  readonly nonce: bigint
  /** BIP14; at most 256 bytes, one character a byte. */
  readonly userAgent: string
  /** Height of the best block, int32. */
  readonly startHeight: number
  /** BIP37: whether the sender wants transactions announced; true when missing. */
  readonly relay: boolean
}

/**
 * Accepts the `version` of the other side. No payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface Verack {
  readonly _tag: "verack"
}

/**
 * BIP339: asks to announce transactions by wtxid. Allowed before `verack` only. No payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface WtxidRelay {
  readonly _tag: "wtxidrelay"
}

/**
 * BIP155: asks for addresses as `addrv2`. Allowed before `verack` only. No payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface SendAddrV2 {
  readonly _tag: "sendaddrv2"
}

/**
 * BIP130: asks to announce blocks with `headers` instead of `inv`. No payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface SendHeaders {
  readonly _tag: "sendheaders"
}

/**
 * Asks for addresses of other peers. No payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface GetAddr {
  readonly _tag: "getaddr"
}

/**
 * BIP35: asks to announce all unconfirmed transactions. No payload.
 *
 * @category models
 * @since 0.1.0
 */
export interface Mempool {
  readonly _tag: "mempool"
}

/**
 * BIP152: asks for compact blocks, 9 bytes. Today only `version` 2 has an effect.
 *
 * @category models
 * @since 0.1.0
 */
export interface SendCmpct {
  readonly _tag: "sendcmpct"
  /** Whether to send compact blocks without being asked for them. One byte, 0 or 1; another value is `BadValue`: disconnect. */
  readonly announce: boolean
  /** 64 bits. */
  readonly version: bigint
}

/**
 * BIP434: announces a feature that the sender supports. Allowed before `verack` only. Bytes after the data are `TrailingBytes`
 * under every `Policy`, and a malformed `feature` ends the connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface Feature {
  readonly _tag: "feature"
  /** 4 to 80 bytes, one character a byte. */
  readonly id: string
  /** At most 512 bytes. */
  readonly data: Uint8Array
}

/**
 * Asks for a `pong` with the same nonce (BIP31).
 *
 * @category models
 * @since 0.1.0
 */
export interface Ping {
  readonly _tag: "ping"
  /** 64 bits; `undefined` in the empty ping of protocol versions up to 60000, which gets no answer. */
  readonly nonce: bigint | undefined
}

/**
 * Answers a `ping` (BIP31).
 *
 * @category models
 * @since 0.1.0
 */
export interface Pong {
  readonly _tag: "pong"
  /** The 64 bits of the ping. */
  readonly nonce: bigint
}

/**
 * BIP133: asks not to announce transactions that pay a lower fee rate.
 *
 * @category models
 * @since 0.1.0
 */
export interface FeeFilter {
  readonly _tag: "feefilter"
  /** Satoshi per 1,000 virtual bytes, int64, exact within ±2^53. A peer ignores values outside 0..21e14. */
  readonly feeRate: number
}

/**
 * BIP61: reports that a message was refused. Bitcoin Core neither sends nor reads it any more.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reject {
  readonly _tag: "reject"
  /** Command of the refused message, at most 12 bytes, one character a byte. */
  readonly rejected: string
  /** One byte. */
  readonly code: number
  /** A text for people, at most 111 bytes, one character a byte. */
  readonly reason: string
  /** 32 bytes in wire order, where `rejected` is "tx" or "block"; it may be missing there, too. */
  readonly hash: Uint8Array | undefined
}

const readAddress = (reader: Reader, field: string): NetworkAddress => ({
  services: reader.u64(field),
  address: reader.view(16, field),
  port: reader.u16be(field)
})

interface AddressFields {
  readonly whole: string
  readonly services: string
  readonly address: string
  readonly port: string
}

/** The names of the fields of an address in errors, made once and not for each address. */
export const addressFieldsOf = (whole: string): AddressFields => ({
  whole,
  services: `${whole}.services`,
  address: `${whole}.address`,
  port: `${whole}.port`
})

const receiverFields = addressFieldsOf("receiver")
const senderFields = addressFieldsOf("sender")

const networkAddressSize = 26

export const writeAddress = (writer: Writer, address: NetworkAddress, fields: AddressFields): void => {
  writer.object(address, fields.whole)
  setAddress(writer, writer.reserve(networkAddressSize), address, fields)
}

/** Writes an address at an offset where there is room for its 26 bytes. */
export const setAddress = (writer: Writer, offset: number, address: NetworkAddress, fields: AddressFields): void => {
  writer.setU64(offset, address.services, fields.services)
  writer.setFixed(offset + 8, address.address, 16, fields.address)
  writer.setU16be(offset + 24, address.port, fields.port)
}

const unspecified: NetworkAddress = { services: 0n, address: new Uint8Array(16), port: 0 }

export const version: Codec<Version> = {
  decode: (reader) => {
    const protocolVersion = reader.i32("protocolVersion")
    const services = reader.u64("services")
    const timestamp = Math.max(0, reader.i64("timestamp"))
    const receiver = readAddress(reader, "receiver")
    const hasSender = reader.remaining > 0
    return {
      _tag: "version",
      protocolVersion,
      services,
      timestamp,
      receiver,
      // The properties are evaluated in this order, so each one reads what the ones before it left.
      sender: hasSender ? readAddress(reader, "sender") : { ...unspecified, address: new Uint8Array(16) },
      // No message has a sender without a nonce: Core reads both or neither.
      nonce: hasSender ? reader.u64("nonce") : 0n,
      userAgent: reader.remaining > 0 ? reader.text("userAgent", maxUserAgentLength) : "",
      startHeight: reader.remaining > 0 ? reader.i32("startHeight") : 0,
      relay: reader.remaining > 0 ? reader.u8("relay") !== 0 : true
    }
  },
  encode: (writer, message) => {
    writer.i32(message.protocolVersion, "protocolVersion")
    writer.u64(message.services, "services")
    writer.i64(message.timestamp, "timestamp")
    writeAddress(writer, message.receiver, receiverFields)
    writeAddress(writer, message.sender, senderFields)
    writer.u64(message.nonce, "nonce")
    writer.text(message.userAgent, "userAgent", maxUserAgentLength)
    writer.i32(message.startHeight, "startHeight")
    writer.boolean(message.relay, "relay")
  }
}

const empty = <M>(message: M): Codec<M> => ({ decode: () => message, encode: () => {} })

// Two messages without payload do not differ, so each type is one frozen object.
export const verack = empty<Verack>(Object.freeze({ _tag: "verack" }))
export const wtxidrelay = empty<WtxidRelay>(Object.freeze({ _tag: "wtxidrelay" }))
export const sendaddrv2 = empty<SendAddrV2>(Object.freeze({ _tag: "sendaddrv2" }))
export const sendheaders = empty<SendHeaders>(Object.freeze({ _tag: "sendheaders" }))
export const getaddr = empty<GetAddr>(Object.freeze({ _tag: "getaddr" }))
export const mempool = empty<Mempool>(Object.freeze({ _tag: "mempool" }))

export const sendcmpct: Codec<SendCmpct> = {
  decode: (reader) => {
    const announce = reader.u8("announce")
    const version = reader.u64("version")
    // Checked after everything was read: a truncated message is only dropped, as in Core.
    if (announce > 1) reader.badValue("announce", "is neither 0 nor 1")
    return { _tag: "sendcmpct", announce: announce === 1, version }
  },
  encode: (writer, message) => {
    writer.boolean(message.announce, "announce")
    writer.u64(message.version, "version")
  }
}

export const feature: Codec<Feature> = {
  decode: (reader) => {
    const id = reader.text("id", maxFeatureIdLength)
    if (id.length < minFeatureIdLength) reader.badValue("id", "is shorter than 4 bytes")
    const data = reader.varBytes("data", maxFeatureDataLength)
    if (reader.remaining > 0) failReading(reader.command, { _tag: "TrailingBytes", count: reader.remaining })
    return { _tag: "feature", id, data }
  },
  encode: (writer, message) => {
    writer.text(message.id, "id", maxFeatureIdLength)
    if (message.id.length < minFeatureIdLength) writer.badValue("id", "is shorter than 4 bytes")
    writer.varBytes(message.data, "data", maxFeatureDataLength)
  }
}

export const ping: Codec<Ping> = {
  decode: (reader) => ({ _tag: "ping", nonce: reader.remaining === 0 ? undefined : reader.u64("nonce") }),
  encode: (writer, message) => {
    if (message.nonce !== undefined) writer.u64(message.nonce, "nonce")
  }
}

export const pong: Codec<Pong> = {
  decode: (reader) => ({ _tag: "pong", nonce: reader.u64("nonce") }),
  encode: (writer, message) => writer.u64(message.nonce, "nonce")
}

export const feefilter: Codec<FeeFilter> = {
  decode: (reader) => ({ _tag: "feefilter", feeRate: reader.i64("feeRate") }),
  encode: (writer, message) => writer.i64(message.feeRate, "feeRate")
}

const hasHash = (rejected: string): boolean => rejected === "tx" || rejected === "block"

export const reject: Codec<Reject> = {
  decode: (reader) => {
    const rejected = reader.text("rejected", maxCommandLength)
    const code = reader.u8("code")
    const reason = reader.text("reason", maxRejectReasonLength)
    const hash = hasHash(rejected) && reader.remaining > 0 ? reader.view(32, "hash") : undefined
    return { _tag: "reject", rejected, code, reason, hash }
  },
  encode: (writer, message) => {
    writer.text(message.rejected, "rejected", maxCommandLength)
    writer.u8(message.code, "code")
    writer.text(message.reason, "reason", maxRejectReasonLength)
    if (message.hash === undefined) return
    if (!hasHash(message.rejected)) {
      fail(writer.command, { _tag: "BadValue", field: "hash", problem: "belongs to tx and block only" })
    }
    writer.fixed(message.hash, 32, "hash")
  }
}
