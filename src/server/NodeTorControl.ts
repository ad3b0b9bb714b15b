/**
 * `TorControl` over TCP, with the cookie file of Tor. It needs Node, so it is not in the barrel: `import * as NodeTorControl from
 * "effect-bitcoin-peer/server/NodeTorControl"`.
 */
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import { open } from "node:fs/promises"
import type { Endpoint } from "../Connection.ts"
import * as NodeConnection from "../NodeConnection.ts"
import * as TorControl from "./TorControl.ts"

/**
 * How the onion service is made.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options extends Omit<TorControl.Options, "connect" | "readCookie"> {
  /** Tor's control port; 127.0.0.1 with port 9051 by default. */
  readonly control?: Endpoint | undefined
}

/** One byte more than a cookie has, to see that it is too long. */
const mostBytes = 33

const readCookie = (path: string): Effect.Effect<Uint8Array, unknown> =>
  Effect.acquireUseRelease(
    Effect.tryPromise({ try: () => open(path, "r"), catch: (cause) => cause }),
    (file) =>
      Effect.tryPromise({
        try: async () => {
          const { buffer, bytesRead } = await file.read(new Uint8Array(mostBytes), 0, mostBytes, 0)
          return buffer.subarray(0, bytesRead)
        },
        catch: (cause) => cause
      }),
    (file) => Effect.promise(() => file.close())
  )

/**
 * An onion service that lives as long as the layer, made through Tor's control port over TCP.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import * as NodeTorControl from "effect-bitcoin-peer/server/NodeTorControl"
 * import { TorControl } from "effect-bitcoin-peer/server"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * // Tor brings visitors to this listener.
 * export const program = Effect.gen(function*() {
 *   const listener = yield* NodeConnection.listen({ host: "127.0.0.1", port: 8334 })
 *   const tor = yield* TorControl.TorControl
 *   return [listener, yield* tor.status] as const
 * }).pipe(Effect.scoped, Effect.provide(NodeTorControl.layer({ target: { host: "127.0.0.1", port: 8334 } })))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<TorControl.TorControl> => {
  const { control = { host: "127.0.0.1", port: 9051 }, ...rest } = options
  return TorControl.layer({ ...rest, connect: NodeConnection.connect(control), readCookie })
}
