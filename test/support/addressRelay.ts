/** An address relay with peers, and addresses to send to it. */
import * as Result from "effect/Result"
import * as Address from "../../src/Address.ts"
import type { ConnectionKind } from "../../src/server/ConnectionKind.ts"
import { AddressRelay, type RelayOptions, type RelayPeer } from "../../src/server/internal/addressRelay.ts"
import { makeRandom } from "../../src/server/internal/random.ts"
import * as Permissions from "../../src/server/Permissions.ts"
import { type AddrV2, type AddressV2, Service } from "../../src/Wire.ts"

export const start = 1_700_000_000_000
export const second = 1_000
export const minute = 60 * second
export const day = 86_400 * second
export const at = start / second

export const full = Service.network | Service.witness
export const address = (text: string): Address.Address => Result.getOrThrow(Address.parse(text, 8333))
export const entry = (text: string, fields?: Partial<AddressV2>): AddressV2 => {
  const { address: bytes, networkId, port } = address(text)
  return { networkId, address: bytes, port, services: full, timestamp: at, ...fields }
}
/** Different routable addresses. */
export const entries = (count: number, fields?: Partial<AddressV2>): ReadonlyArray<AddressV2> =>
  Array.from({ length: count }, (_, i) => entry(`${11 + (i >>> 16)}.${(i >>> 8) & 255}.${i & 255}.1`, fields))
export const v2 = (addresses: ReadonlyArray<AddressV2>): AddrV2 => ({ _tag: "addrv2", addresses })
export const onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333"
export const text = (one: Address.Address): string => Address.format(one)

export interface Rig {
  readonly relay: AddressRelay
  readonly stored: Array<{
    readonly entries: ReadonlyArray<AddressV2>
    readonly source: Address.Host
    readonly penalty: number
  }>
  readonly add: (id: number, kind?: ConnectionKind, peer?: Partial<RelayPeer>) => boolean
  /** Texts of the addresses that wait for a peer. */
  readonly queued: (id: number) => ReadonlyArray<string>
}

export const rig = (options?: Partial<RelayOptions>, seed = 1): Rig => {
  const stored: Rig["stored"] = []
  const relay = new AddressRelay({
    random: makeRandom(new Uint8Array(16).fill(seed)),
    key: [1, 2, 3, seed],
    isReachable: () => true,
    isRefused: () => false,
    store: (entries, source, penalty) => stored.push({ entries, source, penalty }),
    answer: () => [],
    ownAddress: () => undefined,
    ownServices: full,
    announces: () => false,
    desirableServices: full,
    ...options
  })
  const add: Rig["add"] = (id, kind = "outbound-full-relay", peer) =>
    relay.add({
      id,
      kind,
      host: address(`9.9.9.${id & 255}`),
      permissions: Permissions.none,
      wantsV2: true,
      connectedAt: start,
      ...peer
    })
  return { relay, stored, add, queued: (id) => relay.queued(id).map(text) }
}

/** All ids of peers for which addresses wait. */
export const receivers = ({ relay }: Rig, ids: ReadonlyArray<number>): ReadonlyArray<number> =>
  ids.filter((id) => relay.queued(id).length > 0)

export const range = (from: number, to: number): ReadonlyArray<number> =>
  Array.from({ length: to - from + 1 }, (_, i) => from + i)

/** Peers that relay: the first one has already been answered, so that what it sends is news. */
export const network = (count: number, options?: Partial<RelayOptions>, seed?: number): Rig => {
  const one = rig(options, seed)
  for (const id of range(0, count)) one.add(id)
  one.relay.received(0, v2([]), start)
  return one
}
