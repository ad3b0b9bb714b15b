/**
 * A store in a directory: one file for each name, as Bitcoin Core keeps `peers.dat`, `banlist.json` and `anchors.dat`.
 *
 * This module needs Node, so it is not in the barrel: `import * as NodeStore from "effect-bitcoin-peer/server/NodeStore"`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { mkdirSync } from "node:fs"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { type Files, loadFile, renameFile, saveFile } from "./internal/files.ts"
import { takeLock } from "./internal/lock.ts"
import { Locked, make as makeStore, Store, StoreError, type StoreProblem } from "./Store.ts"

const problems: { readonly [code: string]: StoreProblem | undefined } = {
  ENOSPC: "Full",
  EDQUOT: "Full",
  EACCES: "NoPermission",
  EPERM: "NoPermission",
  EROFS: "NoPermission",
  ENOENT: "NotFound"
}

const failure = (operation: StoreError["operation"], name: string, cause: unknown): StoreError =>
  new StoreError({
    operation,
    name,
    problem: problems[(cause as NodeJS.ErrnoException).code ?? ""] ?? "Other",
    cause
  })

/**
 * Opens a directory, for as long as the scope lives, and makes it if it is missing. One process at a time has it open: the file
 * `.lock` names that process, and is taken over if the process no longer runs. The file system must have hard links.
 *
 * A save writes a new file that only this user can read, waits until the disk has it, and renames it. So a crash or a power cut
 * leaves the old bytes or the new ones. An interruption waits for the end of a save.
 *
 * Fails with `Locked` if another process has the directory open, and with `StoreError` if the directory cannot be made or written.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeDirectory = (directory: string): Effect.Effect<Store, Locked | StoreError, Scope.Scope> =>
  makeWith(directory, fs)

/** @internal A store whose operations of files are given, for tests that interrupt a save at each of them. */
export const makeWith = Effect.fnUntraced(function* (
  directory: string,
  files: Files
): Effect.fn.Return<Store, Locked | StoreError, Scope.Scope> {
  const opened = yield* Effect.acquireRelease(
    Effect.try({
      try: () => {
        mkdirSync(directory, { recursive: true, mode: 0o700 })
        return takeLock(path.join(directory, ".lock"))
      },
      catch: (cause) => failure("open", directory, cause)
    }),
    (opened) => Effect.sync(() => typeof opened === "function" && opened())
  )
  if (typeof opened !== "function") return yield* new Locked({ path: directory, pid: opened.pid })

  // Two saves of one name would write the same new file.
  const turn = yield* Semaphore.make(1)
  const attempt = <A>(operation: StoreError["operation"], name: string, run: (path: string) => Promise<A>) =>
    Effect.tryPromise({
      try: () => run(path.join(directory, name)),
      catch: (cause) => failure(operation, name, cause)
    }).pipe(Effect.uninterruptible, (effect) => turn.withPermit(effect))

  return makeStore({
    load: (name) =>
      Effect.map(
        attempt("load", name, (path) => loadFile(files, path)),
        Option.fromUndefinedOr
      ),
    save: (name, bytes) => attempt("save", name, (path) => saveFile(files, path, bytes)),
    rename: (name, newName) =>
      attempt("quarantine", name, (from) => renameFile(files, from, path.join(directory, newName)))
  })
})

/**
 * The store of `makeDirectory`.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as NodeStore from "effect-bitcoin-peer/server/NodeStore"
 * import * as Store from "effect-bitcoin-peer/server/Store"
 *
 * export const program = Effect.gen(function*() {
 *   const store = yield* Store.Store
 *   yield* store.save("banlist.json", new TextEncoder().encode("{}"))
 * }).pipe(
 *   Effect.provide(NodeStore.layerDirectory("./wallet-peers")),
 *   Effect.catchTag("Locked", ({ pid }) => Effect.logError(`process ${pid} uses the directory`))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerDirectory = (directory: string): Layer.Layer<Store, Locked | StoreError> =>
  Layer.effect(Store, makeDirectory(directory))
