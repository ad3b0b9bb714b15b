/** The examples over real sockets on loopback, in this process and as separate processes. */
import { assert, describe, it } from "@effect/vitest"
import { type Cause, Deferred, Effect, Fiber, Layer, Queue, type Scope } from "effect"
import { FetchHttpClient } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { Nonce, Peer, PeerServer, Wire } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import * as StatusApi from "effect-bitcoin-peer/server/StatusApi"
import { spawn } from "node:child_process"
import * as path from "node:path"
import * as readline from "node:readline"
import * as Inbound from "../examples/inbound-peer.ts"
import * as Layers from "../examples/layers.ts"
import * as Outbound from "../examples/outbound-peer.ts"
import * as ServerExample from "../examples/server.ts"
import { coinOf, mineBlock, mineChain, spend } from "effect-bitcoin-peer/testing/RegtestChain"
import { serveChain } from "effect-bitcoin-peer/testing/ServingPeer"
import { printing } from "./support/printing.ts"

const nonce = Layer.fresh(Nonce.layer)

/** A node on a free port, and its peer for the first connection. */
const serving = Effect.gen(function* () {
  const chain = yield* mineChain(104)
  const node = serveChain(chain)
  const connected = yield* Deferred.make<Peer.Peer>()
  const listener = yield* NodeConnection.listen({ port: 0 })
  yield* PeerServer.serve(listener, {
    peer: node.options,
    onPeer: (peer) => Effect.andThen(node.onPeer(peer), Deferred.succeed(connected, peer))
  }).pipe(Effect.provide(nonce), Effect.forkScoped)
  return { ...listener.address, chain, node, peer: Deferred.await(connected) }
})

const root = path.resolve(import.meta.dirname, "..")

/** Starts an example as a process; returns its lines, and its whole output after it has ended by itself. */
const start = (name: string, ...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const lines = yield* Queue.unbounded<string, Cause.Done>()
    const argv = ["--conditions=@effect-bitcoin-peer/source", `examples/${name}`, ...args]
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(process.execPath, argv, { cwd: root })),
      (child) => Effect.sync(() => void child.kill("SIGKILL"))
    )
    let printed = ""
    let problem = ""
    readline.createInterface(child.stdout).on("line", (line) => {
      printed += `${line}\n`
      Queue.offerUnsafe(lines, line)
    })
    child.stderr.setEncoding("utf8").on("data", (text: string) => (problem += text))
    const ended = yield* Deferred.make<string, Error>()
    child.once("close", (code) => {
      Queue.endUnsafe(lines)
      Deferred.doneUnsafe(
        ended,
        code === 0 ? Effect.succeed(printed) : Effect.fail(new Error(`exit code ${code}\n${printed}${problem}`))
      )
    })
    return { line: Queue.take(lines), ended: Deferred.await(ended) }
  })

const run = (name: string, ...args: ReadonlyArray<string>): Effect.Effect<string, Error, Scope.Scope> =>
  Effect.flatMap(start(name, ...args), ({ ended }) => ended)

describe("the outbound peer", () => {
  it.live("prints the node, announced transactions, each new block and the end", () =>
    Effect.gen(function* () {
      const { chain, host, node, peer, port } = yield* serving
      const { fiber, line } = yield* printing(Outbound.main(host, port))
      assert.match(yield* line, /^connected \{ userAgent: '\/effect-bitcoin-peer:.*\/', ping: '[\d.]+ ms' \}$/)
      yield* node.announceTransaction(spend(coinOf(chain.blocks[104].transactions.at(-1)!)))
      assert.strictEqual(yield* line, "transactions announced: 1")
      const block = mineBlock(chain, { timestamp: chain.blocks[104].header.timestamp + 1 })
      yield* node.announceBlock(block)
      assert.strictEqual(yield* line, `block ${Wire.hashToHex(Wire.blockHash(block.header))}, transactions: 1`)
      yield* (yield* peer).disconnect()
      assert.strictEqual(yield* line, "the peer closed the connection")
      yield* Fiber.join(fiber)
    })
  )

  it.live("runs as a process and ends with its peer", () =>
    Effect.gen(function* () {
      const { host, peer, port } = yield* serving
      const { ended, line } = yield* start("outbound-peer.ts", host, String(port))
      // The ping was answered by the node.
      assert.match(yield* line, /^connected /)
      yield* (yield* peer).disconnect()
      assert.match(yield* ended, /\nthe peer closed the connection\n$/)
    })
  )
})

describe("the inbound peer", () => {
  it.live("prints each peer, its transactions and its end, and accepts more peers", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const { fiber, line } = yield* printing(Effect.provide(Inbound.serve(listener), nonce))
      const chain = yield* mineChain(104)
      const transaction = spend(coinOf(chain.blocks[104].transactions.at(-1)!))
      for (const _ of ["first", "second"]) {
        yield* Effect.gen(function* () {
          const node = serveChain(chain)
          const connection = yield* NodeConnection.connect(listener.address)
          const peer = yield* Peer.make(connection, { ...node.options, requiredServices: [] })
          yield* node.onPeer(peer).pipe(Effect.forkScoped)
          assert.match(yield* line, /^127\.0\.0\.1:\d+ connected \{ userAgent: '.*' \}$/)
          yield* node.announceTransaction(transaction)
          assert.strictEqual(yield* line, `transaction ${Wire.hashToHex(Wire.txid(transaction))}, outputs: 1`)
        }).pipe(Effect.scoped, Effect.provide(nonce))
        assert.match(yield* line, /^127\.0\.0\.1:\d+ disconnected: the peer closed the connection$/)
      }
      assert.isUndefined(fiber.pollUnsafe())
    })
  )

  it.live("prints why a connection was refused, and accepts more", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const { fiber, line } = yield* printing(Effect.provide(Inbound.serve(listener), nonce))
      const connection = yield* NodeConnection.connect(listener.address)
      // These bytes could be a BIP324 key until the connection ends.
      connection.write(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"))
      yield* connection.close
      assert.match(yield* line, /^127\.0\.0\.1:\d+ refused: handshake failed: not a Bitcoin node of regtest/)
      assert.isUndefined(fiber.pollUnsafe())
    })
  )

  it.live("listens on the given port", () =>
    Effect.gen(function* () {
      const { line } = yield* printing(Inbound.main(0))
      assert.match(yield* line, /^listening on 127\.0\.0\.1:\d+$/)
    })
  )
})

describe("the service built from layers", () => {
  it.live("fetches headers", () =>
    Effect.gen(function* () {
      const { chain, host, port } = yield* serving
      const { fiber, line } = yield* printing(Effect.provide(Layers.program, Layers.layer(host, port)))
      assert.strictEqual(yield* line, "104 headers")
      const headers = yield* Fiber.join(fiber)
      assert.deepStrictEqual(
        headers,
        chain.blocks.slice(1).map(({ header }) => header)
      )
    })
  )

  it.live("runs as a process", () =>
    Effect.gen(function* () {
      const { host, port } = yield* serving
      assert.strictEqual(yield* run("layers.ts", host, String(port)), "104 headers\n")
    })
  )
})

describe("the server", () => {
  const told = /^connected to 8 nodes; the status: btcpeer net --url (http:\/\/127\.0\.0\.1:\d+)$/

  it.live("keeps eight peers, and serves its status", () =>
    Effect.gen(function* () {
      const { fiber, line } = yield* printing(ServerExample.main(0))
      const [, baseUrl = ""] = told.exec(yield* line) ?? []
      const client = yield* HttpApiClient.make(StatusApi.api, { baseUrl })
      const peers = yield* client.peers()
      assert.strictEqual(peers.length, 8)
      for (const peer of peers) assert.deepInclude(peer, { network: "ipv4", connection_type: "manual" })
      assert.strictEqual((yield* client.network()).connections_out, 8)
      assert.match(yield* client.metrics(), /^dial_total\{kind="manual",result="Connected"\} 8$/m)
      yield* Fiber.interrupt(fiber)
    }).pipe(Effect.provide(FetchHttpClient.layer))
  )

  it.live("runs as a process, and btcpeer net shows its peers", () =>
    Effect.gen(function* () {
      const { line } = yield* start("server.ts", "0")
      const [, url = ""] = told.exec(yield* line) ?? []
      const shown = yield* run("../packages/btcpeer/src/main.ts", "net", "--url", url)
      assert.match(shown, /^btcpeer client v[\d.]+ - server 70017\/effect-bitcoin-peer:/)
      assert.strictEqual(shown.match(/^out manual {2}ipv4 /gm)?.length, 8)
      assert.match(shown, /^out +8 +8 +0 +8$/m)
    })
  )
})

describe("the example of virtual time", () => {
  it.live("runs as a process", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* run("virtual-time.ts"), "{ roundTrip: 100, pings: 31 }\n")
    })
  )
})
