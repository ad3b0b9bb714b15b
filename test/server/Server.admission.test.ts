/** Whom a server lets in, ends, bans and evicts. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Address, Network, Nonce, Peer } from "effect-bitcoin-peer"
import { Dialer, Reputation, Server } from "effect-bitcoin-peer/server"
import { memoryNetwork } from "../support/memoryNetwork.ts"
import { collect } from "../support/serverRig.ts"

const network = Network.regtest
type Net = ReturnType<typeof memoryNetwork>

const start = (net: Net, options: Server.Options = {}) =>
  Effect.provideService(
    Server.make({
      network,
      randomKey: new Uint8Array(16).fill(7),
      feelers: false,
      binds: [{ listen: net.listen("10.0.0.1:18444") }],
      ...options,
      peer: { services: 1n | 8n, ...options.peer }
    }),
    Dialer.Dialer,
    net.dialer("10.0.0.1")
  )

const home: Address.Address = { networkId: 1, address: Uint8Array.of(10, 0, 0, 1), port: network.port }

/** A client at an address. Its failure to connect is a result. */
const visit = (net: Net, from: string, options: Peer.Options = {}) =>
  Effect.result(
    Effect.provide(
      Peer.dial(Effect.orDie(net.dialer(from).dial(home, "manual")), {
        network,
        transport: "v1",
        relay: false,
        ...options
      }),
      Nonce.layer
    )
  )
const visitor = (net: Net, from: string, options: Peer.Options = {}) =>
  Effect.flatMap(visit(net, from, options), Effect.fromResult)

const tooManyAddresses = {
  _tag: "Unknown",
  command: "addr",
  payload: Uint8Array.of(0xfd, 0xe9, 0x03, ...new Uint8Array(1_001 * 30))
} as const

describe("a ban", () => {
  it.effect("ends the peers of its subnet, and keeps them out until it ends", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net)
      const events = yield* collect(server)
      const peer = yield* visitor(net, "10.1.0.5")
      const other = yield* visitor(net, "10.2.0.5")
      yield* server.awaitPeers(2)
      yield* server.bans.ban("10.1.0.0/16", { for: "1 hour", reason: "floods" })
      assert.strictEqual((yield* peer.awaitShutdown)._tag, "RemoteClosed")
      yield* TestClock.adjust(10)
      const ended = events.find((event) => event._tag === "Ended")
      assert.strictEqual(ended?._tag === "Ended" && ended.reason._tag, "Banned")
      assert.strictEqual((yield* visit(net, "10.1.9.9"))._tag, "Failure")
      yield* visitor(net, "10.3.0.1")
      assert.isFalse((yield* server.peers).some(({ address }) => address.address[1] === 1))
      yield* TestClock.adjust("61 minutes")
      yield* visitor(net, "10.1.9.9")
      assert.isDefined(other)
    })
  )

  it.effect("does not touch peers with the permission noban", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, { whitelist: ["noban@10.1.0.0/24"] })
      yield* visitor(net, "10.1.0.5")
      yield* visitor(net, "10.1.1.5")
      yield* server.awaitPeers(2)
      yield* server.bans.ban("10.1.0.0/16")
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(
        (yield* server.peerInfo).map(({ addr, permissions }) => [addr.split(":")[0], permissions]),
        [["10.1.0.5", ["noban", "download"]]]
      )
      yield* visitor(net, "10.1.0.6")
    })
  )
})

describe("a peer that misbehaves", () => {
  it.effect("is discouraged with all its connections, under the policy of Core", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net)
      const events = yield* collect(server)
      const first = yield* visitor(net, "10.1.0.5")
      const second = yield* visitor(net, "10.1.0.5")
      yield* server.awaitPeers(2)
      yield* first.send(tooManyAddresses)
      yield* Effect.all([first.awaitShutdown, second.awaitShutdown])
      yield* TestClock.adjust(10)
      assert.isTrue(server.bans.isDiscouraged({ networkId: 1, address: Uint8Array.of(10, 1, 0, 5) }))
      assert.strictEqual(events.filter(({ _tag }) => _tag === "Discouraged").length, 1)
      // It may come back while there are slots.
      yield* visitor(net, "10.1.0.5")
    })
  )

  it.effect("is kept out once the slots are nearly used up", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, { maxInbound: 3 })
      server.bans.discourage({ networkId: 1, address: Uint8Array.of(10, 1, 0, 5) })
      yield* visitor(net, "10.2.0.1")
      yield* visitor(net, "10.3.0.1")
      yield* server.awaitPeers(2)
      assert.strictEqual((yield* visit(net, "10.1.0.5"))._tag, "Failure")
      yield* visitor(net, "10.4.0.1")
    })
  )

  it.effect("is banned for a day under the policy of btcd", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, { reputation: Reputation.btcd })
      const peer = yield* visitor(net, "10.1.0.5")
      const [one] = yield* server.awaitPeers(1)
      yield* server.misbehaved(one!.id, 60, "it told me lies")
      assert.deepStrictEqual(yield* server.bans.entries, [])
      yield* server.misbehaved(one!.id, 60, "it told me lies")
      yield* server.misbehaved(one!.id, 100, "it told me lies")
      yield* peer.awaitShutdown
      const [ban] = yield* server.bans.entries
      assert.strictEqual(ban?.address, "10.1.0.5/32")
      assert.strictEqual(ban?.ban_duration, 86_400)
    })
  )

  it.effect(
    "is banned under the policy of btcd for the fourth mempool in a row, and for bloom filters that nobody offers",
    () =>
      Effect.gen(function* () {
        const net = memoryNetwork()
        yield* start(net, { reputation: Reputation.btcd })
        const first = yield* visitor(net, "10.1.0.5")
        for (let i = 0; i < 4; i++) yield* first.send({ _tag: "mempool" })
        yield* first.awaitShutdown
        const second = yield* visitor(net, "10.1.0.6")
        yield* second.send({ _tag: "filterclear" })
        yield* second.awaitShutdown
        yield* visitor(net, "10.1.0.7")
      })
  )

  it.effect("is only ended if the operator added it", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, { binds: [], added: ["10.0.0.2"] })
      const listener = yield* net.listen("10.0.0.2:18444")
      const accepted = yield* Effect.forkScoped(
        Effect.flatMap(listener.accept, (connection) =>
          Effect.provide(Peer.make(connection, { network, direction: "inbound", services: 1n | 8n }), Nonce.layer)
        )
      )
      const [one] = yield* server.awaitPeers(1)
      yield* server.misbehaved(one!.id, 100, "test")
      assert.strictEqual((yield* one!.peer.awaitShutdown)._tag, "Requested")
      assert.isFalse(server.bans.isDiscouraged(one!.address))
      assert.isDefined(accepted)
    })
  )
})

describe("a server that is full", () => {
  it.effect("evicts a peer of the largest group for a newcomer, with the reason", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, { maxInbound: 40, maxPending: 100 })
      const events = yield* collect(server)
      for (let i = 0; i < 40; i++) {
        yield* TestClock.adjust(1_000)
        yield* visitor(net, `10.9.${i}.1`)
      }
      yield* server.awaitPeers(40)
      yield* visitor(net, "10.20.0.1")
      yield* TestClock.adjust(100)
      assert.strictEqual((yield* server.peers).length, 40)
      assert.isTrue((yield* server.peers).some(({ address }) => address.address[1] === 20))
      const evicted = events.find((event) => event._tag === "Evicted")
      const ended = events.find((event) => event._tag === "Ended")
      assert.strictEqual(ended?._tag === "Ended" && ended.reason._tag, "Evicted")
      assert.strictEqual(evicted?._tag === "Evicted" && evicted.id, ended?._tag === "Ended" && ended.id)
    })
  )

  it.effect("refuses the newcomer if every peer is protected", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, { maxInbound: 10 })
      const events = yield* collect(server)
      for (let i = 0; i < 10; i++) yield* visitor(net, `10.${i + 1}.0.1`)
      yield* server.awaitPeers(10)
      assert.strictEqual((yield* visit(net, "10.50.0.1"))._tag, "Failure")
      const refused = events.find((event) => event._tag === "Refused")
      assert.strictEqual(refused?._tag === "Refused" && refused.step, "full")
    })
  )

  it.effect("keeps at most half of its slots for peers that want transactions", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, { maxInbound: 8 })
      for (let i = 0; i < 5; i++) yield* visitor(net, `10.${i + 1}.0.1`, { relay: true })
      yield* TestClock.adjust(100)
      const relaying = (yield* server.peers).filter(({ peer }) => peer.info.relay)
      assert.strictEqual(relaying.length, 4)
      yield* visitor(net, "10.30.0.1")
      yield* TestClock.adjust(100)
      assert.strictEqual((yield* server.peers).length, 5)
    })
  )

  it.effect("gives each bind slots of its own: a full one takes no peer of another", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, {
        maxInbound: 4,
        binds: [
          { listen: net.listen("10.0.0.1:18444"), slots: 1 },
          { listen: net.listen("10.0.0.2:18444"), kind: "onion" }
        ]
      })
      const onion: Address.Address = { ...home, address: Uint8Array.of(10, 0, 0, 2) }
      yield* visitor(net, "10.9.0.1")
      assert.strictEqual((yield* visit(net, "10.8.0.1"))._tag, "Failure")
      for (let i = 0; i < 3; i++) {
        yield* Effect.provide(
          Peer.dial(Effect.orDie(net.dialer("127.0.0.1").dial(onion, "manual")), {
            network,
            transport: "v1",
            relay: false
          }),
          Nonce.layer
        )
      }
      yield* server.awaitPeers(4)
      assert.deepStrictEqual(
        (yield* server.peerInfo).map((peer) => peer.network),
        ["not_publicly_routable", "onion", "onion", "onion"]
      )
    })
  )
})
