/** Random schedules in virtual time: 500 seeds, and seeds that found a bug. Peer.simulation.long.test.ts runs more. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Connection, Nonce, Wire } from "effect-bitcoin-peer"
import { withRemote, withSleep } from "./support/peers.ts"
import { testSchedules } from "./support/schedules.ts"
import { numbered } from "./support/simulation.ts"

testSchedules({ from: 0, to: 500 })

describe("bugs found by these schedules", () => {
  it.effect("seed 106: a write after the remote has closed does not lose messages that the remote sent before", () =>
    Effect.gen(function* () {
      const handled: Array<number> = []
      const { peer, remote } = yield* withRemote({
        handlers: {
          Unknown: ({ payload }) =>
            Effect.andThen(
              Effect.sleep(1),
              Effect.sync(() => void handled.push(payload[3]!))
            )
        }
      })
      yield* remote.send(numbered(1, 0), numbered(2, 0))
      yield* remote.send(numbered(3, 0))
      yield* remote.connection.close
      // The handler of the first message is still running.
      yield* Effect.exit(peer.send(numbered(4, 0)))
      const ending = yield* Effect.forkChild(peer.awaitShutdown, { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(ending), { _tag: "RemoteClosed" })
      assert.deepStrictEqual(handled, [1, 2, 3])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("seed 2231: a delayed in-memory pair does not spin when two deliveries are a rounding error apart", () =>
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      let sleeps = 0
      // Without this bound a spinning pair would hang the test.
      const counting = withSleep(clock, (duration) => (++sleeps > 1_000 ? Effect.never : clock.sleep(duration)))
      const [first, second] = yield* Effect.provideService(Connection.makePair({ delay: 100 }), Clock.Clock, counting)
      yield* TestClock.adjust(7.213)
      first.write(Uint8Array.of(1))
      yield* TestClock.adjust(49.344)
      first.write(Uint8Array.of(2))
      yield* TestClock.adjust(200)
      assert.isBelow(sleeps, 10)
      const chunks = yield* second.pull
      assert.deepStrictEqual(Buffer.concat(chunks), Buffer.of(1, 2))
    })
  )

  /** A peer whose remote has closed while a handler of an earlier message runs for another minute. */
  const closing = Effect.gen(function* () {
    const session = yield* withRemote({
      trickle: { _tag: "Fixed", interval: 100 },
      handlers: { Unknown: () => Effect.sleep("1 minute") }
    })
    yield* session.remote.send(numbered(1, 0))
    yield* TestClock.adjust("1 millis")
    yield* session.remote.connection.close
    const shutdown = yield* Effect.forkChild(session.peer.awaitShutdown, { startImmediately: true })
    return { ...session, shutdown }
  })

  it.effect("seed 55: a send that fails with Ended has the same reason as awaitShutdown", () =>
    Effect.gen(function* () {
      const { peer, shutdown } = yield* closing
      yield* TestClock.adjust("1 second")
      const error = yield* Effect.flip(peer.sendAndWait(numbered(2, 0)))
      yield* peer.disconnect("while the last handler runs")
      yield* TestClock.adjust("2 minutes")
      const end = yield* Fiber.join(shutdown)
      assert.deepStrictEqual(error.reason, { _tag: "Ended", end })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("seed 457: announcements that wait when the remote closes cause no defect", () =>
    Effect.gen(function* () {
      const { peer, shutdown } = yield* closing
      // The first announcement is sent and detects that writing fails; the second one waits.
      for (const number of [1, 2]) {
        const hash = new Uint8Array(32).fill(number)
        yield* Effect.exit(peer.announce([{ type: Wire.InventoryType.tx, hash }]))
        yield* TestClock.adjust("1 second")
      }
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* Fiber.join(shutdown), { _tag: "RemoteClosed" })
    }).pipe(Effect.provide(Nonce.layer))
  )
})
