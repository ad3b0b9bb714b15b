/**
 * Which inbound peer has to go when another one wants its slot: Bitcoin Core's `SelectNodeToEvict`.
 *
 * Peers are protected in turn by properties that an attacker cannot easily have: a network group under our secret key, a short ping,
 * transactions and blocks that were news, a privacy network, a long connection. Of the peers that are left, the youngest of the
 * largest group goes.
 */
import { sipHash, type SipKey } from "../../primitives/siphash.ts"
import type { ConnectionKind } from "../ConnectionKind.ts"
import type { NetworkName } from "./networkNames.ts"

/** A peer as the choice sees it. */
export interface Candidate<Id> {
  readonly id: Id
  /** Only "inbound" peers are evicted. */
  readonly kind: ConnectionKind
  /** Peers with the permission `noban` are not evicted. */
  readonly noban: boolean
  /** When it connected, in milliseconds. */
  readonly connectedAt: number
  /** The shortest round trip of a ping, in milliseconds; `Infinity` before the first pong. */
  readonly minimumPing: number
  /** When it last sent a block that was news, in milliseconds since 1970; 0 = never. It counts in whole seconds, as in Core. */
  readonly lastBlockAt: number
  /** When it last sent a transaction that was accepted, in milliseconds since 1970; 0 = never. It counts in whole seconds. */
  readonly lastTransactionAt: number
  /** Whether it offers all services that we want of a full node. */
  readonly hasRelevantServices: boolean
  /** Whether we relay transactions to it. */
  readonly relaysTransactions: boolean
  readonly hasBloomFilter: boolean
  /** Its network group, such as `Address.group` gives. */
  readonly group: string
  /** Whether it was discouraged when it connected. */
  readonly preferEvict: boolean
  /** Whether its address is this machine's: an onion service that no bind was given for, or a proxy. */
  readonly isLocal: boolean
  /** The network through which it came. It is "onion" for the bind of an onion service. */
  readonly network: NetworkName
}

/** A candidate and the keyed hash of its group. */
export interface KeyedCandidate<Id> extends Candidate<Id> {
  /** Equal for equal groups. */
  readonly keyedGroup: number
}

type Compare = <Id>(a: KeyedCandidate<Id>, b: KeyedCandidate<Id>) => number

// Each order has the candidates that are protected last. Booleans are subtracted as 0 and 1.

const byKeyedGroup: Compare = (a, b) => a.keyedGroup - b.keyedGroup

/** The comparison of two infinite pings is a number, too. */
const byPing: Compare = (a, b) => (a.minimumPing === b.minimumPing ? 0 : b.minimumPing - a.minimumPing)

const byAge: Compare = (a, b) => b.connectedAt - a.connectedAt

const seconds = (time: number): number => Math.floor(time / 1_000)

const byTransaction: Compare = (a, b) =>
  seconds(a.lastTransactionAt) - seconds(b.lastTransactionAt) ||
  Number(a.relaysTransactions) - Number(b.relaysTransactions) ||
  Number(b.hasBloomFilter) - Number(a.hasBloomFilter) ||
  byAge(a, b)

const byBlock: Compare = (a, b) =>
  seconds(a.lastBlockAt) - seconds(b.lastBlockAt) ||
  Number(a.hasRelevantServices) - Number(b.hasRelevantServices) ||
  byAge(a, b)

const byBlockOfBlockRelay: Compare = (a, b) =>
  Number(b.relaysTransactions) - Number(a.relaysTransactions) || byBlock(a, b)

/**
 * The `count` last candidates in an order, without sorting the others: one pass, since `count` is at most 8.
 */
const last = <Id>(
  candidates: ReadonlyArray<KeyedCandidate<Id>>,
  compare: Compare,
  count: number
): ReadonlyArray<KeyedCandidate<Id>> => {
  const kept: Array<KeyedCandidate<Id>> = []
  for (const candidate of candidates) {
    if (kept.length === count && compare(candidate, kept[0]!) <= 0) continue
    let at = kept.length
    while (at > 0 && compare(candidate, kept[at - 1]!) < 0) at--
    kept.splice(at, 0, candidate)
    if (kept.length > count) kept.shift()
  }
  return kept
}

const without = <Id>(
  candidates: ReadonlyArray<KeyedCandidate<Id>>,
  protectedOnes: ReadonlyArray<KeyedCandidate<Id>>
): ReadonlyArray<KeyedCandidate<Id>> => {
  const kept = new Set(protectedOnes)
  return candidates.filter((candidate) => !kept.has(candidate))
}

/** The networks whose peers have long pings. Where two have as many peers, the first of this list is served first. */
const disadvantaged: ReadonlyArray<(candidate: Candidate<unknown>) => boolean> = [
  ({ network }) => network === "cjdns",
  ({ network }) => network === "i2p",
  ({ isLocal }) => isLocal,
  ({ network }) => network === "onion"
]

/**
 * Takes half of the candidates out: those that are connected longest. Up to half of these places are for disadvantaged networks.
 * Returns the others, the youngest first.
 */
export const protectByRatio = <Id>(
  candidates: ReadonlyArray<KeyedCandidate<Id>>
): ReadonlyArray<KeyedCandidate<Id>> => {
  const byUptime = candidates.toSorted(byAge)
  const toProtect = Math.floor(byUptime.length / 2)
  const forNetworks = Math.floor(toProtect / 2)
  const protectedOnes = new Set<KeyedCandidate<Id>>()
  /** `left` counts a local peer of an onion service in both networks until its own one protects it, as in Core. */
  const networks = disadvantaged
    .map((belongs) => ({ belongs, left: byUptime.filter(belongs).length }))
    .toSorted((a, b) => a.left - b.left)
  for (let progress = true; progress && protectedOnes.size < forNetworks;) {
    progress = false
    const present = networks.filter(({ left }) => left > 0)
    if (present.length === 0) break
    const each = Math.max(1, Math.floor((forNetworks - protectedOnes.size) / present.length))
    for (const network of present) {
      let taken = 0
      for (let i = byUptime.length - 1; i >= 0 && taken < each; i--) {
        const candidate = byUptime[i]!
        if (protectedOnes.has(candidate) || !network.belongs(candidate)) continue
        protectedOnes.add(candidate)
        taken++
      }
      if (taken === 0) continue
      progress = true
      if (protectedOnes.size >= forNetworks) break
      network.left -= taken
    }
  }
  const rest = byUptime.filter((candidate) => !protectedOnes.has(candidate))
  return rest.slice(0, rest.length - (toProtect - protectedOnes.size))
}

/** Chooses among candidates whose groups are hashed. */
export const selectKeyed = <Id>(of: ReadonlyArray<KeyedCandidate<Id>>): Id | undefined => {
  let candidates: ReadonlyArray<KeyedCandidate<Id>> = of.filter(({ kind, noban }) => kind === "inbound" && !noban)
  candidates = without(candidates, last(candidates, byKeyedGroup, 4))
  candidates = without(candidates, last(candidates, byPing, 8))
  candidates = without(candidates, last(candidates, byTransaction, 4))
  const blockRelay = last(candidates, byBlockOfBlockRelay, 8)
  candidates = without(
    candidates,
    blockRelay.filter((one) => !one.relaysTransactions && one.hasRelevantServices)
  )
  candidates = without(candidates, last(candidates, byBlock, 4))
  let left = protectByRatio(candidates)
  if (left.some(({ preferEvict }) => preferEvict)) left = left.filter(({ preferEvict }) => preferEvict)

  const groups = new Map<number, Array<KeyedCandidate<Id>>>()
  let largest: ReadonlyArray<KeyedCandidate<Id>> = []
  for (const candidate of left) {
    const group = groups.get(candidate.keyedGroup) ?? []
    group.push(candidate)
    groups.set(candidate.keyedGroup, group)
    const isYounger = group.length === largest.length && group[0]!.connectedAt > largest[0]!.connectedAt
    if (group.length > largest.length || isYounger) largest = group
  }
  return largest[0]?.id
}

/** The first 53 bits of the SipHash of a group, which is text of one byte a character. */
const hashGroup = (key: SipKey, group: string): number => {
  const out = new Uint32Array(2)
  sipHash(
    key,
    Uint8Array.from(group, (character) => character.charCodeAt(0)),
    out
  )
  return out[1]! * 0x20_0000 + (out[0]! >>> 11)
}

/**
 * The id of the peer to evict; `undefined` if all are protected, which is so for at most 20 candidates. `key` is a secret of this
 * start: without it nobody can choose an address whose group is protected.
 */
export const selectToEvict = <Id>(candidates: ReadonlyArray<Candidate<Id>>, key: SipKey): Id | undefined => {
  const hashes = new Map<string, number>()
  return selectKeyed(
    candidates.map((candidate) => {
      let keyedGroup = hashes.get(candidate.group)
      if (keyedGroup === undefined) {
        keyedGroup = hashGroup(key, candidate.group)
        hashes.set(candidate.group, keyedGroup)
      }
      return { ...candidate, keyedGroup }
    })
  )
}
