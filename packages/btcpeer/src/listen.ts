/** `btcpeer listen`: accepts peers and watches them until the user ends it. */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberSet from "effect/FiberSet"
import { type Connection, type ConnectionError, type Endpoint, formatEndpoint } from "effect-bitcoin-peer/Connection"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import type { Nonce } from "effect-bitcoin-peer/Nonce"
import * as Peer from "effect-bitcoin-peer/Peer"
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
): Effect.fn.Return<void, Failure, Nonce | Output> {
  const output = yield* Output
  const report = yield* makeReport(settings.format)
  const enough = yield* Deferred.make<string>()
  let count = 0

  const accepting = (fibers: FiberSet.FiberSet, listener: NodeConnection.Listener) =>
    Effect.gen(function* () {
      while (true) {
        // An accepted connection belongs to the scope that accepts it: that of the fiber that watches it.
        const accepted = yield* Deferred.make<void, ConnectionError>()
        const one = listener.accept.pipe(
          Effect.onExit((exit) => Deferred.done(accepted, Exit.asVoid(exit))),
          Effect.flatMap((connection) => attend(connection, ++count, settings, report, Deferred.await(enough))),
          Effect.scoped,
          Effect.catchCause((cause) =>
            Effect.sync(() => {
              if (Cause.hasDies(cause)) output.error(`btcpeer: ${Cause.pretty(cause)}`)
            })
          )
        )
        yield* FiberSet.run(fibers, one)
        yield* Deferred.await(accepted)
      }
    })

  yield* Effect.scoped(
    Effect.gen(function* () {
      const fibers = yield* FiberSet.make()
      // The listener has a scope of its own: it is closed before the peers are disconnected.
      yield* Effect.scoped(
        Effect.gen(function* () {
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
            )
          )
          const { name: network } = settings.network
          report({ event: "listening", address: formatEndpoint(listener.address), network })
          const why = yield* Effect.raceFirst(accepting(fibers, listener), Session.untilAsked(output, settings.limit))
          yield* Deferred.succeed(enough, why)
        })
      )
      yield* FiberSet.awaitEmpty(fibers)
    })
  ).pipe(Effect.mapError(failure))
})
