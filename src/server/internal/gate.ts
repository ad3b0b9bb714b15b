/**
 * Accepts or refuses inbound connections, before a byte is read and before memory is used for them. The cheapest check is first. Times are
 * milliseconds.
 *
 * Its memory is bounded: by `maxPending` handshakes, and by the last evictions. A refused connection leaves no trace.
 */
import { canonical, type Host, isLocal } from "../../Address.ts"
import { subnetKey } from "./keys.ts"
import type { NetworkName } from "./networkNames.ts"

/**
 * Why a connection was refused, by the name that the metric `inbound_refused_total` has for it.
 *
 * @category models
 * @since 0.1.0
 */
export type GateStep =
  /** The network is switched off. */
  | "network-off"
  | "banned"
  /** All slots but one are taken, and its host was discouraged. */
  | "discouraged"
  /** Its network, a /24 of IPv4 or a /64 of IPv6, has too many handshakes under way. */
  | "source-pending"
  /** Too many handshakes are under way in all. */
  | "pending"
  /** The slots are full, and a peer of its network was evicted a moment ago. */
  | "recently-evicted"
  /** The slots are full, and every peer is protected. */
  | "full"

/** A connection that arrives. */
export interface Arrival<Id> {
  readonly host: Host
  /** The network of the bind: peers of an onion or I2P bind come from this machine, so their hosts say nothing. */
  readonly bind: NetworkName
  /** Whether it has the permission `noban`. */
  readonly noban: boolean
  readonly networkActive: boolean
  /** Inbound peers in the pool of the bind, handshakes under way included. */
  readonly inbound: number
  /** The slots of that pool. */
  readonly slots: number
  /** The peer of that pool that has to go, and its host. It is asked only when all slots are taken. */
  readonly evict: () => { readonly id: Id; readonly host: Host } | undefined
  readonly now: number
}

/** A handshake under way. Call `settled` with it when it is over, in the finalizer of the connection. */
export interface Ticket {
  /** Its network; `undefined` if it is not counted by source. */
  readonly source: string | undefined
  isOpen: boolean
}

export type Admission<Id> =
  | {
      readonly _tag: "Admit"
      readonly ticket: Ticket
      /** Whether it is evicted before others (`preferEvict`), because it was discouraged. */
      readonly isDiscouraged: boolean
    }
  /** As `Admit`, in the slot of a peer that has to be ended. */
  | {
      readonly _tag: "AdmitByEvicting"
      readonly evict: Id
      readonly ticket: Ticket
      readonly isDiscouraged: boolean
    }
  | {
      readonly _tag: "Refuse"
      readonly step: GateStep
      /** Whether to log it: the first 3 of a step, then one each 30 seconds. */
      readonly log: boolean
      /** How many were not logged before this one. 0 if this one is not logged. */
      readonly unlogged: number
    }

export interface GateOptions {
  /** Handshakes under way in all. */
  readonly maxPending: number
  /** Handshakes under way of one /24 of IPv4 or one /64 of IPv6. */
  readonly maxPendingPerSource: number
  /** How long the network of an evicted peer causes no other eviction. */
  readonly evictionPause: number
  /** Networks of evicted peers that are remembered. One more forgets the oldest. */
  readonly maxEvicted: number
  readonly isBanned: (host: Host, now: number) => boolean
  readonly isDiscouraged: (host: Host) => boolean
}

export const gateDefaults = {
  maxPending: 128,
  maxPendingPerSource: 8,
  evictionPause: 60_000,
  maxEvicted: 4_096
} as const

const loggedAtFirst = 3
const logInterval = 30_000

const sourceOf = (host: Host): string => subnetKey(canonical(host))

/** Which refusals of one step are logged. */
class RefusalLog {
  #logged = 0
  #lastAt = 0
  #unlogged = 0

  next(now: number): { readonly log: boolean; readonly unlogged: number } {
    if (this.#logged >= loggedAtFirst && now - this.#lastAt < logInterval) {
      this.#unlogged++
      return { log: false, unlogged: 0 }
    }
    const unlogged = this.#unlogged
    this.#unlogged = 0
    this.#logged++
    this.#lastAt = now
    return { log: true, unlogged }
  }
}

export class Gate {
  readonly #options: GateOptions
  /** Handshakes under way by source: at most `maxPending` entries. */
  readonly #pendingBySource = new Map<string, number>()
  #pending = 0
  /** Until when a source causes no eviction, the oldest first. */
  readonly #evicted = new Map<string, number>()
  readonly #refusals = new Map<GateStep, RefusalLog>()

  constructor(options: GateOptions) {
    this.#options = options
  }

  /** Handshakes under way. */
  get pending(): number {
    return this.#pending
  }

  /** What is remembered of sources, for tests of the bounds: handshakes under way by source, and evictions. */
  get remembered(): { readonly sources: number; readonly evicted: number } {
    return { sources: this.#pendingBySource.size, evicted: this.#evicted.size }
  }

  arrived<Id>(arrival: Arrival<Id>): Admission<Id> {
    const { bind, host, inbound, noban, now, slots } = arrival
    const { isBanned, isDiscouraged, maxPending, maxPendingPerSource } = this.#options
    if (!arrival.networkActive) return this.#refuse("network-off", now)

    // All peers of an onion service have the address of this machine: a ban of it does not mean them.
    const isAnonymous = bind === "onion" || bind === "i2p"
    if (!noban && !isAnonymous && isBanned(host, now)) return this.#refuse("banned", now)
    const countsByHost = !isAnonymous && !isLocal(host)
    const discouraged = countsByHost && isDiscouraged(host)
    if (!noban && discouraged && inbound + 1 >= slots) return this.#refuse("discouraged", now)

    const source = countsByHost ? sourceOf(host) : undefined
    if (source !== undefined && (this.#pendingBySource.get(source) ?? 0) >= maxPendingPerSource) {
      return this.#refuse("source-pending", now)
    }
    if (this.#pending >= maxPending) return this.#refuse("pending", now)

    if (inbound < slots) return { _tag: "Admit", ticket: this.#open(source), isDiscouraged: discouraged }
    if (source !== undefined && now < (this.#evicted.get(source) ?? 0)) return this.#refuse("recently-evicted", now)
    const victim = arrival.evict()
    if (victim === undefined) return this.#refuse("full", now)
    if (!isLocal(victim.host)) this.#evict(sourceOf(victim.host), now)
    return { _tag: "AdmitByEvicting", evict: victim.id, ticket: this.#open(source), isDiscouraged: discouraged }
  }

  /** The handshake is over, however it ended. Again with the same ticket it does nothing. */
  settled(ticket: Ticket): void {
    if (!ticket.isOpen) return
    ticket.isOpen = false
    this.#pending--
    if (ticket.source === undefined) return
    const left = this.#pendingBySource.get(ticket.source)! - 1
    if (left > 0) this.#pendingBySource.set(ticket.source, left)
    else this.#pendingBySource.delete(ticket.source)
  }

  #open(source: string | undefined): Ticket {
    this.#pending++
    if (source !== undefined) this.#pendingBySource.set(source, (this.#pendingBySource.get(source) ?? 0) + 1)
    return { source, isOpen: true }
  }

  #evict(source: string, now: number): void {
    // The newest entry is the last one, so that those that are over are at the front.
    this.#evicted.delete(source)
    this.#evicted.set(source, now + this.#options.evictionPause)
    for (const [oldest, until] of this.#evicted) {
      if (until > now && this.#evicted.size <= this.#options.maxEvicted) break
      this.#evicted.delete(oldest)
    }
  }

  #refuse(step: GateStep, now: number): Admission<never> {
    let log = this.#refusals.get(step)
    if (log === undefined) {
      log = new RefusalLog()
      this.#refusals.set(step, log)
    }
    return { _tag: "Refuse", step, ...log.next(now) }
  }
}
