/** The metrics of a server in memory: they say what happened, and no label is unbounded. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Metric, PubSub, Stream } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { TestClock } from "effect/testing"
import { Network, Wire } from "effect-bitcoin-peer"
import { Dialer, Server } from "effect-bitcoin-peer/server"
import * as ServerMetrics from "effect-bitcoin-peer/server/ServerMetrics"
import { memoryNetwork } from "../support/memoryNetwork.ts"
import { node } from "../support/serverRig.ts"

const network = Network.regtest

const start = Effect.fnUntraced(function* (
  net: ReturnType<typeof memoryNetwork>,
  options: Server.Options = {},
  from = "10.0.0.1"
) {
  const server = yield* Effect.provideService(
    Server.make({ network, feelers: false, randomKey: new Uint8Array(16), ...options }),
    Dialer.Dialer,
    net.dialer(from)
  )
  return { server, metrics: yield* Effect.provideService(ServerMetrics.make, Server.Server, server) }
})

/** The value of a series, by its text. */
const valueOf = (text: string, series: string): number | undefined => {
  const line = text.split("\n").find((line) => line.startsWith(`${series} `))
  return line === undefined ? undefined : Number(line.slice(series.length + 1))
}

const message = (name: string, message: string, direction: string, kind = "manual"): string =>
  `${name}{message="${message}",direction="${direction}",connection_type="${kind}"}`

/** Runs with a registry of its own: tests share no series. */
const alone = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => Effect.provideService(Effect.scoped(effect), Metric.MetricRegistry, new Map()))
const pass = (time: number) => TestClock.adjust(time)

describe("the metrics of a server", () => {
  it.effect("count connections and dials by kind and result", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const peers = yield* node(net, "10.0.0.2:18444")
      const { metrics, server } = yield* start(net, { added: ["10.0.0.2", "10.0.0.3"] })
      yield* server.awaitPeers(1)
      yield* pass(100)
      const before = yield* metrics.format
      assert.strictEqual(valueOf(before, "conn_outbound"), 1)
      assert.strictEqual(valueOf(before, 'conn_outbound_current{connection_type="manual"}'), 1)
      assert.strictEqual(valueOf(before, 'conn_outbound_current{connection_type="feeler"}'), 0)
      assert.strictEqual(valueOf(before, "conn_closed"), 0)
      assert.strictEqual(valueOf(before, 'dial_total{kind="manual",result="Connected"}'), 1)
      assert.strictEqual(valueOf(before, 'dial_total{kind="manual",result="Dial.Refused"}'), 1)
      yield* pass(10_000)
      yield* peers[0]!.disconnect("bye")
      yield* pass(10)
      const after = yield* metrics.format
      assert.strictEqual(valueOf(after, "conn_closed"), 1)
      assert.approximately(valueOf(after, "conn_closed_age_seconds") ?? 0, 10.1, 0.1)
      assert.strictEqual(valueOf(after, 'conn_outbound_current{connection_type="manual"}'), 0)
      assert.isUndefined(valueOf(after, 'conn_misbehaving{reason="RemoteClosed"}'))
    }).pipe(alone)
  )

  it.effect("count inbound connections, and those that were refused by their rule", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const { metrics, server } = yield* start(net, {
        binds: [{ listen: net.listen("10.0.0.1:18444") }],
        maxInbound: 1
      })
      yield* start(net, { added: ["10.0.0.1"] }, "10.0.0.2")
      yield* server.awaitPeers(1)
      yield* pass(10)
      const text = yield* metrics.format
      assert.strictEqual(valueOf(text, "conn_inbound_current"), 1)
      assert.strictEqual(valueOf(text, "conn_inbound"), 1)
      const dial = net
        .dialer("10.0.0.3")
        .dial({ networkId: 1, address: Uint8Array.of(10, 0, 0, 1), port: 18_444 }, "manual")
      // Most of them are no events of their own.
      for (let i = 0; i < 10; i++) yield* Effect.scoped(dial)
      yield* pass(31_000)
      yield* Effect.scoped(dial)
      yield* pass(10)
      assert.strictEqual(valueOf(yield* metrics.format, 'inbound_refused_total{step="full"}'), 11)
      assert.strictEqual(valueOf(yield* metrics.format, "conn_inbound"), 1)
    }).pipe(alone)
  )

  it.effect("say why a peer misbehaved", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const peers = yield* node(net, "10.0.0.2:18444")
      const { metrics, server } = yield* start(net, { added: ["10.0.0.2"] })
      yield* server.awaitPeers(1)
      yield* pass(10)
      yield* peers[0]!.send({ _tag: "verack" })
      yield* peers[0]!.send({ _tag: "wtxidrelay" })
      yield* pass(10)
      assert.strictEqual(valueOf(yield* metrics.format, 'conn_misbehaving{reason="ProtocolViolation"}'), 1)
    }).pipe(alone)
  )

  it.effect("count messages and bytes of peers that are connected and of those that have ended, each once", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const peers = yield* node(net, "10.0.0.2:18444")
      const { metrics, server } = yield* start(net, { added: ["10.0.0.2"] })
      const [connected] = yield* server.awaitPeers(1)
      yield* pass(10)
      yield* peers[0]!.send({ _tag: "Unknown", command: "strange", payload: new Uint8Array(5) })
      yield* pass(10)
      const first = yield* metrics.format
      assert.strictEqual(valueOf(first, message("p2p_message_count", "version", "inbound")), 1)
      assert.strictEqual(valueOf(first, message("p2p_message_count", "version", "outbound")), 1)
      assert.strictEqual(valueOf(first, message("p2p_message_count", "*other*", "inbound")), 1)
      assert.notInclude(first, "strange")
      yield* metrics.collect
      assert.strictEqual(yield* metrics.format, first)
      // What comes after the last question is counted at the end.
      yield* peers[0]!.send({ _tag: "getaddr" })
      yield* pass(10)
      yield* peers[0]!.disconnect("bye")
      yield* pass(10)
      const last = yield* metrics.format
      assert.strictEqual(valueOf(last, message("p2p_message_count", "getaddr", "inbound")), 1)
      const { received } = yield* connected!.peer.stats
      for (const [command, { bytes }] of Object.entries(received)) {
        assert.strictEqual(valueOf(last, message("p2p_message_bytes", command, "inbound")), bytes, command)
      }
      // A second peer adds to the first.
      yield* pass(10_000)
      const both = yield* metrics.format
      assert.strictEqual(valueOf(both, message("p2p_message_count", "version", "inbound")), 2)
    }).pipe(alone)
  )

  it.effect("say how many subnets are banned, and what is in the book", () =>
    Effect.gen(function* () {
      const { metrics, server } = yield* start(memoryNetwork())
      const before = yield* metrics.format
      assert.strictEqual(valueOf(before, "bans"), 0)
      assert.strictEqual(valueOf(before, 'addrman_size{network="ipv4",table="new"}'), 0)
      yield* server.bans.ban("10.1.0.0/16", { for: "1 hour" })
      const address = { networkId: 1, address: Uint8Array.of(8, 8, 8, 8), port: 8333 }
      yield* pass(1_000)
      const [now, source] = [yield* Clock.currentTimeMillis, { networkId: 1, address: Uint8Array.of(9, 9, 9, 9) }]
      server.book.add([{ ...address, services: 1n, timestamp: Math.floor(now / 1_000) }], source, now)
      const after = yield* metrics.format
      assert.strictEqual(valueOf(after, "bans"), 1)
      assert.strictEqual(valueOf(after, 'addrman_size{network="ipv4",table="new"}'), 1)
      yield* pass(3_600_000)
      assert.strictEqual(valueOf(yield* metrics.format, "bans"), 0)
    }).pipe(alone)
  )

  it.effect("have no address and no user agent in a label", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      yield* node(net, "10.0.0.2:18444", { userAgent: "/secret:1/" })
      const { metrics, server } = yield* start(net, {
        added: ["10.0.0.2", "10.0.0.3", "name.example"],
        binds: [{ listen: net.listen("10.0.0.1:18444") }]
      })
      yield* start(net, { added: ["10.0.0.1"], peer: { userAgent: "/other:1/" } }, "10.0.0.4")
      yield* server.awaitPeers(2)
      yield* pass(60_000)
      const text = yield* metrics.format
      assert.notMatch(text, /10\.0\.0|secret|other:|example/)
      const labels = new Set(Array.from(text.matchAll(/([a-z_]+)="/g), ([, name]) => name))
      assert.deepStrictEqual([...labels].toSorted(), [
        "connection_type",
        "direction",
        "kind",
        // The bounds of the histogram of round trips.
        "le",
        "message",
        "network",
        "result",
        "table"
      ])
      const commands = new Set<string>([...Wire.commands, "*other*", "*no message*"])
      for (const [, command] of text.matchAll(/message="([^"]*)"/g)) assert.isTrue(commands.has(command!), command)
    }).pipe(alone)
  )

  it.effect("count evicted peers that came in, and not outbound ones that another one replaces", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      yield* node(net, "10.0.0.2:18444")
      const { server } = yield* start(net, { added: ["10.0.0.2"] })
      const [outbound] = yield* server.awaitPeers(1)
      const events = yield* PubSub.unbounded<Server.ServerEvent>()
      const metrics = yield* Effect.provideService(ServerMetrics.make, Server.Server, {
        ...server,
        events: Stream.fromPubSub(events)
      })
      yield* PubSub.publish(events, { _tag: "Evicted", id: outbound!.id, by: undefined })
      yield* PubSub.publish(events, { _tag: "Evicted", id: 100, by: 101 })
      yield* pass(10)
      assert.strictEqual(valueOf(yield* metrics.format, "conn_evicted_inbound"), 1)
    }).pipe(alone)
  )

  it.effect("are those of the program's own registry, for any exporter", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      yield* node(net, "10.0.0.2:18444")
      const { metrics, server } = yield* start(net, { added: ["10.0.0.2"] })
      yield* server.awaitPeers(1)
      yield* pass(10)
      yield* Metric.update(Metric.counter("blocks_seen", { incremental: true }), 3)
      yield* metrics.collect
      const text = yield* PrometheusMetrics.format({ prefix: "node" })
      assert.strictEqual(valueOf(text, "node_blocks_seen"), 3)
      assert.strictEqual(valueOf(text, "node_conn_outbound"), 1)
    }).pipe(alone)
  )
})
