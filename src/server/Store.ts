/**
 * The files of a server: the address book, the bans, the anchors and its private keys, each under a name. A save is atomic: a reader finds
 * the old bytes or the new ones.
 *
 * `NodeStore` keeps them in a directory, `SqlStore` in a database.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"

/**
 * Why a store failed.
 *
 * - `Full`: no space is left, or a quota is used up.
 * - `NoPermission`: the directory, the file or the database must not be written or read.
 * - `NotFound`: there is no file of that name to put aside.
 * - `BadName`: a name is 1 to 100 letters, digits, `.`, `_` and `-`, and begins with a letter or a digit.
 *
 * @category errors
 * @since 0.1.0
 */
export type StoreProblem = "Full" | "NoPermission" | "NotFound" | "BadName" | "Other"

const problemText: { readonly [Problem in StoreProblem]: string | undefined } = {
  Full: "no space is left",
  NoPermission: "no permission",
  NotFound: "there is no file of that name",
  BadName: "not a valid name",
  Other: undefined
}

const consequences = {
  open: "nothing can be kept there",
  load: "its bytes are still there",
  save: "the bytes of the last save are still there",
  quarantine: "it keeps its name"
} as const

/**
 * An operation of a store failed. The bytes that were kept before are still there.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreError extends Data.TaggedError("StoreError")<{
  readonly operation: "open" | "load" | "save" | "quarantine"
  /** The name of the bytes; the path or the table where the store itself could not be opened. */
  readonly name: string
  readonly problem: StoreProblem
  readonly cause: unknown
}> {
  override get message(): string {
    const { cause, name, operation, problem } = this
    const why = problemText[problem] ?? (cause instanceof Error ? cause.message : String(cause))
    return `cannot ${operation} ${name}: ${why}; ${consequences[operation]}`
  }
}

/**
 * Another process has the directory of a store open. Two servers must not write the same files.
 *
 * @category errors
 * @since 0.1.0
 */
export class Locked extends Data.TaggedError("Locked")<{
  readonly path: string
  /** The number of the process that has the directory open. */
  readonly pid: number
}> {
  override get message(): string {
    return `${this.path} is in use by process ${this.pid}: stop it, or choose another directory`
  }
}

/**
 * Stores bytes under names.
 *
 * @category models
 * @since 0.1.0
 */
export interface Store {
  /** The bytes of the last save under this name, if there was one. */
  readonly load: (name: string) => Effect.Effect<Option.Option<Uint8Array>, StoreError>
  /** Replaces the bytes of a name atomically: after a crash at any moment the old or the new bytes are there. */
  readonly save: (name: string, bytes: Uint8Array) => Effect.Effect<void, StoreError>
  /**
   * Puts bytes aside that cannot be read, and returns their new name: `peers.dat.corrupt-1800000000`, with the time in seconds.
   * The old name is free then.
   */
  readonly quarantine: (name: string) => Effect.Effect<string, StoreError>
}

/**
 * The key of the service `Store` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const Store: Context.Service<Store, Store> = Context.Service<Store>("effect-bitcoin-peer/server/Store")

const named = <A>(
  operation: StoreError["operation"],
  name: string,
  effect: Effect.Effect<A, StoreError>
): Effect.Effect<A, StoreError> =>
  /^[a-z0-9][a-z0-9._-]{0,99}$/i.test(name)
    ? effect
    : Effect.fail(new StoreError({ operation, name, problem: "BadName", cause: undefined }))

/**
 * Makes a store of three functions, which need not look at names: those that are no file names fail with `BadName` before.
 * `quarantine` gets the new name.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (functions: {
  readonly load: Store["load"]
  readonly save: Store["save"]
  readonly rename: (name: string, newName: string) => Effect.Effect<void, StoreError>
}): Store => {
  return {
    load: (name) => named("load", name, functions.load(name)),
    save: (name, bytes) => named("save", name, functions.save(name, bytes)),
    quarantine: (name) =>
      named(
        "quarantine",
        name,
        Effect.flatMap(Clock.currentTimeMillis, (now) => {
          const newName = `${name}.corrupt-${Math.floor(now / 1000)}`
          return Effect.as(functions.rename(name, newName), newName)
        })
      )
  }
}

/**
 * The error of `quarantine` for a name that does not exist.
 *
 * @category constructors
 * @since 0.1.0
 */
export const notFound = (name: string): StoreError =>
  new StoreError({ operation: "quarantine", name, problem: "NotFound", cause: undefined })

/**
 * Makes a store that keeps the bytes in memory, for tests and for programs without a disk.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeMemory = (): Store => {
  const kept = new Map<string, Uint8Array>()
  return make({
    load: (name) => Effect.sync(() => Option.map(Option.fromUndefinedOr(kept.get(name)), (bytes) => bytes.slice())),
    save: (name, bytes) => Effect.sync(() => void kept.set(name, bytes.slice())),
    rename: (name, newName) =>
      Effect.suspend(() => {
        const bytes = kept.get(name)
        if (bytes === undefined) return Effect.fail(notFound(name))
        kept.delete(name)
        kept.set(newName, bytes)
        return Effect.void
      })
  })
}

/**
 * A store in memory. Nothing outlives the layer.
 *
 * @example
 * ```ts
 * import { Effect, Option } from "effect"
 * import * as Store from "effect-bitcoin-peer/server/Store"
 *
 * const program = Effect.gen(function*() {
 *   const store = yield* Store.Store
 *   yield* store.save("anchors.dat", Uint8Array.of(1, 2, 3))
 *   return Option.isSome(yield* store.load("anchors.dat")) // true
 * }).pipe(Effect.provide(Store.layerMemory))
 *
 * await Effect.runPromise(program)
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerMemory: Layer.Layer<Store> = Layer.sync(Store, makeMemory)
