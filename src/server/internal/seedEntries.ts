/** Entries for the address book, of addresses that come from seeds. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { type Address, type Host, parse } from "../../Address.ts"
import { type AddressV2, Service } from "../../Wire.ts"
import { type FixedSeeds, loadFixedSeeds } from "./fixedSeeds.ts"
import { type NetworkName, wayOf } from "./networkNames.ts"
import type { Random } from "./random.ts"

/** The services that nodes of seeds are assumed to have (Core). Their version messages tell the real ones. */
const assumed = Service.network | Service.witness | Service.p2pV2

const day = 24 * 60 * 60

/** An entry that was seen between `from` and `to` days ago. `now` is in milliseconds, the time of the entry in seconds. */
const entry = (
  { address, networkId, port }: Address,
  from: number,
  to: number,
  now: number,
  random: Random
): AddressV2 => ({
  networkId,
  address,
  port,
  services: assumed,
  timestamp: Math.max(0, Math.floor(now / 1000 - (from + random.next() * (to - from)) * day))
})

/** Entries of hosts that a DNS seed named: seen 3 to 7 days ago, as addresses that remotes tell are better. */
export const dnsEntries = (
  hosts: ReadonlyArray<Host>,
  port: number,
  now: number,
  random: Random
): ReadonlyArray<AddressV2> =>
  hosts.map(({ address, networkId }) => entry({ address, networkId, port }, 3, 7, now, random))

/** Addresses that are read in one turn of the event loop. Each name of an onion service has a checksum that takes 50 µs. */
const sliceSize = 64

/** Entries of fixed seeds: seen 7 to 14 days ago. A text that is not an address of its network is skipped. */
export const fixedEntries = Effect.fnUntraced(function* (
  seeds: FixedSeeds,
  networks: ReadonlySet<NetworkName>,
  random: Random
) {
  const now = yield* Clock.currentTimeMillis
  const entries: Array<AddressV2> = []
  for (const network of networks) {
    for (const [index, text] of (seeds[network] ?? []).entries()) {
      if (index % sliceSize === sliceSize - 1) yield* Effect.yieldNow
      const address = parse(text)
      if (Result.isSuccess(address) && wayOf(address.success) === network) {
        entries.push(entry(address.success, 7, 14, now, random))
      }
    }
  }
  return entries as ReadonlyArray<AddressV2>
})

/** Entries of the fixed seeds that the package has for a Bitcoin network. */
export const loadFixedEntries = (
  name: string,
  networks: ReadonlySet<NetworkName>,
  random: Random
): Effect.Effect<ReadonlyArray<AddressV2>> =>
  Effect.flatMap(
    Effect.promise(() => loadFixedSeeds(name)),
    (seeds) => fixedEntries(seeds, networks, random)
  )
