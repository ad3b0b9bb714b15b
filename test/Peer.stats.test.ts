/** `Peer.Stats`: the counts by command add up to the totals, in both directions and under both transports. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Nonce, Peer, type Wire } from "effect-bitcoin-peer"
import { twoPeers, withRemote } from "./support/peers.ts"

const noMessage = "*no message*"

type Counts = Peer.Stats["received"]

const sum = (counts: Counts, of: "messages" | "bytes"): number =>
  Object.values(counts).reduce((total, tally) => total + tally[of], 0)

/** Fails unless each total is the sum of its commands. */
const addUp = (stats: Peer.Stats): void => {
  assert.strictEqual(sum(stats.received, "bytes"), stats.bytesReceived, "bytes received")
  assert.strictEqual(sum(stats.sent, "bytes"), stats.bytesSent, "bytes sent")
  assert.strictEqual(sum(stats.received, "messages"), stats.messagesReceived, "messages received")
  assert.strictEqual(sum(stats.sent, "messages"), stats.messagesSent, "messages sent")
}

const ping: Wire.Message = { _tag: "ping", nonce: 7n }
const headerSize = 24

describe("the statistics of a peer", () => {
  const start = withRemote()

  it.effect("have only rows of commands when all bytes belong to messages", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start
      yield* remote.send(ping, { _tag: "Unknown", command: "hello", payload: new Uint8Array(3) })
      yield* remote.receiveUntil("pong")
      yield* TestClock.adjust(1)
      const stats = yield* peer.stats
      addUp(stats)
      assert.doesNotHaveAnyKeys(stats.received, [noMessage])
      assert.doesNotHaveAnyKeys(stats.sent, [noMessage])
      assert.deepStrictEqual(stats.received["*other*"], { messages: 1, bytes: headerSize + 3 })
      assert.deepStrictEqual(stats.received["ping"], { messages: 1, bytes: headerSize + 8 })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("count the bytes of a dropped message outside all commands", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start
      const damaged = remote.frames([{ _tag: "inv", items: [{ type: 1, hash: new Uint8Array(32) }] }])
      damaged[headerSize] = 9
      yield* remote.sendBytes(damaged)
      yield* remote.send(ping)
      yield* remote.receiveUntil("pong")
      yield* TestClock.adjust(1)
      const stats = yield* peer.stats
      addUp(stats)
      assert.strictEqual(stats.messagesDropped, 1)
      assert.deepStrictEqual(stats.received[noMessage], { messages: 0, bytes: damaged.length })
      assert.doesNotHaveAnyKeys(stats.received, ["inv"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("count the bytes of an incomplete message outside all commands until it is complete", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start
      const frame = remote.frames([ping])
      yield* remote.sendBytes(frame.subarray(0, 20))
      yield* TestClock.adjust(1)
      const before = yield* peer.stats
      addUp(before)
      assert.deepStrictEqual(before.received[noMessage], { messages: 0, bytes: 20 })
      yield* remote.sendBytes(frame.subarray(20))
      yield* remote.receiveUntil("pong")
      yield* TestClock.adjust(1)
      const after = yield* peer.stats
      addUp(after)
      assert.doesNotHaveAnyKeys(after.received, [noMessage])
      assert.doesNotHaveAnyKeys(before.received, ["ping"], "a snapshot does not change")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("count the v2 key exchange outside all commands, equally on both sides", () =>
    Effect.gen(function* () {
      const peers = yield* twoPeers({ transport: "v2" }, { transport: "v2" })
      yield* peers[0].ping
      yield* TestClock.adjust(1)
      const [one, other] = yield* Effect.all([peers[0].stats, peers[1].stats])
      for (const stats of [one, other]) {
        addUp(stats)
        assert.strictEqual(stats.transport, "v2")
        // A key, a terminator, and the version packet with its length, header and tag. Garbage and decoys add to this.
        assert.isAtLeast(stats.received[noMessage]!.bytes, 64 + 16 + 3 + 1 + 16)
      }
      assert.deepStrictEqual(one.sent, other.received)
      assert.deepStrictEqual(one.received, other.sent)
    })
  )

  it.effect("decode from their own JSON", () =>
    Effect.gen(function* () {
      const [peer] = yield* twoPeers({ transport: "v2" }, { transport: "v2" })
      const stats = yield* peer.stats
      const json = JSON.stringify(Schema.encodeSync(Peer.Stats)(stats))
      const back = Schema.decodeUnknownSync(Peer.Stats)(JSON.parse(json))
      assert.deepStrictEqual(back.received, stats.received)
      addUp(back)
    })
  )
})
