/** Connections over TCP: the compliance suite, and the behaviour of sockets. */
import { NodeSocket } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import * as net from "node:net"
import * as Connection from "../src/Connection.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import { dice } from "./support/dice.ts"
import { compliance, fill, patterned, pullBytes } from "./support/connectionCompliance.ts"
import { adopt, streaming } from "../src/connection/net/netSocket.ts"
import { openSockets, untilOpenSockets, closeOf, rawClient } from "./support/sockets.ts"

type Service = Connection.Connection

const socketOf = (connection: Service): net.Socket => {
  const socket: unknown = Reflect.get(connection, "socket")
  if (!(socket instanceof net.Socket)) throw new Error("not a connection over node:net")
  return socket
}

const heldBy = (connection: Service): number => {
  const receiveBuffer: { readonly size: number } = Reflect.get(connection, "receiveBuffer")
  return receiveBuffer.size + socketOf(connection).readableLength
}

const resetAndDestroy = (connection: Service) => Effect.sync(() => void socketOf(connection).resetAndDestroy())

/** A connection over loopback. */
const makeOverLoopback = Effect.fnUntraced(function* (options: NodeConnection.SocketOptions) {
  const listener = yield* NodeConnection.listen({ ...options, port: 0 })
  const dialed = yield* NodeConnection.connect({ ...options, ...listener.address })
  const accepted = yield* listener.accept
  return { dialed, accepted }
})

compliance("node:net, written by the dialing side", {
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

compliance("node:net, written by the accepting side", {
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
      const b = yield* Connection.fromSocket(socket, options)
      const a = yield* listener.accept
      return { a, b, resetB: resetAndDestroy(a) }
    })
})

describe("over node:net", () => {
  it.live("gives each end the other's address as remoteAddress", () =>
    Effect.gen(function* () {
      const { dialed, accepted } = yield* makeOverLoopback({})
      assert.deepStrictEqual(dialed.localAddress, accepted.remoteAddress)
      assert.deepStrictEqual(dialed.remoteAddress, accepted.localAddress)
      assert.strictEqual(dialed.remoteAddress.host, "127.0.0.1")
    })
  )

  const ways: ReadonlyArray<readonly [string, (connection: Service, scope: Scope.Closeable) => Effect.Effect<void>]> = [
    ["destroy", (connection) => connection.destroy],
    ["close", (connection) => connection.close],
    ["the end of the scope", (_, scope) => Scope.close(scope, Exit.void)]
  ]
  for (const [name, end] of ways) {
    it.live(`no handle stays open after ${name} with 8 MB unsent and a remote that never reads`, () =>
      Effect.gen(function* () {
        yield* untilOpenSockets(0)
        const listener = yield* NodeConnection.listen({ port: 0, closeTimeout: 50 })
        const remote = yield* rawClient(listener.address.port)
        remote.pause()
        const scope = yield* Scope.make()
        const connection = yield* Scope.provide(listener.accept, scope)
        assert.isAbove(fill(connection, 8_388_608), 0)
        assert.strictEqual(openSockets(), 3)
        yield* end(connection, scope)
        // The listener and the remote are also in this process.
        yield* untilOpenSockets(2)
        yield* Scope.close(scope, Exit.void)
      })
    )

    it.live(`no handle stays open over Effect's NodeSocket after ${name}`, () =>
      Effect.gen(function* () {
        yield* untilOpenSockets(0)
        const listener = yield* NodeConnection.listen({ port: 0, closeTimeout: 50 })
        const scope = yield* Scope.make()
        const socket = yield* NodeSocket.makeNet(listener.address)
        const connection = yield* Scope.provide(Connection.fromSocket(socket, { closeTimeout: 50 }), scope)
        yield* listener.accept
        assert.isAbove(fill(connection, 8_388_608), 0)
        assert.strictEqual(openSockets(), 3)
        const kept = openSockets()
        yield* end(connection, scope)
        yield* untilOpenSockets(kept - 1)
        yield* Scope.close(scope, Exit.void)
      })
    )
  }

  it.live("bytes written before the remote's end still reach a remote that reads on", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const remote = yield* rawClient(listener.address.port, { allowHalfOpen: true })
      const connection = yield* listener.accept
      const total = fill(connection, 8_388_608) > 0 ? 8_388_608 : 0
      remote.end()
      assert.strictEqual((yield* Effect.flip(connection.pull)).reason._tag, "Closed")
      assert.strictEqual(connection.write(Uint8Array.of(1)), -1)
      let got = 0
      remote.on("data", (bytes) => {
        got += bytes.length
      })
      yield* closeOf(remote)
      assert.strictEqual(got, total)
    })
  )

  it.live("a remote that ended and never reads does not delay the close", () =>
    Effect.gen(function* () {
      yield* untilOpenSockets(0)
      const listener = yield* NodeConnection.listen({ port: 0, closeTimeout: 50 })
      const remote = yield* rawClient(listener.address.port, { allowHalfOpen: true })
      const connection = yield* listener.accept
      fill(connection, 8_388_608)
      remote.end()
      yield* Effect.flip(connection.pull)
      yield* connection.close
      yield* untilOpenSockets(2)
    })
  )

  it.live("bytes that arrived before a reset can still be pulled", () =>
    Effect.gen(function* () {
      const { dialed, accepted } = yield* makeOverLoopback({})
      const total = 120_000
      fill(dialed, total)
      yield* dialed.drained
      while (heldBy(accepted) < total) yield* Effect.sleep(5)
      // A failing write destroys the socket with an error.
      socketOf(accepted).destroy(new Error("broken"))
      yield* closeOf(socketOf(accepted))
      const bytes = yield* pullBytes(accepted, total)
      assert.strictEqual(Buffer.compare(bytes, patterned(total)), 0)
      assert.strictEqual((yield* Effect.flip(accepted.pull)).message, "connection reset: broken")
    })
  )

  it.live("writes to a broken connection raise nothing", () =>
    Effect.gen(function* () {
      const { dialed, accepted } = yield* makeOverLoopback({})
      yield* resetAndDestroy(dialed)
      while (accepted.write(patterned(1000)) === 0) {
        const pulled = yield* Effect.exit(accepted.pull)
        if (Exit.isFailure(pulled)) break
      }
      // The remote received nothing.
      yield* Effect.flip(accepted.pull)
      assert.strictEqual(accepted.write(patterned(1000)), -1)
      assert.strictEqual((yield* Effect.flip(accepted.drained)).reason._tag, "Reset")
    })
  )

  it.live("works over IPv6", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ host: "::1", port: 0 })
      const dialed = yield* NodeConnection.connect(listener.address)
      const accepted = yield* listener.accept
      assert.strictEqual(Connection.formatEndpoint(accepted.localAddress), `[::1]:${listener.address.port}`)
      dialed.write(Uint8Array.of(1))
      assert.deepStrictEqual(yield* pullBytes(accepted, 1), Uint8Array.of(1))
    })
  )

  it.live("an IPv4 remote of an IPv6 listener has an IPv4 address", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ host: "::", port: 0 })
      yield* NodeConnection.connect({ host: "127.0.0.1", port: listener.address.port })
      const accepted = yield* listener.accept
      assert.strictEqual(accepted.remoteAddress.host, "127.0.0.1")
    })
  )

  it.live("the layers provide a connection and a listener for their lifetime", () =>
    Effect.gen(function* () {
      const accepted = yield* Effect.gen(function* () {
        const listener = yield* NodeConnection.Listener
        const address = yield* Connection.Connection.use(({ localAddress }) => Effect.succeed(localAddress)).pipe(
          Effect.provide(NodeConnection.layerConnect(listener.address))
        )
        const accepted = yield* listener.accept
        assert.deepStrictEqual(accepted.remoteAddress, address)
        return accepted
      }).pipe(Effect.provide(NodeConnection.layerListen({ port: 0 })))
      assert.strictEqual((yield* Effect.flip(accepted.pull)).reason._tag, "Closed")
    })
  )
})

describe("dialed sockets, which share one read buffer", () => {
  const sizes = [1, 100, 5_000, 32_767, 65_535, 65_536, 65_537, 200_000, 400_000]

  /** Pulls `length` bytes, in any chunks. */
  const pullAll = (from: Service, length: number, into: Array<Uint8Array>, held: number) =>
    Effect.gen(function* () {
      for (let got = held; got < length;) {
        for (const bytes of yield* from.pull) {
          into.push(bytes)
          got += bytes.length
        }
      }
    })

  it.live("receive their own bytes, which later reads of any socket do not change", () =>
    Effect.gen(function* () {
      for (let seed = 0; seed < 10; seed++) {
        const random = dice(seed)
        const listener = yield* NodeConnection.listen({ port: 0 })
        const ends = yield* Effect.forEach([0, 1, 2], (index) =>
          Effect.gen(function* () {
            const dialed = yield* NodeConnection.connect(listener.address)
            const accepted = yield* listener.accept
            // Each socket sends its own pattern.
            return { dialed, accepted, start: index * 1_000_003, written: 0, pulled: [] as Array<Uint8Array> }
          })
        )
        const pulledOf = ({ pulled }: (typeof ends)[number]) => pulled.reduce((size, { length }) => size + length, 0)
        for (let step = 0; step < 60; step++) {
          const end = random.pick(ends)
          const size = random.pick(sizes)
          end.accepted.write(patterned(size, end.start + end.written))
          end.written += size
          // A socket without a pull pauses, and resumes later.
          const other = random.pick(ends)
          const target = random.chance(0.3) ? other.written : Math.min(other.written, pulledOf(other) + size)
          if (random.chance(0.7)) yield* pullAll(other.dialed, target, other.pulled, pulledOf(other))
        }
        for (const end of ends) yield* pullAll(end.dialed, end.written, end.pulled, pulledOf(end))
        for (const { pulled, start, written } of ends) {
          const whole = Buffer.concat(pulled)
          assert.strictEqual(whole.length, written)
          assert.strictEqual(Buffer.compare(whole, patterned(written, start)), 0, `other bytes, seed ${seed}`)
        }
      }
    }).pipe(Effect.scoped)
  )

  it.live("keep no large buffer for a few bytes", () =>
    Effect.gen(function* () {
      const { accepted, dialed } = yield* makeOverLoopback({})
      accepted.write(patterned(2_000_000))
      yield* pullBytes(dialed, 2_000_000)
      const kept: Array<Uint8Array> = []
      for (let count = 0; count < 50; count++) {
        accepted.write(Uint8Array.of(count))
        kept.push(...(yield* dialed.pull))
      }
      // Except for the first bytes, which are in the rest of the large buffer.
      for (const bytes of kept.slice(1)) assert.isBelow(bytes.buffer.byteLength, 65_536)
    })
  )
})

describe("a runtime whose sockets have no `errored`", () => {
  it.live("connects: a missing property is no error", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const socket = net.connect(listener.address.port, "127.0.0.1")
      const accepted = yield* listener.accept
      Object.defineProperty(socket, "errored", { value: undefined })
      const connection = yield* adopt(streaming(socket), { local: listener.address, remote: listener.address })
      accepted.write(Uint8Array.of(1, 2, 3))
      assert.deepStrictEqual(Array.from(yield* pullBytes(connection, 3)), [1, 2, 3])
    }).pipe(Effect.scoped)
  )
})
