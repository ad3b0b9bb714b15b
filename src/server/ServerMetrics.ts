/**
 * The metrics of a server: connections, dials, refusals, bans, the address book and messages. Their names are those of peer-observer
 * without its prefix. They are ordinary metrics of Effect, so any exporter of Effect works, and `format` writes them for Prometheus.
 *
 * Counting messages costs nothing: peers count them anyway, and `collect` copies the counts. No label is an address, a subnet or a user
 * agent, so the number of series is bounded.
 *
 * @example
 * ```ts
 * import { Console, Effect } from "effect"
 * import { Server } from "effect-bitcoin-peer/server"
 * import * as ServerMetrics from "effect-bitcoin-peer/server/ServerMetrics"
 *
 * export const main = (server: Server.Server) =>
 *   Effect.gen(function*() {
 *     const metrics = yield* ServerMetrics.make
 *     yield* Console.log(yield* metrics.format) // # HELP conn_inbound Inbound connections. …
 *   }).pipe(Effect.scoped, Effect.provideService(Server.Server, server))
 * ```
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import { PrometheusMetrics } from "effect/observability"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Peer from "../Peer.ts"
import type { ConnectionKind } from "./ConnectionKind.ts"
import { type ConnectedPeer, Server } from "./Server.ts"
import type { ServerEvent } from "./ServerEvent.ts"

/**
 * The metrics of a server.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServerMetrics {
  /**
   * Updates the counts of messages and the gauges. `format` does it too. A program with another exporter must run this before each
   * export.
   */
  readonly collect: Effect.Effect<void>
  /** All metrics of the registry in the text format of Prometheus, up to date: those of the program too. */
  readonly format: Effect.Effect<string>
}

/**
 * The key of the service `ServerMetrics` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const ServerMetrics: Context.Service<ServerMetrics, ServerMetrics> = Context.Service<ServerMetrics>(
  "effect-bitcoin-peer/server/ServerMetrics"
)

type Labels = Readonly<Record<string, string>>

const counters = {
  conn_inbound: "Inbound connections.",
  conn_outbound: "Outbound connections that completed the handshake.",
  conn_closed: "Connections that have ended.",
  conn_closed_age_seconds: "Seconds that the connections that have ended had lived since their handshakes, together.",
  conn_evicted_inbound: "Inbound connections that were ended to make room.",
  conn_misbehaving: "Connections that ended because the peer misbehaved, by reason.",
  dial_total: "Dials that have ended or connected, by the kind of connection and the result.",
  inbound_refused_total: "Inbound connections that were closed before a byte was read, by the rule that refused them.",
  p2p_message_count: "Messages, by command, direction and kind of connection.",
  p2p_message_bytes: "Bytes of messages with their headers, by command, direction and kind of connection."
} as const
const gauges = {
  conn_inbound_current: "Inbound peers at present.",
  conn_outbound_current: "Outbound peers at present, by the kind of connection.",
  bans: "Banned subnets at present.",
  addrman_size: "Addresses in the book at present, by network and table."
} as const

type Failure = Extract<ServerEvent, { readonly _tag: "DialFailed" }>["error"]

/** The result of a dial. A handshake and a dial share names of reasons, such as Refused. */
const resultOf = (error: Failure): string => {
  switch (error._tag) {
    case "ConnectionError":
      return error.reason._tag === "DialFailed" ? `Dial.${error.reason.problem}` : `Dial.${error.reason._tag}`
    case "HandshakeError":
      return `Handshake.${error.reason._tag}`
    case "Duplicate":
      return "Duplicate"
    case "Unreachable":
      return "NoWay"
  }
}

interface Tally {
  readonly messages: number
  readonly bytes: number
}
const nothing: Tally = { messages: 0, bytes: 0 }

/** A peer, and which of its messages are in the metrics already. */
interface Counted {
  readonly peer: Peer.Peer
  readonly kind: ConnectionKind
  readonly sent: Map<string, Tally>
  readonly received: Map<string, Tally>
  /** Whether it was not connected at the last `collect`. Its `Ended` comes soon, unless it was one event too many for the stream. */
  isGone: boolean
}

/**
 * Counts the events of the server from now until the scope ends, in the `MetricRegistry` of the context. Two servers in one process need
 * separate registries, or their numbers are added up.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<ServerMetrics, never, Scope.Scope | Server> = Effect.gen(function* () {
  const server = yield* Server
  const context = yield* Effect.context<never>()

  const series = new Map<string, Metric.Counter<number> | Metric.Gauge<number>>()
  const seriesOf = <M extends Metric.Counter<number> | Metric.Gauge<number>>(
    name: string,
    labels: Labels,
    create: () => M
  ): M => {
    const key = [name, ...Object.values(labels)].join("\n")
    const known = series.get(key)
    if (known !== undefined) return known as M
    const created = create()
    series.set(key, created)
    return created
  }
  const count = (name: keyof typeof counters, labels: Labels = {}, amount = 1): void =>
    seriesOf(name, labels, () =>
      Metric.counter(name, { description: counters[name], attributes: labels, incremental: true })
    ).updateUnsafe(amount, context)
  const set = (name: keyof typeof gauges, labels: Labels, value: number): void =>
    seriesOf(name, labels, () => Metric.gauge(name, { description: gauges[name], attributes: labels })).updateUnsafe(
      value,
      context
    )

  // ---- messages

  const peers = new Map<number, Counted>()
  const track = ({ id, kind, peer }: ConnectedPeer): void => {
    if (!peers.has(id)) peers.set(id, { kind, peer, received: new Map(), sent: new Map(), isGone: false })
  }
  /** Puts the messages of a peer since the last time into the metrics. */
  const countMessages = ({ kind, peer, ...known }: Counted): Effect.Effect<void> =>
    Effect.map(peer.stats, (stats) => {
      for (const [direction, tallies, before] of [
        ["inbound", stats.received, known.received],
        ["outbound", stats.sent, known.sent]
      ] as const) {
        for (const [message, tally] of Object.entries(tallies)) {
          const { bytes, messages } = before.get(message) ?? nothing
          const labels = { message, direction, connection_type: kind }
          // Bytes that begin a message are those of "*no message*" until its end has arrived: that count can shrink.
          if (tally.messages > messages) count("p2p_message_count", labels, tally.messages - messages)
          if (tally.bytes > bytes) count("p2p_message_bytes", labels, tally.bytes - bytes)
          before.set(message, { messages: Math.max(messages, tally.messages), bytes: Math.max(bytes, tally.bytes) })
        }
      }
    })
  const ended = (id: number): Effect.Effect<void> => {
    const counted = peers.get(id)
    peers.delete(id)
    return counted === undefined ? Effect.void : countMessages(counted)
  }

  // ---- events

  const misbehaved = (end: Peer.EndReason | Failure): void => {
    if (end._tag === "Duplicate" || end._tag === "Unreachable" || Peer.assess(end).points === 0) return
    count("conn_misbehaving", { reason: end._tag === "HandshakeError" ? `Handshake.${end.reason._tag}` : end._tag })
  }
  const onEvent = (event: ServerEvent): Effect.Effect<void> => {
    switch (event._tag) {
      case "Accepted":
        count("conn_inbound")
        break
      case "Ready":
        if (event.kind !== "inbound") {
          count("conn_outbound")
          count("dial_total", { kind: event.kind, result: "Connected" })
        }
        return Effect.map(server.peers, (connected) => connected.forEach(track))
      case "DialFailed":
        misbehaved(event.error)
        if (event.kind === "inbound") count("conn_closed")
        else count("dial_total", { kind: event.kind, result: resultOf(event.error) })
        break
      case "Ended":
        misbehaved(event.reason)
        count("conn_closed")
        count("conn_closed_age_seconds", {}, event.age / 1_000)
        return ended(event.id)
      case "Evicted":
        // One that is still in its handshake came in: outbound ones are dialled to stay.
        if ((peers.get(event.id)?.kind ?? "inbound") === "inbound") count("conn_evicted_inbound")
        break
      case "Refused":
        count("inbound_refused_total", { step: event.step }, 1 + event.unlogged)
        break
    }
    return Effect.void
  }

  const collect = Effect.gen(function* () {
    const connected = yield* server.peers
    connected.forEach(track)
    yield* Effect.forEach([...peers.values()], countMessages, { discard: true })
    const ids = new Set(connected.map(({ id }) => id))
    for (const [id, counted] of peers) {
      if (ids.has(id)) continue
      if (counted.isGone) peers.delete(id)
      counted.isGone = true
    }
    const current = new Map<ConnectionKind, number>(outboundKinds.map((kind) => [kind, 0]))
    for (const { kind } of connected) current.set(kind, (current.get(kind) ?? 0) + 1)
    set("conn_inbound_current", {}, current.get("inbound") ?? 0)
    for (const kind of outboundKinds) set("conn_outbound_current", { connection_type: kind }, current.get(kind) ?? 0)
    set("bans", {}, (yield* server.bans.entries).length)
    for (const [network, count] of Object.entries(server.book.stats())) {
      if (network === "all_networks") continue
      for (const table of ["new", "tried"] as const) set("addrman_size", { network, table }, count[table])
    }
  })

  // A series that exists from the start shows its first increase.
  for (const name of ["conn_inbound", "conn_outbound", "conn_closed", "conn_evicted_inbound"] as const) {
    count(name, {}, 0)
  }
  for (const connected of yield* server.peers) track(connected)
  yield* Effect.forkScoped(Stream.runForEach(server.events, onEvent), { startImmediately: true })
  return {
    collect,
    format: Effect.map(collect, () => PrometheusMetrics.formatUnsafe(context))
  }
})

const outboundKinds: ReadonlyArray<ConnectionKind> = [
  "outbound-full-relay",
  "block-relay-only",
  "feeler",
  "manual",
  "addr-fetch",
  "private-broadcast"
]

/**
 * The service that `make` makes.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<ServerMetrics, never, Server> = Layer.effect(ServerMetrics, make)
