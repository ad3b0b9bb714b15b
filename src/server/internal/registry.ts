/**
 * What a server decides about its connections: which slot of which kind each of them takes, and what is dialled next. Every call is
 * synchronous, so nothing can come between a look and a decision. It dials nothing and reads no clock.
 *
 * A slot is taken before the dial and given back when the attempt or the peer ends: there is one set of connections, and every number is
 * counted from it.
 */
import type { Address } from "../../Address.ts"
import * as Addresses from "../../Address.ts"
import * as Wire from "../../Wire.ts"
import { type ConnectionKind, kinds } from "../ConnectionKind.ts"
import { isName, type NetworkName, type Target } from "../Dialer.ts"
import { type Added, AddedNodes, targetKey } from "./backoff.ts"
import { DialRate } from "./dialRate.ts"
import { addressKey, hostKey } from "./keys.ts"
import { networkNameOf } from "./networkNames.ts"
import { exponential, type Random } from "./random.ts"

const { network: fullNode, networkLimited, witness } = Wire.Service

/** An address of the book, as the book draws it. */
export interface Pick {
  readonly address: Address
  readonly services: bigint
  /** Milliseconds; 0 before the first try. */
  readonly lastTry: number
}

/** What the registry needs of the address book. Times are milliseconds. */
export interface Book {
  readonly select: (
    now: number,
    options: { readonly newOnly: boolean; readonly networks: ReadonlySet<NetworkName> }
  ) => Pick | undefined
  /** The occupant of a place that a newer address waits for: a feeler tests it. */
  readonly collision: () => Pick | undefined
  readonly resolveCollisions: (now: number) => void
  readonly attempt: (address: Address, countFailure: boolean, now: number) => void
  readonly good: (address: Address, now: number) => void
  readonly connected: (address: Address, now: number) => void
  readonly setServices: (address: Address, services: bigint) => void
  /** Whether the book has addresses of a network. */
  readonly hasNetwork: (network: NetworkName) => boolean
}

/** The numbers of a server that the registry goes by. */
export interface Limits {
  readonly fullRelay: number
  readonly blockRelay: number
  readonly manual: number
  readonly feelers: boolean
  /** Dials that may run at once for automatic connections, while fewer than two full-relay peers are connected, and then. */
  readonly pendingDials: number
  readonly dialsPerSecond: number
  readonly dialBurst: number
}

export interface RegistryOptions {
  readonly limits: Limits
  readonly random: Random
  readonly book: Book | undefined
  /** Networks whose addresses are dialled without the operator's asking. */
  readonly reachable: ReadonlySet<NetworkName>
  /** Equal for addresses that one operator may have: /16 of IPv4, or the autonomous system. */
  readonly groupOf: (address: Address) => string
  /** Whether an address may be dialled automatically: it is not banned, not discouraged and not our own. */
  readonly isAllowed: (address: Address, now: number) => boolean
  readonly isBadPort: (port: number) => boolean
  /** Masks of services: a peer of a kind that needs services offers one of each. */
  readonly requiredServices: ReadonlyArray<bigint>
  readonly emit: (event: RegistryEvent) => void
}

export type RegistryEvent =
  | { readonly _tag: "Offline" }
  | { readonly _tag: "Online" }
  | { readonly _tag: "AddedUnreachable"; readonly target: Target; readonly why: string }

/** A connection from the moment its slot is taken. */
export interface Entry {
  readonly id: number
  readonly kind: ConnectionKind
  /** What is dialled, or the address that an inbound connection comes from. */
  readonly target: Target
  /** The address of the remote, once it is known. */
  address: Address | undefined
  /** The group that no other automatic connection goes to. */
  group: string | undefined
  readonly added: Added | undefined
  /** Dialled once for a caller, beside the slots of its kind. */
  readonly isOnce: boolean
  /** Milliseconds when the slot was taken. */
  readonly since: number
  /** Milliseconds when the handshake was completed. */
  readyAt: number | undefined
  isEnding: boolean
}

export type Action =
  | { readonly _tag: "Dial"; readonly entry: Entry; readonly services: bigint | undefined }
  /** Nothing to dial before `until`, unless something changes. */
  | { readonly _tag: "Wait"; readonly until: number }

/** How a connection ended, as far as the registry goes by it. */
export interface End {
  /** This side interrupted the attempt or the peer: nothing follows for the address. */
  readonly isInterrupted: boolean
  /** The dial failed because this machine has no network. */
  readonly isLocal: boolean
  /** No dial was made that could tell whether this machine has a network. */
  readonly isUndialled?: boolean | undefined
  /** Whether another try soon may succeed. */
  readonly retry: boolean
  /** Set where no way leads to the target. */
  readonly unreachable?: string | undefined
}

const never = Number.POSITIVE_INFINITY
const feelerMean = 2 * 60_000
/** Feelers of many nodes that were started together must not come at once. */
const feelerNoise = 1_000
const extraBlockRelayMean = 5 * 60_000
const networkPeerMean = 5 * 60_000
/** Full-relay peers of Bitcoin Core. */
const usualFullRelay = 8
const mostPicks = 100
/** The first 30 picks skip addresses that were tried in the last ten minutes. */
const picksWithoutRecent = 30
const picksWithoutBadPorts = 50
const recently = 10 * 60_000
const justNow = 60_000
const shortestEmptyWait = 500
const longestEmptyWait = 8_000
/** This many local dial failures in a row within `offlineWindow` mean that this machine is offline. */
const offlineDials = 8
const offlineWindow = 10_000
const offlineProbe = 5_000

const addressOf = (target: Target): Address | undefined => (isName(target) ? undefined : target)

/** Onion services, I2P and CJDNS cost nothing to make, so their groups mean nothing. */
const hasGroup = (address: Address): boolean =>
  address.networkId === Addresses.NetworkId.ipv4 || address.networkId === Addresses.NetworkId.ipv6

export class Registry {
  readonly entries = new Map<number, Entry>()
  readonly added: AddedNodes
  /** Block-relay peers of the last run, tried first. */
  anchors: Array<Pick> = []
  isActive = true
  /** Whether one more full-relay peer than usual is wanted: the tip is old. */
  wantsExtraFullRelay = false
  /** Whether further block-relay peers are tried from time to time: the initial sync is over. */
  wantsExtraBlockRelay = false
  isOffline = false
  readonly #options: RegistryOptions
  readonly #rate: DialRate
  readonly #counts = new Map<ConnectionKind, number>()
  /** Keys of hosts, with the number of connections to or from each. */
  readonly #hosts = new Map<string, number>()
  readonly #fetches: Array<Target> = []
  readonly #once: Array<{ readonly target: Target; readonly kind: ConnectionKind; readonly id: number }> = []
  #lastId = 0
  #hasTimers = false
  #feelerAt = never
  #extraBlockRelayAt = never
  #networkPeerAt = never
  #emptyWait = shortestEmptyWait
  #emptyUntil = 0
  /** When the last dials failed because of this machine. */
  #localFailures: Array<number> = []
  #probeAt = 0

  constructor(options: RegistryOptions) {
    this.#options = options
    this.added = new AddedNodes(options.random)
    this.#rate = new DialRate(options.limits.dialsPerSecond, options.limits.dialBurst)
  }

  // ---- numbers

  count(kind: ConnectionKind): number {
    return this.#counts.get(kind) ?? 0
  }

  /** Full-relay peers whose handshake was completed. */
  get connectedFullRelay(): number {
    let connected = 0
    for (const { kind, readyAt } of this.entries.values()) {
      if (kind === "outbound-full-relay" && readyAt !== undefined) connected++
    }
    return connected
  }

  isConnectedTo(address: Address): boolean {
    return this.#hosts.has(hostKey(address))
  }

  // ---- what the operator and other parts ask for

  /** Dials a seed for addresses, as soon as there is a slot. */
  fetchAddresses(target: Target): void {
    this.#fetches.push(target)
  }

  /** Dials a target once, as soon as the rate of dials allows it; the entry has the number that is returned. */
  dialOnce(target: Target, kind: ConnectionKind): number {
    const id = ++this.#lastId
    this.#once.push({ target, kind, id })
    return id
  }

  /** Withdraws what `dialOnce` asked for, if it was not dialled yet. */
  withdraw(id: number): void {
    const at = this.#once.findIndex((asked) => asked.id === id)
    if (at >= 0) this.#once.splice(at, 1)
  }

  /** To be called when addresses came into the book. */
  bookChanged(): void {
    this.#emptyWait = shortestEmptyWait
    this.#emptyUntil = 0
  }

  setActive(isActive: boolean, now: number): void {
    if (isActive === this.isActive) return
    this.isActive = isActive
    if (isActive) this.added.restart(now)
    else this.#fetches.length = 0
  }

  // ---- slots

  #reserve(kind: ConnectionKind, target: Target, now: number, added: Added | undefined, onceId?: number): Entry {
    const id = onceId ?? ++this.#lastId
    const isOnce = onceId !== undefined
    const address = addressOf(target)
    const entry: Entry = {
      id,
      kind,
      target,
      address,
      group: undefined,
      added,
      isOnce,
      since: now,
      readyAt: undefined,
      isEnding: false
    }
    this.entries.set(id, entry)
    if (!isOnce) this.#counts.set(kind, this.count(kind) + 1)
    if (address !== undefined) this.#hold(entry, address)
    return entry
  }

  #hold(entry: Entry, address: Address): void {
    entry.address = address
    if (kinds[entry.kind].holdsGroup && hasGroup(address)) entry.group = this.#options.groupOf(address)
    const host = hostKey(address)
    this.#hosts.set(host, (this.#hosts.get(host) ?? 0) + 1)
  }

  /** Takes a slot for a connection that came in. */
  accept(address: Address, now: number): Entry {
    return this.#reserve("inbound", address, now, undefined)
  }

  /** The address that a name turned out to be. False if another connection goes to that address: this one is not needed. */
  resolved(id: number, address: Address): boolean {
    const entry = this.entries.get(id)
    if (entry === undefined || entry.address !== undefined) return true
    const key = addressKey(address)
    for (const other of this.entries.values()) {
      if (other.kind !== "inbound" && other.address !== undefined && addressKey(other.address) === key) return false
    }
    this.#hold(entry, address)
    return true
  }

  /** Whether another connection was made to the address, or to the name, that an entry is to dial. */
  isDuplicate(id: number): boolean {
    const entry = this.entries.get(id)
    if (entry === undefined) return false
    if (entry.address !== undefined && this.#hosts.get(hostKey(entry.address)) === 1) return false
    const key = targetKey(entry.target)
    for (const other of this.entries.values()) {
      if (other === entry || other.kind === "inbound" || other.isEnding) continue
      if (targetKey(other.target) === key) return true
      if (other.address !== undefined && addressKey(other.address) === key) return true
    }
    return false
  }

  /** The handshake was completed. */
  ready(id: number, services: bigint, now: number): void {
    const entry = this.entries.get(id)
    if (entry === undefined) return
    entry.readyAt = now
    this.#localFailures = []
    if (this.isOffline) {
      this.isOffline = false
      this.#options.emit({ _tag: "Online" })
    }
    const { book } = this.#options
    if (book === undefined || entry.kind === "inbound" || entry.kind === "private-broadcast") return
    if (entry.address === undefined) return
    book.attempt(entry.address, false, now)
    book.setServices(entry.address, services)
    book.good(entry.address, now)
  }

  /** The attempt or the peer has ended: its slot is free. */
  ended(id: number, end: End, now: number): void {
    const entry = this.entries.get(id)
    if (entry === undefined) return
    this.entries.delete(id)
    if (!entry.isOnce) this.#counts.set(entry.kind, this.count(entry.kind) - 1)
    const { added, address, kind, readyAt } = entry
    if (address !== undefined) {
      const host = hostKey(address)
      const left = this.#hosts.get(host)! - 1
      if (left === 0) this.#hosts.delete(host)
      else this.#hosts.set(host, left)
    }
    if (end.unreachable !== undefined) {
      this.added.markUnreachable(entry.target, end.unreachable)
      if (added !== undefined)
        this.#options.emit({ _tag: "AddedUnreachable", target: entry.target, why: end.unreachable })
    }
    if (added !== undefined) {
      if (end.isInterrupted) this.added.withdrawn(added, now)
      else this.added.ended(added, now, readyAt === undefined ? undefined : now - readyAt, end.retry)
    }
    if (kind === "inbound" || kind === "private-broadcast" || end.isInterrupted) return
    const { book } = this.#options
    if (readyAt !== undefined) {
      // A block-relay peer and a feeler leave no trace in the times of the book, which others can ask for.
      if (kind === "outbound-full-relay" || kind === "manual" || kind === "addr-fetch") {
        if (address !== undefined) book?.connected(address, now)
      }
      return
    }
    if (end.isUndialled !== true) {
      if (end.isLocal) this.#failedLocally(now)
      else this.#localFailures = []
    }
    if (address !== undefined && added === undefined) {
      book?.attempt(address, !end.isLocal && !this.isOffline && this.#seemsOnline(), now)
    }
  }

  /** With peers in several groups, a failure is that of the address, and not of this machine's network. */
  #seemsOnline(): boolean {
    const { blockRelay, fullRelay } = this.#options.limits
    const needed = Math.min(fullRelay + blockRelay - 1, 2)
    const groups = new Set<string>()
    for (const { address, group, id, kind, readyAt } of this.entries.values()) {
      if (readyAt === undefined || kind === "inbound" || address === undefined) continue
      groups.add(group ?? `${id}`)
      if (groups.size >= needed) return true
    }
    return groups.size >= needed
  }

  #failedLocally(now: number): void {
    this.#localFailures.push(now)
    if (this.#localFailures.length > offlineDials) this.#localFailures.shift()
    if (this.isOffline || this.#localFailures.length < offlineDials || now - this.#localFailures[0]! > offlineWindow)
      return
    this.isOffline = true
    this.#options.emit({ _tag: "Offline" })
  }

  // ---- what to dial next

  next(now: number): Action {
    if (!this.isActive) return { _tag: "Wait", until: never }
    const earliest = Math.max(this.#rate.allowedAt(now), this.isOffline ? this.#probeAt : now)
    if (earliest > now) return { _tag: "Wait", until: earliest }
    const chosen = this.#choose(now)
    if (chosen === undefined) return { _tag: "Wait", until: this.#nextTimer(now) }
    this.#rate.take(now)
    if (this.isOffline) this.#probeAt = now + offlineProbe
    return chosen
  }

  #nextTimer(now: number): number {
    const { limits } = this.#options
    const isShort =
      this.#options.book !== undefined &&
      (this.count("outbound-full-relay") < this.#wantedFullRelay || this.count("block-relay-only") < limits.blockRelay)
    const timers = [
      this.count("manual") < limits.manual ? this.added.nextAt : never,
      isShort && this.#emptyUntil > now ? this.#emptyUntil : never,
      // What waits for the end of a dial is asked for again when it has ended.
      isShort || this.#pending(true) > 0 ? never : this.#feelerAt,
      isShort || !this.#hasRoom || !this.#looksForNetworks ? never : this.#networkPeerAt,
      isShort || !this.#hasRoom || !this.#looksForBlockRelay ? never : this.#extraBlockRelayAt
    ]
    return Math.min(...timers)
  }

  get #wantedFullRelay(): number {
    return this.#options.limits.fullRelay + (this.wantsExtraFullRelay && this.#options.limits.fullRelay > 0 ? 1 : 0)
  }

  /** One full-relay peer more than usual is enough: only a server with a chain ends the worst of them. */
  get #looksForNetworks(): boolean {
    return this.count("outbound-full-relay") === this.#options.limits.fullRelay
  }

  /** Whether another automatic dial may begin beside those that run. */
  get #hasRoom(): boolean {
    const { pendingDials } = this.#options.limits
    const isStarting = this.connectedFullRelay < 2
    return this.#pending(false) < (this.isOffline ? 1 : isStarting ? pendingDials : Math.ceil(pendingDials / 2))
  }

  /** A server without block-relay peers, or with nodes of the operator's choice only, wants no extra ones. */
  get #looksForBlockRelay(): boolean {
    return this.wantsExtraBlockRelay && this.#options.limits.blockRelay > 0
  }

  /** Automatic dials whose handshake is not completed. */
  #pending(isFeeler: boolean): number {
    let pending = 0
    for (const { isOnce, kind, readyAt } of this.entries.values()) {
      if (!isOnce && readyAt === undefined && kinds[kind].isAutomatic && (kind === "feeler") === isFeeler) pending++
    }
    return pending
  }

  #choose(now: number): Action | undefined {
    const { book, limits, random } = this.#options
    const once = this.#once.shift()
    if (once !== undefined) {
      const { id, kind, target } = once
      return { _tag: "Dial", entry: this.#reserve(kind, target, now, undefined, id), services: undefined }
    }
    if (this.count("manual") < limits.manual) {
      const node = this.added.due(now)
      if (node !== undefined) {
        this.added.started(node, now)
        return { _tag: "Dial", entry: this.#reserve("manual", node.target, now, node), services: undefined }
      }
    }
    if (!this.#hasTimers) this.#startTimers(now)
    const fullRelay = this.count("outbound-full-relay")
    const blockRelay = this.count("block-relay-only")
    const room = this.#hasRoom
    const automatic = fullRelay + blockRelay + this.count("feeler") + this.count("addr-fetch")
    if (room && this.#fetches.length > 0 && automatic <= limits.fullRelay + limits.blockRelay) {
      return {
        _tag: "Dial",
        entry: this.#reserve("addr-fetch", this.#fetches.shift()!, now, undefined),
        services: undefined
      }
    }
    if (book === undefined) return undefined
    if (room && blockRelay < limits.blockRelay) {
      const anchor = this.#takeAnchor(now)
      if (anchor !== undefined) return this.#dial("block-relay-only", anchor, now)
    }
    const isShort = fullRelay < this.#wantedFullRelay || blockRelay < limits.blockRelay
    if (isShort) {
      if (!room || this.#emptyUntil > now) return undefined
      return this.#draw(fullRelay < this.#wantedFullRelay ? "outbound-full-relay" : "block-relay-only", now)
    }
    if (this.#looksForBlockRelay && now >= this.#extraBlockRelayAt && room) {
      this.#extraBlockRelayAt = now + exponential(random, extraBlockRelayMean)
      return this.#draw("block-relay-only", now)
    }
    if (now >= this.#feelerAt && this.#pending(true) === 0) {
      this.#feelerAt = now + exponential(random, feelerMean) + random.next() * feelerNoise
      return this.#draw("feeler", now)
    }
    if (now >= this.#networkPeerAt && room && this.#looksForNetworks) {
      this.#networkPeerAt = now + exponential(random, networkPeerMean)
      const network = this.#missingNetwork()
      if (network !== undefined) return this.#draw("outbound-full-relay", now, new Set([network]))
    }
    return undefined
  }

  #startTimers(now: number): void {
    const { limits, random } = this.#options
    this.#hasTimers = true
    this.#feelerAt = limits.feelers ? now + exponential(random, feelerMean) : never
    this.#extraBlockRelayAt = now + exponential(random, extraBlockRelayMean)
    // Only with the usual number of full-relay peers: a smaller one was chosen to save traffic.
    this.#networkPeerAt = limits.fullRelay === usualFullRelay ? now + exponential(random, networkPeerMean) : never
  }

  /** A reachable network with an address in the book to which no full-relay or manual peer is connected. */
  #missingNetwork(): NetworkName | undefined {
    const { book, random, reachable } = this.#options
    const present = new Set<NetworkName>()
    for (const { address, kind } of this.entries.values()) {
      if (address !== undefined && (kind === "outbound-full-relay" || kind === "manual"))
        present.add(networkNameOf(address))
    }
    const missing = [...reachable].filter((network) => !present.has(network) && book!.hasNetwork(network))
    return missing[random.below(missing.length)]
  }

  #takeAnchor(now: number): Pick | undefined {
    while (this.anchors.length > 0) {
      const anchor = this.anchors.shift()!
      if (this.#isDiallable(anchor, now) && this.#offers(anchor.services) && !this.#holdsGroup(anchor.address))
        return anchor
    }
    return undefined
  }

  #holdsGroup(address: Address): boolean {
    if (!hasGroup(address)) return false
    const group = this.#options.groupOf(address)
    for (const entry of this.entries.values()) if (entry.group === group) return true
    return false
  }

  #offers(services: bigint): boolean {
    return this.#options.requiredServices.every((mask) => (services & mask) !== 0n)
  }

  #isDiallable({ address }: Pick, now: number): boolean {
    const { isAllowed, reachable } = this.#options
    return (
      Addresses.isValid(address) &&
      reachable.has(networkNameOf(address)) &&
      !this.isConnectedTo(address) &&
      isAllowed(address, now) &&
      !this.added.has(address)
    )
  }

  #dial(kind: ConnectionKind, { address, services }: Pick, now: number): Action {
    this.#emptyWait = shortestEmptyWait
    return { _tag: "Dial", entry: this.#reserve(kind, address, now, undefined), services }
  }

  /** Draws addresses from the book until one fits. */
  #draw(
    kind: ConnectionKind,
    now: number,
    networks: ReadonlySet<NetworkName> = this.#options.reachable
  ): Action | undefined {
    const book = this.#options.book!
    const isFeeler = kind === "feeler"
    book.resolveCollisions(now)
    for (let picks = 0; picks < mostPicks; picks++) {
      const collision = isFeeler && picks === 0 ? book.collision() : undefined
      const pick =
        collision !== undefined && !this.isConnectedTo(collision.address)
          ? collision
          : book.select(now, { newOnly: isFeeler, networks })
      if (pick === undefined) break
      if (this.#fits(pick, kind, picks, now)) return this.#dial(kind, pick, now)
    }
    this.#emptyUntil = now + this.#emptyWait
    this.#emptyWait = Math.min(longestEmptyWait, this.#emptyWait * 2)
    return undefined
  }

  #fits(pick: Pick, kind: ConnectionKind, picks: number, now: number): boolean {
    const { address, lastTry, services } = pick
    if (!this.#isDiallable(pick, now)) return false
    if (kinds[kind].holdsGroup && this.#holdsGroup(address)) return false
    if (now - lastTry < recently && picks < picksWithoutRecent) return false
    // A book of a few dead addresses would otherwise be dialled in a circle, as fast as the rate allows.
    if (lastTry > 0 && now - lastTry < justNow) return false
    if (kinds[kind].needsServices ? !this.#offers(services) : (services & (fullNode | networkLimited)) === 0n)
      return false
    return picks >= picksWithoutBadPorts || !hasGroup(address) || !this.#options.isBadPort(address.port)
  }
}

/** Services that Core requires of a full node once the chain is in sync: NETWORK or NETWORK_LIMITED, and WITNESS. */
export const desirable: ReadonlyArray<bigint> = [fullNode | networkLimited, witness]
