/** The status of a server over HTTP on loopback. */
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Layer, Scope, Stream } from "effect"
import { FetchHttpClient, HttpServer } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { NetAddress } from "effect/net"
import { Network, Nonce, PeerServer } from "effect-bitcoin-peer"
import { Dialer, PeerInfo, Server } from "effect-bitcoin-peer/server"
import * as StatusApi from "effect-bitcoin-peer/server/StatusApi"
import { createServer, request } from "node:http"
import { memoryNetwork } from "../support/memoryNetwork.ts"

const network = Network.regtest

/** A server with a peer in memory, and its status on a free port. */
const start = Effect.fnUntraced(function* (options: StatusApi.Options = {}, host = "127.0.0.1") {
  const net = memoryNetwork()
  const listener = yield* net.listen("10.0.0.2:18444")
  yield* Effect.forkScoped(
    Effect.provide(PeerServer.serve(listener, { peer: { network, userAgent: "/node:1/" } }), Layer.fresh(Nonce.layer))
  )
  const context = yield* Layer.build(
    StatusApi.layer(options).pipe(
      Layer.provideMerge(Server.layer({ network, feelers: false, added: ["10.0.0.2"] })),
      Layer.provide(Layer.succeed(Dialer.Dialer, net.dialer("10.0.0.1"))),
      Layer.provideMerge(NodeHttpServer.layer(createServer, { host, port: 0 }))
    )
  )
  const server = yield* Effect.provide(Server.Server, context)
  yield* server.awaitPeers(1)
  const { address } = yield* Effect.provide(HttpServer.HttpServer, context)
  if (!NetAddress.isInetAddress(address)) return yield* Effect.die("no port")
  return { server, port: address.port, url: `http://127.0.0.1:${address.port}` }
})

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: string
}

/** A request with any headers: `fetch` does not let a program set Host. */
const ask = (port: number, path: string, headers: Readonly<Record<string, string>> = {}, method = "GET") =>
  Effect.callback<Answer, Error>((resume) => {
    const asked = request({ host: "127.0.0.1", port, path, method, headers, agent: false }, (answer) => {
      let body = ""
      answer.setEncoding("utf8").on("data", (text: string) => (body += text))
      answer.on("end", () => resume(Effect.succeed({ status: answer.statusCode ?? 0, headers: answer.headers, body })))
    })
    asked.on("error", (error) => resume(Effect.fail(error)))
    asked.end()
  })

describe("the status of a server", () => {
  it.live("gives its peers and itself as Bitcoin Core does, to a client of the API", () =>
    Effect.gen(function* () {
      const { url } = yield* start()
      const client = yield* HttpApiClient.make(StatusApi.api, { baseUrl: url })
      const [peer, ...others] = yield* client.peers()
      assert.instanceOf(peer, PeerInfo.PeerInfo)
      assert.deepInclude(peer, { addr: "10.0.0.2:18444", subver: "/node:1/", connection_type: "manual" })
      assert.deepStrictEqual(others, [])
      const itself = yield* client.network()
      assert.deepInclude(itself, { connections: 1, connections_in: 0, connections_out: 1, networkactive: true })
      assert.match(yield* client.metrics(), /^conn_outbound_current\{connection_type="manual"\} 1$/m)
    }).pipe(Effect.provide(FetchHttpClient.layer), Effect.scoped)
  )

  it.live("answers with JSON of Core's names, for programs without our schemas", () =>
    Effect.gen(function* () {
      const { port } = yield* start()
      const { body, headers, status } = yield* ask(port, "/peers")
      assert.strictEqual(status, 200)
      assert.strictEqual(headers["content-type"], "application/json")
      const [peer] = JSON.parse(body)
      assert.strictEqual(peer.addr, "10.0.0.2:18444")
      assert.notProperty(peer, "mapped_as")
      const metrics = yield* ask(port, "/metrics")
      assert.strictEqual(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
    }).pipe(Effect.scoped)
  )

  it.live("sends events as they happen, one a line", () =>
    Effect.gen(function* () {
      const { server, url } = yield* start()
      const client = yield* HttpApiClient.make(StatusApi.api, { baseUrl: url })
      const events = Stream.tap(yield* client.events(), ({ event }) =>
        event === "Subscribed" ? server.disconnect("10.0.0.2:18444", "enough") : Effect.void
      )
      const ended = yield* Stream.runHead(Stream.filter(events, ({ event }) => event === "Ended"))
      assert.deepInclude(ended.valueOrUndefined, {
        event: "Ended",
        connection_type: "manual",
        addr: "10.0.0.2:18444",
        message: "enough"
      })
    }).pipe(Effect.provide(FetchHttpClient.layer), Effect.scoped)
  )

  it.live("ends at once with its scope, although somebody reads the events", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { url } = yield* Scope.provide(start(), scope)
      const client = yield* HttpApiClient.make(StatusApi.api, { baseUrl: url })
      const reading = yield* Effect.forkChild(Stream.runDrain(yield* client.events()))
      const before = performance.now()
      yield* Scope.close(scope, Exit.void)
      assert.isBelow(performance.now() - before, 5_000)
      reading.interruptUnsafe()
    }).pipe(Effect.provide(FetchHttpClient.layer), Effect.scoped)
  )

  it.live("takes no request that could change anything", () =>
    Effect.gen(function* () {
      const { port } = yield* start()
      for (const method of ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]) {
        assert.strictEqual((yield* ask(port, "/peers", {}, method)).status, 404, method)
      }
      assert.strictEqual((yield* ask(port, "/")).status, 404)
    }).pipe(Effect.scoped)
  )

  it.live("refuses requests of pages of other origins, and of names that resolve to it", () =>
    Effect.gen(function* () {
      const { port } = yield* start({ hosts: ["Status.Example"] })
      const statusOf = (headers: Record<string, string>, path = "/peers") =>
        Effect.map(ask(port, path, headers), ({ status }) => status)
      for (const path of ["/peers", "/network", "/metrics", "/events"]) {
        assert.strictEqual(yield* statusOf({ host: `evil.example:${port}` }, path), 403, path)
      }
      assert.strictEqual(yield* statusOf({ origin: "http://evil.example" }), 403)
      // Another port of this machine is another origin.
      assert.strictEqual(yield* statusOf({ origin: "http://localhost:3000", host: `localhost:${port}` }), 403)
      assert.strictEqual(yield* statusOf({ "sec-fetch-site": "cross-site" }), 403)
      assert.strictEqual(yield* statusOf({ "sec-fetch-site": "same-site" }), 403)
      const refused = yield* ask(port, "/peers", { host: "evil.example" })
      assert.deepInclude(JSON.parse(refused.body), { _tag: "RequestRefused" })
      assert.notInclude(refused.body, "10.0.0.2")
      for (const host of ["localhost", `localhost:${port}`, `[::1]:${port}`, `127.0.0.1:${port}`, "status.example"]) {
        const { headers, status } = yield* ask(port, "/peers", { host, "sec-fetch-site": "none" })
        assert.strictEqual(status, 200, host)
        assert.isUndefined(headers["access-control-allow-origin"])
        assert.deepInclude(headers, { "x-content-type-options": "nosniff", "cache-control": "no-store" })
      }
    }).pipe(Effect.scoped)
  )

  it.live("is not served to other machines unless the program says so", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.exit(Effect.scoped(start({}, "0.0.0.0")))
      const error = Exit.isFailure(exit) ? Cause.findErrorOption(exit.cause) : undefined
      assert.match(`${error?.valueOrUndefined?.message}`, /^the status is not served on 0\.0\.0\.0:\d+: other machines/)
      const { port } = yield* start({ allowRemote: true }, "0.0.0.0")
      assert.strictEqual((yield* ask(port, "/peers")).status, 200)
    }).pipe(Effect.scoped)
  )
})
