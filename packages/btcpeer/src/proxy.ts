/** The address of a proxy, as people write it. Errors do not repeat the input, which may hold a password. */
import type { Endpoint } from "effect-bitcoin-peer/Connection"
import type { Socks5Proxy } from "effect-bitcoin-peer/NodeConnection"

const form = "socks5://[USER:PASSWORD@]HOST:PORT"

const portOf = (text: string): number => {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0
  if (port < 1 || port > 65_535) throw new Error("the port is not a number from 1 to 65535")
  return port
}

const unescaped = (text: string, what: string): string => {
  try {
    return decodeURIComponent(text)
  } catch {
    throw new Error(`the ${what} has a % that begins no escape`)
  }
}

/** `HOST:PORT`, where an IPv6 address has brackets. Throws an `Error` that describes the problem. */
export const parseHostPort = (text: string): Endpoint => {
  const [, ipv6, name, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([\p{L}\p{N}_.-]+)):(.*)$/u.exec(text) ?? []
  const host = ipv6 ?? name
  if (host === undefined || port === undefined) throw new Error("not HOST:PORT")
  return { host, port: portOf(port) }
}

/** The proxy of a URL. `socks5h`, by which other tools ask the proxy to resolve names, is the same here: the proxy always does. */
export const parseProxy = (url: string): Socks5Proxy => {
  const [, scheme, login, address] = /^([a-z0-9+.-]+):\/\/(?:(.*)@)?([^@/]*)\/?$/i.exec(url) ?? []
  if (scheme === undefined || address === undefined) throw new Error(`not of the form ${form}`)
  if (!/^socks5h?$/i.test(scheme)) throw new Error(`not of the form ${form}: other proxies than SOCKS5 cannot be used`)
  const endpoint = parseHostPort(address)
  if (login === undefined) return endpoint
  const colon = login.indexOf(":")
  if (colon < 1 || colon === login.length - 1) throw new Error("a user needs a password, and a password a user")
  return {
    ...endpoint,
    user: unescaped(login.slice(0, colon), "user"),
    password: unescaped(login.slice(colon + 1), "password")
  }
}
