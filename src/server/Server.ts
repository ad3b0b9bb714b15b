/**
 * Many peers: a server keeps outbound connections, accepts inbound ones, and replaces those that end. It does what `net` does in
 * Bitcoin Core, and `server` and `connmgr` in btcd.
 *
 * It requires a `Dialer`. It also uses these services if its context has them: `Store` (files), `Seeds` (DNS), `AddressBook`, `BanList`,
 * `LocalAddresses`, `ChainView`, and Effect's `SecureRandom`. They are optional, so they are not in the type of the layer. Provide them to
 * that layer (`Layer.provide`): services that are only merged with it are not found, and the server runs without them.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Network } from "effect-bitcoin-peer"
 * import { Dialer, Server } from "effect-bitcoin-peer/server"
 *
 * // A program on Node provides `NodeDialer.layerDirect()`.
 * export const peers = (dialer: Dialer.Dialer) =>
 *   Effect.gen(function*() {
 *     const server = yield* Server.Server
 *     return yield* server.awaitPeers(1)
 *   }).pipe(
 *     Effect.provide(Server.layer({ network: Network.regtest, added: ["127.0.0.1"] })),
 *     Effect.provideService(Dialer.Dialer, dialer)
 *   )
 * ```
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Network from "../Network.ts"
import type * as Peer from "../Peer.ts"
import type { Dialer } from "./Dialer.ts"
import type { Options, Server as Service, ServerError } from "./internal/model.ts"
import { run } from "./internal/run.ts"

export {
  type AddedNode,
  type Bind,
  type ConnectedPeer,
  DialError,
  type Options,
  ServerError,
  type ServerReason
} from "./internal/model.ts"
export { Duplicate, formatEvent, type GateStep, type ServerEvent } from "./ServerEvent.ts"

/**
 * A running server: its peers, its events, and functions to add, end and ban peers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Server extends Service {}

/**
 * The key of the service `Server` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const Server: Context.Service<Server, Server> = Context.Service<Server>("effect-bitcoin-peer/server/Server")

/**
 * Starts a server. When the scope closes, its listeners close, all peers end at the same time (each may flush for a second), and the files
 * are saved. Fails with `ServerError` if an option is wrong or a bind cannot listen. The module comment lists the optional services.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <H extends Peer.Handlers<unknown> = Peer.Handlers, R = never>(
  options: Options<H, R> = {}
): Effect.Effect<Server, ServerError, Dialer | Peer.HandlerServices<H> | Exclude<R, Scope.Scope> | Scope.Scope> =>
  run(options)

/**
 * The server of `make`. It lives as long as the layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <H extends Peer.Handlers<unknown> = Peer.Handlers, R = never>(
  options: Options<H, R> = {}
): Layer.Layer<Server, ServerError, Dialer | Exclude<Peer.HandlerServices<H> | R, Scope.Scope>> =>
  Layer.effect(Server, make(options))

const optional = <A>(setting: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(setting, undefined)

/** A list of texts separated by commas. */
const list = (name: string): Config.Config<ReadonlyArray<string> | undefined> =>
  optional(
    Config.map(Config.String(name), (text) =>
      text
        .split(",")
        .map((part) => part.trim())
        .filter((part) => part !== "")
    )
  )

/**
 * The settings of `layerConfig`. Lists, separated by commas: BTCSERVER_ADDED, BTCSERVER_CONNECT, BTCSERVER_SEED_NODES,
 * BTCSERVER_EXTERNAL, BTCSERVER_WHITELIST. Numbers: BTCSERVER_FULL_RELAY, BTCSERVER_BLOCK_RELAY, BTCSERVER_MAX_MANUAL,
 * BTCSERVER_MAX_INBOUND. Booleans: BTCSERVER_FIXED_SEEDS, BTCSERVER_FEELERS, BTCSERVER_FLEET. A name: BTCSERVER_NETWORK.
 *
 * @category options
 * @since 0.1.0
 */
export const config: Config.Config<Options> = Config.all({
  network: optional(Config.map(Config.Literals(Network.names, "BTCSERVER_NETWORK"), Network.fromName)),
  added: list("BTCSERVER_ADDED"),
  connect: list("BTCSERVER_CONNECT"),
  seedNodes: list("BTCSERVER_SEED_NODES"),
  external: list("BTCSERVER_EXTERNAL"),
  whitelist: list("BTCSERVER_WHITELIST"),
  fullRelay: optional(Config.Int("BTCSERVER_FULL_RELAY")),
  blockRelay: optional(Config.Int("BTCSERVER_BLOCK_RELAY")),
  maxManual: optional(Config.Int("BTCSERVER_MAX_MANUAL")),
  maxInbound: optional(Config.Int("BTCSERVER_MAX_INBOUND")),
  fixedSeeds: optional(Config.Boolean("BTCSERVER_FIXED_SEEDS")),
  feelers: optional(Config.Boolean("BTCSERVER_FEELERS")),
  fleet: optional(Config.Boolean("BTCSERVER_FLEET"))
})

/**
 * `layer` with settings from configuration: by default `config`, the BTCSERVER_ variables of the environment. A configured setting
 * overrides the one in `options`. Fails with `ServerError`, and with `ConfigError` for an invalid value.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = <H extends Peer.Handlers<unknown> = Peer.Handlers, R = never>(
  options: Options<H, R> = {},
  settings: Config.Config<Options> = config
): Layer.Layer<Server, Config.ConfigError | ServerError, Dialer | Exclude<Peer.HandlerServices<H> | R, Scope.Scope>> =>
  Layer.unwrap(
    Effect.map(settings, (configured) => {
      const given = Object.entries(configured).filter(([, value]) => value !== undefined)
      return layer<H, R>({ ...options, ...Object.fromEntries(given) })
    })
  )
