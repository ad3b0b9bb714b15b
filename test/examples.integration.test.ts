/** The examples over real sockets on loopback, in this process and as processes of their own. */
import { assert, describe, it } from "@effect/vitest"
import { type Cause, Console, Deferred, Effect, Fiber, Layer, Queue, type Scope } from "effect"
import { Network, Nonce, Peer } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import { spawn } from "node:child_process"
import * as path from "node:path"
import * as readline from "node:readline"
import { format } from "node:util"
import * as Inbound from "../examples/inbound-peer.ts"
import * as Layers from "../examples/layers.ts"
import * as Outbound from "../examples/outbound-peer.ts"
import { coinOf, mineChain, spend } from "../examples/regtest-chain.ts"
import { serveChain } from "../examples/serving-peer.ts"

const nonce = Layer.fresh(Nonce.layer)

/** A node on a free port, and the peer that it makes of the first who connects. */
const serving = Effect.gen(function* () {
  const chain = yield* mineChain(104)
  const node = serveChain(chain)
  const connected = yield* Deferred.make<Peer.Peer["Service"]>()
  const listener = yield* NodeConnection.listen({ port: 0 })
  yield* Peer.serve(listener, {
    peer: node.options,
    onPeer: (peer) => Effect.andThen(node.onPeer(peer), Deferred.succeed(connected, peer))
  }).pipe(Effect.provide(nonce), Effect.forkScoped)
  return { ...listener.address, chain, node, peer: Deferred.await(connected) }
})

/** Runs an effect that prints to a queue. */
const printing = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  const lines = yield* Queue.unbounded<string>()
  const current = yield* Console.Console
  const printer = {
    ...current,
    log: (...texts: ReadonlyArray<unknown>) => void Queue.offerUnsafe(lines, format(...texts))
  }
  const fiber = yield* Effect.provideService(effect, Console.Console, printer).pipe(Effect.forkScoped)
  return { fiber, line: Queue.take(lines) }
})

const root = path.resolve(import.meta.dirname, "..")

/** An example as a process of its own: what it prints, line by line, and all of it once it has ended by itself. */
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
  it.live("tells who it met, what was announced and how it ended", () =>
    Effect.gen(function* () {
      const { chain, host, node, peer, port } = yield* serving
      const { fiber, line } = yield* printing(Outbound.main(host, port))
      assert.match(yield* line, /^connected \{ userAgent: '\/effect-bitcoin-peer:.*\/', ping: '[\d.]+ ms' \}$/)
      yield* node.announceTransaction(spend(coinOf(chain.blocks[104].transactions.at(-1)!)))
      assert.strictEqual(yield* line, "1 announced")
      yield* (yield* peer).disconnect()
      assert.strictEqual(yield* line, "the peer closed the connection")
      yield* Fiber.join(fiber)
    })
  )

  it.live("runs as a process and ends with its peer", () =>
    Effect.gen(function* () {
      const { host, peer, port } = yield* serving
      const { ended, line } = yield* start("outbound-peer.ts", host, String(port))
      // Its own ping was answered.
      assert.match(yield* line, /^connected /)
      yield* (yield* peer).disconnect()
      assert.match(yield* ended, /\nthe peer closed the connection\n$/)
    })
  )
})

describe("the inbound peer", () => {
  it.live("tells who came, shows transactions, tells who left, and goes on", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const { fiber, line } = yield* printing(Effect.provide(Inbound.serve(listener), nonce))
      const { blocks } = yield* mineChain(104)
      const transaction = blocks[104].transactions.at(-1)!
      for (const _ of ["once", "again"]) {
        yield* Effect.gen(function* () {
          const connection = yield* NodeConnection.connect(listener.address)
          const peer = yield* Peer.make(connection, { network: Network.regtest, requiredServices: [] })
          assert.match(yield* line, /^127\.0\.0\.1:\d+ came \{ userAgent: '\/effect-bitcoin-peer:.*\/' \}$/)
          yield* peer.send({ _tag: "tx", transaction })
          assert.match(yield* line, /^\{\s+version: 2,\s+inputs: \[/)
        }).pipe(Effect.scoped, Effect.provide(nonce))
        assert.match(yield* line, /^127\.0\.0\.1:\d+ is gone: the peer closed the connection$/)
      }
      assert.isUndefined(fiber.pollUnsafe())
    })
  )

  it.live("tells what came that is no peer, and goes on", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const { fiber, line } = yield* printing(Effect.provide(Inbound.serve(listener), nonce))
      const connection = yield* NodeConnection.connect(listener.address)
      // It might be a key, until it ends.
      connection.write(new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"))
      yield* connection.close
      assert.match(yield* line, /^127\.0\.0\.1:\d+ is no peer: handshake failed: not a Bitcoin node of regtest/)
      assert.isUndefined(fiber.pollUnsafe())
    })
  )

  it.live("listens on the port that it is given", () =>
    Effect.gen(function* () {
      const { line } = yield* printing(Inbound.main(0))
      assert.match(yield* line, /^listening on 127\.0\.0\.1:\d+$/)
    })
  )
})

describe("the service made of layers", () => {
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

describe("the example of virtual time", () => {
  it.live("runs as a process, and an hour takes no time", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* run("virtual-time.ts"), "{ roundTrip: 100, pings: 31 }\n")
    })
  )
})
