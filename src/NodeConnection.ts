/**
 * Connections over TCP, with `node:net`: dial with `connect`, through Tor or another SOCKS5 proxy with `connectSocks5`,
 * through an I2P router with `connectI2p`; accept with `listen`. The only public module that needs
 * Node, hence not part of the barrel: `import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"`.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { Connection } from "./Connection.ts"
import type { ConnectionError, Endpoint } from "./ConnectionError.ts"
import { dial, type DialOptions, refusedTarget } from "./connection/net/dial.ts"
import { dialThrough } from "./connection/net/proxyDialogue.ts"
import { isI2pName, isPort, wireHost } from "./connection/net/hosts.ts"
import { type I2pSession as Session, openSession } from "./connection/net/i2p.ts"
import { type ListenerSettings, type ListenerStats, openListener } from "./connection/net/listener.ts"
import { addressesOf, adopt, streaming, unspecified } from "./connection/net/netSocket.ts"
import { credentialsOf, socks5, type Socks5Proxy } from "./connection/net/socks5.ts"

export type { ListenerStats, Socks5Proxy }

/** How an accepted or dialed socket is used. */
export interface SocketOptions {
  /** How long `close` waits for the flush and the remote's end before the socket is destroyed. Default 500 ms. */
  readonly closeTimeout?: Duration.Input | undefined
  /** Send small writes at once (TCP_NODELAY). Default `true`. */
  readonly noDelay?: boolean | undefined
}

/** What to dial, and how. */
export interface ConnectOptions extends SocketOptions, DialOptions {}

/** What to dial through a SOCKS5 proxy. */
export interface ConnectSocks5Options extends SocketOptions {
  /** A name, an .onion name too, or an address. The proxy looks it up: no DNS is asked here. */
  readonly host: string
  readonly port: number
  readonly proxy: Socks5Proxy
  /** How long reaching the proxy and all that it does may take together. Default 30 s: an onion service takes a while. */
  readonly connectTimeout?: Duration.Input | undefined
}

/** A session with an I2P router. */
export interface I2pOptions extends SocketOptions {
  /** Where the router takes SAM, version 3.1. Default 127.0.0.1, port 7656. */
  readonly sam?: Endpoint | undefined
  /** Who we are there, in I2P's base64, as an earlier session's `privateKey` was. Without it we are somebody new. */
  readonly privateKey?: string | undefined
  /** How long each request may take: making the session, a dial. Default 3 minutes, as in Bitcoin Core. */
  readonly connectTimeout?: Duration.Input | undefined
}

/** What to dial through an I2P router. */
export interface ConnectI2pOptions extends I2pOptions {
  /** A name that ends in .i2p, most often 52 characters and .b32.i2p. There are no ports. */
  readonly host: string
}

/** A destination of our own in the I2P network, for as long as its scope lives. `PeerServer.serve` takes it as a listener. */
export interface I2pSession extends Session<Connection> {}

/** Where to listen, and how. */
export interface ListenOptions extends SocketOptions, ListenerSettings {}

/**
 * Dials, and gives the connection once it stands. Interrupting it, or the timeout, destroys the half-open socket.
 *
 * Fails with `DialFailed`, its `problem` says why. The connection is closed with the scope.
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * const program = Effect.scoped(Effect.gen(function*() {
 *   const connection = yield* NodeConnection.connect({ host: "127.0.0.1", port: 18444, connectTimeout: "2 seconds" })
 *   connection.write(Uint8Array.of(1, 2, 3))
 *   const batch = yield* connection.pull
 *   yield* Console.log(`${batch.length} pieces`)
 * })).pipe(Effect.catchTag("ConnectionError", (error) => Console.error(error.message)))
 *
 * await Effect.runPromise(program)
 * ```
 */
export const connect = (options: ConnectOptions): Effect.Effect<Connection, ConnectionError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const source = yield* dial(options, restore)
      return yield* adopt(
        source,
        addressesOf(source.socket, { host: options.host, port: options.port }),
        options.closeTimeout
      )
    })
  )

/**
 * A connection for as long as the layer lives.
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * const program = Effect.gen(function*() {
 *   const connection = yield* Connection.Connection
 *   return Connection.formatEndpoint(connection.remoteAddress)
 * }).pipe(Effect.provide(NodeConnection.layerConnect({ host: "127.0.0.1", port: 18444 })))
 * ```
 */
export const layerConnect = (options: ConnectOptions): Layer.Layer<Connection, ConnectionError> =>
  Layer.effect(Connection, connect(options))

/**
 * Dials through a SOCKS5 proxy [RFC 1928, RFC 1929], such as Tor, which alone looks names up: no DNS is asked here, .onion
 * names work, and each connection has a circuit of its own (see `isolate`).
 *
 * Fails with `DialFailed`, whose message names the target and the proxy: `ProxyUnreachable`, `ProxyAuthFailed`,
 * `ProxyRefused` and `ProxyBroken` are about the proxy, `Refused`, `Unreachable` and `HostNotFound` what it says of the target,
 * Tor's words about onion services included; `cause` is the number of its reply. Interruption and the timeout destroy the socket.
 *
 * The addresses of the connection tell nothing of the way: `remoteAddress` is `host` and `port` as given, `localAddress` is
 * 0.0.0.0 and port 0.
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const throughTor = (host: string) => NodeConnection.connectSocks5({
 *   host, // an .onion name, any other name, an address
 *   port: 8333,
 *   proxy: { host: "127.0.0.1", port: 9050 }
 * }).pipe(Effect.tapError((error) => Effect.log(error.message)))
 * // connect explorerzydxu5ecjrkwceayqybizmpjjznk5izmitf2modhcusuqlid.onion:8333 through 127.0.0.1:9050: onion service descriptor not found
 * ```
 */
export const connectSocks5 = (options: ConnectSocks5Options): Effect.Effect<Connection, ConnectionError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const { connectTimeout, host, noDelay = true, port, proxy } = options
      const target: Endpoint = { host, port }
      const name = wireHost(host)
      if (name === undefined) return yield* refusedTarget(target, "BadHost")
      if (!isPort(port)) return yield* refusedTarget(target, "BadPort")
      const credentials = credentialsOf(proxy)
      if (credentials === "bad") {
        return yield* refusedTarget(
          target,
          "ProxyAuthFailed",
          "a user and a password for a proxy have 1 to 255 bytes each"
        )
      }
      const { socket } = yield* dialThrough(
        {
          proxy: { host: proxy.host, port: proxy.port },
          target,
          timeout: connectTimeout ?? "30 seconds",
          noDelay,
          dialogue: () => socks5({ host: name, port }, credentials)
        },
        restore
      )
      return yield* adopt(streaming(socket), { local: unspecified, remote: target }, options.closeTimeout)
    })
  )

/**
 * Opens a session with an I2P router over SAM 3.1: a destination of our own, to dial from and to be dialed at. Its
 * connections end with it, for the router ends them.
 *
 * Fails with `DialFailed` as `connectSocks5` does; where no target is meant, the host is `i2p`.
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Network, PeerServer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const program = Effect.gen(function*() {
 *   const session = yield* NodeConnection.makeI2pSession()
 *   yield* Effect.log(`I am ${session.address.host}`)
 *   yield* PeerServer.serve(session, { peer: { network: Network.mainnet } })
 * }).pipe(Effect.scoped)
 * ```
 */
export const makeI2pSession = (options: I2pOptions = {}): Effect.Effect<I2pSession, ConnectionError, Scope.Scope> =>
  i2pSession(options, undefined)

/** `target` is who is to be dialled, for the errors to name. */
const i2pSession = (
  options: I2pOptions,
  target: string | undefined
): Effect.Effect<I2pSession, ConnectionError, Scope.Scope> => {
  const { connectTimeout, noDelay = true, privateKey, sam = { host: "127.0.0.1", port: 7656 } } = options
  return openSession({ sam, privateKey, target, timeout: connectTimeout, noDelay }, (socket, addresses) =>
    adopt(streaming(socket), addresses, options.closeTimeout)
  )
}

/**
 * Dials through an I2P router over SAM 3.1, from a destination made for this one connection unless `privateKey` says
 * which; it ends with the connection's scope. Fails with `DialFailed`. The addresses are .b32.i2p names with port 0.
 *
 * ```ts
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const throughI2p = NodeConnection.connectI2p({
 *   host: "255fhcp6ajvftnyo7bwz3an3t4a4brhopm3bamyh2iu5r3gnr2rq.b32.i2p",
 *   sam: { host: "127.0.0.1", port: 7656 }
 * })
 * ```
 */
export const connectI2p = (options: ConnectI2pOptions): Effect.Effect<Connection, ConnectionError, Scope.Scope> =>
  isI2pName(options.host)
    ? Effect.flatMap(i2pSession(options, options.host), (session) => session.connect(options.host))
    : Effect.fail(refusedTarget({ host: options.host, port: 0 }, "BadHost", "not an .i2p name"))

/**
 * Accepts connections, one at a time. Connections that wait to be accepted are not read from, and their number is bounded.
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * const program = Effect.gen(function*() {
 *   const listener = yield* NodeConnection.Listener
 *   const connection = yield* listener.accept
 *   return Connection.formatEndpoint(connection.remoteAddress)
 * }).pipe(Effect.scoped, Effect.provide(NodeConnection.layerListen({ port: 18444 })))
 * ```
 */
export interface Listener {
  /** Where it listens, with the port that was taken when it was asked for any. */
  readonly address: Endpoint
  /** All addresses that it listens on; the first is `address`. */
  readonly addresses: NonEmptyReadonlyArray<Endpoint>
  /** How many are open, wait, and were refused. */
  readonly stats: Effect.Effect<ListenerStats>
  /**
   * The next connection, which belongs to the scope of this call, not to the listener's. Several fibers may accept; interrupting one
   * loses no connection. Fails with `Closed` once the listener's scope ended.
   */
  readonly accept: Effect.Effect<Connection, ConnectionError, Scope.Scope>
}

/**
 * The key of the service `Listener` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const Listener: Context.Service<Listener, Listener> = Context.Service<Listener>("effect-bitcoin-peer/Listener")

/**
 * Listens until the scope ends, which also destroys the connections that nobody accepted; accepted ones live on.
 *
 * Fails with `ListenFailed`, its `problem` says why, on the first of several addresses that fails.
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * const echo = Effect.gen(function*() {
 *   const listener = yield* NodeConnection.listen({ port: 0 })
 *   const client = yield* NodeConnection.connect(listener.address)
 *   const server = yield* listener.accept
 *   client.write(Uint8Array.of(42))
 *   for (const bytes of yield* server.pull) server.write(bytes)
 *   return yield* client.pull // [Uint8Array.of(42)]
 * }).pipe(Effect.scoped)
 *
 * await Effect.runPromise(echo)
 * ```
 */
export const listen = (options: ListenOptions): Effect.Effect<Listener, ConnectionError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const { addresses, next, stats } = yield* openListener(options, restore)
      const accept: Listener["accept"] = Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(next(restore), (socket) =>
          adopt(streaming(socket), addressesOf(socket, unspecified), options.closeTimeout)
        )
      )
      return { address: addresses[0], addresses, stats, accept }
    })
  )

/** A `Listener` for as long as the layer lives. */
export const layerListen = (options: ListenOptions): Layer.Layer<Listener, ConnectionError> =>
  Layer.effect(Listener, listen(options))
