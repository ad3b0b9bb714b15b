/** `btcpeer connect` while it waits: its lines, its time-out, and the flag that it advises. Over TCP on 127.0.0.1. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Connection } from "effect-bitcoin-peer/Connection"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import * as Network from "effect-bitcoin-peer/Network"
import * as Nonce from "effect-bitcoin-peer/Nonce"
import * as Peer from "effect-bitcoin-peer/Peer"
import * as Policy from "effect-bitcoin-peer/Policy"
import type { Transport } from "effect-bitcoin-peer/Transport"
import { connect } from "../src/connect.ts"
import { makeMemory } from "../src/output.ts"
import { names, parseServices } from "../src/services.ts"

interface Given {
  readonly port: number
  readonly transport?: Transport
  readonly timeout?: Duration.Input
  readonly services?: bigint
}

/** Runs the command to a port. Returns what it told, how it failed, and how many milliseconds that took. */
const connecting = Effect.fnUntraced(function* ({ port, services, timeout = "10 seconds", transport = "auto" }: Given) {
  const memory = makeMemory()
  const [took, failure] = yield* connect(
    { host: "127.0.0.1", port },
    { _tag: "Direct" },
    {
      network: Network.regtest,
      policy: Policy.core,
      transport,
      userAgent: undefined,
      timeout: Duration.fromInputUnsafe(timeout),
      limit: Duration.millis(1),
      format: "text"
    },
    services
  ).pipe(
    Effect.match({ onSuccess: () => "", onFailure: ({ message }) => message }),
    Effect.timed,
    Effect.provide([memory.layer, Nonce.layer])
  )
  return { told: memory.errors, failure, took: Duration.toMillis(took) }
})

/** Gives each connection to `handle`. A connection is open until the test ends, or until `handle` closes it. */
const serve = Effect.fnUntraced(function* <E, R>(
  handle: (connection: Connection) => Effect.Effect<unknown, E, R>,
  port = 0
) {
  const listener = yield* NodeConnection.listen({ host: "127.0.0.1", port })
  let connections = 0
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.gen(function* () {
        const connection = yield* listener.accept
        connections++
        yield* Effect.forkScoped(Effect.ignore(handle(connection)))
      })
    )
  )
  return { port: listener.address.port, connections: () => connections }
})

const transports: ReadonlyArray<Transport> = ["v1", "v2", "auto"]

/** Its default port is one on which a test may listen. */
const other = Network.simnet

/** A node of another network. Like Bitcoin Core, it closes a connection with another magic without sending anything. */
const otherNode = (connection: Connection) =>
  Effect.andThen(Peer.make(connection, { network: other, direction: "inbound", transport: "auto" }), Effect.never).pipe(
    Effect.provide(Nonce.layer)
  )

describe("btcpeer connect", () => {
  it.live("reports its state while it waits, and ends after --timeout, which counts for both tries", () =>
    Effect.gen(function* () {
      const { connections, port } = yield* serve(() => Effect.never)
      const { failure, took, told } = yield* connecting({ port, timeout: "5 seconds" })
      const address = `127.0.0.1:${port}`
      const waiting = `btcpeer: connected to ${address}, waiting for its handshake`
      assert.deepStrictEqual(told, [waiting, `${waiting}, in version 1`])
      assert.strictEqual(connections(), 2)
      assert.match(failure, /no version message within 5s/)
      // Each try with a time-out of its own would take 2.5 s and 5 s.
      assert.isBelow(took, 7_000)
      assert.isAtLeast(took, 4_900)
    })
  )

  it.live.each(["v1", "v2"] as const)("ends after --timeout in %s", (transport) =>
    Effect.gen(function* () {
      const { connections, port } = yield* serve(() => Effect.never)
      const { failure, told } = yield* connecting({ port, transport, timeout: "300 millis" })
      assert.deepStrictEqual(told, [], "a short wait is not reported")
      assert.strictEqual(connections(), 1)
      assert.include(failure, "within 300ms")
    })
  )

  it.live.each(transports)("names the network of a node on another one, by its bytes or its port, in %s", (transport) =>
    Effect.gen(function* () {
      const { port } = yield* serve(otherNode, other.port)
      const { failure } = yield* connecting({ port, transport })
      assert.match(failure, /simnet(?:.*\? Use|, not on regtest: use) --network simnet$/)
    })
  )

  it.live.each(["v2", "auto"] as const)("names the network of a node on any port in %s", (transport) =>
    Effect.gen(function* () {
      const { port } = yield* serve(otherNode)
      const { failure } = yield* connecting({ port, transport })
      assert.strictEqual(failure, "handshake failed: the peer is on simnet, not on regtest: use --network simnet")
    })
  )

  it.live("advises the network of the port while it waits", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(() => Effect.never, other.port)
      const { failure, told } = yield* connecting({ port, transport: "v1", timeout: "2500 millis" })
      assert.deepStrictEqual(told, [
        `btcpeer: connected to 127.0.0.1:${port}, waiting for its handshake (the port is that of simnet: is --network simnet missing?)`
      ])
      assert.match(failure, /no version message within 2s 500ms; is it on simnet.*\? Use --network simnet$/)
    })
  )

  it.live("begins with version 1 if --services lack P2P_V2", () =>
    Effect.gen(function* () {
      let first: Uint8Array | undefined
      const { connections, port } = yield* serve((connection) =>
        Effect.tap(connection.pull, (chunks) => Effect.sync(() => void (first = chunks[0])))
      )
      yield* connecting({ port, timeout: "300 millis", services: parseServices("NETWORK,WITNESS") })
      assert.strictEqual(connections(), 1)
      assert.deepStrictEqual(first?.slice(0, 4), Network.regtest.magic)
    })
  )
})

describe("parseServices", () => {
  it("takes names between commas, and the bits as a number", () => {
    assert.deepStrictEqual(names, ["NETWORK", "BLOOM", "WITNESS", "COMPACT_FILTERS", "NETWORK_LIMITED", "P2P_V2"])
    for (const text of ["NETWORK,WITNESS,NETWORK_LIMITED", "network, witness, network_limited", "1033", "0x409"]) {
      assert.strictEqual(parseServices(text), 1033n)
    }
    assert.strictEqual(parseServices("0"), 0n)
    assert.strictEqual(parseServices(`${2n ** 64n - 1n}`), 2n ** 64n - 1n)
    for (const text of ["", "NETWORK,", "MEMPOOL", "-1", "1.5", "0x", `${2n ** 64n}`]) {
      assert.throws(() => parseServices(text), Error)
    }
  })
})
