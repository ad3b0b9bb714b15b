/**
 * The logs, the span and the metrics of a peer. Metrics are updated once a batch from the plain counters; a log costs one
 * comparison unless its level is on.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
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

const counter = (name: string, description: string, attributes?: Metric.Metric.Attributes) =>
  Metric.counter(`bitcoin_peer_${name}`, { description, incremental: true, attributes })

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
    metric = counter("ended", "Peers that ended, by reason", { reason: _tag })
    endedCounters.set(_tag, metric)
  }
  return metric
}

const isOn = (level: LogLevel.LogLevel, context: Context.Context<never>): boolean =>
  LogLevel.isLessThanOrEqualTo(Context.get(context, References.MinimumLogLevel), level)

/** Observes one connected peer. */
export class Observer {
  /** The context of the peer's fibers: that of the caller, with the peer in the annotations of logs, and in its span. */
  readonly context: Context.Context<never>
  /** Whether each message is logged, which takes an Effect. */
  readonly logs: boolean
  readonly #traffic: Traffic
  readonly #span: Tracer.Span | undefined
  /** The counts of the last update of the metrics. */
  readonly #before = { bytesReceived: 0, bytesSent: 0, messagesReceived: 0, messagesSent: 0, dropped: 0 }

  private constructor(context: Context.Context<never>, traffic: Traffic, span: Tracer.Span | undefined) {
    this.context = context
    this.logs = isOn("Debug", context)
    this.#traffic = traffic
    this.#span = span
    metrics.connected.modifyUnsafe(1, context)
  }

  /** To be called after the handshake. */
  static make(info: Info, traffic: Traffic): Effect.Effect<Observer> {
    return Effect.contextWith((outer: Context.Context<never>) => {
      const attributes = { peer: formatEndpoint(info.remoteAddress), peerId: info.id, direction: info.direction }
      const annotations = { ...Context.get(outer, References.CurrentLogAnnotations), ...attributes }
      const context = Context.add(outer, References.CurrentLogAnnotations, annotations)
      if (Option.isNone(Context.getOption(outer, configuredTracer))) {
        return Effect.succeed(new Observer(context, traffic, undefined))
      }
      return Effect.map(
        Effect.makeSpan("bitcoin.peer", { attributes }),
        (span) => new Observer(Context.add(context, Tracer.ParentSpan, span), traffic, span)
      )
    })
  }

  /** To be called after a batch was read or written. */
  count(): void {
    for (const [key, metric] of trafficMetrics) {
      const total = this.#traffic[key]
      if (total === this.#before[key]) continue
      metric.updateUnsafe(total - this.#before[key], this.context)
      this.#before[key] = total
    }
  }

  ponged(roundTrip: number): void {
    metrics.ping.updateUnsafe(roundTrip, this.context)
  }

  /** Logs a line a message at debug level, and its content at trace level. */
  log(way: "received" | "sent", message: Wire.Message, bytes: number): Effect.Effect<void> {
    const line = Effect.logDebug(`${way} ${Wire.command(message)}, ${bytes} bytes`)
    return isOn("Trace", this.context) ? Effect.andThen(line, Effect.logTrace(message)) : line
  }

  dropped(error: Wire.WireError): Effect.Effect<void> {
    return Effect.logDebug(`dropped a message: ${error.message}`)
  }

  ended(reason: EndReason): Effect.Effect<void> {
    this.count()
    endedBecause(reason).updateUnsafe(1, this.context)
    metrics.connected.modifyUnsafe(-1, this.context)
    const end = Effect.sync(() => {
      const isTimed = Context.get(this.context, References.TracerTimingEnabled)
      this.#span?.end(isTimed ? Context.get(this.context, Clock.Clock).currentTimeNanosUnsafe() : 0n, Exit.void)
    })
    return this.logs ? Effect.andThen(Effect.logDebug(`ended: ${describeEnd(reason)}`), end) : end
  }
}
