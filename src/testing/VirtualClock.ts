/**
 * A Clock for tests that stands still until it is moved, as Effect's `TestClock` does, at a fraction of its cost: days of thousands of
 * connections take seconds. `TestClock.adjust`, `setTime` and `withLive` work with it.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"
import type * as TestClock from "effect/testing/TestClock"
import { Heap } from "./internal/heap.ts"
import { Tasks } from "./internal/tasks.ts"

/** Time that fibers may run without a pause after the clock has moved, in milliseconds, before the clock goes on without them. */
const patience = 1_000
/** The number of tasks that run in one turn of the event loop. */
const turnLength = 10_000

const nanosOf = (millis: number): bigint => {
  const whole = Math.floor(millis)
  return BigInt(whole) * 1_000_000n + BigInt(Math.floor((millis - whole) * 1_000_000))
}

const busyWarning =
  "A fiber that the virtual clock woke has been running for a second without a pause, so the clock goes on. Sleeps that this fiber " +
  "starts may begin too late."
const stillWarning =
  "A test sleeps on the virtual clock and does not move it, so it may hang. Move it with TestClock.adjust."

/** A call of `adjust` or `setTime`. */
interface Move {
  readonly target: (now: number) => number
  readonly nanos: bigint | undefined
  readonly resume: (effect: Effect.Effect<void>) => void
  /** Where it leads, and the times before it; undefined until it begins. */
  begun: { readonly until: number; readonly wall: bigint; readonly monotonic: bigint } | undefined
}

/** The clock of the machine, also where the current clock is one for tests. */
const liveOf = (clock: Clock.Clock): Clock.Clock =>
  "withLive" in clock ? Effect.runSync((clock as TestClock.TestClock).withLive(Clock.clockWith(Effect.succeed))) : clock

class Virtual implements TestClock.TestClock {
  readonly scheduler: Scheduler.Scheduler
  private readonly live: Clock.Clock
  private readonly parent: Scheduler.SchedulerDispatcher
  private readonly warn: (text: string) => void
  private readonly tasks = new Tasks(() => this.nextTurn())
  private readonly sleepers = new Heap<() => void>()
  private readonly moves: Array<Move> = []
  private now = 0
  /** The wall time where it is no whole number of milliseconds. */
  private exact: bigint | undefined
  private monotonic = 0n
  private isTurnDue = false
  private isPumping = false
  /** When the fibers that were woken last began to run, on the live clock. */
  private busySince: number | undefined
  /** Calls off the warning that nothing moves the clock. */
  private moved: (() => void) | undefined
  private hasMoved = false

  private advances: boolean

  constructor(context: Context.Context<never>, advances: boolean) {
    this.advances = advances
    const current = Context.get(context, Clock.Clock)
    this.live = liveOf(current)
    const scheduler = Context.get(context, Scheduler.Scheduler)
    this.parent = scheduler.makeDispatcher()
    const dispatcher = this.tasks
    this.scheduler = {
      executionMode: scheduler.executionMode,
      shouldYield: (fiber) => scheduler.shouldYield(fiber),
      makeDispatcher: () => dispatcher
    }
    const run = Effect.runForkWith(context)
    this.warn = (text) => void run(Effect.logWarning(text))
    this.warnLater = () => {
      const fiber = run(
        this.live.sleep(Duration.millis(patience)).pipe(Effect.andThen(Effect.logWarning(stillWarning)))
      )
      return () => fiber.interruptUnsafe()
    }
  }

  private readonly warnLater: () => () => void

  // ---- Clock

  currentTimeMillisUnsafe(): number {
    return this.now
  }

  currentTimeNanosUnsafe(): bigint {
    return this.exact ?? nanosOf(this.now)
  }

  monotonicTimeNanosUnsafe(): bigint {
    return this.monotonic
  }

  readonly currentTimeMillis = Effect.sync(() => this.currentTimeMillisUnsafe())
  readonly currentTimeNanos = Effect.sync(() => this.currentTimeNanosUnsafe())
  readonly monotonicTimeNanos = Effect.sync(() => this.monotonicTimeNanosUnsafe())

  sleep(duration: Duration.Duration): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      const end = this.now + Duration.toMillis(duration)
      if (end <= this.now) return resume(Effect.void)
      if (this.advances) this.nextTurn()
      else if (!this.hasMoved && this.moved === undefined) this.moved = this.warnLater()
      const entry = this.sleepers.add(end, () => resume(Effect.void))
      return Effect.sync(() => this.sleepers.cancel(entry))
    })
  }

  // ---- TestClock

  adjust(duration: Duration.Input): Effect.Effect<void> {
    const input = Duration.fromInputUnsafe(duration)
    const millis = Duration.toMillis(input)
    return this.move((now) => now + millis, Number.isFinite(millis) ? Duration.toNanosUnsafe(input) : undefined)
  }

  setTime(timestamp: number): Effect.Effect<void> {
    return this.move(() => timestamp, undefined)
  }

  withLive<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.provideService(effect, Clock.Clock, this.live)
  }

  private move(target: Move["target"], nanos: bigint | undefined): Effect.Effect<void> {
    return Effect.callback<void>((resume) => {
      this.hasMoved = true
      this.moved?.()
      const move: Move = { target, nanos, resume, begun: undefined }
      this.moves.push(move)
      this.nextTurn()
      return Effect.sync(() => {
        const index = this.moves.indexOf(move)
        if (index >= 0) this.moves.splice(index, 1)
      })
    })
  }

  /** Calls off the warning, and advances no more. */
  stop(): void {
    this.advances = false
    this.moved?.()
  }

  // ---- turns

  /** Continues in the next turn of the event loop: after callbacks of promises and of the operating system. */
  private nextTurn(): void {
    if (this.isTurnDue || this.isPumping) return
    this.isTurnDue = true
    this.parent.scheduleTask(this.turn, 0)
  }

  private readonly turn = (): void => {
    this.isTurnDue = false
    this.isPumping = true
    try {
      if (this.moves.length > 0) this.pump()
      else if (!this.tasks.isEmpty) this.tasks.runRound()
      // A whole turn of the event loop has passed in which no fiber ran.
      else if (this.advances) this.wakeNext(Number.MAX_SAFE_INTEGER)
    } finally {
      this.isPumping = false
      // Also where a task has thrown: the others must run.
      if (!this.tasks.isEmpty || this.moves.length > 0 || (this.advances && this.sleepers.size > 0)) this.nextTurn()
    }
  }

  /** Goes on with the first move. */
  private pump(): void {
    if (!this.settle()) return
    const move = this.moves[0]
    if (move === undefined) return
    move.begun ??= { until: move.target(this.now), wall: this.currentTimeNanosUnsafe(), monotonic: this.monotonic }
    const { until } = move.begun
    if (this.wakeNext(until)) return
    this.moves.shift()
    this.advance(until)
    if (move.nanos !== undefined) this.settleNanos(move.begun, move.nanos)
    move.resume(Effect.void)
  }

  /** Wakes all fibers that sleep until the next time, each once the ones before wait again. Returns false if that is after `until`. */
  private wakeNext(until: number): boolean {
    const next = this.sleepers.first
    if (next === undefined || next.at > until) return false
    this.advance(next.at)
    for (let due = this.sleepers.first; due !== undefined && due.at <= this.now; due = this.sleepers.first) {
      this.sleepers.take()!()
      if (!this.settle()) break
    }
    return true
  }

  /** Runs tasks until there are none. Returns false if they need another turn. */
  private settle(): boolean {
    let ran = 0
    while (!this.tasks.isEmpty) {
      ran += this.tasks.runRound()
      if (ran < turnLength) continue
      const now = Number(this.live.monotonicTimeNanosUnsafe()) / 1e6
      this.busySince ??= now
      if (now - this.busySince < patience) return false
      this.warn(busyWarning)
      break
    }
    this.busySince = undefined
    return true
  }

  private advance(to: number): void {
    if (to > this.now && Number.isFinite(to - this.now)) {
      this.monotonic += BigInt(Math.round((to - this.now) * 1_000_000))
    }
    this.now = to
    this.exact = undefined
  }

  /** An `adjust` moves by exactly as many nanoseconds as it was told. */
  private settleNanos({ monotonic, wall }: NonNullable<Move["begun"]>, nanos: bigint): void {
    this.exact = wall + nanos
    if (nanos > 0n) this.monotonic = monotonic + nanos
  }
}

// Fibers under another scheduler than that of the clock run in turns of the event loop, and the clock does not wait for them.
const layerOf = (advances: boolean): Layer.Layer<never> =>
  Layer.fresh(
    Layer.effectContext(
      Effect.map(
        Effect.acquireRelease(
          Effect.contextWith((context: Context.Context<never>) => Effect.sync(() => new Virtual(context, advances))),
          (clock) => Effect.sync(() => clock.stop())
        ),
        (clock) =>
          Context.make(Clock.Clock, clock).pipe(
            Context.add(Scheduler.Scheduler, clock.scheduler)
          ) as Context.Context<never>
      )
    )
  )

/**
 * Provides a virtual clock that begins at 0 and stands still until it is moved, and the scheduler of its fibers.
 *
 * As with `TestClock`, a move wakes sleeping fibers in the order of their times, and waits after each until it and all fibers that it
 * resumed or forked wait for something. It also waits for fibers that were ready before. Fibers that wait for promises or for sockets get
 * one turn of the event loop for each time at which somebody wakes.
 *
 * @example
 * ```ts
 * import { Clock, Effect, Fiber } from "effect"
 * import { TestClock } from "effect/testing"
 * import { VirtualClock } from "effect-bitcoin-peer/testing"
 *
 * const program = Effect.gen(function*() {
 *   const fiber = yield* Effect.forkChild(Effect.andThen(Effect.sleep("30 days"), Clock.currentTimeMillis))
 *   yield* TestClock.adjust("31 days")
 *   return yield* Fiber.join(fiber) // 2_592_000_000
 * })
 *
 * await Effect.runPromise(Effect.provide(program, VirtualClock.layer))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never> = layerOf(false)

/**
 * The same clock, which moves by itself: when all fibers wait, it goes to the next time at which one of them wakes. So nothing waits for
 * time in vain, and `TestClock.adjust` works as well. Fibers that wait for promises or for sockets get one turn of the event loop, then time
 * passes without them: use it where everything is in memory.
 *
 * @example
 * ```ts
 * import { Clock, Effect } from "effect"
 * import { VirtualClock } from "effect-bitcoin-peer/testing"
 *
 * const program = Effect.andThen(Effect.sleep("30 days"), Clock.currentTimeMillis)
 *
 * await Effect.runPromise(Effect.provide(program, VirtualClock.layerAdvancing)) // 2_592_000_000
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerAdvancing: Layer.Layer<never> = layerOf(true)
