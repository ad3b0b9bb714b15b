/**
 * Two peers in memory under a clock that moves only when the test says so. A test over hours takes milliseconds and has the
 * same result each time. After `npm run build`: `npx node examples/virtual-time.ts`
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Duration, Effect, Fiber, Layer } from "effect"
import { Connection, Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { TestClock } from "effect/testing"

const options = { network: Network.regtest, services: Wire.Service.network | Wire.Service.witness }
// Each node needs its own: peers that share a Nonce are one node, and refuse a connection to themselves.
const nonce = Layer.fresh(Nonce.layer)

export const program = Effect.gen(function* () {
  // Bytes travel for 50 ms in each direction.
  const [ours, theirs] = yield* Connection.makePair({ delay: "50 millis" })
  const making = yield* Effect.all(
    [
      Effect.provide(Peer.make(ours, options), nonce),
      Effect.provide(Peer.make(theirs, { ...options, direction: "inbound" }), nonce)
    ],
    { concurrency: 2 }
  ).pipe(Effect.forkChild)
  yield* TestClock.adjust("200 millis")
  const [peer] = yield* Fiber.join(making)

  const pinging = yield* Effect.forkChild(peer.ping)
  yield* TestClock.adjust("100 millis")
  const roundTrip = yield* Fiber.join(pinging)

  // Every two minutes the peer pings by itself.
  yield* TestClock.adjust("1 hour")
  const { sent } = yield* peer.stats
  return { roundTrip: Duration.toMillis(roundTrip), pings: sent["ping"]?.messages }
}).pipe(Effect.scoped, Effect.provide(TestClock.layer()))

if (import.meta.main) NodeRuntime.runMain(Effect.flatMap(program, Console.log))
