/**
 * The schedule of the sources of first addresses, as in Bitcoin Core: seed nodes, then DNS seeds, then fixed seeds. Each source learns that
 * we start, and could fill our address book, so it is asked only if the sources before it gave too little.
 */
import type { NetworkName } from "./networkNames.ts"
import { type Random, shuffle } from "./random.ts"

/** Milliseconds between two seed nodes. */
const seedNodeInterval = 10_000
/** How long seed nodes are given before DNS is asked. */
const seedNodeTime = 30_000
const seedNodeCheck = 500
/** How many DNS seeds are asked at once while the book has addresses. */
const batchSize = 3
/** The wait before each batch, and between two looks at the peers in a longer wait. */
const fewWait = 11_000
const manyWait = 300_000
/** From this number of addresses on, a book gets the longer wait. */
const manyAddresses = 1_000
const fixedSeedsTime = 60_000
/** While the network is switched off. */
const inactiveCheck = 1_000
/** Full-relay peers with which we are in the network. */
const enoughPeers = 2

export interface Settings {
  /** Names or addresses of nodes to ask for addresses. */
  readonly seedNodes: ReadonlyArray<string>
  /** The names of DNS seeds; empty if DNS is switched off, or neither IPv4 nor IPv6 is reached. */
  readonly dnsSeeds: ReadonlyArray<string>
  /** Whether all DNS seeds are asked in any case (forcednsseed of Core). */
  readonly forcesDns: boolean
  /** Whether a proxy looks up names, so that we must not: the seeds are then dialled by name, and asked for addresses. */
  readonly resolvesByProxy: boolean
  /** Whether fixed seeds may be used. */
  readonly usesFixedSeeds: boolean
}

/** The knowledge of the server at a moment. */
export interface Facts {
  /** Addresses in the book. */
  readonly bookSize: number
  /** Full-relay peers that are connected. */
  readonly fullRelay: number
  readonly isNetworkActive: boolean
  readonly hasAddedNodes: boolean
  /** The networks that we reach and of which the book has no address. */
  readonly emptyNetworks: ReadonlyArray<NetworkName>
}

export type Action =
  /** Connect, ask for addresses, and disconnect with the answer. */
  | { readonly _tag: "AddrFetch"; readonly target: string }
  /** Look these seeds up. One without an answer is then dialled by its name, as with `AddrFetch`. */
  | { readonly _tag: "AskDns"; readonly seeds: ReadonlyArray<string> }
  /** Add the fixed seeds of these networks to the book. */
  | { readonly _tag: "AddFixedSeeds"; readonly networks: ReadonlyArray<NetworkName> }

export interface Step {
  readonly actions: ReadonlyArray<Action>
  /** When to call again at the latest; Infinity once everything has been asked. */
  readonly until: number
}

/** The state of DNS, with the event that it waits for. */
type Dns =
  /** For the seed nodes, until this time. */
  | { readonly _tag: "SeedNodes"; readonly until: number }
  /** To ask this many seeds as soon as the network is active. */
  | { readonly _tag: "Ask"; readonly count: number }
  /** To ask the next batch at `until`, with a look at the peers at `lookAt`. */
  | { readonly _tag: "Pause"; readonly until: number; readonly lookAt: number }
  | { readonly _tag: "Done" }

/** The sources that are left. Call `step` at the start, at the time that it says, and at any other time. */
export class Seeding {
  readonly #settings: Settings
  readonly #startedAt: number
  readonly #seedNodes: Array<string>
  readonly #dnsSeeds: Array<string>
  #lastSeedNodeAt: number
  #isFirst = true
  #dns: Dns
  /** How long each pause of DNS is; decided once, when the first batch is due. */
  #pause = fewWait
  #fixedSeedsLeft: boolean

  constructor(settings: Settings, now: number, random: Random) {
    this.#settings = settings
    this.#startedAt = now
    this.#lastSeedNodeAt = now
    this.#seedNodes = shuffle(random, [...settings.seedNodes])
    this.#dnsSeeds = shuffle(random, [...settings.dnsSeeds])
    this.#dns = { _tag: "SeedNodes", until: settings.seedNodes.length > 0 ? now + seedNodeTime : now }
    this.#fixedSeedsLeft = settings.usesFixedSeeds
  }

  step(now: number, facts: Facts): Step {
    const actions: Array<Action> = []
    const times = [
      this.#stepSeedNodes(now, facts, actions),
      this.#stepDns(now, facts, actions),
      this.#stepFixedSeeds(now, facts, actions)
    ]
    return { actions, until: Math.min(...times) }
  }

  #stepSeedNodes(now: number, { bookSize, fullRelay, isNetworkActive }: Facts, actions: Array<Action>): number {
    if (this.#seedNodes.length === 0) return Infinity
    if (!isNetworkActive) return now + inactiveCheck
    const isDue = now >= this.#lastSeedNodeAt + seedNodeInterval && fullRelay < enoughPeers
    if (isDue || (this.#isFirst && bookSize === 0)) {
      actions.push({ _tag: "AddrFetch", target: this.#seedNodes.pop()! })
      this.#lastSeedNodeAt = now
    }
    this.#isFirst = false
    if (this.#seedNodes.length === 0) return Infinity
    const next = this.#lastSeedNodeAt + seedNodeInterval
    return next > now ? next : now + seedNodeInterval
  }

  /** Moves DNS on as far as it goes now, and returns when to look again. */
  #stepDns(now: number, facts: Facts, actions: Array<Action>): number {
    while (true) {
      const dns = this.#dns
      if (this.#dnsSeeds.length === 0 || dns._tag === "Done") {
        this.#dns = { _tag: "Done" }
        return Infinity
      }
      if (dns._tag === "SeedNodes") {
        const isHelped = this.#settings.seedNodes.length > 0 && facts.fullRelay >= enoughPeers
        if (now < dns.until && !isHelped) return Math.min(dns.until, now + seedNodeCheck)
        this.#begin(now, facts, isHelped)
      } else if (dns._tag === "Pause") {
        if (now < dns.lookAt) return dns.lookAt
        if (facts.fullRelay >= enoughPeers) this.#dns = { _tag: "Done" }
        else if (now < dns.until) this.#dns = { ...dns, lookAt: Math.min(dns.until, now + fewWait) }
        else this.#dns = { _tag: "Ask", count: batchSize }
      } else {
        if (!facts.isNetworkActive) return now + inactiveCheck
        this.#ask(this.#dnsSeeds.splice(0, dns.count), actions)
        this.#nextBatch(now, facts)
      }
    }
  }

  /** The seed nodes have had their time, or there are no seed nodes. */
  #begin(now: number, facts: Facts, isHelped: boolean): void {
    const { forcesDns } = this.#settings
    this.#pause = facts.bookSize >= manyAddresses ? manyWait : fewWait
    if (forcesDns || facts.bookSize === 0) this.#dns = { _tag: "Ask", count: this.#dnsSeeds.length }
    else if (isHelped) this.#dns = { _tag: "Done" }
    else this.#nextBatch(now, facts)
  }

  #nextBatch(now: number, { bookSize }: Facts): void {
    this.#dns =
      bookSize === 0
        ? { _tag: "Ask", count: batchSize }
        : { _tag: "Pause", until: now + this.#pause, lookAt: now + fewWait }
  }

  #ask(seeds: ReadonlyArray<string>, actions: Array<Action>): void {
    if (this.#settings.resolvesByProxy) {
      for (const target of seeds) actions.push({ _tag: "AddrFetch", target })
    } else actions.push({ _tag: "AskDns", seeds })
  }

  #stepFixedSeeds(now: number, { emptyNetworks, hasAddedNodes }: Facts, actions: Array<Action>): number {
    if (!this.#fixedSeedsLeft) return Infinity
    const { dnsSeeds, seedNodes } = this.#settings
    const isAlone = dnsSeeds.length === 0 && seedNodes.length === 0 && !hasAddedNodes
    const due = this.#startedAt + fixedSeedsTime
    if (now < due && !isAlone) return due
    if (emptyNetworks.length === 0) return now + fixedSeedsTime
    this.#fixedSeedsLeft = false
    actions.push({ _tag: "AddFixedSeeds", networks: emptyNetworks })
    return Infinity
  }
}
