/** A server of many peers, over connections in memory and in virtual time. */
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import { type Address, Connection, Network, Nonce, Peer } from "effect-bitcoin-peer"
import { AddressBook, Dialer, Server } from "effect-bitcoin-peer/server"
import { memoryNetwork } from "../support/memoryNetwork.ts"
import { collect, node } from "../support/serverRig.ts"

const network = Network.regtest
const randomKey = new Uint8Array(16).fill(7)

const start = (net: ReturnType<typeof memoryNetwork>, options: Server.Options = {}, from = "10.0.0.1") =>
  Effect.provideService(
    Server.make({ network, randomKey, feelers: false, ...options }),
    Dialer.Dialer,
    net.dialer(from)
  )

/** Lets all fibers run that can run now, and then for a time. */
const pass = (time: number) => TestClock.adjust(time)

const tagsOf = (events: ReadonlyArray<Server.ServerEvent>) => events.map(({ _tag }) => _tag)

describe("a server", () => {
  it.effect("stays connected to an added node: it dials again when the peer ends, later each time", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const remote = yield* node(net, "10.0.0.2:18444")
      const server = yield* start(net, { added: ["10.0.0.2"] })
      const [first] = yield* server.awaitPeers(1)
      yield* pass(10)
      assert.strictEqual(first?.kind, "manual")
      assert.isTrue((yield* server.added)[0]?.connected)
      const times: Array<number> = []
      for (let i = 1; i <= 4; i++) {
        yield* remote.at(-1)!.disconnect("bye")
        const from = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
        while (remote.length === i) yield* pass(100)
        times.push((yield* Effect.clockWith((clock) => clock.currentTimeMillis)) - from)
      }
      assert.isAbove(times[3]!, times[0]! * 3)
      assert.isAtMost(times[3]!, 8_400)
    })
  )

  it.effect("looks the name of an added node up at each try", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const events = yield* Effect.flatMap(start(net, { added: ["node.example"] }), collect)
      yield* pass(1_000)
      assert.include(tagsOf(events), "DialFailed")
      const peers = yield* node(net, "10.0.0.9:18444")
      net.names.set("node.example", { networkId: 1, address: Uint8Array.of(10, 0, 0, 9), port: 18_444 })
      yield* pass(10_000)
      assert.strictEqual(peers.length, 1)
    })
  )

  it.effect("keeps one connection where a name is the address of another added node", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const peers = yield* node(net, "10.0.0.9:18444")
      net.names.set("node.example", { networkId: 1, address: Uint8Array.of(10, 0, 0, 9), port: 18_444 })
      const server = yield* start(net, { added: ["10.0.0.9"] })
      const events = yield* collect(server)
      yield* server.awaitPeers(1)
      yield* pass(10)
      yield* server.add("node.example")
      yield* pass(5_000)
      const failed = events.find((event) => event._tag === "DialFailed")
      assert.strictEqual(failed?._tag === "DialFailed" && failed.error._tag, "Duplicate")
      assert.strictEqual(peers.length, 1)
      assert.strictEqual((yield* server.peers).length, 1)
    })
  )

  it.effect("has a peer for each of two names behind a proxy, which does not tell their addresses", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      for (const [name, host] of [
        ["one.example", "10.0.0.8"],
        ["two.example", "10.0.0.9"]
      ] as const) {
        yield* node(net, `${host}:18444`)
        net.names.set(name, address(host))
      }
      const server = yield* Effect.provideService(
        Server.make({ network, randomKey, added: ["one.example", "two.example"], peer: { transport: "v1" } }),
        Dialer.Dialer,
        net.dialer("10.0.0.1", true)
      )
      const peers = yield* server.awaitPeers(2)
      yield* Effect.forEach(peers, ({ peer }) => peer.disconnect())
      yield* pass(100)
      assert.deepStrictEqual(yield* server.peers, [])
      yield* pass(5_000)
      assert.strictEqual((yield* server.peers).length, 2)
    })
  )

  it.effect("notices that this machine is offline while names are not found, either", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      net.setCut(true)
      const direct = net.dialer("10.0.0.1")
      const dialer: Dialer.Dialer = {
        ...direct,
        dial: (target, kind) =>
          Dialer.isName(target)
            ? Effect.fail(
                new Connection.ConnectionError({
                  reason: { _tag: "DialFailed", problem: "HostNotFound", host: target.host, port: 1, cause: undefined }
                })
              )
            : direct.dial(target, kind)
      }
      const added = [0, 1, 2, 3].flatMap((i) => [`10.0.1.${i}`, `${i}.example`])
      const server = yield* Effect.provideService(
        Server.make({ network, randomKey, added, feelers: false }),
        Dialer.Dialer,
        dialer
      )
      const events = yield* collect(server)
      yield* pass(60_000)
      assert.include(tagsOf(events), "Offline")
    })
  )

  it.effect("serves more added nodes than slots in turn, and says so", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const remotes = yield* Effect.forEach([2, 3, 4], (i) => node(net, `10.0.0.${i}:18444`))
      const server = yield* start(net, { added: ["10.0.0.2", "10.0.0.3", "10.0.0.4"], maxManual: 2 })
      const events = yield* collect(server)
      yield* server.awaitPeers(2)
      yield* pass(10)
      const [warning] = events.flatMap((event) => (event._tag === "Warning" ? [event.message] : []))
      assert.strictEqual(
        warning,
        "3 nodes are added, of which 2 can be connected at one time: the others wait for their turn"
      )
      assert.strictEqual(remotes[2]!.length, 0)
      yield* remotes[0]![0]!.disconnect()
      yield* pass(200)
      assert.strictEqual(remotes[2]!.length, 1)
    })
  )

  it.effect("ends the peer of a node that is removed, and does not dial it again", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const remote = yield* node(net, "10.0.0.2:18444")
      const server = yield* start(net, { added: ["10.0.0.2"] })
      yield* server.awaitPeers(1)
      yield* pass(10)
      assert.isFalse(yield* server.add("10.0.0.2:18444"))
      assert.isTrue(yield* server.remove("10.0.0.2"))
      assert.isFalse(yield* server.remove("10.0.0.2"))
      yield* pass(600_000)
      assert.strictEqual(remote.length, 1)
      assert.deepStrictEqual(yield* server.peers, [])
    })
  )

  it.effect("dials once for a caller, whose scope the peer lives in", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const remote = yield* node(net, "10.0.0.2:18444")
      const server = yield* start(net)
      const scope = yield* Scope.make()
      const connected = yield* Scope.provide(server.dialOnce("10.0.0.2:18444"), scope)
      assert.strictEqual(connected.peer.info.userAgent, "/effect-bitcoin-peer:0.1.0/")
      yield* pass(10)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* connected.peer.awaitShutdown)._tag, "Requested")
      yield* pass(600_000)
      assert.strictEqual(remote.length, 1)
    })
  )

  it.effect("tells a caller why a dial failed", () =>
    Effect.gen(function* () {
      const server = yield* start(memoryNetwork())
      const refused = yield* Effect.flip(Effect.scoped(server.dialOnce("10.0.0.3")))
      assert.match(refused.message, /^cannot dial 10\.0\.0\.3:18444: .*refused/)
      const bad = yield* Effect.flip(Effect.scoped(server.dialOnce("10.0.0.3:99999")))
      assert.match(bad.message, /the port "99999" is not a number/)
      yield* server.setNetworkActive(false)
      const off = yield* Effect.flip(Effect.scoped(server.dialOnce("10.0.0.3")))
      assert.match(off.message, /switched off/)
    })
  )

  it.effect("gives a caller that leaves while it dials its slot back, and connects to nobody", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net)
      // A listener that nobody accepts at: the handshake never ends.
      yield* net.listen("10.0.0.4:18444")
      const fiber = yield* Effect.forkScoped(Effect.scoped(server.dialOnce("10.0.0.4")))
      yield* pass(1_000)
      yield* Fiber.interrupt(fiber)
      yield* pass(1_000)
      assert.strictEqual(yield* server.disconnect("10.0.0.4"), 0)
    })
  )

  it.effect("accepts inbound peers up to its limit, and counts them apart", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, {
        maxInbound: 3,
        binds: [{ listen: net.listen("10.0.0.1:18444") }],
        peer: { services: 1n | 8n }
      })
      const events = yield* collect(server)
      for (let i = 0; i < 5; i++) {
        yield* Effect.forkScoped(
          Effect.provide(
            Peer.dial(Effect.orDie(net.dialer(`10.1.${i}.1`).dial(address("10.0.0.1"), "manual")), {
              network,
              relay: false
            }),
            Nonce.layer
          )
        )
      }
      const peers = yield* server.awaitPeers(3)
      assert.deepStrictEqual(
        peers.map(({ kind }) => kind),
        ["inbound", "inbound", "inbound"]
      )
      // Two clients, which dial once more in version 1. Three refusals in a row are events.
      assert.strictEqual(events.filter(({ _tag }) => _tag === "Refused").length, 3)
      yield* peers[0]!.peer.disconnect()
      yield* pass(1_000)
      assert.strictEqual((yield* server.peers).length, 2)
    })
  )

  it.effect("ends all peers and stands still while the network is switched off", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const remote = yield* node(net, "10.0.0.2:18444")
      const server = yield* start(net, { added: ["10.0.0.2"], binds: [{ listen: net.listen("10.0.0.1:18444") }] })
      yield* server.awaitPeers(1)
      yield* pass(10)
      yield* server.setNetworkActive(false)
      yield* pass(600_000)
      assert.deepStrictEqual(yield* server.peers, [])
      assert.strictEqual(remote.length, 1)
      yield* server.setNetworkActive(true)
      yield* pass(6_000)
      assert.strictEqual((yield* server.peers).length, 1)
    })
  )

  it.effect("finds that it dialled itself, and keeps neither end", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const server = yield* start(net, { added: ["10.0.0.1"], binds: [{ listen: net.listen("10.0.0.1:18444") }] })
      const events = yield* collect(server)
      yield* pass(60_000)
      assert.deepStrictEqual(yield* server.peers, [])
      const failures = events.flatMap((event) => (event._tag === "DialFailed" ? [event.error.message] : []))
      assert.isTrue(
        failures.some((message) => message.includes("ourselves") || message.includes("self")),
        failures.join()
      )
      assert.isBelow(failures.length, 6, "no dial in a row")
    })
  )

  it.effect("runs onPeer beside each peer, and the handlers of the options", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const remote = yield* node(net, "10.0.0.2:18444")
      const pings: Array<bigint | undefined> = []
      const kinds: Array<string | undefined> = []
      let found: Server.Server | undefined
      let interrupted = false
      const server = yield* start(net, {
        added: ["10.0.0.2"],
        handlers: {
          ping: ({ nonce }, peer) =>
            Effect.sync(() => {
              pings.push(nonce)
              kinds.push(found?.find(peer)?.kind)
            })
        },
        onPeer: () =>
          Effect.onInterrupt(Effect.never, () =>
            Effect.sync(() => {
              interrupted = true
            })
          )
      })
      yield* server.awaitPeers(1)
      yield* pass(10)
      found = server
      yield* Effect.yieldNow
      yield* remote[0]!.ping
      assert.strictEqual(pings.length, 1)
      assert.deepStrictEqual(kinds, ["manual"])
      const [connected] = yield* server.peers
      yield* remote[0]!.disconnect()
      yield* pass(100)
      assert.isTrue(interrupted)
      assert.isUndefined(server.find(connected!.peer), "a peer that has ended")
    })
  )

  it.effect("ends its peers and its listener with its scope", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const remote = yield* node(net, "10.0.0.2:18444")
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(
        start(net, { added: ["10.0.0.2"], binds: [{ listen: net.listen("10.0.0.1:18444") }] }),
        scope
      )
      const [one] = yield* server.awaitPeers(1)
      yield* pass(10)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* one!.peer.awaitShutdown)._tag, "ScopeClosed")
      assert.strictEqual((yield* remote[0]!.awaitShutdown)._tag, "RemoteClosed")
      const late = yield* Effect.flip(Effect.scoped(net.dialer("10.0.0.9").dial(address("10.0.0.1"), "manual")))
      assert.include(late.message, "refused")
    })
  )

  it.effect("shows itself and its peers with the names of Bitcoin Core", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      yield* node(net, "10.0.0.2:18444")
      const server = yield* start(net, { added: ["10.0.0.2"], onlyNetworks: ["ipv4"] })
      yield* server.awaitPeers(1)
      yield* pass(10)
      const [peer] = yield* server.peerInfo
      assert.strictEqual(peer?.addr, "10.0.0.2:18444")
      assert.strictEqual(peer?.connection_type, "manual")
      // With P2P_V2.
      assert.strictEqual(peer?.services, "0000000000000c09")
      assert.strictEqual(peer?.network, "not_publicly_routable")
      assert.isFalse(peer?.inbound)
      assert.isFalse("mapped_as" in peer!)
      assert.isAbove(peer!.bytesrecv_per_msg["version"]!, 100)
      const info = yield* server.networkInfo
      assert.strictEqual(info.connections_out, 1)
      assert.deepStrictEqual(
        info.networks.filter(({ limited }) => !limited).map(({ name }) => name),
        ["ipv4"]
      )
    })
  )

  it.effect("names a wrong option and does not start", () =>
    Effect.gen(function* () {
      const problem = (options: Server.Options) =>
        Effect.map(Effect.flip(Effect.scoped(start(memoryNetwork(), options))), ({ message }) => message)
      assert.strictEqual(
        yield* problem({ added: ["1.2.3.4:99999"] }),
        'bad option: added: "1.2.3.4:99999": the port "99999" is not a number from 0 to 65535'
      )
      assert.match(
        yield* problem({ added: ["not an address"] }),
        /^bad option: added: "not an address" is neither an address nor a host name/
      )
      assert.match(yield* problem({ whitelist: ["nonsense@1.2.3.4"] }), /^bad option: whitelist: .*nonsense/)
      assert.match(yield* problem({ external: ["192.168.0.1"] }), /^bad option: .*192\.168\.0\.1/)
      assert.match(
        yield* problem({ maxInbound: 2, binds: [{ listen: Effect.never, slots: 3 }] }),
        /^bad option: .*slots/
      )
      assert.match(yield* problem({ fullRelay: -1 }), /^bad option: fullRelay must be a whole number/)
    })
  )

  it.effect("is a service in a Layer", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      yield* node(net, "10.0.0.2:18444")
      const live = Layer.provide(
        Server.layer({ network, added: ["10.0.0.2"] }),
        Layer.succeed(Dialer.Dialer, net.dialer("10.0.0.1"))
      )
      const agents = yield* Effect.provide(
        Effect.gen(function* () {
          const server = yield* Server.Server
          return (yield* server.awaitPeers(1)).map(({ peer }) => peer.info.userAgent)
        }),
        live
      )
      assert.deepStrictEqual(agents, ["/effect-bitcoin-peer:0.1.0/"])
    })
  )

  it.effect("reads settings from the configuration, which come before those of the program", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      yield* node(net, "10.0.0.2:18444")
      yield* node(net, "10.0.0.3:18444")
      const provider = ConfigProvider.fromUnknown({
        BTCSERVER_NETWORK: "regtest",
        BTCSERVER_ADDED: "10.0.0.2, 10.0.0.3:18444",
        BTCSERVER_FULL_RELAY: "3"
      })
      const live = Server.layerConfig({ network: Network.mainnet, added: ["10.0.0.9"] }).pipe(
        Layer.provide(Layer.succeed(Dialer.Dialer, net.dialer("10.0.0.1"))),
        Layer.provide(ConfigProvider.layer(provider))
      )
      const added = yield* Effect.provide(
        Effect.gen(function* () {
          const server = yield* Server.Server
          yield* server.awaitPeers(2)
          return yield* server.added
        }),
        live
      )
      assert.deepStrictEqual(
        added.map(({ target }) => target),
        ["10.0.0.2:18444", "10.0.0.3:18444"]
      )
    })
  )

  it.effect("groups addresses by autonomous systems, with a map of them", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const listen = ["20.1.0.1", "20.2.0.1", "20.3.0.1"]
      for (const host of listen) yield* node(net, `${host}:18444`)
      const system = (host: Address.Host): number => (host.address[1] === 3 ? 2 : 1)
      const book = AddressBook.make({ network, random: { next: () => 0, below: () => 0 } })
      const seconds = 1_780_000_000
      yield* TestClock.setTime(seconds * 1_000)
      for (const host of listen) {
        book.add([{ ...address(host), services: 1n | 8n, timestamp: seconds }], address(host), seconds * 1_000)
      }
      const server = yield* Effect.provideService(
        start(net, { asmap: { version: new Uint8Array(32), lookup: system }, peer: { transport: "v1" } }),
        AddressBook.AddressBook,
        AddressBook.fromBook(book)
      )
      yield* TestClock.adjust("1 minute")
      const peers = yield* server.peerInfo
      assert.sameMembers(
        peers.map(({ mapped_as }) => mapped_as),
        [1, 2],
        "one peer of each system"
      )
    })
  )

  it.effect("of a fleet dials all its added nodes at its rate, and relays no addresses", () =>
    Effect.gen(function* () {
      const net = memoryNetwork()
      const hosts = Array.from({ length: 300 }, (_, i) => `10.2.${i >> 8}.${i & 255}`)
      for (const host of hosts) yield* node(net, `${host}:18444`, { transport: "v1" })
      const server = yield* start(net, { fleet: true, added: hosts, peer: { transport: "v1" } })
      yield* TestClock.adjust("3 seconds")
      const peers = yield* server.peerInfo
      assert.strictEqual(peers.length, 300)
      assert.isTrue(peers.every((peer) => !peer.addr_relay_enabled && peer.bytessent_per_msg["getaddr"] === undefined))
    })
  )
})

const address = (host: string) => ({
  networkId: 1,
  address: Uint8Array.from(host.split("."), Number),
  port: network.port
})
