/** Crawls of a network in memory, in virtual time. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Duration, Effect, Exit, Fiber, Layer, Queue, Stream } from "effect"
import { Address, Peer, Wire } from "effect-bitcoin-peer"
import * as Crawler from "effect-bitcoin-peer/server/Crawler"
import { TestClock } from "effect/testing"
import {
  address,
  inTime,
  makeHosts,
  network,
  node,
  type Script,
  sending,
  silent,
  start,
  told
} from "./support/crawlHosts.ts"

const options: Crawler.Options = { network, once: true, transport: "v1" }
const plain = { visit: { network, transport: "v1" } } as const

const name = (index: number): string => `8.${index >> 8}.${index & 255}.1:18444`

const textOf = ({ address }: Crawler.Visit): string => Address.format(address)

/** A network of nodes, each of which knows the next three. */
const ring = (count: number, delay = 30_000): Map<string, Script> =>
  new Map(
    Array.from({ length: count }, (_, index) => [
      name(index),
      node(
        [1, 2, 3].map((step) => name((index + step) % count)),
        { delay }
      )
    ])
  )

const crawl = (hosts: ReadonlyMap<string, Script | "never">, more: Crawler.Options = {}) => {
  const world = makeHosts(hosts)
  return {
    ...world,
    visits: Stream.runCollect(Crawler.run({ ...options, seeds: [address(name(0))], ...more })).pipe(
      Effect.provide([Crawler.layerMemory, world.layer])
    )
  }
}

const visitOf = (script: Script | "never", more: Crawler.VisitOptions = {}) =>
  inTime(
    Crawler.visit(address(name(0)), { ...plain.visit, ...more }).pipe(
      Effect.provide(makeHosts(new Map([[name(0), script]])).layer)
    )
  )

const reachedOf = (script: Script, more: Crawler.VisitOptions = {}) =>
  Effect.map(visitOf(script, more), (visit) => {
    assert(visit._tag === "Reached")
    return visit
  })

const millis = (duration: Duration.Duration | undefined): number | undefined =>
  duration === undefined ? undefined : Duration.toMillis(duration)

describe("a visit", () => {
  it.effect("learns what the node knows and says of itself, and ends with the answer", () =>
    Effect.gen(function* () {
      const visit = yield* reachedOf(
        node([name(1), name(2), "[2a00::1]:18444"], { delay: 20_000, peer: { userAgent: "/it:1/" } })
      )
      assert.deepStrictEqual(visit.learnt.map(Address.format), [name(1), name(2), "[2a00::1]:18444"])
      assert.deepInclude(visit.info, {
        userAgent: "/it:1/",
        services: 9n,
        transport: "v1",
        remoteProtocolVersion: 70_017
      })
      assert.deepInclude(visit, { answer: "Answered", at: start, end: undefined })
      assert.strictEqual(millis(visit.timings.answer), 20_000)
      assert.strictEqual(millis(visit.timings.connect), 0)
    })
  )

  it.effect("shows its manners: user agent with contact, no services, no transactions", () =>
    Effect.gen(function* () {
      const shown = yield* Deferred.make<Wire.Version>()
      const script = node([name(1), name(2)], {
        peer: { network, onVersion: (version) => Effect.asVoid(Deferred.succeed(shown, version)) }
      })
      yield* reachedOf(script, { contact: "me at example.org" })
      assert.deepInclude(yield* Deferred.await(shown), {
        userAgent: "/effect-bitcoin-crawler:0.1.0(me at example.org)/",
        services: 0n,
        relay: false
      })
    })
  )

  it.effect("does not take a node's own address for the answer, but learns it", () =>
    Effect.gen(function* () {
      const own: Wire.Message = { _tag: "addrv2", addresses: [told(name(0))] }
      const answer: Wire.Message = { _tag: "addrv2", addresses: [told(name(1)), told(name(2))] }
      const visit = yield* reachedOf(sending([own, own, answer]))
      assert.deepStrictEqual(visit.learnt.map(Address.format), [name(0), name(1), name(2)])
      assert.strictEqual(visit.answer, "Answered")
    })
  )

  it.effect("reads the older addr", () =>
    Effect.gen(function* () {
      const old = [told(name(1)), told("[2a00::1]:18444")].map((entry) => {
        const { port, services, timestamp } = entry
        return { address: Address.toBytes(entry)!, port, services, timestamp }
      })
      const visit = yield* reachedOf(sending([{ _tag: "addr", addresses: old }]))
      assert.deepStrictEqual(visit.learnt.map(Address.format), [name(1), "[2a00::1]:18444"])
    })
  )

  it.effect("of a node that never answers takes 70 s", () =>
    Effect.gen(function* () {
      const visit = yield* reachedOf(sending([]))
      assert.deepInclude(visit, { answer: "TimedOut", learnt: [] })
      assert.strictEqual(millis(visit.timings.total), 70_000)
    })
  )

  it.effect("of a node that disconnects ends then", () =>
    Effect.gen(function* () {
      const leaving: Script = (connection) =>
        Effect.andThen(node([])(connection), Effect.andThen(Effect.sleep("5 seconds"), connection.close))
      const visit = yield* reachedOf(leaving)
      assert.strictEqual(visit.answer, "Ended")
      assert.strictEqual(visit.end?._tag, "RemoteClosed")
      assert.strictEqual(millis(visit.timings.total), 5_000)
    })
  )

  it.effect("of a host that does not answer the dial takes 3 s, in the handshake 30 s", () =>
    Effect.gen(function* () {
      const undialled = yield* visitOf("never")
      assert.deepInclude(undialled, { _tag: "Failed", problem: "Timeout" })
      assert.strictEqual(millis(undialled.timings.total), 3_000)
      const shaking = yield* visitOf(silent)
      assert.deepInclude(shaking, { _tag: "Failed", problem: "TimedOut" })
      assert.strictEqual(millis(shaking.timings.handshake), undefined)
      assert.strictEqual(millis(shaking.timings.total), 30_000)
    })
  )

  it.effect("begins with version 1 where the services that others told have no P2P_V2", () =>
    Effect.gen(function* () {
      const script = node([name(1), name(2)])
      const auto = { network, transport: "auto" } as const
      const world = makeHosts(new Map([[name(0), script]]))
      const visit = (remoteServices?: bigint) =>
        inTime(Effect.provide(Crawler.visit(address(name(0)), { ...auto, remoteServices }), world.layer))
      assert.strictEqual((yield* visit(9n))._tag, "Reached")
      assert.strictEqual(world.dials.length, 1)
    })
  )

  it.effect("fails with the problem of the dial or of the handshake", () =>
    Effect.gen(function* () {
      const { layer } = makeHosts(new Map())
      const refused = yield* inTime(Effect.provide(Crawler.visit(address(name(0)), plain.visit), layer))
      assert.deepInclude(refused, { _tag: "Failed", problem: "Refused" })
      const other = yield* visitOf((connection) =>
        Effect.sync(() => void connection.write(Uint8Array.of(0xf9, 0xbe, 0xb4, 0xd9, 0, 0, 0, 0)))
      )
      assert.deepInclude(other, { _tag: "Failed", problem: "WrongNetwork" })
    })
  )
})

describe("a hostile node", () => {
  const single = (index: number): Wire.Message => ({ _tag: "addrv2", addresses: [told(name(index))] })

  it.effect("that sends addresses one by one for ever gives 1,000, or as many as are asked", () =>
    Effect.gen(function* () {
      const flood = function* (): Generator<Wire.Message> {
        for (let index = 0; ; index++) yield single(index % 60_000)
      }
      assert.strictEqual((yield* reachedOf(sending(flood()))).learnt.length, 1_000)
      assert.strictEqual((yield* reachedOf(sending(flood()), { addressesPerVisit: 50 })).learnt.length, 50)
    })
  )

  it.effect("that repeats one address for ever is left after 70 s", () =>
    Effect.gen(function* () {
      const trickle: Script = (connection) =>
        Effect.flatMap(Peer.make(connection, { network, direction: "inbound", transport: "v1" }), (peer) =>
          Effect.forever(Effect.delay(peer.send(single(1)), "1 second"))
        )
      const visit = yield* reachedOf(trickle)
      assert.deepInclude(visit, { answer: "TimedOut" })
      assert.strictEqual(visit.learnt.length, 1)
      assert.strictEqual(millis(visit.timings.total), 70_000)
    })
  )

  it.effect("that sends 1,001 addresses gives none of them", () =>
    Effect.gen(function* () {
      // Our encoder refuses it, so the payload is made by hand: 1,001 times the same address.
      const payload = new Uint8Array(3 + 30 * 1_001)
      payload.set([0xfd, 0xe9, 0x03])
      const visit = yield* reachedOf(sending([{ _tag: "Unknown", command: "addr", payload }]))
      assert.deepStrictEqual(visit.learnt, [])
      assert.notStrictEqual(visit.answer, "Answered")
    })
  )

  it.effect("that sends its version a byte at a time has 30 s for the handshake", () =>
    Effect.gen(function* () {
      const visit = yield* visitOf((connection) =>
        Effect.gen(function* () {
          const bytes = Uint8Array.of(...network.magic, ...new TextEncoder().encode("version\0\0\0\0\0"), 100, 0, 0, 0)
          for (const byte of bytes) {
            connection.write(Uint8Array.of(byte))
            yield* Effect.sleep("10 seconds")
          }
        })
      )
      assert.deepInclude(visit, { _tag: "Failed", problem: "TimedOut" })
      assert.strictEqual(millis(visit.timings.total), 30_000)
    })
  )

  it.effect("that tells of the future, of this machine and of nothing changes nothing", () =>
    Effect.gen(function* () {
      const bad = [told(name(1), 0xffffffff), told("127.0.0.1:18444"), told("10.1.2.3:18444"), told("8.8.8.8:0")]
      const world = makeHosts(new Map([[name(0), sending([{ _tag: "addrv2", addresses: bad }])]]))
      const entries = yield* inTime(
        Effect.gen(function* () {
          const crawl = yield* Crawler.make({ ...options, seeds: [address(name(0))] })
          yield* Stream.runDrain(crawl.visits)
          return yield* crawl.entries
        }).pipe(Effect.scoped, Effect.provide([Crawler.layerMemory, world.layer]))
      )
      assert.deepStrictEqual(
        entries.map(({ address, seenAt, state }) => [Address.format(address), seenAt, state]),
        [
          [name(0), start / 1000, "reached"],
          [name(1), start / 1000 + 70 - 5 * 86_400, "failed"]
        ].map(([text, seenAt, state]) => [text, text === name(1) ? Number(seenAt) - 70 : seenAt, state])
      )
    })
  )

  it.effect("cannot fill the frontier beyond its limit", () =>
    Effect.gen(function* () {
      const lies = Array.from({ length: 1_000 }, (_, index) => told(name(1_000 + index)))
      const world = makeHosts(new Map([[name(0), sending([{ _tag: "addrv2", addresses: lies }])]]))
      const counts = yield* inTime(
        Effect.gen(function* () {
          const crawl = yield* Crawler.make({ ...options, seeds: [address(name(0))], maximumAddresses: 100 })
          yield* Stream.runDrain(crawl.visits)
          return yield* crawl.counts
        }).pipe(Effect.scoped, Effect.provide([Crawler.layerMemory, world.layer]))
      )
      assert.deepInclude(counts, { known: 100, refused: 901, failed: 99, reached: 1 })
    })
  )
})

describe("a crawl", () => {
  it.effect("finds all nodes from one seed and visits each once", () =>
    Effect.gen(function* () {
      const hosts = ring(100)
      hosts.delete(name(50))
      const { dials, state, visits } = crawl(hosts)
      const all = yield* inTime(visits)
      assert.strictEqual(new Set(all.map(textOf)).size, 100)
      assert.strictEqual(all.length, 100)
      assert.strictEqual(dials.length, 100)
      assert.deepStrictEqual(all.filter(({ _tag }) => _tag === "Failed").map(textOf), [name(50)])
      assert.deepStrictEqual(state.open, 0)
    })
  )

  it.effect("has as many connections at once as it may, and dials no faster", () =>
    Effect.gen(function* () {
      const all = Array.from({ length: 200 }, (_, index) => name(index))
      const hosts = new Map(all.map((text) => [text, node(all)]))
      for (const text of all) hosts.set(text, node(all, { delay: 30_000 }))
      const { dials, state, visits } = crawl(hosts, { concurrency: { ipv4: 20 }, rate: 5 })
      assert.strictEqual((yield* inTime(visits)).length, 200)
      assert.strictEqual(state.most, 20)
      for (const [index, { at }] of dials.entries()) assert.isAtLeast((dials[index + 6]?.at ?? Infinity) - at, 1_000)
    })
  )

  it.effect("goes on for ever, and visits each address once an hour", () =>
    Effect.gen(function* () {
      const world = makeHosts(ring(10, 0))
      yield* inTime(
        Effect.gen(function* () {
          const crawl = yield* Crawler.make({ ...options, once: false, seeds: [address(name(0))] })
          yield* Effect.forkScoped(Stream.runDrain(crawl.visits))
          yield* Effect.sleep("209 minutes")
        }).pipe(Effect.scoped, Effect.provide([Crawler.layerMemory, world.layer])),
        4
      )
      assert.strictEqual(world.dials.length, 40)
      for (let index = 0; index < 10; index++) {
        const times = world.dials.filter(({ address }) => address === name(index)).map(({ at }) => at)
        assert.strictEqual(times.length, 4)
        for (const [visit, at] of times.entries()) assert.isAtLeast((times[visit + 1] ?? Infinity) - at, 3_600_000)
      }
    })
  )

  it.effect("that is interrupted goes on with the same frontier: each address once within the hour, none lost", () =>
    Effect.gen(function* () {
      const world = makeHosts(ring(60))
      const seeds = [address(name(0))]
      const reached = yield* Effect.gen(function* () {
        const first = yield* inTime(
          Effect.gen(function* () {
            const seen: Array<string> = []
            yield* Stream.runForEach(Crawler.run({ ...options, seeds, concurrency: 4 }), (visit) =>
              Effect.sync(() => void seen.push(textOf(visit)))
            ).pipe(Effect.timeoutOption("160 seconds"))
            return seen
          })
        )
        assert.isAbove(first.length, 5)
        assert.isBelow(first.length, 40)
        const dialled = world.dials.length
        assert.isAbove(dialled, first.length)
        const rest: Array<string> = []
        const second = yield* Effect.forkChild(
          Stream.runForEach(Crawler.run({ ...options, concurrency: 4 }), (visit) =>
            Effect.sync(() => void rest.push(textOf(visit)))
          ),
          { startImmediately: true }
        )
        yield* TestClock.adjust("1 hour")
        yield* TestClock.adjust("1 hour")
        yield* Fiber.join(second)
        const seen = [...first, ...rest]
        // A visit that was saved when the crawl was interrupted may not have come out of the stream.
        assert.strictEqual(new Set(seen).size, seen.length)
        const { load } = yield* Crawler.Frontier
        return yield* load(network)
      }).pipe(Effect.provide([Crawler.layerMemory, world.layer]))
      assert.deepStrictEqual(
        reached.map(({ state }) => state),
        Array.from({ length: 60 }, () => "reached")
      )
      const times = Map.groupBy(world.dials, ({ address }) => address)
      assert.strictEqual(times.size, 60)
      const twice = [...times.values()].filter((dials) => dials.length > 1)
      // The visits that were cut short come again, an hour after their start.
      assert.isAtLeast(twice.length, 1)
      assert.isAtMost(twice.length, 4)
      for (const [first, second] of twice) assert.isAtLeast(second!.at - first!.at, 3_600_000)
    })
  )

  it.effect("leaves out banned hosts and networks without a way, which it keeps", () =>
    Effect.gen(function* () {
      const onion = "explorerzydxu5ecjrkwceayqybizmpjjznk5izmitf2modhcusuqlid.onion:18444"
      const world = makeHosts(
        new Map([
          [name(0), node([name(1), name(2), onion])],
          [name(1), node([name(0)])]
        ])
      )
      const known = yield* inTime(
        Effect.gen(function* () {
          const isBanned = (host: Address.Host): boolean => Address.formatHost(host) === "8.0.2.1"
          const crawl = yield* Crawler.make({ ...options, seeds: [address(name(0))], isBanned })
          yield* Stream.runDrain(crawl.visits)
          return yield* crawl.entries
        }).pipe(Effect.scoped, Effect.provide([Crawler.layerMemory, world.layer]))
      )
      assert.deepStrictEqual(
        world.dials.map(({ address }) => address),
        [name(0), name(1)]
      )
      assert.deepStrictEqual(
        known.map(({ address, state }) => [Address.format(address), state]),
        [
          [name(0), "reached"],
          [name(1), "reached"],
          [onion, "new"]
        ]
      )
    })
  )

  it.effect("waits while its visits are not read", () =>
    Effect.gen(function* () {
      const all = Array.from({ length: 300 }, (_, index) => name(index))
      const world = makeHosts(new Map(all.map((text) => [text, node(all)])))
      yield* TestClock.setTime(start)
      yield* Effect.gen(function* () {
        const crawl = yield* Crawler.make({ ...options, seeds: [address(name(0))], concurrency: 10 })
        yield* TestClock.adjust("1 hour")
        // Those that were read into the queue, and those that wait for room in it.
        assert.strictEqual(world.dials.length, 64 + 10)
        const reading = yield* Effect.forkChild(Stream.runCollect(crawl.visits), { startImmediately: true })
        yield* TestClock.adjust("1 hour")
        assert.strictEqual((yield* Fiber.join(reading)).length, 300)
      }).pipe(Effect.scoped, Effect.provide([Crawler.layerMemory, world.layer]))
    })
  )

  it.effect("dials a node of version 1 twice, within the dial rate", () =>
    Effect.gen(function* () {
      const closing: Script = (connection) => Effect.andThen(connection.pull, connection.destroy)
      const { dials, visits } = crawl(new Map([[name(0), closing]]), { transport: "auto", rate: 2 })
      yield* inTime(visits)
      assert.strictEqual(dials.length, 2)
    })
  )

  it.effect("takes addresses while it runs", () =>
    Effect.gen(function* () {
      const world = makeHosts(ring(3, 0))
      const added = yield* inTime(
        Effect.gen(function* () {
          const crawl = yield* Crawler.make({ ...options, once: false })
          const visited = yield* Effect.forkScoped(Stream.runCollect(Stream.take(crawl.visits, 3)))
          yield* Effect.sleep("1 minute")
          const added = yield* crawl.add([address(name(0)), address(name(0))])
          yield* Fiber.join(visited)
          return added
        }).pipe(Effect.scoped, Effect.provide([Crawler.layerMemory, world.layer]))
      )
      assert.strictEqual(added, 1)
    })
  )
})

describe("a crawl that cannot go on", () => {
  const wrong: ReadonlyArray<readonly [Crawler.Options, RegExp]> = [
    [{ rate: 0 }, /the option rate is 0 instead of a number above 0/],
    [{ rate: NaN }, /the option rate is NaN/],
    [{ perSubnet: 0 }, /the option perSubnet is 0 instead of a whole number of at least 1/],
    [{ concurrency: -1 }, /the option concurrency is -1/],
    [{ concurrency: { ipv4: 1.5 } }, /the option concurrency.ipv4 is 1.5/],
    [{ concurrency: { ipv5: 1 } as never }, /the option concurrency has the unknown network "ipv5"/],
    [{ revisit: "9 minutes" }, /the option revisit must be a duration of at least 10 minutes/],
    [{ timeouts: { onion: { connect: 0 } } }, /the option timeouts.onion.connect must be a duration/],
    [{ contact: "https://example.org" }, /the option contact must be printable ASCII without/],
    [{ contact: "x".repeat(225) }, /the option contact makes the user agent longer than 256 bytes/],
    [{ userAgent: "ü" }, /the option userAgent must be printable ASCII/],
    [{ addressesPerVisit: 0 }, /the option addressesPerVisit is 0/],
    [{ maximumAddresses: 0 }, /the option maximumAddresses is 0/]
  ]
  for (const [index, [more, expected]] of wrong.entries()) {
    it.effect(`says which option is wrong (${index})`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(
          Effect.provide(Effect.scoped(Crawler.make(more)), [Crawler.layerMemory, makeHosts(new Map()).layer])
        )
        assert.strictEqual(error.reason._tag, "BadOption")
        assert.match(error.message, expected)
      })
    )
  }

  it.effect("fails when its frontier cannot be saved, and ends its connections", () =>
    Effect.gen(function* () {
      const world = makeHosts(ring(100))
      let saves = 0
      const full = Layer.succeed(Crawler.Frontier, {
        load: () => Effect.succeed([]),
        save: () =>
          Effect.suspend(() =>
            ++saves < 20
              ? Effect.void
              : Effect.fail(
                  new Crawler.CrawlError({
                    reason: { _tag: "StoreFailed", operation: "save", cause: new Error("the disk is full") }
                  })
                )
          )
      })
      const seen = yield* Queue.unbounded<Crawler.Visit>()
      const exit = yield* inTime(
        Stream.runForEach(Crawler.run({ ...options, seeds: [address(name(0))] }), (visit) =>
          Queue.offer(seen, visit)
        ).pipe(Effect.provide([full, world.layer]), Effect.exit)
      )
      assert(Exit.isFailure(exit))
      assert.match(Cause.pretty(exit.cause), /cannot save the frontier: the disk is full/)
      assert.strictEqual(world.state.open, 0)
      assert.isAbove(world.dials.length, 2)
    })
  )
})
