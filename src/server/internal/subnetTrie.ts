/** Subnets as text, and a map from subnets that finds those that contain a host. */
import * as Data from "effect/Data"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import * as Address from "../../Address.ts"

/**
 * A subnet of IPv4, IPv6 or CJDNS, or one host of Tor or I2P.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subnet extends Address.Host {
  /** The number of leading bits that all hosts share; the other bits of `address` are zeros. 256 for Tor and I2P: the whole host. */
  readonly prefixLength: number
}

/**
 * A text is not a subnet.
 *
 * @category errors
 * @since 0.1.0
 */
export class SubnetError extends Data.TaggedError("SubnetError")<{
  readonly text: string
  readonly problem: string
}> {
  override get message(): string {
    return `"${this.text}" is not a subnet: ${this.problem}`
  }
}

const { NetworkId } = Address

/** The bits of an address, by its network. Tor v2 and unknown networks have no subnets. */
const widths: { readonly [networkId: number]: number | undefined } = {
  [NetworkId.ipv4]: 32,
  [NetworkId.ipv6]: 128,
  [NetworkId.torV3]: 256,
  [NetworkId.i2p]: 256,
  [NetworkId.cjdns]: 128
}

const hasSubnets = ({ networkId }: Address.Host): boolean =>
  networkId !== NetworkId.torV3 && networkId !== NetworkId.i2p

/**
 * The subnet of one host. `undefined` for a network that is not known, and where the length is not that of the network.
 *
 * @category constructors
 * @since 0.1.0
 */
export const subnetOf = (of: Address.Host): Subnet | undefined => {
  const { address, networkId } = Address.canonical(of)
  const width = widths[networkId]
  if (width === undefined || address.length * 8 !== width) return undefined
  // A copy: the host may be a view of a whole message, and a subnet is kept for long.
  return { networkId, address: address.slice(), prefixLength: width }
}

/** The length of a netmask; `undefined` if ones follow zeros, or for the mask of another family. */
const maskLength = (text: string, width: number): number | undefined => {
  const mask = NetAddress.ipFromString(text)
  if (Result.isFailure(mask)) return undefined
  const bytes = NetAddress.isIpv4Address(mask.success)
    ? NetAddress.ipv4ToOctets(mask.success)
    : NetAddress.ipv6ToOctets(mask.success)
  if (bytes.length * 8 !== width) return undefined
  const bits = Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0")).join("")
  return /^1*0*$/.test(bits) ? bits.lastIndexOf("1") + 1 : undefined
}

/** All CJDNS addresses begin with these bits. */
const cjdnsPrefixLength = 8

/**
 * The host with zeros after the prefix. A subnet that is larger than CJDNS is one of IPv6. (`IpNetwork.fromAddress` does the same by
 * way of other forms of an address, and takes as long as all else that is done for an entry of a file.)
 */
const masked = ({ address, networkId }: Address.Host, prefixLength: number): Subnet => ({
  networkId: networkId === NetworkId.cjdns && prefixLength < cjdnsPrefixLength ? NetworkId.ipv6 : networkId,
  address: address.map((byte, i) => byte & (0xff00 >> Math.max(0, Math.min(8, prefixLength - 8 * i)))),
  prefixLength
})

/**
 * Reads a subnet as Bitcoin Core does: a host, `1.2.3.0/24`, or `1.2.3.0/255.255.255.0`. Bits after the prefix are cleared. Hosts of
 * Tor and I2P have no prefix. Unlike Core it also takes subnets of CJDNS; a Core that reaches CJDNS leaves them out of its bans.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import * as BanList from "effect-bitcoin-peer/server/BanList"
 *
 * console.log(BanList.formatSubnet(Result.getOrThrow(BanList.parseSubnet("1.2.3.4/255.255.0.0")))) // 1.2.0.0/16
 * const wrong = BanList.parseSubnet("1.2.3.4/99")
 * if (Result.isFailure(wrong)) console.log(wrong.failure.message) // "1.2.3.4/99" is not a subnet: the prefix of IPv4 has at most 32 bits
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const parseSubnet = (text: string): Result.Result<Subnet, SubnetError> => {
  const failed = (problem: string) => Result.fail(new SubnetError({ text, problem }))
  const slash = text.lastIndexOf("/")
  const host = Address.parseHost(slash < 0 ? text : text.slice(0, slash))
  if (Result.isFailure(host)) {
    const { message, reason } = host.failure
    return failed(reason._tag === "NotAnAddress" ? "it needs an IPv4, IPv6, Tor, I2P or CJDNS address" : message)
  }
  const whole = subnetOf(host.success)
  if (whole === undefined) return failed("its network has no subnets")
  if (slash < 0) return Result.succeed(whole)
  if (!hasSubnets(whole)) return failed("a host of Tor or I2P has no prefix")
  const prefix = text.slice(slash + 1)
  const width = whole.prefixLength
  if (/^\d+$/.test(prefix)) {
    if (Number(prefix) <= width) return Result.succeed(masked(whole, Number(prefix)))
    const family = width === 32 ? "IPv4" : whole.networkId === NetworkId.cjdns ? "CJDNS" : "IPv6"
    return failed(`the prefix of ${family} has at most ${width} bits`)
  }
  const length = maskLength(prefix, width)
  return length === undefined
    ? failed(`"${prefix}" is neither a number of bits nor a netmask of ones before zeros`)
    : Result.succeed(masked(whole, length))
}

/**
 * The text of a subnet as Bitcoin Core prints it: `1.2.3.0/24`, and `/32` or `/128` after one IP address. A whole host of Tor, I2P or
 * CJDNS has no prefix.
 *
 * @category encoding
 * @since 0.1.0
 */
export const formatSubnet = (subnet: Subnet): string => {
  const { networkId, prefixLength } = subnet
  const whole = networkId !== NetworkId.ipv4 && networkId !== NetworkId.ipv6 && prefixLength === widths[networkId]
  return whole ? Address.formatHost(subnet) : `${Address.formatHost(subnet)}/${prefixLength}`
}

// ---- the trie

/**
 * A node of a trie in which chains without branches are one step: it has at most twice as many nodes as entries. `bits` are the first
 * `length` bits of `address`, which all below it share.
 */
interface Node<V> {
  readonly address: Uint8Array
  readonly length: number
  value: V | undefined
  zero: Node<V> | undefined
  one: Node<V> | undefined
}

const leaf = <V>(address: Uint8Array, length: number): Node<V> => ({
  address,
  length,
  value: undefined,
  zero: undefined,
  one: undefined
})

const isUnspecified = (address: Uint8Array): boolean => address.every((byte) => byte === 0)

const bitAt = (address: Uint8Array, at: number): number => (address[at >>> 3]! >>> (7 - (at & 7))) & 1

const childOf = <V>(node: Node<V>, bit: number): Node<V> | undefined => (bit === 0 ? node.zero : node.one)

const setChild = <V>(node: Node<V>, bit: number, child: Node<V> | undefined): void => {
  if (bit === 0) node.zero = child
  else node.one = child
}

/** How many leading bits, of at most `limit`, two addresses share. */
const sharedBits = (a: Uint8Array, b: Uint8Array, limit: number): number => {
  for (let i = 0; i << 3 < limit; i++) {
    const difference = a[i]! ^ b[i]!
    if (difference !== 0) return Math.min(limit, (i << 3) + Math.clz32(difference) - 24)
  }
  return limit
}

/**
 * Whether a subnet contains a host. No subnet contains `0.0.0.0` or `::`, as in Bitcoin Core.
 *
 * @category predicates
 * @since 0.1.0
 */
export const subnetContains = (subnet: Subnet, of: Address.Host): boolean => {
  const { address, networkId } = Address.canonical(of)
  return (
    networkId === subnet.networkId &&
    address.length === subnet.address.length &&
    !isUnspecified(address) &&
    sharedBits(subnet.address, address, subnet.prefixLength) === subnet.prefixLength
  )
}

/**
 * A map from subnets. A look-up compares each bit of a host at most once, whatever the number of entries: at most 32 bits of IPv4,
 * 128 of IPv6 and CJDNS, 256 of Tor and I2P.
 */
export class SubnetTrie<V> {
  /** A trie for each network, in the order in which Bitcoin Core sorts networks. */
  readonly #roots: ReadonlyMap<number, Node<V>> = new Map(
    Object.keys(widths).map((networkId) => [Number(networkId), leaf<V>(new Uint8Array(0), 0)])
  )
  #size = 0

  get size(): number {
    return this.#size
  }

  /** The value of exactly this subnet. */
  get({ address, networkId, prefixLength }: Subnet): V | undefined {
    let node = this.#roots.get(networkId)
    while (node !== undefined && node.length < prefixLength) node = childOf(node, bitAt(address, node.length))
    return node?.length === prefixLength && sharedBits(node.address, address, prefixLength) === prefixLength
      ? node.value
      : undefined
  }

  set({ address, networkId, prefixLength }: Subnet, value: V): void {
    let node = this.#roots.get(networkId)!
    while (node.length < prefixLength) {
      const bit = bitAt(address, node.length)
      const child = childOf(node, bit)
      if (child === undefined) {
        const added = leaf<V>(address, prefixLength)
        setChild(node, bit, added)
        node = added
        break
      }
      const shared = sharedBits(child.address, address, Math.min(child.length, prefixLength))
      if (shared < child.length) {
        const between = leaf<V>(address, shared)
        setChild(between, bitAt(child.address, shared), child)
        setChild(node, bit, between)
        node = between
      } else {
        node = child
      }
    }
    if (node.value === undefined) this.#size++
    node.value = value
  }

  /** Whether the subnet was there. */
  delete({ address, networkId, prefixLength }: Subnet): boolean {
    let above: Node<V> | undefined
    let parent: Node<V> | undefined
    let node = this.#roots.get(networkId)
    while (node !== undefined && node.length < prefixLength) {
      above = parent
      parent = node
      node = childOf(node, bitAt(address, node.length))
    }
    if (node?.value === undefined || node.length !== prefixLength) return false
    if (sharedBits(node.address, address, prefixLength) !== prefixLength) return false
    node.value = undefined
    this.#size--
    this.#shorten(parent, node)
    if (parent !== undefined) this.#shorten(above, parent)
    return true
  }

  /** Takes a node without a value out of the chain, unless two chains branch there. The root stays. */
  #shorten(parent: Node<V> | undefined, node: Node<V>): void {
    if (parent === undefined || node.value !== undefined || (node.zero !== undefined && node.one !== undefined)) return
    setChild(parent, bitAt(node.address, parent.length), node.zero ?? node.one)
  }

  /**
   * The value of a subnet that contains the host and that `accept` takes; the shortest prefix is asked first. As in Bitcoin Core no
   * subnet contains `0.0.0.0` or `::`.
   */
  find(of: Address.Host, accept: (value: V) => boolean): V | undefined {
    const { address, networkId } = Address.canonical(of)
    if (address.length * 8 !== widths[networkId] || isUnspecified(address)) return undefined
    let node = this.#roots.get(networkId)
    let known = 0
    while (node !== undefined) {
      // The bits before `known` are those of the parent, which match.
      for (; known < node.length; known++) if (bitAt(node.address, known) !== bitAt(address, known)) return undefined
      if (node.value !== undefined && accept(node.value)) return node.value
      if (node.length === address.length * 8) return undefined
      node = childOf(node, bitAt(address, node.length))
    }
    return undefined
  }

  /** All values, sorted by network, address and prefix, as Bitcoin Core sorts them. */
  values(): Array<V> {
    const values: Array<V> = []
    const collect = (node: Node<V> | undefined): void => {
      if (node === undefined) return
      if (node.value !== undefined) values.push(node.value)
      collect(node.zero)
      collect(node.one)
    }
    for (const root of this.#roots.values()) collect(root)
    return values
  }

  /** Nodes in memory, for tests of the bound: at most two for each entry, and the roots. */
  get nodes(): number {
    const count = (node: Node<V> | undefined): number =>
      node === undefined ? 0 : 1 + count(node.zero) + count(node.one)
    return Array.from(this.#roots.values(), count).reduce((sum, one) => sum + one)
  }

  clear(): void {
    this.#size = 0
    for (const root of this.#roots.values()) {
      root.value = undefined
      root.zero = undefined
      root.one = undefined
    }
  }
}
