/** What a server keeps from one run to the next. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Option, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Address, Network } from "effect-bitcoin-peer"
import { AddressBook, Dialer, Server, Store } from "effect-bitcoin-peer/server"
import { Simulation } from "effect-bitcoin-peer/testing"
import { dialerOf, serverOn, textOf } from "../support/simulatedServers.ts"

const time = 1_780_000_000_000
const network = Network.mainnet

const messages = Effect.fnUntraced(function* (server: Server.Server) {
  const texts: Array<string> = []
  yield* Effect.forkScoped(
    Stream.runForEach(server.events, (event) =>
      Effect.sync(() => void texts.push(event._tag === "Warning" ? event.message : event._tag))
    )
  )
  yield* Effect.yieldNow
  return texts
})

/** A simulated network of nodes with a book that has them all, for a client on a host of its own. */
const world = Effect.fnUntraced(function* (count: number) {
  yield* TestClock.setTime(time)
  const simulation = yield* Simulation.make({ seed: 5, traceBytes: false })
  const hosts = yield* Effect.forEach(Array.from({ length: count }), () => simulation.host())
  yield* Effect.forEach(hosts, (host, i) => serverOn(host, i, { feelers: false, fullRelay: 0, blockRelay: 0 }))
  const store = Store.makeMemory()
  const book = AddressBook.make({
    network,
    random: { next: () => 0.5, below: (bound) => bound >> 1 },
    key: new Uint8Array(32).fill(1)
  })
  const seconds = time / 1_000
  for (const host of hosts) {
    book.add([{ ...host.addresses[0], services: 1n | 8n, timestamp: seconds }], host.addresses[0], time)
  }
  yield* store.save("peers.dat", book.serialize())
  const client = yield* simulation.host()
  const run = (options: Server.Options = {}) =>
    Effect.provideService(
      Effect.provideService(
        Server.make({
          network,
          randomKey: new Uint8Array(16).fill(9),
          feelers: false,
          ...options,
          peer: { transport: "v1" }
        }),
        Dialer.Dialer,
        dialerOf(client)
      ),
      Store.Store,
      store
    )
  return { simulation, hosts, store, client, run }
})

const loaded = (store: Store.Store, name: string) => Effect.map(store.load(name), Option.getOrThrow)

describe("the files of a server", () => {
  it.effect("bring back the book, the bans and the anchors, which are dialled first and once", () =>
    Effect.gen(function* () {
      const { run, store } = yield* world(14)
      const scope = yield* Scope.make()
      const first = yield* Scope.provide(run(), scope)
      yield* TestClock.adjust("2 minutes")
      const before = yield* first.peers
      assert.strictEqual(before.length, 10)
      yield* first.bans.ban("192.0.2.0/24", { for: "1 day", reason: "test" })
      yield* Scope.close(scope, Exit.void)
      const anchors = before
        .filter(({ kind }) => kind === "block-relay-only")
        .map(({ address }) => Address.format(address))
      assert.strictEqual(anchors.length, 2)

      const second = yield* run()
      assert.deepStrictEqual(
        AddressBook.decodeAnchors(yield* loaded(store, "anchors.dat"), network),
        AddressBook.decodeAnchors(AddressBook.encodeAnchors([], network), network)
      )
      assert.strictEqual((yield* second.bans.entries)[0]?.address, "192.0.2.0/24")
      assert.strictEqual(second.book.stats().all_networks.tried, 10)
      yield* TestClock.adjust("1 second")
      const [one, two] = yield* second.peers
      assert.sameMembers(
        [one, two].map((peer) => Address.format(peer!.address)),
        anchors
      )
      assert.strictEqual(one?.kind, "block-relay-only")
    })
  )

  it.effect("are saved every 15 minutes, and a ban at once, so that a crash loses no ban", () =>
    Effect.gen(function* () {
      const { run, store } = yield* world(3)
      const server = yield* run()
      yield* server.bans.ban("192.0.2.0/24")
      assert.include(new TextDecoder().decode(yield* loaded(store, "banlist.json")), "192.0.2.0/24")
      yield* TestClock.adjust("14 minutes")
      const before = yield* loaded(store, "peers.dat")
      yield* TestClock.adjust("2 minutes")
      assert.notDeepEqual(yield* loaded(store, "peers.dat"), before)
    })
  )

  it.effect("have a ban that was made while the other files were saved on a slow disk", () =>
    Effect.gen(function* () {
      const { client, store } = yield* world(3)
      let delay = 1_000
      const slow: Store.Store = {
        ...store,
        save: (name, bytes) => Effect.delay(store.save(name, bytes), name === "peers.dat" ? delay : 0)
      }
      const server = yield* Server.make({ network, feelers: false, fixedSeeds: false, peer: { transport: "v1" } }).pipe(
        Effect.provideService(Dialer.Dialer, dialerOf(client)),
        Effect.provideService(Store.Store, slow)
      )
      yield* TestClock.adjust("15 minutes")
      yield* TestClock.adjust(500)
      // The book is being written.
      yield* server.bans.ban("192.0.2.0/24")
      yield* TestClock.adjust("10 seconds")
      delay = 0
      assert.include(new TextDecoder().decode(yield* loaded(store, "banlist.json")), "192.0.2.0/24")
    })
  )

  it.effect("are set aside if they are damaged, with a warning: the server starts", () =>
    Effect.gen(function* () {
      const { run, store } = yield* world(3)
      const whole = yield* loaded(store, "peers.dat")
      yield* store.save("peers.dat", whole.subarray(0, whole.length - 40))
      yield* store.save("banlist.json", new TextEncoder().encode("{ no JSON"))
      yield* store.save("anchors.dat", new Uint8Array(7))
      const server = yield* run()
      const texts = yield* messages(server)
      assert.deepStrictEqual(
        texts.map((text) => text.split(" ")[0]).filter((word) => word !== "Dialing"),
        ["banlist.json", "peers.dat", "anchors.dat"],
        "a reader gets the warnings of the start"
      )
      assert.strictEqual(server.book.size, 3, "every address that could be read")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* server.peers).length, 3)
    })
  )

  it.effect("that cannot be read or written are a warning, and cost nothing else", () =>
    Effect.gen(function* () {
      const { client, hosts } = yield* world(3)
      const broken = Store.make({
        load: (name) =>
          Effect.fail(new Store.StoreError({ operation: "load", name, problem: "NoPermission", cause: undefined })),
        save: (name) =>
          Effect.fail(new Store.StoreError({ operation: "save", name, problem: "Full", cause: undefined })),
        rename: () => Effect.void
      })
      const server = yield* Effect.provideService(
        Effect.provideService(
          Server.make({
            network,
            added: [textOf(hosts[0]!)],
            feelers: false,
            fixedSeeds: false,
            peer: { transport: "v1" }
          }),
          Dialer.Dialer,
          dialerOf(client)
        ),
        Store.Store,
        broken
      )
      const texts = yield* messages(server)
      yield* TestClock.adjust("16 minutes")
      assert.isTrue(
        texts.some((text) => text.includes("peers.dat")),
        texts.join()
      )
      assert.strictEqual((yield* server.peers).length, 1)
    })
  )
})
