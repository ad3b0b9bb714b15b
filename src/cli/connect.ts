/** `btcpeer connect`: one peer, watched until it or the user ends it. */
import * as Effect from "effect/Effect"
import type { Endpoint } from "../Connection.ts"
import * as NodeConnection from "../NodeConnection.ts"
import type { Nonce } from "../Nonce.ts"
import { describeEnd } from "../Peer.ts"
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
  const end = yield* NodeConnection.connect({ ...endpoint, connectTimeout: options.timeout }).pipe(
    Effect.flatMap((connection) => Session.open(connection, "outbound", options, report, undefined)),
    Effect.mapError(failure),
    Effect.flatMap((session) => session.stay(Session.untilAsked(output, options.limit))),
    Effect.scoped
  )
  if (end._tag !== "Requested") return yield* new Failure({ message: describeEnd(end) })
})
