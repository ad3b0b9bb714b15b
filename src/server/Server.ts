/**
 * Many peers: a server keeps outbound connections, accepts inbound ones, and replaces those that end. It does what `net` does in
 * Bitcoin Core, and `server` and `connmgr` in btcd.
 *
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
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
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
export type { GateStep, ServerEvent } from "./ServerEvent.ts"

/**
 * Many peers.
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
 * Starts a server. Its peers and listeners end with the scope, all at once, each with a second for what waits to be written. Fails with
 * `ServerError` if an option is wrong or if it cannot listen.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <H extends Peer.Handlers<unknown> = Peer.Handlers, R = never>(
  options: Options<H, R> = {}
): Effect.Effect<Server, ServerError, Dialer | Peer.HandlerServices<H> | Exclude<R, Scope.Scope> | Scope.Scope> =>
  run(options)

/**
 * The service that `make` makes.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <H extends Peer.Handlers<unknown> = Peer.Handlers, R = never>(
  options: Options<H, R> = {}
): Layer.Layer<Server, ServerError, Dialer | Exclude<Peer.HandlerServices<H> | R, Scope.Scope>> =>
  Layer.effect(Server, make(options))
