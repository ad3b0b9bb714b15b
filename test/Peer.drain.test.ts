/** The time between the end of the connection and the end of the peer: messages that arrived before are still handled. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Nonce } from "effect-bitcoin-peer"
import { filler, fork, withRemote } from "./support/peers.ts"

describe("a peer whose remote closes while a slow handler runs", () => {
  it.effect("handles the messages that arrived before, though the ping and idle timeouts pass", () =>
    Effect.gen(function* () {
      let handled = 0
      const { peer, remote } = yield* withRemote({
        idleTimeout: "7 seconds",
        pingTimeout: "5 seconds",
        handlers: { getaddr: () => Effect.sleep("50 seconds"), Unknown: () => void handled++ }
      })
      // The reader reads on while a caller waits for an answer.
      yield* fork(Effect.exit(peer.ping))
      yield* remote.send({ _tag: "getaddr" }, filler(1))
      yield* remote.connection.close
      const ending = yield* fork(peer.awaitShutdown)
      yield* TestClock.adjust("49 seconds")
      assert.isUndefined(ending.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(ending))._tag, "RemoteClosed")
      assert.strictEqual(handled, 1)
    }).pipe(Effect.provide(Nonce.layer))
  )
})
