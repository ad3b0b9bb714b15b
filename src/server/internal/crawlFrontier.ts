/**
 * The frontier of a crawl: all known addresses, and the choice of those to visit next. A machine without clock and I/O.
 *
 *     add ──▶ new ──claim──▶ visiting ──record──▶ reached ─┐
 *                 ▲                        └─────▶ failed ──┤ due again at `dueAt`, unless each address is visited once
 *                 └─────────────── claim ◀─────────────────┘
 *
 * A claim fixes the time of the next visit, before anything is dialled. So a crawl that is killed and restored from its saved entries
 * does not visit an address again before that time.
 */
import { type Address, type Host, isRoutable, isValid, NetworkId } from "../../Address.ts"
import { DueQueue } from "./crawlQueue.ts"
import { addressKey, hostKey, subnetKey } from "./keys.ts"
import { type NetworkName, publicNetworks, wayOf } from "./networkNames.ts"

/**
 * A node as its version message of the last handshake describes it.
 *
 * @category models
 * @since 0.1.0
 */
export interface CrawledNode {
  /** The node's own protocol version. */
  readonly protocolVersion: number
  /** One character for each byte that the node sent: sanitise it before you print it. */
  readonly userAgent: string
  /** The height of its best block, by its own account. */
  readonly startHeight: number
  readonly transport: "v1" | "v2"
}

/**
 * The state of an address in a crawl: `new` (not visited yet), `visiting`, `reached` (a handshake was done in its last visit) or `failed`.
 *
 * @category models
 * @since 0.1.0
 */
export type EntryState = "new" | "visiting" | "reached" | "failed"

/**
 * An address of a crawl with the results of its visits. Times are milliseconds since 1970; 0 stands for never.
 *
 * @category models
 * @since 0.1.0
 */
export interface Entry {
  readonly address: Address
  readonly state: EntryState
  /** The services that the node offered in its last handshake; before the first one, as other nodes sent them. */
  readonly services: bigint
  /** When the node was last seen, as other nodes sent it, in Unix seconds. Never in the future. */
  readonly seenAt: number
  /** When the crawl learnt the address. */
  readonly addedAt: number
  /** The earliest time of the next visit. */
  readonly dueAt: number
  /** The start of the last visit. */
  readonly visitedAt: number
  /** The start of the last visit with a handshake. */
  readonly reachedAt: number
  /** Since when the node is reachable: the start of the first visit after its last failed one. */
  readonly reachedSince: number
  /** The numbers of finished visits, and of visits with a handshake. */
  readonly visits: number
  readonly successes: number
  /** Failed visits since the last handshake. */
  readonly failures: number
  /** Why the last visit failed: a `DialProblem`, or the tag of a handshake's reason. */
  readonly problem: string | undefined
  readonly node: CrawledNode | undefined
  /**
   * How reliable the node is, weighted by age over 2 hours, 8 hours, a day, a week and a month, as in sipa's seeder: for each of them
   * the share of successes, then the number of visits.
   */
  readonly uptime: ReadonlyArray<number>
}

/** The result of a visit. */
export type Outcome =
  | { readonly _tag: "Reached"; readonly node: CrawledNode; readonly services: bigint }
  | { readonly _tag: "Failed"; readonly problem: string }

/** The settings of the machine: options with their defaults, in milliseconds. */
export interface Settings {
  /** How many addresses are kept. */
  readonly maximumAddresses: number
  /** How many visits there are at once, by network. An address of a network with 0 is kept, and not visited. */
  readonly concurrency: { readonly [Network in NetworkName]: number }
  /** How many visits there are at once in a /24 of IPv4, or in a /64 of IPv6. */
  readonly perSubnet: number
  /** Dials each second. */
  readonly rate: number
  /** From the start of a visit to the start of the next one. */
  readonly revisit: number
  /** Visit each address once: those that are due at the start, and those that are learnt. */
  readonly once: boolean
  /** Whether addresses such as 127.0.0.1 and 10.0.0.1 are kept. */
  readonly allowUnroutable: boolean
  readonly isBanned: (host: Host) => boolean
}

/** An address as other nodes sent it. */
export interface Told extends Address {
  readonly services: bigint
  /** Unix seconds. */
  readonly timestamp: number
}

/**
 * The numbers of addresses by state. `waiting` counts the addresses that this crawl will visit: new ones, and those due again.
 *
 * @category models
 * @since 0.1.0
 */
export interface Counts {
  readonly known: number
  readonly waiting: number
  readonly visiting: number
  readonly reached: number
  readonly failed: number
  /** Addresses that were not added, because the frontier was full. */
  readonly refused: number
}

/** An entry as the machine changes it. */
export type Tracked = { -readonly [Field in keyof Entry]: Entry[Field] }

/** The addresses of one network that wait for a visit. */
interface Lane {
  readonly limit: number
  readonly queue: DueQueue<Tracked>
  visiting: number
  /** How many are in the queue, or parked. */
  waiting: number
}

/** Addresses of one host of IPv4, or one /64 of IPv6, that are kept: a host cannot fill the frontier with its ports. */
const maximumPerHost = 8
/** A failed address is visited after 1, 2, 4 … times `revisit`, up to this. */
const maximumBackoff = 86_400_000
/** A late timer catches up with this much of the rate. */
const maximumLag = 100
/** A time further in the future than this is replaced by five days ago (Core). In seconds. */
const maximumAhead = 600
const wrongTimeAge = 5 * 86_400
/** Seconds after which a visit weighs 1/e of a new one, for each number of `uptime` (sipa's seeder). */
const windows = [2 * 3_600, 8 * 3_600, 86_400, 7 * 86_400, 30 * 86_400]
/** The age of the first visit, in seconds. */
const firstAge = 1_000

/** The /64 of IPv6, the smallest block that one customer gets; the host of other networks. */
const customerKey = (host: Host): string => (host.networkId === NetworkId.ipv6 ? subnetKey(host) : hostKey(host))

const plus = (counts: Map<string, number>, key: string, by: 1 | -1): void => {
  const count = (counts.get(key) ?? 0) + by
  if (count === 0) counts.delete(key)
  else counts.set(key, count)
}

const updated = (uptime: ReadonlyArray<number>, isGood: boolean, age: number): ReadonlyArray<number> =>
  windows.flatMap((window, index) => {
    const kept = Math.exp(-age / window)
    const reliability = (uptime[2 * index] ?? 0) * kept + (isGood ? 1 - kept : 0)
    return [reliability, (uptime[2 * index + 1] ?? 0) * kept + 1]
  })

export class CrawlFrontier {
  private readonly settings: Settings
  private readonly entries = new Map<string, Tracked>()
  private readonly lanes = new Map<NetworkName, Lane>()
  /** How many addresses of a host are kept. */
  private readonly ofCustomer = new Map<string, number>()
  /** Visits that run, with the start of the visit before. */
  private readonly running = new Map<Tracked, number>()
  private readonly runningHosts = new Set<string>()
  private readonly runningSubnets = new Map<string, number>()
  /** Addresses that are due, by the subnet that has to end a visit first. */
  private readonly parked = new Map<string, Array<Tracked>>()
  /** Addresses that failed and were never reached, in the order of their visits: the first ones make room for new addresses. */
  private readonly failing = new Set<Tracked>()
  /** Addresses that made room for others, and are in a queue or parked still. */
  private readonly dropped = new Set<Tracked>()
  private nextDialAt = 0
  private firstLane = 0
  private refused = 0
  private reached = 0
  private failed = 0

  constructor(settings: Settings) {
    this.settings = settings
    for (const name of publicNetworks) {
      this.lanes.set(name, { limit: settings.concurrency[name], queue: new DueQueue(), visiting: 0, waiting: 0 })
    }
  }

  /**
   * Takes the entries of an earlier crawl. An unfinished visit is due again as if it had ended. With `once`, the crawl waits for it too,
   * because its addresses are not known yet.
   */
  restore(entries: Iterable<Entry>, now: number): void {
    for (const entry of entries) {
      if (!this.lanes.has(wayOf(entry.address)) || this.entries.has(addressKey(entry.address))) continue
      const state =
        entry.state !== "visiting"
          ? entry.state
          : entry.failures > 0
            ? "failed"
            : entry.reachedAt > 0
              ? "reached"
              : "new"
      const tracked: Tracked = { ...entry, state }
      this.keep(tracked)
      this.count(tracked, 1)
      if (state === "failed" && entry.successes === 0) this.failing.add(tracked)
      if (!this.settings.once || entry.dueAt <= now || entry.state === "visiting") this.enqueue(tracked)
    }
  }

  /** Adds addresses. Returns the new entries, and those that were dropped for them. */
  add(addresses: Iterable<Told>, now: number): { readonly added: Array<Entry>; readonly removed: Array<Entry> } {
    const added: Array<Entry> = []
    const removed: Array<Entry> = []
    for (const told of addresses) {
      const seenAt = told.timestamp > now / 1000 + maximumAhead ? Math.floor(now / 1000) - wrongTimeAge : told.timestamp
      const key = addressKey(told)
      const known = this.entries.get(key)
      if (known !== undefined) {
        if (seenAt > known.seenAt) known.seenAt = seenAt
        continue
      }
      if (!this.lanes.has(wayOf(told)) || !this.isWanted(told)) continue
      if (this.entries.size >= this.settings.maximumAddresses && !this.makeRoom(now, removed)) {
        this.refused++
        continue
      }
      const entry: Tracked = {
        address: { networkId: told.networkId, address: told.address.slice(), port: told.port },
        state: "new",
        services: told.services,
        seenAt,
        addedAt: now,
        dueAt: now,
        visitedAt: 0,
        reachedAt: 0,
        reachedSince: 0,
        visits: 0,
        successes: 0,
        failures: 0,
        problem: undefined,
        node: undefined,
        uptime: []
      }
      this.keep(entry)
      this.enqueue(entry)
      added.push(entry)
    }
    return { added, removed }
  }

  /** Takes the addresses to visit now, and counts a dial for each. */
  claim(now: number): ReadonlyArray<Tracked> {
    const claimed: Array<Tracked> = []
    let idle = 0
    while (this.nextDialAt <= now && idle < publicNetworks.length) {
      const lane = this.lanes.get(publicNetworks[this.firstLane]!)!
      // Networks take turns, so that a large one does not use up the rate.
      this.firstLane = (this.firstLane + 1) % publicNetworks.length
      const entry = lane.visiting < lane.limit ? this.takeDue(lane, now) : undefined
      if (entry === undefined) {
        idle++
        continue
      }
      idle = 0
      this.countDial(now)
      this.running.set(entry, entry.visitedAt)
      this.runningHosts.add(hostKey(entry.address))
      plus(this.runningSubnets, subnetKey(entry.address), 1)
      lane.visiting++
      this.count(entry, -1)
      this.failing.delete(entry)
      entry.state = "visiting"
      entry.visitedAt = now
      entry.dueAt = now + this.settings.revisit
      claimed.push(entry)
    }
    return claimed
  }

  /** Counts another dial: the second connection of a visit, with v1. */
  countDial(now: number): void {
    this.nextDialAt = Math.max(this.nextDialAt, now - maximumLag) + 1000 / this.settings.rate
  }

  /** Records the result of a visit. The visit counts as running until `release`. */
  record(entry: Tracked, outcome: Outcome): void {
    const before = this.running.get(entry)
    if (before === undefined) return
    const { revisit } = this.settings
    entry.uptime = updated(
      entry.uptime,
      outcome._tag === "Reached",
      before === 0 ? firstAge : (entry.visitedAt - before) / 1000
    )
    entry.visits++
    if (outcome._tag === "Reached") {
      if (entry.failures > 0 || entry.reachedSince === 0) entry.reachedSince = entry.visitedAt
      entry.state = "reached"
      entry.reachedAt = entry.visitedAt
      entry.successes++
      entry.failures = 0
      entry.problem = undefined
      entry.node = outcome.node
      entry.services = outcome.services
    } else {
      entry.state = "failed"
      entry.failures++
      entry.problem = outcome.problem
      const backoff = Math.min(revisit * 2 ** (entry.failures - 1), Math.max(revisit, maximumBackoff))
      entry.dueAt = entry.visitedAt + backoff
      if (entry.successes === 0) this.failing.add(entry)
    }
    this.count(entry, 1)
  }

  /** Ends a visit: its host and its subnet are free for the next one. */
  release(entry: Tracked): void {
    if (!this.running.delete(entry)) return
    const subnet = subnetKey(entry.address)
    this.runningHosts.delete(hostKey(entry.address))
    plus(this.runningSubnets, subnet, -1)
    this.laneOf(entry).visiting--
    this.unpark(subnet)
    if (!this.settings.once) this.enqueue(entry)
  }

  /** When the next claim can give something; infinite if only the end of a visit, or a new address, can change that. */
  wakeAt(): number {
    let at = Infinity
    for (const lane of this.lanes.values()) if (lane.visiting < lane.limit) at = Math.min(at, lane.queue.firstAt)
    return Math.max(at, this.nextDialAt)
  }

  /** Whether each address was visited once, and no visit runs. */
  get isOver(): boolean {
    return this.settings.once && this.running.size === 0 && this.waiting === 0
  }

  get counts(): Counts {
    const { entries, failed, reached, refused, running, waiting } = this
    return { known: entries.size, waiting, visiting: running.size, reached, failed, refused }
  }

  all(): IterableIterator<Entry> {
    return this.entries.values()
  }

  private get waiting(): number {
    let waiting = 0
    for (const lane of this.lanes.values()) if (lane.limit > 0) waiting += lane.waiting
    return waiting
  }

  private laneOf({ address }: Entry): Lane {
    return this.lanes.get(wayOf(address))!
  }

  private isWanted(told: Told): boolean {
    if (told.port === 0 && told.networkId !== NetworkId.i2p) return false
    if (!(this.settings.allowUnroutable ? isValid(told) : isRoutable(told))) return false
    return (this.ofCustomer.get(customerKey(told)) ?? 0) < maximumPerHost && !this.settings.isBanned(told)
  }

  private keep(entry: Tracked): void {
    this.entries.set(addressKey(entry.address), entry)
    plus(this.ofCustomer, customerKey(entry.address), 1)
  }

  private count(entry: Tracked, by: 1 | -1): void {
    if (entry.state === "reached") this.reached += by
    else if (entry.state === "failed") this.failed += by
  }

  private enqueue(entry: Tracked): void {
    const lane = this.laneOf(entry)
    lane.queue.add(entry.dueAt, entry)
    lane.waiting++
  }

  /** Drops the address that failed longest ago, but only if it could be visited again: if it is added again, it is due at once. */
  private makeRoom(now: number, removed: Array<Entry>): boolean {
    for (const entry of this.failing) {
      if (entry.visitedAt + this.settings.revisit > now) return false
      this.drop(entry)
      removed.push(entry)
      return true
    }
    return false
  }

  private drop(entry: Tracked): void {
    this.entries.delete(addressKey(entry.address))
    plus(this.ofCustomer, customerKey(entry.address), -1)
    this.count(entry, -1)
    this.failing.delete(entry)
    if (!this.settings.once) this.dropped.add(entry)
  }

  /** The next address of a network that is due and whose host and subnet are free. */
  private takeDue(lane: Lane, now: number): Tracked | undefined {
    while (true) {
      const entry = lane.queue.take(now)
      if (entry === undefined) return undefined
      const subnet = subnetKey(entry.address)
      if (this.dropped.delete(entry)) {
        lane.waiting--
        this.unpark(subnet)
      } else if (this.settings.isBanned(entry.address)) {
        lane.waiting--
        this.unpark(subnet)
        entry.dueAt = now + this.settings.revisit
        if (!this.settings.once) this.enqueue(entry)
      } else if (
        this.runningHosts.has(hostKey(entry.address)) ||
        (this.runningSubnets.get(subnet) ?? 0) >= this.settings.perSubnet
      ) {
        const others = this.parked.get(subnet)
        if (others === undefined) this.parked.set(subnet, [entry])
        else others.push(entry)
      } else {
        lane.waiting--
        return entry
      }
    }
  }

  /** Lets the next address of a subnet back into the queue, where it is due already. */
  private unpark(subnet: string): void {
    const waiting = this.parked.get(subnet)
    if (waiting === undefined) return
    const entry = waiting.shift()!
    if (waiting.length === 0) this.parked.delete(subnet)
    this.laneOf(entry).queue.add(entry.dueAt, entry)
  }
}
