/** Two hundred servers in one simulated network. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Simulation, VirtualClock } from "effect-bitcoin-peer/testing"
import { serverOn, textOf } from "../support/simulatedServers.ts"

const time = 1_780_000_000_000

describe("two hundred servers", () => {
  it.live("find each other from one seed, and again after a cut through the middle", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(time)
      const network = yield* Simulation.make({ seed: 200, traceBytes: false })
      const hosts = yield* Effect.forEach(Array.from({ length: 200 }), () => network.host())
      const servers = yield* Effect.forEach(hosts, (host, i) =>
        Effect.andThen(
          TestClock.adjust("1 second"),
          serverOn(host, i, {
            seedNodes: i === 0 ? [] : [textOf(hosts[0]!)],
            external: [textOf(host)],
            feelers: false,
            // Half of them may want transactions: the seed takes all.
            maxInbound: 400
          })
        )
      )
      const least = Effect.map(
        Effect.forEach(servers, (server) =>
          Effect.map(server.peers, (peers) => peers.filter(({ kind }) => kind !== "inbound").length)
        ),
        (counts) => Math.min(...counts)
      )
      yield* TestClock.adjust("10 minutes")
      assert.isAtLeast(yield* least, 10)

      const heal = yield* network.cut(hosts.slice(0, 100), hosts.slice(100))
      yield* TestClock.adjust("30 minutes")
      assert.isAtLeast(yield* least, 10, "each half goes on by itself")
      yield* heal
      yield* TestClock.adjust("5 minutes")
      assert.isAtLeast(yield* least, 10)
    }).pipe(Effect.scoped, Effect.provide(VirtualClock.layer))
  )
})
