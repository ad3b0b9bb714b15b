/** An I2P router: a session, and the streams that are dialled and accepted in it. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as net from "node:net"
import { randomBytes } from "node:crypto"
import { closedError, ConnectionError, type Endpoint } from "../../ConnectionError.ts"
import { dialThrough } from "./proxyDialogue.ts"
import { isI2pName } from "./hosts.ts"
import { acceptStream, connectStream, createSession, isPrivateKey } from "./sam.ts"

/** As in Core: the router may have to search its network. */
const defaultTimeout = Duration.minutes(3)

export interface SessionSettings {
  readonly sam: Endpoint
  readonly privateKey: string | undefined
  /** The host that errors name. */
  readonly target?: string | undefined
  readonly timeout: Duration.Input | undefined
  readonly noDelay: boolean
}

/** Makes a connection from a paused socket. */
export type Adopt<C> = (
  socket: net.Socket,
  addresses: { readonly local: Endpoint; readonly remote: Endpoint }
) => Effect.Effect<C, never, Scope.Scope>

/**
 * A destination of our own in the I2P network.
 *
 * @category models
 * @since 0.1.0
 */
export interface I2pSession<C> {
  /** Our .b32.i2p name. The port is 0, because I2P has none. */
  readonly address: Endpoint
  /**
   * The private key of the destination. Keep it secret, and pass it as `privateKey` to get the same destination again.
   */
  readonly privateKey: string
  /** Dials from this destination. An observer can tell that its streams come from one node. */
  readonly connect: (host: string) => Effect.Effect<C, ConnectionError, Scope.Scope>
  /**
   * Waits for the next stream to us. Only one fiber at a time: with SAM 3.1 the router takes one such request. Fails
   * with `Closed` after the end of the session, and with `DialFailed` if the router refuses the request. Then it can be
   * made again, and `PeerServer.serve` with it: `Effect.retry` with some seconds between two tries.
   */
  readonly accept: Effect.Effect<C, ConnectionError, Scope.Scope>
}

const badHost = (host: string, detail: string): ConnectionError =>
  new ConnectionError({ reason: { _tag: "DialFailed", problem: "BadHost", host, port: 0, detail, cause: undefined } })

/** Opens a session. It ends with the scope, and the router then ends all its streams. */
export const openSession = <C>(
  settings: SessionSettings,
  adopt: Adopt<C>
): Effect.Effect<I2pSession<C>, ConnectionError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const { noDelay, privateKey, sam, target = "i2p", timeout = defaultTimeout } = settings
      if (privateKey !== undefined && !isPrivateKey(privateKey)) {
        return yield* badHost(target, "not a private key of I2P in its base64")
      }
      const id = randomBytes(8).toString("hex")
      const through = { proxy: sam, timeout, noDelay }
      const { agreed, socket } = yield* dialThrough(
        { ...through, target: { host: target, port: 0 }, dialogue: () => createSession(id, privateKey) },
        restore
      )
      // No more bytes are expected on this socket. It is read to notice its end.
      socket.resume()
      yield* Effect.addFinalizer(() => Effect.sync(() => void socket.destroy()))

      const local = { host: agreed.name, port: 0 }
      const connect = (host: string): Effect.Effect<C, ConnectionError, Scope.Scope> =>
        Effect.uninterruptibleMask((restore) =>
          Effect.gen(function* () {
            if (!isI2pName(host)) return yield* badHost(host, "not an .i2p name")
            const dialogue = () => connectStream(id, host)
            const target = { host, port: 0 }
            const { socket } = yield* dialThrough({ ...through, target, dialogue }, restore)
            return yield* adopt(socket, { local, remote: target })
          })
        )
      const accept: Effect.Effect<C, ConnectionError, Scope.Scope> = Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          if (socket.destroyed) return yield* closedError()
          const { agreed, socket: stream } = yield* dialThrough(
            { ...through, target: local, dialogue: () => acceptStream(id) },
            restore
          ).pipe(Effect.mapError((error) => (socket.destroyed ? closedError() : error)))
          return yield* adopt(stream, { local, remote: { host: agreed, port: 0 } })
        })
      )
      return { address: local, privateKey: agreed.privateKey, connect, accept }
    })
  )
