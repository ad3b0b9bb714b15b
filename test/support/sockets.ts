/** TCP sockets on loopback for the tests of NodeConnection, and checks for sockets left open. */
import { assert } from "@effect/vitest"
import { Effect, Scope } from "effect"
import * as net from "node:net"
import * as Connection from "../../src/Connection.ts"
import * as NodeConnection from "../../src/NodeConnection.ts"

/** The number of TCP sockets and servers of this process. */
export const openSockets = () => process.getActiveResourcesInfo().filter((name) => name.startsWith("TCP")).length

/** Waits until the event loop has closed all destroyed sockets but `count`. */
export const untilOpenSockets = (count: number) =>
  Effect.gen(function* () {
    for (let i = 0; i < 1_000 && openSockets() > count; i++) yield* Effect.sleep(10)
    assert.isAtMost(openSockets(), count)
  })

/** Runs a test; before and after it, no socket may be open. */
export const leavingNoHandle = <A, E>(body: Effect.Effect<A, E, Scope.Scope>) =>
  Effect.andThen(untilOpenSockets(0), Effect.andThen(Effect.scoped(body), untilOpenSockets(0)))

/** Waits for the close of a plain socket and for its pending events. */
export const closeOf = (socket: net.Socket) =>
  Effect.andThen(
    Effect.callback<void>((resume) => {
      if (socket.closed) return resume(Effect.void)
      socket.once("close", () => resume(Effect.void))
    }),
    Effect.sleep(1)
  )

/** A plain client, for behaviour that a Connection does not have. */
export const rawClient = (port: number, options?: { readonly allowHalfOpen: boolean }) =>
  Effect.acquireRelease(
    Effect.callback<net.Socket>((resume) => {
      const socket = net.connect({ port, host: "127.0.0.1", ...options })
      socket.on("error", () => {})
      socket.once("connect", () => resume(Effect.succeed(socket)))
    }),
    (socket) => Effect.sync(() => void socket.destroy())
  )

/** A port of loopback without a listener. */
export const freePort = Effect.scoped(Effect.map(NodeConnection.listen({ port: 0 }), ({ address }) => address.port))

export const problemOf = (error: Connection.ConnectionError) =>
  error.reason._tag === "DialFailed" || error.reason._tag === "ListenFailed" ? error.reason.problem : error.message
