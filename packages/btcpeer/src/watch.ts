/** Watches one peer of `connect`, `listen` or `replay`: reports every message, the handshake and the end. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { formatEndpoint } from "effect-bitcoin-peer/Connection"
import type { Network } from "effect-bitcoin-peer/Network"
import type { Nonce } from "effect-bitcoin-peer/Nonce"
import * as Peer from "effect-bitcoin-peer/Peer"
import type { Policy } from "effect-bitcoin-peer/Policy"
import type { Transport } from "effect-bitcoin-peer/Transport"
import * as Wire from "effect-bitcoin-peer/Wire"
import { Output } from "./output.ts"
import { makeNow, type Report } from "./report.ts"
import { contentOf, type Format } from "./summary.ts"
import { hex, milliseconds } from "./text.ts"

/** The flags of a command. */
export interface Settings {
  readonly network: Network
  readonly policy: Policy
  readonly transport: Transport
  readonly userAgent: string | undefined
  /** The time for dialling and for the handshake. */
  readonly timeout: Duration.Duration
  /** The time until we disconnect; without it the user ends the command. */
  readonly limit: Duration.Duration | undefined
  readonly format: Format
  /** The remote side is a capture: it answers nothing, and may ask for services that only a node has. */
  readonly replayed?: boolean | undefined
}

/** Waits for the time limit or a request to stop, and returns which one came first. */
export const untilAsked = (output: Output["Service"], limit: Duration.Duration | undefined): Effect.Effect<string> =>
  limit === undefined
    ? output.stop
    : Effect.raceFirst(output.stop, Effect.as(Effect.sleep(limit), `after ${Duration.format(limit)}`))

/** One of several peers. */
export interface Source {
  readonly peer: number
  readonly address: string
}

export interface Session {
  /** Waits until the peer ends, or disconnects it with the reason that `until` returns. Then reports the end. */
  readonly stay: (until: Effect.Effect<string>) => Effect.Effect<Peer.EndReason>
}

const tags: { readonly [Tag in Wire.Message["_tag"]]: true } = {
  version: true,
  verack: true,
  wtxidrelay: true,
  sendaddrv2: true,
  sendheaders: true,
  sendcmpct: true,
  feature: true,
  ping: true,
  pong: true,
  getaddr: true,
  addr: true,
  addrv2: true,
  inv: true,
  getdata: true,
  notfound: true,
  getheaders: true,
  headers: true,
  getblocks: true,
  mempool: true,
  feefilter: true,
  tx: true,
  block: true,
  filterload: true,
  filteradd: true,
  filterclear: true,
  merkleblock: true,
  cmpctblock: true,
  getblocktxn: true,
  blocktxn: true,
  reject: true,
  getcfilters: true,
  cfilter: true,
  getcfheaders: true,
  cfheaders: true,
  getcfcheckpt: true,
  cfcheckpt: true,
  sendtxrcncl: true,
  sendpackages: true,
  ancpkginfo: true,
  getpkgtxns: true,
  pkgtxns: true,
  alert: true,
  Unknown: true
}

/** A handler for all messages, which makes the peer wait, and so the remote side, while our output has no room. */
const waitingFor = (
  room: Output["Service"]["room"]
): Record<Wire.Message["_tag"], () => Effect.Effect<void> | undefined> =>
  Object.assign({}, ...Object.keys(tags).map((tag) => ({ [tag]: room })))

/**
 * Makes a peer, reports every message from the first one on, and sends a ping. Fails as `make` does. `make` runs `connected` when the
 * connection is there: the time of the handshake counts from then on. `source` is given if the command has several peers.
 */
export const open = Effect.fnUntraced(function* <E>(
  make: (options: Peer.Options, connected: Effect.Effect<void>) => Effect.Effect<Peer.Peer, E, Scope.Scope | Nonce>,
  settings: Settings,
  report: Report,
  source: Source | undefined
): Effect.fn.Return<Session, E, Scope.Scope | Nonce | Output> {
  const { room } = yield* Output
  const clock = yield* Clock.Clock
  const wallClock = yield* makeNow
  /** Milliseconds, rounded to microseconds: further digits are noise. */
  const now = (): number => Math.round(Number(clock.monotonicTimeNanosUnsafe()) / 1e3) / 1e3
  const since = (start: number): number => Math.round((now() - start) * 1e3) / 1e3
  let startedAt = now()
  /** When our pings were written, by nonce, with those of the keep-alive. They are few: it sends one at a time. */
  const pings = new Map<bigint, number>()
  /** Round trips as they were printed, in place of those of the peer, which also count how long its own side took. */
  let lastPing: number | undefined
  let minimumPing: number | undefined

  const onRead = (event: Wire.ParserEvent): void => {
    const { time, when } = wallClock()
    if (event._tag === "Dropped") {
      const { command, message, reason } = event.error
      report({ event: "dropped", ...source, time, command, bytes: event.size, reason: reason._tag, message }, { when })
      return
    }
    const { message } = event
    const sentAt = message._tag === "pong" ? pings.get(message.nonce) : undefined
    const roundTrip = sentAt === undefined ? undefined : since(sentAt)
    report(
      {
        event: "message",
        ...source,
        time,
        direction: "in",
        bytes: event.size,
        ...contentOf(message, settings.format, settings.network)
      },
      { when, ...(roundTrip !== undefined && { extra: milliseconds(roundTrip) }) }
    )
    if (message._tag === "pong" && roundTrip !== undefined) {
      pings.delete(message.nonce)
      lastPing = roundTrip
      minimumPing = Math.min(minimumPing ?? roundTrip, roundTrip)
      report({ event: "pong", ...source, milliseconds: roundTrip })
    }
  }

  const onWrite = (message: Wire.Message, bytes: number): void => {
    if (message._tag === "ping" && message.nonce !== undefined) pings.set(message.nonce, now())
    const { time, when } = wallClock()
    report(
      {
        event: "message",
        ...source,
        time,
        direction: "out",
        bytes,
        ...contentOf(message, settings.format, settings.network)
      },
      { when }
    )
  }

  const options: Peer.Options = {
    network: settings.network,
    policy: settings.policy,
    transport: settings.transport,
    handshakeTimeout: settings.timeout,
    // The command watches any node, even one without services, such as our own `listen`.
    requiredServices: [],
    ...(settings.replayed === true && {
      // A request for a service that we do not offer would end the peer.
      services: Wire.Service.bloom | Wire.Service.compactFilters,
      pingInterval: Duration.infinity,
      idleTimeout: Duration.infinity
    }),
    ...(settings.userAgent !== undefined && { userAgent: settings.userAgent }),
    handlers: waitingFor(room),
    onRead,
    onWrite
  }
  const peer = yield* make(
    options,
    Effect.sync(() => void (startedAt = now()))
  )

  const { info } = peer
  report({
    event: "handshake",
    ...(source !== undefined && { peer: source.peer }),
    address: formatEndpoint(info.remoteAddress),
    direction: info.direction,
    network: info.network.name,
    transport: info.transport,
    ...(info.sessionId !== undefined && { sessionId: hex(info.sessionId) }),
    protocolVersion: info.protocolVersion,
    services: Wire.serviceNames(info.services),
    userAgent: info.userAgent,
    startHeight: info.startHeight,
    relay: info.relay,
    timeOffset: Duration.toSeconds(info.timeOffset),
    features: {
      addrv2: info.addrV2,
      wtxidRelay: info.wtxidRelay,
      announced: Array.from(info.features, ([id, data]) => ({ id, data: hex(data) }))
    },
    milliseconds: since(startedAt)
  })
  // A peer may not answer the ping, and an old one does not know it: that is no error here.
  if (settings.replayed !== true) yield* Effect.forkScoped(Effect.ignore(peer.ping))

  const stay = (until: Effect.Effect<string>): Effect.Effect<Peer.EndReason> =>
    Effect.gen(function* () {
      const asked = Effect.andThen(Effect.flatMap(until, peer.disconnect), peer.awaitShutdown)
      const end = yield* Effect.raceFirst(peer.awaitShutdown, asked)
      const stats = {
        ...(yield* peer.stats),
        ...(lastPing !== undefined && { lastPing: Duration.millis(lastPing) }),
        ...(minimumPing !== undefined && { minimumPing: Duration.millis(minimumPing) })
      }
      report({ event: "disconnected", ...source, reason: end._tag, message: Peer.describeEnd(end), stats })
      return end
    })
  return { stay }
})
