/** Asks seed nodes, DNS seeds and fixed seeds for the first addresses, when the schedule says so. */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Network } from "../../Network.ts"
import type { AddressV2 } from "../../Wire.ts"
import type { Book } from "../AddressBook.ts"
import { type NetworkName, publicNetworks } from "./networkNames.ts"
import { seedSource, type Seeds } from "../Seeds.ts"
import type { ServerEvent } from "../ServerEvent.ts"
import type { Random } from "./random.ts"
import type { Registry } from "./registry.ts"
import { dnsEntries, loadFixedEntries } from "./seedEntries.ts"
import { type Action, Seeding } from "./seeding.ts"
import { parseTarget } from "./targets.ts"

export interface FirstPeersOptions {
  readonly network: Network
  readonly seedNodes: ReadonlyArray<string>
  readonly seeds: Seeds | undefined
  readonly fixedSeeds: boolean
  /** The services that DNS seeds are asked for. */
  readonly services: bigint
  readonly reachable: ReadonlySet<NetworkName>
  readonly registry: Registry
  readonly book: Book
  readonly random: Random
  readonly emit: (event: ServerEvent) => void
  readonly wake: () => void
  readonly now: () => number
}

/** If the book is still empty after all sources were asked, they are asked again after a minute, then after two, and so on. */
const shortestPause = 60_000
const longestPause = 600_000

/** Asks the sources, unless they are not needed. Starts again as long as the book is empty, because nothing else can fill it. */
export const findFirstPeers = (options: FirstPeersOptions): Effect.Effect<void> => {
  const again = (pause: number): Effect.Effect<void> =>
    Effect.andThen(
      askAll(options),
      Effect.andThen(
        Effect.sleep(pause),
        Effect.suspend(() => (options.book.size === 0 ? again(Math.min(pause * 2, longestPause)) : Effect.void))
      )
    )
  return again(shortestPause)
}

/** Asks each source once. */
const askAll = (options: FirstPeersOptions): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { book, emit, fixedSeeds, network, now, random, reachable, registry, seedNodes, seeds, services, wake } =
      options
    // Their answers are IPv4 and IPv6 addresses.
    const asksDns = seeds !== undefined && (reachable.has("ipv4") || reachable.has("ipv6"))
    const seeding = new Seeding(
      {
        seedNodes,
        dnsSeeds: asksDns ? seeds.names : [],
        forcesDns: false,
        resolvesByProxy: false,
        usesFixedSeeds: fixedSeeds
      },
      now(),
      random
    )

    const fetchFrom = (text: string): void => {
      const target = parseTarget(text, network.port)
      if (Result.isSuccess(target)) registry.fetchAddresses(target.success)
      wake()
    }
    const add = (entries: ReadonlyArray<AddressV2>, source: string): void => {
      book.add(entries, seedSource(source), now())
      emit({ _tag: "Seeded", source, addresses: entries.length })
      registry.bookChanged()
      wake()
    }
    const ask = (name: string): Effect.Effect<void> =>
      Effect.matchEffect(seeds!.resolve(name, services), {
        onSuccess: (hosts) => Effect.sync(() => add(dnsEntries(hosts, network.port, now(), random), name)),
        // A seed that does not filter by services may answer under its own name, and it may be a node itself.
        onFailure: (error) =>
          Effect.sync(() => {
            emit({ _tag: "Warning", message: error.message })
            fetchFrom(name)
          })
      })
    const act = (action: Action): Effect.Effect<void> => {
      switch (action._tag) {
        case "AddrFetch":
          return Effect.sync(() => fetchFrom(action.target))
        case "AskDns":
          return Effect.forEach(action.seeds, ask, { concurrency: "unbounded", discard: true })
        case "AddFixedSeeds":
          return Effect.map(loadFixedEntries(network.name, new Set(action.networks), random), (entries) => {
            if (entries.length > 0) add(entries, "fixedseeds")
          })
      }
    }
    const step: Effect.Effect<void> = Effect.suspend(() => {
      const { actions, until } = seeding.step(now(), {
        bookSize: book.size,
        fullRelay: registry.connectedFullRelay,
        isNetworkActive: registry.isActive,
        hasAddedNodes: registry.added.all.length > 0,
        emptyNetworks: publicNetworks.filter((name) => reachable.has(name) && !book.hasNetwork(name))
      })
      const acted = Effect.forEach(actions, act, { discard: true })
      return Number.isFinite(until)
        ? Effect.andThen(
            acted,
            Effect.andThen(
              Effect.suspend(() => Effect.sleep(Math.max(0, until - now()))),
              step
            )
          )
        : acted
    })
    return step
  })
