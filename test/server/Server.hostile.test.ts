/** A server whose remotes, services, callbacks and callers do what they must not do. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { type Address, Network, Nonce, Peer } from "effect-bitcoin-peer"
import { AddressBook, ChainView, Dialer, Reputation, Server, Store } from "effect-bitcoin-peer/server"
import { memoryNetwork } from "../support/memoryNetwork.ts"
import { collect, node } from "../support/serverRig.ts"

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
      yield* node(net, "10.0.0.2:18444")
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
      for (let i = 0; i < 9; i++) yield* node(net, `10.${i}.0.2:18444`)
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
      const peers = yield* node(net, "10.0.0.2:18444")
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

describe("a defect", () => {
  it.effect("of a chain view does not end the watch of the chain", () =>
    Effect.gen(function* () {
      let asked = 0
      const chain: ChainView.ChainView = {
        ...oldChain,
        isDownloading: () => {
          if (asked++ === 0) throw new Error("no database")
          return false
        }
      }
      const server = yield* Effect.provideService(start(memoryNetwork()), ChainView.ChainView, chain)
      const events = yield* collect(server)
      yield* TestClock.adjust("61 minutes")
      assert.isTrue(
        warnings(events).some((message) => message.includes("no database")),
        warnings(events).join()
      )
      assert.include(tagsOf(events), "StaleTip")
    })
  )

  it.effect("of a listener is told, and leaves other listeners alone", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, {
        binds: [
          { listen: Effect.succeed({ accept: Effect.die(new Error("no descriptor")) }) },
          { listen: net.listen("10.0.0.1:18444") }
        ]
      })
      const events = yield* collect(server)
      yield* visitor(net, "10.2.0.1")
      yield* TestClock.adjust(6_000)
      assert.strictEqual((yield* server.peers).length, 1)
      assert.isTrue(warnings(events).some((message) => message.includes("no descriptor")))
    })
  )

  it.effect("of a listener to the ban list costs no slot", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, {
        reputation: Reputation.btcd,
        binds: [{ listen: net.listen("10.0.0.1:18444") }]
      })
      server.bans.onChange(() => {
        throw new Error("a defect")
      })
      const tooMany = {
        _tag: "Unknown",
        command: "addr",
        payload: Uint8Array.of(0xfd, 0xe9, 0x03, ...new Uint8Array(1_001 * 30))
      } as const
      // The second one is banned.
      for (let i = 0; i < 2; i++) {
        const peer = yield* visitor(net, "10.2.0.1")
        yield* peer.send(tooMany)
        yield* peer.awaitShutdown
        yield* TestClock.adjust(1_000)
      }
      assert.strictEqual((yield* server.bans.entries).length, 1)
      assert.deepStrictEqual(yield* server.peers, [])
      assert.strictEqual(yield* server.disconnect(2), 0)
    })
  )

  it.effect("of a dialer is told, and is no sign of a machine without network", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const broken: Dialer.Dialer = { ...net.dialer("10.0.0.1"), dial: () => Effect.die(new Error("a defect")) }
      const added = Array.from({ length: 10 }, (_, i) => `10.${i}.0.2`)
      const server = yield* start(net, { maxManual: 20, dialRate: { perSecond: 50, burst: 50 } }, broken)
      const events = yield* collect(server)
      yield* Effect.forEach(added, server.add)
      yield* TestClock.adjust(9_000)
      assert.notInclude(tagsOf(events), "Offline")
      assert.isTrue(warnings(events).some((message) => message.includes("a defect")))
    })
  )

  it.effect("of onPeer or onRead ends at most its own peer", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, {
        binds: [{ listen: net.listen("10.0.0.1:18444") }],
        onPeer: ({ address }) => {
          if (address.address[1] === 2) throw new Error("a defect")
          return Effect.die(new Error("another"))
        },
        peer: {
          onRead: (event) => {
            if (event._tag === "Received" && event.message._tag === "mempool") throw new Error("a defect")
          }
        }
      })
      const one = yield* visitor(net, "10.2.0.1")
      yield* visitor(net, "10.3.0.1")
      yield* TestClock.adjust(10)
      assert.strictEqual((yield* server.peers).length, 2)
      yield* one.send({ _tag: "mempool" })
      yield* one.awaitShutdown
      yield* TestClock.adjust(10)
      assert.strictEqual((yield* server.peers).length, 1)
      yield* visitor(net, "10.2.0.1")
    })
  )

  it.effect("of a store does not keep the server from starting", () =>
    Effect.gen(function* () {
      const dies = Effect.die(new Error("disk on fire"))
      const store = { load: () => dies, save: () => dies, quarantine: () => dies } as unknown as Store.Store
      const server = yield* Effect.provideService(start(memoryNetwork()), Store.Store, store)
      const events = yield* collect(server)
      const fires = () => warnings(events).filter((message) => message.includes("disk on fire")).length
      assert.strictEqual(fires(), 3, "one for each file that cannot be loaded")
      yield* server.bans.ban("1.2.3.4")
      yield* TestClock.adjust(10)
      const once = fires()
      assert.isAbove(once, 3)
      yield* server.bans.ban("1.2.3.5")
      yield* TestClock.adjust(10)
      assert.isAbove(fires(), once)
    })
  )
})

describe("the end of a server", () => {
  it.effect("waits five seconds for a store that hangs", () =>
    Effect.gen(function* () {
      const memory = Store.makeMemory()
      const store: Store.Store = { ...memory, save: () => Effect.never }
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(Effect.provideService(start(memoryNetwork()), Store.Store, store), scope)
      const banning = yield* Effect.forkScoped(server.bans.ban("1.2.3.4"))
      yield* TestClock.adjust("16 minutes")
      assert.isDefined(banning.pollUnsafe(), "the ban does not return")
      assert.isTrue(server.bans.has({ networkId: 1, address: Uint8Array.of(1, 2, 3, 4) }, 0))
      const closing = yield* Effect.forkScoped(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("16 seconds")
      assert.isDefined(closing.pollUnsafe(), "the scope does not close")
    })
  )

  it.effect("waits five seconds for an onPeer that cannot be interrupted, and saves the files", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const memory = Store.makeMemory()
      let saves = 0
      const store: Store.Store = {
        ...memory,
        save: (name, bytes) =>
          Effect.andThen(
            Effect.sync(() => saves++),
            memory.save(name, bytes)
          )
      }
      const scope = yield* Scope.make()
      const made = start(net, {
        binds: [{ listen: net.listen("10.0.0.1:18444") }],
        onPeer: () => Effect.uninterruptible(Effect.sleep("1 hour"))
      })
      const server = yield* Scope.provide(Effect.provideService(made, Store.Store, store), scope)
      yield* visitor(net, "10.2.0.1")
      yield* server.awaitPeers(1)
      const closing = yield* Effect.forkScoped(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("6 seconds")
      assert.isDefined(closing.pollUnsafe(), "the scope does not close")
      assert.strictEqual(saves, 3)
    })
  )

  it.effect("closes the listener before its peers", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const order: Array<string> = []
      const listen = Effect.gen(function* () {
        const listener = yield* net.listen("10.0.0.1:18444")
        yield* Effect.addFinalizer(() => Effect.sync(() => order.push("listener")))
        return listener
      })
      const scope = yield* Scope.make()
      yield* Scope.provide(
        start(net, {
          binds: [{ listen }],
          onPeer: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => order.push("peer")))
        }),
        scope
      )
      yield* visitor(net, "10.2.0.1")
      yield* TestClock.adjust(10)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(order, ["listener", "peer"])
    })
  )
})

describe("a server with nodes of its own choice", () => {
  const withBook = Effect.fnUntraced(function* (net: Net) {
    const seconds = 1_780_000_000
    yield* TestClock.setTime(seconds * 1_000)
    const book = AddressBook.make({ network, random: { next: () => 0.5, below: () => 0 } })
    for (let i = 1; i < 5; i++) {
      yield* node(net, `20.${i}.0.1:18444`)
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
      yield* node(net, "10.0.0.9:18444")
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
      yield* node(net, "10.0.0.9:18444")
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

describe("options", () => {
  const wrong: ReadonlyArray<readonly [string, unknown, RegExp]> = [
    ["no object", null, /the options must be an object/],
    ["a network by its name", { network: "regtest" }, /network must be a Network/],
    ["a text in place of a list", { added: "10.0.0.2" }, /added must be an array of texts/],
    ["a list of other things", { connect: [null] }, /connect must be an array of texts/],
    ["null for a list", { whitelist: null }, /whitelist must be an array of texts/],
    ["a text for a number", { fullRelay: "8" }, /fullRelay must be a whole number/],
    ["NaN", { maxInbound: Number.NaN }, /maxInbound must be a whole number/],
    ["null for a number", { maxPending: null }, /maxPending must be a whole number/],
    ["a text for a boolean", { fleet: "false" }, /fleet must be true or false/],
    ["a rate of texts", { dialRate: { perSecond: "4", burst: "8" } }, /dialRate must have numbers/],
    ["a rate without end", { dialRate: { perSecond: Infinity, burst: 8 } }, /dialRate must have numbers/],
    ["a rate that is none", { dialRate: 4 }, /dialRate must be an object/],
    ["numbers for services", { requiredServices: [1] }, /requiredServices must be an array of bigints/],
    ["a service that cannot be", { requiredServices: [0n] }, /requiredServices must be an array of bigints/],
    ["a bind that is no object", { binds: ["0.0.0.0:8333"] }, /binds must be an array of objects/],
    ["a bind without listener", { binds: [{ listen: 8333 }] }, /binds must be an array of objects/],
    ["an unknown kind of bind", { binds: [{ listen: Effect.never, kind: "tor" }] }, /there is no kind "tor" of bind/],
    ["slots that are no number", { binds: [{ listen: Effect.never, slots: "9" }] }, /slots/],
    ["an unknown permission", { binds: [{ listen: Effect.never, permissions: "root" }] }, /root/],
    ["an unknown network", { onlyNetworks: ["tor"] }, /there is no network "tor"/],
    ["a network without a way", { onlyNetworks: ["onion"] }, /the dialer has no way to onion/],
    ["a port of five digits", { external: ["1.2.3.4:99999"] }, /99999/],
    ["a policy by its name", { reputation: "core" }, /reputation must be a Policy/],
    ["a callback that is none", { onPeer: "log" }, /onPeer must be a function/],
    ["a short key", { randomKey: new Uint8Array(3) }, /randomKey must be 16 bytes/]
  ]
  for (const [what, options, message] of wrong) {
    it.effect(`with ${what} are one clear line`, () =>
      Effect.gen(function* () {
        const net = memoryNetwork()
        const made = Effect.provideService(Server.make(options as never), Dialer.Dialer, net.dialer("10.0.0.1"))
        const error = yield* Effect.flip(Effect.scoped(made))
        assert.strictEqual(error._tag, "ServerError")
        assert.match(error.message, /^bad option: [^\n]+$/)
        assert.match(error.message, message)
      })
    )
  }
})

describe("awaitPeers", () => {
  it.effect("is interrupted when the server ends, and waits for no number that is none", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(start(memoryNetwork()), scope)
      assert.deepStrictEqual(yield* server.awaitPeers(Number.NaN), [])
      const waiting = yield* Effect.forkScoped(server.awaitPeers(1))
      yield* TestClock.adjust(10)
      yield* Scope.close(scope, Exit.void)
      const exit = yield* Fiber.await(waiting)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterrupts(exit.cause))
    })
  )
})
