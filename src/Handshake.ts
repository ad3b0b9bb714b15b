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
import { badOption, type Options } from "./handshake/options.ts"
import { type Negotiated, runHandshake } from "./handshake/run.ts"
import { HandshakeError } from "./HandshakeError.ts"
import * as Network from "./Network.ts"
import type { Nonce } from "./Nonce.ts"
import * as Policy from "./Policy.ts"
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
