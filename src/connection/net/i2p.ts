/** Streams through an I2P router: a session, and what is dialed and accepted in it. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as net from "node:net"
import { randomBytes } from "node:crypto"
import { closedError, ConnectionError, type Endpoint } from "../../ConnectionError.ts"
import { dialThrough } from "./proxyDialogue.ts"
import { isI2pName } from "./hosts.ts"
import { acceptStream, connectStream, createSession, isPrivateKey } from "./sam.ts"

/** As Core: the router may have to ask around in its network. */
const defaultTimeout = Duration.minutes(3)

export interface SessionSettings {
  readonly sam: Endpoint
  readonly privateKey: string | undefined
  /** Who is to be dialled, for errors to name. */
  readonly target?: string | undefined
  readonly timeout: Duration.Input | undefined
  readonly noDelay: boolean
}

/** Makes a connection of a socket that is paused. */
export type Adopt<C> = (
  socket: net.Socket,
  addresses: { readonly local: Endpoint; readonly remote: Endpoint }
) => Effect.Effect<C, never, Scope.Scope>

/** A destination of our own. */
export interface I2pSession<C> {
  /** Our .b32.i2p name. The port is 0: there are none. */
  readonly address: Endpoint
  /** What makes us the same destination again, when it is kept secret and given as `privateKey`. */
  readonly privateKey: string
  /** Dials from this destination, whose streams can be told to be from one node. */
  readonly connect: (host: string) => Effect.Effect<C, ConnectionError, Scope.Scope>
  /**
   * The next who dials us. One fiber at a time: with SAM 3.1 the router takes only one such request. Fails with `Closed`
   * once the session is over; with `DialFailed` when the router did not take the request, which can be made again, and
   * with it `PeerServer.serve`: `Effect.retry` with some seconds in between.
   */
  readonly accept: Effect.Effect<C, ConnectionError, Scope.Scope>
}

const badHost = (host: string, detail: string): ConnectionError =>
  new ConnectionError({ reason: { _tag: "DialFailed", problem: "BadHost", host, port: 0, detail, cause: undefined } })

/** Ends with the scope, and so do all its streams, for the router ends them. */
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
      // Nothing more is expected here, and nothing is kept; reading on is what finds its end.
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
