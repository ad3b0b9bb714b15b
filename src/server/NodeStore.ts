/**
 * A store in a directory: one file for each name, as Bitcoin Core keeps `peers.dat`, `banlist.json` and `anchors.dat`.
 *
 * This module needs Node, so it is not in the barrel: `import * as NodeStore from "effect-bitcoin-peer/server/NodeStore"`.
 */
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as fs from "node:fs/promises"
import { makeDirectoryStore } from "./internal/directoryStore.ts"
import { type Locked, Store, type StoreError } from "./Store.ts"

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
  makeDirectoryStore(directory, fs)

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
