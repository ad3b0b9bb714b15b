/** The virtual clock: the same as TestClock in each case here, and what only it does. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Duration, Effect, Fiber, Latch, Queue, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { VirtualClock } from "effect-bitcoin-peer/testing"
import { fork } from "../support/peers.ts"

const now = Clock.currentTimeMillis

/** The cases that hold for both clocks. */
const both: ReadonlyArray<readonly [string, Effect.Effect<void, unknown>]> = [
  [
    "begins at 0 and moves by what it is told",
    Effect.gen(function* () {
      assert.strictEqual(yield* now, 0)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual(yield* now, 120_000)
      yield* TestClock.setTime(5_000_000)
      assert.strictEqual(yield* now, 5_000_000)
      yield* TestClock.setTime(1_000)
      assert.strictEqual(yield* now, 1_000)
    })
  ],
  [
    "wakes a sleep at its time and not before",
    Effect.gen(function* () {
      const fiber = yield* fork(Effect.andThen(Effect.sleep("1 second"), now))
      yield* TestClock.adjust(999)
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual(yield* Fiber.join(fiber), 1_000)
    })
  ],
  [
    "wakes sleeps in the order of their times, and equal ones in that of their calls",
    Effect.gen(function* () {
      const woken: Array<string> = []
      const sleeper = (name: string, millis: number) =>
        fork(
          Effect.andThen(
            Effect.sleep(millis),
            Effect.sync(() => void woken.push(name))
          )
        )
      yield* sleeper("c", 30)
      yield* sleeper("a", 10)
      yield* sleeper("b1", 20)
      yield* sleeper("b2", 20)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(woken, ["a", "b1", "b2", "c"])
    })
  ],
  [
    "waits for what a woken fiber forks and resumes before it goes on",
    Effect.gen(function* () {
      const times: Array<number> = []
      const hops = (rest: number): Effect.Effect<void> =>
        rest === 0
          ? Effect.andThen(
              Effect.sleep(10),
              Effect.flatMap(now, (at) => Effect.sync(() => void times.push(at)))
            )
          : Effect.flatMap(Effect.forkChild(hops(rest - 1)), (fiber) => Fiber.join(fiber))
      yield* fork(Effect.andThen(Effect.sleep(100), hops(20)))
      yield* fork(Effect.sleep(200))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(times, [110])
    })
  ],
  [
    "lets fibers that talk to each other play for an hour in one move",
    Effect.gen(function* () {
      const [ping, pong] = [yield* Queue.bounded<number>(1), yield* Queue.bounded<number>(1)]
      const times: Array<number> = []
      yield* fork(
        Effect.gen(function* () {
          while (true) {
            yield* Effect.sleep("10 minutes")
            yield* Queue.offer(ping, 1)
            yield* Queue.take(pong)
            times.push(yield* now)
          }
        })
      )
      yield* fork(
        Effect.forever(Effect.andThen(Queue.take(ping), Effect.andThen(Effect.sleep(500), Queue.offer(pong, 2))))
      )
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(times, [600_500, 1_201_000, 1_801_500, 2_402_000, 3_002_500])
    })
  ],
  [
    "runs timeouts, schedules and retries",
    Effect.gen(function* () {
      const timed = yield* fork(Effect.timeoutOption(Effect.never, "1 minute"))
      let tries = 0
      const retried = yield* fork(
        Effect.retry(
          Effect.suspend(() => (++tries < 4 ? Effect.fail("again") : Effect.flatMap(now, (at) => Effect.succeed(at)))),
          Schedule.exponential("1 second")
        )
      )
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(timed))._tag, "None")
      assert.strictEqual(yield* Fiber.join(retried), 7_000)
    })
  ],
  [
    "forgets a sleep that is interrupted",
    Effect.gen(function* () {
      let woken = 0
      const fibers = []
      for (let i = 0; i < 200; i++) {
        fibers.push(
          yield* fork(
            Effect.andThen(
              Effect.sleep(100 + i),
              Effect.sync(() => void woken++)
            )
          )
        )
      }
      for (const [i, fiber] of fibers.entries()) if (i % 4 !== 0) yield* Fiber.interrupt(fiber)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(woken, 50)
    })
  ],
  [
    "sleeps no time at once, and for ever never",
    Effect.gen(function* () {
      yield* Effect.sleep(0)
      const fiber = yield* fork(Effect.sleep(Duration.infinity))
      yield* TestClock.adjust("1000 days")
      assert.isUndefined(fiber.pollUnsafe())
    })
  ],
  [
    "keeps nanoseconds, and monotonic time where the wall goes back",
    Effect.gen(function* () {
      yield* TestClock.adjust(Duration.nanos(1_500_001n))
      assert.strictEqual(yield* Clock.currentTimeNanos, 1_500_001n)
      assert.strictEqual(yield* Clock.monotonicTimeNanos, 1_500_001n)
      yield* TestClock.setTime(0)
      assert.strictEqual(yield* Clock.currentTimeNanos, 0n)
      assert.strictEqual(yield* Clock.monotonicTimeNanos, 1_500_001n)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Clock.monotonicTimeNanos, 1_001_500_001n)
    })
  ],
  [
    "moves one after the other, also where two fibers move it",
    Effect.gen(function* () {
      const first = yield* fork(Effect.andThen(TestClock.adjust("1 second"), now))
      const second = yield* fork(Effect.andThen(TestClock.adjust("1 second"), now))
      assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(second)], [1_000, 2_000])
    })
  ],
  [
    "may be moved by a fiber that it wakes, after the move that woke it",
    Effect.gen(function* () {
      const fiber = yield* fork(Effect.sleep(10).pipe(Effect.andThen(TestClock.adjust(5)), Effect.andThen(now)))
      yield* TestClock.adjust(100)
      assert.strictEqual(yield* Fiber.join(fiber), 105)
    })
  ],
  [
    "gives the real clock where it is asked for",
    Effect.gen(function* () {
      assert.isAbove(yield* TestClock.withLive(now), 1_000_000_000_000)
    })
  ],
  [
    "lets a promise that is resolved already go on before the next time",
    Effect.gen(function* () {
      const times: Array<number> = []
      yield* fork(
        Effect.sleep(10).pipe(
          Effect.andThen(Effect.promise(() => Promise.resolve().then(() => Promise.resolve()))),
          Effect.andThen(now),
          Effect.flatMap((at) => Effect.sync(() => void times.push(at)))
        )
      )
      yield* fork(Effect.sleep(20))
      yield* TestClock.adjust(30)
      assert.deepStrictEqual(times, [10])
    })
  ]
]

for (const [name, layer] of [
  ["TestClock", TestClock.layer()],
  ["VirtualClock", VirtualClock.layer],
  ["the VirtualClock that advances", VirtualClock.layerAdvancing]
] as const) {
  describe(name, () => {
    for (const [rule, effect] of both) {
      // These look at a clock that stands still.
      if (layer === VirtualClock.layerAdvancing && /not before|one after the other|for ever never/.test(rule)) continue
      it.live(rule, () => Effect.provide(effect, layer))
    }
  })
}

describe("VirtualClock only", () => {
  it.live("a move waits for fibers that the test started before", () =>
    Effect.gen(function* () {
      const done = yield* Deferred.make<void>()
      const hops = (rest: number): Effect.Effect<unknown> =>
        rest === 0 ? Deferred.succeed(done, undefined) : Effect.flatMap(Effect.forkChild(hops(rest - 1)), Fiber.join)
      const fiber = yield* Effect.forkChild(hops(10))
      yield* TestClock.adjust(0)
      assert.isDefined(fiber.pollUnsafe())
    }).pipe(Effect.provide(VirtualClock.layer))
  )

  it.live("an interrupted move wakes nobody any more", () =>
    Effect.gen(function* () {
      const reached = yield* Latch.make()
      let late = 0
      const moving = yield* fork(TestClock.adjust("1 hour"))
      yield* fork(Effect.andThen(Effect.sleep(100), reached.open))
      yield* fork(
        Effect.andThen(
          Effect.sleep(200),
          Effect.sync(() => void late++)
        )
      )
      yield* fork(Effect.andThen(reached.await, Fiber.interrupt(moving)))
      yield* Fiber.await(moving)
      for (let turn = 0; turn < 10; turn++) yield* Effect.yieldNow
      assert.strictEqual(late, 0)
      assert.strictEqual(yield* now, 100)
      yield* TestClock.adjust(100)
      assert.strictEqual(late, 1)
    }).pipe(Effect.provide(VirtualClock.layer))
  )

  it.live("goes on after a second without a fiber that never pauses", () =>
    Effect.gen(function* () {
      yield* fork(Effect.andThen(Effect.sleep(10), Effect.forever(Effect.yieldNow)))
      yield* TestClock.adjust(20)
      assert.strictEqual(yield* now, 20)
    }).pipe(Effect.scoped, Effect.provide(VirtualClock.layer))
  )

  it.effect("under TestClock it still finds the real clock", () =>
    Effect.gen(function* () {
      assert.isAbove(yield* TestClock.withLive(now), 1_000_000_000_000)
      assert.strictEqual(yield* now, 0)
    }).pipe(Effect.provide(VirtualClock.layer))
  )
})

describe("a clock that advances", () => {
  const advancing = <A, E>(effect: Effect.Effect<A, E>) => Effect.provide(effect, VirtualClock.layerAdvancing)

  it.live("goes to the next time when all fibers wait, and not past it", () =>
    Effect.gen(function* () {
      const times: Array<number> = []
      yield* fork(
        Effect.forever(
          Effect.sleep("1 hour").pipe(
            Effect.andThen(now),
            Effect.map((at) => void times.push(at))
          )
        )
      )
      yield* Effect.sleep("3 hours")
      assert.strictEqual(yield* now, 10_800_000)
      assert.deepStrictEqual(times.slice(0, 2), [3_600_000, 7_200_000])
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(yield* now, 14_400_000)
    }).pipe(advancing)
  )

  it.live("does not move while a fiber runs or yields", () =>
    Effect.gen(function* () {
      const sleeping = yield* fork(Effect.sleep(1))
      for (let turn = 0; turn < 100; turn++) yield* Effect.yieldNow
      assert.isUndefined(sleeping.pollUnsafe())
      assert.strictEqual(yield* now, 0)
      yield* Fiber.join(sleeping)
      assert.strictEqual(yield* now, 1)
    }).pipe(advancing)
  )

  it.live("lets finalizers take their time", () =>
    Effect.gen(function* () {
      yield* Effect.scoped(Effect.addFinalizer(() => Effect.sleep("5 seconds")))
      assert.strictEqual(yield* now, 5_000)
    }).pipe(advancing)
  )
})
