/** BIP324 key exchanges with a remote that breaks the rules, or that does not speak v2 on our network. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Result, Semaphore } from "effect"
import { TestClock } from "effect/testing"
import { Connection, type Handshake, Network, type Peer, Transport, Wire } from "effect-bitcoin-peer"
import { decoyPacket } from "../src/transport/bip324Packets.ts"
import { concat } from "./support/generators.ts"
import { fork, network, scripted, twoPeers, verack, version } from "./support/peers.ts"
import { keyPairs, noise, securedRemote } from "./support/secured.ts"
import { dialled, fresh, inbound, outbound } from "./support/transports.ts"

describe("a v2 handshake", () => {
  it.effect("fails with V2NotSpoken when the remote closes after our key", () =>
    Effect.gen(function* () {
      const { reason, theirs } = yield* outbound()
      yield* theirs.pull
      yield* theirs.close
      assert.deepStrictEqual(yield* reason, { _tag: "V2NotSpoken", by: "end" })
    }).pipe(fresh)
  )

  it.effect(
    "fails with V2NotSpoken when the remote answers our key with a v1 frame of our network, in any chunks",
    () =>
      Effect.gen(function* () {
        const reject = Wire.encodeFrames(network.magic, [
          { _tag: "reject", rejected: "", code: 1, reason: "malformed", hash: undefined }
        ])
        const hello = Result.getOrThrow(Wire.encodeFrames(network.magic, [version()]))
        for (const frame of [Result.getOrThrow(reject), hello]) {
          for (const transport of ["v2", "auto"] as const) {
            for (const cut of [frame.length, 1, 4, 15, 16]) {
              const { reason, theirs } = yield* Effect.provideService(
                outbound({ transport }),
                Transport.V1Peers,
                Transport.makeV1Peers()
              )
              theirs.write(frame.slice(0, cut))
              theirs.write(frame.slice(cut))
              assert.deepStrictEqual(yield* reason, { _tag: "V2NotSpoken", by: "version 1" })
            }
          }
        }
      }).pipe(fresh)
  )

  it.effect("begins with fewer than 240 bytes: bcoin bans after ten unreadable headers of 24 bytes", () =>
    Effect.gen(function* () {
      const lengths: Array<number> = []
      for (let turn = 0; turn < 50; turn++) {
        const { theirs } = yield* outbound()
        lengths.push((yield* theirs.pull).reduce((sum, { length }) => sum + length, 0))
      }
      assert.isBelow(Math.max(...lengths), 240)
      assert.isAbove(new Set(lengths).size, 10)
    }).pipe(fresh)
  )

  it.effect("limits our garbage to 175 bytes, and to 4,095 for a remote with P2P_V2 or one that dialed us", () =>
    Effect.gen(function* () {
      const limits: Array<number> = []
      const obfuscation: Transport.Obfuscation = {
        ...(yield* Transport.Obfuscation),
        keyPair: Effect.succeed(keyPairs[0]),
        garbage: (limit) => Effect.sync(() => (limits.push(limit), noise(0)))
      }
      for (const options of [
        {},
        { transport: "auto" },
        { remoteServices: Wire.Service.network },
        { remoteServices: Wire.Service.network | Wire.Service.p2pV2 }
      ] as const) {
        const { theirs } = yield* Effect.provideService(outbound(options), Transport.Obfuscation, obfuscation)
        yield* theirs.pull
      }
      const { theirs } = yield* Effect.provideService(inbound(), Transport.Obfuscation, obfuscation)
      theirs.write(noise(64))
      yield* theirs.pull
      assert.deepStrictEqual(limits, [175, 175, 175, 4_095, 4_095])
    }).pipe(fresh)
  )

  it.effect("times out when the remote stays silent or stops within the key exchange", () =>
    Effect.gen(function* () {
      for (const bytes of [0, 1, 63, 64, 100]) {
        const { reason, theirs } = yield* outbound({ handshakeTimeout: "20 seconds" })
        theirs.write(noise(bytes))
        yield* TestClock.adjust("20 seconds")
        const failed = yield* reason
        assert(failed._tag === "TimedOut")
        assert.strictEqual(failed.waitingFor, "key")
        assert.strictEqual(Duration.toSeconds(failed.after), 20)
      }
    }).pipe(fresh)
  )

  it.effect("times out waiting for version when a remote dials us and sends nothing", () =>
    Effect.gen(function* () {
      const { reason } = yield* inbound()
      yield* TestClock.adjust("60 seconds")
      const failed = yield* reason
      assert(failed._tag === "TimedOut")
      assert.strictEqual(failed.waitingFor, "version")
    }).pipe(fresh)
  )

  it.effect("fails with KeyExchangeFailed when no terminator follows 4,095 bytes of garbage", () =>
    Effect.gen(function* () {
      for (const { reason, theirs } of [yield* outbound(), yield* inbound()]) {
        theirs.write(noise(64 + 4_095 + 16))
        assert.strictEqual((yield* reason)._tag, "KeyExchangeFailed")
      }
    }).pipe(fresh)
  )

  it.effect("fails with WrongNetwork on a v1 version message of another network", () =>
    Effect.gen(function* () {
      const { making, reason, theirs } = yield* inbound()
      const hello = scripted(theirs).frames([version()])
      theirs.write(concat(Network.signet.magic, hello.subarray(4)))
      assert.deepStrictEqual(yield* reason, {
        _tag: "WrongNetwork",
        expected: network,
        received: Network.signet.magic
      })
      const error = yield* Effect.flip(Fiber.join(making))
      assert.strictEqual(error.message, "handshake failed: the peer is on signet, not on regtest")
    }).pipe(fresh)
  )

  /** Dials a v2 listener of another network; returns the errors of both sides after one second. */
  const otherNetwork = (other: Network.Network, garbage: number, options: Peer.Options = {}) =>
    Effect.gen(function* () {
      const obfuscation = { ...(yield* Transport.Obfuscation), garbage: () => Effect.succeed(noise(garbage)) }
      // Up to 4,095 bytes may follow our key only if the remote is known to support version 2.
      const known = { remoteServices: Wire.Service.p2pV2, ...options }
      const dialing = yield* fork(
        Effect.provideService(dialled(known, { network: other }), Transport.Obfuscation, obfuscation)
      )
      yield* TestClock.adjust("1 second")
      const { dials, others, result } = yield* Fiber.join(dialing)
      assert.strictEqual(dials, 1)
      const reasons = [result, ...others].map((one) => (one._tag === "Failure" ? one.failure.reason : undefined))
      return reasons as [Handshake.HandshakeReason, Handshake.HandshakeReason]
    })

  it.effect("fails with WrongNetwork within a second when the terminator is the one of another known network", () =>
    Effect.gen(function* () {
      for (const other of Network.all.filter(({ name }) => name !== network.name)) {
        // After 4,095 bytes of garbage only the terminator may follow, so this case needs no timer.
        for (const garbage of [0, 1, 100, 4_095]) {
          const [ours, theirs] = yield* otherNetwork(other, garbage)
          assert.deepStrictEqual(ours, { _tag: "WrongNetwork", expected: network, received: other.magic })
          // The first side that detects the other network closes the connection.
          if (theirs._tag !== "Disconnected") {
            assert.deepStrictEqual(theirs, { _tag: "WrongNetwork", expected: other, received: network.magic })
          }
        }
      }
    }).pipe(fresh)
  )

  it.effect("fails with KeyExchangeFailed or times out when the terminator is of no known network", () =>
    Effect.gen(function* () {
      const custom = { ...Network.signet, name: "custom", magic: Uint8Array.of(1, 2, 3, 4) }
      const ownCustom = { ...custom, magic: Uint8Array.of(1, 2, 3, 5) }
      const [ours] = yield* otherNetwork(custom, 4_095)
      assert.strictEqual(ours._tag, "KeyExchangeFailed")
      const short = yield* fork(otherNetwork(custom, 10, { network: ownCustom, handshakeTimeout: "30 seconds" }))
      yield* TestClock.adjust("29 seconds")
      const [error] = yield* Fiber.join(short)
      assert(error._tag === "TimedOut")
      assert.strictEqual(error.waitingFor, "key")
    }).pipe(fresh)
  )

  it.effect("fails with WrongNetwork when the remote answers our key with a v1 frame of another network", () =>
    Effect.gen(function* () {
      for (const magic of [Network.mainnet.magic, Uint8Array.of(1, 2, 3, 4)]) {
        const frames = Wire.encodeFrames(magic, [
          { _tag: "reject", rejected: "", code: 1, reason: "malformed", hash: undefined }
        ])
        const frame = Result.getOrThrow(frames)
        for (const cut of [frame.length, 1, 4, 15, 16]) {
          const { reason, theirs } = yield* outbound({ transport: "auto" })
          theirs.write(frame.slice(0, cut))
          theirs.write(frame.slice(cut))
          assert.deepStrictEqual(yield* reason, { _tag: "WrongNetwork", expected: network, received: magic })
        }
      }
    }).pipe(fresh)
  )

  it.effect("completes when the terminator of our network takes longer than a second", () =>
    Effect.gen(function* () {
      const both = yield* fork(twoPeers({ transport: "v2" }, { transport: "v2" }, { delay: "3 seconds" }))
      yield* TestClock.adjust("20 seconds")
      const [ours] = yield* Fiber.join(both)
      assert.strictEqual(ours.info.transport, "v2")
    }).pipe(fresh)
  )

  for (const role of ["initiator", "responder"] as const) {
    const begin = () => (role === "initiator" ? inbound() : outbound())

    it.effect(`with a remote ${role} completes after decoys and a version packet with contents`, () =>
      Effect.gen(function* () {
        const { making, theirs } = yield* begin()
        const remote = yield* securedRemote(theirs, role, { decoys: [10, 0], garbage: noise(4_095) })
        yield* remote.sendBytes(remote.seal(decoyPacket(70)))
        yield* remote.send(version())
        yield* remote.receiveUntil("version")
        yield* remote.sendBytes(remote.seal(decoyPacket(5)))
        yield* remote.send(verack)
        const peer = yield* Fiber.join(making)
        assert.strictEqual(peer.info.transport, "v2")
        assert.deepStrictEqual(peer.info.sessionId, remote.secrets.sessionId)
      }).pipe(fresh)
    )

    it.effect(`with a remote ${role} fails on a packet with a wrong tag, in the key exchange and after it`, () =>
      Effect.gen(function* () {
        const { making, theirs } = yield* begin()
        const remote = yield* securedRemote(theirs, role)
        yield* remote.send(version(), verack)
        const peer = yield* Fiber.join(making)
        const bytes = remote.seal(decoyPacket(9))
        bytes[12]! ^= 1
        yield* remote.sendBytes(bytes)
        const end = yield* peer.awaitShutdown
        assert(end._tag === "BadMessage")
        assert.strictEqual(end.error.reason._tag, "NotAuthentic")

        const second = yield* begin()
        const broken: Connection.Connection = {
          ...second.theirs,
          pull: second.theirs.pull,
          // The version packet is written last.
          write: (bytes) => {
            const altered = bytes.slice()
            if (altered.length < 64) altered[altered.length - 1]! ^= 1
            return second.theirs.write(altered)
          }
        }
        yield* fork(securedRemote(broken, role))
        assert.deepStrictEqual(yield* second.reason, {
          _tag: "KeyExchangeFailed",
          problem: "wrong authentication tag"
        })
      }).pipe(fresh)
    )

    it.effect(`with a remote ${role} ends the peer with PayloadTooLarge on a packet length above the limit`, () =>
      Effect.gen(function* () {
        const { making, theirs } = yield* begin()
        const remote = yield* securedRemote(theirs, role)
        yield* remote.send(version(), verack)
        const peer = yield* Fiber.join(making)
        const length = 4_000_014 ^ remote.secrets.send.lengthMask()
        yield* remote.sendBytes(Uint8Array.of(length, length >>> 8, length >>> 16))
        const end = yield* peer.awaitShutdown
        assert(end._tag === "BadMessage")
        assert.strictEqual(end.error.reason._tag, "PayloadTooLarge")
      }).pipe(fresh)
    )
  }

  it.effect("waits for Transport.Admission if it is inbound, and not if it is outbound", () =>
    Effect.gen(function* () {
      const turns = yield* Semaphore.make(1)
      yield* Semaphore.take(turns, 1)
      const admitted = Effect.provideService(Transport.Admission, turns)
      const queued = yield* admitted(inbound())
      const ours = yield* admitted(outbound())
      yield* ours.theirs.pull
      const remote = yield* fork(securedRemote(queued.theirs, "initiator"))
      yield* TestClock.adjust("1 second")
      assert.isUndefined(remote.pollUnsafe())
      yield* Semaphore.release(turns, 1)
      const { send } = yield* Fiber.join(remote)
      yield* send(version(), verack)
      assert.strictEqual((yield* Fiber.join(queued.making)).info.transport, "v2")
    }).pipe(fresh)
  )

  it.effect("makes no key for an inbound remote that closes while it waits for Transport.Admission", () =>
    Effect.gen(function* () {
      const turns = yield* Semaphore.make(1)
      yield* Semaphore.take(turns, 1)
      let made = 0
      const obfuscation = yield* Transport.Obfuscation
      const keyPair = Effect.tap(obfuscation.keyPair, () => Effect.sync(() => void made++))
      const remotes = yield* Effect.forEach(Array.from({ length: 100 }), () => inbound()).pipe(
        Effect.provideService(Transport.Admission, turns),
        Effect.provideService(Transport.Obfuscation, { ...obfuscation, keyPair })
      )
      for (const { theirs } of remotes) {
        theirs.write(Uint8Array.of(1))
        yield* theirs.close
      }
      yield* Semaphore.release(turns, 1)
      for (const { making } of remotes) {
        assert.strictEqual((yield* Effect.flip(Fiber.join(making))).reason._tag, "Disconnected")
      }
      assert.strictEqual(made, 0)
    }).pipe(fresh)
  )
})
