import { NodeSocket } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as net from "node:net"
import { Worker } from "node:worker_threads"
import * as Connection from "../src/Connection.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import { compliance, fill, patterned, pullBytes } from "./support/connectionCompliance.ts"

type Service = Connection.Connection["Service"]

const socketOf = (connection: Service): net.Socket => {
  const socket: unknown = Reflect.get(connection, "socket")
  if (!(socket instanceof net.Socket)) throw new Error("not a connection over node:net")
  return socket
}

const heldBy = (connection: Service): number => {
  const inbox: { readonly size: number } = Reflect.get(connection, "inbox")
  return inbox.size + socketOf(connection).readableLength
}

const resetAndDestroy = (connection: Service) => Effect.sync(() => void socketOf(connection).resetAndDestroy())

/** A connection over loopback. */
const makeOverLoopback = Effect.fnUntraced(function* (options: NodeConnection.SocketOptions) {
  const listener = yield* NodeConnection.listen({ ...options, port: 0 })
  const dialed = yield* NodeConnection.connect({ ...options, ...listener.address })
  const accepted = yield* listener.accept
  return { dialed, accepted }
})

compliance("node:net, written to by the one who dialed", {
  time: "real",
  capacity: 33_554_432,
  heldBy,
  make: (options) =>
    Effect.map(makeOverLoopback(options), ({ dialed, accepted }) => ({
      a: dialed,
      b: accepted,
      resetB: resetAndDestroy(dialed)
    }))
})

compliance("node:net, written to by the one who accepted", {
  time: "real",
  capacity: 33_554_432,
  heldBy,
  make: (options) =>
    Effect.map(makeOverLoopback(options), ({ dialed, accepted }) => ({
      a: accepted,
      b: dialed,
      resetB: resetAndDestroy(accepted)
    }))
})

compliance("Effect's NodeSocket", {
  time: "real",
  capacity: 33_554_432,
  make: (options) =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ ...options, port: 0 })
      const socket = yield* NodeSocket.makeNet(listener.address)
      const a = yield* listener.accept.pipe((accept) =>
        Effect.flatMap(Effect.forkChild(accept, { startImmediately: true }), (fiber) =>
          Effect.flatMap(Connection.fromSocket(socket, options), (b) =>
            Effect.map(Fiber.join(fiber), (a) => ({ a, b }))
          )
        )
      )
      return { ...a, resetB: resetAndDestroy(a.a) }
    })
})
