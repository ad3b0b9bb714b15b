/**
 * Connections over TCP with `node:net`: `connect` dials, `connectSocks5` dials through Tor or another SOCKS5 proxy,
 * `connectI2p` dials through an I2P router, and `listen` accepts.
 *
 * This is the only public module that needs Node, so it is not in the barrel: `import * as NodeConnection from
 * "effect-bitcoin-peer/NodeConnection"`.
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

/**
 * How a socket is used.
 *
 * @category options
 * @since 0.1.0
 */
export interface SocketOptions {
  /** How long `close` waits for the flush and the remote's end before it destroys the socket; 500 ms by default. */
  readonly closeTimeout?: Duration.Input | undefined
  /** Whether small writes are sent at once (TCP_NODELAY); true by default. */
  readonly noDelay?: boolean | undefined
}

/**
 * The target of a dial, and how to dial it.
 *
 * @category options
 * @since 0.1.0
 */
export interface ConnectOptions extends SocketOptions, DialOptions {}

/**
 * The target of a dial through a SOCKS5 proxy, and how to dial it.
 *
 * @category options
 * @since 0.1.0
 */
export interface ConnectSocks5Options extends SocketOptions {
  /** A name, also an .onion name, or an address. The proxy looks it up: no DNS request is made here. */
  readonly host: string
  readonly port: number
  readonly proxy: Socks5Proxy
  /**
   * How long the dial may take, the connection to the proxy included; 30 s by default, because an onion service takes a
   * while.
   */
  readonly connectTimeout?: Duration.Input | undefined
}

/**
 * How to use an I2P router.
 *
 * @category options
 * @since 0.1.0
 */
export interface I2pOptions extends SocketOptions {
  /** The address of the router for SAM 3.1; 127.0.0.1 with port 7656 by default. */
  readonly sam?: Endpoint | undefined
  /** Our destination, as the `privateKey` of an earlier session in I2P's base64. By default a new one is made. */
  readonly privateKey?: string | undefined
  /** How long each request may take: making the session, a dial; 3 minutes by default, as in Bitcoin Core. */
  readonly connectTimeout?: Duration.Input | undefined
}

/**
 * The target of a dial through an I2P router, and how to dial it.
 *
 * @category options
 * @since 0.1.0
 */
export interface ConnectI2pOptions extends I2pOptions {
  /** A name that ends in .i2p, usually 52 characters and .b32.i2p. I2P has no ports. */
  readonly host: string
}

/**
 * A destination of our own in the I2P network. It lives as long as its scope. `PeerServer.serve` takes it as a listener.
 *
 * @category models
 * @since 0.1.0
 */
export interface I2pSession extends Session<Connection> {}

/**
 * The addresses to listen on, and the limits.
 *
 * @category options
 * @since 0.1.0
 */
export interface ListenOptions extends SocketOptions, ListenerSettings {}

/**
 * Dials, and returns the connection when it is established. Interruption and the time limit destroy the half-open
 * socket. The end of the scope closes the connection.
 *
 * Fails with `DialFailed`; its `problem` says why.
 *
 * @example
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
 *
 * @category constructors
 * @since 0.1.0
 */
export const connect = (options: ConnectOptions): Effect.Effect<Connection, ConnectionError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(dial(options, restore), (source) =>
      adopt(source, addressesOf(source.socket, options), options.closeTimeout)
    )
  )

/**
 * The connection of `connect`, for as long as the layer lives.
 *
 * @example
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
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConnect = (options: ConnectOptions): Layer.Layer<Connection, ConnectionError> =>
  Layer.effect(Connection, connect(options))

/**
 * Dials through a SOCKS5 proxy (RFC 1928, RFC 1929) such as Tor. Only the proxy looks up names: no DNS request is made
 * here, .onion names work, and each connection has a circuit of its own (see `isolate`).
 *
 * Fails with `DialFailed`, whose message names the target and the proxy. `ProxyUnreachable`, `ProxyAuthFailed`,
 * `ProxyRefused` and `ProxyBroken` are problems of the proxy. `Refused`, `Unreachable` and `HostNotFound` are its answer
 * about the target, with Tor's explanation for onion services; `cause` is the number of its reply. Interruption and the
 * time limit destroy the socket.
 *
 * The addresses of the connection do not show the proxy: `remoteAddress` is `host` and `port` as given, `localAddress`
 * is 0.0.0.0 with port 0.
 *
 * @example
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
 *
 * @category constructors
 * @since 0.1.0
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
 * Opens a session with an I2P router over SAM 3.1: a destination of our own, from which to dial and at which to accept.
 * The router ends all connections of a session with the session.
 *
 * Fails with `DialFailed` as `connectSocks5` does. Where no target is meant, the host is `i2p`.
 *
 * @example
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
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeI2pSession = (options: I2pOptions = {}): Effect.Effect<I2pSession, ConnectionError, Scope.Scope> =>
  i2pSession(options, undefined)

/** `target` is the host that an error names. */
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
 * Dials through an I2P router over SAM 3.1, from a destination that is made for this connection or given by
 * `privateKey`. It ends with the scope of the connection. Fails with `DialFailed`. The addresses are .b32.i2p names with
 * port 0.
 *
 * @example
 * ```ts
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const throughI2p = NodeConnection.connectI2p({
 *   host: "255fhcp6ajvftnyo7bwz3an3t4a4brhopm3bamyh2iu5r3gnr2rq.b32.i2p",
 *   sam: { host: "127.0.0.1", port: 7656 }
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const connectI2p = (options: ConnectI2pOptions): Effect.Effect<Connection, ConnectionError, Scope.Scope> =>
  isI2pName(options.host)
    ? Effect.flatMap(i2pSession(options, options.host), (session) => session.connect(options.host))
    : Effect.fail(refusedTarget({ host: options.host, port: 0 }, "BadHost", "not an .i2p name"))

/**
 * Accepts connections, one at a time. A connection that waits to be accepted is not read from, and the number of such
 * connections is limited.
 *
 * @example
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
 *
 * @category models
 * @since 0.1.0
 */
export interface Listener {
  /** The address on which it listens. If port 0 was requested, this has the port that the system chose. */
  readonly address: Endpoint
  /** All addresses on which it listens; the first is `address`. */
  readonly addresses: NonEmptyReadonlyArray<Endpoint>
  /** How many connections are open, wait to be accepted, and were refused. */
  readonly stats: Effect.Effect<ListenerStats>
  /**
   * Waits for the next connection. It belongs to the scope of this call, not to that of the listener. Several fibers may
   * accept. Interruption loses no connection. Fails with `Closed` after the end of the listener's scope.
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
 * Listens until the scope ends. The end of the scope destroys the connections that were not accepted; accepted ones live
 * on.
 *
 * Fails with `ListenFailed` at the first of several addresses that fails; its `problem` says why.
 *
 * @example
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
 *
 * @category constructors
 * @since 0.1.0
 */
export const listen = (options: ListenOptions): Effect.Effect<Listener, ConnectionError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const { addresses, next, stats } = yield* openListener(options, restore)
      const accept: Listener["accept"] = Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(next(restore), (socket) => adopt(streaming(socket), addressesOf(socket), options.closeTimeout))
      )
      return { address: addresses[0], addresses, stats, accept }
    })
  )

/**
 * The `Listener` of `listen`, for as long as the layer lives.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerListen = (options: ListenOptions): Layer.Layer<Listener, ConnectionError> =>
  Layer.effect(Listener, listen(options))
