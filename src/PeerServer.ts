/** Inbound peers: accepts connections and makes a peer of each. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import * as Scope from "effect/Scope"
import type { Connection, ConnectionError } from "./Connection.ts"
import type { HandshakeError } from "./HandshakeError.ts"
import { makeSharedTurns, type SharedTurns } from "./Inventory.ts"
import type { Nonce } from "./Nonce.ts"
import * as Peer from "./Peer.ts"
import { networkGroup } from "./peer/sending.ts"

/** Milliseconds between two turns of a network group, on average (Core). */
const inboundTrickle = 5_000

/**
 * What `serve` does with the peers that connect.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServeOptions<H extends Peer.Handlers<unknown> = Peer.Handlers, E = never, R = never> {
  /** The options of each peer, or a function that returns them for a connection. The direction is always "inbound". */
  readonly peer?: Peer.Options<H> | ((connection: Connection) => Peer.Options<H>) | undefined
  /** Runs beside the peer's handlers and is interrupted when the peer ends; the peer stays when it returns. */
  readonly onPeer?: ((peer: Peer.Peer) => Effect.Effect<unknown, E, R>) | undefined
  /** Called with the error of each handshake that failed. */
  readonly onRefused?: ((error: HandshakeError, connection: Connection) => Effect.Effect<unknown, E, R>) | undefined
}

/**
 * A source of connections, as `NodeConnection.listen` and `NodeConnection.makeI2pSession` make it. A connection belongs to the
 * scope in which it was accepted.
 *
 * @category models
 * @since 0.1.0
 */
export interface Listener {
  readonly accept: Effect.Effect<Connection, ConnectionError, Scope.Scope>
}

/**
 * Accepts connections and runs `attend` for each, in a scope that ends with it; `serve` makes peers with it. When `until`
 * succeeds, no more connections are accepted, and this returns once every `attend` has ended.
 *
 * Fails with `ConnectionError` when the listener fails. Then, and when this is interrupted, every `attend` is interrupted.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, PeerServer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const program = Effect.gen(function*() {
 *   const listener = yield* NodeConnection.listen({ port: 18444 })
 *   const attend = (connection: Connection.Connection) =>
 *     Effect.log(`connected: ${Connection.formatEndpoint(connection.remoteAddress)}`)
 *   yield* PeerServer.acceptEach(listener, attend, Effect.sleep("1 minute"))
 * }).pipe(Effect.scoped)
 * ```
 *
 * @category servers
 * @since 0.1.0
 */
export const acceptEach = Effect.fnUntraced(function* <R>(
  listener: Listener,
  attend: (connection: Connection) => Effect.Effect<unknown, never, R>,
  until: Effect.Effect<unknown> = Effect.never
): Effect.fn.Return<void, ConnectionError, Exclude<R, Scope.Scope>> {
  return yield* Effect.scoped(
    Effect.gen(function* () {
      const fibers = yield* FiberSet.make()
      // An interruption between accepting and forking would leave a connection that no scope closes.
      const acceptOne = Effect.uninterruptibleMask((restore) => {
        const scope = Scope.makeUnsafe()
        return restore(listener.accept).pipe(
          Scope.provide(scope),
          Effect.flatMap((connection) => {
            const attended = Effect.onExit(Scope.provide(attend(connection), scope), (exit) => Scope.close(scope, exit))
            return FiberSet.run(fibers, restore(attended))
          }),
          Effect.onError((cause) => Scope.close(scope, Exit.failCause(cause)))
        )
      })
      const accepting = Effect.forever(acceptOne, { disableYield: true })
      yield* Effect.raceFirst(accepting, until)
      yield* FiberSet.awaitEmpty(fibers)
    })
  )
})

/**
 * Accepts connections for ever and makes an inbound peer of each, in a scope that ends with the peer. A peer that fails in its
 * handshake, in `onPeer` or in `onRefused` ends alone, and the failure is logged at debug level. Announcements go out at the
 * same random times to all peers of a network group, as in Core, so that nobody learns more by connecting often.
 *
 * Fails with `ConnectionError` when the listener fails; all peers end then, and when the Effect is interrupted.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Network, Nonce, PeerServer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const program = Effect.gen(function*() {
 *   const listener = yield* NodeConnection.listen({ port: Network.regtest.port })
 *   yield* PeerServer.serve(listener, {
 *     peer: { network: Network.regtest },
 *     onPeer: (peer) => Effect.log(`${peer.info.userAgent} came from ${peer.info.remoteAddress.host}`),
 *     onRefused: (error) => Effect.log(error.message)
 *   })
 * }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
 * ```
 *
 * @category servers
 * @since 0.1.0
 */
export const serve = Effect.fnUntraced(function* <
  H extends Peer.Handlers<unknown> = Peer.Handlers,
  E = never,
  R = never
>(
  listener: Listener,
  options: ServeOptions<H, E, R> = {}
): Effect.fn.Return<never, ConnectionError, Nonce | Peer.HandlerServices<H> | Exclude<R, Scope.Scope>> {
  const { onPeer, onRefused, peer: peerOptions } = options
  const ofGroups = makeSharedTurns(inboundTrickle)
  /** The turns of the network group of a host, which takes a while to find: most peers are gone before they need one. */
  const turns: SharedTurns = {
    get size() {
      return ofGroups.size
    },
    next: (host, now, random) => ofGroups.next(networkGroup(host), now, random)
  }
  const attend = (connection: Connection) => {
    const own = typeof peerOptions === "function" ? peerOptions(connection) : peerOptions
    const shared = { _tag: "Shared", turns, group: connection.remoteAddress.host } as const
    return Peer.make(connection, { ...own, trickle: own?.trickle ?? shared, direction: "inbound" }).pipe(
      Effect.tapError((error) => onRefused?.(error, connection) ?? Effect.void),
      Effect.flatMap((peer) =>
        onPeer === undefined
          ? peer.awaitShutdown
          : Effect.raceFirst(Effect.andThen(onPeer(peer), Effect.never), peer.awaitShutdown)
      )
    )
  }
  return yield* Effect.andThen(
    acceptEach(listener, (connection) =>
      Effect.ignoreCause(
        Effect.suspend(() => attend(connection)),
        { log: "Debug", message: "inbound peer ended" }
      )
    ),
    Effect.never
  )
})
