/** The address of a node, as people write it. */
import * as net from "node:net"
import type { Endpoint } from "effect-bitcoin-peer/Connection"

const ipv6 = /^[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(%[\w.-]+)?$/
const name = /^[\p{L}\p{N}_.-]+$/u

/** The host, and the text after its colon. An IPv6 address without a port needs no brackets. */
const split = (
  text: string
): { readonly host: string; readonly port: string | undefined; readonly isIPv6: boolean } => {
  const bracketed = /^\[([^[\]]*)\](?::(.*))?$/.exec(text)
  if (bracketed !== null) return { host: bracketed[1]!, port: bracketed[2], isIPv6: true }
  const [host = "", port, ...more] = text.split(":")
  return more.length > 0 ? { host: text, port: undefined, isIPv6: true } : { host, port, isIPv6: false }
}

/**
 * The endpoint that `HOST[:PORT]` names: a name, an IPv4 address, or an IPv6 address, which needs brackets where a port
 * follows. Throws an `Error` that describes the problem.
 */
export const parseAddress = (text: string, defaultPort: number): Endpoint => {
  const scheme = /^[a-z][a-z0-9+.-]*:\/\//i.exec(text)?.[0]
  if (scheme !== undefined) throw new Error(`a host is expected, not a URL; leave out ${scheme}`)
  const { host, isIPv6, port } = split(text)
  if (host === "") throw new Error("there is no host")
  if (isIPv6 ? !ipv6.test(host) : !name.test(host)) {
    throw new Error(
      isIPv6 ? "not an IPv6 address, which needs brackets before a port" : "not a host name or an address"
    )
  }
  // The resolver of the system takes any number for an IPv4 address: 18444 is 0.0.72.12.
  if (/^[\d.]+$/.test(host) && !net.isIPv4(host)) throw new Error("not an IPv4 address")
  if (port === undefined) return { host, port: defaultPort }
  const number = /^\d{1,5}$/.test(port) ? Number(port) : 0
  if (number < 1 || number > 65_535) throw new Error(`port "${port}" is not a number from 1 to 65535`)
  return { host, port: number }
}

/** A host without the brackets that people may put around an IPv6 address. */
export const unbracketed = (host: string): string => /^\[([^[\]]*:[^[\]]*)\]$/.exec(host)?.[1] ?? host
