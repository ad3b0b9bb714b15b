/** `btcpeer connect`: one peer, watched until it or the user ends it. */
import * as Effect from "effect/Effect"
import { type ConnectionError, type Endpoint, formatEndpoint } from "effect-bitcoin-peer/Connection"
import type { HandshakeError } from "effect-bitcoin-peer/Handshake"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import type { Nonce } from "effect-bitcoin-peer/Nonce"
import * as Peer from "effect-bitcoin-peer/Peer"
import { Failure } from "./failure.ts"
import { Output } from "./output.ts"
import { makeReport } from "./report.ts"
import * as Session from "./watch.ts"

/** How to get there. */
export type Way =
  | { readonly _tag: "Direct" }
  | { readonly _tag: "Socks5"; readonly proxy: NodeConnection.Socks5Proxy }
  | { readonly _tag: "I2p"; readonly sam: Endpoint }

const dial = (endpoint: Endpoint, way: Way, connectTimeout: Session.Settings["timeout"]) => {
  switch (way._tag) {
    case "Direct":
      return NodeConnection.connect({ ...endpoint, connectTimeout })
    case "Socks5":
      return NodeConnection.connectSocks5({ ...endpoint, proxy: way.proxy, connectTimeout })
    case "I2p":
      return NodeConnection.connectI2p({ host: endpoint.host, sam: way.sam, connectTimeout })
  }
}

/** What went wrong; where another way is needed, by the flag that takes it. */
const problemOf = ({ message, reason }: HandshakeError | ConnectionError, endpoint: Endpoint): string => {
  if (reason._tag !== "DialFailed" || reason.problem !== "NeedsProxy") return message
  const way = /\.onion\.?$/i.test(endpoint.host)
    ? "an .onion name is reached through Tor: --proxy socks5://127.0.0.1:9050"
    : "an .i2p name is reached through an I2P router: --i2p-sam 127.0.0.1:7656"
  return `connect ${formatEndpoint(endpoint)}: ${way}`
}

/** Succeeds when we ended it, fails with how it ended otherwise. */
export const connect = Effect.fnUntraced(function* (
  endpoint: Endpoint,
  way: Way,
  options: Session.Settings
): Effect.fn.Return<void, Failure, Nonce | Output> {
  const output = yield* Output
  const report = yield* makeReport(options.format)
  const address = formatEndpoint(endpoint)
  const end = yield* Session.open(
    (peerOptions, connected) => Peer.dial(Effect.tap(dial(endpoint, way, options.timeout), connected), peerOptions),
    options,
    report,
    undefined
  ).pipe(
    Effect.catch((error) => {
      const { reason } = error
      const message = problemOf(error, endpoint)
      report({
        event: "failed",
        address,
        reason: reason._tag === "DialFailed" ? reason.problem : reason._tag,
        message
      })
      return Effect.fail(new Failure({ message }))
    }),
    Effect.flatMap((session) => session.stay(Session.untilAsked(output, options.limit))),
    Effect.scoped
  )
  if (end._tag !== "Requested") return yield* new Failure({ message: Peer.describeEnd(end) })
})
