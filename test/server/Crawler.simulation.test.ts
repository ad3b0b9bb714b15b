/** A day of a crawl in a simulated network: nodes that are silent, gone or cut off, connections that are lost. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, Stream } from "effect"
import { Address, Network, Wire } from "effect-bitcoin-peer"
import * as Crawler from "effect-bitcoin-peer/server/Crawler"
import * as Dialer from "effect-bitcoin-peer/server/Dialer"
import { RegtestChain, ScriptedPeer, Simulation } from "effect-bitcoin-peer/testing"
import { makeRandom, shuffle } from "../../src/server/internal/random.ts"

const network = Network.regtest
const chain = RegtestChain.start
const hour = 3_600_000

/** Nodes that answer, nodes that do not, and addresses without a host. */
const honest = 60
const silent = 15
const gone = 25
const nodes = honest + silent

interface Day {
  readonly dials: ReadonlyArray<readonly [address: string, at: number]>
  readonly entries: ReadonlyArray<Crawler.Entry>
  readonly visits: number
  readonly digest: string
}

const runDay = (seed: number): Effect.Effect<Day, Simulation.SimulationFailed> =>
  Simulation.run(
    seed,
    (simulation) =>
      Effect.gen(function* () {
        const random = makeRandom(new Uint8Array(16).fill(seed))
        const hosts = yield* Effect.forEach(Array.from({ length: nodes }), () => simulation.host())
        const told = (address: Address.Address): Wire.AddressV2 => ({ ...address, services: 9n, timestamp: 0 })
        const known = hosts.map(({ addresses }) => told(addresses[0]))
        const dead = Array.from({ length: gone }, (_, index) =>
          told({ networkId: 1, address: Uint8Array.of(9, index, 9, 9), port: 8333 })
        )
        const all = [...known, ...dead]
        for (const [index, host] of hosts.entries()) {
          // The next ones of those that answer, so that all are found, and some of all.
          const ring = [1, 2].map((step) => known[(index + step) % honest]!)
          const addresses = [...ring, ...shuffle(random, [...all]).slice(0, 20)]
          const script = ScriptedPeer.slow(ScriptedPeer.honest(chain, { addresses }), "20 seconds")
          if (index < honest) yield* ScriptedPeer.attach(host, script)
          else if (index % 2 === 0) yield* ScriptedPeer.attach(host, ScriptedPeer.silent)
          else yield* ScriptedPeer.attach(host, ScriptedPeer.mute)
        }
        const crawler = yield* simulation.host()
        const dials: Array<readonly [string, number]> = []
        const ways = Dialer.fromFunction((target, _kind) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            dials.push([Dialer.formatTarget(target), now])
            return crawler.dial(target)
          })
        )
        const cutOff = hosts.slice(10, 25)
        const heal = yield* simulation.cut(cutOff)
        yield* Effect.forkScoped(Effect.delay(heal, "3 hours"))
        let visits = 0
        const crawl = yield* Crawler.make({
          network,
          seeds: [hosts[0]!.addresses[0]],
          transport: "v1",
          rate: 5,
          concurrency: 20
        }).pipe(Effect.provide([Crawler.layerMemory, Layer.succeed(Dialer.Dialer, ways), crawler.layer]))
        yield* Effect.forkScoped(Stream.runForEach(crawl.visits, () => Effect.sync(() => void visits++)))
        yield* Effect.sleep("24 hours")
        return { dials, entries: yield* crawl.entries, visits, digest: yield* simulation.digest }
      }),
    { link: { latency: { minimum: "10 millis", maximum: "300 millis" }, lifetime: "10 minutes" }, traceBytes: false }
  )

describe("a day of a crawl", () => {
  for (const seed of [1, 2]) {
    it.effect(`reaches all nodes, and visits none twice within an hour (seed ${seed})`, () =>
      Effect.gen(function* () {
        const { dials, entries, visits } = yield* runDay(seed)
        const byAddress = Map.groupBy(dials, ([address]) => address)
        for (const [address, times] of byAddress) {
          for (const [index, [, at]] of times.entries()) {
            assert.isAtLeast((times[index + 1]?.[1] ?? Infinity) - at, hour, address)
          }
        }
        for (const [index, [, at]] of dials.entries()) {
          // 5 a second, and the first of a tenth of a second.
          assert.isAtLeast((dials[index + 6]?.[1] ?? Infinity) - at, 1_000)
        }
        assert.isAtLeast(entries.filter(({ successes }) => successes > 0).length, honest)
        assert.isAtMost(entries.length, nodes + gone)
        // About once an hour each that answers; those that do not, less and less often.
        assert.isAbove(visits, honest * 20)
        assert.isBelow(visits, honest * 25 + (silent + gone) * 8 + silent * 25)
      })
    )
  }

  it.effect("is the same for the same seed", () =>
    Effect.gen(function* () {
      const [one, other] = [yield* runDay(3), yield* runDay(3)]
      assert.deepStrictEqual(one.dials, other.dials)
      assert.strictEqual(one.digest, other.digest)
    })
  )
})
