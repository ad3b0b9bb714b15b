/** A simulated network: the compliance suite, dials and their failures, listeners, latency, bandwidth, cuts, losses. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Effect, Exit, Fiber, Result, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Address, Connection, Network, Peer, PeerServer, Wire } from "effect-bitcoin-peer"
import { RegtestChain, ServingPeer, Simulation } from "effect-bitcoin-peer/testing"
import { compliance } from "../support/connectionCompliance.ts"
import { fork } from "../support/peers.ts"

const text = (bytes: string): Uint8Array => new TextEncoder().encode(bytes)
const pulled = (connection: Connection.Connection) =>
  Effect.map(connection.pull, (batch) => batch.map((bytes) => new TextDecoder().decode(bytes)).join(""))
const problemOf = (error: Connection.ConnectionError) =>
  error.reason._tag === "DialFailed" ? error.reason.problem : error.reason._tag
const onion = Address.format({ networkId: Address.NetworkId.torV3, address: new Uint8Array(32), port: 8333 })

/** Two hosts and a connection between them. */
const joined = Effect.fnUntraced(function* (options: Simulation.Options = {}) {
  const simulation = yield* Simulation.make(options)
  const [alice, bob] = [yield* simulation.host({ name: "alice" }), yield* simulation.host({ name: "bob" })]
  const listener = yield* bob.listen()
  const accepting = yield* fork(listener.accept)
  const dialling = yield* fork(alice.dial(bob.addresses[0]))
  yield* TestClock.adjust("1 second")
  return { simulation, alice, bob, listener, a: yield* Fiber.join(dialling), b: yield* Fiber.join(accepting) }
})

const now = Clock.currentTimeMillis

compliance("a connection of a simulation", {
  time: "virtual",
  capacity: 1_048_576,
  heldBy: (end) => (Reflect.get(end, "receiveBuffer") as { readonly size: number }).size,
  make: ({ closeTimeout }) =>
    Effect.gen(function* () {
      const simulation = yield* Simulation.make({ link: { latency: 0 }, closeTimeout })
      const [alice, bob] = [yield* simulation.host(), yield* simulation.host()]
      const listener = yield* bob.listen()
      const [a, b] = yield* Effect.all([alice.dial(bob.addresses[0]), listener.accept], { concurrency: 2 })
      return { a, b, resetB: simulation.kill(alice) }
    })
})

describe("dial", () => {
  it.effect("connects after a round trip, from the host's address and a port of its own", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation.make({ link: { latency: 30 } })
      const alice = yield* simulation.host({ addresses: ["1.2.3.4"] })
      const bob = yield* simulation.host({ addresses: ["5.6.7.8:18444"] })
      const listener = yield* bob.listen()
      const dialling = yield* fork(Effect.zip(alice.dial({ host: "5.6.7.8", port: 18_444 }), now))
      const accepting = yield* fork(Effect.zip(listener.accept, now))
      yield* TestClock.adjust("1 second")
      const [a, atA] = yield* Fiber.join(dialling)
      const [b, atB] = yield* Fiber.join(accepting)
      assert.deepStrictEqual([atB, atA], [30, 60])
      assert.deepStrictEqual(a.remoteAddress, { host: "5.6.7.8", port: 18_444 })
      assert.deepStrictEqual(b.remoteAddress, { host: "1.2.3.4", port: 49_152 })
      assert.deepStrictEqual([a.localAddress, b.localAddress], [b.remoteAddress, a.remoteAddress])
      assert.deepStrictEqual(listener.address, { host: "5.6.7.8", port: 18_444 })
    })
  )

  const failures: ReadonlyArray<readonly [string, Simulation.Target | string, Connection.DialProblem, number]> = [
    ["where nobody listens", { host: "5.6.7.8", port: 1 }, "Refused", 100],
    ["an address that no host has", "9.9.9.9:8333", "Timeout", 5_000],
    ["an unknown name", { host: "seed.example", port: 8_333 }, "HostNotFound", 0],
    ["IPv6 from IPv4", "[2001:4860::1]:8333", "Unreachable", 0],
    ["an onion service without Tor", onion, "NeedsProxy", 0],
    ["a malformed onion name", { host: "nobody.onion", port: 8_333 }, "NeedsProxy", 0],
    ["a bad port", { host: "5.6.7.8", port: 65_536 }, "BadPort", 0]
  ]
  for (const [what, target, problem, after] of failures) {
    it.effect(`to ${what} fails with ${problem} after ${after} ms`, () =>
      Effect.gen(function* () {
        const simulation = yield* Simulation.make()
        const alice = yield* simulation.host({ addresses: ["1.2.3.4"] })
        yield* simulation.host({ addresses: ["5.6.7.8"] })
        const goal = typeof target === "string" ? Result.getOrThrow(Address.parse(target)) : target
        const dialling = yield* fork(Effect.zip(Effect.flip(alice.dial(goal)), now))
        yield* TestClock.adjust("1 minute")
        const [error, at] = yield* Fiber.join(dialling)
        assert.strictEqual(problemOf(error), problem)
        assert.strictEqual(at, after)
      })
    )
  }

  it.effect("to a name tries its addresses in turn and leaves those of other networks out", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation.make()
      const alice = yield* simulation.host()
      const bob = yield* simulation.host({ addresses: ["5.6.7.8:8333"] })
      yield* simulation.setName("node.example", ["2001:4860::1", "9.9.9.9", "5.6.7.8"])
      yield* bob.listen()
      const dialling = yield* fork(Effect.zip(alice.dial({ host: "Node.example", port: 8_333 }), now))
      yield* TestClock.adjust("1 second")
      const [connection, at] = yield* Fiber.join(dialling)
      assert.strictEqual(connection.remoteAddress.host, "5.6.7.8")
      assert.strictEqual(at, 350)
      assert.deepStrictEqual((yield* simulation.resolve("NODE.example"))[1], {
        networkId: Address.NetworkId.ipv4,
        address: Uint8Array.of(9, 9, 9, 9)
      })
      yield* simulation.setName("node.example", [])
      assert.deepStrictEqual(yield* simulation.resolve("node.example"), [])
    })
  )

  it.effect("to an onion service shows the name to one side and this machine to the other", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation.make()
      const alice = yield* simulation.host({ proxied: [Address.NetworkId.torV3] })
      const bob = yield* simulation.host({ addresses: ["5.6.7.8", onion] })
      const listener = yield* bob.listen({ addresses: [onion] })
      const accepting = yield* fork(listener.accept)
      const dialling = yield* fork(alice.dial(bob.addresses[1]!))
      yield* TestClock.adjust("1 second")
      const [a, b] = [yield* Fiber.join(dialling), yield* Fiber.join(accepting)]
      assert.strictEqual(Connection.formatEndpoint(a.remoteAddress), onion)
      assert.strictEqual(b.remoteAddress.host, "127.0.0.1")
    })
  )

  it.effect("that is interrupted leaves nothing at the other host", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation.make()
      const [alice, bob] = [yield* simulation.host(), yield* simulation.host()]
      const listener = yield* bob.listen()
      const dialling = yield* fork(alice.dial(bob.addresses[0]))
      yield* TestClock.adjust(70)
      yield* Fiber.interrupt(dialling)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* simulation.connections, [])
      const accepting = yield* fork(listener.accept)
      yield* TestClock.adjust("1 second")
      assert.isUndefined(accepting.pollUnsafe())
    })
  )

  it.effect("gets no answer while the backlog is full, and is accepted when there is room", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation.make()
      const [alice, bob] = [yield* simulation.host(), yield* simulation.host()]
      const listener = yield* bob.listen({ backlog: 1 })
      yield* alice.dial(bob.addresses[0]).pipe(fork)
      yield* TestClock.adjust(500)
      const second = yield* fork(Effect.zip(alice.dial(bob.addresses[0]), now))
      yield* TestClock.adjust(500)
      assert.isUndefined(second.pollUnsafe())
      yield* listener.accept
      yield* TestClock.adjust("5 seconds")
      // The first try that finds room is the one after a second.
      assert.strictEqual((yield* Fiber.join(second))[1], 1_600)
    })
  )
})

it.effect("a host without an address gets a routable one of a group of its own", () =>
  Effect.gen(function* () {
    const simulation = yield* Simulation.make()
    const groups = new Set<string>()
    for (let i = 0; i < 500; i++) {
      const [address] = (yield* simulation.host()).addresses
      assert.isTrue(Address.isRoutable(address), Address.format(address))
      groups.add(Address.group(address))
    }
    assert.strictEqual(groups.size, 500)
    const twice = yield* Effect.exit(simulation.host({ addresses: [(yield* simulation.hosts)[7]!.addresses[0]] }))
    assert.isTrue(Exit.hasDies(twice))
  })
)

describe("listen", () => {
  it.effect("takes an address once, and only one of the host", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation.make()
      const [alice, bob] = [yield* simulation.host(), yield* simulation.host()]
      const scope = yield* Scope.make()
      yield* Scope.provide(alice.listen(), scope)
      const twice = yield* Effect.flip(alice.listen())
      const foreign = yield* Effect.flip(alice.listen({ addresses: bob.addresses }))
      assert.deepStrictEqual(
        [twice, foreign].map(({ reason }) => (reason._tag === "ListenFailed" ? reason.problem : reason._tag)),
        ["AddressInUse", "AddressNotAvailable"]
      )
      yield* Scope.close(scope, Exit.void)
      yield* alice.listen()
    })
  )

  it.effect("ends with its scope: a waiting accept fails, and dials are refused", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation.make()
      const [alice, bob] = [yield* simulation.host(), yield* simulation.host()]
      const scope = yield* Scope.make()
      const listener = yield* Scope.provide(bob.listen(), scope)
      const accepting = yield* fork(Effect.flip(listener.accept))
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* Fiber.join(accepting)).reason._tag, "Closed")
      const dialling = yield* fork(Effect.flip(alice.dial(bob.addresses[0])))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(problemOf(yield* Fiber.join(dialling)), "Refused")
    })
  )
})

describe("a link", () => {
  it.effect("delays bytes and keeps their order", () =>
    Effect.gen(function* () {
      const { a, b } = yield* joined({ link: { latency: 80 } })
      a.write(text("one "))
      yield* TestClock.adjust(40)
      a.write(text("two"))
      yield* TestClock.adjust(39)
      const first = yield* fork(pulled(b))
      assert.isUndefined(first.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(first), "one ")
      yield* TestClock.adjust(40)
      assert.strictEqual(yield* pulled(b), "two")
    })
  )

  it.effect("takes the time that its bandwidth needs, for both connections of two hosts together", () =>
    Effect.gen(function* () {
      const { a, alice, b, bob, listener } = yield* joined({ link: { latency: 10, bandwidth: 1_000 } })
      const accepting = yield* fork(listener.accept)
      const dialling = yield* fork(alice.dial(bob.addresses[0]))
      yield* TestClock.adjust("1 second")
      const [c, d] = [yield* Fiber.join(dialling), yield* Fiber.join(accepting)]
      const start = yield* now
      a.write(new Uint8Array(500))
      c.write(new Uint8Array(250))
      const first = yield* fork(Effect.andThen(b.pull, now))
      const second = yield* fork(Effect.andThen(d.pull, now))
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual([(yield* Fiber.join(first)) - start, (yield* Fiber.join(second)) - start], [510, 760])
    })
  )

  it.effect("has a latency between two limits, drawn from the seed, the same in both directions", () =>
    Effect.gen(function* () {
      const latencies = Effect.fnUntraced(function* (seed: number) {
        const simulation = yield* Simulation.make({ seed, link: { latency: { minimum: 10, maximum: 200 } } })
        const hosts = yield* Effect.all(Array.from({ length: 4 }, () => simulation.host()))
        for (const host of hosts) yield* host.listen()
        const found: Array<number> = []
        for (const [from, to] of [
          [0, 1],
          [1, 0],
          [0, 2],
          [2, 3]
        ] as const) {
          const start = yield* now
          const dialling = yield* fork(Effect.andThen(hosts[from]!.dial(hosts[to]!.addresses[0]), now))
          yield* TestClock.adjust("1 second")
          found.push(((yield* Fiber.join(dialling)) - start) / 2)
        }
        return found
      })
      const first = yield* latencies(1)
      assert.strictEqual(first[0], first[1])
      assert.isAbove(new Set(first).size, 1)
      for (const latency of first) assert.isTrue(latency >= 10 && latency <= 200)
      assert.deepStrictEqual(yield* latencies(1), first)
      assert.notDeepEqual(yield* latencies(2), first)
    })
  )

  it.effect("can be set between two groups", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation.make({ link: { latency: 10 } })
      const [alice, bob] = [yield* simulation.host(), yield* simulation.host()]
      yield* simulation.setLink(alice, [bob], { latency: "2 seconds" })
      yield* bob.listen()
      const dialling = yield* fork(Effect.andThen(alice.dial(bob.addresses[0]), now))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* Fiber.join(dialling), 4_000)
    })
  )

  it.effect("with a lifetime loses its connections", () =>
    Effect.gen(function* () {
      const { a, b } = yield* joined({ link: { lifetime: "10 minutes" } })
      yield* TestClock.adjust("3 hours")
      assert.strictEqual((yield* Effect.flip(a.pull)).reason._tag, "Reset")
      assert.strictEqual((yield* Effect.flip(b.pull)).reason._tag, "Reset")
    })
  )
})

describe("a cut", () => {
  it.effect("holds what is written and what is on its way, in both directions; healing delivers it in order", () =>
    Effect.gen(function* () {
      const { a, alice, b, simulation } = yield* joined()
      a.write(text("1"))
      yield* TestClock.adjust(30)
      const heal = yield* simulation.cut(alice)
      a.write(text("2"))
      b.write(text("back"))
      yield* TestClock.adjust("1 minute")
      const [forth, back] = [yield* fork(pulled(b)), yield* fork(pulled(a))]
      assert.deepStrictEqual([forth.pollUnsafe(), back.pollUnsafe()], [undefined, undefined])
      a.write(text("3"))
      yield* TestClock.adjust(20)
      yield* heal
      a.write(text("4"))
      yield* TestClock.adjust(50)
      assert.strictEqual(yield* Fiber.join(forth), "1")
      assert.strictEqual(yield* Fiber.join(back), "back")
      yield* TestClock.adjust(50)
      assert.strictEqual(yield* pulled(b), "234")
    })
  )

  it.effect("lets dials through that are tried again after it heals, and times the others out", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation.make()
      const [alice, bob, carol] = [yield* simulation.host(), yield* simulation.host(), yield* simulation.host()]
      yield* bob.listen()
      yield* carol.listen()
      yield* simulation.cut(alice, bob)
      const toBob = yield* fork(Effect.zip(alice.dial(bob.addresses[0]), now))
      const toCarol = yield* fork(Effect.zip(alice.dial(carol.addresses[0]), now))
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual((yield* Fiber.join(toCarol))[1], 100)
      yield* simulation.heal
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual((yield* Fiber.join(toBob))[1], 3_100)
      yield* simulation.cut(alice)
      const failing = yield* fork(Effect.flip(alice.dial(bob.addresses[0])))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(problemOf(yield* Fiber.join(failing)), "Timeout")
    })
  )

  it.effect("of 15 minutes resets a connection on which something was written, and no other", () =>
    Effect.gen(function* () {
      const { a, alice, b, bob, listener, simulation } = yield* joined()
      const accepting = yield* fork(listener.accept)
      const dialling = yield* fork(alice.dial(bob.addresses[0]))
      yield* TestClock.adjust("1 second")
      const [c, d] = [yield* Fiber.join(dialling), yield* Fiber.join(accepting)]
      yield* simulation.cut(alice)
      a.write(text("lost"))
      yield* TestClock.adjust("16 minutes")
      assert.strictEqual((yield* Effect.flip(a.pull)).reason._tag, "Reset")
      assert.strictEqual((yield* Effect.flip(b.pull)).reason._tag, "Reset")
      yield* simulation.heal
      c.write(text("still here"))
      yield* TestClock.adjust(50)
      assert.strictEqual(yield* pulled(d), "still here")
    })
  )
})

it.effect("kill resets the connections of a host and ends its listeners; it can listen again", () =>
  Effect.gen(function* () {
    const { a, alice, b, bob, listener, simulation } = yield* joined()
    yield* simulation.kill(bob)
    assert.strictEqual((yield* Effect.flip(a.pull)).reason._tag, "Reset")
    assert.strictEqual((yield* Effect.flip(b.pull)).reason._tag, "Reset")
    assert.strictEqual((yield* Effect.flip(listener.accept)).reason._tag, "Reset")
    const refused = yield* fork(Effect.flip(alice.dial(bob.addresses[0])))
    yield* TestClock.adjust("1 second")
    assert.strictEqual(problemOf(yield* Fiber.join(refused)), "Refused")
    yield* bob.listen()
    const again = yield* fork(alice.dial(bob.addresses[0]))
    yield* TestClock.adjust("1 second")
    yield* Fiber.join(again)
  })
)

it.effect("the end of a scope sends what was written, and takes no time", () =>
  Effect.gen(function* () {
    const { alice, bob, listener, simulation } = yield* joined()
    const scope = yield* Scope.make()
    const accepting = yield* fork(listener.accept)
    const dialling = yield* fork(Scope.provide(alice.dial(bob.addresses[0]), scope))
    yield* TestClock.adjust("1 second")
    const [a, b] = [yield* Fiber.join(dialling), yield* Fiber.join(accepting)]
    a.write(text("goodbye"))
    yield* Scope.close(scope, Exit.void)
    yield* TestClock.adjust("1 second")
    assert.strictEqual(yield* pulled(b), "goodbye")
    assert.strictEqual((yield* Effect.flip(b.pull)).reason._tag, "Closed")
    assert.strictEqual((yield* simulation.connections).length, 1)
  })
)

describe("events", () => {
  const frames = (...messages: ReadonlyArray<Wire.Message>): Uint8Array =>
    Result.getOrThrow(Wire.encodeFrames(Network.regtest.magic, messages))
  const ping = { _tag: "ping", nonce: 1n } as const
  const long = new Uint8Array(24)
  new DataView(long.buffer).setUint32(16, 0xffffffff, true)
  long.set(text("ping"), 4)
  const cases: ReadonlyArray<readonly [string, Uint8Array, RegExp]> = [
    ["a frame", frames(ping), /^sends ping \(32 bytes, [0-9a-f]{8}\)$/],
    ["frames", frames(ping, { _tag: "verack" }), /^sends ping, verack \(56 bytes, /],
    [
      "many frames",
      frames(ping, ping, ping, ping, ping, ping),
      /^sends ping, ping, ping, ping and 2 more \(192 bytes, /
    ],
    ["an unknown command", frames({ _tag: "Unknown", command: "a2", payload: text("x") }), /^sends a2 \(25 bytes, /],
    ["a part of a frame", frames(ping).subarray(0, 30), /^sends 30 bytes$/],
    ["a part of a header", text("f9beb4d9"), /^sends 8 bytes$/],
    ["random bytes", new Uint8Array(64).fill(0xaa), /^sends 64 bytes$/],
    ["a length of four gigabytes", long, /^sends 24 bytes$/]
  ]
  for (const [what, bytes, expected] of cases) {
    it.effect(`describe ${what}`, () =>
      Effect.gen(function* () {
        const { a, simulation } = yield* joined()
        a.write(bytes)
        yield* TestClock.adjust("1 second")
        assert.match((yield* simulation.events).at(-1)!.what, expected)
      })
    )
  }

  it.effect("are kept up to a number, and all count in the digest", () =>
    Effect.gen(function* () {
      const simulation = yield* Simulation.make({ maximumEvents: 3 })
      for (let n = 0; n < 20; n++) yield* simulation.note(`event ${n}`)
      assert.deepStrictEqual(
        (yield* simulation.events).map(({ what }) => what),
        ["event 17", "event 18", "event 19"]
      )
      assert.match(yield* simulation.digest, /^20 [0-9a-f]{8}$/)
      const other = yield* Simulation.make({ maximumEvents: 3 })
      for (let n = 0; n < 20; n++) yield* other.note(`event ${n === 0 ? "zero" : n}`)
      assert.notStrictEqual(yield* other.digest, yield* simulation.digest)
    })
  )
})

/** A node that serves a chain, and three wallets that download a block; one is cut off for a while. */
const wallets = (simulation: Simulation.Simulation, transport: "v1" | "v2" = "v1") =>
  Effect.gen(function* () {
    const chain = yield* RegtestChain.mineChain(20)
    const node = ServingPeer.serveChain(chain)
    const server = yield* simulation.host({ name: "node" })
    const listener = yield* server.listen()
    yield* PeerServer.serve(listener, { peer: { ...node.options, transport: "auto" }, onPeer: node.onPeer }).pipe(
      Effect.provide(server.layer),
      Effect.forkScoped({ startImmediately: true })
    )
    const downloads = []
    for (let i = 0; i < 3; i++) {
      const host = yield* simulation.host({ name: `wallet ${i}` })
      downloads.push(
        yield* fork(
          Effect.gen(function* () {
            const connection = yield* host.dial(server.addresses[0])
            const peer = yield* Peer.make(connection, { network: Network.regtest, transport })
            yield* Effect.sleep("10 minutes")
            return (yield* peer.getBlock(chain.hashes[7]!)).transactions.length
          }).pipe(Effect.provide(host.layer))
        )
      )
    }
    yield* TestClock.adjust("5 minutes")
    const heal = yield* simulation.cut((yield* simulation.hosts)[2]!)
    yield* TestClock.adjust("5 minutes")
    yield* heal
    yield* TestClock.adjust("1 minute")
    return yield* Effect.all(downloads.map((fiber) => Fiber.join(fiber)))
  })

describe("run", () => {
  const traced = (seed: number, transport?: "v2") =>
    Simulation.run(
      seed,
      (simulation) =>
        Effect.gen(function* () {
          const result = yield* wallets(simulation, transport)
          return { result, events: yield* simulation.events, digest: yield* simulation.digest }
        }),
      { link: { latency: { minimum: 10, maximum: 200 } }, maximumEvents: 100_000 }
    )

  it.live("gives the same run for the same seed, byte for byte, and another one for another seed", () =>
    Effect.gen(function* () {
      const first = yield* traced(1)
      assert.deepStrictEqual(first.result, [1, 1, 1])
      assert.isTrue(first.events.some(({ what }) => /^sends .*\bblock\b/.test(what)))
      const again = yield* traced(1)
      assert.deepStrictEqual(again.events, first.events)
      assert.strictEqual(again.digest, first.digest)
      assert.notStrictEqual((yield* traced(2)).digest, first.digest)
    })
  )

  it.live("gives the same run with encrypted peers, too", () =>
    Effect.gen(function* () {
      const first = yield* traced(3, "v2")
      assert.deepStrictEqual(first.result, [1, 1, 1])
      assert.isTrue(first.events.some(({ what }) => what === "sends 64 bytes" || /^sends \d{2,4} bytes$/.test(what)))
      assert.deepStrictEqual((yield* traced(3, "v2")).events, first.events)
    })
  )

  it.live("of a program that fails prints the seed, the events before and the failure", () =>
    Effect.gen(function* () {
      const failing = Simulation.run(42, (simulation) =>
        Effect.gen(function* () {
          const alice = yield* simulation.host({ name: "alice" })
          const bob = yield* simulation.host({ name: "bob" })
          const dialling = yield* fork(Effect.exit(alice.dial(bob.addresses[0])))
          yield* TestClock.adjust("1 second")
          yield* Fiber.join(dialling)
          assert.fail("it was refused")
        })
      )
      const { cause, message, seed } = yield* Effect.flip(failing)
      assert.strictEqual(seed, 42)
      assert.match(message, /seed 42/)
      assert.match(message, /0\.000 s {2}alice → bob {2}dials 12\.0\.7\.1:8333/)
      assert.match(message, /0\.100 s {2}bob → alice {2}refuses/)
      assert.match(message, /it was refused/)
      assert.isTrue(Cause.isCause(cause))
    })
  )

  it.live("of a program that waits in vain ends, and says so", () =>
    Effect.gen(function* () {
      const hanging = Simulation.run(
        1,
        (simulation) =>
          Effect.gen(function* () {
            const listener = yield* (yield* simulation.host()).listen()
            yield* listener.accept
          }),
        { limit: "10 days" }
      )
      assert.match((yield* Effect.flip(hanging)).message, /the program still waits after 10d of virtual time/)
    })
  )

  it.live("of a program ends with its finalizers, which may take virtual time", () =>
    Effect.gen(function* () {
      let ended = false
      yield* Simulation.run(1, () =>
        Effect.addFinalizer(() =>
          Effect.andThen(
            Effect.sleep("1 minute"),
            Effect.sync(() => (ended = true))
          )
        )
      )
      assert.isTrue(ended)
    })
  )
})
