/**
 * Dials addresses and host names, for all parts of a server: they have no other way to open a connection. A dialer has a way for each
 * network that it reaches. An address of another network fails with `Unreachable` before any lookup, and a failed way is never replaced
 * by another one, so a dialer for Tor alone cannot leak a connection or a DNS request.
 *
 * `NodeDialer` has the ways for Node.js: directly, through a SOCKS5 proxy, through Tor, and through an I2P router.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import * as Address from "../Address.ts"
import type { Connection } from "../Connection.ts"
import type { ConnectionError } from "../ConnectionError.ts"
import type { ConnectionKind } from "./ConnectionKind.ts"
import { type NetworkName, publicNetworks, wayOf } from "./internal/networkNames.ts"

export { type NetworkName, networkNameOf } from "./internal/networkNames.ts"

/**
 * A host name to dial. DNS or a proxy resolves it.
 *
 * @category models
 * @since 0.1.0
 */
export interface HostAndPort {
  readonly host: string
  /** 1 to 65535. */
  readonly port: number
}

/**
 * An address or a host name to dial.
 *
 * @category models
 * @since 0.1.0
 */
export type Target = Address.Address | HostAndPort

/**
 * Whether a target is a host name instead of an address.
 *
 * @category guards
 * @since 0.1.0
 */
export const isName = (target: Target): target is HostAndPort => "host" in target

/**
 * A target as text, `host:port`. An IPv6 address is in brackets.
 *
 * @category encoding
 * @since 0.1.0
 */
export const formatTarget = (target: Target): string =>
  isName(target) ? `${target.host}:${target.port}` : Address.format(target)

/**
 * The dialer has no way to the network of a target, or cannot resolve names. Nothing was looked up and nothing was sent; trying again
 * is of no use.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unreachable extends Data.TaggedError("Unreachable")<{
  readonly target: Target
  /** The network without a way; "name" for a host name. */
  readonly network: NetworkName | "name"
  /** The reason, if it is another one: an onion name with a wrong checksum, for example. */
  readonly detail?: string | undefined
}> {
  override get message(): string {
    const why = this.network === "name" ? "names cannot be resolved" : `there is no way to ${this.network}`
    return `${formatTarget(this.target)} is unreachable: ${this.detail ?? why}`
  }
}

/**
 * Opens all outbound connections of a server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Dialer {
  /** The networks that can be dialled. */
  readonly ways: ReadonlySet<NetworkName>
  /** Whether host names can be dialled: a resolver or a proxy finds their addresses. */
  readonly dialsNames: boolean
  /**
   * Connects, in the scope of the caller. Fails with `Unreachable` if the dialer has no way to the target, and with `ConnectionError` if
   * connecting failed. The kind "private-broadcast" always gets its own proxy circuit or I2P session.
   */
  readonly dial: (
    target: Target,
    kind: ConnectionKind
  ) => Effect.Effect<Connection, ConnectionError | Unreachable, Scope.Scope>
}

/**
 * The key of the service `Dialer` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const Dialer: Context.Service<Dialer, Dialer> = Context.Service<Dialer>("effect-bitcoin-peer/server/Dialer")

/**
 * A function that dials the targets of one network.
 *
 * @category models
 * @since 0.1.0
 */
export type Way<T extends Target> = (
  target: T,
  kind: ConnectionKind
) => Effect.Effect<Connection, ConnectionError, Scope.Scope>

/**
 * The ways of a dialer. A network that is left out cannot be dialled.
 *
 * @category options
 * @since 0.1.0
 */
export interface Ways {
  /** For IPv4, also as IPv4-mapped IPv6. */
  readonly ipv4?: Way<Address.Address> | undefined
  readonly ipv6?: Way<Address.Address> | undefined
  readonly onion?: Way<Address.Address> | undefined
  readonly i2p?: Way<Address.Address> | undefined
  readonly cjdns?: Way<Address.Address> | undefined
  /**
   * For host names of IPv4 and IPv6 hosts. It never gets a name that ends with `.onion` or `.i2p` (RFC 7686), or an address as text.
   */
  readonly names?: Way<HostAndPort> | undefined
}

/**
 * Restricts a dialer to some networks.
 *
 * @category options
 * @since 0.1.0
 */
export interface Only {
  /**
   * Only these networks keep their ways (all by default). Host names are dialled only if both IPv4 and IPv6 are among them, because a name
   * can lead to either. Stricter than Bitcoin Core's `onlynet`, which does not apply to manual connections.
   */
  readonly onlynet?: Iterable<NetworkName> | undefined
}

type MutableWays = { -readonly [network in keyof Ways]: Ways[network] }

const remaining = (ways: Ways, { onlynet }: Only): Ways => {
  if (onlynet === undefined) return ways
  const only = new Set(onlynet)
  const kept: MutableWays = {}
  for (const network of publicNetworks) if (only.has(network)) kept[network] = ways[network]
  return { ...kept, names: only.has("ipv4") && only.has("ipv6") ? ways.names : undefined }
}

/** Names of Tor and I2P, which must not be looked up with DNS. */
const ownNames = /\.(onion|i2p)\.?$/i

/**
 * Makes a dialer with a way for each network.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-bitcoin-peer"
 * import { Dialer } from "effect-bitcoin-peer/server"
 *
 * const program = Effect.gen(function*() {
 *   const [here, there] = yield* Connection.makePair()
 *   const dialer = Dialer.make({ ipv4: () => Effect.succeed(here) })
 *   yield* dialer.dial({ host: "192.0.2.1", port: 8333 }, "manual")
 *   return yield* Effect.flip(dialer.dial({ host: "seed.example", port: 8333 }, "manual"))
 * })
 *
 * console.log((await Effect.runPromise(Effect.scoped(program))).message)
 * // seed.example:8333 is unreachable: names cannot be resolved
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (all: Ways, only: Only = {}): Dialer => {
  const ways = remaining(all, only)
  const dialAddress = (
    target: Target,
    address: Address.Address,
    kind: ConnectionKind
  ): Effect.Effect<Connection, ConnectionError | Unreachable, Scope.Scope> => {
    const network = wayOf(address)
    const way = network === "not_publicly_routable" ? undefined : ways[network]
    return way === undefined ? Effect.fail(new Unreachable({ target, network })) : way(address, kind)
  }
  const dial: Dialer["dial"] = (target, kind) => {
    if (!isName(target)) return dialAddress(target, target, kind)
    const host = Address.parseHost(target.host)
    if (Result.isSuccess(host)) return dialAddress(target, { ...host.success, port: target.port }, kind)
    const network = ownNames.exec(target.host)?.[1]?.toLowerCase() as "onion" | "i2p" | undefined
    if (network !== undefined) {
      return Effect.fail(new Unreachable({ target, network, detail: host.failure.message }))
    }
    return ways.names === undefined
      ? Effect.fail(new Unreachable({ target, network: "name" }))
      : ways.names(target, kind)
  }
  return {
    ways: new Set(publicNetworks.filter((network) => ways[network] !== undefined)),
    dialsNames: ways.names !== undefined,
    // `dial` of a target without a way builds an error: only when the effect runs.
    dial: (target, kind) => Effect.suspend(() => dial(target, kind))
  }
}

/**
 * Makes one dialer of several. For each network the first dialer with a way to it is used, and for host names the first that dials
 * names. When it fails, no other one is tried.
 *
 * @category constructors
 * @since 0.1.0
 */
export const combine = (dialers: ReadonlyArray<Dialer>, only: Only = {}): Dialer => {
  // Each dialer gets only targets to which it has a way, so it does not fail with Unreachable.
  const dialWith =
    (dialer: Dialer | undefined) =>
    (target: Target, kind: ConnectionKind): Effect.Effect<Connection, ConnectionError, Scope.Scope> =>
      Effect.catchTag(dialer!.dial(target, kind), "Unreachable", Effect.die)
  const ways: MutableWays = {}
  for (const network of publicNetworks) {
    const dialer = dialers.find(({ ways }) => ways.has(network))
    if (dialer !== undefined) ways[network] = dialWith(dialer)
  }
  const named = dialers.find(({ dialsNames }) => dialsNames)
  if (named !== undefined) ways.names = dialWith(named)
  return make(ways, only)
}

/**
 * Makes a dialer of one function for all networks and names that `onlynet` allows, for simulations.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromFunction = (way: Way<Target>, only: Only = {}): Dialer =>
  make({ ipv4: way, ipv6: way, onion: way, i2p: way, cjdns: way, names: way }, only)

/**
 * The dialer of `make`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (ways: Ways, only: Only = {}): Layer.Layer<Dialer> => Layer.succeed(Dialer, make(ways, only))

/**
 * Combines the dialers of several layers, as `combine` does. The layers' other services are provided too.
 *
 * @example
 * ```ts
 * import { Dialer } from "effect-bitcoin-peer/server"
 * import * as NodeDialer from "effect-bitcoin-peer/server/NodeDialer"
 *
 * // IPv4, IPv6 and names directly; onion services through Tor.
 * export const Live = Dialer.layerCombined([
 *   NodeDialer.layerDirect(),
 *   NodeDialer.layerOnion({ proxy: { host: "127.0.0.1", port: 9050 } })
 * ])
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerCombined = <L extends Layer.Layer<Dialer, unknown, unknown>>(
  layers: ReadonlyArray<L>,
  only: Only = {}
): Layer.Layer<Dialer | Layer.Success<L>, Layer.Error<L>, Layer.Services<L>> =>
  Layer.effectContext(
    Effect.map(
      Effect.forEach(layers, (layer) =>
        Layer.build(layer as Layer.Layer<Dialer | Layer.Success<L>, Layer.Error<L>, Layer.Services<L>>)
      ),
      (built) => {
        const dialer = combine(
          built.map((context) => Context.get(context as Context.Context<Dialer>, Dialer)),
          only
        )
        return Context.add(Context.mergeAll(...built), Dialer, dialer)
      }
    )
  ) as Layer.Layer<Dialer | Layer.Success<L>, Layer.Error<L>, Layer.Services<L>>
