/**
 * Our own addresses, and which of them to tell a remote. The answer shows a remote where else it finds us, so the address of
 * a privacy network is told in that network only, and no other address is told there.
 */
import { type Address, canonical, group, type Host, isRoutable, NetworkId } from "../../Address.ts"
import { hostKey } from "./keys.ts"
import { type NetworkName, wayOf } from "./networkNames.ts"
import type { Random } from "./random.ts"

/** How we know an address; the better one wins where remotes reach both alike. */
export const scores = {
  /** An interface of this machine has it. */
  interface: 1,
  /** We listen on it. */
  bind: 2,
  /** The router maps it to us. */
  mapped: 3,
  /** The operator, Tor or the I2P router gave it. */
  given: 4
} as const

/** A kind of network as it counts for reachability. */
type Class = "ipv4" | "ipv6" | "tunnel" | "teredo" | "onion" | "i2p" | "cjdns" | "other"

const startsWith = (bytes: Uint8Array, prefix: ReadonlyArray<number>): boolean =>
  prefix.every((byte, index) => bytes[index] === byte)

/** IPv6 that carries IPv4: 6to4 (RFC 3964), NAT64 (RFC 6052), SIIT (RFC 6145). */
const isTunnel = (bytes: Uint8Array): boolean =>
  startsWith(bytes, [0x20, 0x02]) ||
  startsWith(bytes, [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0]) ||
  startsWith(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0])

const classOf = (host: Host): Class => {
  if (!isRoutable(host)) return "other"
  const way = wayOf(host)
  if (way !== "ipv6") return way as Class
  if (startsWith(host.address, [0x20, 0x01, 0, 0])) return "teredo"
  return isTunnel(host.address) ? "tunnel" : "ipv6"
}

/** How well a remote reaches an address of ours: 0 not at all, 1 by default, 6 in its own privacy network. */
const reach = { default: 1, teredo: 2, weakIpv6: 3, ipv4: 4, strongIpv6: 5, private: 6 } as const

/** For each class of the remote, the classes of ours that are better than the default. */
const reachability: { readonly [theirs in Class]: { readonly [ours in Class]?: number } } = {
  ipv4: { ipv4: reach.ipv4 },
  ipv6: { teredo: reach.teredo, ipv4: reach.ipv4, tunnel: reach.weakIpv6, ipv6: reach.strongIpv6 },
  tunnel: { teredo: reach.teredo, ipv4: reach.ipv4, tunnel: reach.weakIpv6, ipv6: reach.strongIpv6 },
  onion: { ipv4: reach.ipv4, onion: reach.private },
  i2p: { i2p: reach.private },
  cjdns: { cjdns: reach.private },
  teredo: { teredo: reach.teredo, ipv6: reach.weakIpv6, tunnel: reach.weakIpv6, ipv4: reach.ipv4 },
  other: {
    teredo: reach.teredo,
    ipv6: reach.weakIpv6,
    tunnel: reach.weakIpv6,
    ipv4: reach.ipv4,
    onion: reach.private
  }
}

/** How well a remote reaches an address of ours, as Bitcoin Core's `GetReachabilityFrom`. */
export const reachabilityFrom = (ours: Host, theirs: Host): number => {
  if (!isRoutable(ours)) return 0
  return reachability[classOf(theirs)][classOf(ours)] ?? reach.default
}

const isPrivacyNetwork = (network: NetworkName): boolean => network === "onion" || network === "i2p"

/** Whether an address may be told in a network: that of a privacy network nowhere else, and no other there. */
const mayBeTold = (ours: Host, network: NetworkName): boolean => {
  const own = wayOf(ours)
  return own === network || (!isPrivacyNetwork(own) && !isPrivacyNetwork(network))
}

const keyOf = (host: Host): string => hostKey(canonical(host))

/** Whether an address has the port that its network needs: I2P has no ports. */
export const hasPort = ({ networkId, port }: Address): boolean => (networkId === NetworkId.i2p ? port === 0 : port > 0)

/** The facts about a remote that decide which address it is told. */
export interface Remote {
  readonly host: Host
  /** The network that it came through: onion for a remote that came in by our onion service, whose host is 127.0.0.1. */
  readonly network: NetworkName
  readonly isInbound: boolean
  /** The address that it says we have: `receiver` of its version message. */
  readonly says?: Address | undefined
}

export interface Settings {
  /** Whether we listen. If not, no address is told. */
  readonly listens: boolean
  /** The port on which we listen. */
  readonly port: number
  /** Whether we take addresses that nobody gave us: of interfaces, of listeners, and those that remotes name. */
  readonly discovers: boolean
  /** The networks that we reach. */
  readonly networks: ReadonlySet<NetworkName>
}

interface Entry {
  /** One for each owner, the latest last. */
  readonly holds: Array<{ readonly address: Address; readonly score: number }>
  /** How many remotes have named it. */
  votes: number
}

/** How many hosts are remembered that remotes say we have: more than a node has. */
const maximumClaims = 64

/** In how many network groups remotes must say the same: one remote alone would decide what we announce. */
const neededWitnesses = 2

/** An address of ours, and its score. */
export interface Scored {
  readonly address: Address
  readonly score: number
}

export class LocalTable {
  readonly #settings: Settings
  readonly #entries = new Map<string, Entry>()
  /** The groups of remotes that named a host, at most two each, by the host. The host that was named longest ago is first. */
  readonly #claims = new Map<string, Set<string>>()

  constructor(settings: Settings) {
    this.#settings = settings
  }

  /**
   * Adds an address until the returned function is called. Undefined if we do not take it: it is not routable, we do not discover, or
   * we do not reach its network, unless the operator gave it to us.
   */
  add(address: Address, score: number, options?: { readonly isExternal?: boolean }): (() => void) | undefined {
    const { discovers, networks } = this.#settings
    if (!isRoutable(address)) return undefined
    if (!discovers && score < scores.given) return undefined
    if (options?.isExternal !== true && !networks.has(wayOf(address))) return undefined
    const key = keyOf(address)
    const entry = this.#entries.get(key) ?? { holds: [], votes: 0 }
    this.#entries.set(key, entry)
    const hold = { address, score }
    entry.holds.push(hold)
    return () => {
      const index = entry.holds.indexOf(hold)
      if (index >= 0) entry.holds.splice(index, 1)
      if (entry.holds.length === 0 && this.#entries.get(key) === entry) this.#entries.delete(key)
    }
  }

  /** Takes note of the address that the version message of a remote says we have. */
  seen({ host, isInbound, says }: Remote): void {
    if (says === undefined || !isRoutable(says)) return
    const key = keyOf(says)
    const entry = this.#entries.get(key)
    // An inbound remote has found us by this address (Core).
    if (entry !== undefined && isInbound) entry.votes++
    // All remotes that come through one proxy have its address.
    if (!isRoutable(host)) return
    const groups = this.#claims.get(key) ?? new Set()
    if (groups.size < neededWitnesses) groups.add(group(host))
    this.#claims.delete(key)
    this.#claims.set(key, groups)
    for (const oldest of this.#claims.keys()) {
      if (this.#claims.size <= maximumClaims) break
      this.#claims.delete(oldest)
    }
  }

  /** The best of our own knowledge: by reachability, then by score. */
  #own(remote: Remote): Scored | undefined {
    let best: (Scored & { readonly reach: number }) | undefined
    for (const { address, score } of this.all()) {
      if (!mayBeTold(address, remote.network)) continue
      const reach = reachabilityFrom(address, remote.host)
      if (best === undefined || reach > best.reach || (reach === best.reach && score > best.score)) {
        best = { address, score, reach }
      }
    }
    return best
  }

  /** Whether the address that a remote names can be told to it: it is one of our networks, and remotes of two groups said it. */
  #isBelieved(says: Address, { host, isInbound, network }: Remote): boolean {
    const { discovers, networks } = this.#settings
    if (!discovers || !isRoutable(host) || !isRoutable(says) || (isInbound && !hasPort(says))) return false
    if (!networks.has(wayOf(says)) || !mayBeTold(says, network)) return false
    return (this.#claims.get(keyOf(says))?.size ?? 0) >= neededWitnesses
  }

  /** The address to tell a remote, if any. Sometimes it is the one that the remote names itself, as it may know better. */
  bestFor(remote: Remote, random: Random): Address | undefined {
    if (!this.#settings.listens) return undefined
    const own = this.#own(remote)
    const { isInbound, says } = remote
    const isTaken =
      says !== undefined &&
      this.#isBelieved(says, remote) &&
      (own === undefined || random.below(own.score > scores.given ? 8 : 2) === 0)
    if (!isTaken) return own?.address
    // A remote that we dialled saw the port of that connection, and not the one on which we listen.
    return isInbound ? says : { ...says, port: own?.address.port ?? this.#settings.port }
  }

  /** Whether an address is one of ours, whatever its port: dialling it would reach ourselves. */
  has(host: Host): boolean {
    return this.#entries.has(keyOf(host))
  }

  /** All our addresses with their scores, in the order in which they were added. */
  all(): ReadonlyArray<Scored> {
    return Array.from(this.#entries.values(), ({ holds, votes }) => {
      const best = holds.reduce((best, hold) => (hold.score >= best.score ? hold : best))
      return { address: best.address, score: best.score + votes }
    })
  }
}
