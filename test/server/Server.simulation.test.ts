/** Servers in a simulated network: they find each other, and keep their connections. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { Simulation } from "effect-bitcoin-peer/testing"
import { serverOn, textOf } from "../support/simulatedServers.ts"

describe("servers in a simulated network", () => {
  it.effect("find each other from one seed", () =>
    Effect.gen(function* () {
      const count = 40
      yield* TestClock.setTime(1_780_000_000_000)
    const network = yield* Simulation.make({ seed: 1, traceBytes: false })
      const hosts = yield* Effect.forEach(Array.from({ length: count }), () => network.host())
      const servers = yield* Effect.forEach(hosts, (host, i) =>
        Effect.andThen(TestClock.adjust("10 seconds"), serverOn(host, i, { seedNodes: i === 0 ? [] : [textOf(hosts[0]!)], external: [textOf(host)], feelers: false }))
      )
      for (let minute = 0; minute < 30; minute++) {
        yield* TestClock.adjust("1 minute")
        const sizes = servers.map(({ book }) => book.size)
        const outbound = yield* Effect.forEach(servers, (server) =>
          Effect.map(server.peers, (peers) => peers.filter(({ kind }) => kind !== "inbound").length)
        )
        console.log(
          minute,
          "books",
          Math.min(...sizes),
          Math.max(...sizes),
          "outbound",
          Math.min(...outbound),
          Math.max(...outbound)
        )
      }
    })
  )
})
