import { NodeSocket } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import * as net from "node:net"
import { Worker } from "node:worker_threads"
import * as Connection from "../src/Connection.ts"
import { makeCount } from "../src/connection/net/limits.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import { dice } from "./support/dice.ts"
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
      const b = yield* Connection.fromSocket(socket, options)
      const a = yield* listener.accept
      return { a, b, resetB: resetAndDestroy(a) }
    })
})

/** How many TCP sockets and servers this process holds. */
const openSockets = () => process.getActiveResourcesInfo().filter((name) => name.startsWith("TCP")).length

/** Waits for the event loop to close what was destroyed: at the end of a test nothing may be left. */
const untilOpenSockets = (count: number) =>
  Effect.gen(function* () {
    for (let i = 0; i < 1_000 && openSockets() > count; i++) yield* Effect.sleep(10)
    assert.isAtMost(openSockets(), count)
  })

/** Runs a test between two counts of the sockets, both of which must be 0. */
const leavingNoHandle = <A, E>(body: Effect.Effect<A, E, Scope.Scope>) =>
  Effect.andThen(untilOpenSockets(0), Effect.andThen(Effect.scoped(body), untilOpenSockets(0)))

/** Waits for the end of a plain socket, and of its events. */
const closeOf = (socket: net.Socket) =>
  Effect.andThen(
    Effect.callback<void>((resume) => {
      if (socket.closed) return resume(Effect.void)
      socket.once("close", () => resume(Effect.void))
    }),
    Effect.sleep(1)
  )

/** A plain client, to do what a connection would not. */
const rawClient = (port: number, options?: { readonly allowHalfOpen: boolean }) =>
  Effect.acquireRelease(
    Effect.callback<net.Socket>((resume) => {
      const socket = net.connect({ port, host: "127.0.0.1", ...options })
      socket.on("error", () => {})
      socket.once("connect", () => resume(Effect.succeed(socket)))
    }),
    (socket) => Effect.sync(() => void socket.destroy())
  )

describe("over node:net", () => {
  it.live("each end sees the other's address as its remote", () =>
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
        // The listener and the remote, which is in this process too.
        yield* untilOpenSockets(2)
        yield* Scope.close(scope, Exit.void)
      })
    )

    it.live(`nor over Effect's NodeSocket, after ${name}`, () =>
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

  it.live("what was written before the remote's end still reaches a remote that reads on", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const remote = yield* rawClient(listener.address.port, { allowHalfOpen: true })
      const connection = yield* listener.accept
      const total = fill(connection, 8_388_608) > 0 ? 8_388_608 : 0
      remote.end()
      assert.strictEqual((yield* Effect.flip(connection.pull)).reason._tag, "Closed")
      assert.strictEqual(connection.write(Uint8Array.of(1)), 0)
      let got = 0
      remote.on("data", (bytes) => {
        got += bytes.length
      })
      yield* closeOf(remote)
      assert.strictEqual(got, total)
    })
  )

  it.live("a remote that ended and never reads does not hold up the close", () =>
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

  it.live("bytes that arrived before a reset are handed out though nobody pulled", () =>
    Effect.gen(function* () {
      const { dialed, accepted } = yield* makeOverLoopback({})
      const total = 120_000
      fill(dialed, total)
      yield* dialed.drained
      while (heldBy(accepted) < total) yield* Effect.sleep(5)
      // What a failing write does: the socket is destroyed with an error.
      socketOf(accepted).destroy(new Error("broken"))
      yield* closeOf(socketOf(accepted))
      const bytes = yield* pullBytes(accepted, total)
      assert.strictEqual(Buffer.compare(bytes, patterned(total)), 0)
      assert.strictEqual((yield* Effect.flip(accepted.pull)).message, "connection reset: broken")
    })
  )

  it.live("writes into a connection that just broke raise nothing", () =>
    Effect.gen(function* () {
      const { dialed, accepted } = yield* makeOverLoopback({})
      yield* resetAndDestroy(dialed)
      while (accepted.write(patterned(1000)) === 0) {
        const pulled = yield* Effect.exit(accepted.pull)
        if (Exit.isFailure(pulled)) break
      }
      // Nothing was ever sent to it.
      yield* Effect.flip(accepted.pull)
      assert.strictEqual(accepted.write(patterned(1000)), 0)
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

  it.live("the layers give a connection and a listener for as long as they live", () =>
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

describe("dialed sockets, which read to one buffer", () => {
  const sizes = [1, 100, 5_000, 32_767, 65_535, 65_536, 65_537, 200_000, 400_000]

  /** As much as the other side has written, however it comes. */
  const pullAll = (from: Service, length: number, into: Array<Uint8Array>, held: number) =>
    Effect.gen(function* () {
      for (let got = held; got < length;) {
        for (const bytes of yield* from.pull) {
          into.push(bytes)
          got += bytes.length
        }
      }
    })

  it.live("get each its own bytes, and what was handed out never changes, whatever is read later and by whom", () =>
    Effect.gen(function* () {
      for (let seed = 0; seed < 10; seed++) {
        const random = dice(seed)
        const listener = yield* NodeConnection.listen({ port: 0 })
        const ends = yield* Effect.forEach([0, 1, 2], (index) =>
          Effect.gen(function* () {
            const dialed = yield* NodeConnection.connect(listener.address)
            const accepted = yield* listener.accept
            // Each its own pattern.
            return { dialed, accepted, start: index * 1_000_003, written: 0, pulled: [] as Array<Uint8Array> }
          })
        )
        const pulledOf = ({ pulled }: (typeof ends)[number]) => pulled.reduce((size, { length }) => size + length, 0)
        for (let step = 0; step < 60; step++) {
          const end = random.pick(ends)
          const size = random.pick(sizes)
          end.accepted.write(patterned(size, end.start + end.written))
          end.written += size
          // Who is not pulled from pauses, and goes on later.
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

  it.live("keep no large buffer for a few bytes, after much came as before", () =>
    Effect.gen(function* () {
      const { accepted, dialed } = yield* makeOverLoopback({})
      accepted.write(patterned(2_000_000))
      yield* pullBytes(dialed, 2_000_000)
      const kept: Array<Uint8Array> = []
      for (let count = 0; count < 50; count++) {
        accepted.write(Uint8Array.of(count))
        kept.push(...(yield* dialed.pull))
      }
      // But for the first, which went to what was left of the large one.
      for (const bytes of kept.slice(1)) assert.isBelow(bytes.buffer.byteLength, 65_536)
    })
  )
})

/** A port of loopback where nobody listens. */
const freePort = Effect.scoped(Effect.map(NodeConnection.listen({ port: 0 }), ({ address }) => address.port))

const problemOf = (error: Connection.ConnectionError) =>
  error.reason._tag === "DialFailed" || error.reason._tag === "ListenFailed" ? error.reason.problem : error.message

/** Answers every name with these addresses. */
const answering =
  (addresses: ReadonlyArray<{ readonly address: string; readonly family: number }>): net.LookupFunction =>
  (_host, _options, callback) =>
    callback(null, [...addresses])

const failingWith =
  (code: string): net.LookupFunction =>
  (_host, _options, callback) =>
    callback(Object.assign(new Error(code), { code }), [])

const neverAnswering: net.LookupFunction = () => {}

describe("connect", () => {
  it.live("fails with Refused where nobody listens", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      const error = yield* Effect.flip(NodeConnection.connect({ host: "127.0.0.1", port }))
      assert.strictEqual(problemOf(error), "Refused")
      assert.strictEqual(error.message, `connect 127.0.0.1:${port}: connection refused`)
    })
  )

  it.live("fails with the most telling of the errors when all addresses of a name fail", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      const lookup = answering([
        { address: "::1", family: 6 },
        { address: "127.0.0.1", family: 4 }
      ])
      const error = yield* Effect.flip(NodeConnection.connect({ host: "localhost", port, lookup }))
      assert.strictEqual(problemOf(error), "Refused")
      if (error.reason._tag === "DialFailed") assert.notInstanceOf(error.reason.cause, AggregateError)
    })
  )

  it.live("tries all addresses of a name", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const lookup = answering([
        { address: "::1", family: 6 },
        { address: "127.0.0.1", family: 4 }
      ])
      const connection = yield* NodeConnection.connect({ host: "localhost", port: listener.address.port, lookup })
      assert.strictEqual(connection.remoteAddress.host, "127.0.0.1")
    })
  )

  it.live("fails with HostNotFound for a name that nobody knows", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(NodeConnection.connect({ host: "peer.invalid", port: 8333 }))
      assert.strictEqual(problemOf(error), "HostNotFound")
    })
  )

  const codes = {
    ENOTFOUND: "HostNotFound",
    EAI_AGAIN: "HostNotFound",
    ETIMEDOUT: "Timeout",
    EHOSTUNREACH: "Unreachable",
    ENETUNREACH: "Unreachable",
    EMFILE: "Other"
  }
  for (const [code, problem] of Object.entries(codes)) {
    it.live(`says ${problem} of ${code}`, () =>
      Effect.gen(function* () {
        const error = yield* Effect.flip(
          NodeConnection.connect({ host: "peer.invalid", port: 8333, lookup: failingWith(code) })
        )
        assert.strictEqual(problemOf(error), problem)
      })
    )
  }

  for (const port of [-1, 65_536, 1.5, Number.NaN]) {
    it.live(`fails with BadPort for ${port}`, () =>
      leavingNoHandle(
        Effect.gen(function* () {
          assert.strictEqual(
            problemOf(yield* Effect.flip(NodeConnection.connect({ host: "127.0.0.1", port }))),
            "BadPort"
          )
          assert.strictEqual(problemOf(yield* Effect.flip(NodeConnection.listen({ port }))), "BadPort")
        })
      )
    )
  }

  it.live("fails with a typed error for a local address that is none", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(NodeConnection.connect({ host: "127.0.0.1", port: 1, localAddress: "nonsense" }))
      assert.strictEqual(problemOf(error), "Other")
    })
  )

  it.effect("fails with Timeout when nothing happens for connectTimeout, 5 seconds by default", () =>
    Effect.gen(function* () {
      const dial = yield* Effect.forkChild(
        Effect.flip(NodeConnection.connect({ host: "peer.invalid", port: 1, lookup: neverAnswering })),
        { startImmediately: true }
      )
      yield* TestClock.adjust(4999)
      assert.isUndefined(dial.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* Fiber.join(dial)).message, "connect peer.invalid:1: timed out")
    })
  )

  /** A listener whose process never accepts, its backlog filled: the kernel leaves further dials unanswered. */
  const fullListener = Effect.gen(function* () {
    const source = `
      const { parentPort } = require("node:worker_threads")
      const server = require("node:net").createServer()
      server.listen({ port: 0, host: "127.0.0.1", backlog: 1 }, () => {
        parentPort.postMessage(server.address().port)
        setImmediate(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0))
      })`
    const worker = yield* Effect.acquireRelease(
      Effect.sync(() => new Worker(source, { eval: true })),
      (worker) => Effect.promise(() => worker.terminate())
    )
    const port = yield* Effect.callback<number>((resume) => {
      worker.once("message", (port: number) => resume(Effect.succeed(port)))
    })
    const isUnanswered = Effect.map(
      Effect.exit(NodeConnection.connect({ host: "127.0.0.1", port, connectTimeout: 200 })),
      Exit.isFailure
    )
    // One alone may just have been slow.
    for (let i = 0; i < 16; i++) if ((yield* isUnanswered) && (yield* isUnanswered)) return port
    return assert.fail("the backlog is never full")
  })

  it.live("a dial that times out leaves no handle", () =>
    leavingNoHandle(
      Effect.gen(function* () {
        const port = yield* fullListener
        const error = yield* Effect.flip(NodeConnection.connect({ host: "127.0.0.1", port, connectTimeout: 50 }))
        assert.strictEqual(problemOf(error), "Timeout")
      })
    )
  )

  it.live("an interrupted dial leaves no handle", () =>
    leavingNoHandle(
      Effect.gen(function* () {
        const port = yield* fullListener
        const dial = yield* Effect.forkChild(NodeConnection.connect({ host: "127.0.0.1", port }), {
          startImmediately: true
        })
        yield* Effect.sleep(20)
        assert.isUndefined(dial.pollUnsafe())
        yield* Fiber.interrupt(dial)
      })
    )
  )

  it.live("the interruption of a dial at any time leaves no handle", () =>
    leavingNoHandle(
      Effect.gen(function* () {
        const listener = yield* NodeConnection.listen({ port: 0 })
        for (let i = 0; i < 30; i++) {
          const dial = yield* Effect.forkChild(
            Effect.scoped(NodeConnection.connect({ ...listener.address, closeTimeout: 0 })),
            {
              startImmediately: true
            }
          )
          for (let turn = 0; turn < i % 10; turn++)
            yield* Effect.callback<void>((resume) => {
              setImmediate(() => resume(Effect.void))
            })
          yield* Fiber.interrupt(dial)
        }
      })
    )
  )
})

describe("listen", () => {
  it.live("fails with AddressInUse where somebody listens already", () =>
    Effect.gen(function* () {
      const { address } = yield* NodeConnection.listen({ port: 0 })
      const error = yield* Effect.flip(NodeConnection.listen({ port: address.port }))
      assert.strictEqual(error.message, `listen 127.0.0.1:${address.port}: address in use`)
    })
  )

  it.live("fails with AddressNotAvailable for an address that is not ours", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(NodeConnection.listen({ host: "192.0.2.1", port: 0 }))
      assert.strictEqual(problemOf(error), "AddressNotAvailable")
    })
  )

  it.live("the port is free again when the scope ended", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      for (let i = 0; i < 3; i++) yield* Effect.scoped(NodeConnection.listen({ port }))
    })
  )

  it.live("connections beyond maxPending are destroyed, those that wait are accepted in their order", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0, maxPending: 2 })
      const clients: Array<net.Socket> = []
      for (let i = 0; i < 5; i++) clients.push((yield* rawClient(listener.address.port)).resume())
      for (const late of clients.slice(2)) yield* closeOf(late)
      for (const client of clients.slice(0, 2)) {
        const accepted = yield* listener.accept
        assert.strictEqual(accepted.remoteAddress.port, client.localPort)
      }
      const next = yield* Effect.forkChild(listener.accept, { startImmediately: true })
      yield* Effect.sleep(20)
      assert.isUndefined(next.pollUnsafe())
      yield* Fiber.interrupt(next)
    })
  )

  it.live("with maxPending 0 only a connection that somebody waits for is taken", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0, maxPending: 0 })
      const given = yield* Effect.forkChild(listener.accept, { startImmediately: true })
      yield* Fiber.interrupt(given)
      yield* closeOf((yield* rawClient(listener.address.port)).resume())
      const accepting = yield* Effect.forkChild(listener.accept, { startImmediately: true })
      const client = yield* rawClient(listener.address.port)
      assert.strictEqual((yield* Fiber.join(accepting)).remoteAddress.port, client.localPort)
    })
  )

  it.live("a connection that waits to be accepted is not read from", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const client = yield* NodeConnection.connect(listener.address)
      let written = 0
      while (client.write(patterned(65_536, written)) === 0) written += 65_536
      written += 65_536
      yield* Effect.sleep(100)
      assert.isAbove(client.write(new Uint8Array(0)), 0)
      const accepted = yield* listener.accept
      const bytes = yield* pullBytes(accepted, written)
      assert.strictEqual(Buffer.compare(bytes, patterned(written)), 0)
    })
  )

  it.live("interrupting an accept loses no connection, and several fibers may accept", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const given = yield* Effect.forkChild(listener.accept, { startImmediately: true })
      const first = yield* Effect.forkChild(listener.accept, { startImmediately: true })
      const second = yield* Effect.forkChild(listener.accept, { startImmediately: true })
      yield* Fiber.interrupt(given)
      const clients = [yield* rawClient(listener.address.port), yield* rawClient(listener.address.port)]
      const accepted = [yield* Fiber.join(first), yield* Fiber.join(second)]
      assert.sameMembers(
        accepted.map(({ remoteAddress }) => remoteAddress.port),
        clients.map(({ localPort }) => localPort)
      )
    })
  )

  it.live(
    "the end of its scope destroys what waits, fails who accepts with Closed, and leaves accepted ones alone",
    () =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const listener = yield* Scope.provide(NodeConnection.listen({ port: 0 }), scope)
        const used = yield* rawClient(listener.address.port)
        const accepted = yield* listener.accept
        const waiting = yield* rawClient(listener.address.port)
        while ((yield* listener.stats).pending === 0) yield* Effect.sleep(1)
        yield* Scope.close(scope, Exit.void)
        yield* closeOf(waiting.resume())
        assert.strictEqual((yield* Effect.flip(listener.accept)).reason._tag, "Closed")
        used.write(Uint8Array.of(1))
        assert.deepStrictEqual(yield* pullBytes(accepted, 1), Uint8Array.of(1))
      })
  )

  it.live("an accept that waits fails with Closed when the scope ends", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const listener = yield* Scope.provide(NodeConnection.listen({ port: 0 }), scope)
      const accepting = yield* Effect.forkChild(Effect.flip(listener.accept), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual((yield* Fiber.join(accepting)).reason._tag, "Closed")
    })
  )
})

describe("an empty host", () => {
  it.live("is not taken for all addresses of this machine, nor for this machine", () =>
    Effect.gen(function* () {
      const listening = yield* Effect.flip(NodeConnection.listen({ host: "", port: 0 }))
      assert.strictEqual(listening.reason._tag, "ListenFailed")
      const dialled = yield* Effect.flip(NodeConnection.connect({ host: "", port: 1 }))
      assert(dialled.reason._tag === "DialFailed")
      assert.strictEqual(dialled.reason.problem, "HostNotFound")
    }).pipe(Effect.scoped)
  )
})

describe("a listener on several addresses", () => {
  it.live("takes connections on all of them, IPv6 apart from IPv4 on the same port", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      const listener = yield* NodeConnection.listen({ host: "127.0.0.1", port, also: [{ host: "::", port }] })
      assert.deepStrictEqual(listener.address, { host: "127.0.0.1", port })
      assert.deepStrictEqual(listener.addresses, [
        { host: "127.0.0.1", port },
        { host: "::", port }
      ])
      for (const host of ["127.0.0.1", "::1"]) {
        const dialed = yield* NodeConnection.connect({ host, port })
        const accepted = yield* listener.accept
        assert.deepStrictEqual(accepted.remoteAddress, dialed.localAddress)
        assert.strictEqual(accepted.localAddress.host, host)
      }
    })
  )

  it.live("tells the port that each took, and closes them all with its scope", () =>
    Effect.gen(function* () {
      const also = [
        { host: "127.0.0.2", port: 0 },
        { host: "::1", port: 0 }
      ]
      const addresses = yield* Effect.scoped(Effect.map(NodeConnection.listen({ port: 0, also }), (it) => it.addresses))
      assert.deepStrictEqual(
        addresses.map(({ host }) => host),
        ["127.0.0.1", "127.0.0.2", "::1"]
      )
      for (const address of addresses) {
        assert.strictEqual(problemOf(yield* Effect.flip(NodeConnection.connect(address))), "Refused")
      }
    })
  )

  it.live("fails with the address that fails, and listens on none", () =>
    leavingNoHandle(
      Effect.gen(function* () {
        const port = yield* freePort
        const also = [{ host: "192.0.2.1", port }]
        const error = yield* Effect.flip(NodeConnection.listen({ port, also }))
        assert.strictEqual(error.message, `listen 192.0.2.1:${port}: address not available`)
        yield* Effect.scoped(NodeConnection.listen({ port }))
      })
    )
  )
})

describe("limits of a listener", () => {
  /** Dials and tells whether the connection was left open. */
  const isTaken = Effect.fnUntraced(function* (options: NodeConnection.ConnectOptions) {
    const connection = yield* NodeConnection.connect(options)
    const ended = yield* Effect.timeoutOption(Effect.flip(connection.pull), 50)
    return ended._tag === "None"
  })

  it.live("maxConnections counts all that are open, until they close, and what is above is destroyed and counted", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0, maxConnections: 2 })
      assert.isTrue(yield* isTaken(listener.address))
      const accepted = yield* listener.accept
      assert.isTrue(yield* isTaken(listener.address))
      assert.isFalse(yield* isTaken(listener.address))
      assert.deepStrictEqual(yield* listener.stats, { open: 2, pending: 1, refused: 1 })
      yield* accepted.destroy
      while ((yield* listener.stats).open > 1) yield* Effect.sleep(5)
      assert.isTrue(yield* isTaken(listener.address))
      assert.deepStrictEqual(yield* listener.stats, { open: 2, pending: 2, refused: 1 })
    })
  )

  it.live("maxPerAddress counts each remote address on its own", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0, maxPerAddress: 1 })
      for (const localAddress of ["127.0.0.1", "127.0.0.2"]) {
        const client = yield* NodeConnection.connect({ ...listener.address, localAddress })
        assert.isFalse(yield* isTaken({ ...listener.address, localAddress }))
        yield* client.close
        while ((yield* listener.stats).open > 0) {
          yield* Effect.flatMap(listener.accept, (accepted) => accepted.close)
        }
        assert.isTrue(yield* isTaken({ ...listener.address, localAddress }))
        yield* Effect.flatMap(listener.accept, (accepted) => accepted.close)
        while ((yield* listener.stats).open > 0) yield* Effect.sleep(5)
      }
      assert.strictEqual((yield* listener.stats).refused, 2)
    })
  )

  it("count IPv6 addresses by their first 64 bits, and forget who left", () => {
    const count = makeCount({ maxConnections: 3, maxPerAddress: 1 })
    const leave = count.enter("2001:db8:1:2::1")
    assert.isDefined(leave)
    assert.isUndefined(count.enter("2001:db8:1:2:ffff::9"))
    assert.isDefined(count.enter("2001:db8:1:3::1"))
    assert.isDefined(count.enter("192.0.2.1"))
    assert.isUndefined(count.enter("192.0.2.2"))
    leave?.()
    assert.strictEqual(count.open(), 2)
    assert.isDefined(count.enter("2001:db8:1:2:ffff::9"))
  })
})
