/** Support for the tests of hostile remotes: raw frames, peers during and after the handshake, and memory measurements. */
import * as v8 from "node:v8"
import * as vm from "node:vm"
import { assert } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { Connection, type Handshake, Peer, Wire } from "effect-bitcoin-peer"
import { fork, network, scripted, tracked, withRemote } from "./peers.ts"

v8.setFlagsFromString("--expose-gc")
const collect: unknown = vm.runInNewContext("gc")

/** Bytes in use in buffers and on the heap, after garbage collection. */
export const memory = (): number => {
  if (typeof collect === "function") for (let turn = 0; turn < 3; turn++) collect()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return arrayBuffers + heapUsed
}

export const MiB = 1 << 20

/** One turn of the event loop, also under the TestClock. */
const turn = Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))

/** Asserts that at most `before + limit` bytes are in use. Measures again if not: finalizers free memory late. */
export const assertKept = Effect.fnUntraced(function* (before: number, limit: number, what?: string) {
  let kept = memory() - before
  for (let again = 0; again < 5 && kept > limit; again++) {
    yield* turn
    kept = Math.min(kept, memory() - before)
  }
  assert.isAtMost(kept, limit, what ?? `the peer keeps ${kept} bytes`)
})

/** Asserts that `effect` adds at most `limit` bytes to the memory in use. */
export const assertKeeps = Effect.fnUntraced(function* <A, E, R>(limit: number, effect: Effect.Effect<A, E, R>) {
  const before = memory()
  const result = yield* effect
  yield* assertKept(before, limit)
  return result
})

/** The header of a frame with any length and checksum. */
export const header = (command: string, length: number, checksum = 0): Uint8Array => {
  const bytes = new Uint8Array(24)
  bytes.set(network.magic)
  bytes.set(new TextEncoder().encode(command).subarray(0, 12), 4)
  const view = new DataView(bytes.buffer)
  view.setUint32(16, length, true)
  view.setUint32(20, checksum, true)
  return bytes
}

export type Session = Effect.Success<ReturnType<typeof withRemote>>

/** A connected peer and its remote; `ending` is a fiber that awaits the shutdown. */
export const connected = Effect.fnUntraced(function* <H extends Peer.Handlers<unknown> = Peer.Handlers>(
  options: Peer.Options<H> = {},
  pairOptions: Connection.PairOptions = {}
) {
  const session = yield* withRemote(options, {}, pairOptions)
  return { ...session, ending: yield* fork(session.peer.awaitShutdown) }
})

/** A peer during its handshake; `making` is the fiber that makes it. */
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

/** The reason of a failed handshake. Asserts that no fiber is left and the connection is closed. */
export const refusal = Effect.fnUntraced(function* ({ making, tracker }: Effect.Success<ReturnType<typeof begun>>) {
  const error: Handshake.HandshakeError = yield* Effect.flip(Fiber.join(making))
  assert.strictEqual(tracker.waiting(), 0, "a fiber of the peer is still waiting")
  assert.strictEqual(
    (yield* Effect.flip(tracker.connection.pull))._tag,
    "ConnectionError",
    "the connection is still open"
  )
  return error.reason
})

/** The reason of a peer's end. Asserts that no fiber is left and the connection is closed. */
export const endOf = Effect.fnUntraced(function* ({ ending, tracker }: Effect.Success<ReturnType<typeof connected>>) {
  const reason = yield* Fiber.join(ending)
  assert.strictEqual(tracker.waiting(), 0, "a fiber of the peer is still waiting")
  assert.strictEqual(
    (yield* Effect.flip(tracker.connection.pull))._tag,
    "ConnectionError",
    "the connection is still open"
  )
  return reason
})

/** Sends the bytes `times` times, as fast as the peer accepts them. */
export const flood = Effect.fnUntraced(function* (remote: Session["remote"], bytes: Uint8Array, times: number) {
  for (let time = 0; time < times; time++) {
    yield* remote.sendBytes(bytes)
    yield* remote.connection.drained
  }
})

/** Asserts that the peer answers a ping and keeps a bounded state of the remote; returns its statistics. */
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

/** The frames of messages, joined. */
export const frames = (messages: ReadonlyArray<Wire.Message>): Uint8Array => {
  const encoded = Wire.encodeFrames(network.magic, messages)
  if (encoded._tag === "Failure") throw encoded.failure
  return encoded.success
}

export const directions = ["outbound", "inbound"] as const

/** Multiplies the number of messages that a leak could keep: far above each bound at 1. HOSTILE_SCALE=10 runs longer. */
export const scale = Number(process.env["HOSTILE_SCALE"] ?? 1)

/** A list of that length. */
export const count = <A>(size: number, make: (index: number) => A): Array<A> =>
  Array.from({ length: size }, (_, at) => make(at))
