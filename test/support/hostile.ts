/** What the tests of hostile remotes need: raw frames, a peer in its handshake, and a look at the memory that is used. */
import * as v8 from "node:v8"
import * as vm from "node:vm"
import { assert } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Connection, type Handshake, Peer, Wire } from "effect-bitcoin-peer"
import { network, scripted, tracked, withRemote } from "./peers.ts"

v8.setFlagsFromString("--expose-gc")
const collect: unknown = vm.runInNewContext("gc")

/** Bytes in use, in buffers and on the heap, after what is garbage was collected. */
export const memory = (): number => {
  if (typeof collect === "function") for (let turn = 0; turn < 3; turn++) collect()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return arrayBuffers + heapUsed
}

export const MiB = 1 << 20

/** A turn of the event loop, which is real under any clock. */
const turn = Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))

/** No more is in use than `before` and `limit`: looked at again if so, for what finalizers and the compiler let go. */
export const assertKept = Effect.fnUntraced(function* (before: number, limit: number, what?: string) {
  let kept = memory() - before
  for (let again = 0; again < 5 && kept > limit; again++) {
    yield* turn
    kept = Math.min(kept, memory() - before)
  }
  assert.isAtMost(kept, limit, what ?? `${kept} bytes are kept`)
})

/** The memory that is kept while `effect` runs and after it, beyond what was in use before. */
export const assertKeeps = Effect.fnUntraced(function* <A, E, R>(limit: number, effect: Effect.Effect<A, E, R>) {
  const before = memory()
  const result = yield* effect
  yield* assertKept(before, limit)
  return result
})

/** The header of a frame, with whatever length and checksum. */
export const header = (command: string, length: number, checksum = 0): Uint8Array => {
  const bytes = new Uint8Array(24)
  bytes.set(network.magic)
  bytes.set(new TextEncoder().encode(command).subarray(0, 12), 4)
  const view = new DataView(bytes.buffer)
  view.setUint32(16, length, true)
  view.setUint32(20, checksum, true)
  return bytes
}

export const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

export type Session = Effect.Success<ReturnType<typeof withRemote>>

/** A connected peer and its remote; `ending` is the fiber that waits for the end. */
export const connected = Effect.fnUntraced(function* <H extends Peer.Handlers<unknown> = Peer.Handlers>(
  options: Peer.Options<H> = {},
  pairOptions: Connection.PairOptions = {}
) {
  const session = yield* withRemote(options, {}, pairOptions)
  return { ...session, ending: yield* fork(session.peer.awaitShutdown) }
})

/** A peer whose handshake has begun. */
export const begun = Effect.fnUntraced(function* (
  options: Peer.Options = {},
  pairOptions: Connection.PairOptions = {}
) {
  const pair = yield* Connection.makePair(pairOptions)
  const remote = scripted(pair[1])
  const tracker = tracked(pair[0])
  const making = yield* fork(Effect.scoped(tracker.clock(Peer.make(tracker.connection, { network, ...options }))))
  return { pair, remote, tracker, making }
})

/** Why a handshake failed; nothing of it is left. */
export const refusal = Effect.fnUntraced(function* ({ making, tracker }: Effect.Success<ReturnType<typeof begun>>) {
  const error: Handshake.HandshakeError = yield* Effect.flip(Fiber.join(making))
  assert.strictEqual(tracker.waiting(), 0, "a fiber of the peer still waits")
  assert.strictEqual((yield* Effect.flip(tracker.connection.pull))._tag, "ConnectionError", "the connection is open")
  return error.reason
})

/** Why a peer ended; nothing of it is left. */
export const endOf = Effect.fnUntraced(function* ({ ending, tracker }: Effect.Success<ReturnType<typeof connected>>) {
  const reason = yield* Fiber.join(ending)
  assert.strictEqual(tracker.waiting(), 0, "a fiber of the peer still waits")
  assert.strictEqual((yield* Effect.flip(tracker.connection.pull))._tag, "ConnectionError", "the connection is open")
  return reason
})

/** Sends bytes again and again, as fast as the peer takes them. */
export const flood = Effect.fnUntraced(function* (remote: Session["remote"], bytes: Uint8Array, times: number) {
  for (let time = 0; time < times; time++) {
    yield* remote.sendBytes(bytes)
    yield* remote.connection.drained
  }
})

/** The peer is as lively as ever: a ping is answered, and what it keeps of the remote is bounded. */
export const assertUnharmed = Effect.fnUntraced(function* ({
  ending,
  peer,
  remote
}: Effect.Success<ReturnType<typeof connected>>) {
  yield* remote.send({ _tag: "ping", nonce: 4242n })
  while (true) {
    const message = yield* remote.receive
    if (message._tag === "pong" && message.nonce === 4242n) break
  }
  assert.isUndefined(ending.pollUnsafe(), "the peer has ended")
  const stats = yield* peer.stats
  assert.isAtMost(stats.queuedBytes, 100)
  assert.isAtMost(stats.knownInventory, 1_000)
  assert.isAtMost(stats.waitingAnnouncements, 0)
  assert.isAtMost(Object.keys(stats.received).length, 40)
  return stats
})

/** Messages as bytes. */
export const frames = (messages: ReadonlyArray<Wire.Message>): Uint8Array => {
  const encoded = Wire.encodeFrames(network.magic, messages)
  if (encoded._tag === "Failure") throw encoded.failure
  return encoded.success
}
