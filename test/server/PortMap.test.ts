/** Mappings that are kept up at a router in memory, under the TestClock. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Queue, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Address } from "effect-bitcoin-peer"
import { keepMappings, type Link, type Mapping, type Settings } from "../../src/server/internal/portMapping.ts"
import { makeRandom } from "../../src/server/internal/random.ts"
import { dice } from "../support/dice.ts"

const minute = 60_000
const nonce = new Uint8Array(12).fill(5)
const ipv4 = (...bytes: ReadonlyArray<number>): Address.Host => ({ networkId: 1, address: Uint8Array.from(bytes) })

/** What a router says to a request; `undefined` for nothing. */
interface Behaviour {
  address: ReadonlyArray<number>
  port: number
  lifetime: number
  result: number
  /** A packet every 400 ms that is no answer. */
  junk: boolean
  silent: boolean
  natPmpOnly: boolean
  /** A failure of the socket. */
  broken: boolean
}

interface Asked {
  readonly at: number
  readonly what: "PCP" | "address" | "map"
  readonly lifetime: number
}

const begin = Effect.fnUntraced(function* (
  behaviour: Partial<Behaviour> = {},
  options: Partial<Settings> & { readonly names?: ReadonlyArray<string> } = {}
) {
  const router: Behaviour = {
    address: [1, 2, 3, 4],
    port: 8333,
    lifetime: 2_400,
    result: 0,
    junk: false,
    silent: false,
    natPmpOnly: false,
    broken: false,
    ...behaviour
  }
  const asked: Array<Asked> = []
  const log: Array<string> = []
  const clock = yield* Clock.Clock
  let open = 0
  const answerTo = (request: Uint8Array): ReadonlyArray<Uint8Array> => {
    const view = new DataView(request.buffer, request.byteOffset)
    const what = request[0] === 2 ? "PCP" : request[1] === 0 ? "address" : "map"
    const lifetime = what === "PCP" ? view.getUint32(4) : what === "map" ? view.getUint32(8) : -1
    asked.push({ at: clock.currentTimeMillisUnsafe(), what, lifetime })
    if (router.silent || lifetime === 0) return []
    const answer = new Uint8Array(what === "PCP" ? 60 : what === "map" ? 16 : 12)
    const out = new DataView(answer.buffer)
    if (what === "PCP") {
      if (router.natPmpOnly) return [Uint8Array.of(0, 0x81, 0, 1, 0, 0, 0, 0)]
      answer.set([2, 0x81, 0, router.result])
      out.setUint32(4, router.lifetime)
      answer.set(request.subarray(24, 42), 24)
      out.setUint16(42, router.port)
      answer.set([...new Uint8Array(10), 0xff, 0xff, ...router.address], 44)
    } else {
      answer.set([0, 0x80 | request[1]!])
      if (what === "address") answer.set(router.address, 8)
      else {
        answer.set(request.subarray(4, 6), 8)
        out.setUint16(10, router.port)
        out.setUint32(12, router.lifetime)
      }
    }
    return [answer]
  }
  const link = (name: string): Link => ({
    name,
    open: Effect.gen(function* () {
      const packets = yield* Queue.unbounded<Uint8Array>()
      yield* Effect.acquireRelease(
        Effect.sync(() => void open++),
        () => Effect.sync(() => void open--)
      )
      return {
        internal: ipv4(192, 168, 0, 6),
        send: (bytes) =>
          Effect.suspend(() => {
            const answers = answerTo(bytes)
            if (router.broken) return Effect.fail(new Error("send ECONNREFUSED"))
            const junk = Effect.andThen(Effect.sleep(400), Queue.offer(packets, new Uint8Array(60)))
            const answer = Effect.andThen(Effect.sleep(20), Queue.offerAll(packets, answers))
            return Effect.asVoid(
              Effect.forkDetach(router.junk ? Effect.andThen(Effect.repeat(junk, { times: 9 }), answer) : answer)
            )
          }),
        receive: Queue.take(packets)
      }
    })
  })
  const scope = yield* Scope.fork(yield* Effect.scope)
  const { changes, status } = yield* keepMappings({
    port: 8333,
    nonce,
    random: makeRandom(new Uint8Array(16)),
    links: Effect.sync(() => (options.names ?? ["router"]).map(link)),
    onMapped: ({ external }: Mapping) =>
      Effect.acquireRelease(
        Effect.sync(() => void log.push(`+${Address.format(external)}`)),
        () => Effect.sync(() => void log.push(`-${Address.format(external)}`))
      ),
    ...options
  }).pipe(Scope.provide(scope))
  const externals = Effect.map(status, ({ mappings }) => mappings.map(({ external }) => Address.format(external)))
  const problems = Effect.map(status, ({ failures }) => failures.map(({ message }) => message))
  return {
    router,
    asked,
    log,
    status,
    changes,
    externals,
    problems,
    open: () => open,
    stop: Scope.close(scope, Exit.void)
  }
})

describe("A port mapping", () => {
  it.effect("is asked for 40 minutes, and renewed at a random time from 1/2 to 5/8 of its lifetime", () =>
    Effect.gen(function* () {
      const { asked, externals, log, open } = yield* begin({ lifetime: 1_000 })
      yield* TestClock.adjust(20)
      assert.deepStrictEqual(yield* externals, ["1.2.3.4:8333"])
      assert.deepStrictEqual(asked, [{ at: 0, what: "PCP", lifetime: 2_400 }])
      yield* TestClock.adjust("6 hours")
      const waits = asked.slice(1).map(({ at }, index) => at - asked[index]!.at - 20)
      assert.isAtLeast(waits.length, 30)
      for (const wait of waits) assert.isTrue(wait >= 500_000 && wait <= 625_001, String(wait))
      assert.isAbove(Math.max(...waits) - Math.min(...waits), 80_000)
      // It is one mapping all the time, and a socket is open during a request alone.
      assert.deepStrictEqual(log, ["+1.2.3.4:8333"])
      assert.strictEqual(open(), 0)
    })
  )

  it.effect("falls back to NAT-PMP", () =>
    Effect.gen(function* () {
      const { asked, status } = yield* begin({ natPmpOnly: true, port: 9_999 })
      yield* TestClock.adjust(60)
      assert.deepStrictEqual(
        asked.map(({ what }) => what),
        ["PCP", "address", "map"]
      )
      const { mappings } = yield* status
      assert.strictEqual(mappings[0]?.protocol, "NAT-PMP")
      assert.strictEqual(Address.format(mappings[0].external), "1.2.3.4:9999")
      assert.strictEqual(Address.format(mappings[0].internal), "192.168.0.6:8333")
    })
  )

  it.effect("is given up after three packets of a second each, and asked for again after 5 minutes", () =>
    Effect.gen(function* () {
      const { asked, log, problems, router } = yield* begin({ silent: true })
      yield* TestClock.adjust(3_000)
      assert.deepStrictEqual(
        asked.map(({ at }) => at),
        [0, 1_000, 2_000]
      )
      assert.deepStrictEqual(yield* problems, ["the router router does not map the port: no answer"])
      router.silent = false
      yield* TestClock.adjust(5 * minute - 1)
      assert.strictEqual(asked.length, 3)
      yield* TestClock.adjust(1 + 20)
      assert.strictEqual(asked.length, 4)
      assert.deepStrictEqual(yield* problems, [])
      assert.deepStrictEqual(log, ["+1.2.3.4:8333"])
    })
  )

  it.effect("does not wait longer for packets that are no answers", () =>
    Effect.gen(function* () {
      const { asked, problems } = yield* begin({ junk: true })
      yield* TestClock.adjust(3_000)
      assert.deepStrictEqual(
        asked.map(({ at }) => at),
        [0, 1_000, 2_000]
      )
      assert.strictEqual((yield* problems).length, 1)
    })
  )

  it.effect("is refused with the reason of the router, and where it would end within 30 seconds", () =>
    Effect.gen(function* () {
      const full = yield* begin({ result: 8 })
      const short = yield* begin({ lifetime: 29 })
      const shortest = yield* begin({ lifetime: 30 })
      const broken = yield* begin({ broken: true })
      yield* TestClock.adjust(20)
      const start = "the router router does not map the port: "
      assert.deepStrictEqual(yield* full.problems, [`${start}PCP refused: NO_RESOURCES (8)`])
      assert.deepStrictEqual(yield* short.problems, [`${start}the mapping would end after 29 s`])
      assert.deepStrictEqual(yield* broken.problems, [`${start}send ECONNREFUSED`])
      assert.deepStrictEqual([yield* shortest.problems, yield* shortest.externals], [[], ["1.2.3.4:8333"]])
      assert.deepStrictEqual([full.log, short.log, broken.log], [[], [], []])
    })
  )

  it.effect("lives on without a renewal until its lifetime ends", () =>
    Effect.gen(function* () {
      const { asked, externals, log, problems, router } = yield* begin({ lifetime: 2_400 })
      yield* TestClock.adjust(20)
      router.silent = true
      yield* TestClock.adjust(2_400_000 - 1)
      assert.isAtLeast(asked.length, 1 + 3)
      assert.deepStrictEqual([yield* externals, log], [["1.2.3.4:8333"], ["+1.2.3.4:8333"]])
      assert.strictEqual((yield* problems).length, 1)
      yield* TestClock.adjust(2)
      assert.deepStrictEqual([yield* externals, log], [[], ["+1.2.3.4:8333", "-1.2.3.4:8333"]])
    })
  )

  it.effect("is another one where the router gives another address", () =>
    Effect.gen(function* () {
      const { externals, log, router } = yield* begin()
      yield* TestClock.adjust(20)
      router.address = [5, 6, 7, 8]
      yield* TestClock.adjust("30 minutes")
      assert.deepStrictEqual(yield* externals, ["5.6.7.8:8333"])
      assert.deepStrictEqual(log, ["+1.2.3.4:8333", "-1.2.3.4:8333", "+5.6.7.8:8333"])
    })
  )

  it.effect("to a private address is shown, and is none of ours", () =>
    Effect.gen(function* () {
      const { externals, log } = yield* begin({ address: [192, 168, 1, 2] })
      yield* TestClock.adjust(20)
      assert.deepStrictEqual([yield* externals, log], [["192.168.1.2:8333"], []])
    })
  )

  it.effect("is released at the end, once and without waiting", () =>
    Effect.gen(function* () {
      for (const natPmpOnly of [false, true]) {
        const { asked, externals, log, open, stop } = yield* begin({ natPmpOnly })
        yield* TestClock.adjust(100)
        const before = asked.length
        yield* stop
        assert.deepStrictEqual(
          asked.slice(before).map(({ lifetime, what }) => [what, lifetime]),
          [[natPmpOnly ? "map" : "PCP", 0]]
        )
        assert.deepStrictEqual(log, ["+1.2.3.4:8333", "-1.2.3.4:8333"])
        assert.deepStrictEqual([yield* externals, open()], [[], 0])
        yield* TestClock.adjust("2 hours")
        assert.strictEqual(asked.length, before + 1)
      }
    })
  )

  it.effect("is not released where there was none", () =>
    Effect.gen(function* () {
      const { asked, stop } = yield* begin({ result: 2 })
      yield* TestClock.adjust(100)
      yield* stop
      assert.strictEqual(asked.length, 1)
    })
  )

  it.effect("is kept for each of our addresses, as they come and go", () =>
    Effect.gen(function* () {
      const names = ["a"]
      const { externals, log, status } = yield* begin({}, { names })
      yield* TestClock.adjust(20)
      assert.deepStrictEqual(yield* externals, ["1.2.3.4:8333"])
      names.push("b")
      yield* TestClock.adjust(5 * minute + 20)
      assert.strictEqual((yield* externals).length, 2)
      names.shift()
      yield* TestClock.adjust(5 * minute)
      assert.strictEqual((yield* externals).length, 1)
      assert.deepStrictEqual(log, ["+1.2.3.4:8333", "+1.2.3.4:8333", "-1.2.3.4:8333"])
      names.shift()
      yield* TestClock.adjust(5 * minute)
      assert.deepStrictEqual(yield* status, { mappings: [], failures: [] })
    })
  )

  it.effect("stays consistent at a router that changes its mind all the time", () =>
    Effect.gen(function* () {
      const random = dice(7)
      const { externals, log, open, router, stop } = yield* begin({}, { names: ["a", "b", "c"] })
      for (let round = 0; round < 300; round++) {
        router.silent = random.chance(0.2)
        router.broken = random.chance(0.1)
        router.result = random.chance(0.2) ? 2 : 0
        router.natPmpOnly = random.chance(0.3)
        router.lifetime = random.pick([10, 40, 600, 2_400])
        router.address = [9, 9, 9, random.below(3)]
        yield* TestClock.adjust(random.below(10 * minute))
        const added = log.filter((line) => line.startsWith("+")).length
        assert.strictEqual(added * 2 - log.length, (yield* externals).length)
      }
      yield* stop
      assert.strictEqual(log.filter((line) => line.startsWith("+")).length * 2, log.length)
      assert.strictEqual(open(), 0)
    })
  )
})
