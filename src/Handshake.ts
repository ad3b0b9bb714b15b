/**
 * The handshake of two peers: an Effect over a connection. It succeeds with the agreement of both sides, or fails with a
 * typed error. `Peer.make` runs it; run it alone to learn about a node and leave.
 *
 * The outbound peer sends its version first; the inbound peer waits for it. Then both send, in this order: version,
 * wtxidrelay (BIP339), sendaddrv2 (BIP155), feature… (BIP434), as far as the common version allows, and verack.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Connection } from "./Connection.ts"
import { establish } from "./handshake/negotiateTransport.ts"
import { badOption, type Options } from "./handshake/options.ts"
import { type Negotiated, runHandshake } from "./handshake/run.ts"
import { HandshakeError } from "./HandshakeError.ts"
import * as Network from "./Network.ts"
import type { Nonce } from "./Nonce.ts"
import * as Policy from "./Policy.ts"
import { maxGarbageLength } from "./Transport.ts"
import type * as Wire from "./Wire.ts"
import { MessageConnection } from "./transport/messageConnection.ts"

export {
  defaultMinimumProtocolVersion,
  defaultProtocolVersion,
  defaultUserAgent,
  type Options
} from "./handshake/options.ts"
export type { Negotiated } from "./handshake/run.ts"
export { HandshakeError, type HandshakeReason, isHandshakeError } from "./HandshakeError.ts"

/**
 * Runs the handshake alone over a connection, and leaves the connection open whether it succeeds or fails. The caller
 * closes it.
 *
 * Succeeds when the peer's verack has arrived. Messages that arrive together with the verack are lost: use it to learn
 * about a node, and `Peer.make` to stay connected. Fails with `HandshakeError`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Handshake, Network, Nonce } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * export const whoIs = (host: string) =>
 *   Effect.gen(function*() {
 *     const connection = yield* NodeConnection.connect({ host, port: Network.signet.port })
 *     const { services, userAgent } = yield* Handshake.run(connection, { network: Network.signet })
 *     return { services, userAgent }
 *   }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = Effect.fnUntraced(function* (
  connection: Connection,
  options: Options = {}
): Effect.fn.Return<Negotiated, HandshakeError, Nonce | Scope.Scope> {
  const wrong = badOption(options)
  if (wrong !== undefined) return yield* new HandshakeError({ reason: { _tag: "BadOptions", error: wrong } })
  const { magic } = options.network ?? Network.mainnet
  const link = yield* MessageConnection.open(connection, magic, options.policy ?? Policy.core)
  return (yield* runHandshake(link, options)).negotiated
}, Effect.scoped)

/**
 * The messages of a connection, without a peer: nothing is sent or answered by itself.
 *
 * @category models
 * @since 0.1.0
 */
export interface Messages {
  readonly transport: "v1" | "v2"
  /**
   * Waits for the next messages. An empty batch means that bytes arrived which did not complete one. Fails with `Disconnected` at the
   * end of the connection, and with `WrongNetwork` or `BadMessage` once the stream cannot be read any more.
   */
  readonly read: Effect.Effect<ReadonlyArray<Wire.ParserEvent>, HandshakeError>
  /** Writes messages in one piece. Returns the error of the first that cannot be encoded; nothing is written then. */
  readonly write: (messages: ReadonlyArray<Wire.Message>) => Wire.WireError | undefined
}

/**
 * Opens the transport of an outbound connection, and runs no handshake on it: for protocols of messages other than that of a peer. With
 * "v2" the key exchange is done when this returns; it fails with `V2NotSpoken` if the remote does not support it, and has no time limit.
 * Use "v2" only where the remote is known to support it. The connection stays open in any case.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { type Connection, Handshake, Network } from "effect-bitcoin-peer"
 *
 * export const firstMessages = (connection: Connection.Connection) =>
 *   Effect.scoped(
 *     Effect.gen(function*() {
 *       const messages = yield* Handshake.openTransport(connection, { network: Network.signet, transport: "v2" })
 *       return yield* messages.read
 *     })
 *   )
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const openTransport = Effect.fnUntraced(function* (
  connection: Connection,
  options: Pick<Options, "network" | "policy"> & { readonly transport: "v1" | "v2" }
): Effect.fn.Return<Messages, HandshakeError, Scope.Scope> {
  const { network = Network.mainnet, policy = Policy.core, transport } = options
  const link = yield* MessageConnection.open(connection, network.magic, policy)
  let held: ReadonlyArray<Wire.ParserEvent> = []
  if (transport === "v2") {
    held = yield* Effect.mapError(
      establish(link, {
        direction: "outbound",
        garbageLimit: maxGarbageLength,
        network,
        onOpening: () => {},
        policy,
        // Only "auto" gives up a silent remote.
        silence: Infinity,
        transport
      }),
      (reason) => new HandshakeError({ reason })
    )
  }
  const read = Effect.suspend((): Messages["read"] => {
    if (held.length > 0) {
      const events = held
      held = []
      return Effect.succeed(events)
    }
    const { failure } = link
    if (failure === undefined) {
      return Effect.mapError(link.read, (error) => new HandshakeError({ reason: { _tag: "Disconnected", error } }))
    }
    const reason = failure.reason
    return Effect.fail(
      new HandshakeError({
        reason:
          reason._tag === "WrongMagic"
            ? { _tag: "WrongNetwork", expected: network, received: reason.received }
            : { _tag: "BadMessage", error: failure }
      })
    )
  })
  return { transport, read, write: (messages) => link.write(messages) }
})
