/** Requests for compact filters (BIP157): the messages sent, the answers accepted, and the failures. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { fork, withRemote } from "./support/peers.ts"

const hash = (number: number): Uint8Array => new Uint8Array(32).fill(number)
const cfilter = (number: number, filterType = 0): Wire.CFilter => ({
  _tag: "cfilter",
  filterType,
  blockHash: hash(number),
  filter: Uint8Array.of(0)
})
const cfheaders = (stop: number, count: number, filterType = 0): Wire.CFHeaders => ({
  _tag: "cfheaders",
  filterType,
  stopHash: hash(stop),
  previousFilterHeader: hash(0),
  filterHashes: Array.from({ length: count }, (_, index) => hash(100 + index))
})
const cfcheckpt = (stop: number, filterType = 0): Wire.CFCheckpt => ({
  _tag: "cfcheckpt",
  filterType,
  stopHash: hash(stop),
  filterHeaders: [hash(50), hash(51)]
})
const serving = { services: Wire.Service.network | Wire.Service.witness | Wire.Service.compactFilters }

const range: Peer.CompactFilterRange = { startHeight: 7, blockHashes: [hash(1), hash(2), hash(3)] }
const headerRange: Peer.CompactFilterHeaderRange = { startHeight: 5, stopHeight: 6, stopHash: hash(2) }

const failureOf = <A>(effect: Effect.Effect<A, Peer.PeerError>) =>
  Effect.map(Effect.flip(effect), (error) => {
    assert.isNotEmpty(error.message)
    return error.reason
  })

describe.each(["outbound", "inbound"] as const)("an %s peer", (direction) => {
  const start = (options: Peer.Options = {}) => withRemote({ direction, ...options }, serving)

  it.effect(
    "getCompactFilters returns the filters by height, also if they arrive in another order or among others",
    () =>
      Effect.gen(function* () {
        const { peer, remote } = yield* start()
        const asking = yield* fork(peer.getCompactFilters(range))
        assert.deepStrictEqual(yield* remote.receive, {
          _tag: "getcfilters",
          filterType: 0,
          startHeight: 7,
          stopHash: hash(3)
        })
        yield* remote.send(cfilter(2), cfilter(9), cfilter(1, 1), cfilter(3), cfilter(2), cfilter(1))
        assert.deepStrictEqual(yield* Fiber.join(asking), [cfilter(1), cfilter(2), cfilter(3)])
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a getdata sent after getcfilters does not stall while filters arrive; one sent before does", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const block = { type: Wire.InventoryType.block, hash: hash(9) }
      const asking = yield* fork(peer.getCompactFilters(range))
      yield* TestClock.adjust("1 second")
      yield* peer.send({ _tag: "getdata", items: [block] })
      for (const number of [1, 2, 3]) {
        yield* TestClock.adjust("25 seconds")
        yield* remote.send(cfilter(number))
      }
      assert.lengthOf(yield* Fiber.join(asking), 3)
      yield* TestClock.adjust("14 seconds")
      yield* remote.send({ _tag: "notfound", items: [block] })

      yield* peer.send({ _tag: "getdata", items: [block] })
      yield* TestClock.adjust("1 second")
      yield* fork(peer.getCompactFilters(range))
      for (const number of [1, 2]) {
        yield* TestClock.adjust("20 seconds")
        yield* remote.send(cfilter(number))
      }
      yield* TestClock.adjust("20 seconds")
      const end = yield* peer.awaitShutdown
      assert(end._tag === "Stalled")
      assert.strictEqual(end.command, "getdata")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("getCompactFilterHeaders accepts only an answer with its filter type, stop hash and number of hashes", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const asking = yield* fork(peer.getCompactFilterHeaders(headerRange))
      assert.deepStrictEqual(yield* remote.receive, {
        _tag: "getcfheaders",
        filterType: 0,
        startHeight: 5,
        stopHash: hash(2)
      })
      yield* remote.send(cfheaders(3, 2), cfheaders(2, 2, 1), cfheaders(2, 3), cfheaders(2, 2))
      const answer = yield* Fiber.join(asking)
      assert.deepStrictEqual({ ...answer, filterHashes: Array.from(answer.filterHashes) }, cfheaders(2, 2))
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("getCompactFilterCheckpoints accepts only an answer with its filter type and stop hash", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const asking = yield* fork(peer.getCompactFilterCheckpoints(hash(2), 1))
      assert.deepStrictEqual(yield* remote.receive, { _tag: "getcfcheckpt", filterType: 1, stopHash: hash(2) })
      yield* remote.send(cfcheckpt(3, 1), cfcheckpt(2), cfcheckpt(2, 1))
      assert.deepStrictEqual(Array.from(yield* Fiber.join(asking)), [hash(50), hash(51)])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("concurrent requests get their own answers, and handlers see the same messages", () =>
    Effect.gen(function* () {
      let seen = 0
      const see = () => void seen++
      const { peer, remote } = yield* start({ handlers: { cfilter: see, cfheaders: see, cfcheckpt: see } })
      const one = yield* fork(peer.getCompactFilters(range))
      const other = yield* fork(peer.getCompactFilters({ ...range, blockHashes: [hash(3), hash(4)] }))
      const headers = yield* fork(peer.getCompactFilterHeaders(headerRange))
      const checkpoints = yield* fork(peer.getCompactFilterCheckpoints(hash(2)))
      yield* remote.receiveUntil("getcfcheckpt")
      yield* remote.send(cfcheckpt(2), cfilter(1), cfilter(2), cfilter(3), cfheaders(2, 2), cfilter(3), cfilter(4))
      assert.strictEqual((yield* Fiber.join(one)).length, 3)
      assert.deepStrictEqual(yield* Fiber.join(other), [cfilter(3), cfilter(4)])
      assert.strictEqual((yield* Fiber.join(headers)).filterHashes.length, 2)
      assert.strictEqual((yield* Fiber.join(checkpoints)).length, 2)
      assert.strictEqual(seen, 7)
      assert.strictEqual((yield* peer.stats).openRequests, 0)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a handler can send a request and wait for the answer", () =>
    Effect.gen(function* () {
      const answered = yield* Deferred.make<number>()
      const { remote } = yield* start({
        handlers: {
          inv: (_, peer) =>
            Effect.flatMap(peer.getCompactFilters(range), (filters) => Deferred.succeed(answered, filters.length))
        }
      })
      yield* remote.send({ _tag: "inv", items: [] })
      yield* remote.receiveUntil("getcfilters")
      yield* remote.send(cfilter(1), cfilter(2), cfilter(3))
      assert.strictEqual(yield* Deferred.await(answered), 3)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("requests fail with NoAnswer when the pong to a later ping arrives before the complete answer", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const asks: ReadonlyArray<readonly [string, Effect.Effect<unknown, Peer.PeerError>]> = [
        ["getcfilters", peer.getCompactFilters(range)],
        ["getcfheaders", peer.getCompactFilterHeaders(headerRange)],
        ["getcfcheckpt", peer.getCompactFilterCheckpoints(hash(2))]
      ]
      const askings: Array<Fiber.Fiber<Peer.PeerReason, unknown>> = []
      const nonces: Array<bigint> = []
      for (const [, asking] of asks) {
        askings.push(yield* fork(failureOf(asking)))
        const ping = yield* remote.receiveUntil("ping")
        assert(ping._tag === "ping" && ping.nonce !== undefined)
        nonces.push(ping.nonce)
      }
      yield* remote.send(cfilter(1), cfilter(2))
      for (const [index, [what]] of asks.entries()) {
        // Only what was requested before the ping is settled.
        assert.isUndefined(askings[index]!.pollUnsafe())
        yield* remote.send({ _tag: "pong", nonce: nonces[index]! })
        assert.deepStrictEqual(yield* Fiber.join(askings[index]!), { _tag: "NoAnswer", what })
      }
      assert.strictEqual((yield* peer.stats).openRequests, 0)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "requests fail with TimedOut when the answer is incomplete in time; the peer stays connected, no request stays open",
    () =>
      Effect.gen(function* () {
        const { peer, remote } = yield* start()
        const askings = yield* Effect.forEach(
          [
            peer.getCompactFilters(range, { timeout: "30 seconds" }),
            peer.getCompactFilterHeaders(headerRange),
            peer.getCompactFilterCheckpoints(hash(2))
          ],
          (asking) => fork(failureOf<unknown>(asking))
        )
        yield* remote.receiveUntil("getcfcheckpt")
        yield* remote.send(cfilter(1), cfilter(2), { _tag: "ping", nonce: 1n })
        yield* remote.receiveUntil("pong")
        assert.strictEqual((yield* peer.stats).openRequests, 3)
        yield* TestClock.adjust("30 seconds")
        for (const asking of askings) assert.strictEqual((yield* Fiber.join(asking))._tag, "TimedOut")
        assert.strictEqual((yield* peer.stats).openRequests, 0)
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("an interrupted request leaves nothing open, and a pending one fails with the end of the peer", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const asking = yield* fork(peer.getCompactFilters(range))
      yield* remote.receiveUntil("getcfilters")
      yield* Fiber.interrupt(asking)
      assert.strictEqual((yield* peer.stats).openRequests, 0)
      const waiting = yield* fork(failureOf(peer.getCompactFilters(range)))
      yield* remote.receiveUntil("getcfilters")
      yield* remote.connection.close
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "Ended")
      assert.strictEqual((yield* failureOf(peer.getCompactFilterHeaders(headerRange)))._tag, "Ended")
      assert.strictEqual((yield* peer.stats).openRequests, 0)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("requests fail with NotSendable for no blocks, too many blocks or an invalid range, and send nothing", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      assert.deepStrictEqual(yield* peer.getCompactFilters({ ...range, blockHashes: [] }), [])
      const blockHashes = Array.from({ length: 1_001 }, () => hash(1))
      for (const asking of [
        peer.getCompactFilters({ ...range, blockHashes }),
        peer.getCompactFilterHeaders({ ...headerRange, stopHeight: 2_005 }),
        peer.getCompactFilterHeaders({ ...headerRange, stopHeight: 4 }),
        peer.getCompactFilterHeaders({ ...headerRange, stopHash: new Uint8Array(31) })
      ]) {
        assert.strictEqual((yield* failureOf<unknown>(asking))._tag, "NotSendable")
      }
      yield* remote.send({ _tag: "ping", nonce: 1n })
      assert.strictEqual((yield* remote.receive)._tag, "pong")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("requests fail with NotOffered and send nothing to a peer without COMPACT_FILTERS", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* withRemote({ direction })
      for (const asking of [
        peer.getCompactFilters(range),
        peer.getCompactFilterHeaders(headerRange),
        peer.getCompactFilterCheckpoints(hash(2))
      ]) {
        assert.strictEqual((yield* failureOf<unknown>(asking))._tag, "NotOffered")
      }
      yield* remote.send({ _tag: "ping", nonce: 1n })
      assert.strictEqual((yield* remote.receive)._tag, "pong")
    }).pipe(Effect.provide(Nonce.layer))
  )
})
