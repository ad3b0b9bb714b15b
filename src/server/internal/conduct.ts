/** What follows when a peer misbehaves, and when the operator bans a subnet. */
import * as Effect from "effect/Effect"
import * as Address from "../../Address.ts"
import type { Assessment } from "../../Peer.ts"
import { type BanList, formatSubnet } from "../BanList.ts"
import { formatTarget, networkNameOf } from "../Dialer.ts"
import type { Reputation } from "../Reputation.ts"
import type { ServerEvent } from "../ServerEvent.ts"
import { hostKey } from "./keys.ts"
import type { Connections, Running } from "./running.ts"
import { subnetContains } from "./subnetTrie.ts"

/** Nothing is remembered of this host. */
const thisMachine: Address.Host = { networkId: Address.NetworkId.ipv4, address: Uint8Array.of(127, 0, 0, 1) }

/** Whether the address of a connection is that of a daemon of Tor or I2P. The others that come through it must not pay for one. */
const hidesAddress = ({ entry: { address }, pool }: Running): boolean =>
  (pool?.network === "onion" || pool?.network === "i2p") &&
  address !== undefined &&
  networkNameOf(address) !== pool.network

export interface ConductOptions {
  readonly connections: Connections
  readonly bans: BanList
  readonly reputation: Reputation
  readonly emit: (event: ServerEvent) => void
  /** Runs an Effect that ends connections. */
  readonly runFork: (effect: Effect.Effect<unknown>) => void
  readonly now: () => number
}

/** Judges peers, and ends those that are not wanted any more. */
export class Conduct {
  readonly #options: ConductOptions
  /** Ends the watch of the ban list. */
  readonly stop: () => void

  constructor(options: ConductOptions) {
    this.#options = options
    const { bans, connections, emit, runFork } = options
    this.stop = bans.onChange((change) => {
      if (change._tag === "Unbanned") emit({ _tag: "Unbanned", subnet: formatSubnet(change.ban.subnet) })
      if (change._tag === "Dropped") {
        emit({
          _tag: "Warning",
          message: `the ban list is full: ${formatSubnet(change.ban.subnet)} is no longer banned`
        })
      }
      if (change._tag !== "Banned") return
      const { subnet, until } = change.ban
      emit({ _tag: "Banned", subnet: formatSubnet(subnet), until })
      const isBanned = (one: Running): boolean =>
        one.entry.address !== undefined &&
        !hidesAddress(one) &&
        !one.permissions.has("noban") &&
        subnetContains(subnet, one.entry.address)
      runFork(connections.endAll(isBanned, { _tag: "Banned", why: `${formatSubnet(subnet)} is banned` }))
    })
  }

  /** Judges what a peer did, or how it ended. */
  judge(one: Running, assessment: Assessment, why: string): void {
    const { bans, emit, now, reputation, runFork, connections } = this.#options
    const { address, kind, target } = one.entry
    if (one.connected === undefined) return
    const host = address === undefined || hidesAddress(one) ? thisMachine : address
    one.tracked ??= reputation.track({ kind, permissions: one.permissions, host })
    const verdict = reputation.judge(one.tracked, assessment, now())
    if (verdict.warn !== undefined) emit({ _tag: "Warning", message: `${formatTarget(target)}: ${verdict.warn}` })
    if (verdict.end) runFork(connections.end(one, why))
    if (address === undefined) return
    if (verdict.ban !== undefined) bans.banHost(address, verdict.ban, now())
    if (!verdict.discourage) return
    bans.discourage(address)
    emit({ _tag: "Discouraged", host: Address.formatHost(address), why })
    const key = hostKey(address)
    const isSame = ({ entry, permissions }: Running): boolean =>
      entry.kind !== "manual" &&
      !permissions.has("noban") &&
      entry.address !== undefined &&
      hostKey(entry.address) === key
    runFork(connections.endAll(isSame, { _tag: "Banned", why: `it is discouraged: ${why}` }))
  }
}
