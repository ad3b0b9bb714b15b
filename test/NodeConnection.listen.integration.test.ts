/** Listening over TCP: pending connections, several addresses, limits. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import * as net from "node:net"
import { makeCount } from "../src/connection/net/limits.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import { patterned, pullBytes } from "./support/connectionCompliance.ts"
import { leavingNoHandle, closeOf, rawClient, freePort, problemOf } from "./support/sockets.ts"

describe("listen", () => {
  it.live("fails with AddressInUse on a port that is taken", () =>
    Effect.gen(function* () {
      const { address } = yield* NodeConnection.listen({ port: 0 })
      const error = yield* Effect.flip(NodeConnection.listen({ port: address.port }))
      assert.strictEqual(error.message, `listen 127.0.0.1:${address.port}: address in use`)
    })
  )

  it.live("fails with AddressNotAvailable for an address of another machine", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(NodeConnection.listen({ host: "192.0.2.1", port: 0 }))
      assert.strictEqual(problemOf(error), "AddressNotAvailable")
    })
  )

  it.live("releases the port when its scope closes", () =>
    Effect.gen(function* () {
      const port = yield* freePort
      for (let i = 0; i < 3; i++) yield* Effect.scoped(NodeConnection.listen({ port }))
    })
  )

  it.live("destroys connections beyond maxPending, and accepts pending ones in order", () =>
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

  it.live("with maxPending 0, takes a connection only while an accept waits", () =>
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

  it.live("does not read from pending connections", () =>
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

  it.live("loses no connection to an interrupted accept; several fibers may accept", () =>
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
    "when its scope closes, destroys pending connections, fails waiting accepts with Closed, and keeps accepted connections",
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

  it.live("fails a waiting accept with Closed when its scope closes", () =>
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
  it.live("is refused, because it means neither all addresses nor this machine", () =>
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
  it.live("accepts on all of them, also IPv6 and IPv4 on the same port", () =>
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

  it.live("reports the port of each, and closes all with its scope", () =>
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

  it.live("fails if one address fails, and closes the other listeners", () =>
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
  /** Dials, and returns whether the connection stayed open. */
  const isTaken = Effect.fnUntraced(function* (options: NodeConnection.ConnectOptions) {
    const connection = yield* NodeConnection.connect(options)
    const ended = yield* Effect.timeoutOption(Effect.flip(connection.pull), 50)
    return ended._tag === "None"
  })

  it.live("maxConnections counts open connections; those above it are destroyed and counted", () =>
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

  it.live("maxPerAddress counts each remote address separately", () =>
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

  it("count IPv6 addresses by their first 64 bits, and forget closed connections", () => {
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
