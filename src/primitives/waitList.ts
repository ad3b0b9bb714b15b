import * as Effect from "effect/Effect"

type Resume<E> = (effect: Effect.Effect<void, E>) => void

/** Fibers that wait for one thing. Waking resumes them at once, inside the call that wakes them. */
export class Waiters<E = never> {
  /** Made when first needed: most connections wait for most things never. */
  private resumes: Set<Resume<E>> | undefined
  private readonly ready: () => Effect.Effect<void, E> | undefined

  /** `ready` says how a wait ends that need not begin; `undefined` when it has to wait. */
  constructor(ready: () => Effect.Effect<void, E> | undefined) {
    this.ready = ready
  }

  /** Waits for what `ready` or the next `wake` says. */
  readonly wait: Effect.Effect<void, E> = Effect.callback<void, E>((resume) => {
    // Asked here and not before: between two Effects the fiber may yield, and a wake in that gap would be missed.
    const ready = this.ready()
    if (ready !== undefined) return resume(ready)
    const resumes = (this.resumes ??= new Set())
    resumes.add(resume)
    return Effect.sync(() => {
      resumes.delete(resume)
    })
  })

  /** Whether somebody waits. */
  get isAwaited(): boolean {
    return this.resumes !== undefined && this.resumes.size > 0
  }

  wake(effect: Effect.Effect<void, E>): void {
    if (this.resumes === undefined || this.resumes.size === 0) return
    // A woken fiber may wait again at once: it must find the set empty.
    const resumes = [...this.resumes]
    this.resumes.clear()
    for (const resume of resumes) resume(effect)
  }
}
