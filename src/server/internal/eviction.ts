/**
 * Chooses the inbound peer to evict when a new one needs a slot: Bitcoin Core's `SelectNodeToEvict`.
 *
 * Peers are protected in turn by properties that an attacker cannot easily have: a network group under our secret key, a short ping,
 * transactions and blocks that were news, a privacy network, a long connection. Of the peers that are left, the youngest of the
 * largest group goes.
 */
import { sipHash, type SipKey } from "../../primitives/siphash.ts"
import type { ConnectionKind } from "../ConnectionKind.ts"
import type { NetworkName } from "./networkNames.ts"

/** The properties of a peer that the choice depends on. */
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
): ReadonlyArray<KeyedCandidate<Id>> => candidates.filter((candidate) => !protectedOnes.includes(candidate))

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
  /** 1 for those that are protected, at their places in `byUptime`. */
  const isProtected = new Uint8Array(byUptime.length)
  let count = 0
  /** `left` counts a local peer of an onion service in both networks, even after one of them protected it, as in Core. */
  const networks = disadvantaged
    .map((belongs) => ({ belongs, left: byUptime.filter(belongs).length }))
    .toSorted((a, b) => a.left - b.left)
  for (let progress = true; progress && count < forNetworks;) {
    progress = false
    const present = networks.filter(({ left }) => left > 0)
    if (present.length === 0) break
    const each = Math.max(1, Math.floor((forNetworks - count) / present.length))
    for (const network of present) {
      let taken = 0
      for (let i = byUptime.length - 1; i >= 0 && taken < each; i--) {
        if (isProtected[i] === 1 || !network.belongs(byUptime[i]!)) continue
        isProtected[i] = 1
        taken++
      }
      if (taken === 0) continue
      progress = true
      count += taken
      if (count >= forNetworks) break
      network.left -= taken
    }
  }
  const rest = byUptime.filter((_, i) => isProtected[i] === 0)
  return rest.slice(0, rest.length - (toProtect - count))
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

  // The youngest come first, so the first of a group is its youngest.
  const groups = new Map<number, { size: number; readonly youngest: KeyedCandidate<Id> }>()
  for (const candidate of left) {
    const group = groups.get(candidate.keyedGroup)
    if (group === undefined) groups.set(candidate.keyedGroup, { size: 1, youngest: candidate })
    else group.size++
  }
  let chosen: { readonly size: number; readonly youngest: KeyedCandidate<Id> } | undefined
  for (const group of groups.values()) {
    if (chosen === undefined || group.size > chosen.size) chosen = group
  }
  return chosen?.youngest.id
}

const hash = new Uint32Array(2)

/** The first 53 bits of the SipHash of a group, which is text of one byte a character. */
const hashGroup = (key: SipKey, group: string): number => {
  // `Uint8Array.from` takes 1 µs for each group.
  const bytes = new Uint8Array(group.length)
  for (let i = 0; i < bytes.length; i++) bytes[i] = group.charCodeAt(i)
  sipHash(key, bytes, hash)
  return hash[1]! * 0x20_0000 + (hash[0]! >>> 11)
}

/**
 * The id of the peer to evict; `undefined` if all are protected, which is so for at most 20 candidates. `key` is a secret of this
 * start, so that an attacker cannot choose an address in a protected group.
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
