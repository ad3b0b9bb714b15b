/**
 * DNS seeds: host names that resolve to addresses of nodes, for a start with an empty address book. The addresses are added to the book
 * with the seed as their source, so that a bad seed fills only a small part of it; they are not dialled directly.
 *
 * For a server that must not use DNS, provide `layerNone`.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Dns from "effect/net/Dns"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import * as Address from "../Address.ts"
import type { Network } from "../Network.ts"
import { sha256 } from "../primitives/sha256.ts"
import { type NetworkName, wayOf } from "./internal/networkNames.ts"

const reasonText: { readonly [reason in SeedError["reason"]]?: string } = {
  NotFound: "it has no address of a network that we dial",
  NoSeeds: "this server looks up no names"
}

/**
 * A seed gave no usable address. A server then connects to the seed as an addr-fetch peer and asks for addresses.
 *
 * @category errors
 * @since 0.1.0
 */
export class SeedError extends Data.TaggedError("SeedError")<{
  /** The name that was looked up. */
  readonly name: string
  /** The reason of the DNS; `NoSeeds` for a server without a resolver. */
  readonly reason: Dns.DnsErrorReason | "NoSeeds"
  readonly cause?: unknown
}> {
  override get message(): string {
    return `the seed ${this.name} gave no addresses: ${reasonText[this.reason] ?? this.reason}`
  }
}

/**
 * Looks up seeds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Seeds {
  /** The names of the seeds; empty for a server that does not ask seeds. */
  readonly names: ReadonlyArray<string>
  /**
   * The hosts that a seed knows with these services, at most 32, in the order of the answer: routable ones of the networks that we
   * dial. Their port is that of the network.
   */
  readonly resolve: (seed: string, services: bigint) => Effect.Effect<ReadonlyArray<Address.Host>, SeedError>
}

/**
 * The key of the service `Seeds` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const Seeds: Context.Service<Seeds, Seeds> = Context.Service<Seeds>("effect-bitcoin-peer/server/Seeds")

/** How many addresses of one seed are taken (Core). More would let one seed rule the address book. */
const maximumHosts = 32

/**
 * The name under which a seed knows nodes with these services: `x9.seed.example` for NETWORK and WITNESS.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 * import * as Seeds from "effect-bitcoin-peer/server/Seeds"
 *
 * console.log(Seeds.nameOf("seed.example", Wire.Service.network | Wire.Service.witness)) // x9.seed.example
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const nameOf = (seed: string, services: bigint): string => `x${services.toString(16)}.${seed}`

/** fd6b:88c0:8724::/48, the addresses of Bitcoin Core for names. */
const internalPrefix = [0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24]

/**
 * The source of the addresses that a seed gave, for the address book: the internal address that Bitcoin Core makes of a name, 10 bytes
 * of its SHA-256 after fd6b:88c0:8724. The name is that which was looked up (`nameOf`), or `fixedseeds`. No message carries it.
 *
 * @category getters
 * @since 0.1.0
 */
export const seedSource = (name: string): Address.Host => {
  const address = new Uint8Array(16)
  address.set(internalPrefix)
  address.set(sha256(new TextEncoder().encode(name)).subarray(0, 10), internalPrefix.length)
  return { networkId: Address.NetworkId.ipv6, address }
}

/**
 * Which addresses of an answer are used.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** IPv4 and IPv6 by default. */
  readonly networks?: Iterable<NetworkName> | undefined
}

/** The hosts of an answer that can be dialled. */
const usable = (
  name: string,
  answer: ReadonlyArray<string>,
  { networks = ["ipv4", "ipv6"] }: Options
): Effect.Effect<ReadonlyArray<Address.Host>, SeedError> => {
  const allowed = new Set(networks)
  const hosts: Array<Address.Host> = []
  for (const text of answer) {
    const host = Address.parseHost(text)
    if (Result.isFailure(host) || !Address.isRoutable(host.success) || !allowed.has(wayOf(host.success))) continue
    if (hosts.push(host.success) === maximumHosts) break
  }
  return hosts.length > 0 ? Effect.succeed(hosts) : Effect.fail(new SeedError({ name, reason: "NotFound" }))
}

/**
 * Makes the service for the seeds of a Bitcoin network, with the `Dns` of the context. A seed that does not answer within 30 s fails.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeDns = (
  network: Pick<Network, "dnsSeeds">,
  options: Options = {}
): Effect.Effect<Seeds, never, Dns.Dns> =>
  Effect.map(Dns.Dns, (dns) => ({
    names: network.dnsSeeds,
    resolve: (seed, services) => {
      const name = nameOf(seed, services)
      return dns.lookup(name).pipe(
        Effect.mapError((cause) => new SeedError({ name, reason: cause.reason, cause })),
        Effect.timeoutOrElse({
          duration: "30 seconds",
          orElse: () => Effect.fail(new SeedError({ name, reason: "Timeout" }))
        }),
        Effect.flatMap((addresses) => usable(name, addresses.map(NetAddress.formatIp), options))
      )
    }
  }))

/**
 * The service of `makeDns`. Node's resolver is `NodeDns.layer` of `@effect/platform-node`.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Dns } from "effect/net"
 * import { Address, Network, Wire } from "effect-bitcoin-peer"
 * import * as Seeds from "effect-bitcoin-peer/server/Seeds"
 *
 * const program = Effect.gen(function*() {
 *   const seeds = yield* Seeds.Seeds
 *   const hosts = yield* seeds.resolve("seed.example", Wire.Service.network | Wire.Service.witness)
 *   return hosts.map(Address.formatHost)
 * }).pipe(
 *   Effect.provide(Seeds.layerDns(Network.mainnet)),
 *   Effect.provide(Dns.layerStatic({ hosts: { "x9.seed.example": ["8.8.8.8", "127.0.0.1"] } }))
 * )
 *
 * console.log(await Effect.runPromise(program)) // ["8.8.8.8"]
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerDns = (
  network: Pick<Network, "dnsSeeds">,
  options: Options = {}
): Layer.Layer<Seeds, never, Dns.Dns> => Layer.effect(Seeds, makeDns(network, options))

/**
 * No seeds: nothing is ever looked up.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerNone: Layer.Layer<Seeds> = Layer.succeed(Seeds, {
  names: [],
  resolve: (seed, services) => Effect.fail(new SeedError({ name: nameOf(seed, services), reason: "NoSeeds" }))
})

/**
 * Seeds from a table, for tests: addresses as text, by the name of the seed, whatever the services. The answers are filtered as those
 * of DNS are.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerTable = (
  table: Readonly<Record<string, ReadonlyArray<string>>>,
  options: Options = {}
): Layer.Layer<Seeds> =>
  Layer.succeed(Seeds, {
    names: Object.keys(table),
    resolve: (seed, services) => usable(nameOf(seed, services), table[seed] ?? [], options)
  })
