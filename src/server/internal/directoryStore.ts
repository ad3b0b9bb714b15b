/** The store in a directory: the lock, and one file for each name. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { mkdirSync } from "node:fs"
import * as path from "node:path"
import { Locked, make, type Store, StoreError, type StoreProblem } from "../Store.ts"
import { type Files, loadFile, renameFile, saveFile } from "./files.ts"
import { takeLock } from "./lock.ts"

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

/** Opens a directory. The operations of files are given, for tests that interrupt a save at each of them. */
export const makeDirectoryStore = Effect.fnUntraced(function* (
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

  return make({
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
