/** `btcpeer listen`: accepts peers and watches them until the user ends it. */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Connection, type Endpoint, formatEndpoint } from "effect-bitcoin-peer/Connection"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import type { Nonce } from "effect-bitcoin-peer/Nonce"
import * as Peer from "effect-bitcoin-peer/Peer"
import * as PeerServer from "effect-bitcoin-peer/PeerServer"
import { type Failure, failure } from "./failure.ts"
import { Output } from "./output.ts"
import { makeReport, type Report } from "./report.ts"
import * as Session from "./watch.ts"

/** Watches one connection from its handshake to its end. A failure of one connection does not affect the others. */
const attend = (
  connection: Connection,
  peer: number,
  settings: Session.Settings,
  report: Report,
  until: Effect.Effect<string>
): Effect.Effect<void, never, Nonce | Output> => {
  const source = { peer, address: formatEndpoint(connection.remoteAddress) }
  const refused = (reason: string, message: string): void => report({ event: "refused", ...source, reason, message })
  const make = (options: Peer.Options) => Peer.make(connection, { ...options, direction: "inbound" })
  return Session.open(make, settings, report, source).pipe(
    Effect.map((session) => session.stay(until)),
    Effect.raceFirst(Effect.map(until, (why) => Effect.sync(() => refused("Requested", why)))),
    Effect.flatten,
    Effect.catchTag("HandshakeError", (error) => Effect.sync(() => refused(error.reason._tag, error.message))),
    Effect.scoped
  )
}

/** Accepts peers until the user or the time limit stops it, then disconnects them all. */
export const listen = Effect.fnUntraced(function* (
  endpoint: Endpoint,
  settings: Session.Settings
): Effect.fn.Return<void, Failure, Nonce | Output | Scope.Scope> {
  const output = yield* Output
  const report = yield* makeReport(settings.format)
  const enough = yield* Deferred.make<string>()
  let count = 0

  const listener = yield* NodeConnection.listen(endpoint).pipe(
    Effect.tapError(({ message, reason }) =>
      Effect.sync(() =>
        report({
          event: "failed",
          address: formatEndpoint(endpoint),
          reason: reason._tag === "ListenFailed" ? reason.problem : reason._tag,
          message
        })
      )
    ),
    Effect.mapError(failure)
  )
  report({ event: "listening", address: formatEndpoint(listener.address), network: settings.network.name })
  const watch = (connection: Connection) =>
    attend(connection, ++count, settings, report, Deferred.await(enough)).pipe(
      Effect.catchCause((cause) =>
        Effect.sync(() => {
          if (Cause.hasDies(cause)) output.error(`btcpeer: ${Cause.pretty(cause)}`)
        })
      )
    )
  const stop = Effect.tap(Session.untilAsked(output, settings.limit), (why) => Deferred.succeed(enough, why))
  yield* Effect.mapError(PeerServer.acceptEach(listener, watch, stop), failure)
}, Effect.scoped)
