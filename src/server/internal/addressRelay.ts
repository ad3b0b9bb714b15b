/**
 * Address relay: stores addresses from peers, relays them to other peers, answers `getaddr`, and announces our own address. One machine
 * for all peers of a server, as in Bitcoin Core. Times are milliseconds since 1970; the times inside of entries are
 * seconds.
 */
import * as Address from "../../Address.ts"
import { type SipKey, sipHash } from "../../primitives/siphash.ts"
import { type Addr, type AddrV2, type AddressV2, maxAddresses, Service, type TimestampedAddress } from "../../Wire.ts"
import { type ConnectionKind, kinds } from "../ConnectionKind.ts"
import type { Permissions } from "../Permissions.ts"
import { exponential, type Random, shuffle } from "./random.ts"
import { RollingFilter } from "./rollingFilter.ts"
import { TokenBucket } from "./tokenBucket.ts"

/** A peer, when its handshake is done. */
export interface RelayPeer {
  /** A whole number of at most 53 bits that no other connection has or had. */
  readonly id: number
  readonly kind: ConnectionKind
  readonly host: Address.Host
  readonly permissions: Permissions
  /** Whether it sent `sendaddrv2` (BIP155). Without it, it cannot read addresses of Tor, I2P and CJDNS. */
  readonly wantsV2: boolean
  readonly connectedAt: number
}

/** The settings of the machine, and its callbacks. */
export interface RelayOptions {
  readonly random: Random
  /** A secret key of this start: an attacker cannot choose addresses that are relayed to his peers. */
  readonly key: SipKey
  /** Whether we can dial the network of a host. Others are relayed less, and not stored. */
  readonly isReachable: (host: Address.Host) => boolean
  /** Whether a host is banned or discouraged. */
  readonly isRefused: (host: Address.Host, now: number) => boolean
  /** Stores entries in the book. Their times are put back by `penalty`, in milliseconds. */
  readonly store: (entries: ReadonlyArray<AddressV2>, source: Address.Host, penalty: number) => void
  /** The answer to a peer's `getaddr`: from the cache, or fresh for a peer with the permission `addr`. At most 1,000 entries. */
  readonly answer: (peer: RelayPeer, now: number) => ReadonlyArray<AddressV2>
  /** Our own address for this peer, if there is one to tell. */
  readonly ownAddress: (peer: RelayPeer) => Address.Address | undefined
  readonly ownServices: bigint
  /** Whether our own address is announced: we listen, and the initial sync is over. */
  readonly announces: () => boolean
  /** The services of a node that is worth dialling. Entries with none of NETWORK, NETWORK_LIMITED and all of these are skipped. */
  readonly desirableServices: bigint
}

/** The result of an `addr` or `addrv2`. */
export type Received =
  | {
      readonly _tag: "Taken"
      /** The addr-fetch peer has answered, so it can be ended. */
      readonly isDone: boolean
    }
  /** Addresses are not relayed with this kind of connection. */
  | { readonly _tag: "Ignored" }
  | { readonly _tag: "Misbehaved"; readonly problem: string }

/** A message to send: `addrv2` if `wantsV2`, else `addr`. */
export interface RelaySend {
  readonly id: number
  readonly wantsV2: boolean
  readonly addresses: ReadonlyArray<AddressV2>
}

/** Fields of `getpeerinfo`. */
export interface RelayCounters {
  readonly addr_relay_enabled: boolean
  readonly addr_processed: number
  readonly addr_rate_limited: number
}

const second = 1_000
const hour = 3_600 * second

/** On average a peer gets our own address once a day, and other addresses twice a minute. */
const announceInterval = 24 * hour
const sendInterval = 30 * second
/** How long an address goes to the same peers. */
const rotation = 24 * 3_600
/** The book takes an address as older than its sender says. */
const penalty = 2 * hour
/** Entries of a message that is news, and not an answer to `getaddr`. */
const maxNews = 10
/** Only addresses that were seen this recently are relayed, and times may be at most this far in the future. In seconds. */
const newsAge = 600
/** How old an entry counts, in seconds, whose time is impossible. */
const assumedAge = 5 * 24 * 3_600
const earliest = 100_000_000

const knownAddresses = { elements: 5_000, falsePositives: 0.001 }
const rate = { perSecond: 0.1, capacity: maxAddresses, start: 1 }
const fullNode = Service.network | Service.networkLimited

interface State {
  readonly peer: RelayPeer
  readonly bucket: TokenBucket
  /** Addresses that the peer knows. The filter is made when address relay with the peer begins. */
  known: RollingFilter | undefined
  queue: Array<AddressV2>
  sendAt: number
  /** 0 before the first announcement. */
  announceAt: number
  isAwaitingAnswer: boolean
  hasAnswered: boolean
  processed: number
  rateLimited: number
}

/** The bytes of Core's `CService::GetKey`, after the number of the network. */
const keyOf = ({ address, networkId, port }: AddressV2): Uint8Array => {
  const key = new Uint8Array(address.length + 3)
  key[0] = networkId
  key.set(address, 1)
  key[address.length + 1] = port >>> 8
  key[address.length + 2] = port & 0xff
  return key
}

/** Core's internal names and Tor v2 stay IPv6 addresses: they are not routable, so they are neither relayed nor stored. */
const fromAddr = ({ address, port, services, timestamp }: TimestampedAddress): AddressV2 => ({
  timestamp,
  services,
  port,
  ...Address.canonical({ networkId: Address.NetworkId.ipv6, address })
})

/** Whether `addr` can carry it, as `addrv2` can any. */
const fitsV1 = ({ networkId }: Address.Host): boolean =>
  networkId === Address.NetworkId.ipv4 || networkId === Address.NetworkId.ipv6

export class AddressRelay {
  readonly #options: RelayOptions
  readonly #states = new Map<number, State>()
  readonly #out = new Uint32Array(2)

  constructor(options: RelayOptions) {
    this.#options = options
  }

  /** Begins with a peer. Returns whether to send `getaddr`, once: its answer is awaited then. */
  add(peer: RelayPeer): boolean {
    const { relaysAddresses, sendsGetaddr } = kinds[peer.kind]
    const state: State = {
      peer,
      bucket: new TokenBucket(rate, peer.connectedAt),
      known: undefined,
      queue: [],
      sendAt: 0,
      announceAt: 0,
      isAwaitingAnswer: sendsGetaddr,
      hasAnswered: false,
      processed: 0,
      rateLimited: 0
    }
    this.#states.set(peer.id, state)
    // An inbound peer has to show first that it relays addresses: many are wallets and crawlers.
    if (relaysAddresses && peer.kind !== "inbound") this.#enable(state)
    if (sendsGetaddr) state.bucket.add(maxAddresses)
    return sendsGetaddr
  }

  remove(id: number): void {
    this.#states.delete(id)
  }

  counters(id: number): RelayCounters | undefined {
    const state = this.#states.get(id)
    return (
      state && {
        addr_relay_enabled: state.known !== undefined,
        addr_processed: state.processed,
        addr_rate_limited: state.rateLimited
      }
    )
  }

  /** Addresses that wait to be sent to a peer. */
  queued(id: number): ReadonlyArray<AddressV2> {
    return this.#states.get(id)?.queue ?? []
  }

  /** An `addr` or `addrv2` of a peer. */
  received(id: number, message: Addr | AddrV2, now: number): Received {
    const state = this.#states.get(id)
    if (state === undefined || !kinds[state.peer.kind].relaysAddresses) return { _tag: "Ignored" }
    const known = this.#enable(state)
    const entries = message._tag === "addr" ? Array.from(message.addresses, fromAddr) : Array.from(message.addresses)
    if (entries.length > maxAddresses) {
      return {
        _tag: "Misbehaved",
        problem: `${entries.length} addresses in a message, at most ${maxAddresses} are allowed`
      }
    }
    const { desirableServices, isReachable, isRefused, random, store } = this.#options
    const isLimited = !state.peer.permissions.has("addr")
    const isNews = entries.length <= maxNews && !state.isAwaitingAnswer
    const nowSeconds = Math.floor(now / second)
    const stored: Array<AddressV2> = []
    state.bucket.refill(now)
    for (const given of shuffle(random, entries)) {
      if (!state.bucket.take() && isLimited) {
        state.rateLimited++
        continue
      }
      const { services, timestamp } = given
      if ((services & fullNode) === 0n && (services & desirableServices) !== desirableServices) continue
      const isPlausible = timestamp > earliest && timestamp <= nowSeconds + newsAge
      const entry = isPlausible ? given : { ...given, timestamp: nowSeconds - assumedAge }
      known.add(keyOf(entry))
      if (isRefused(entry, now)) continue
      state.processed++
      const reachable = isReachable(entry)
      if (isNews && entry.timestamp > nowSeconds - newsAge && Address.isRoutable(entry)) {
        this.#relay(id, entry, reachable, now)
      }
      if (reachable) stored.push(entry)
    }
    if (stored.length > 0) store(stored, state.peer.host, penalty)
    if (entries.length < maxAddresses) state.isAwaitingAnswer = false
    return { _tag: "Taken", isDone: state.peer.kind === "addr-fetch" && entries.length > 1 }
  }

  /**
   * A `getaddr` of a peer. Only inbound peers are answered: a remote that we dialled could plant addresses in the book and read them
   * back. Each connection is answered once, through its queue.
   */
  getaddr(id: number, now: number): void {
    const state = this.#states.get(id)
    if (state?.peer.kind !== "inbound") return
    this.#enable(state)
    if (state.hasAnswered) return
    state.hasAnswered = true
    state.queue = []
    for (const entry of this.#options.answer(state.peer, now)) this.#push(state, entry, now)
  }

  /** The messages to send now. Call it at the time that `next` returns. */
  tick(now: number): ReadonlyArray<RelaySend> {
    const sends: Array<RelaySend> = []
    const announces = this.#options.announces()
    for (const state of this.#states.values()) {
      if (state.known === undefined) continue
      if (announces && state.announceAt <= now) this.#announce(state, state.known, now, sends)
      if (state.queue.length > 0 && state.sendAt <= now) this.#flush(state, state.known, sends)
    }
    return sends
  }

  /** When `tick` has something to do, as things are now; `Infinity` for never. Ask again after every call, and when `announces` changes. */
  next(): number {
    const announces = this.#options.announces()
    let next = Infinity
    for (const { announceAt, known, queue, sendAt } of this.#states.values()) {
      if (known === undefined) continue
      if (announces && announceAt < next) next = announceAt
      if (queue.length > 0 && sendAt < next) next = sendAt
    }
    return next
  }

  #enable(state: State): RollingFilter {
    const { elements, falsePositives } = knownAddresses
    state.known ??= new RollingFilter(elements, falsePositives, this.#options.random)
    return state.known
  }

  /**
   * The peers that an address goes to are the same for 24 hours, so that nobody spreads an address further by repeating it. Each
   * address changes its peers at a moment of its own.
   */
  #relay(from: number, entry: AddressV2, reachable: boolean, now: number): void {
    const out = this.#out
    const { key } = this.#options
    sipHash(key, keyOf(entry), out)
    const hash = (BigInt(out[1]!) << 32n) | BigInt(out[0]!)
    const period = BigInt.asUintN(64, BigInt(Math.floor(now / second)) + hash) / BigInt(rotation)
    const question = new DataView(new ArrayBuffer(24))
    question.setBigUint64(0, hash, true)
    question.setBigUint64(8, period, true)
    const bytes = new Uint8Array(question.buffer)
    // An address that we cannot reach goes to 1 or 2 peers.
    sipHash(key, bytes.subarray(0, 16), out)
    const count = reachable || (out[0]! & 1) === 1 ? 2 : 1

    let best: State | undefined
    let runnerUp: State | undefined
    let bestHash = -1
    let runnerUpHash = -1
    for (const state of this.#states.values()) {
      const { id, wantsV2 } = state.peer
      if (state.known === undefined || id === from || !(wantsV2 || fitsV1(entry))) continue
      question.setBigUint64(16, BigInt(id), true)
      sipHash(key, bytes, out)
      // The first 53 bits: two peers of a server do not share them.
      const peerHash = out[1]! * 0x20_0000 + (out[0]! >>> 11)
      if (peerHash > bestHash) {
        runnerUp = best
        runnerUpHash = bestHash
        best = state
        bestHash = peerHash
      } else if (peerHash > runnerUpHash) {
        runnerUp = state
        runnerUpHash = peerHash
      }
    }
    // The entry is a view of bytes that were received, and may wait for long.
    const copy = { ...entry, address: entry.address.slice() }
    if (best !== undefined) this.#push(best, copy, now)
    if (runnerUp !== undefined && count === 2) this.#push(runnerUp, copy, now)
  }

  #push(state: State, entry: AddressV2, now: number): void {
    const { peer, queue } = state
    if (!Address.isValid(entry) || !(peer.wantsV2 || fitsV1(entry))) return
    // Asked again when it is sent: here it only saves room.
    if (state.known?.has(keyOf(entry)) !== false) return
    // Nothing waited, so no time was drawn since. The time left of an exponential distribution does not depend on what has passed.
    if (queue.length === 0 && state.sendAt <= now) state.sendAt = this.#after(now, sendInterval)
    if (queue.length < maxAddresses) queue.push(entry)
    else queue[this.#options.random.below(queue.length)] = entry
  }

  #flush(state: State, known: RollingFilter, sends: Array<RelaySend>): void {
    const addresses = state.queue.filter((entry) => {
      const key = keyOf(entry)
      if (known.has(key)) return false
      known.add(key)
      return true
    })
    state.queue = []
    const { id, wantsV2 } = state.peer
    if (addresses.length > 0) sends.push({ id, wantsV2, addresses })
  }

  #announce(state: State, known: RollingFilter, now: number, sends: Array<RelaySend>): void {
    const isFirst = state.announceAt === 0
    // The peer may know our address from the last time. It would then not be sent.
    if (!isFirst) known.reset()
    state.announceAt = this.#after(now, announceInterval)
    const address = this.#options.ownAddress(state.peer)
    if (address === undefined) return
    const { address: bytes, networkId, port } = address
    const services = this.#options.ownServices
    const entry = { networkId, address: bytes, port, services, timestamp: Math.floor(now / second) }
    const { id, wantsV2 } = state.peer
    // Alone, because the peer takes one address from us at first. Later ones go with others.
    if (!isFirst) this.#push(state, entry, now)
    else if (wantsV2 || fitsV1(entry)) sends.push({ id, wantsV2, addresses: [entry] })
  }

  #after(now: number, mean: number): number {
    return now + exponential(this.#options.random, mean)
  }
}
