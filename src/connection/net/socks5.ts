/**
 * The client side of SOCKS5 (RFC 1928, RFC 1929), as Bitcoin Core uses it with Tor.
 *
 * Why not the package `socks` (2.8.11, read and tried): its caller gets the answer of the proxy as English text only,
 * and Tor's own codes as "undefined"; its error contains the password for the proxy; it emits bytes after the reply a
 * turn later, and a listener that is added after that loses them; it counts a name in characters and sends it in bytes;
 * it cannot be interrupted without a socket of one's own. The code around it would be longer than this file.
 */
import { randomBytes } from "node:crypto"
import type { DialProblem, Endpoint } from "../../ConnectionError.ts"
import { type Dialogue, ProxyError } from "./proxyDialogue.ts"

const version = 5
const noAuthentication = 0
const userAndPassword = 2
const connectCommand = 1
const domainName = 3

/**
 * The address and the login of a SOCKS5 proxy. Tor listens at 127.0.0.1:9050 by default.
 *
 * @category models
 * @since 0.1.0
 */
export interface Socks5Proxy {
  readonly host: string
  readonly port: number
  /** For a proxy with a login, together with `password`; at most 255 bytes each. */
  readonly user?: string | undefined
  readonly password?: string | undefined
  /**
   * Without a `user`: whether each connection has a random user and password, so that Tor uses a circuit of its own for
   * it and no observer can link the connections of one node. True by default, as in Bitcoin Core. Proxies without a
   * login ignore it.
   */
  readonly isolate?: boolean | undefined
}

/** A user and a password. */
export interface Credentials {
  readonly user: string
  readonly password: string
}

const isCredential = (text: string): boolean => text.length > 0 && Buffer.byteLength(text) <= 255

/** The login: undefined for none, "bad" if it is too long. */
export const credentialsOf = ({ isolate = true, password, user }: Socks5Proxy): Credentials | "bad" | undefined => {
  if (user === undefined && password === undefined) {
    // User and password may be equal: only the pair must be unique.
    const random = randomBytes(16).toString("hex")
    return isolate ? { user: random, password: random } : undefined
  }
  const given = { user: user ?? "", password: password ?? "" }
  return isCredential(given.user) && isCredential(given.password) ? given : "bad"
}

/** The replies of RFC 1928, then those of Tor's proposal 304, which Tor sends if its option `ExtendedErrors` is set. */
const replies: Readonly<Record<number, readonly [DialProblem, string]>> = {
  0x01: ["ProxyRefused", "the proxy failed to connect"],
  0x02: ["ProxyRefused", "not allowed by the proxy's rules"],
  0x03: ["Unreachable", "network unreachable from the proxy"],
  0x04: ["Unreachable", "host unreachable from the proxy"],
  0x05: ["Refused", "connection refused"],
  0x06: ["Unreachable", "too far away from the proxy (TTL expired)"],
  0x07: ["ProxyRefused", "the proxy cannot connect (command not supported)"],
  0x08: ["ProxyRefused", "the proxy does not take host names"],
  0xf0: ["HostNotFound", "onion service descriptor not found"],
  0xf1: ["Unreachable", "onion service descriptor is invalid"],
  0xf2: ["Unreachable", "onion service introduction failed"],
  0xf3: ["Unreachable", "onion service rendezvous failed"],
  0xf4: ["Unreachable", "onion service wants client authorization"],
  0xf5: ["Unreachable", "onion service takes no such client authorization"],
  0xf6: ["HostNotFound", "not an onion address"],
  0xf7: ["Timeout", "onion service introduction timed out"]
}

const prefixed = (bytes: Uint8Array): Uint8Array => Buffer.concat([Uint8Array.of(bytes.length), bytes])

const isVersion = (byte: number | undefined): void => {
  if (byte !== version) throw new ProxyError("ProxyBroken", "the proxy does not speak SOCKS5", byte)
}

/** Requests a connection to the target. The caller checks the lengths: 255 bytes each for host, user and password. */
export function* socks5({ host, port }: Endpoint, credentials: Credentials | undefined): Dialogue<void> {
  const methods = credentials === undefined ? [noAuthentication] : [noAuthentication, userAndPassword]
  const [chosenVersion, method] = yield { send: Uint8Array.of(version, methods.length, ...methods), read: 2 }
  isVersion(chosenVersion)
  if (method === userAndPassword && credentials !== undefined) {
    const user = prefixed(Buffer.from(credentials.user))
    const password = prefixed(Buffer.from(credentials.password))
    const answer = yield { send: Buffer.concat([Uint8Array.of(1), user, password]), read: 2 }
    if (answer[0] !== 1) throw new ProxyError("ProxyBroken", "the proxy does not speak SOCKS5", answer[0])
    if (answer[1] !== 0) {
      throw new ProxyError("ProxyAuthFailed", "the proxy does not take this user and password", answer[1])
    }
  } else if (method !== noAuthentication) {
    const what = credentials === undefined ? "the proxy wants a user and a password" : "the proxy wants another login"
    throw new ProxyError("ProxyAuthFailed", what, method)
  }
  // An address is sent as a name, too, as Core does: with SafeSocks, Tor refuses raw addresses, because they look like
  // a leaked DNS lookup.
  const request = Buffer.concat([
    Uint8Array.of(version, connectCommand, 0, domainName),
    prefixed(Buffer.from(host)),
    Uint8Array.of(port >> 8, port & 0xff)
  ])
  const [replyVersion, reply = 0xff] = yield { send: request, read: 2 }
  isVersion(replyVersion)
  if (reply !== 0) {
    const [problem, text] = replies[reply] ?? ["ProxyRefused", `the proxy answered 0x${reply.toString(16)}`]
    throw new ProxyError(problem, text, reply)
  }
  const [, type] = yield { read: 2 }
  // The address from which the proxy connected. It precedes the first byte of the target, so it is read and dropped.
  if (type === 1) yield { read: 4 + 2 }
  else if (type === 4) yield { read: 16 + 2 }
  else if (type === domainName) {
    const [length = 0] = yield { read: 1 }
    yield { read: length + 2 }
  } else throw new ProxyError("ProxyBroken", "the proxy does not speak SOCKS5", type)
}
