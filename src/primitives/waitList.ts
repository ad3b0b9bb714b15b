/** Fibers that wait until something holds, and the call that wakes them. */
import * as Effect from "effect/Effect"

type Resume<E> = (effect: Effect.Effect<void, E>) => void

/** Fibers that wait for one thing. Waking resumes them at once, inside the call that wakes them. */
export class WaitList<E = never> {
  /** Made when the first fiber waits: most connections never wait for most things. */
  #resumes: Set<Resume<E>> | undefined
  readonly #check: () => Effect.Effect<void, E> | undefined

  /** `check` returns how a wait ends that need not begin, and `undefined` when it has to begin. */
  constructor(check: () => Effect.Effect<void, E> | undefined) {
    this.#check = check
  }

  /** Waits for the Effect that `check` returns or that the next `wake` is called with. */
  get wait(): Effect.Effect<void, E> {
    return Effect.callback<void, E>((resume) => {
      // Asked here and not before: between two Effects the fiber may yield, and a wake in that gap would be missed.
      const ready = this.#check()
      if (ready !== undefined) return resume(ready)
      const resumes = (this.#resumes ??= new Set())
      resumes.add(resume)
      return Effect.sync(() => {
        resumes.delete(resume)
      })
    })
  }

  /** Whether a fiber waits. */
  get isAwaited(): boolean {
    return this.#resumes !== undefined && this.#resumes.size > 0
  }

  /** Ends all waits with this Effect. */
  wake(effect: Effect.Effect<void, E> = Effect.void): void {
    if (this.#resumes === undefined || this.#resumes.size === 0) return
    // A woken fiber may wait again at once: it must find the set empty.
    const resumes = [...this.#resumes]
    this.#resumes.clear()
    for (const resume of resumes) resume(effect)
  }
}
