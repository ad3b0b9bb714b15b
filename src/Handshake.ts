/**
 * The handshake of two peers: an Effect over a connection that succeeds with what was agreed or fails with a typed
 * error. `Peer.make` runs it; run it alone to ask a node who it is and leave.
 *
 * An outbound peer sends its version first; an inbound one waits for the other's. Then both send, in this order:
 * version, wtxidrelay [339], sendaddrv2 [155], feature… [434] (as far as the common version allows), verack.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Connection } from "./Connection.ts"
import type { Options } from "./handshake/options.ts"
import { type Negotiated, runHandshake } from "./handshake/run.ts"
import type { HandshakeError } from "./HandshakeError.ts"
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
 * Runs the handshake alone over a connection, which stays open whatever comes of it: closing it is the caller's.
 *
 * Succeeds when the peer's verack has arrived. Messages that come right behind it are lost, so this is for asking a node
 * who it is; `Peer.make` is the way to keep talking. Fails with `HandshakeError`.
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
 */
export const run = Effect.fnUntraced(function* (
  connection: Connection,
  options: Options = {}
): Effect.fn.Return<Negotiated, HandshakeError, Nonce | Scope.Scope> {
  const { magic } = options.network ?? Network.mainnet
  const link = yield* MessageConnection.open(connection, magic, options.policy ?? Policy.core)
  return (yield* runHandshake(link, options)).negotiated
}, Effect.scoped)
