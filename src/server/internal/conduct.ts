/** Acts on misbehaviour of peers and on bans. */
import * as Effect from "effect/Effect"
import * as Address from "../../Address.ts"
import type { Assessment } from "../../Peer.ts"
import * as Wire from "../../Wire.ts"
import { type BanList, formatSubnet } from "../BanList.ts"
import { formatTarget, networkNameOf } from "../Dialer.ts"
import { type Offence, offences, type Reputation, type Tracked, type Verdict } from "../Reputation.ts"
import type { ServerEvent } from "../ServerEvent.ts"
import { hostKey } from "./keys.ts"
import { type Connections, hiddenNetwork, type Running } from "./running.ts"
import { subnetContains } from "./subnetTrie.ts"

/** Nothing is remembered of this host. */
const thisMachine: Address.Host = { networkId: Address.NetworkId.ipv4, address: Uint8Array.of(127, 0, 0, 1) }

/** Whether the address of a connection is that of a daemon of Tor or I2P. The others that come through it must not pay for one. */
const hidesAddress = (one: Running): boolean => {
  const network = hiddenNetwork(one)
  const { address } = one.entry
  return network !== undefined && address !== undefined && networkNameOf(address) !== network
}

export interface ConductOptions {
  readonly connections: Connections
  readonly bans: BanList
  readonly reputation: Reputation
  readonly emit: (event: ServerEvent) => void
  /** Runs an Effect that ends connections. */
  readonly runFork: (effect: Effect.Effect<unknown>) => void
  /** Whether we offer bloom filters (BIP111). */
  readonly offersBloom: boolean
  readonly now: () => number
}

/** The offence of a message under the policy of btcd. */
const offenceOf = (message: Wire.Message, offersBloom: boolean): Offence | undefined => {
  switch (message._tag) {
    case "mempool":
      return offences.mempool()
    case "getdata":
      return offences.getdata(message.items.length)
    case "filterload":
    case "filteradd":
    case "filterclear":
      return offersBloom ? undefined : offences.bloomFilter(message._tag)
    case "notfound": {
      const types = Array.from(message.items, ({ type }) => type & ~Wire.InventoryType.witnessFlag)
      const blocks = types.filter((type) => type === Wire.InventoryType.block).length
      return offences.notFound(blocks, types.filter((type) => type === Wire.InventoryType.tx).length)
    }
    default:
      return undefined
  }
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
    const tracked = this.#track(one)
    if (tracked !== undefined) {
      this.#follow(one, this.#options.reputation.judge(tracked, assessment, this.#options.now()), why)
    }
  }

  /** Counts a message of a peer against it, under the policy of btcd. */
  received(one: Running, message: Wire.Message): void {
    const { now, offersBloom, reputation } = this.#options
    if (reputation.policy._tag !== "Btcd") return
    const offence = offenceOf(message, offersBloom)
    const tracked = offence === undefined ? undefined : this.#track(one)
    if (offence === undefined || tracked === undefined) return
    this.#follow(one, reputation.offended(tracked, offence, now()), offence.reason)
  }

  #track(one: Running): Tracked | undefined {
    const { address, kind } = one.entry
    if (one.connected === undefined) return undefined
    const host = address === undefined || hidesAddress(one) ? thisMachine : address
    one.tracked ??= this.#options.reputation.track({ kind, permissions: one.permissions, host })
    return one.tracked
  }

  /** Carries out a verdict. */
  #follow(one: Running, verdict: Verdict, why: string): void {
    const { bans, connections, emit, now, runFork } = this.#options
    const { address, target } = one.entry
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
