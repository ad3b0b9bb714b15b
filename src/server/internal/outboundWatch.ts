/**
 * Ends outbound peers whose chain has less work than ours, and the worst of the extra peers. Otherwise peers on a bad chain could occupy
 * all outbound slots (Bitcoin Core's ConsiderEviction and EvictExtraOutboundPeers).
 */
import type { ChainView } from "../ChainView.ts"

/** An outbound full-relay, block-relay or manual peer. */
export interface Watched {
  readonly id: number
  readonly kind: "outbound-full-relay" | "block-relay-only" | "manual"
  /** Milliseconds when the handshake was completed. */
  readonly readyAt: number
  readonly network: string
  /** When it last sent a block that was new to us, in milliseconds; 0 before that. */
  readonly lastBlock: number
}

export type WatchAction =
  | { readonly _tag: "AskForHeaders"; readonly id: number }
  | { readonly _tag: "Disconnect"; readonly id: number; readonly why: string }

interface ChainSync {
  /** Infinite while the peer's chain is as good as ours. */
  deadline: number
  /** The work of our tip when the clock started: a peer that reaches it gets a new clock. */
  work: bigint
  hasAsked: boolean
}

const never = Number.POSITIVE_INFINITY
const minute = 60_000
const chainSyncTime = 20 * minute
const headersResponseTime = 2 * minute
const mostProtected = 4
const staleTipInterval = 10 * minute
const staleTipAge = 30 * minute
const extraPeersInterval = 45_000
const youngestEvicted = 30_000

export class OutboundWatch {
  readonly #limits: { readonly fullRelay: number; readonly blockRelay: number }
  readonly #syncs = new Map<number, ChainSync>()
  /** Full-relay peers that had enough work once, for life. */
  readonly #protected = new Set<number>()
  #extraAt = 0
  #staleAt = 0
  /** Whether one more full-relay peer is wanted, because the tip is stale. */
  wantsExtraFullRelay = false

  constructor(limits: { readonly fullRelay: number; readonly blockRelay: number }, now: number) {
    this.#limits = limits
    this.#extraAt = now + extraPeersInterval
    this.#staleAt = now + staleTipInterval
  }

  tick(peers: ReadonlyArray<Watched>, chain: ChainView, now: number): ReadonlyArray<WatchAction> {
    const actions: Array<WatchAction> = []
    const live = new Set(peers.map(({ id }) => id))
    for (const id of this.#syncs.keys()) if (!live.has(id)) this.#syncs.delete(id)
    for (const id of this.#protected) if (!live.has(id)) this.#protected.delete(id)
    for (const peer of peers) {
      const action = peer.kind === "manual" ? undefined : this.#judgeChain(peer, chain, now)
      if (action !== undefined) actions.push(action)
    }
    if (now >= this.#extraAt) {
      this.#extraAt = now + extraPeersInterval
      actions.push(...this.#judgeExtra(peers, chain, now))
    }
    if (now >= this.#staleAt) {
      this.#staleAt = now + staleTipInterval
      this.wantsExtraFullRelay = !chain.isDownloading() && now - chain.tipChangedAt() > staleTipAge
    }
    return actions
  }

  #judgeChain(peer: Watched, chain: ChainView, now: number): WatchAction | undefined {
    if (this.#protected.has(peer.id)) return undefined
    const tip = chain.tipWork()
    const theirs = chain.workOf(peer.id)
    let sync = this.#syncs.get(peer.id)
    if (sync === undefined) this.#syncs.set(peer.id, (sync = { deadline: never, work: 0n, hasAsked: false }))
    if (theirs !== undefined && theirs >= tip) {
      sync.deadline = never
      if (peer.kind === "outbound-full-relay" && this.#protected.size < mostProtected) this.#protected.add(peer.id)
      return undefined
    }
    if (sync.deadline === never || (theirs !== undefined && theirs >= sync.work)) {
      sync.deadline = now + chainSyncTime
      sync.work = tip
      sync.hasAsked = false
      return undefined
    }
    if (now <= sync.deadline) return undefined
    if (sync.hasAsked) return { _tag: "Disconnect", id: peer.id, why: "its chain has less work than ours" }
    sync.hasAsked = true
    sync.deadline = now + headersResponseTime
    return { _tag: "AskForHeaders", id: peer.id }
  }

  #judgeExtra(peers: ReadonlyArray<Watched>, chain: ChainView, now: number): ReadonlyArray<WatchAction> {
    const actions: Array<WatchAction> = []
    const mayEnd = (peer: Watched): boolean => now - peer.readyAt > youngestEvicted && !chain.hasBlockInFlight(peer.id)

    const blockRelay = peers.filter(({ kind }) => kind === "block-relay-only").toSorted((a, b) => b.id - a.id)
    if (blockRelay.length > this.#limits.blockRelay) {
      const [youngest, second] = blockRelay
      const worst = second !== undefined && youngest!.lastBlock > second.lastBlock ? second : youngest!
      if (mayEnd(worst)) actions.push({ _tag: "Disconnect", id: worst.id, why: "it was an extra block-relay peer" })
    }

    const fullRelay = peers.filter(({ kind }) => kind === "outbound-full-relay")
    if (fullRelay.length > this.#limits.fullRelay) {
      const ofNetwork = new Map<string, number>()
      for (const { kind, network } of peers) {
        if (kind !== "block-relay-only") ofNetwork.set(network, (ofNetwork.get(network) ?? 0) + 1)
      }
      let worst: Watched | undefined
      for (const peer of fullRelay) {
        if (this.#protected.has(peer.id) || ofNetwork.get(peer.network) === 1) continue
        if (worst === undefined || this.#isWorse(peer, worst, chain)) worst = peer
      }
      if (worst !== undefined && mayEnd(worst)) {
        actions.push({
          _tag: "Disconnect",
          id: worst.id,
          why: "it was an extra peer and announced no new block for longest"
        })
        // One try at a better peer for each stale tip.
        this.wantsExtraFullRelay = false
      }
    }
    return actions
  }

  #isWorse(peer: Watched, than: Watched, chain: ChainView): boolean {
    const [last, other] = [chain.lastNewBlock(peer.id), chain.lastNewBlock(than.id)]
    return last < other || (last === other && peer.id > than.id)
  }
}
