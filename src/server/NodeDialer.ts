/**
 * Dialers for Node.js: directly, through a SOCKS5 proxy, through Tor to onion services only, and through an I2P router. Combine several
 * with `Dialer.layerCombined`.
 *
 * This module needs Node, so it is not in the barrel: `import * as NodeDialer from "effect-bitcoin-peer/server/NodeDialer"`.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { randomBytes } from "node:crypto"
import * as dns from "node:dns/promises"
import * as Address from "../Address.ts"
import { type Connection, ConnectionError, type DialProblem, type Endpoint } from "../Connection.ts"
import * as NodeConnection from "../NodeConnection.ts"
import {
  Dialer,
  type HostAndPort,
  layer as layerWays,
  make as makeDialer,
  type NetworkName,
  type Target,
  type Way
} from "./Dialer.ts"
import { makeKept, makeTransient } from "./internal/i2pSessions.ts"
import { wayOf } from "./internal/networkNames.ts"
import { makeRandom, shuffle } from "./internal/random.ts"
import { Store } from "./Store.ts"

// ---- directly

/**
 * The options of `layerDirect`.
 *
 * @category options
 * @since 0.1.0
 */
export interface DirectOptions extends NodeConnection.SocketOptions {
  /**
   * The networks to dial; IPv4 and IPv6 by default. Add CJDNS only on a machine that runs it. Names are dialled at their addresses of
   * these networks.
   */
  readonly networks?: ReadonlyArray<"ipv4" | "ipv6" | "cjdns"> | undefined
  /** How long the connection to one address may take, and the lookup of a name; 5 s each by default. */
  readonly connectTimeout?: Duration.Input | undefined
  /**
   * Whether to look up names; true by default. A lookup shows the name to the DNS server. A function replaces the resolver of the system
   * and returns addresses as text.
   */
  readonly names?: boolean | ((host: string) => Promise<ReadonlyArray<string>>) | undefined
}

/** How many addresses of one name are tried (Core). */
const maximumAddresses = 256

const failed = (
  { host, port }: Endpoint,
  problem: DialProblem,
  detail: string | undefined,
  cause?: unknown
): ConnectionError => new ConnectionError({ reason: { _tag: "DialFailed", problem, host, port, detail, cause } })

const endpointOf = (address: Address.Address): Endpoint => ({ host: Address.formatHost(address), port: address.port })

const systemLookup = async (host: string): Promise<ReadonlyArray<string>> =>
  (await dns.lookup(host, { all: true })).map(({ address }) => address)

/** A way for all kinds but one: a transaction that is broadcast in private must not leave from our own address. */
const notPrivate =
  <T extends Target>(way: (target: T) => ReturnType<Way<T>>, endpoint: (target: T) => Endpoint): Way<T> =>
  (target, kind) =>
    kind === "private-broadcast"
      ? Effect.fail(failed(endpoint(target), "NeedsProxy", "private broadcast never dials directly"))
      : way(target)

const direct = (options: DirectOptions): Layer.Layer<Dialer> => {
  const { connectTimeout = "5 seconds", names = true, networks = ["ipv4", "ipv6"], ...socket } = options
  const allowed = new Set<NetworkName>(networks)
  const random = makeRandom(randomBytes(16))

  const connect = (target: Endpoint) => NodeConnection.connect({ ...socket, ...target, connectTimeout })
  const toAddress = notPrivate((address: Address.Address) => connect(endpointOf(address)), endpointOf)

  const lookUp = (
    target: HostAndPort,
    lookup: (host: string) => Promise<ReadonlyArray<string>>
  ): Effect.Effect<ReadonlyArray<string>, ConnectionError> =>
    Effect.tryPromise({
      try: () => lookup(target.host),
      catch: (cause) => {
        const isUnknown = (cause as NodeJS.ErrnoException).code === "ENOTFOUND"
        return failed(target, isUnknown ? "HostNotFound" : "Other", undefined, cause)
      }
    }).pipe(
      Effect.timeoutOrElse({
        duration: connectTimeout,
        orElse: () => Effect.fail(failed(target, "Timeout", "the lookup of the name timed out"))
      }),
      Effect.flatMap((found) => {
        const reached = found.slice(0, maximumAddresses).filter((text) => {
          const host = Address.parseHost(text)
          return Result.isSuccess(host) && allowed.has(wayOf(host.success))
        })
        return reached.length > 0
          ? Effect.succeed(shuffle(random, reached))
          : Effect.fail(failed(target, "HostNotFound", `the name has no address of ${networks.join(" or ")}`))
      })
    )
  const toName = (lookup: (host: string) => Promise<ReadonlyArray<string>>) =>
    notPrivate(
      (target: HostAndPort) =>
        Effect.flatMap(lookUp(target, lookup), ([first, ...others]) =>
          others.reduce(
            (dialled, host) => Effect.catch(dialled, () => connect({ host, port: target.port })),
            connect({ host: first!, port: target.port })
          )
        ),
      (target) => target
    )

  const wayTo = (network: NetworkName) => (allowed.has(network) ? toAddress : undefined)
  return layerWays({
    ipv4: wayTo("ipv4"),
    ipv6: wayTo("ipv6"),
    cjdns: wayTo("cjdns"),
    names: names === false ? undefined : toName(names === true ? systemLookup : names)
  })
}

/**
 * Dials directly, over TCP: IPv4, IPv6 and names. The addresses of a name are tried in random order, one after the other. The kind
 * "private-broadcast" fails with `NeedsProxy`, because it would show our address.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerDirect = (options: DirectOptions = {}): Layer.Layer<Dialer> => Layer.suspend(() => direct(options))

// ---- through a SOCKS5 proxy

/**
 * The options of `layerOnion`.
 *
 * @category options
 * @since 0.1.0
 */
export interface OnionOptions extends NodeConnection.SocketOptions {
  /** Tor listens at 127.0.0.1:9050 by default. Without a user, each connection has a random user and password (see `isolate`). */
  readonly proxy: NodeConnection.Socks5Proxy
  /** How long a dial may take, the connection to the proxy included; 30 s by default. */
  readonly connectTimeout?: Duration.Input | undefined
}

/**
 * The options of `layerSocks`.
 *
 * @category options
 * @since 0.1.0
 */
export interface SocksOptions extends OnionOptions {
  /** The networks that the proxy reaches; IPv4, IPv6 and onion by default. Names are dialled if both IPv4 and IPv6 are among them. */
  readonly networks?: ReadonlyArray<"ipv4" | "ipv6" | "onion" | "cjdns"> | undefined
}

/**
 * Dials through a SOCKS5 proxy. The proxy looks up names, so this machine makes no DNS request. Tor uses a new circuit for each
 * connection unless `isolate` of the proxy is false; the kind "private-broadcast" always gets a new one.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerSocks = (options: SocksOptions): Layer.Layer<Dialer> => {
  const { networks = ["ipv4", "ipv6", "onion"], proxy, ...rest } = options
  const connect = (target: Endpoint, kind: string): Effect.Effect<Connection, ConnectionError, Scope.Scope> =>
    NodeConnection.connectSocks5({
      ...rest,
      host: target.host,
      port: target.port,
      proxy: kind === "private-broadcast" ? { ...proxy, isolate: true } : proxy
    })
  const toAddress: Way<Address.Address> = (address, kind) => connect(endpointOf(address), kind)
  return layerWays(
    { ipv4: toAddress, ipv6: toAddress, onion: toAddress, cjdns: toAddress, names: connect },
    { onlynet: networks }
  )
}

/**
 * Dials only onion services, through Tor. All other addresses and all names are `Unreachable`: no request is made for them.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerOnion = (options: OnionOptions): Layer.Layer<Dialer> =>
  layerSocks({ ...options, networks: ["onion"] })

// ---- through an I2P router

/**
 * The options of `layerI2p`.
 *
 * @category options
 * @since 0.1.0
 */
export interface I2pOptions extends NodeConnection.SocketOptions {
  /** The address of the router for SAM 3.1; 127.0.0.1 with port 7656 by default. */
  readonly sam?: Endpoint | undefined
  /** How long each request may take: making a session, a dial; 3 minutes by default. */
  readonly connectTimeout?: Duration.Input | undefined
  /**
   * The destination to dial from. "transient", the default: a new one for each connection; the router needs seconds to build its tunnels.
   * "persistent": the one at which we accept, as in Bitcoin Core. All remotes then see one and the same node.
   */
  readonly i2pDials?: "persistent" | "transient" | undefined
}

/**
 * Our persistent I2P destination. Its key is in the store under `i2p_private_key`, in the format of Bitcoin Core.
 *
 * @category models
 * @since 0.1.0
 */
export interface I2p {
  /** Our address. A session is made if there is no session yet. */
  readonly address: Effect.Effect<Address.Address, ConnectionError>
  /**
   * Waits for the next inbound stream, and makes a session if there is none yet. A server listens with it: `binds: [{ listen:
   * Effect.succeed({ accept }), kind: "i2p" }]`. If the router fails, it tries again after 1 s, and 1 s longer each time, up to 5 minutes
   * (Core); a session is made at most once in 30 s.
   */
  readonly accept: Effect.Effect<Connection, never, Scope.Scope>
}

/**
 * The key of the service `I2p` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const I2p: Context.Service<I2p, I2p> = Context.Service<I2p>("effect-bitcoin-peer/server/I2p")

/** The longest pause in seconds after the router failed (Core). */
const maximumPause = 300

/** The name of the key of our destination in the store, as in Bitcoin Core. */
const keyName = "i2p_private_key"

/** The base64 of I2P has - and ~ instead of + and /. Bitcoin Core keeps the bytes. */
const toI2p = (bytes: Uint8Array): string =>
  Buffer.from(bytes).toString("base64").replaceAll("+", "-").replaceAll("/", "~")
const fromI2p = (text: string): Uint8Array =>
  new Uint8Array(Buffer.from(text.replaceAll("-", "+").replaceAll("~", "/"), "base64"))

/** Makes the session of our kept destination: with the key of the store, or with a new one that is saved. */
const keptSession = (
  options: NodeConnection.I2pOptions,
  store: Store
): ReturnType<typeof NodeConnection.makeI2pSession> =>
  Effect.gen(function* () {
    const key = yield* Effect.orElseSucceed(store.load(keyName), () => Option.none<Uint8Array>())
    if (Option.isSome(key)) {
      const made = yield* Effect.result(NodeConnection.makeI2pSession({ ...options, privateKey: toI2p(key.value) }))
      if (Result.isSuccess(made)) return made.success
      const { reason } = made.failure
      if (reason._tag !== "DialFailed" || reason.problem !== "BadHost") return yield* made.failure
      yield* Effect.logWarning(`${keyName} is not a private key of I2P: it is put aside, and a new one is made`)
      yield* Effect.ignore(store.quarantine(keyName))
    }
    const session = yield* NodeConnection.makeI2pSession(options)
    yield* Effect.catch(store.save(keyName, fromI2p(session.privateKey)), (error) => Effect.logWarning(error.message))
    return session
  })

/** Tries again until a stream is accepted, with pauses that grow. */
const patient = (
  accept: Effect.Effect<Connection, ConnectionError, Scope.Scope>,
  seconds = 1
): Effect.Effect<Connection, never, Scope.Scope> =>
  Effect.catch(accept, (error) =>
    Effect.logDebug(`I2P accepts no streams, next try in ${seconds} s: ${error.message}`).pipe(
      Effect.andThen(Effect.sleep(Duration.seconds(seconds))),
      Effect.andThen(patient(accept, Math.min(seconds + 1, maximumPause)))
    )
  )

/** SAM 3.1 has no ports. An address with another port is not that of a node: Bitcoin Core refuses it, too. */
const portZero = (address: Address.Address): Effect.Effect<string, ConnectionError> => {
  const { host, port } = endpointOf(address)
  return port === 0
    ? Effect.succeed(host)
    : Effect.fail(failed({ host, port }, "BadPort", "I2P has no ports: the port must be 0"))
}

/**
 * Dials I2P destinations through a router, over SAM 3.1, and has our own destination to accept at. A session is made when it is needed:
 * the router need not run before. The sessions of failed dials are used again, at most 10. Private broadcast always has a new one.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { Dialer } from "effect-bitcoin-peer/server"
 * import * as NodeDialer from "effect-bitcoin-peer/server/NodeDialer"
 * import * as NodeStore from "effect-bitcoin-peer/server/NodeStore"
 *
 * // Only I2P and Tor: no way leads to other networks, and no name is ever looked up.
 * export const Live = Dialer.layerCombined([
 *   NodeDialer.layerI2p({ i2pDials: "persistent" }),
 *   NodeDialer.layerOnion({ proxy: { host: "127.0.0.1", port: 9050 } })
 * ]).pipe(Layer.provide(NodeStore.layerDirectory("/var/lib/node")))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerI2p = (options: I2pOptions = {}): Layer.Layer<Dialer | I2p, never, Store> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const { i2pDials = "transient", ...session } = options
      const store = yield* Store
      const kept = yield* makeKept(keptSession(session, store))
      const transient = yield* makeTransient(NodeConnection.makeI2pSession(session))
      const dial = (host: string, kind: string): Effect.Effect<Connection, ConnectionError, Scope.Scope> => {
        if (kind === "private-broadcast") return transient.dialAlone(host)
        return i2pDials === "persistent" ? kept.use((session) => session.connect(host)) : transient.dial(host)
      }
      const i2p: I2p = {
        address: kept.use(({ address }) =>
          Effect.fromResult(Address.parse(address.host)).pipe(
            Effect.mapError((cause) => failed(address, "ProxyBroken", "the I2P router gave us no address", cause))
          )
        ),
        accept: patient(kept.use((session) => session.accept))
      }
      const dialer = makeDialer({
        i2p: (address, kind) => Effect.flatMap(portZero(address), (host) => dial(host, kind))
      })
      return Context.make(Dialer, dialer).pipe(Context.add(I2p, i2p))
    })
  )
