/** Names that are no business of DNS, names as proxies take them, addresses as Node writes them. */
import { domainToASCII } from "node:url"

/**
 * Why a name must not be looked up, or undefined when it may: asking DNS would tell the world where we mean to go, and
 * could give an answer of somebody else's (RFC 7686; I2P's names are kept out of DNS likewise).
 */
export const needsProxy = (host: string): string | undefined => {
  const network = /(?:^|\.)(onion|i2p)\.?$/i.exec(host)?.[1]?.toLowerCase()
  if (network === "onion") return "an .onion name is reached through Tor: connectSocks5"
  return network === "i2p" ? "an .i2p name is reached through an I2P router: connectI2p" : undefined
}

/** A name as it goes over the wire to a proxy, or undefined when it is none. Nobody is asked for it. */
export const wireHost = (host: string): string | undefined => {
  // oxlint-disable-next-line no-control-regex
  if (/[\0-\x20\x7f]/.test(host)) return undefined
  // What is not ASCII is written in Punycode, as it would be towards DNS.
  const ascii = /^[\x21-\x7e]*$/.test(host) ? host : domainToASCII(host)
  return ascii.length > 0 && ascii.length <= 255 ? ascii : undefined
}

/** A name of I2P, which goes into a line of text. */
export const isI2pName = (host: string): boolean => /^[a-z0-9][a-z0-9.-]{0,250}\.i2p$/i.test(host)

/** A port of a target. */
export const isPort = (port: number): boolean => Number.isInteger(port) && port >= 1 && port <= 65_535

/** Node says `::ffff:127.0.0.1` of an IPv4 remote on an IPv6 listener. */
export const plainHost = (host: string): string =>
  host.startsWith("::ffff:") && host.includes(".") ? host.slice(7) : host
