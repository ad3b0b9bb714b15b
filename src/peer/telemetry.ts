/**
 * The logs, the span and the metrics of a peer. Metrics are updated once a batch from the plain counters; a log costs one
 * comparison unless its level is on.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import { formatEndpoint } from "../Connection.ts"
import * as Wire from "../Wire.ts"
import type { Traffic } from "../transport/messageConnection.ts"
import type { Info } from "./stats.ts"
import { describeEnd, type EndReason } from "../PeerError.ts"

const counter = (name: string, description: string) =>
  Metric.counter(`bitcoin_peer_${name}`, { description, incremental: true })

const metrics = {
  receivedBytes: counter("received_bytes", "Bytes received from peers"),
  sentBytes: counter("sent_bytes", "Bytes sent to peers"),
  receivedMessages: counter("received_messages", "Messages received from peers"),
  sentMessages: counter("sent_messages", "Messages sent to peers"),
  droppedMessages: counter("dropped_messages", "Messages dropped: bad checksum, command or payload"),
  connected: Metric.gauge("bitcoin_peer_connected", { description: "Peers that are connected" }),
  ended: counter("ended", "Peers that ended, by reason"),
  ping: Metric.histogram("bitcoin_peer_ping_milliseconds", {
    description: "Round trips of answered pings",
    boundaries: Metric.exponentialBoundaries({ start: 1, factor: 2, count: 14 })
  })
}

/** The metric of each count of the traffic. */
const trafficMetrics = [
  ["bytesReceived", metrics.receivedBytes],
  ["bytesSent", metrics.sentBytes],
  ["messagesReceived", metrics.receivedMessages],
  ["messagesSent", metrics.sentMessages],
  ["dropped", metrics.droppedMessages]
] as const

/** The tracer that the context sets. (Effect's own reference has a default tracer, whose spans nobody sees.) */
const configuredTracer = Context.Service<Tracer.Tracer>(Tracer.TracerKey)

const endedCounters = new Map<string, typeof metrics.ended>()

const endedBecause = ({ _tag }: EndReason): typeof metrics.ended => {
  let metric = endedCounters.get(_tag)
  if (metric === undefined) {
    metric = Metric.withAttributes(metrics.ended, { reason: _tag })
    endedCounters.set(_tag, metric)
  }
  return metric
}

export interface Observer {
  /** Called after a batch was read or written. */
  readonly count: () => void
  readonly ponged: (roundTrip: number) => void
  /** Logs a line a message at debug level, and its content at trace level. Undefined when both are off. */
  readonly log: ((way: "received" | "sent", message: Wire.Message, bytes: number) => Effect.Effect<void>) | undefined
  readonly dropped: ((error: Wire.WireError) => Effect.Effect<void>) | undefined
  readonly ended: (reason: EndReason) => Effect.Effect<void>
  /** Annotates the logs and spans of an Effect with the peer. */
  readonly within: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** To be called after the handshake. */
export const makeObserver = (info: Info, traffic: Traffic): Effect.Effect<Observer> =>
  Effect.gen(function* () {
    const level = yield* References.MinimumLogLevel
    const context: Context.Context<never> = yield* Effect.context<never>()
    const debug = LogLevel.isLessThanOrEqualTo(level, "Debug")
    const trace = LogLevel.isLessThanOrEqualTo(level, "Trace")
    const traced = Option.isSome(Context.getOption(context, configuredTracer))
    const peer = formatEndpoint(info.remoteAddress)
    const annotations = { peer, peerId: info.id, direction: info.direction }
    const before = { bytesReceived: 0, bytesSent: 0, messagesReceived: 0, messagesSent: 0, dropped: 0 }

    const observer: Observer = {
      count: () => {
        for (const [key, metric] of trafficMetrics) {
          const total = traffic[key]
          if (total > before[key]) metric.updateUnsafe(total - before[key], context)
          before[key] = total
        }
      },
      ponged: (roundTrip) => metrics.ping.updateUnsafe(roundTrip, context),
      log: debug
        ? (way, message, bytes) => {
            const line = Effect.logDebug(`${way} ${Wire.command(message)}, ${bytes} bytes`)
            return trace ? Effect.andThen(line, Effect.logTrace(message)) : line
          }
        : undefined,
      dropped: debug ? (error) => Effect.logDebug(`dropped a message: ${error.message}`) : undefined,
      ended: (reason) =>
        Effect.suspend(() => {
          observer.count()
          endedBecause(reason).updateUnsafe(1, context)
          metrics.connected.modifyUnsafe(-1, context)
          return debug ? Effect.logDebug(`ended: ${describeEnd(reason)}`) : Effect.void
        }),
      within: (effect) => {
        const annotated = Effect.annotateLogs(effect, annotations)
        // Inside a span every failure and interruption of the peer's fibers records a stack, which costs time.
        return traced
          ? Effect.withSpan(annotated, "bitcoin.peer", { attributes: annotations, captureStackTrace: false })
          : annotated
      }
    }
    metrics.connected.modifyUnsafe(1, context)
    return observer
  })
