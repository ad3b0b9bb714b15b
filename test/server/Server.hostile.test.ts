/** A server whose remotes, services, callbacks and callers do what they must not do. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { type Address, Network, Nonce, Peer, PeerServer } from "effect-bitcoin-peer"
import { AddressBook, ChainView, Dialer, Reputation, Server, Store } from "effect-bitcoin-peer/server"
import { memoryNetwork } from "../support/memoryNetwork.ts"

const network = Network.regtest
type Net = ReturnType<typeof memoryNetwork>

const start = (net: Net, options: Server.Options = {}, dialer = net.dialer("10.0.0.1")) =>
  Effect.provideService(
    Server.make({
      network,
      randomKey: new Uint8Array(16).fill(7),
      feelers: false,
      ...options,
      peer: { services: 1n | 8n, transport: "v1", ...options.peer }
    }),
    Dialer.Dialer,
    dialer
  )

const address = (host: string): Address.Address => ({
  networkId: 1,
  address: Uint8Array.from(host.split("."), Number),
  port: network.port
})

/** A node that accepts everybody. Returns its peers. */
const node = Effect.fnUntraced(function* (net: Net, host: string) {
  const peers: Array<Peer.Peer> = []
  const listener = yield* net.listen(`${host}:18444`)
  yield* Effect.forkScoped(
    Effect.provide(
      PeerServer.serve(listener, {
        peer: { network, services: 1n | 8n },
        onPeer: (peer) => Effect.sync(() => void peers.push(peer))
      }),
      Nonce.layer
    )
  )
  return peers
})

/** A client at an address. */
const visitor = (net: Net, from: string, at = "10.0.0.1", options: Peer.Options = {}) =>
  Effect.provide(
    Peer.dial(Effect.orDie(net.dialer(from).dial(address(at), "manual")), {
      network,
      transport: "v1",
      relay: false,
      ...options
    }),
    Nonce.layer
  )

const collect = Effect.fnUntraced(function* (server: Server.Server) {
  const events: Array<Server.ServerEvent> = []
  yield* Effect.forkScoped(Stream.runForEach(server.events, (event) => Effect.sync(() => void events.push(event))))
  yield* Effect.yieldNow
  return events
})
const tagsOf = (events: ReadonlyArray<Server.ServerEvent>) => events.map(({ _tag }) => _tag)
const warnings = (events: ReadonlyArray<Server.ServerEvent>) =>
  events.flatMap((event) => (event._tag === "Warning" ? [event.message] : []))

/** A chain that is in sync, and whose tip is old. */
const oldChain: ChainView.ChainView = {
  tipWork: () => 1n,
  tipChangedAt: () => 0,
  isInitialSync: () => false,
  isDownloading: () => false,
  workOf: () => 1n,
  hasBlockInFlight: () => false,
  lastNewBlock: () => 0,
  askForHeaders: () => undefined
}

describe("a caller", () => {
  it.effect("with an unknown kind of connection gets an error, and the server goes on", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      yield* node(net, "10.0.0.2")
      const server = yield* start(net)
      const fiber = yield* Effect.forkScoped(
        Effect.flip(Effect.scoped(server.dialOnce("10.0.0.2", "nonsense" as never)))
      )
      yield* TestClock.adjust(1_000)
      assert.match(fiber.pollUnsafe()?._tag === "Success" ? (yield* Fiber.join(fiber)).message : "", /nonsense/)
      yield* server.add("10.0.0.2")
      yield* TestClock.adjust(1_000)
      assert.strictEqual((yield* server.peers).length, 1)
    })
  )

  it.effect("of dialOnce does not wait for ever when the server ends first", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(start(net, { dialRate: { perSecond: 0.001, burst: 1 } }), scope)
      const first = yield* Effect.forkScoped(Effect.result(Effect.scoped(server.dialOnce("10.0.0.2"))))
      const second = yield* Effect.forkScoped(Effect.flip(Effect.scoped(server.dialOnce("10.0.0.3"))))
      yield* TestClock.adjust(1_000)
      assert.isDefined(first.pollUnsafe())
      assert.isUndefined(second.pollUnsafe())
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust(10)
      assert.isDefined(second.pollUnsafe(), "it still waits")
      assert.match((yield* Fiber.join(second)).message, /10\.0\.0\.3/)
      const late = yield* Effect.forkScoped(Effect.flip(Effect.scoped(server.dialOnce("10.0.0.4"))))
      yield* TestClock.adjust(10)
      assert.isDefined(late.pollUnsafe(), "a late call waits")
    })
  )

  it.effect("of dialOnce is told that the network was switched off before its turn", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, { dialRate: { perSecond: 0.001, burst: 1 } })
      yield* Effect.forkScoped(Effect.result(Effect.scoped(server.dialOnce("10.0.0.2"))))
      const second = yield* Effect.forkScoped(Effect.flip(Effect.scoped(server.dialOnce("10.0.0.3"))))
      yield* TestClock.adjust(1_000)
      yield* server.setNetworkActive(false)
      yield* TestClock.adjust(10)
      assert.isDefined(second.pollUnsafe(), "it still waits")
      assert.match((yield* Fiber.join(second)).message, /switched off/)
    })
  )

  it.effect("that dials eight nodes once takes no slot of the added ones", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, { dialRate: { perSecond: 100, burst: 100 } })
      for (let i = 0; i < 9; i++) yield* node(net, `10.${i}.0.2`)
      for (let i = 0; i < 8; i++) yield* Effect.forkScoped(Effect.andThen(server.dialOnce(`10.${i}.0.2`), Effect.never))
      yield* TestClock.adjust(5_000)
      assert.strictEqual((yield* server.peers).length, 8)
      yield* server.add("10.8.0.2")
      yield* TestClock.adjust(5_000)
      assert.strictEqual((yield* server.peers).length, 9)
    })
  )

  it.effect("that dials a node twice has one connection", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const peers = yield* node(net, "10.0.0.2")
      const server = yield* start(net)
      yield* Effect.forkScoped(Effect.andThen(server.dialOnce("10.0.0.2"), Effect.never))
      yield* TestClock.adjust(1_000)
      const fiber = yield* Effect.forkScoped(Effect.flip(server.dialOnce("10.0.0.2:18444")))
      yield* TestClock.adjust(1_000)
      assert.match((yield* Fiber.join(fiber)).message, /connected to 10\.0\.0\.2:18444 already/)
      yield* server.add("10.0.0.2")
      yield* TestClock.adjust(1_000)
      assert.strictEqual(peers.length, 1)
    })
  )

  it.effect("whose function throws for one peer still reaches the others", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, { binds: [{ listen: net.listen("10.0.0.1:18444") }] })
      for (let i = 1; i < 4; i++) yield* visitor(net, `10.${i}.0.1`)
      yield* TestClock.adjust(10)
      const reached: Array<number> = []
      const exit = yield* Effect.exit(
        server.forEach(({ id }) => {
          if (reached.push(id) === 1) throw new Error("a defect")
          return Effect.void
        })
      )
      assert.strictEqual(exit._tag, "Success")
      assert.strictEqual(reached.length, 3)
    })
  )

  it.effect("who reads events is told that the server has ended", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(start(memoryNetwork()), scope)
      const events = yield* Effect.forkScoped(Stream.runCollect(server.events))
      yield* TestClock.adjust(10)
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust(10)
      const exit = events.pollUnsafe()
      assert.strictEqual(exit?._tag, "Success")
      assert.strictEqual(exit?._tag === "Success" && exit.value.at(-1)?._tag, "Persisted")
    })
  )
})

describe("a server with nodes of its own choice", () => {
  const withBook = Effect.fnUntraced(function* (net: Net) {
    const seconds = 1_780_000_000
    yield* TestClock.setTime(seconds * 1_000)
    const book = AddressBook.make({ network, random: { next: () => 0.5, below: () => 0 } })
    for (let i = 1; i < 5; i++) {
      yield* node(net, `20.${i}.0.1`)
      const entry = { ...address(`20.${i}.0.1`), services: 1n | 8n, timestamp: seconds }
      book.add([entry], entry, seconds * 1_000)
    }
    return AddressBook.fromBook(book)
  })

  it.effect("dials no address of the book, even with an old tip", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const book = yield* withBook(net)
      const server = yield* start(net, { connect: [] }).pipe(
        Effect.provideService(AddressBook.AddressBook, book),
        Effect.provideService(ChainView.ChainView, oldChain)
      )
      const events = yield* collect(server)
      yield* TestClock.adjust("2 hours")
      assert.notInclude(tagsOf(events), "Dialing")
    })
  )

  it.effect("leaves the anchors of other runs alone", () =>
    Effect.gen(function* () {
      const store = Store.makeMemory()
      const anchors = AddressBook.encodeAnchors([{ ...address("20.1.0.1"), services: 9n, timestamp: 1 }], network)
      yield* store.save("anchors.dat", anchors)
      yield* Effect.scoped(Effect.provideService(start(memoryNetwork(), { connect: [] }), Store.Store, store))
      assert.deepStrictEqual(yield* Effect.flatMap(store.load("anchors.dat"), Effect.fromOption), anchors)
    })
  )
})

describe("a server that thinks it has no network", () => {
  it.effect("does not do so for nodes that no way leads to", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const added = Array.from({ length: 10 }, (_, i) => `10.${i}.0.2`)
      const server = yield* start(net, { maxManual: 20, dialRate: { perSecond: 50, burst: 50 } }, Dialer.make({}))
      const events = yield* collect(server)
      yield* Effect.forEach(added, server.add)
      yield* TestClock.adjust(9_000)
      assert.notInclude(tagsOf(events), "Offline")
      assert.strictEqual(warnings(events).length, 10)
    })
  )

  it.effect("does not do so for names of nodes that it is connected to", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      yield* node(net, "10.0.0.9")
      const added = Array.from({ length: 10 }, (_, i) => `n${i}.example`)
      for (const name of added) net.names.set(name, address("10.0.0.9"))
      const server = yield* start(net, { maxManual: 20, dialRate: { perSecond: 50, burst: 50 } })
      const events = yield* collect(server)
      yield* Effect.forEach(added, server.add)
      yield* TestClock.adjust(9_000)
      assert.strictEqual((yield* server.peers).length, 1)
      assert.notInclude(tagsOf(events), "Offline")
    })
  )
})

describe("a peer that misbehaves", () => {
  it.effect("is ended though a proxy hides its address", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      yield* node(net, "10.0.0.9")
      net.names.set("node.example", address("10.0.0.9"))
      const server = yield* start(net, { added: ["node.example"] }, net.dialer("10.0.0.1", true))
      const [one] = yield* server.awaitPeers(1)
      yield* server.misbehaved(one!.id, 100, "it told me lies")
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(yield* server.peers, [])
    })
  )

  it.effect("at an onion bind does not end the others that come there", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, { binds: [{ listen: net.listen("10.0.0.1:18444"), kind: "onion" }] })
      const events = yield* collect(server)
      // The address of a Tor daemon in another container.
      yield* visitor(net, "172.17.0.2")
      yield* visitor(net, "172.17.0.2")
      const [one] = yield* server.awaitPeers(2)
      yield* server.misbehaved(one!.id, 100, "it told me lies")
      yield* TestClock.adjust(10)
      assert.strictEqual((yield* server.peers).length, 1)
      assert.notInclude(tagsOf(events), "Discouraged")
    })
  )

  it.effect("by a number that is none is not spared from then on", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, {
        reputation: Reputation.btcd,
        binds: [{ listen: net.listen("10.0.0.1:18444") }]
      })
      yield* visitor(net, "10.2.0.1")
      const [one] = yield* server.awaitPeers(1)
      yield* server.misbehaved(one!.id, Number.NaN, "it told me lies")
      yield* server.misbehaved(one!.id, 60, "it told me lies")
      yield* server.misbehaved(one!.id, 60, "it told me lies")
      yield* TestClock.adjust(10)
      assert.deepStrictEqual(yield* server.peers, [])
    })
  )
})
