/**
 * Policies for peers that misbehave, as values, and the scores that btcd's policy keeps.
 *
 * A time-out, a stall or a closed connection is never misbehaviour. Manual peers and those with the permission `noban` are only
 * ended, never punished, and addresses of this machine are never remembered: all peers of an onion service have the same one.
 */
import * as Duration from "effect/Duration"
import { canonical, type Host, isLocal } from "../Address.ts"
import type { Assessment } from "../PeerError.ts"
import { type ConnectionKind, kinds } from "./ConnectionKind.ts"
import { hostKey } from "./internal/keys.ts"
import type { Permissions } from "./Permissions.ts"

/**
 * What a policy decides about a peer.
 *
 * @category models
 * @since 0.1.0
 */
export interface Verdict {
  /** End the connection, if it has not ended by itself. */
  readonly end: boolean
  /** Discourage its host, and end all connections with it. */
  readonly discourage: boolean
  /** Ban its host, and end all connections with it. */
  readonly ban?: { readonly for: Duration.Duration; readonly reason: string } | undefined
  /** One line for the operator. */
  readonly warn?: string | undefined
  /** Do not dial it again before this time has passed. The back-off decides where this is missing. */
  readonly retryAfter?: Duration.Duration | undefined
}

/**
 * The thresholds of the policy `btcd`.
 *
 * @category models
 * @since 0.1.0
 */
export interface ScoreOptions {
  /** A score above it bans, 100 by default. A warning comes above half of it. */
  readonly threshold?: number | undefined
  /** How long it bans, 24 hours by default. */
  readonly banFor?: Duration.Input | undefined
}

/**
 * A policy. Make one with `core`, `btcd` or `none`.
 *
 * @category models
 * @since 0.1.0
 */
export type Policy =
  | { readonly _tag: "Core" }
  | { readonly _tag: "Btcd"; readonly threshold: number; readonly banFor: Duration.Duration }
  | { readonly _tag: "None" }

/**
 * Bitcoin Core's policy: no scores. A host that misbehaved once (100 points) is discouraged, and nobody is banned.
 *
 * @category policies
 * @since 0.1.0
 */
export const core: Policy = { _tag: "Core" }

/**
 * Btcd's policy with other thresholds.
 *
 * @category policies
 * @since 0.1.0
 */
export const btcdWith = (options: ScoreOptions): Policy => ({
  _tag: "Btcd",
  threshold: options.threshold ?? 100,
  banFor: Duration.fromInputUnsafe(options.banFor ?? "24 hours")
})

/**
 * Btcd's policy: each offence adds to a score, of which one part decays. A host is banned for 24 hours when its score is above 100.
 *
 * @category policies
 * @since 0.1.0
 */
export const btcd: Policy = btcdWith({})

/**
 * Peers that misbehave are ended, as they are by `Peer`, and not remembered. For a private network, or for tests.
 *
 * @category policies
 * @since 0.1.0
 */
export const none: Policy = { _tag: "None" }

// ---- the score

/** Seconds in which the transient part halves, and after which it is gone. */
const halflife = 60
const lifetime = 1_800
const lambda = Math.LN2 / halflife

const decay = (seconds: number): number => Math.exp(-seconds * lambda)

/**
 * A score with a part that stays and a part that decays, as btcd's `DynamicBanScore`: time counts in whole seconds, and the decaying
 * part is brought up to date only when it is added to.
 *
 * @category models
 * @since 0.1.0
 */
export class Score {
  #persistent = 0
  #transient = 0
  #changedAt = 0

  /** The score at this time, in milliseconds since 1970. */
  at(now: number): number {
    const since = Math.floor(now / 1_000) - this.#changedAt
    if (this.#transient < 1 || since < 0 || since > lifetime) return this.#persistent
    return this.#persistent + Math.floor(this.#transient * decay(since))
  }

  /** Adds to both parts, and returns the sum. As in btcd the transient part has not decayed in that sum if nothing is added to it. */
  add(persistent: number, transient: number, now: number): number {
    this.#persistent += persistent
    if (transient > 0) {
      const second = Math.floor(now / 1_000)
      const since = second - this.#changedAt
      if (since > lifetime) this.#transient = 0
      else if (this.#transient > 1 && since > 0) this.#transient *= decay(since)
      this.#transient += transient
      this.#changedAt = second
    }
    return this.#persistent + Math.floor(this.#transient)
  }
}

// ---- what btcd adds for messages

/**
 * An offence with the points that it adds to a score under the policy `btcd`. The policies `core` and `none` ignore it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Offence {
  readonly persistent: number
  readonly transient: number
  readonly reason: string
}

/**
 * The offences for which btcd adds to the score of a peer that stays connected. A server with the policy `btcd` counts them from the
 * messages of its peers. The policies `core` and `none` ignore them.
 *
 * @category constants
 * @since 0.1.0
 */
export const offences = {
  /** A `mempool`: the fourth within a minute or so bans. */
  mempool: (): Offence => ({ persistent: 0, transient: 33, reason: "mempool" }),
  /** A `getdata` with this many entries, of at most 50,000. */
  getdata: (entries: number): Offence => ({
    persistent: 0,
    transient: Math.floor((entries * 99) / 50_000),
    reason: "getdata"
  }),
  /** A message about bloom filters, though we do not offer them (BIP111). */
  bloomFilter: (command: string): Offence => ({ persistent: 100, transient: 0, reason: command }),
  /** A `notfound` for this many blocks and transactions that we requested. */
  notFound: (blocks: number, transactions: number): Offence => ({
    persistent: 20 * blocks,
    transient: 10 * transactions,
    reason: "notfound"
  })
} as const

// ---- the reputation of peers

/**
 * A peer, as far as its reputation needs it. `track` makes it, and the owner of the connection keeps it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tracked {
  readonly kind: ConnectionKind
  readonly permissions: Permissions
  readonly host: Host
  /** Shared by all connections with the host, unless it is this machine. */
  readonly score: Score
}

/** Hosts whose scores are remembered after their connections have ended. */
const rememberedHosts = 2_000

/** The longest pause of the back-off. It holds for an address where another try is known to fail. */
const longestPause = Duration.minutes(5)

/** Points at which Bitcoin Core calls it misbehaviour. */
const misbehaviour = 100

/**
 * The reputation of the peers of one server, under one policy. Synchronous; times are milliseconds since 1970.
 *
 * @example
 * ```ts
 * import { Duration } from "effect"
 * import { Address, Peer } from "effect-bitcoin-peer"
 * import * as Permissions from "effect-bitcoin-peer/server/Permissions"
 * import * as Reputation from "effect-bitcoin-peer/server/Reputation"
 *
 * const host = { networkId: Address.NetworkId.ipv4, address: Uint8Array.of(1, 2, 3, 4) }
 * const core = new Reputation.Reputation(Reputation.core)
 * const peer = core.track({ kind: "inbound", permissions: Permissions.none, host })
 * const stalled = Peer.assess({ _tag: "PingTimeout", after: Duration.minutes(20) })
 * console.log(core.judge(peer, stalled, 0).discourage) // false
 * console.log(core.judge(peer, { by: "remote", retry: false, points: 100 }, 0).discourage) // true
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export class Reputation {
  readonly policy: Policy
  readonly #capacity: number
  /** The scores of hosts, the least recently used first. */
  readonly #scores = new Map<string, Score>()

  /** `capacity` is the number of hosts whose scores are remembered, 2,000 by default. */
  constructor(policy: Policy, capacity: number = rememberedHosts) {
    this.policy = policy
    this.#capacity = capacity
  }

  /** Hosts that are remembered. */
  get size(): number {
    return this.#scores.size
  }

  /** Begins with a connection. A host that is remembered has the score that it had. */
  track(peer: { readonly kind: ConnectionKind; readonly permissions: Permissions; readonly host: Host }): Tracked {
    const { kind, permissions } = peer
    const host = canonical(peer.host)
    const known = this.#isRemembered(peer) ? this.#scores.get(hostKey(host)) : undefined
    return { kind, permissions, host, score: known ?? new Score() }
  }

  /** Decides about the end of a peer, or about an error that a handler of the user assessed. */
  judge(peer: Tracked, assessment: Assessment, now: number): Verdict {
    const { by, points, retry } = assessment
    const retryAfter = peer.kind === "manual" && !retry ? longestPause : undefined
    if (by === "local" || points <= 0) return { end: false, discourage: false, retryAfter }
    const isWorst = points >= misbehaviour
    const verdict =
      this.policy._tag === "Btcd"
        ? this.#score(peer, this.policy, isWorst ? points : 0, isWorst ? 0 : points, "misbehaviour", now)
        : {
            end: isWorst,
            discourage: isWorst && this.policy._tag === "Core" && !isSpared(peer) && !isLocal(peer.host)
          }
    return { ...verdict, end: verdict.end || isWorst, retryAfter }
  }

  /** Adds the points of an offence. Only the policy `btcd` does anything. */
  offended(peer: Tracked, offence: Offence, now: number): Verdict {
    return this.policy._tag === "Btcd"
      ? this.#score(peer, this.policy, offence.persistent, offence.transient, offence.reason, now)
      : { end: false, discourage: false }
  }

  #score(
    peer: Tracked,
    policy: Policy & { readonly _tag: "Btcd" },
    persistent: number,
    transient: number,
    reason: string,
    now: number
  ): Verdict {
    const { host, score } = peer
    const added = persistent > 0 || transient > 0
    const sum = added ? score.add(persistent, transient, now) : score.at(now)
    if (added && this.#isRemembered(peer)) this.#remember(host, score)
    if (sum <= policy.threshold / 2) return { end: false, discourage: false }
    const warn = `the peer misbehaves: ${reason}, its score is ${sum} of ${policy.threshold}`
    if (!added || sum <= policy.threshold) return { end: false, discourage: false, warn }
    if (isSpared(peer) || isLocal(host)) return { end: true, discourage: false, warn }
    // The ban remembers it from now on. With its score it would be banned again at the first offence after the ban.
    this.#scores.delete(hostKey(host))
    return { end: true, discourage: false, ban: { for: policy.banFor, reason }, warn }
  }

  /** Policies without scores remember nothing. A peer that is spared says nothing about others of its host. */
  #isRemembered(peer: Omit<Tracked, "score">): boolean {
    return this.policy._tag === "Btcd" && !isSpared(peer) && !isLocal(peer.host)
  }

  #remember(host: Host, score: Score): void {
    const key = hostKey(host)
    this.#scores.delete(key)
    this.#scores.set(key, score)
    for (const oldest of this.#scores.keys()) {
      if (this.#scores.size <= this.#capacity) break
      this.#scores.delete(oldest)
    }
  }
}

/** Whether it is ended at most. Private broadcast never reaches the policy: its remotes are chosen anew each time. */
const isSpared = ({ kind, permissions }: Omit<Tracked, "score">): boolean =>
  !kinds[kind].isDiscouraged || permissions.has("noban")
