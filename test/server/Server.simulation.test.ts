/** Servers in a simulated network: they find each other, and keep their connections. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Server } from "effect-bitcoin-peer/server"
import { Simulation } from "effect-bitcoin-peer/testing"
import { serverOn, textOf } from "../support/simulatedServers.ts"

const outboundOf = (servers: ReadonlyArray<Server.Server>) =>
  Effect.forEach(servers, (server) =>
    Effect.map(server.peers, (peers) => peers.filter(({ kind }) => kind !== "inbound").length)
  )

describe("servers in a simulated network", () => {
  it.effect("find each other from one seed", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(1_780_000_000_000)
      const network = yield* Simulation.make({ seed: 1, traceBytes: false })
      const hosts = yield* Effect.forEach(Array.from({ length: 40 }), () => network.host())
      const servers = yield* Effect.forEach(hosts, (host, i) =>
        Effect.andThen(
          TestClock.adjust("2 seconds"),
          serverOn(host, i, {
            seedNodes: i === 0 ? [] : [textOf(hosts[0]!)],
            external: [textOf(host)],
            feelers: false
          })
        )
      )
      yield* TestClock.adjust("7 minutes")
      assert.strictEqual(Math.min(...(yield* outboundOf(servers))), 10)
    })
  )
})
