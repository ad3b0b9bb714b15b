/**
 * Our own addresses, and the choice of the one to announce to a remote. Interfaces, listeners, a port mapping, Tor and an I2P router add
 * addresses as long as they have them. Remotes also tell us the address at which they see us.
 *
 * A remote gets the address that it reaches best. An onion or I2P address is announced in its own network only, and no other address is
 * announced there: that would link the onion service to the clearnet node.
 */
import * as Context from "effect/Context"
import { SecureRandom } from "effect/crypto"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Address from "../Address.ts"
import { hasPort, LocalTable, type Remote, type Scored, scores } from "./internal/localAddresses.ts"
import type { NetworkName } from "./internal/networkNames.ts"
import { makeRandom } from "./internal/random.ts"

export type { Remote, Scored }
export { scores }

/**
 * An external address of the options cannot be reached by other nodes, so it is not announced. The layer fails with this error.
 *
 * @category errors
 * @since 0.1.0
 */
export class LocalAddressError extends Data.TaggedError("LocalAddressError")<{
  readonly address: Address.Address
  /**
   * `Zone`: the address has a zone, which only this machine knows. `NotRoutable`: it is private, local or reserved. `Port`: it is 0, or,
   * for I2P, not 0.
   */
  readonly problem: "Zone" | "NotRoutable" | "Port"
}> {
  override get message(): string {
    const why = {
      Zone: "it has a zone, which only this machine knows",
      NotRoutable: "it is private, local or reserved",
      Port: "I2P has port 0, and every other network a port from 1 to 65535"
    }[this.problem]
    return `${Address.format(this.address)} cannot be our external address: ${why}`
  }
}

/**
 * The options of the table of our own addresses.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The port on which we listen, for addresses that remotes see. */
  readonly port: number
  /** Whether we listen; true by default. If not, no address is announced. */
  readonly listens?: boolean | undefined
  /** Addresses that the operator gave, as Bitcoin Core's `externalip`. They are announced even if `networks` lacks their network. */
  readonly external?: ReadonlyArray<Address.Address> | undefined
  /**
   * Whether to use addresses of interfaces and listeners, and those that remotes see, as Bitcoin Core's `discover`. True by default if we
   * listen and `external` is empty. Set it to false for a server that dials through a proxy.
   */
  readonly discovers?: boolean | undefined
  /** The networks that we reach; IPv4, IPv6, onion and I2P by default. */
  readonly networks?: Iterable<NetworkName> | undefined
}

/**
 * Our own addresses.
 *
 * @category models
 * @since 0.1.0
 */
export interface LocalAddresses {
  /**
   * Adds an address with one of `scores` until the scope ends. False if the address is not routable, if its network is not in
   * `networks`, or if it was discovered and `discovers` is off.
   */
  readonly add: (address: Address.Address, score: number) => Effect.Effect<boolean, never, Scope.Scope>
  /**
   * Records our address as a remote's version message has it. Call it once for each remote. It raises the score of a known address if
   * the remote is inbound. A new address is added once remotes of two network groups have named it.
   */
  readonly seen: (remote: Remote) => void
  /** The address to announce to a remote, if there is one. */
  readonly bestFor: (remote: Remote) => Option.Option<Address.Address>
  /** Whether a host is one of our addresses, with any port. */
  readonly has: (host: Address.Host) => boolean
  /** All our addresses with their scores. */
  readonly all: () => ReadonlyArray<Scored>
}

/**
 * The key of the service `LocalAddresses` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const LocalAddresses: Context.Service<LocalAddresses, LocalAddresses> = Context.Service<LocalAddresses>(
  "effect-bitcoin-peer/server/LocalAddresses"
)

const problemOf = (address: Address.Address): LocalAddressError["problem"] | undefined => {
  if (address.zone !== undefined) return "Zone"
  if (!Address.isRoutable(address)) return "NotRoutable"
  return hasPort(address) ? undefined : "Port"
}

/**
 * Makes the service with the `SecureRandom` of the context. Fails with `LocalAddressError` for the first bad external address.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<LocalAddresses, LocalAddressError, SecureRandom.SecureRandom> {
  const { external = [], listens = true, networks = ["ipv4", "ipv6", "onion", "i2p"], port } = options
  for (const address of external) {
    const problem = problemOf(address)
    if (problem !== undefined) return yield* new LocalAddressError({ address, problem })
  }
  const secure = yield* SecureRandom.SecureRandom
  const random = makeRandom(yield* secure.randomBytes(16))
  const table = new LocalTable({
    listens,
    port,
    discovers: options.discovers ?? (listens && external.length === 0),
    networks: new Set(networks)
  })
  for (const address of external) table.add(address, scores.given, { isExternal: true })
  return {
    add: (address, score) =>
      Effect.map(
        Effect.acquireRelease(
          Effect.sync(() => table.add(address, score)),
          (remove) => Effect.sync(() => remove?.())
        ),
        (remove) => remove !== undefined
      ),
    seen: (remote) => table.seen(remote),
    bestFor: (remote) => Option.fromUndefinedOr(table.bestFor(remote, random)),
    has: (host) => table.has(host),
    all: () => table.all()
  }
})

/**
 * The service of `make`, with the platform's secure random numbers.
 *
 * @example
 * ```ts
 * import { Effect, Option, Result } from "effect"
 * import { Address } from "effect-bitcoin-peer"
 * import * as LocalAddresses from "effect-bitcoin-peer/server/LocalAddresses"
 *
 * const parse = (text: string) => Result.getOrThrow(Address.parse(text))
 * const program = Effect.gen(function*() {
 *   const local = yield* LocalAddresses.LocalAddresses
 *   const remote = { host: parse("8.8.8.8"), network: "ipv4", isInbound: false } as const
 *   return Option.map(local.bestFor(remote), Address.format)
 * }).pipe(Effect.provide(LocalAddresses.layer({ port: 8333, external: [parse("1.2.3.4:8333")] })))
 *
 * console.log(await Effect.runPromise(program)) // Option.some("1.2.3.4:8333")
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<LocalAddresses, LocalAddressError> =>
  Layer.effect(LocalAddresses, make(options)).pipe(Layer.provide(SecureRandom.layerWebCrypto))
