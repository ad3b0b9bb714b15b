/** sendAddresses, sendGetHeaders, sendGetBlocks and sendReject, and the rules for bloom filter messages. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import { Nonce, type Peer, Policy, Wire } from "effect-bitcoin-peer"
import { limits } from "./support/limits.ts"
import { withRemote } from "./support/peers.ts"

const address = (number: number): Wire.AddressV2 => ({
  timestamp: 1_700_000_000 + number,
  services: 9n,
  networkId: 1,
  address: Uint8Array.of(10, 0, number >> 8, number & 0xff),
  port: 8333
})
const onion: Wire.AddressV2 = { ...address(0), networkId: 4, address: new Uint8Array(32).fill(7) }
const six: Wire.AddressV2 = { ...address(1), networkId: 2, address: Uint8Array.of(0x20, 1, ...new Uint8Array(14)) }
const hash = (byte: number) => new Uint8Array(32).fill(byte)

describe.each(["outbound", "inbound"] as const)("an %s peer", (direction) => {
  const start = (
    options: Peer.Options = {},
    version: Partial<Wire.Version> = {},
    negotiation: ReadonlyArray<Wire.Message> = []
  ) => withRemote({ direction, ...options }, version, {}, negotiation)

  it.effect("sends addresses as addrv2 to a remote that sent sendaddrv2, and returns the sent ones", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start({}, {}, [{ _tag: "sendaddrv2" }])
      const addresses = [address(1), onion, six]
      assert.deepStrictEqual(yield* peer.sendAddresses(addresses), addresses)
      const message = yield* remote.receive
      assert(message._tag === "addrv2")
      assert.deepStrictEqual(Array.from(message.addresses), addresses)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("sends addresses as addr to other remotes, without those that addr cannot hold", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      assert.deepStrictEqual(yield* peer.sendAddresses([address(258), onion, six]), [address(258), six])
      const message = yield* remote.receive
      assert(message._tag === "addr")
      assert.deepStrictEqual(Array.from(message.addresses, Wire.formatAddress), ["10.0.1.2:8333", "[2001::]:8333"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("sends no message for an empty list of addresses", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      assert.deepStrictEqual(yield* peer.sendAddresses([]), [])
      assert.deepStrictEqual(yield* peer.sendAddresses([onion]), [])
      yield* peer.send({ _tag: "getaddr" })
      assert.strictEqual((yield* remote.receive)._tag, "getaddr")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("sends 1,000 random addresses of a longer list, and returns the sent ones", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const addresses = Array.from({ length: 3_000 }, (_, number) => address(number))
      const sent = yield* peer.sendAddresses(addresses)
      const message = yield* remote.receive
      assert(message._tag === "addr")
      assert.strictEqual(message.addresses.length, 1_000)
      assert.deepStrictEqual(
        Array.from(message.addresses, ({ timestamp }) => timestamp),
        sent.map(({ timestamp }) => timestamp)
      )
      const numbers = new Set(sent.map(({ timestamp }) => timestamp - 1_700_000_000))
      assert.strictEqual(numbers.size, 1_000)
      for (const from of [0, 1_000, 2_000]) {
        const here = Array.from(numbers).filter((number) => number >= from && number < from + 1_000).length
        assert.approximately(here, 333, 60)
      }
    }).pipe(Random.withSeed("addresses"), Effect.provide(Nonce.layer))
  )

  it.effect.each(["getheaders", "getblocks"] as const)(
    "does not repeat a %s with the same first and stop hash",
    (tag) =>
      Effect.gen(function* () {
        const { peer, remote } = yield* start()
        const ask = tag === "getheaders" ? peer.sendGetHeaders : peer.sendGetBlocks
        assert.isTrue(yield* ask([hash(1), hash(2)]))
        assert.isFalse(yield* ask([hash(1), hash(3)]))
        assert.isTrue(yield* ask([hash(1)], hash(9)))
        assert.isTrue(yield* ask([hash(2)], hash(9)))
        assert.isFalse(yield* ask([hash(2)], hash(9)))
        assert.isTrue(yield* ask([hash(1)]))
        const received = []
        for (let index = 0; index < 4; index++) {
          const message = yield* remote.receive
          assert(message._tag === tag)
          received.push([message.locator.at(0)![0], message.stopHash[0]])
        }
        assert.deepStrictEqual(received, [
          [1, 0],
          [1, 9],
          [2, 9],
          [1, 0]
        ])
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("does not treat a request that failed to encode as sent", () =>
    Effect.gen(function* () {
      const { peer } = yield* start()
      const tooLong = Array.from({ length: 102 }, () => hash(1))
      assert.strictEqual((yield* Effect.flip(peer.sendGetHeaders(tooLong))).reason._tag, "NotSendable")
      assert.isTrue(yield* peer.sendGetHeaders([hash(1)]))
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("sends a reject only under btcd's policy and to a remote of version 70002 or above", () =>
    Effect.gen(function* () {
      const reject = { rejected: "tx", code: 0x10, reason: "no", hash: hash(1) }
      for (const [policy, protocolVersion, sent] of [
        [Policy.core, 70_017, false],
        [Policy.btcd, 70_001, false],
        [Policy.btcd, 70_002, true]
      ] as const) {
        const { peer, remote } = yield* start({ policy }, { protocolVersion })
        assert.strictEqual(yield* peer.sendReject(reject), sent)
        yield* peer.send({ _tag: "getaddr" })
        const first = yield* remote.receive
        assert.deepStrictEqual(first, sent ? { _tag: "reject", ...reject } : { _tag: "getaddr" })
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  const bloom: ReadonlyArray<Wire.Message> = [
    { _tag: "mempool" },
    { _tag: "filterload", filter: new Uint8Array(8), hashFunctions: 3, tweak: 0, flags: 0 },
    { _tag: "filteradd", data: new Uint8Array(20) },
    { _tag: "filterclear" }
  ]

  it.effect("without NODE_BLOOM, ends on a bloom message from version 70011 on; below, handlers do not see it", () =>
    Effect.gen(function* () {
      for (const message of bloom) {
        const seen: Array<string> = []
        const handlers: Peer.Handlers = {
          mempool: ({ _tag }) => void seen.push(_tag),
          filterload: ({ _tag }) => void seen.push(_tag),
          filteradd: ({ _tag }) => void seen.push(_tag),
          filterclear: ({ _tag }) => void seen.push(_tag)
        }
        const strict = yield* withRemote({ direction, handlers }, { protocolVersion: 70_011 })
        yield* strict.remote.send(message)
        const end = yield* strict.peer.awaitShutdown
        assert(end._tag === "ProtocolViolation")
        assert.strictEqual(end.command, Wire.command(message))

        const old = yield* withRemote({ direction, handlers }, { protocolVersion: 70_010 })
        yield* old.remote.send(message, { _tag: "ping", nonce: 1n })
        yield* old.remote.receiveUntil("pong")
        assert.deepStrictEqual(seen, [])

        const serving = yield* withRemote({ direction, handlers, services: Wire.Service.bloom }, {})
        yield* serving.remote.send(message, { _tag: "ping", nonce: 1n })
        yield* serving.remote.receiveUntil("pong")
        assert.deepStrictEqual(seen, [Wire.command(message)])
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  // A filter of 36,001 bytes, one with 51 hash functions, an element of 521 bytes.
  const tooLarge: ReadonlyArray<Wire.Unknown> = limits.flatMap(({ command, whole }) =>
    command === "filterload" || command === "filteradd" ? [{ _tag: "Unknown", command, payload: whole.payload }] : []
  )

  it.effect(
    "with NODE_BLOOM, ends on a bloom message above a limit and drops a truncated one; without, ends on both from 70011 on",
    () =>
      Effect.gen(function* () {
        const cut: Wire.Unknown = { _tag: "Unknown", command: "filterload", payload: Uint8Array.of(9) }
        for (const message of [...tooLarge, cut]) {
          const serving = yield* withRemote({ direction, services: Wire.Service.bloom }, {})
          yield* serving.remote.send(message, { _tag: "ping", nonce: 1n })
          if (message === cut) yield* serving.remote.receiveUntil("pong")
          else assert.strictEqual((yield* serving.peer.awaitShutdown)._tag, "BadMessage")

          const strict = yield* withRemote({ direction }, { protocolVersion: 70_011 })
          yield* strict.remote.send(message)
          assert.strictEqual((yield* strict.peer.awaitShutdown)._tag, "ProtocolViolation")

          const old = yield* withRemote({ direction }, { protocolVersion: 70_010 })
          yield* old.remote.send(message, { _tag: "ping", nonce: 1n })
          yield* old.remote.receiveUntil("pong")
        }
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("drops a filterload with a wrong checksum, even without NODE_BLOOM", () =>
    Effect.gen(function* () {
      const { remote } = yield* withRemote({ direction }, {})
      const frame = remote.frames([bloom[1]!])
      frame[23]! ^= 1
      yield* remote.sendBytes(frame)
      yield* remote.send({ _tag: "ping", nonce: 1n })
      yield* remote.receiveUntil("pong")
    }).pipe(Effect.provide(Nonce.layer))
  )
})
