/** A small server under very many visitors. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Network, Peer } from "effect-bitcoin-peer"
import type { Server } from "effect-bitcoin-peer/server"
import { Simulation, VirtualClock } from "effect-bitcoin-peer/testing"
import { serverOn } from "../support/simulatedServers.ts"

describe("a server with 20 inbound slots", () => {
  it.live("stays within them under 1,000 visitors, who come 50 in a second and try again for ever", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(1_780_000_000_000)
      const network = yield* Simulation.make({ seed: 4, traceBytes: false, link: { latency: 20 } })
      const home = yield* network.host()
      const server = yield* serverOn(home, 1, { maxInbound: 20 })
      const events: Array<Server.ServerEvent> = []
      yield* Effect.forkScoped(Stream.runForEach(server.events, (event) => Effect.sync(() => void events.push(event))))
      let most = 0
      for (let i = 0; i < 1_000; i++) {
        const visitor = yield* network.host()
        const visit = Peer.dial(visitor.dial(home.addresses[0]), {
          network: Network.mainnet,
          transport: "v1",
          relay: i % 2 === 0
        }).pipe(
          Effect.flatMap((peer) => peer.awaitShutdown),
          Effect.ignore,
          Effect.scoped,
          Effect.andThen(Effect.sleep("20 seconds")),
          Effect.forever
        )
        yield* Effect.forkScoped(Effect.provide(visit, visitor.layer))
        if (i % 50 === 49) {
          yield* TestClock.adjust("1 second")
          most = Math.max(most, (yield* server.peers).length)
        }
      }
      yield* TestClock.adjust("2 minutes")
      const peers = yield* server.peers
      assert.isAtMost(most, 20)
      assert.isAtLeast(peers.length, 15)
      assert.isAtMost(peers.length, 20)
      assert.isAtMost(peers.filter(({ peer }) => peer.info.relay).length, 10)
      // Of so few peers each is protected, as in Core.
      assert.isFalse(events.some((event) => event._tag === "Evicted" && event.by !== undefined))
      assert.isTrue(events.some(({ _tag }) => _tag === "Refused"))
    }).pipe(Effect.scoped, Effect.provide(VirtualClock.layer))
  )
})
