/** The tasks of all fibers under a virtual clock, in one queue that can be emptied without a turn of the event loop. */
import type * as Scheduler from "effect/Scheduler"

/** Priorities and their tasks, the lowest number first. */
type Buckets = Array<readonly [priority: number, tasks: Array<() => void>]>

/** One queue for all fibers, so that their order does not depend on the event loop. */
export class Tasks implements Scheduler.SchedulerDispatcher {
  #buckets: Buckets = []
  #onTask: () => void

  /** `onTask` is called when the first task arrives. */
  constructor(onTask: () => void) {
    this.#onTask = onTask
  }

  get isEmpty(): boolean {
    return this.#buckets.length === 0
  }

  scheduleTask(task: () => void, priority: number): void {
    const buckets = this.#buckets
    const wasEmpty = buckets.length === 0
    let index = 0
    while (index < buckets.length && buckets[index]![0] < priority) index++
    if (buckets[index]?.[0] === priority) buckets[index]![1].push(task)
    else buckets.splice(index, 0, [priority, [task]])
    if (wasEmpty) this.#onTask()
  }

  /** Runs the tasks that wait, and not those that they add. Returns how many ran. */
  runRound(): number {
    const buckets = this.#buckets
    this.#buckets = []
    let ran = 0
    for (const [, tasks] of buckets) {
      // A task must not add to the list of its own round.
      for (const task of tasks) {
        ran++
        task()
      }
    }
    return ran
  }

  flush(): void {
    while (!this.isEmpty) this.runRound()
  }
}
