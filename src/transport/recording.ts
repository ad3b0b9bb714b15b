/** How the messages of a peer are recorded, and whether they are. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Connection } from "../Connection.ts"

/**
 * Takes the messages of one connection. Neither function may throw, or keep the payload without copying it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recording {
  /** A message that arrived. Its checksum and command are right; its payload may be malformed. */
  readonly received: (command: string, payload: Uint8Array) => void
  /** A message that was written to the connection. */
  readonly sent: (command: string, payload: Uint8Array) => void
  /** Waits until the recording can take more. The peer neither reads nor writes meanwhile. */
  readonly room: Effect.Effect<void>
}

/**
 * Starts a recording for each connection of the peers in this context: no recording by default. `layer` records in
 * files. A recording of your own ends with the scope.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Capture, Network, Nonce, Peer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * const commands: Array<string> = []
 * const program = Effect.gen(function*() {
 *   const connection = yield* NodeConnection.connect({ host: "127.0.0.1", port: 18444 })
 *   const peer = yield* Peer.make(connection, { network: Network.regtest })
 *   return yield* peer.ping
 * }).pipe(
 *   Effect.scoped,
 *   Effect.provide(Nonce.layer),
 *   Effect.provideService(Capture.Recorder, () =>
 *     Effect.succeed({
 *       received: (command) => void commands.push(`<- ${command}`),
 *       sent: (command) => void commands.push(`-> ${command}`),
 *       room: Effect.void
 *     }))
 * )
 * ```
 *
 * @category services
 * @since 0.1.0
 */
export const Recorder = Context.Reference<
  ((connection: Connection) => Effect.Effect<Recording, never, Scope.Scope>) | undefined
>("effect-bitcoin-peer/Capture/Recorder", { defaultValue: () => undefined })

/** A recording with its end, which waits until everything is stored. */
export interface ActiveRecording extends Recording {
  readonly end: Effect.Effect<void>
}

const nothing = Effect.succeed(undefined)

/** Starts the recording of a connection, where the context has a recorder. It ends with the scope at the latest. */
export const startRecording = (
  connection: Connection
): Effect.Effect<ActiveRecording | undefined, never, Scope.Scope> =>
  Effect.flatMap(Recorder, (open) =>
    open === undefined
      ? nothing
      : Effect.uninterruptible(
          Effect.gen(function* () {
            const scope = yield* Scope.fork(yield* Effect.scope)
            const recording = yield* Scope.provide(open(connection), scope)
            return { ...recording, end: Scope.close(scope, Exit.void) }
          })
        )
  )
