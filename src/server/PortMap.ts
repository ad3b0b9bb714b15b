/**
 * Asks the router to forward a port to a listener on this machine, with PCP, or NAT-PMP for older routers. For IPv6 it asks the router's
 * firewall to let connections through to each public address of this machine.
 *
 * It needs Node, so it is not in the barrel: `import * as PortMap from "effect-bitcoin-peer/server/PortMap"`.
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import { SecureRandom } from "effect/crypto"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import { createSocket, type Socket } from "node:dgram"
import { readFile } from "node:fs/promises"
import { endianness, networkInterfaces } from "node:os"
import * as Address from "../Address.ts"
import type { Endpoint } from "../Connection.ts"
import { gatewayOfRoutes, gatewayOfRoutesIPv6, maxPacketSize, nonceSize, serverPort } from "./internal/pcp.ts"
import { type Datagrams, keepMappings, type Link, type Mapping, type Status } from "./internal/portMapping.ts"
import { makeRandom } from "./internal/random.ts"

export { type Mapping, PortMapError, type PortMapReason, type Status } from "./internal/portMapping.ts"

/**
 * The port to map, and the router.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The port on which we listen, and the one that is wanted at the router. The router may give another one. */
  readonly port: number
  /**
   * The router. By default it is the gateway of the default route, which is looked up on Linux alone: in /proc/net/route and
   * /proc/net/ipv6_route. On other systems nothing is asked without this option. Routers have the port 5351.
   */
  readonly gateway?: Endpoint | undefined
  /**
   * Runs for each mapping to a public address, before the status shows it. Its scope ends when the mapping changes or is lost: an address
   * that it adds to `LocalAddresses` is removed then.
   */
  readonly onMapped?: ((mapping: Mapping) => Effect.Effect<unknown, never, Scope.Scope>) | undefined
}

/**
 * The mappings of a port.
 *
 * @category models
 * @since 0.1.0
 */
export interface PortMap {
  readonly status: Effect.Effect<Status>
  /** The status now, then each new one. */
  readonly changes: Stream.Stream<Status>
}

/**
 * The key of the service `PortMap` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const PortMap: Context.Service<PortMap, PortMap> = Context.Service<PortMap>("effect-bitcoin-peer/server/PortMap")

/** Answers that wait; more of them are dropped, as UDP may. */
const heldPackets = 16

/** A socket that sends to one router and receives from it alone. */
const openSocket = Effect.fnUntraced(function* (
  gateway: Endpoint,
  from: string | undefined
): Effect.fn.Return<Datagrams, unknown, Scope.Scope> {
  const packets = yield* Queue.dropping<Uint8Array, unknown>(heldPackets)
  const socket = yield* Effect.acquireRelease(
    Effect.sync((): Socket => createSocket(gateway.host.includes(":") ? "udp6" : "udp4")),
    (socket) => Effect.sync(() => void socket.close())
  )
  socket.on("message", (bytes: Uint8Array) => {
    if (bytes.length <= maxPacketSize) Queue.offerUnsafe(packets, Uint8Array.from(bytes))
  })
  // A router without the service answers with ICMP, which becomes an error of the connected socket.
  socket.on("error", (error) => Queue.failCauseUnsafe(packets, Cause.fail(error)))
  /** The result of a call of the socket: its callback, or an event. */
  const called = (call: (done: (error?: Error | null) => void) => void) =>
    Effect.callback<void, unknown>((resume) => {
      const failed = (error: Error) => resume(Effect.fail(error))
      socket.once("error", failed)
      call((error) => {
        socket.off("error", failed)
        resume(error instanceof Error ? Effect.fail(error) : Effect.void)
      })
    })
  if (from !== undefined) yield* called((done) => socket.bind({ address: from }, () => done()))
  yield* called((done) => socket.connect(gateway.port, gateway.host, done as () => void))
  const internal = Address.parseHost(socket.address().address)
  if (Result.isFailure(internal)) return yield* Effect.fail(internal.failure)
  return {
    internal: internal.success,
    send: (bytes) => called((done) => socket.send(bytes, done)),
    receive: Queue.take(packets)
  }
})

/** A file of Linux; undefined on other systems. */
const table = (path: string): Effect.Effect<string | undefined> =>
  Effect.orElseSucceed(
    Effect.tryPromise(() => readFile(path, "utf8")),
    () => undefined
  )

const linkTo = (gateway: Endpoint, from?: string): Link => ({
  name: from === undefined ? gateway.host : `${gateway.host} for ${from}`,
  open: openSocket(gateway, from)
})

/** Our public IPv6 addresses. */
const publicIPv6 = (): ReadonlyArray<string> =>
  Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ address, family }) => {
      const host = Address.parseHost(address)
      return family === "IPv6" && Result.isSuccess(host) && Address.isRoutable(host.success)
    })
    .map(({ address }) => address)

/** One for IPv4, and one for each public address of IPv6. */
const linksNow = (given: Endpoint | undefined): Effect.Effect<ReadonlyArray<Link>> =>
  Effect.gen(function* () {
    if (given !== undefined) {
      return given.host.includes(":") ? publicIPv6().map((from) => linkTo(given, from)) : [linkTo(given)]
    }
    const routes = yield* table("/proc/net/route")
    const routesIPv6 = yield* table("/proc/net/ipv6_route")
    const gateway = routes === undefined ? undefined : gatewayOfRoutes(routes, endianness() === "LE")
    const gatewayIPv6 = routesIPv6 === undefined ? undefined : gatewayOfRoutesIPv6(routesIPv6)
    return [
      ...(gateway === undefined ? [] : [linkTo({ host: gateway, port: serverPort })]),
      ...(gatewayIPv6 === undefined
        ? []
        : publicIPv6().map((from) => linkTo({ host: gatewayIPv6, port: serverPort }, from)))
    ]
  })

/**
 * Keeps the port mapped as long as the scope lives. Returns at once. A mapping is asked for 40 minutes and renewed after about half of
 * that; after a failure the router is asked again in 5 minutes. At the end of the scope the router is told once that the port is free.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<PortMap, never, SecureRandom.SecureRandom | Scope.Scope> {
  const secure = yield* SecureRandom.SecureRandom
  return yield* keepMappings({
    port: options.port,
    nonce: yield* secure.randomBytes(nonceSize),
    random: makeRandom(yield* secure.randomBytes(16)),
    links: linksNow(options.gateway),
    onMapped: options.onMapped ?? (() => Effect.void)
  })
})

/**
 * A port that is mapped as long as the layer lives.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Address } from "effect-bitcoin-peer"
 * import * as PortMap from "effect-bitcoin-peer/server/PortMap"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const program = Effect.gen(function*() {
 *   const listener = yield* NodeConnection.listen({ port: 8333 })
 *   const { status } = yield* PortMap.PortMap
 *   const { mappings } = yield* status
 *   return [listener, mappings.map(({ external }) => Address.format(external))] as const
 * }).pipe(Effect.scoped, Effect.provide(PortMap.layer({ port: 8333 })))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<PortMap> =>
  Layer.provide(Layer.effect(PortMap, make(options)), SecureRandom.layerWebCrypto)
