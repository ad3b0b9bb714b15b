/** Metrics, logs and spans of a peer, and the assessment of its ends. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Logger, Metric, References, Tracer } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { TestClock } from "effect/testing"
import { Nonce, Peer, type Wire } from "effect-bitcoin-peer"
import { withRemote } from "./support/peers.ts"

const isolated = Effect.provideServiceEffect(
  Metric.MetricRegistry,
  Effect.sync(() => new Map())
)
const line = (text: string, name: string): number => {
  const found = text.split("\n").find((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`))
  assert.isDefined(found, `${name} is missing in\n${text}`)
  return Number(found!.split(" ").at(-1))
}
const ping = (nonce: bigint): Wire.Message => ({ _tag: "ping", nonce })

describe("metrics", () => {
  it.effect("count bytes, messages, pings, peers and ends as Prometheus prints them", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* withRemote()
      yield* remote.send(ping(1n), ping(2n))
      yield* remote.receiveUntil("pong")
      yield* remote.receiveUntil("pong")
      yield* TestClock.adjust("2 minutes")
      const sent = yield* remote.receiveUntil("ping")
      assert(sent._tag === "ping")
      yield* TestClock.adjust(30)
      yield* remote.send({ _tag: "pong", nonce: sent.nonce! }, ping(3n))
      yield* remote.receiveUntil("pong")
      // An in-memory write runs the other side before the writer counts it.
      yield* TestClock.adjust(1)
      const during = yield* PrometheusMetrics.format()
      const stats = yield* peer.stats
      assert.strictEqual(line(during, "bitcoin_peer_connected"), 1)
      assert.strictEqual(line(during, "bitcoin_peer_received_bytes"), stats.bytesReceived)
      assert.strictEqual(line(during, "bitcoin_peer_received_messages"), stats.messagesReceived)
      assert.strictEqual(line(during, "bitcoin_peer_sent_bytes"), stats.bytesSent)
      assert.strictEqual(line(during, "bitcoin_peer_sent_messages"), stats.messagesSent)
      assert.strictEqual(line(during, "bitcoin_peer_ping_milliseconds_sum"), 30)
      assert.strictEqual(line(during, "bitcoin_peer_ping_milliseconds_count"), 1)
      yield* peer.disconnect()
      yield* peer.awaitShutdown
      const after = yield* PrometheusMetrics.format()
      assert.strictEqual(line(after, "bitcoin_peer_connected"), 0)
      assert.strictEqual(line(after, 'bitcoin_peer_ended{reason="Requested"}'), 1)
    }).pipe(Effect.provide(Nonce.layer), isolated)
  )
})

describe("logs", () => {
  const logged = (level: "Info" | "Debug" | "Trace") =>
    Effect.gen(function* () {
      const lines: Array<{ readonly message: string; readonly annotations: Readonly<Record<string, unknown>> }> = []
      const logger = Logger.make(({ fiber, message }) => {
        lines.push({ message: String(message), annotations: fiber.getRef(References.CurrentLogAnnotations) })
      })
      yield* Effect.gen(function* () {
        const { peer, remote } = yield* withRemote()
        const bad = remote.frames([ping(9n)])
        bad[20]! ^= 1
        yield* remote.sendBytes(bad)
        yield* remote.send(ping(1n))
        yield* remote.receiveUntil("pong")
        yield* peer.disconnect("enough")
        yield* peer.awaitShutdown
      }).pipe(
        Effect.scoped,
        Effect.provide(Layer.mergeAll(Nonce.layer, Logger.layer([logger]))),
        Effect.provideService(References.MinimumLogLevel, level)
      )
      return lines
    })

  it.effect("have one line per message at debug level, with the peer in the annotations", () =>
    Effect.gen(function* () {
      const lines = yield* logged("Debug")
      const messages = lines.map(({ message }) => message)
      assert.includeMembers(messages, ["received ping, 32 bytes", "sent pong, 32 bytes", "ended: enough"])
      assert.isTrue(messages.some((message) => message.startsWith("dropped a message: ping: wrong checksum")))
      for (const { annotations } of lines) {
        assert.strictEqual(annotations["peer"], "192.0.2.2:8333")
        assert.strictEqual(annotations["direction"], "outbound")
      }
    })
  )

  it.effect("are empty at the default level, and include message contents at trace level", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* logged("Info"), [])
      const debug = yield* logged("Debug")
      assert.isAbove((yield* logged("Trace")).length, debug.length)
    })
  )
})

describe("spans", () => {
  it.effect("last from the handshake to the end, one per connection", () =>
    Effect.gen(function* () {
      const spans: Array<Tracer.NativeSpan> = []
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        }
      })
      const { peer } = yield* withRemote().pipe(Effect.withTracer(tracer))
      const span = spans.find(({ name }) => name === "bitcoin.peer")
      assert(span !== undefined)
      assert.strictEqual(span.status._tag, "Started")
      assert.strictEqual(span.attributes.get("peer"), "192.0.2.2:8333")
      yield* peer.disconnect()
      yield* peer.awaitShutdown
      assert.strictEqual(spans.filter(({ name }) => name === "bitcoin.peer").length, 1)
    }).pipe(Effect.provide(Nonce.layer))
  )
})

describe("Peer.assess", () => {
  it("gives the responsible side, whether to retry, and the ban points of each end", () => {
    assert.deepStrictEqual(Peer.assess({ _tag: "RemoteClosed" }), { by: "remote", retry: true, points: 0 })
    assert.deepStrictEqual(Peer.assess({ _tag: "ScopeClosed" }), { by: "local", retry: true, points: 0 })
    assert.deepStrictEqual(Peer.assess({ _tag: "SelfConnection" }), { by: "local", retry: false, points: 0 })
    assert.strictEqual(Peer.assess({ _tag: "NotVersionFirst", received: "inv" }).retry, false)
    assert.strictEqual(Peer.assess({ _tag: "ProtocolViolation", command: "feature", problem: "late" }).points, 10)
  })
})
