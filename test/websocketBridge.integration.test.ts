/** The bridge of the examples on loopback: the WebSockets that it accepts, their targets, and back-pressure. */
import { NodeWS } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schedule } from "effect"
import { Connection, Network, Nonce, Peer, PeerServer } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import type { Socket } from "node:net"
import * as Bridge from "../examples/websocket-bridge.ts"
import { fill, patterned, pullBytes, pullToEnd } from "./support/connectionCompliance.ts"

const nonce = Layer.fresh(Nonce.layer)
const origin = "http://127.0.0.1:8000"

/** The listener of a node, and a bridge with this target. */
const bridged = Effect.fnUntraced(function* (options: Partial<Bridge.Options> = {}) {
  const listener = yield* NodeConnection.listen({ port: 0 })
  const { port } = yield* Bridge.listen({ origins: [origin], targets: [listener.address], ...options })
  const url = (target: string) => `ws://127.0.0.1:${port}/?target=${encodeURIComponent(target)}`
  return { listener, port, url, target: url(Connection.formatEndpoint(listener.address)) }
})

/** The connection of a page, and that of the node. */
const joined = Effect.fnUntraced(function* () {
  const { listener, target } = yield* bridged()
  const page = yield* Connection.fromWebSocket(() => new NodeWS.WebSocket(target), { closeTimeout: "20 seconds" })
  return { page, node: yield* listener.accept }
})

/** The error that a page receives. */
const refusal = (url: string) =>
  Effect.gen(function* () {
    const page = yield* Connection.fromWebSocket(() => new WebSocket(url))
    return (yield* Effect.flip(page.pull)).message
  }).pipe(Effect.scoped)

describe("the WebSocket bridge", () => {
  it.live("connects a peer to a node over a WebSocket without back-pressure, as in browsers", () =>
    Effect.gen(function* () {
      const { listener, target } = yield* bridged()
      yield* PeerServer.serve(listener, { peer: { network: Network.regtest, userAgent: "/bridged:1/" } }).pipe(
        Effect.provide(nonce),
        Effect.forkScoped
      )
      const connection = yield* Connection.fromWebSocket(() => new WebSocket(target))
      const peer = yield* Peer.make(connection, { network: Network.regtest, requiredServices: [] }).pipe(
        Effect.provide(nonce)
      )
      assert.strictEqual(peer.info.userAgent, "/bridged:1/")
      yield* peer.ping
    })
  )

  it.live("transfers 8 MB in both directions at once", () =>
    Effect.gen(function* () {
      const { node, page } = yield* joined()
      const total = 8_388_608
      fill(page, total)
      fill(node, total)
      const [there, back] = yield* Effect.all([pullBytes(node, total), pullBytes(page, total)], { concurrency: 2 })
      assert.strictEqual(Buffer.compare(there, patterned(total)), 0)
      assert.strictEqual(Buffer.compare(back, patterned(total)), 0)
    })
  )

  for (const slow of ["page", "node"] as const) {
    it.live(`suspends the other side of a ${slow} that does not read, with bounded memory`, () =>
      Effect.gen(function* () {
        const { node, page } = yield* joined()
        const [reader, writer] = slow === "page" ? [page, node] : [node, page]
        let written = 0
        const writing = yield* Effect.gen(function* () {
          while (true) {
            writer.write(new Uint8Array(65_536))
            yield* writer.drained
            written += 65_536
          }
        }).pipe(Effect.forkChild({ startImmediately: true }))
        let before = -1
        while (written !== before) {
          before = written
          yield* Effect.sleep(200)
        }
        // Most of the bytes are in buffers of the kernel.
        assert.isBelow(written, 33_554_432)
        yield* Fiber.interrupt(writing)
        // The suspended write arrives as well.
        yield* pullBytes(reader, written + 65_536)
      })
    )
  }

  it.live("passes the node's close to the page after all its bytes", () =>
    Effect.gen(function* () {
      const { node, page } = yield* joined()
      fill(node, 1_000_000)
      const closing = yield* Effect.forkChild(node.close, { startImmediately: true })
      const { bytes, error } = yield* pullToEnd(page)
      assert.strictEqual(Buffer.compare(bytes, patterned(1_000_000)), 0)
      assert.strictEqual(error.reason._tag, "Closed")
      yield* Fiber.join(closing)
    })
  )

  it.live("passes the page's close to the node after all its bytes", () =>
    Effect.gen(function* () {
      const { node, page } = yield* joined()
      fill(page, 1_000_000)
      const closing = yield* Effect.forkChild(page.close, { startImmediately: true })
      const { bytes, error } = yield* pullToEnd(node)
      assert.strictEqual(Buffer.compare(bytes, patterned(1_000_000)), 0)
      assert.strictEqual(error.reason._tag, "Closed")
      yield* Fiber.join(closing)
    })
  )

  it.live("closes the connection to the node when the page disappears", () =>
    Effect.gen(function* () {
      const { node, page } = yield* joined()
      yield* page.destroy
      assert.strictEqual((yield* Effect.flip(node.pull)).reason._tag, "Closed")
    })
  )

  it.live("reports a reset by the node to the page", () =>
    Effect.gen(function* () {
      const { node, page } = yield* joined()
      page.write(Uint8Array.of(1))
      yield* node.pull
      const socket: Socket = Reflect.get(node, "socket")
      socket.resetAndDestroy()
      const error = yield* Effect.flip(page.pull)
      assert.match(error.message, /^connection reset: 4503: connection reset: .*ECONNRESET/)
    })
  )

  it.live("refuses a target that is not literally in the list, with a close code", () =>
    Effect.gen(function* () {
      const { listener, port, url } = yield* bridged()
      const at = listener.address.port
      const targets = [`127.0.0.1:${at + 1}`, `localhost:${at}`, `127.0.0.1:${at} `, `127.1:${at}`, `0.0.0.0:${at}`, ""]
      for (const target of targets) {
        assert.strictEqual(
          yield* refusal(url(target)),
          "connection reset: 4403: the bridge does not allow this target",
          target
        )
      }
      assert.match(yield* refusal(`ws://127.0.0.1:${port}/`), /4403/)
      assert.match(yield* refusal(`ws://127.0.0.1:${port}/127.0.0.1:${at}`), /4403/)
    })
  )

  it.live("closes with a reason when the node refuses the connection", () =>
    Effect.gen(function* () {
      const address = yield* Effect.scoped(Effect.map(NodeConnection.listen({ port: 0 }), ({ address }) => address))
      const { url } = yield* bridged({ targets: [address] })
      const target = Connection.formatEndpoint(address)
      assert.strictEqual(yield* refusal(url(target)), `connection reset: 4502: connect ${target}: connection refused`)
    })
  )

  it.live("refuses pages of other origins before a WebSocket opens", () =>
    Effect.gen(function* () {
      const { target } = yield* bridged()
      const open = (from: string) =>
        Effect.result(Connection.fromWebSocket(() => new NodeWS.WebSocket(target, { origin: from })))
      for (const from of ["http://evil.example", "http://127.0.0.1:8001", "https://127.0.0.1:8000", "null"]) {
        const result = yield* open(from)
        if (result._tag === "Success") return assert.fail(`lets in ${from}`)
        assert.match(result.failure.message, /401/)
      }
      assert.strictEqual((yield* open(origin))._tag, "Success")
    })
  )

  it.live("refuses WebSockets beyond the limit, until one ends", () =>
    Effect.gen(function* () {
      const { listener, target } = yield* bridged({ maxConnections: 1 })
      const first = yield* Connection.fromWebSocket(() => new WebSocket(target))
      const node = yield* listener.accept
      assert.strictEqual(yield* refusal(target), "connection reset: 4429: too many connections to the bridge")
      yield* first.close
      yield* Effect.flip(node.pull)
      // The bridge notices the end later than this test, and refuses until then.
      yield* Effect.gen(function* () {
        const second = yield* Connection.fromWebSocket(() => new WebSocket(target))
        yield* Effect.raceFirst(listener.accept, Effect.andThen(second.pull, Effect.never))
      }).pipe(Effect.retry(Schedule.spaced("5 millis")))
    })
  )

  it.live("closes only the WebSocket of a message that is too long", () =>
    Effect.gen(function* () {
      const { node, page } = yield* joined()
      page.write(new Uint8Array(9_000_000))
      const error = yield* Effect.flip(page.pull)
      assert.match(error.message, /1009/)
      yield* Effect.flip(node.pull)
    })
  )

  it.live("ends with its scope, in every state of its pages", () =>
    Effect.gen(function* () {
      const { node, page } = yield* Effect.scoped(
        Effect.gen(function* () {
          const { listener, target } = yield* bridged()
          const webSocket = new NodeWS.WebSocket(target)
          yield* Connection.fromWebSocket(() => webSocket)
          webSocket.pause()
          return { page: webSocket, node: yield* listener.accept }
        })
      )
      assert.strictEqual((yield* Effect.flip(node.pull)).reason._tag, "Closed")
      assert.isAtLeast(page.readyState, 2)
    })
  )
})
