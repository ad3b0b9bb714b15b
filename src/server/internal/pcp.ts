/**
 * Asking a router for a port: PCP (RFC 6887), and NAT-PMP (RFC 6886) for routers that do not know PCP. Both are packets of UDP with
 * numbers in network byte order. Pure: a codec, and a machine for one request with its repetitions.
 *
 *     PCP      → MAP                                        ← MAP
 *     NAT-PMP  → address, → map                             ← address, ← map
 */
import * as Address from "../../Address.ts"

/** PCP and NAT-PMP have the same port, which cannot be changed. */
export const serverPort = 5_351
/** PCP packets are no longer than this. */
export const maxPacketSize = 1_100
export const nonceSize = 12

/** How often a packet is sent, and how many milliseconds each waits for its answer. */
export const tries = 3
export const tryTimeout = 1_000

const tcp = 6
const response = 0x80
const pcp = { version: 2, map: 1, headerSize: 24, mapSize: 36 } as const
const natPmp = { version: 0, address: 0, mapTcp: 2, headerSize: 8, addressSize: 12, mapSize: 16 } as const

const success = 0
const unsupportedVersion = 1

/** The names of the results. Up to 2 they are those of both protocols. */
const pcpResults: ReadonlyArray<string> = [
  "SUCCESS",
  "UNSUPP_VERSION",
  "NOT_AUTHORIZED",
  "MALFORMED_REQUEST",
  "UNSUPP_OPCODE",
  "UNSUPP_OPTION",
  "MALFORMED_OPTION",
  "NETWORK_FAILURE",
  "NO_RESOURCES",
  "UNSUPP_PROTOCOL",
  "USER_EX_QUOTA",
  "CANNOT_PROVIDE_EXTERNAL",
  "ADDRESS_MISMATCH",
  "EXCESSIVE_REMOTE_PEER"
]
const natPmpResults: ReadonlyArray<string> = [
  "SUCCESS",
  "UNSUPP_VERSION",
  "NOT_AUTHORIZED",
  "NETWORK_FAILURE",
  "NO_RESOURCES",
  "UNSUPP_OPCODE"
]

const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length)

/** What a router is asked for. */
export interface Request {
  /** Twelve random bytes, the same for all renewals: a router changes a mapping only for the nonce that made it. */
  readonly nonce: Uint8Array
  /** Our address on the way to the router: IPv4 or IPv6. */
  readonly internal: Address.Host
  /** The port on which we listen, and the one that is wanted outside. */
  readonly port: number
  /** Seconds; 0 ends the mapping. */
  readonly lifetime: number
}

/** What a router granted. */
export interface Granted {
  readonly protocol: "PCP" | "NAT-PMP"
  /** The address and port at which the rest of the world finds us. */
  readonly external: Address.Address
  /** Seconds. */
  readonly lifetime: number
}

export type Failure =
  | { readonly _tag: "NoAnswer" }
  /** The router's result. NO_RESOURCES usually means that another machine has the port. */
  | { readonly _tag: "Refused"; readonly protocol: "PCP" | "NAT-PMP"; readonly code: number; readonly name: string }

/** A packet that was not asked for: undefined. */
type Answer<A> = A | { readonly _tag: "Refused"; readonly code: number } | undefined

const anyIPv4: Address.Host = { networkId: Address.NetworkId.ipv4, address: new Uint8Array(4) }

/** The MAP request of PCP. Outside of IPv4 a mapping is a hole in the firewall, at our own address. */
export const pcpRequest = ({ internal, lifetime, nonce, port }: Request): Uint8Array => {
  const bytes = new Uint8Array(pcp.headerSize + pcp.mapSize)
  const view = viewOf(bytes)
  const isIPv4 = internal.networkId === Address.NetworkId.ipv4
  bytes[0] = pcp.version
  bytes[1] = pcp.map
  view.setUint32(4, lifetime)
  bytes.set(Address.toBytes(internal)!, 8)
  bytes.set(nonce, 24)
  bytes[36] = tcp
  view.setUint16(40, port)
  view.setUint16(42, port)
  bytes.set(Address.toBytes(isIPv4 ? anyIPv4 : internal)!, 44)
  return bytes
}

/** The answer to a MAP request. "NatPmpOnly" is that of a router which does not know PCP. */
export const readPcp = (
  bytes: Uint8Array,
  { nonce, port }: Request
): Answer<{ readonly _tag: "NatPmpOnly" } | { readonly _tag: "Granted"; readonly granted: Granted }> => {
  if (bytes.length === natPmp.headerSize && bytes[0] === natPmp.version && bytes[3] === unsupportedVersion) {
    return { _tag: "NatPmpOnly" }
  }
  if (bytes.length < pcp.headerSize + pcp.mapSize) return undefined
  if (bytes[0] !== pcp.version || bytes[1] !== (response | pcp.map)) return undefined
  const view = viewOf(bytes)
  const isOurs = nonce.every((byte, index) => bytes[24 + index] === byte)
  if (!isOurs || bytes[36] !== tcp || view.getUint16(40) !== port) return undefined
  const code = bytes[3]!
  if (code !== success) return { _tag: "Refused", code }
  const host = Address.fromBytes(bytes.slice(44, 60))
  const externalPort = view.getUint16(42)
  if (host === undefined || externalPort === 0) return undefined
  const external = { ...host, port: externalPort }
  return { _tag: "Granted", granted: { protocol: "PCP", external, lifetime: view.getUint32(4) } }
}

/** The request for the address of the router, of NAT-PMP. */
export const natPmpAddressRequest = (): Uint8Array => Uint8Array.of(natPmp.version, natPmp.address)

export const readNatPmpAddress = (
  bytes: Uint8Array
): Answer<{ readonly _tag: "Address"; readonly host: Address.Host }> => {
  if (bytes.length < natPmp.addressSize) return undefined
  if (bytes[0] !== natPmp.version || bytes[1] !== (response | natPmp.address)) return undefined
  const code = viewOf(bytes).getUint16(2)
  if (code !== success) return { _tag: "Refused", code }
  return { _tag: "Address", host: { networkId: Address.NetworkId.ipv4, address: bytes.slice(8, 12) } }
}

/** The request for a port of TCP, of NAT-PMP. A lifetime of 0 ends the mapping; the outer port is 0 then. */
export const natPmpRequest = ({ lifetime, port }: Request): Uint8Array => {
  const bytes = new Uint8Array(12)
  const view = viewOf(bytes)
  bytes[0] = natPmp.version
  bytes[1] = natPmp.mapTcp
  view.setUint16(4, port)
  view.setUint16(6, lifetime === 0 ? 0 : port)
  view.setUint32(8, lifetime)
  return bytes
}

export const readNatPmp = (
  bytes: Uint8Array,
  { port }: Request
): Answer<{ readonly _tag: "Port"; readonly port: number; readonly lifetime: number }> => {
  if (bytes.length < natPmp.mapSize) return undefined
  if (bytes[0] !== natPmp.version || bytes[1] !== (response | natPmp.mapTcp)) return undefined
  const view = viewOf(bytes)
  if (view.getUint16(8) !== port) return undefined
  const code = view.getUint16(2)
  if (code !== success) return { _tag: "Refused", code }
  const external = view.getUint16(10)
  return external === 0 ? undefined : { _tag: "Port", port: external, lifetime: view.getUint32(12) }
}

/** What to do next. */
export type Step =
  /** Send these bytes, and wait for answers. */
  | { readonly _tag: "Send"; readonly bytes: Uint8Array }
  /** Wait for another answer until the same time: this one was to something else. */
  | { readonly _tag: "Wait" }
  | { readonly _tag: "Granted"; readonly granted: Granted }
  | { readonly _tag: "Failed"; readonly failure: Failure }

const wait: Step = { _tag: "Wait" }

/** One request, by PCP and then, where the router asks for it, by NAT-PMP. NAT-PMP knows IPv4 alone. */
export class Dialogue {
  readonly #request: Request
  #phase: "pcp" | "address" | "map" = "pcp"
  #sent = 0
  #external: Address.Host | undefined

  constructor(request: Request) {
    this.#request = request
  }

  /** The first step, and the next one when no answer has come in time. */
  next(): Step {
    if (this.#sent === tries) return { _tag: "Failed", failure: { _tag: "NoAnswer" } }
    this.#sent++
    return { _tag: "Send", bytes: this.#bytes }
  }

  receive(bytes: Uint8Array): Step {
    switch (this.#phase) {
      case "pcp": {
        const answer = readPcp(bytes, this.#request)
        if (answer?._tag !== "NatPmpOnly") return answer === undefined ? wait : this.#ended("PCP", answer)
        const isIPv4 = this.#request.internal.networkId === Address.NetworkId.ipv4
        return isIPv4 ? this.#go("address") : this.#ended("PCP", { _tag: "Refused", code: unsupportedVersion })
      }
      case "address": {
        const answer = readNatPmpAddress(bytes)
        if (answer?._tag !== "Address") return answer === undefined ? wait : this.#ended("NAT-PMP", answer)
        this.#external = answer.host
        return this.#go("map")
      }
      case "map": {
        const answer = readNatPmp(bytes, this.#request)
        if (answer?._tag !== "Port") return answer === undefined ? wait : this.#ended("NAT-PMP", answer)
        const external = { ...this.#external!, port: answer.port }
        return { _tag: "Granted", granted: { protocol: "NAT-PMP", external, lifetime: answer.lifetime } }
      }
    }
  }

  get #bytes(): Uint8Array {
    switch (this.#phase) {
      case "pcp":
        return pcpRequest(this.#request)
      case "address":
        return natPmpAddressRequest()
      case "map":
        return natPmpRequest(this.#request)
    }
  }

  #go(phase: "address" | "map"): Step {
    this.#phase = phase
    this.#sent = 0
    return this.next()
  }

  #ended(
    protocol: Granted["protocol"],
    answer:
      | { readonly _tag: "Refused"; readonly code: number }
      | { readonly _tag: "Granted"; readonly granted: Granted }
  ): Step {
    if (answer._tag === "Granted") return answer
    const name = (protocol === "PCP" ? pcpResults : natPmpResults)[answer.code] ?? "unknown"
    return { _tag: "Failed", failure: { _tag: "Refused", protocol, code: answer.code, name } }
  }
}

// ---- the router of this machine

const up = 0x1
const throughGateway = 0x2

/** The fields of the lines of a table. */
const rows = (table: string): ReadonlyArray<ReadonlyArray<string>> =>
  table.split("\n").map((line) => line.trim().split(/\s+/))

/** The one with the lowest metric. */
const best = (routes: ReadonlyArray<{ readonly gateway: string; readonly metric: number }>): string | undefined =>
  routes.reduce<(typeof routes)[number] | undefined>(
    (best, route) => (best === undefined || route.metric < best.metric ? route : best),
    undefined
  )?.gateway

/** The gateway of the default route in Linux's /proc/net/route. Its addresses are hexadecimal in the byte order of the machine. */
export const gatewayOfRoutes = (table: string, isLittleEndian: boolean): string | undefined =>
  best(
    rows(table).flatMap(([, destination, gateway = "", flags = "", , , metric, mask]) => {
      const bits = Number.parseInt(flags, 16)
      const isDefault = destination === "00000000" && mask === "00000000"
      const isUsable = (bits & up) !== 0 && (bits & throughGateway) !== 0 && /^[\da-f]{8}$/i.test(gateway)
      if (!isDefault || !isUsable) return []
      const bytes = gateway.match(/../g)!.map((byte) => Number.parseInt(byte, 16))
      return [{ gateway: (isLittleEndian ? bytes.toReversed() : bytes).join("."), metric: Number(metric) }]
    })
  )

/**
 * The gateway of the default route in Linux's /proc/net/ipv6_route. A link-local one has the name of its interface: `fe80::1%eth0`.
 */
export const gatewayOfRoutesIPv6 = (table: string): string | undefined =>
  best(
    rows(table).flatMap(([destination, length, , , gateway = "", metric = "", , , flags = "", device = ""]) => {
      const bits = Number.parseInt(flags, 16)
      const isDefault = destination === "0".repeat(32) && length === "00"
      const isUsable = (bits & up) !== 0 && (bits & throughGateway) !== 0 && /^[\da-f]{32}$/i.test(gateway)
      if (!isDefault || !isUsable) return []
      const address = Uint8Array.from(gateway.match(/../g)!, (byte) => Number.parseInt(byte, 16))
      const text = Address.formatHost({ networkId: Address.NetworkId.ipv6, address })
      const isLinkLocal = address[0] === 0xfe && (address[1]! & 0xc0) === 0x80
      return [{ gateway: isLinkLocal ? `${text}%${device}` : text, metric: Number.parseInt(metric, 16) }]
    })
  )
