/** `btcpeer connect`: watches one peer until the peer or the user disconnects. */
import { secp256k1 } from "@noble/curves/secp256k1.js"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { type ConnectionError, type Endpoint, formatEndpoint } from "effect-bitcoin-peer/Connection"
import { HandshakeError } from "effect-bitcoin-peer/Handshake"
import * as Network from "effect-bitcoin-peer/Network"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import type { Nonce } from "effect-bitcoin-peer/Nonce"
import * as Peer from "effect-bitcoin-peer/Peer"
import { Failure } from "./failure.ts"
import { Output } from "./output.ts"
import { makeReport } from "./report.ts"
import * as Session from "./watch.ts"

/** The way to the node. */
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

/** The network that the peer is on instead of ours, as far as its bytes or its port tell. */
const otherNetwork = ({ reason }: HandshakeError | ConnectionError): Network.Network | undefined =>
  reason._tag === "WrongNetwork"
    ? Network.fromMagic(reason.received)
    : "likelyNetwork" in reason
      ? reason.likelyNetwork
      : undefined

/** What went wrong and, where another flag is needed, which one. */
const problemOf = (error: HandshakeError | ConnectionError, endpoint: Endpoint): string => {
  const { message, reason } = error
  if (reason._tag === "DialFailed" && reason.problem === "NeedsProxy") {
    const way = /\.onion\.?$/i.test(endpoint.host)
      ? "an .onion name is reached through Tor: --proxy socks5://127.0.0.1:9050"
      : "an .i2p name is reached through an I2P router: --i2p-sam 127.0.0.1:7656"
    return `connect ${formatEndpoint(endpoint)}: ${way}`
  }
  const network = otherNetwork(error)
  if (network === undefined) return message
  return message.endsWith("?")
    ? `${message} Use --network ${network.name}`
    : `${message}: use --network ${network.name}`
}

/** The command looks four times a second whether it still waits for the same thing, and tells it after a second. */
const look = Duration.millis(250)
const patience = 4

/** Runs an effect, and tells its state whenever the state stays the same for a second. */
const telling = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  waitsFor: () => string,
  tell: (line: string) => void
): Effect.Effect<A, E, R> => {
  const watch = Effect.gen(function* () {
    let last = ""
    let times = 0
    while (true) {
      const now = waitsFor()
      times = now === last ? times + 1 : 0
      last = now
      if (times === patience) tell(now)
      yield* Effect.sleep(look)
    }
  })
  return Effect.raceFirst(effect, watch)
}

/** Succeeds when we disconnected. Fails with the reason when the peer did. */
export const connect = Effect.fnUntraced(function* (
  endpoint: Endpoint,
  way: Way,
  options: Session.Settings,
  /** The services of the node, if they are known. */
  remoteServices?: bigint
): Effect.fn.Return<void, Failure, Nonce | Output> {
  // No table of multiples of the generator: it takes 40 ms, and saves 4 ms for each key pair. A dial makes one or two.
  secp256k1.Point.BASE.precompute(1)
  const output = yield* Output
  const clock = yield* Clock.Clock
  const report = yield* makeReport(options.format)
  const address = formatEndpoint(endpoint)
  const now = (): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  const deadline = now() + Duration.toMillis(options.timeout)
  /** The rest of the time for dialling and handshake. Both tries of "auto" share it. */
  const left = (): Duration.Duration => Duration.millis(Math.max(1, Math.ceil(deadline - now())))

  let tries = 0
  let isConnected = false
  const waitsFor = (): string => {
    const what = isConnected ? `connected to ${address}, waiting for its handshake` : `connecting to ${address}`
    const onPort = endpoint.port === options.network.port ? undefined : Network.fromPort(endpoint.port)
    const hint =
      onPort === undefined ? "" : ` (the port is that of ${onPort.name}: is --network ${onPort.name} missing?)`
    return `${what}${tries > 1 ? ", in version 1" : ""}${hint}`
  }
  const dialled = Effect.suspend(() => {
    tries++
    isConnected = false
    return Effect.tap(dial(endpoint, way, left()), () => Effect.sync(() => void (isConnected = true)))
  })
  const opened = Session.open(
    (peerOptions, connected) =>
      Peer.dial(Effect.tap(dialled, connected), {
        ...peerOptions,
        remoteServices,
        // Read anew for each try.
        get handshakeTimeout() {
          return left()
        }
      }),
    options,
    report,
    undefined
  )
  const end = yield* telling(opened, waitsFor, (line) => output.error(`btcpeer: ${line}`)).pipe(
    Effect.mapError((error) =>
      // The user knows only the time-out of the whole.
      error.reason._tag === "TimedOut"
        ? new HandshakeError({ reason: { ...error.reason, after: options.timeout } })
        : error
    ),
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
