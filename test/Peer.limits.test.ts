/** Messages above a limit end a peer only if they can be read completely, as in Core (interop/limits.test.ts compares). */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Nonce, Wire } from "effect-bitcoin-peer"
import { limits, tooManyHeaders } from "./support/limits.ts"
import { withRemote } from "./support/peers.ts"

/** The end of a peer that receives a message and a ping; `undefined` if it answers the ping. */
const endOf = Effect.fnUntraced(function* (command: string, payload: Uint8Array) {
  const { peer, remote } = yield* withRemote({ services: Wire.Service.bloom })
  yield* remote.send({ _tag: "Unknown", command, payload }, { _tag: "ping", nonce: 77n })
  const pong = Effect.as(remote.receiveUntil("pong"), undefined)
  return yield* Effect.raceFirst(
    peer.awaitShutdown,
    Effect.orElseSucceed(pong, () => undefined)
  )
})

describe("a message above a limit", () => {
  for (const { command, cut, field, reason, whole } of limits) {
    it.effect(
      `${command} ${field}: ${whole.ends ? "ends the peer" : "is dropped"} if complete, is dropped if cut off`,
      () =>
        Effect.gen(function* () {
          const end = yield* endOf(command, whole.payload)
          if (!whole.ends) assert.isUndefined(end)
          else {
            assert(end?._tag === "BadMessage")
            assert.strictEqual(end.error.reason._tag, reason)
          }
          for (const payload of cut) assert.isUndefined(yield* endOf(command, payload))
        }).pipe(Effect.provide(Nonce.layer))
    )
  }

  it.effect("headers: ends the peer by its count alone", () =>
    Effect.gen(function* () {
      for (const payload of [tooManyHeaders.payload, ...tooManyHeaders.cut]) {
        assert.strictEqual((yield* endOf("headers", payload))?._tag, "BadMessage")
      }
    }).pipe(Effect.provide(Nonce.layer))
  )
})

describe("sendtxrcncl after verack", () => {
  it.effect("does not end the peer, complete or cut off: this side does not offer reconciliation", () =>
    Effect.gen(function* () {
      for (const size of [12, 3, 0]) assert.isUndefined(yield* endOf("sendtxrcncl", new Uint8Array(size)))
    }).pipe(Effect.provide(Nonce.layer))
  )
})
