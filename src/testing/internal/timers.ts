/** All timers of a simulated network: one heap, and one fiber that sleeps until the earliest of them. */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { type Entry, Heap } from "./heap.ts"

/** A call at a time. */
export type Timer = Entry<() => void>

/**
 * Calls functions at their times, in milliseconds of the Clock, and at equal times in the order in which they were added. A call may
 * add timers; one for now runs after the current call.
 */
export class Timers {
  readonly #context: Context.Context<never>
  readonly #clock: Clock.Clock
  readonly #heap = new Heap<() => void>()
  #sleeper: Fiber.Fiber<void> | undefined
  #sleepsUntil = Number.POSITIVE_INFINITY
  #isRunning = false
  #isStopped = false

  constructor(context: Context.Context<never>) {
    this.#context = context
    this.#clock = Context.get(context, Clock.Clock)
  }

  get now(): number {
    return this.#clock.currentTimeMillisUnsafe()
  }

  /** Calls `run` at a time, or as soon as possible if it is over. */
  add(at: number, run: () => void): Timer {
    const timer = this.#heap.add(at, run)
    if (this.#isStopped) this.#heap.clear()
    else if (!this.#isRunning && at < this.#sleepsUntil) this.#sleep()
    return timer
  }

  after(milliseconds: number, run: () => void): Timer {
    return this.add(this.now + milliseconds, run)
  }

  cancel(timer: Timer): void {
    this.#heap.cancel(timer)
  }

  /** Ends the fiber. Nothing runs any more. */
  stop(): void {
    this.#isStopped = true
    this.#heap.clear()
    this.#sleeper?.interruptUnsafe()
    this.#sleeper = undefined
  }

  #sleep(): void {
    this.#sleeper?.interruptUnsafe()
    this.#sleeper = undefined
    const next = this.#heap.first
    if (next === undefined) {
      this.#sleepsUntil = Number.POSITIVE_INFINITY
      return
    }
    this.#sleepsUntil = next.at
    this.#sleeper = Effect.runForkWith(this.#context)(this.#loop)
  }

  /** Sleeps, runs what is due, and sleeps again while there are timers. */
  readonly #loop: Effect.Effect<void> = Effect.suspend(() => {
    const rest = this.#sleepsUntil - this.now
    // Not at once: the call that added the timer has not returned.
    const wait = rest > 0 ? this.#clock.sleep(Duration.millis(Math.ceil(rest))) : Effect.yieldNow
    return Effect.flatMap(wait, () => {
      this.#run()
      const next = this.#heap.first
      this.#sleepsUntil = next?.at ?? Number.POSITIVE_INFINITY
      if (next !== undefined) return this.#loop
      this.#sleeper = undefined
      return Effect.void
    })
  })

  #run(): void {
    this.#isRunning = true
    try {
      for (let timer = this.#heap.first; timer !== undefined && timer.at <= this.now; timer = this.#heap.first) {
        this.#heap.take()!()
      }
    } finally {
      this.#isRunning = false
    }
  }
}
