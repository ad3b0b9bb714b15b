/** Connections over WebSockets on loopback: of the `ws` package, which can pause, and of Node, which cannot, as in browsers. */
import { NodeWS } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import type { AddressInfo } from "node:net"
import * as Connection from "../src/Connection.ts"
import { compliance, patterned, pullBytes, pullToEnd } from "./support/connectionCompliance.ts"

/** A server, and the server side of the first WebSocket. */
const serving = Effect.gen(function* () {
  const server = yield* Effect.acquireRelease(
    Effect.callback<NodeWS.WebSocketServer>((resume) => {
      const server = new NodeWS.WebSocketServer({ host: "127.0.0.1", port: 0 })
      server.once("listening", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.sync(() => {
        for (const client of server.clients) client.terminate()
        server.close()
      })
  )
  const accepted = yield* Deferred.make<NodeWS.WebSocket>()
  server.on("connection", (webSocket) => {
    webSocket.pause()
    Deferred.doneUnsafe(accepted, Effect.succeed(webSocket))
  })
  const { port } = server.address() as AddressInfo
  return { url: `ws://127.0.0.1:${port}/`, accepted: Deferred.await(accepted) }
})

compliance("a WebSocket of the ws package", {
  time: "real",
  capacity: 33_554_432,
  make: (options) =>
    Effect.gen(function* () {
      const { accepted, url } = yield* serving
      const client = new NodeWS.WebSocket(url)
      const a = yield* Connection.fromWebSocket(() => client, options)
      const server = yield* accepted
      const b = yield* Connection.fromWebSocket(() => server, options)
      return { a, b, resetB: Effect.sync(() => client.terminate()) }
    })
})

/** A connection over Node's WebSocket, and the raw server side. */
const opened = Effect.fnUntraced(function* (options?: Connection.WebSocketOptions) {
  const { accepted, url } = yield* serving
  const connection = yield* Connection.fromWebSocket(() => new WebSocket(url), options)
  const server = yield* accepted
  server.resume()
  return { connection, server }
})

const received = (server: NodeWS.WebSocket, count: number): Effect.Effect<Uint8Array> =>
  Effect.callback((resume) => {
    const pieces: Array<Uint8Array> = []
    let total = 0
    server.on("message", (data: Buffer) => {
      pieces.push(data)
      total += data.length
      if (total >= count) resume(Effect.succeed(Uint8Array.from(Buffer.concat(pieces))))
    })
  })

describe("a WebSocket that cannot pause", () => {
  it.live("joins messages into one stream, including empty ones, and encodes text as UTF-8", () =>
    Effect.gen(function* () {
      const { connection, server } = yield* opened()
      server.send(Uint8Array.of(1, 2))
      server.send(new Uint8Array(0))
      server.send("é")
      server.send(Uint8Array.of(3))
      server.close(1000)
      const { bytes, error } = yield* pullToEnd(connection)
      assert.deepStrictEqual(bytes, Uint8Array.of(1, 2, 0xc3, 0xa9, 3))
      assert.strictEqual(error.reason._tag, "Closed")
    })
  )

  for (const code of [1000, 1001, undefined]) {
    it.live(`fails with Closed after the remote's close with ${code === undefined ? "no code" : `code ${code}`}`, () =>
      Effect.gen(function* () {
        const { connection, server } = yield* opened()
        server.close(code)
        assert.strictEqual((yield* Effect.flip(connection.pull)).reason._tag, "Closed")
      })
    )
  }

  for (const code of [1011, 4403]) {
    it.live(`fails with Reset, the code and the reason after the remote's close with code ${code}`, () =>
      Effect.gen(function* () {
        const { connection, server } = yield* opened()
        server.close(code, "not today")
        const error = yield* Effect.flip(connection.pull)
        assert.strictEqual(error.reason._tag, "Reset")
        assert.strictEqual(error.message, `connection reset: ${code}: not today`)
      })
    )
  }

  it.live("fails with Reset after the received bytes if the remote disappears without a close", () =>
    Effect.gen(function* () {
      const { connection, server } = yield* opened()
      yield* Effect.callback<void>((resume) => server.send(patterned(1000), () => resume(Effect.void)))
      server.terminate()
      const { bytes, error } = yield* pullToEnd(connection)
      assert.deepStrictEqual(bytes, patterned(1000))
      assert.strictEqual(error.reason._tag, "Reset")
    })
  )

  it.live("sends all written bytes on close, then code 1000, and waits for the answer", () =>
    Effect.gen(function* () {
      const { connection, server } = yield* opened({ closeTimeout: "20 seconds" })
      const bytes = yield* Effect.forkChild(received(server, 1_000_000), { startImmediately: true })
      const code = yield* Deferred.make<number>()
      server.on("close", (closed) => Deferred.doneUnsafe(code, Effect.succeed(closed)))
      connection.write(patterned(1_000_000))
      yield* connection.close
      assert.deepStrictEqual(yield* Fiber.join(bytes), patterned(1_000_000))
      assert.strictEqual(yield* Deferred.await(code), 1000)
    })
  )

  it.live("waits on close until the timeout for a remote that does not answer", () =>
    Effect.gen(function* () {
      const { connection, server } = yield* opened({ closeTimeout: "50 millis" })
      server.pause()
      yield* connection.close
      assert.strictEqual((yield* Effect.flip(connection.pull)).reason._tag, "Closed")
    })
  )

  it.live("suspends its writer while the network accepts no more bytes", () =>
    Effect.gen(function* () {
      const { connection, server } = yield* opened()
      server.pause()
      const total = 33_554_432
      connection.write(patterned(total))
      const drained = yield* Effect.forkChild(connection.drained, { startImmediately: true })
      yield* Effect.sleep(50)
      assert.isUndefined(drained.pollUnsafe())
      assert.strictEqual(connection.write(Uint8Array.of(1)), total + 1)
      server.on("message", () => {})
      server.resume()
      yield* Fiber.join(drained)
    })
  )

  it.live("holds at most maxUnread bytes that are not pulled, then is Reset, and still gives the held bytes", () =>
    Effect.gen(function* () {
      const { connection, server } = yield* opened({ maxUnread: 1_000_000 })
      const closed = yield* Deferred.make<void>()
      server.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
      for (let i = 0; i < 100; i++) server.send(patterned(65_536, i * 65_536))
      yield* Deferred.await(closed)
      const { bytes, error } = yield* pullToEnd(connection)
      assert.strictEqual(error.message, "connection reset: more than 1000000 bytes arrived and were not pulled")
      assert.isAtLeast(bytes.length, 1_000_000)
      assert.isAtMost(bytes.length, 1_000_000 + 4 * 65_536)
      assert.deepStrictEqual(bytes, patterned(bytes.length))
    })
  )

  it.live("counts empty messages against maxUnread", () =>
    Effect.gen(function* () {
      const { connection, server } = yield* opened({ maxUnread: 100_000 })
      const closed = yield* Deferred.make<void>()
      server.on("close", () => Deferred.doneUnsafe(closed, Effect.void))
      // Enough messages to stop the connection's reading ahead.
      server.send(new Uint8Array(65_536))
      for (let i = 0; i < 1_000; i++) server.send(new Uint8Array(0))
      yield* Deferred.await(closed)
      assert.include((yield* pullToEnd(connection)).error.message, "more than 100000 bytes")
    })
  )

  it.live("is paused instead of Reset if it can pause", () =>
    Effect.gen(function* () {
      const { accepted, url } = yield* serving
      const connection = yield* Connection.fromWebSocket(() => new NodeWS.WebSocket(url), { maxUnread: 100_000 })
      const server = yield* accepted
      server.send(patterned(1_000_000))
      server.send(patterned(1_000_000))
      yield* Effect.sleep(50)
      assert.strictEqual((yield* pullBytes(connection, 2_000_000)).length, 2_000_000)
    })
  )

  it.live("fails a waiting writer and a waiting pull with the remote's end", () =>
    Effect.gen(function* () {
      const { connection, server } = yield* opened()
      server.pause()
      connection.write(new Uint8Array(33_554_432))
      const drained = yield* Effect.forkChild(Effect.flip(connection.drained), { startImmediately: true })
      yield* Effect.sleep(50)
      assert.isUndefined(drained.pollUnsafe())
      server.terminate()
      const error = yield* Fiber.join(drained)
      assert.strictEqual(error.reason._tag, "Reset")
      assert.strictEqual(yield* Effect.flip(connection.pull), error)
    })
  )

  it.live("holds no memory for pulled bytes", () =>
    Effect.gen(function* () {
      const { connection, server } = yield* opened({ maxUnread: 200_000 })
      const total = 20 * 65_536
      const sending = Effect.gen(function* () {
        for (let i = 0; i < 20; i++) {
          server.send(patterned(65_536, i * 65_536))
          yield* Effect.sleep(1)
        }
      })
      const [bytes] = yield* Effect.all([pullBytes(connection, total), sending], { concurrency: 2 })
      assert.deepStrictEqual(bytes, patterned(total))
    })
  )

  it.live("fails with DialFailed when the connection is refused", () =>
    Effect.gen(function* () {
      const remoteAddress = { host: "192.0.2.1", port: 8333 }
      const url = yield* Effect.scoped(Effect.map(serving, ({ url }) => url))
      const error = yield* Effect.flip(Connection.fromWebSocket(() => new WebSocket(url), { remoteAddress }))
      if (error.reason._tag !== "DialFailed") return assert.fail(error.message)
      assert.match(error.message, /^connect 192\.0\.2\.1:8333: /)
      assert.notInclude(error.message, "[object")
      const known = yield* Effect.flip(Connection.fromWebSocket(() => new NodeWS.WebSocket(url), { remoteAddress }))
      assert.strictEqual(known.message, "connect 192.0.2.1:8333: connection refused")
    })
  )

  it.live("fails with DialFailed, not a defect, for an invalid URL", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Connection.fromWebSocket(() => new WebSocket("no url")))
      assert.strictEqual(error.reason._tag, "DialFailed")
    })
  )

  for (const [name, make] of [
    ["Node's", (url: string) => new WebSocket(url)],
    ["the ws package's", (url: string) => new NodeWS.WebSocket(url)]
  ] as const) {
    it.live(`fails with DialFailed and Timeout if ${name} does not open in time, and is closed`, () =>
      Effect.gen(function* () {
        const { url } = yield* serving
        const webSocket = make(url)
        // No answer can have arrived, because the event loop has not run.
        const error = yield* Effect.flip(Connection.fromWebSocket(() => webSocket, { openTimeout: 0 }))
        if (error.reason._tag !== "DialFailed") return assert.fail(error.message)
        assert.strictEqual(error.reason.problem, "Timeout")
        assert.isAtLeast(webSocket.readyState, 2)
      })
    )
  }

  it.live("is opened by layerWebSocket, and closed with the layer", () =>
    Effect.gen(function* () {
      const { accepted, url } = yield* serving
      const webSocket = new WebSocket(url)
      yield* Connection.Connection.use((connection) =>
        Effect.gen(function* () {
          const server = yield* accepted
          server.resume()
          server.send(Uint8Array.of(3))
          assert.deepStrictEqual(yield* pullBytes(connection, 1), Uint8Array.of(3))
        })
      ).pipe(Effect.provide(Connection.layerWebSocket(() => webSocket)))
      assert.strictEqual(webSocket.readyState, 3)
    })
  )
})
