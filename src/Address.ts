/**
 * Network addresses of nodes on IPv4, IPv6, Tor, I2P and CJDNS: as bytes (BIP155), as text, and how Bitcoin Core classifies them.
 * They are not the addresses that receive payments. Pure and synchronous.
 *
 * Every entry of an `addrv2` is an `Address`.
 */
import { base32nopad } from "@scure/base"
import * as Data from "effect/Data"
import { encode as hex } from "effect/encoding/Hex"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import { isIn, isReservedIPv4, isReservedIPv6, prefixes } from "./address/ranges.ts"
import { addressLengths, formatHost as print, formatHostAndPort, onionChecksum, onionVersion } from "./address/text.ts"

/**
 * The networks of BIP155.
 *
 * @category constants
 * @since 0.1.0
 */
export const NetworkId = {
  /** 4 bytes. */
  ipv4: 1,
  /** 16 bytes. */
  ipv6: 2,
  /** 10 bytes. Tor v2 ended in 2021: such an address can be printed, and no message carries it. */
  torV2: 3,
  /** 32 bytes, the key of the onion service. */
  torV3: 4,
  /** 32 bytes, the hash of the destination. */
  i2p: 5,
  /** 16 bytes; the first one is 0xfc. */
  cjdns: 6
} as const

/**
 * A network address without a port.
 *
 * @category models
 * @since 0.1.0
 */
export interface Host {
  /** See `NetworkId`. */
  readonly networkId: number
  /** In network order, with the length that the network has. */
  readonly address: Uint8Array
  /**
   * The zone of an IPv6 address (RFC 4007), an index of this machine's interfaces: the 32 of `fe80::1%32`. From 1 to
   * 4,294,967,295; no message carries it.
   */
  readonly zone?: number | undefined
}

/**
 * A network address and the port on which a node listens.
 *
 * @category models
 * @since 0.1.0
 */
export interface Address extends Host {
  /** 0 to 65535; 0 for I2P, which has no ports. */
  readonly port: number
}

/**
 * Why a text cannot be read as an address.
 *
 * @category errors
 * @since 0.1.0
 */
export type AddressReason =
  /**
   * The text is neither an IPv4 or IPv6 address nor a name that ends with `.onion` or `.b32.i2p`. DNS names, and IPv6
   * addresses that embed a Tor v2 address or an internal name of Bitcoin Core, fail with this reason as well.
   */
  | { readonly _tag: "NotAnAddress" }
  /** The port is not a number from 0 to 65535. */
  | { readonly _tag: "BadPort"; readonly port: string }
  /** A name of Tor whose length, version or checksum is not that of a version 3 address. */
  | { readonly _tag: "BadOnion"; readonly problem: string }
  /** A name of I2P that does not have 52 digits of base32. */
  | { readonly _tag: "BadI2P" }

/**
 * The error of a text that cannot be read as an address.
 *
 * @category errors
 * @since 0.1.0
 */
export class AddressError extends Data.TaggedError("AddressError")<{
  readonly text: string
  readonly reason: AddressReason
}> {
  override get message(): string {
    const { reason, text } = this
    switch (reason._tag) {
      case "NotAnAddress":
        return `"${text}" is not an IPv4, IPv6, Tor, I2P or CJDNS address`
      case "BadPort":
        return `"${text}": the port "${reason.port}" is not a number from 0 to 65535`
      case "BadOnion":
        return `"${text}" ${reason.problem}`
      case "BadI2P":
        return `"${text}" does not have 52 digits of base32 before .b32.i2p`
    }
  }
}

const failed = (text: string, reason: AddressReason): Result.Result<never, AddressError> =>
  Result.fail(new AddressError({ text, reason }))

// ---- text

/** The first byte of every CJDNS address. */
const cjdnsPrefix = 0xfc

const base32 = (text: string): Uint8Array | undefined => {
  // Some letters outside ASCII have an ASCII letter as their upper case.
  if (!/^[a-zA-Z2-7]*$/.test(text)) return undefined
  try {
    return base32nopad.decode(text.toUpperCase())
  } catch {
    return undefined
  }
}

const parseOnion = (text: string): Result.Result<Host, AddressError> => {
  const bad = (problem: string) => failed(text, { _tag: "BadOnion", problem })
  const bytes = base32(text.slice(0, -".onion".length))
  if (bytes?.length === 10) return bad("is a Tor version 2 name, which Tor no longer supports")
  if (bytes?.length !== 35) return bad("does not have 56 digits of base32 before .onion")
  const key = bytes.slice(0, 32)
  if (bytes[34] !== onionVersion) return bad(`has version ${bytes[34]} instead of ${onionVersion}`)
  const [first, second] = onionChecksum(key)
  if (bytes[32] !== first || bytes[33] !== second) return bad("has a wrong checksum")
  return Result.succeed({ networkId: NetworkId.torV3, address: key })
}

const parseI2P = (text: string): Result.Result<Host, AddressError> => {
  const bytes = base32(text.slice(0, -".b32.i2p".length))
  return bytes?.length === 32
    ? Result.succeed({ networkId: NetworkId.i2p, address: bytes })
    : failed(text, { _tag: "BadI2P" })
}

/** Splits a zone off: decimal digits, as in Core. Zone 0 is the same as no zone. */
const splitZone = (text: string): { readonly ip: string; readonly zone: number } | undefined => {
  const at = text.indexOf("%")
  if (at < 0) return { ip: text, zone: 0 }
  const zone = text.slice(at + 1)
  return /^\d{1,10}$/.test(zone) && Number(zone) <= 0xffffffff
    ? { ip: text.slice(0, at), zone: Number(zone) }
    : undefined
}

/**
 * Reads a host: an IPv4 address, an IPv6 address without brackets (fc00::/8 is CJDNS), or a name that ends with `.onion` or
 * `.b32.i2p`, in either case. An IPv4-mapped IPv6 address gives the IPv4 address. An IPv6 address can have a zone, which is a
 * number: names of interfaces are not looked up.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Address } from "effect-bitcoin-peer"
 *
 * console.log(Result.getOrThrow(Address.parseHost("::ffff:1.2.3.4"))) // { networkId: 1, address: Uint8Array [1, 2, 3, 4] }
 * console.log(Result.isFailure(Address.parseHost("example.com"))) // true
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const parseHost = (text: string): Result.Result<Host, AddressError> => {
  const lower = text.toLowerCase()
  if (lower.endsWith(".onion")) return parseOnion(text)
  if (lower.endsWith(".b32.i2p")) return parseI2P(text)
  const split = splitZone(text)
  const ip = split && NetAddress.ipFromString(split.ip)
  if (ip === undefined || Result.isFailure(ip)) return failed(text, { _tag: "NotAnAddress" })
  const host = hostOf(ip.success)
  if (host === undefined || split === undefined) return failed(text, { _tag: "NotAnAddress" })
  if (split.ip === text) return Result.succeed(host)
  if (host.networkId !== NetworkId.ipv6) return failed(text, { _tag: "NotAnAddress" })
  return Result.succeed(split.zone === 0 ? host : { ...host, zone: split.zone })
}

/** The host of an IP address; `undefined` for an IPv6 address that embeds a host of another network. */
const hostOf = (ip: NetAddress.IpAddress): Host | undefined => {
  if (NetAddress.isIpv4Address(ip)) {
    return { networkId: NetworkId.ipv4, address: Uint8Array.from(NetAddress.ipv4ToOctets(ip)) }
  }
  const address = Uint8Array.from(NetAddress.ipv6ToOctets(ip))
  return address[0] === cjdnsPrefix ? { networkId: NetworkId.cjdns, address } : fromBytes(address)
}

/** Splits host and port. An IPv6 address needs brackets only where a port follows. */
const splitPort = (text: string): { readonly host: string; readonly port: string | undefined } => {
  const bracketed = /^\[([^[\]]*)\](?::(.*))?$/s.exec(text)
  if (bracketed !== null) return { host: bracketed[1]!, port: bracketed[2] }
  const at = text.indexOf(":")
  return at < 0 || text.includes(":", at + 1)
    ? { host: text, port: undefined }
    : { host: text.slice(0, at), port: text.slice(at + 1) }
}

/**
 * Reads an address: a host as in `parseHost`, a colon and the port. IPv6 and CJDNS need brackets before a port. Without a port
 * it is `defaultPort`, which is 0 if left out, and always 0 for I2P.
 *
 * `parse` reads what `format` prints.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Address } from "effect-bitcoin-peer"
 *
 * const address = Result.getOrThrow(Address.parse("[2001:DB8::1]:8333"))
 * console.log(address.networkId, address.port, Address.format(address)) // 2 8333 [2001:db8::1]:8333
 * const wrong = Address.parse("1.2.3.4:65536")
 * if (Result.isFailure(wrong)) console.log(wrong.failure.reason) // { _tag: "BadPort", port: "65536" }
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const parse = (text: string, defaultPort = 0): Result.Result<Address, AddressError> => {
  const { host, port } = splitPort(text)
  if (port !== undefined && !(/^\d{1,5}$/.test(port) && Number(port) <= 65_535)) {
    return failed(text, { _tag: "BadPort", port })
  }
  return Result.map(parseHost(host), (host) => ({
    ...host,
    port: port !== undefined ? Number(port) : host.networkId === NetworkId.i2p ? 0 : defaultPort
  }))
}

/**
 * The usual text of a host: IPv6 in the form of RFC 5952, Tor v3 with checksum and version. A host of an unknown network, or with
 * the wrong length for its network, is written as hexadecimal.
 *
 * @example
 * ```ts
 * import { Address } from "effect-bitcoin-peer"
 *
 * const host = { networkId: Address.NetworkId.torV3, address: new Uint8Array(32) }
 * console.log(Address.formatHost(host)) // aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaam2dqd.onion
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const formatHost = ({ address, networkId, zone }: Host): string => print(networkId, address, zone)

/**
 * The usual text of an address: `host:port`, with brackets around IPv6 and CJDNS. An I2P address has no port 0.
 *
 * @example
 * ```ts
 * import { Address } from "effect-bitcoin-peer"
 *
 * const address = { networkId: Address.NetworkId.ipv4, address: Uint8Array.of(1, 2, 3, 4), port: 8333 }
 * console.log(Address.format(address)) // 1.2.3.4:8333
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const format = ({ address, networkId, port, zone }: Address): string =>
  formatHostAndPort(networkId, address, port, zone)

// ---- the 16 bytes of `addr` and `version`

const isIPv6 = ({ networkId }: Host): boolean => networkId === NetworkId.ipv6

/**
 * The same host, with an IPv4-mapped IPv6 address as IPv4.
 *
 * @category getters
 * @since 0.1.0
 */
export const canonical = (host: Host): Host =>
  isIPv6(host) && isIn(host.address, prefixes.mapped)
    ? { networkId: NetworkId.ipv4, address: host.address.subarray(12) }
    : host

/**
 * The 16 bytes of a host in `addr` and `version`: an IPv6 address, or an IPv4 address mapped into IPv6. `undefined` for networks
 * that need `addrv2`.
 *
 * @example
 * ```ts
 * import { Address } from "effect-bitcoin-peer"
 *
 * const host = { networkId: Address.NetworkId.ipv4, address: Uint8Array.of(1, 2, 3, 4) }
 * console.log(Address.toBytes(host)?.subarray(10)) // Uint8Array [255, 255, 1, 2, 3, 4]
 * console.log(Address.toBytes({ networkId: Address.NetworkId.torV3, address: new Uint8Array(32) })) // undefined
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const toBytes = ({ address, networkId }: Host): Uint8Array | undefined => {
  if (networkId === NetworkId.ipv6) return address
  if (networkId !== NetworkId.ipv4) return undefined
  const bytes = new Uint8Array(16)
  bytes.set(prefixes.mapped)
  bytes.set(address, prefixes.mapped.length)
  return bytes
}

/**
 * The host in the 16 bytes of an `addr` or `version`. `undefined` if their number is not 16, or if they embed a Tor v2 address or
 * an internal name of Bitcoin Core.
 *
 * @example
 * ```ts
 * import { Address } from "effect-bitcoin-peer"
 *
 * const bytes = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4)
 * console.log(Address.fromBytes(bytes)) // { networkId: 1, address: Uint8Array [1, 2, 3, 4] }
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const fromBytes = (bytes: Uint8Array): Host | undefined =>
  bytes.length !== 16 || isIn(bytes, prefixes.onionCat) || isIn(bytes, prefixes.internal)
    ? undefined
    : canonical({ networkId: NetworkId.ipv6, address: bytes })

// ---- how Bitcoin Core classifies a host

const isInternal = (host: Host): boolean => isIPv6(host) && isIn(host.address, prefixes.internal)

const isAll = (bytes: Uint8Array, value: number): boolean => bytes.every((byte) => byte === value)

/**
 * Whether a host can exist, as Bitcoin Core's `IsValid`. False for the unspecified address, 255.255.255.255, documentation
 * addresses, internal names of Core, CJDNS without its prefix, Tor v2, unknown networks, and a wrong length.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isValid = (of: Host): boolean => {
  const host = canonical(of)
  const { address, networkId } = host
  if (address.length !== addressLengths[networkId]) return false
  switch (networkId) {
    case NetworkId.ipv4:
      return !isAll(address, 0) && !isAll(address, 0xff)
    case NetworkId.ipv6:
      return (
        !isAll(address, 0) && !isIn(address, prefixes.rfc3849) && !isInternal(host) && !isIn(address, prefixes.onionCat)
      )
    case NetworkId.cjdns:
      return address[0] === cjdnsPrefix
    default:
      return networkId === NetworkId.torV3 || networkId === NetworkId.i2p
  }
}

/**
 * Whether a host is this machine: 127.0.0.0/8, 0.0.0.0/8 or ::1.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isLocal = (of: Host): boolean => {
  const { address, networkId } = canonical(of)
  if (networkId === NetworkId.ipv4) return address[0] === 127 || address[0] === 0
  return networkId === NetworkId.ipv6 && address[15] === 1 && isAll(address.subarray(0, 15), 0)
}

/**
 * Whether a host can be reached over the public internet or its overlay network, as Bitcoin Core's `IsRoutable`: valid,
 * not local, and outside the private, link-local, shared, documentation, benchmark and ORCHID ranges (RFC 1918, 2544,
 * 3927, 4193, 4843, 4862, 5737, 6598, 7343).
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Address } from "effect-bitcoin-peer"
 *
 * const isRoutable = (text: string) => Address.isRoutable(Result.getOrThrow(Address.parseHost(text)))
 * console.log(isRoutable("8.8.8.8"), isRoutable("192.168.1.1"), isRoutable("::1")) // true false false
 * ```
 *
 * @category predicates
 * @since 0.1.0
 */
export const isRoutable = (of: Host): boolean => {
  const host = canonical(of)
  if (!isValid(host) || isLocal(host)) return false
  if (host.networkId === NetworkId.ipv4) return !isReservedIPv4(host.address)
  return host.networkId !== NetworkId.ipv6 || !isReservedIPv6(host.address)
}

/**
 * The 4 bytes of the IPv4 address of a host: its own, or the one of the tunnel that an IPv6 address is (IPv4-mapped, 6to4, Teredo, NAT64,
 * SIIT). `undefined` for other hosts.
 *
 * @category getters
 * @since 0.1.0
 */
export const linkedIPv4 = (host: Host): Uint8Array | undefined => {
  const { address, networkId } = canonical(host)
  if (networkId === NetworkId.ipv4) return address
  if (networkId !== NetworkId.ipv6) return undefined
  if (isIn(address, prefixes.rfc6052) || isIn(address, prefixes.rfc6145)) return address.subarray(12)
  if (isIn(address, prefixes.rfc3964)) return address.subarray(2, 6)
  return isIn(address, prefixes.rfc4380) ? address.subarray(12).map((byte) => ~byte) : undefined
}

/** The numbers that Bitcoin Core gives to networks, by those of BIP155. */
const netClass: ReadonlyArray<number> = [0, 1, 2, 0, 3, 4, 5]
const internalClass = 6

/** The number of a network and the first bits of an address; the other bits of the last byte are ones. */
const bits = (networkClass: number, address: Uint8Array, count: number): ReadonlyArray<number> => {
  const whole = count >> 3
  const rest = count & 7
  const start = [networkClass, ...address.subarray(0, whole)]
  return rest === 0 ? start : [...start, address[whole]! | ((1 << (8 - rest)) - 1)]
}

const groupBytes = (of: Host): ReadonlyArray<number> => {
  const host = canonical(of)
  const { address, networkId } = host
  if (isInternal(host)) return [internalClass, ...address.subarray(prefixes.internal.length)]
  if (!isRoutable(host)) return [0]
  const ipv4 = linkedIPv4(host)
  if (ipv4 !== undefined) return bits(NetworkId.ipv4, ipv4, 16)
  const networkClass = netClass[networkId]!
  if (networkId === NetworkId.cjdns) return bits(networkClass, address, 12)
  if (networkId !== NetworkId.ipv6) return bits(networkClass, address, 4)
  return bits(networkClass, address, isIn(address, prefixes.heNet) ? 36 : 32)
}

/**
 * The group of a host, as a key: hosts of one group probably belong to one operator. The bytes of Bitcoin Core's `GetGroup`
 * without a map of autonomous systems, as hexadecimal.
 *
 * A group is a /16 of IPv4, also where it is tunnelled through IPv6 (6to4, Teredo, NAT64, SIIT); a /32 of IPv6, or a /36 of
 * Hurricane Electric; 4 bits of Tor or I2P; 4 bits of CJDNS after its prefix. All hosts that are not routable are one group.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Address } from "effect-bitcoin-peer"
 *
 * const group = (text: string) => Address.group(Result.getOrThrow(Address.parseHost(text)))
 * console.log(group("1.2.3.4"), group("2002:102:304::1"), group("10.0.0.1")) // 010102 010102 00
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const group = (host: Host): string => hex(Uint8Array.from(groupBytes(host)))
