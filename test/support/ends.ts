/** Assertions for the end of a peer: all fibers end, the connection is closed, every waiting caller gets an answer. */
import { assert } from "@effect/vitest"
import { Effect, Fiber, Scope } from "effect"
import { Peer, Wire } from "effect-bitcoin-peer"
import { fork, verack, withRemote } from "./peers.ts"

export type Session = Effect.Success<ReturnType<typeof withRemote>>

export const block = (size: number): Wire.Message => ({
  _tag: "Unknown",
  command: "filler",
  payload: new Uint8Array(size)
})

/** Two callers of awaitShutdown, and two of sendAndWait with messages larger than the in-memory window. */
export const waiters = Effect.fnUntraced(function* (peer: Peer.Peer, sending: ReadonlyArray<number> = [1, 2]) {
  const sends = yield* Effect.forEach(sending, () => fork(peer.sendAndWait(block(200_000))))
  const shutdowns = yield* Effect.forEach([1, 2], () => fork(peer.awaitShutdown))
  return { sends, shutdowns }
})

/** Asserts that nothing of the peer is left and that all waiting callers got the same reason. */
export const assertOver = Effect.fnUntraced(function* (
  { peer, tracker }: Pick<Session, "peer" | "tracker">,
  { sends, shutdowns }: Effect.Success<ReturnType<typeof waiters>>
) {
  const reason = yield* peer.awaitShutdown
  for (const fiber of shutdowns) assert.strictEqual(yield* Fiber.join(fiber), reason)
  for (const fiber of sends) {
    const error = yield* Effect.flip(Fiber.join(fiber))
    assert.deepStrictEqual(error.reason, { _tag: "Ended", end: reason })
  }
  assert.deepStrictEqual((yield* Effect.flip(peer.send(verack))).reason, { _tag: "Ended", end: reason })
  assert.deepStrictEqual((yield* Effect.flip(peer.sendAndWait(verack))).reason, { _tag: "Ended", end: reason })
  assert.deepStrictEqual((yield* Effect.flip(peer.ping)).reason, { _tag: "Ended", end: reason })
  assert.strictEqual(tracker.waiting(), 0, "a fiber of the peer is still waiting")
  const pull = yield* Effect.flip(tracker.connection.pull)
  assert.strictEqual(pull._tag, "ConnectionError", "the connection is still open")
  assert.strictEqual((peer.scope as Scope.Closeable).state._tag, "Closed")
  return reason
})
