/** Requests that are interrupted or not valid leave nothing behind, and a pong does not overtake the answers before it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Scheduler, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { make as makeKeepAlive } from "../src/peer/keepAlive.ts"
import { Pinger } from "../src/peer/pinger.ts"
import { SendQueue } from "../src/peer/sendQueue.ts"
import type { PeerError } from "../src/PeerError.ts"
import { twoPeers, withRemote } from "./support/peers.ts"
import { block, blockHash, hash, item, transaction } from "./support/requests.ts"

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })
const { witnessBlock } = Wire.InventoryType

/** Runs an Effect that yields after so many steps, and interrupts it after so many turns of the scheduler. */
const interrupted = Effect.fnUntraced(function* <A, E>(effect: Effect.Effect<A, E>, steps: number, turns: number) {
  const fiber = yield* Effect.forkChild(Effect.provideService(effect, Scheduler.MaxOpsBeforeYield, steps))
  for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
  yield* Fiber.interrupt(fiber)
})

describe.each([3, 4, 5, 7])("a caller that yields every %i steps and is interrupted at any of them", (steps) => {
  const requests: ReadonlyArray<
    readonly [Wire.Message["_tag"], (peer: Peer.Peer, number: number) => Effect.Effect<unknown, Peer.PeerError>]
  > = [
    ["getdata", (peer, number) => peer.getBlock(hash(number))],
    ["getheaders", (peer, number) => peer.getHeaders([hash(number)])],
    ["getblocktxn", (peer, number) => peer.getBlockTransactions(hash(number), [1])],
    ["getcfilters", (peer, number) => peer.getCompactFilters({ startHeight: 1, blockHashes: [hash(number)] })]
  ]

  it.effect.each(requests)("leaves no %s open that was not sent", ([command, ask]) =>
    Effect.gen(function* () {
      const services = Wire.Service.network | Wire.Service.witness | Wire.Service.compactFilters
      const { peer } = yield* withRemote({ stalls: false }, { services })
      for (let turns = 0; turns < 30; turns++) {
        const before = yield* peer.stats
        yield* interrupted(ask(peer, turns), steps, turns)
        yield* TestClock.adjust(1)
        const after = yield* peer.stats
        const sent = (after.sent[command]?.messages ?? 0) - (before.sent[command]?.messages ?? 0)
        assert.isAtMost(after.openRequests - before.openRequests, sent, `after ${turns} turns`)
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("does not wait for a pong any more", () =>
    Effect.gen(function* () {
      const timing = { pingInterval: 1, pingTimeout: 1, idleTimeout: 1 }
      const pinger = new Pinger({
        keepAlive: makeKeepAlive(timing, 0),
        protocolVersion: 70_016,
        nonces: yield* Nonce.Nonce,
        sendQueue: new SendQueue<PeerError>(1_000_000, () => assert.fail("encoded")),
        now: () => 0,
        lifecycle: { reason: undefined } as never,
        observer: undefined!,
        asking: () => Effect.never
      })
      for (let turns = 0; turns < 30; turns++) {
        yield* interrupted(pinger.ping, steps, turns)
        assert.strictEqual(pinger.open, 0, `after ${turns} turns`)
      }
    }).pipe(Effect.provide(Nonce.layer))
  )
})

describe("a request of a caller without TypeScript", () => {
  const good = item(2, hash(1))
  const short = new Uint8Array(31)
  const wrong = undefined as never
  const bad: ReadonlyArray<readonly [string, (peer: Peer.Peer) => Effect.Effect<unknown, Peer.PeerError>]> = [
    ["items.hash", (peer) => peer.getData([good, { type: 2, hash: wrong }])],
    ["items.hash", (peer) => peer.getData([good, { type: 2, hash: short }])],
    ["items.hash", (peer) => peer.getData([...Array.from({ length: 1_000 }, () => good), item(2, short)])],
    ["items.type", (peer) => peer.getData([good, { type: "block" as never, hash: hash(2) }])],
    ["items", (peer) => peer.getData([good, wrong])],
    ["items", (peer) => peer.getData(wrong)],
    ["items", (peer) => peer.getData(null as never)],
    ["timeout", (peer) => peer.getData([good], { timeout: "soon" as never })],
    ["hash", (peer) => peer.getBlock(wrong)],
    ["hash", (peer) => peer.getBlock("00" as never)],
    ["timeout", (peer) => peer.getBlock(hash(1), { timeout: "soon" as never })],
    ["hash", (peer) => peer.getTransaction(short)],
    ["blockHash", (peer) => peer.getBlockTransactions(short, [1])],
    ["indexes", (peer) => peer.getBlockTransactions(hash(1), [65_536])],
    ["indexes", (peer) => peer.getBlockTransactions(hash(1), wrong)],
    ["indexes", (peer) => peer.getBlockTransactions(hash(1), [])],
    ["locator", (peer) => peer.getHeaders([hash(1), short])],
    ["locator", (peer) => peer.getHeaders(wrong)],
    ["locator", (peer) => peer.getHeaders(Array.from({ length: 102 }, (_, number) => hash(number)))],
    ["stopHash", (peer) => peer.getHeaders([], null as never)],
    ["timeout", (peer) => peer.getHeaders([], undefined, { timeout: "soon" as never })],
    ["locator", (peer) => peer.getBlocks([wrong])],
    ["timeout", (peer) => peer.getAddresses({ timeout: "soon" as never })],
    ["blockHashes", (peer) => peer.getCompactFilters(wrong)],
    ["blockHashes", (peer) => peer.getCompactFilters({ startHeight: 1, blockHashes: wrong })],
    ["blockHashes", (peer) => peer.getCompactFilters({ startHeight: 1, blockHashes: [short, hash(1)] })],
    ["blockHashes", (peer) => peer.getCompactFilters({ startHeight: 1, blockHashes: [hash(1), wrong] })],
    ["blockHashes", (peer) => peer.getCompactFilters({ startHeight: 1, blockHashes: [hash(1), hash(1)] })],
    ["startHeight", (peer) => peer.getCompactFilters({ startHeight: wrong, blockHashes: [hash(1)] })],
    ["stopHeight", (peer) => peer.getCompactFilterHeaders(wrong)],
    ["stopHash", (peer) => peer.getCompactFilterHeaders({ startHeight: 1, stopHeight: 2, stopHash: short })],
    ["stopHash", (peer) => peer.getCompactFilterCheckpoints(wrong)]
  ]

  it.effect.each(bad)("fails with NotSendable that names the wrong %s, and no part of it stays open", ([field, ask]) =>
    Effect.gen(function* () {
      const services = Wire.Service.network | Wire.Service.witness | Wire.Service.compactFilters
      const { peer } = yield* withRemote({}, { services })
      const { reason } = yield* Effect.flip(ask(peer))
      assert(reason._tag === "NotSendable")
      assert.match(reason.error.message, new RegExp(`"(?:\\w+\\.)?${field.replace(".", "\\.")}"`))
      const { openRequests, queuedMessages } = yield* peer.stats
      assert.deepStrictEqual([openRequests, queuedMessages], [0, 0])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("does not join a request for a longer hash or for an index that is 65,536 less", () =>
    Effect.gen(function* () {
      const { peer } = yield* withRemote({ stalls: false })
      const long = hash(1)
      yield* fork(peer.getData([item(2, long)]))
      yield* fork(peer.getBlockTransactions(long, [1]))
      const joining: ReadonlyArray<Effect.Effect<unknown, Peer.PeerError>> = [
        peer.getData([item(2, long.subarray(0, 31))]),
        peer.getBlockTransactions(long, [65_537])
      ]
      for (const request of joining) assert.strictEqual((yield* Effect.flip(request)).reason._tag, "NotSendable")
    }).pipe(Effect.provide(Nonce.layer))
  )
})

describe("a getData of several messages", () => {
  it.effect("sends what others wait for once, also if its caller is interrupted before all are accepted", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* withRemote({ maximumQueuedBytes: 20_000, stalls: false }, {}, { window: 1_000 })
      const filler: Wire.Message = { _tag: "Unknown", command: "big", payload: new Uint8Array(5_000) }
      for (let sent = 0; sent < 3; sent++) {
        yield* peer.send(filler)
        yield* TestClock.adjust(1)
      }
      const items = Array.from({ length: 3_000 }, (_, number) => item(witnessBlock, hash(number)))
      const first = yield* fork(peer.getData(items))
      yield* fork(peer.getData(items.slice(0, 1_500)))
      yield* TestClock.adjust(1)
      yield* Fiber.interrupt(first)
      yield* fork(peer.send({ _tag: "getaddr" }))
      const asked: Array<Wire.InventoryItem> = []
      for (let message = yield* remote.receive; message._tag !== "getaddr"; message = yield* remote.receive) {
        if (message._tag === "getdata") asked.push(...message.items)
      }
      assert.deepStrictEqual(asked, items.slice(0, 1_500))
    }).pipe(Effect.provide(Nonce.layer))
  )
})

describe("a pong", () => {
  const ping: Wire.Message = { _tag: "ping", nonce: 1n }

  it.effect("comes after the answers of a slow handler while another fiber waits for the remote", () =>
    Effect.gen(function* () {
      const blocks = [block(1, true), block(2, true), block(3, true)]
      const blocktxn = (indexes: Wire.List<number>): Wire.BlockTxn => ({
        _tag: "blocktxn",
        blockHash: blockHash(9),
        transactions: Array.from(indexes, (index) => transaction(index))
      })
      const [client, server] = yield* twoPeers(
        {},
        {
          handlers: {
            getdata: ({ items }, peer) =>
              Effect.forEach(items, (wanted) =>
                Effect.andThen(
                  Effect.sleep(50),
                  peer.send(blocks.find(({ block }) => Wire.hashEquals(Wire.blockHash(block.header), wanted.hash))!)
                )
              ),
            getblocktxn: ({ indexes }, peer) => Effect.andThen(Effect.sleep(50), peer.send(blocktxn(indexes)))
          }
        }
      )
      yield* fork(server.getAddresses())
      const asking: Array<Fiber.Fiber<unknown, Peer.PeerError>> = []
      const requests: ReadonlyArray<Effect.Effect<unknown, Peer.PeerError>> = [
        ...blocks.map((_, index) => client.getBlock(blockHash(index + 1))),
        client.getBlockTransactions(blockHash(9), [1]),
        client.getBlockTransactions(blockHash(9), [2, 3])
      ]
      for (const request of requests) {
        asking.push(yield* fork(request))
        yield* TestClock.adjust(20)
      }
      for (let tenth = 0; tenth < 50; tenth++) yield* TestClock.adjust(10)
      for (const fiber of asking) yield* Fiber.join(fiber)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each([true, false])(
    "does not wait for a handler that begins to wait after the ping (in one batch: %s)",
    (joined) =>
      Effect.gen(function* () {
        const { peer, remote } = yield* withRemote({
          handlers: { sendheaders: (_, peer) => Effect.andThen(Effect.sleep(100), peer.ping) }
        })
        yield* fork(peer.getAddresses())
        yield* remote.receiveUntil("getaddr")
        if (joined) yield* remote.send({ _tag: "sendheaders" }, ping)
        else for (const message of [{ _tag: "sendheaders" } as const, ping]) yield* remote.send(message)
        yield* TestClock.adjust(50)
        assert.isUndefined((yield* peer.stats).sent["pong"])
        yield* TestClock.adjust(50)
        assert.strictEqual((yield* peer.stats).sent["pong"]?.messages, 1)
        const question = yield* remote.receiveUntil("ping")
        assert(question._tag === "ping" && question.nonce !== undefined)
        yield* remote.send({ _tag: "pong", nonce: question.nonce }, { _tag: "ping", nonce: 2n })
        yield* TestClock.adjust(1)
        assert.strictEqual((yield* peer.stats).sent["pong"]?.messages, 2)
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("does not wait for a subscriber that waits for the remote", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* withRemote()
      yield* fork(Stream.runForEach(peer.messages, () => peer.ping))
      for (let batch = 0; batch < 5; batch++) {
        yield* remote.send({ _tag: "getaddr" })
        yield* TestClock.adjust(1)
      }
      yield* remote.send(ping)
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* peer.stats).sent["pong"]?.messages, 1)
    }).pipe(Effect.provide(Nonce.layer))
  )
})
