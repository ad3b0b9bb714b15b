/** A list of fibers that wait for a condition, and the call that wakes them. */
import * as Effect from "effect/Effect"

type Resume<E> = (effect: Effect.Effect<void, E>) => void

/** Fibers that wait for one condition. `wake` resumes them synchronously. */
export class WaitList<E = never> {
  /** Created when the first fiber waits: most connections never use most of their wait lists. */
  #resumes: Set<Resume<E>> | undefined
  readonly #check: () => Effect.Effect<void, E> | undefined

  /** `check` returns the result if the condition holds already, and `undefined` if the fiber must wait. */
  constructor(check: () => Effect.Effect<void, E> | undefined) {
    this.#check = check
  }

  /** Continues with the Effect that `check` returns, or with that of the next `wake`. */
  get wait(): Effect.Effect<void, E> {
    return Effect.callback<void, E>((resume) => {
      // Checked inside the callback: a fiber may yield between two Effects, and a wake in between would be missed.
      const ready = this.#check()
      if (ready !== undefined) return resume(ready)
      const resumes = (this.#resumes ??= new Set())
      resumes.add(resume)
      return Effect.sync(() => {
        resumes.delete(resume)
      })
    })
  }

  /** Whether any fiber waits. */
  get isAwaited(): boolean {
    return this.#resumes !== undefined && this.#resumes.size > 0
  }

  /** Resumes all waiting fibers with this Effect. */
  wake(effect: Effect.Effect<void, E> = Effect.void): void {
    if (this.#resumes === undefined || this.#resumes.size === 0) return
    // A resumed fiber may wait again at once, so the set must be empty before.
    const resumes = [...this.#resumes]
    this.#resumes.clear()
    for (const resume of resumes) resume(effect)
  }
}
