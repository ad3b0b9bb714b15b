/** Stores that fail: a disk that is full, slow or broken. */
import { Effect } from "effect"
import type * as Store from "../../src/server/Store.ts"
import { StoreError, type StoreProblem } from "../../src/server/Store.ts"

/** The faults of the next operations of a faulty store. Change them while the store is used. */
export interface Faults {
  /** Fails every load with this problem. */
  load?: StoreProblem | undefined
  /** Fails every save with this problem: "Full" for a full disk. */
  save?: StoreProblem | undefined
  /** Fails every quarantine with this problem. */
  quarantine?: StoreProblem | undefined
  /** Milliseconds on the Clock that each operation takes before it does anything. */
  delay?: number | undefined
}

/** A store that applies `faults` before it hands on to `store`, and the operations so far: `save peers.dat`. */
export const makeFaulty = (
  store: Store.Store,
  faults: Faults = {}
): { readonly store: Store.Store; readonly faults: Faults; readonly operations: Array<string> } => {
  const operations: Array<string> = []
  const faulty = <A>(
    operation: "load" | "save" | "quarantine",
    name: string,
    effect: Effect.Effect<A, StoreError>
  ): Effect.Effect<A, StoreError> =>
    Effect.suspend(() => {
      operations.push(`${operation} ${name}`)
      const problem = faults[operation]
      const result =
        problem === undefined
          ? effect
          : Effect.fail(new StoreError({ operation, name, problem, cause: new Error("a fault of the test") }))
      return faults.delay === undefined ? result : Effect.andThen(Effect.sleep(faults.delay), result)
    })
  return {
    store: {
      load: (name) => faulty("load", name, store.load(name)),
      save: (name, bytes) => faulty("save", name, store.save(name, bytes)),
      quarantine: (name) => faulty("quarantine", name, store.quarantine(name))
    },
    faults,
    operations
  }
}
