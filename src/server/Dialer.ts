/**
 * The only way out of this machine: a service that dials addresses and host names. It is made of ways, one for each network. A
 * network without a way fails with `Unreachable` before anything is looked up, and no way is ever tried in place of another.
 *
 * `NodeDialer` has the ways of Node: directly, through a SOCKS5 proxy, through Tor, through an I2P router.
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
import { type NetworkName, wayOf } from "./internal/networkNames.ts"

export { type NetworkName, networkNameOf } from "./internal/networkNames.ts"

/**
 * A host name to dial, which has to be resolved by DNS or by a proxy.
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
 * The usual text of a target, `host:port`.
 *
 * @category encoding
 * @since 0.1.0
 */
export const formatTarget = (target: Target): string =>
  isName(target) ? `${target.host}:${target.port}` : Address.format(target)

/**
 * No way leads to a target: there is no way to its network, or names cannot be resolved. Nothing was looked up and nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unreachable extends Data.TaggedError("Unreachable")<{
  readonly target: Target
  /** The network without a way; "name" for a host name. */
  readonly network: NetworkName | "name"
  /** A description, if the network is not the reason: the name of an onion service that has a wrong checksum. */
  readonly detail?: string | undefined
}> {
  override get message(): string {
    const why = this.network === "name" ? "names cannot be resolved" : `there is no way to ${this.network}`
    return `${formatTarget(this.target)} is unreachable: ${this.detail ?? why}`
  }
}

/**
 * Dials for all parts of a server.
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
   * Connects, in the scope of the caller. Fails with `Unreachable` where no way leads to the target, and with `ConnectionError` where
   * connecting failed. Private broadcast always has a proxy circuit, or an I2P session, of its own.
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
 * How the targets of one network are dialled.
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
  /** For IPv4, and IPv4-mapped IPv6. */
  readonly ipv4?: Way<Address.Address> | undefined
  readonly ipv6?: Way<Address.Address> | undefined
  readonly onion?: Way<Address.Address> | undefined
  readonly i2p?: Way<Address.Address> | undefined
  readonly cjdns?: Way<Address.Address> | undefined
  /**
   * For host names, which lead to IPv4 or IPv6. It never gets a name that ends with `.onion` or `.i2p` (RFC 7686), and no
   * address as text.
   */
  readonly names?: Way<HostAndPort> | undefined
}

const networks = ["ipv4", "ipv6", "onion", "i2p", "cjdns"] as const

/**
 * The networks that may be dialled, where not all may.
 *
 * @category options
 * @since 0.1.0
 */
export interface Only {
  /**
   * Removes the ways of all other networks. The way of names stays only if both IPv4 and IPv6 do, because a name can lead to either. By
   * default all ways stay.
   */
  readonly onlynet?: Iterable<NetworkName> | undefined
}

type MutableWays = { -readonly [network in keyof Ways]: Ways[network] }

const remaining = (ways: Ways, { onlynet }: Only): Ways => {
  if (onlynet === undefined) return ways
  const only = new Set(onlynet)
  const kept: MutableWays = {}
  for (const network of networks) if (only.has(network)) kept[network] = ways[network]
  return { ...kept, names: only.has("ipv4") && only.has("ipv6") ? ways.names : undefined }
}

/** The network whose names are not looked up with DNS. */
const ownNames = /\.(onion|i2p)\.?$/i

/**
 * Makes a dialer of ways.
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
    ways: new Set(networks.filter((network) => ways[network] !== undefined)),
    dialsNames: ways.names !== undefined,
    // A failure is made when the effect runs, not when it is described.
    dial: (target, kind) => Effect.suspend(() => dial(target, kind))
  }
}

/**
 * Makes one dialer of several. Each network belongs to the first dialer that has a way to it, and host names to the first that dials
 * them: another one is not tried when that fails.
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
  for (const network of networks) {
    const dialer = dialers.find(({ ways }) => ways.has(network))
    if (dialer !== undefined) ways[network] = dialWith(dialer)
  }
  const named = dialers.find(({ dialsNames }) => dialsNames)
  if (named !== undefined) ways.names = dialWith(named)
  return make(ways, only)
}

/**
 * Makes a dialer of one function, for simulations: it gets every address and every name, or only those that `onlynet` allows.
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
 * One dialer made of the dialers of several layers, as in `combine`. Other services of the layers are provided, too.
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
