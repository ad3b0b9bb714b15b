/** Servers in a simulated network: they find each other, and keep their connections. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, type Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Network } from "effect-bitcoin-peer"
import { AddressBook, type Server } from "effect-bitcoin-peer/server"
import { Simulation, VirtualClock } from "effect-bitcoin-peer/testing"
import { dice } from "../support/dice.ts"
import { bookOf, nodesOn } from "../support/simulatedNodes.ts"
import { serverOn, textOf } from "../support/simulatedServers.ts"

const time = 1_780_000_000_000

const countsOf = (server: Server.Server) =>
  Effect.map(server.peers, (peers) => ({
    fullRelay: peers.filter(({ kind }) => kind === "outbound-full-relay").length,
    blockRelay: peers.filter(({ kind }) => kind === "block-relay-only").length,
    manual: peers.filter(({ kind }) => kind === "manual").length
  }))

/** The times of all dials of a server. */
const dialsOf = Effect.fnUntraced(function* (server: Server.Server) {
  const clock = yield* Clock.Clock
  const times: Array<number> = []
  yield* Effect.forkScoped(
    Stream.runForEach(server.events, (event) =>
      Effect.sync(() => void (event._tag === "Dialing" && times.push(clock.currentTimeMillisUnsafe())))
    )
  )
  yield* Effect.yieldNow
  return times
})

/** The most dials within any second. */
const densest = (times: ReadonlyArray<number>): number =>
  times.reduce((most, from) => Math.max(most, times.filter((at) => at >= from && at < from + 1_000).length), 0)

const inVirtualTime = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) =>
  Effect.provide(Effect.scoped(Effect.andThen(TestClock.setTime(time), effect)), VirtualClock.layer)

describe("servers in a simulated network", () => {
  it.live("find each other from one seed", () =>
    inVirtualTime(
      Effect.gen(function* () {
        const network = yield* Simulation.make({ seed: 1, traceBytes: false })
        const hosts = yield* Effect.forEach(Array.from({ length: 40 }), () => network.host())
        const servers = yield* Effect.forEach(hosts, (host, i) =>
          Effect.andThen(
            TestClock.adjust("2 seconds"),
            serverOn(host, i, {
              seedNodes: i === 0 ? [] : [textOf(hosts[0]!)],
              external: [textOf(host)],
              feelers: false
            })
          )
        )
        yield* TestClock.adjust("7 minutes")
        for (const server of servers) {
          const { blockRelay, fullRelay } = yield* countsOf(server)
          assert.isAtLeast(fullRelay, 8)
          assert.isAtLeast(blockRelay, 2)
        }
      })
    )
  )

  it.live("ask their seeds again while their book is empty", () =>
    inVirtualTime(
      Effect.gen(function* () {
        const network = yield* Simulation.make({ seed: 6, traceBytes: false })
        const hosts = yield* Effect.forEach(Array.from({ length: 6 }), () => network.host())
        const home = yield* network.host()
        const server = yield* serverOn(home, 9, { binds: [], seedNodes: [textOf(hosts[0]!)] })
        yield* TestClock.adjust("90 seconds")
        assert.strictEqual(server.book.size, 0)
        // The seed comes up later, with a book of its own.
        yield* Effect.provideService(
          serverOn(hosts[0]!, 1),
          AddressBook.AddressBook,
          AddressBook.fromBook(bookOf(hosts, time))
        )
        yield* nodesOn(hosts.slice(1))
        yield* TestClock.adjust("5 minutes")
        assert.isAtLeast(server.book.size, 1)
        assert.isAtLeast((yield* server.peers).length, 1)
      })
    )
  )

  it.live(
    "replace a lost peer within 100 ms, and keep 8 and 2 while a third of all nodes comes and goes each hour",
    () =>
      inVirtualTime(
        Effect.gen(function* () {
          const roll = dice(3)
          const network = yield* Simulation.make({ seed: 2, traceBytes: false, link: { latency: 5 } })
          const hosts = yield* Effect.forEach(Array.from({ length: 60 }), () => network.host())
          const nodes = yield* nodesOn(hosts)
          const home = yield* network.host()
          const server = yield* Effect.provideService(
            serverOn(home, 1, { binds: [] }),
            AddressBook.AddressBook,
            AddressBook.fromBook(bookOf(hosts, time))
          )
          yield* TestClock.adjust("1 minute")
          assert.deepInclude(yield* countsOf(server), { fullRelay: 8, blockRelay: 2 })

          const [lost] = yield* server.peers
          yield* lost!.peer.disconnect()
          yield* TestClock.adjust(100)
          assert.isAtLeast((yield* server.peers).length, 10)
          assert.isFalse((yield* server.peers).some(({ id }) => id === lost!.id))

          for (let quarter = 0; quarter < 24 * 4; quarter++) {
            // The share of the nodes that change in a quarter of an hour.
            for (const host of hosts) {
              if (!roll.chance(0.3 / 4)) continue
              if (nodes.isRunning(host)) yield* nodes.stop(host)
              else yield* nodes.start(host)
            }
            yield* TestClock.adjust("15 minutes")
            const { blockRelay, fullRelay } = yield* countsOf(server)
            assert.isTrue(fullRelay >= 8 && blockRelay >= 2, `after ${quarter / 4} h: ${fullRelay} and ${blockRelay}`)
          }
        })
      )
  )

  it.live("come back after a cut without a storm: never more dials in a second than the rate allows", () =>
    inVirtualTime(
      Effect.gen(function* () {
        const network = yield* Simulation.make({ seed: 3, traceBytes: false })
        const hosts = yield* Effect.forEach(Array.from({ length: 120 }), () => network.host())
        yield* nodesOn(hosts)
        const home = yield* network.host()
        const server = yield* Effect.provideService(
          serverOn(home, 1, { binds: [], added: hosts.slice(0, 100).map(textOf), maxManual: 100 }),
          AddressBook.AddressBook,
          AddressBook.fromBook(bookOf(hosts.slice(100), time))
        )
        const dials = yield* dialsOf(server)
        yield* TestClock.adjust("5 minutes")
        assert.deepInclude(yield* countsOf(server), { manual: 100, fullRelay: 8, blockRelay: 2 })

        const heal = yield* network.cut(home)
        yield* TestClock.adjust("40 minutes")
        assert.deepStrictEqual(yield* server.peers, [])
        const before = dials.length
        yield* heal
        yield* TestClock.adjust("10 minutes")
        assert.deepInclude(yield* countsOf(server), { manual: 100, fullRelay: 8, blockRelay: 2 })
        assert.isAtMost(densest(dials), 8 + 4)
        assert.isAtLeast(dials.length - before, 100)
      })
    )
  )
})

describe("an attacker with 10,000 addresses in 200 groups, beside 2,000 honest ones", () => {
  it("displaces no honest address that answers, and gets less of the tried table than of all addresses", () => {
    const roll = dice(11)
    const random = { next: () => roll.below(2 ** 30) / 2 ** 30, below: roll.below }
    const book = AddressBook.make({ network: Network.mainnet, random, key: new Uint8Array(32).fill(5) })
    const address = (a: number, b: number, c: number, d: number) => ({
      networkId: 1,
      address: Uint8Array.of(a, b, c, d),
      port: 8333,
      services: 1n | 8n,
      timestamp: time / 1_000
    })
    const honest = Array.from({ length: 2_000 }, (_, i) => address(20 + (i % 100), Math.floor(i / 100), 1, 1))
    const attackers = Array.from({ length: 10_000 }, (_, i) =>
      address(150 + (i % 50), Math.floor(i / 50) % 4, i % 251, i % 241)
    )
    const isAttacker = ({ address: bytes }: { readonly address: Uint8Array }): boolean => bytes[0]! >= 150
    let now = time
    // Addresses come 10 at a time, from peers of both kinds; the attacker tells five times as many.
    for (let i = 0; i < 200; i++) book.add(honest.slice(i * 10, i * 10 + 10), honest[i * 7]!, now)
    for (let i = 0; i < 1_000; i++) book.add(attackers.slice(i * 10, i * 10 + 10), attackers[i * 7]!, now)
    const kept = new Set<string>()
    const drawn = { honest: 0, attacker: 0 }
    // A week of feelers, each of which finds a node that answers; the occupants of taken places answer, too.
    for (let i = 0; i < 7 * 24 * 30; i++) {
      now += 120_000
      book.resolveCollisions(now)
      const pick = book.collision() ?? book.select(now, { newOnly: true })
      if (pick === undefined) continue
      if (isAttacker(pick.address)) drawn.attacker++
      else {
        drawn.honest++
        kept.add(pick.address.address.join("."))
      }
      book.attempt(pick.address, false, now)
      book.good(pick.address, now)
    }
    const tried = Object.values(book.entries().tried)
    const honestTried = new Set(
      tried.filter((entry) => Number(entry.address.split(".")[0]) < 150).map((entry) => entry.address)
    )
    const share = (tried.length - honestTried.size) / tried.length
    assert.isAbove(honestTried.size, 100)
    assert.isBelow(share, 10_000 / 12_000)
    // Of 64 × 256 places the groups of the attacker reach 8 buckets each; who is in the table and answers stays.
    const lost = [...kept].filter(
      (text) =>
        !honestTried.has(text) &&
        book.find(honest.find(({ address: bytes }) => bytes.join(".") === text)!)?.isTried === true
    )
    assert.deepStrictEqual(lost, [])
    assert.isAbove(drawn.honest, 0)
  })
})
