/** `btcpeer connect`: one peer, watched until it or the user ends it. */
import * as Effect from "effect/Effect"
import type { Endpoint } from "../Connection.ts"
import * as NodeConnection from "../NodeConnection.ts"
import type { Nonce } from "../Nonce.ts"
import * as Peer from "../Peer.ts"
import { Failure, failure } from "./failure.ts"
import { Output } from "./output.ts"
import { makeReport } from "./report.ts"
import * as Session from "./session.ts"

/** Succeeds when we ended it, fails with how it ended otherwise. */
export const connect = Effect.fnUntraced(function* (
  endpoint: Endpoint,
  options: Session.Settings
): Effect.fn.Return<void, Failure, Nonce | Output> {
  const output = yield* Output
  const report = yield* makeReport(options.json)
  const connect = NodeConnection.connect({ ...endpoint, connectTimeout: options.timeout })
  const end = yield* Session.open(
    (peerOptions, connected) => Peer.dial(Effect.tap(connect, connected), peerOptions),
    options,
    report,
    undefined
  ).pipe(
    Effect.mapError(failure),
    Effect.flatMap((session) => session.stay(Session.untilAsked(output, options.limit))),
    Effect.scoped
  )
  if (end._tag !== "Requested") return yield* new Failure({ message: Peer.describeEnd(end) })
})
