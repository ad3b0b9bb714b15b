/** Messages that end a peer, and similar messages that do not. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { withRemote } from "./support/peers.ts"

import { assertOver, waiters } from "./support/ends.ts"

describe.each(["outbound", "inbound"] as const)("an %s peer", (direction) => {
  const start = <H extends Peer.Handlers<unknown> = Peer.Handlers>(options: Peer.Options<H> = {}) =>
    withRemote({ direction, ...options })

  it.effect.each([
    { _tag: "wtxidrelay" },
    { _tag: "sendaddrv2" },
    { _tag: "feature", id: "BIP434", data: new Uint8Array(0) }
  ] satisfies ReadonlyArray<Wire.Message>)("ends with ProtocolViolation on $_tag after verack", (message) =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer)
      yield* session.remote.send(message)
      assert.strictEqual((yield* assertOver(session, waiting))._tag, "ProtocolViolation")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with ProtocolViolation on a malformed feature after verack", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer)
      yield* session.remote.send({ _tag: "Unknown", command: "feature", payload: new Uint8Array(3) })
      assert.strictEqual((yield* assertOver(session, waiting))._tag, "ProtocolViolation")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with BadMessage on cfheaders with 2,001 hashes", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer)
      const payload = new Uint8Array(65 + 3 + 2_001 * 32)
      payload.set([0xfd, 0xd1, 0x07], 65)
      yield* session.remote.send({ _tag: "Unknown", command: "cfheaders", payload })
      const reason = yield* assertOver(session, waiting)
      assert(reason._tag === "BadMessage")
      assert.strictEqual(reason.error.reason._tag, "TooMany")
    }).pipe(Effect.provide(Nonce.layer))
  )

  const filterRequests = [
    { _tag: "getcfilters", filterType: 0, startHeight: 0, stopHash: new Uint8Array(32) },
    { _tag: "getcfheaders", filterType: 0, startHeight: 0, stopHash: new Uint8Array(32) },
    { _tag: "getcfcheckpt", filterType: 0, stopHash: new Uint8Array(32) }
  ] satisfies ReadonlyArray<Wire.Message>

  it.effect.each(filterRequests)(
    "ends with ProtocolViolation on $_tag when our side does not offer COMPACT_FILTERS",
    (message) =>
      Effect.gen(function* () {
        const session = yield* start()
        const waiting = yield* waiters(session.peer)
        yield* session.remote.send(message)
        const reason = yield* assertOver(session, waiting)
        assert(reason._tag === "ProtocolViolation")
        assert.strictEqual(reason.command, message._tag)
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("passes requests for compact filters to handlers when our side offers COMPACT_FILTERS", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const see = ({ _tag }: Wire.Message) => void seen.push(_tag)
      const session = yield* start({
        services: Wire.Service.compactFilters,
        handlers: { getcfilters: see, getcfheaders: see, getcfcheckpt: see }
      })
      yield* session.remote.send(...filterRequests, { _tag: "ping", nonce: 1n })
      yield* session.remote.receiveUntil("pong")
      assert.deepStrictEqual(
        seen,
        filterRequests.map(({ _tag }) => _tag)
      )
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each([
    ["inv", 50_001],
    ["getdata", 50_001],
    ["headers", 2_001],
    ["addr", 1_001],
    ["addrv2", 1_001],
    ["getpkgtxns", 101]
  ] as const)("ends with BadMessage on %s with one entry more than its limit", ([command, count]) =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer)
      const payload = new Uint8Array(3 + count * 40)
      payload.set(count < 0xfd ? [count] : [0xfd, count & 0xff, count >> 8])
      yield* session.remote.send({ _tag: "Unknown", command, payload })
      const reason = yield* assertOver(session, waiting)
      assert(reason._tag === "BadMessage")
      assert.strictEqual(reason.error.reason._tag, "TooMany")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each(["getheaders", "getblocks"])("ends with BadMessage on %s with 102 locator hashes", (command) =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer)
      const payload = new Uint8Array(4 + 1 + 102 * 32 + 32)
      payload[4] = 102
      yield* session.remote.send({ _tag: "Unknown", command, payload })
      const reason = yield* assertOver(session, waiting)
      assert(reason._tag === "BadMessage")
      assert.strictEqual(reason.error.reason._tag, "TooMany")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with BadMessage on a sendcmpct whose first byte is neither 0 nor 1", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer)
      yield* session.remote.send({
        _tag: "Unknown",
        command: "sendcmpct",
        payload: Uint8Array.of(2, 2, 0, 0, 0, 0, 0, 0, 0)
      })
      assert.strictEqual((yield* assertOver(session, waiting))._tag, "BadMessage")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("drops a feature with a wrong checksum or a bad command, and an addrv2 with an address of 513 bytes", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const feature = session.remote.frames([{ _tag: "feature", id: "BIP434", data: new Uint8Array(0) }])
      const badChecksum = feature.slice()
      badChecksum[20]! ^= 1
      const badCommand = feature.slice()
      badCommand[15] = 120
      const address = new Uint8Array(600)
      address.set([1, 0, 0, 0, 0, 0, 4, 0xfd, 1, 2])
      yield* session.remote.sendBytes(badChecksum)
      yield* session.remote.sendBytes(badCommand)
      yield* session.remote.send({ _tag: "Unknown", command: "addrv2", payload: address }, { _tag: "ping", nonce: 1n })
      yield* session.remote.receiveUntil("pong")
      assert.strictEqual((yield* session.peer.stats).messagesDropped, 3)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with BadMessage (WrongMagic) on bytes that are not a frame", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const waiting = yield* waiters(session.peer)
      yield* session.remote.sendBytes(new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n"))
      const reason = yield* assertOver(session, waiting)
      assert(reason._tag === "BadMessage")
      assert.strictEqual(reason.error.reason._tag, "WrongMagic")
    }).pipe(Effect.provide(Nonce.layer))
  )
})
