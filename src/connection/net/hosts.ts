/** Names that must not be looked up with DNS, names as proxies expect them, and addresses as Node formats them. */
import { domainToASCII } from "node:url"

/**
 * The reason why a name must not be looked up, or undefined if it may. A DNS request would reveal the target, and anyone
 * could answer it (RFC 7686; I2P names are kept out of DNS likewise).
 */
export const needsProxy = (host: string): string | undefined => {
  const network = /(?:^|\.)(onion|i2p)\.?$/i.exec(host)?.[1]?.toLowerCase()
  if (network === "onion") return "an .onion name is reached through Tor: connectSocks5"
  return network === "i2p" ? "an .i2p name is reached through an I2P router: connectI2p" : undefined
}

/** A name as it is sent to a proxy, or undefined if it is not a name. It is not looked up. */
export const wireHost = (host: string): string | undefined => {
  // oxlint-disable-next-line no-control-regex
  if (/[\0-\x20\x7f]/.test(host)) return undefined
  // A name that is not ASCII is sent in Punycode, as to DNS.
  const ascii = /^[\x21-\x7e]*$/.test(host) ? host : domainToASCII(host)
  return ascii.length > 0 && ascii.length <= 255 ? ascii : undefined
}

/** Whether it is an I2P name that can be part of a line of text. */
export const isI2pName = (host: string): boolean => /^[a-z0-9][a-z0-9.-]{0,250}\.i2p$/i.test(host)

/** Whether it is a port to dial. */
export const isPort = (port: number): boolean => Number.isInteger(port) && port >= 1 && port <= 65_535

/** The address without the prefix of `::ffff:127.0.0.1`, which Node reports for an IPv4 remote of an IPv6 listener. */
export const plainHost = (host: string): string =>
  host.startsWith("::ffff:") && host.includes(".") ? host.slice(7) : host
