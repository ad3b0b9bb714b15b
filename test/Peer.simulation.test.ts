/** Random schedules in virtual time: whatever two peers and their pipe do, nothing hangs, leaks, is lost or doubled. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Connection, Nonce, Wire } from "effect-bitcoin-peer"
import { withRemote } from "./support/peers.ts"
import { interleave, numbered, type Report, simulate } from "./support/simulation.ts"
import { withSleep } from "./support/peers.ts"

/** More are a longer look: SIMULATION_RUNS=100000. The seeds are always the same. */
const runs = Number(process.env["SIMULATION_RUNS"] ?? 3_000)
/** One seed alone, to replay what failed. */
const only = process.env["SIMULATION_SEED"]
const batch = 1_000
const batches =
  only === undefined ? Array.from({ length: Math.ceil(runs / batch) }, (_, index) => index * batch) : [Number(only)]
const seedsFrom = (from: number): ReadonlyArray<number> =>
  Array.from({ length: only === undefined ? Math.min(batch, runs - from) : 1 }, (_, index) => from + index)

const describeRun = (seed: number, problems: ReadonlyArray<string>, { ends, trace }: Report): string =>
  [
    `seed ${seed}; replay: SIMULATION_SEED=${seed} npx vitest run test/Peer.simulation.test.ts`,
    ...problems,
    `the ends: ${ends.join(" and ")}`,
    ...trace
  ].join("\n  ")

const check = (seed: number, report: Report): void => {
  if (report.problems.length > 0) assert.fail(describeRun(seed, report.problems, report))
}

describe("two peers over a pipe that delays, splits and cuts", () => {
  const lost: Array<string> = []

  it.effect.each(batches)(
    "1,000 schedules from seed %d on",
    (from) =>
      Effect.gen(function* () {
        const ends = new Map<string, number>()
        for (const seed of seedsFrom(from)) {
          const report = yield* simulate(seed)
          for (const end of report.ends) ends.set(end, (ends.get(end) ?? 0) + 1)
          if (report.lost.length > 0) lost.push(describeRun(seed, report.lost, report))
          check(seed, report)
        }
        // The schedules are of use only while they come to all kinds of ends.
        if (only !== undefined) return
        for (const end of ["Requested", "ScopeClosed", "RemoteClosed", "ConnectionLost", "Stalled", "no handshake"]) {
          assert.isAbove(ends.get(end) ?? 0, 0, end)
        }
      }),
    120_000
  )

  it("what a side wrote before it closed was handled on the other side, in all of these schedules", () => {
    assert.strictEqual(lost.length, 0, `${lost.length} runs lost messages, the first:\n${lost[0]}`)
  })
})

describe("one peer: sends, waits, interruptions and an end, in any order", () => {
  it.effect.each(batches)(
    "1,000 interleavings from seed %d on",
    (from) =>
      Effect.gen(function* () {
        for (const seed of seedsFrom(from)) check(seed, yield* interleave(seed))
      }),
    120_000
  )
})

describe("found by these schedules", () => {
  it.effect("seed 106: writing to a remote that has closed does not lose what it sent before", () =>
    Effect.gen(function* () {
      const handled: Array<number> = []
      const { peer, remote } = yield* withRemote({
        handlers: {
          Unknown: ({ payload }) =>
            Effect.andThen(
              Effect.sleep(1),
              Effect.sync(() => void handled.push(payload[3]!))
            )
        }
      })
      yield* remote.send(numbered(1, 0), numbered(2, 0))
      yield* remote.send(numbered(3, 0))
      yield* remote.connection.close
      // The handler of the first message runs still.
      yield* Effect.exit(peer.send(numbered(4, 0)))
      const ending = yield* Effect.forkChild(peer.awaitShutdown, { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(ending), { _tag: "RemoteClosed" })
      assert.deepStrictEqual(handled, [1, 2, 3])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("seed 2231: a pair with a delay does not spin when two parcels are a rounding error apart", () =>
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      let sleeps = 0
      // Without an end to it the test itself would hang.
      const counting = withSleep(clock, (duration) => (++sleeps > 1_000 ? Effect.never : clock.sleep(duration)))
      const [first, second] = yield* Effect.provideService(Connection.makePair({ delay: 100 }), Clock.Clock, counting)
      yield* TestClock.adjust(7.213)
      first.write(Uint8Array.of(1))
      yield* TestClock.adjust(49.344)
      first.write(Uint8Array.of(2))
      yield* TestClock.adjust(200)
      assert.isBelow(sleeps, 10)
      const chunks = yield* second.pull
      assert.deepStrictEqual(Buffer.concat(chunks), Buffer.of(1, 2))
    })
  )

  /** The remote has closed, the handler of what it sent before runs for a minute still, and a send is told of the end. */
  const closing = Effect.gen(function* () {
    const session = yield* withRemote({
      trickle: { _tag: "Fixed", interval: 100 },
      handlers: { Unknown: () => Effect.sleep("1 minute") }
    })
    yield* session.remote.send(numbered(1, 0))
    yield* TestClock.adjust("1 millis")
    yield* session.remote.connection.close
    const shutdown = yield* Effect.forkChild(session.peer.awaitShutdown, { startImmediately: true })
    return { ...session, shutdown }
  })

  it.effect("seed 55: who is told that the peer has ended is told the reason that awaitShutdown gives", () =>
    Effect.gen(function* () {
      const { peer, shutdown } = yield* closing
      yield* TestClock.adjust("1 second")
      const error = yield* Effect.flip(peer.sendAndWait(numbered(2, 0)))
      yield* peer.disconnect("while the last handler runs")
      yield* TestClock.adjust("2 minutes")
      const end = yield* Fiber.join(shutdown)
      assert.deepStrictEqual(error.reason, { _tag: "Ended", end })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("seed 457: announcements that wait when the remote closes are no defect", () =>
    Effect.gen(function* () {
      const { peer, shutdown } = yield* closing
      // The first one goes out and shows that nothing can be written any more, the second one waits.
      for (const number of [1, 2]) {
        const hash = new Uint8Array(32).fill(number)
        yield* Effect.exit(peer.announce([{ type: Wire.InventoryType.tx, hash }]))
        yield* TestClock.adjust("1 second")
      }
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* Fiber.join(shutdown), { _tag: "RemoteClosed" })
    }).pipe(Effect.provide(Nonce.layer))
  )
})
