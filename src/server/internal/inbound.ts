/** Inbound connections: admission, the pools of slots, and eviction. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Host } from "../../Address.ts"
import * as Address from "../../Address.ts"
import type { SipKey } from "../../primitives/siphash.ts"
import * as Wire from "../../Wire.ts"
import type { BanList } from "../BanList.ts"
import { type WhitelistEntry, forInbound, type Permissions } from "../Permissions.ts"
import { type Candidate, selectToEvict } from "./eviction.ts"
import { type Admission, Gate, gateDefaults } from "./gate.ts"
import { type Connections, networkOf, type Pool, type Running } from "./running.ts"

export interface InboundOptions {
  readonly connections: Connections
  readonly bans: BanList
  readonly whitelist: ReadonlyArray<WhitelistEntry>
  readonly maxInbound: number
  readonly maxPending: number
  readonly evictionKey: SipKey
  readonly groupOf: (host: Host) => string
}

/** A peer that wants transactions costs more, so at most half of the inbound peers may. */
const transactionShare = 0.5

export class Inbound {
  readonly gate: Gate
  readonly #options: InboundOptions

  constructor(options: InboundOptions) {
    this.#options = options
    this.gate = new Gate({
      ...gateDefaults,
      maxPending: options.maxPending,
      isBanned: (host, now) => options.bans.has(host, now),
      isDiscouraged: (host) => options.bans.isDiscouraged(host)
    })
  }

  permissionsOf(host: Host, pool: Pool): Permissions {
    return forInbound(host, {
      whitelist: this.#options.whitelist,
      bind: pool.bindPermissions,
      isOnionBind: pool.network === "onion"
    })
  }

  arrived(host: Host, pool: Pool, permissions: Permissions, networkActive: boolean, now: number): Admission<number> {
    let inbound = 0
    for (const one of this.#options.connections.values()) if (one.pool === pool && !one.entry.isEnding) inbound++
    return this.gate.arrived<number>({
      host,
      bind: pool.network,
      noban: permissions.has("noban"),
      networkActive,
      inbound,
      slots: pool.slots,
      evict: () => this.#worst((one) => one.pool === pool),
      now
    })
  }

  /**
   * The peer that has to go because a new one wants transactions too: the new one itself if all others are protected, and `undefined` if
   * there is room.
   */
  overTransactionShare(newcomer: Running): number | undefined {
    const { connections, maxInbound } = this.#options
    if (newcomer.connected?.peer.info.relay !== true) return undefined
    let relaying = 0
    for (const { connected, entry } of connections.values()) {
      if (entry.kind === "inbound" && connected?.peer.info.relay === true && !entry.isEnding) relaying++
    }
    // At least one, so that a server with one slot accepts such a peer.
    if (relaying <= Math.max(1, Math.floor(maxInbound * transactionShare))) return undefined
    const worst = this.#worst((one) => one !== newcomer && one.connected?.peer.info.relay === true)
    return worst?.id ?? newcomer.entry.id
  }

  #worst(which: (one: Running) => boolean): { readonly id: number; readonly host: Host } | undefined {
    const { connections, evictionKey } = this.#options
    const candidates: Array<Candidate<number>> = []
    for (const one of connections.values()) {
      if (one.entry.kind === "inbound" && !one.entry.isEnding && which(one)) candidates.push(this.#candidate(one))
    }
    const id = selectToEvict(candidates, evictionKey)
    const address = id === undefined ? undefined : connections.get(id)?.entry.address
    return id === undefined || address === undefined ? undefined : { id, host: address }
  }

  #candidate(one: Running): Candidate<number> {
    const { connected, entry, isDiscouraged, lastBlock, lastTransaction, permissions } = one
    const stats = connected === undefined ? undefined : Effect.runSync(connected.peer.stats)
    const info = connected?.peer.info
    const address = entry.address!
    const isLocal = Address.isLocal(address)
    return {
      id: entry.id,
      kind: "inbound",
      noban: permissions.has("noban"),
      connectedAt: entry.since,
      minimumPing: stats?.minimumPing === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(stats.minimumPing),
      lastBlockAt: lastBlock,
      lastTransactionAt: lastTransaction,
      hasRelevantServices:
        info !== undefined &&
        (info.services & (Wire.Service.network | Wire.Service.networkLimited)) !== 0n &&
        (info.services & Wire.Service.witness) !== 0n,
      relaysTransactions: info?.relay ?? false,
      hasBloomFilter: stats !== undefined && (stats.received["filterload"]?.messages ?? 0) > 0,
      group: this.#options.groupOf(address),
      preferEvict: isDiscouraged,
      isLocal,
      network: networkOf(one)
    }
  }
}
