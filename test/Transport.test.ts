import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Layer, Result, Schema, Scope, Semaphore } from "effect"
import { SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"
import { Connection, Handshake, Network, Nonce, Peer, Transport, Wire } from "effect-bitcoin-peer"
import { decoyPacket } from "../src/transport/bip324Packets.ts"
import { concat } from "./support/generators.ts"
import { fork } from "./support/hostile.ts"
import { network, scripted, twoPeers, verack, version } from "./support/peers.ts"
import { keyPairs, noise, securedRemote } from "./support/secured.ts"

/** A memory of its own for each test. */
const fresh = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() =>
    effect.pipe(
      Effect.provideService(Transport.OnlyVersion1, Transport.makeOnlyVersion1()),
      Effect.provide(Nonce.layer)
    )
  )

/** Dials a listener that makes an inbound peer of each connection; says how often it was dialled and what both became. */
const dialled = Effect.fnUntraced(function* (
  outbound: Peer.Options,
  inbound: Peer.Options,
  pairOptions: Connection.PairOptions = {}
) {
  const accepted: Array<Fiber.Fiber<Peer.Peer["Service"], Handshake.HandshakeError>> = []
  const scope = yield* Effect.scope
  const connect = Effect.gen(function* () {
    const [ours, theirs] = yield* Connection.makePair(pairOptions)
    accepted.push(
      yield* Peer.make(theirs, { network, direction: "inbound", ...inbound }).pipe(
        Effect.provide(Layer.fresh(Nonce.layer)),
        Scope.provide(scope),
        Effect.forkIn(scope, { startImmediately: true })
      )
    )
    return ours
  })
  const result = yield* Effect.result(Peer.dial(connect, { network, requiredServices: [], ...outbound }))
  const others = yield* Effect.forEach(accepted, (fiber) => Effect.result(Fiber.join(fiber)))
  return { result, others, dials: accepted.length }
})

const outcome = (result: {
  readonly _tag: string
  readonly success?: Peer.Peer["Service"]
  readonly failure?: { readonly reason: { readonly _tag: string; readonly by?: string } }
}): string => {
  if (result.success !== undefined) return result.success.info.transport
  const reason = result.failure!.reason
  return reason.by === undefined ? reason._tag : `${reason._tag} by ${reason.by}`
}

describe("two peers", () => {
  const table: ReadonlyArray<
    readonly [Transport.Transport | undefined, Transport.Transport | undefined, string, ReadonlyArray<string>]
  > = [
    ["v1", "v1", "v1", ["v1"]],
    ["v1", "auto", "v1", ["v1"]],
    ["v1", undefined, "v1", ["v1"]],
    ["v1", "v2", "Disconnected", ["V2NotSpoken by version 1"]],
    ["v2", "v1", "V2NotSpoken by end", ["WrongNetwork"]],
    ["v2", "auto", "v2", ["v2"]],
    ["v2", "v2", "v2", ["v2"]],
    ["auto", "v1", "v1", ["WrongNetwork", "v1"]],
    ["auto", "auto", "v2", ["v2"]],
    ["auto", "v2", "v2", ["v2"]],
    [undefined, "v1", "v1", ["WrongNetwork", "v1"]],
    [undefined, undefined, "v2", ["v2"]]
  ]

  for (const [outbound, inbound, ours, theirs] of table) {
    const name = `${outbound ?? "the default"} dials ${inbound ?? "the default"}: ${ours}, ${theirs.join(", then ")}`
    it.effect(name, () =>
      Effect.gen(function* () {
        const { others, result } = yield* dialled({ transport: outbound }, { transport: inbound })
        assert.strictEqual(outcome(result), ours)
        assert.deepStrictEqual(others.map(outcome), theirs)
      }).pipe(fresh)
    )
  }

  it.effect("without `dial` an outbound one speaks version 1, for a connection cannot be spoken twice", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* twoPeers()
      assert.deepStrictEqual([ours.info.transport, theirs.info.transport], ["v1", "v1"])
      assert.isUndefined(ours.info.sessionId)
      assert.notProperty(yield* ours.stats, "sessionId")
    })
  )

  it.effect("have the same session id, another one each time, and show it in their statistics", () =>
    Effect.gen(function* () {
      const ids: Array<string> = []
      for (const _ of [1, 2]) {
        const [ours, theirs] = yield* twoPeers({ transport: "v2" })
        assert.strictEqual(ours.info.sessionId?.length, 32)
        assert.deepStrictEqual(ours.info.sessionId, theirs.info.sessionId)
        const stats = yield* Schema.encodeEffect(Peer.Stats)(yield* ours.stats)
        assert.strictEqual(stats.transport, "v2")
        assert.match(stats.sessionId ?? "", /^[0-9a-f]{64}$/)
        ids.push(stats.sessionId!)
      }
      assert.notStrictEqual(ids[0], ids[1])
    })
  )

  it.effect("talk as ever: messages of all sizes both ways, in order, however the bytes are cut", () =>
    Effect.gen(function* () {
      for (const split of [undefined, [1], [7, 1_000, 3], [20, 64, 16]] as const) {
        const received: Array<number> = []
        const big = (size: number): Wire.Message => ({ _tag: "Unknown", command: "big", payload: noise(size) })
        const [ours] = yield* twoPeers(
          { transport: "v2" },
          {
            handlers: {
              Unknown: ({ payload }, peer) =>
                Effect.suspend(() => {
                  assert.deepStrictEqual(payload, noise(payload.length))
                  received.push(payload.length)
                  return peer.send(big(payload.length))
                })
            }
          },
          split === undefined ? {} : { split }
        )
        const back: Array<number> = []
        yield* ours.handle({ Unknown: ({ payload }) => void back.push(payload.length) })
        const sizes = [0, 1, 100, 5_000, ...(split === undefined ? [1_000_000] : []), 2, 30]
        for (const size of sizes) yield* ours.send(big(size))
        // The pong comes behind the answers, whose handlers may still have to run.
        yield* ours.ping
        while (back.length < sizes.length) yield* Effect.yieldNow
        assert.deepStrictEqual(received, sizes)
        assert.deepStrictEqual(back, sizes)
      }
    })
  )

  it.effect("hide behind garbage and decoys of any length", () =>
    Effect.gen(function* () {
      for (const [garbage, decoys] of [
        [0, []],
        [1, [0]],
        [4_095, [0, 1, 70_000]]
      ] as const) {
        const disguise: Transport.Disguise = {
          keyPair: Effect.succeed(keyPairs[0]),
          garbage: Effect.succeed(noise(garbage)),
          decoys: Effect.succeed(decoys)
        }
        const [ours, theirs] = yield* Effect.provideService(
          twoPeers({ transport: "v2" }, { transport: "v2" }),
          Transport.Disguise,
          disguise
        )
        yield* ours.ping
        yield* theirs.ping
      }
    })
  )

  it.effect("say so where their own disguise breaks the rules", () =>
    Effect.gen(function* () {
      const disguise = yield* Transport.Disguise
      for (const broken of [
        { ...disguise, garbage: Effect.succeed(noise(4_096)) },
        { ...disguise, decoys: Effect.succeed([4_000_014]) }
      ]) {
        const { reason, theirs } = yield* Effect.provideService(outbound(), Transport.Disguise, broken)
        theirs.write(noise(64))
        assert.strictEqual((yield* reason)._tag, "BadOptions")
      }
    }).pipe(fresh)
  )
})

describe("Transport.makeDisguise", () => {
  it.effect("draws from the randomness it is given, within its bounds", () =>
    Effect.gen(function* () {
      const seeded = (seed: number) => {
        let next = seed
        return Transport.makeDisguise({ maximumGarbage: 9, maximumDecoys: 3, maximumDecoyLength: 20 }).pipe(
          Effect.provideService(
            SecureRandom.SecureRandom,
            SecureRandom.make((size) => noise(size, next++))
          )
        )
      }
      const [one, same] = [yield* seeded(5), yield* seeded(5)]
      const lengths = new Set<number>()
      for (let turn = 0; turn < 100; turn++) {
        const garbage = yield* one.garbage
        const decoys = yield* one.decoys
        assert.deepStrictEqual([yield* same.garbage, yield* same.decoys], [garbage, decoys])
        assert.isAtMost(garbage.length, 9)
        assert.isAtMost(decoys.length, 3)
        for (const length of decoys) assert.isAtMost(length, 20)
        lengths.add(garbage.length)
      }
      assert.strictEqual(lengths.size, 10)
    })
  )

  it.effect("by default gives garbage of 0 to 4,095 bytes and no decoys, each time other ones", () =>
    Effect.gen(function* () {
      const { decoys, garbage, keyPair } = yield* Transport.Disguise
      const both = [yield* garbage, yield* garbage, yield* garbage]
      for (const one of both) assert.isAtMost(one.length, 4_095)
      assert.isAbove(new Set(both.map(({ length }) => length)).size, 1)
      assert.deepStrictEqual(yield* decoys, [])
      assert.notDeepEqual((yield* keyPair).publicKey, (yield* keyPair).publicKey)
    })
  )
})

describe("who falls back to version 1", () => {
  it.effect("dials an address that is known for it once, until its node offers P2P_V2", () =>
    Effect.gen(function* () {
      const first = yield* dialled({}, { transport: "v1" })
      assert.strictEqual(first.dials, 2)
      const second = yield* dialled({}, {})
      assert.strictEqual(second.dials, 1)
      assert.strictEqual(outcome(second.result), "v1")
      // The node of the second time announced that it accepts version 2.
      const third = yield* dialled({}, {})
      assert.strictEqual(outcome(third.result), "v2")
    }).pipe(fresh)
  )

  it.effect("does not remember a node that closed on our key and says in version 1 that it speaks 2", () =>
    Effect.gen(function* () {
      const connections: Array<Connection.Connection["Service"]> = []
      const connect = Effect.map(Connection.makePair(), ([ours, theirs]) => {
        connections.push(theirs)
        return ours
      })
      const known = yield* Transport.OnlyVersion1
      const dialing = yield* fork(Peer.dial(connect, { network }))
      yield* connections[0]!.pull
      yield* connections[0]!.close
      while (connections.length < 2) yield* Effect.yieldNow
      const remote = scripted(connections[1]!)
      yield* remote.receiveUntil("version")
      assert.isTrue(known.has({ host: "192.0.2.2", port: 8333 }))
      yield* remote.send(version({ services: 9n | Wire.Service.p2pV2 }), verack)
      assert.strictEqual((yield* Fiber.join(dialing)).info.transport, "v1")
      assert.isFalse(known.has({ host: "192.0.2.2", port: 8333 }))
    }).pipe(fresh)
  )

  it.effect("waits 15 seconds for a silent peer, and not for one that has begun to answer", () =>
    Effect.gen(function* () {
      const connections: Array<Connection.Connection["Service"]> = []
      const connect = Effect.map(Connection.makePair(), ([ours, theirs]) => {
        connections.push(theirs)
        return ours
      })
      const dial = () => fork(Peer.dial(connect, { network }))
      const silent = yield* dial()
      yield* TestClock.adjust("14999 millis")
      assert.strictEqual(connections.length, 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(connections.length, 2)
      yield* Effect.flip(Effect.forever(connections[0]!.pull))
      const remote = scripted(connections[1]!)
      yield* remote.receiveUntil("version")
      yield* remote.send(version(), verack)
      assert.strictEqual((yield* Fiber.join(silent)).info.transport, "v1")
    }).pipe(fresh)
  )

  it.effect("does not when the peer said anything at all, nor when the dial itself fails", () =>
    Effect.gen(function* () {
      const connections: Array<Connection.Connection["Service"]> = []
      const connect = Effect.map(Connection.makePair(), ([ours, theirs]) => {
        connections.push(theirs)
        return ours
      })
      const spoken = yield* fork(Effect.flip(Peer.dial(connect, { network })))
      connections[0]!.write(Uint8Array.of(1))
      yield* TestClock.adjust("15 seconds")
      yield* connections[0]!.close
      const error = yield* Fiber.join(spoken)
      assert.strictEqual(error.reason._tag, "Disconnected")
      assert.strictEqual(connections.length, 1)

      let dials = 0
      const refused = Effect.suspend(() => {
        dials++
        return Effect.fail("refused" as const)
      })
      assert.strictEqual(yield* Effect.flip(Peer.dial(refused, { network })), "refused")
      assert.strictEqual(dials, 1)
    }).pipe(fresh)
  )

  it.effect("leaves no connection open: the first is closed before the second is made, both with the scope", () =>
    Effect.gen(function* () {
      const events: Array<string> = []
      const connect = Effect.gen(function* () {
        const number = events.filter((event) => event.startsWith("open")).length + 1
        const [ours, theirs] = yield* Connection.makePair()
        yield* Effect.acquireRelease(
          Effect.sync(() => void events.push(`open ${number}`)),
          () => Effect.sync(() => void events.push(`close ${number}`))
        )
        yield* fork(
          Effect.ignore(
            Effect.scoped(
              Peer.make(theirs, { network, direction: "inbound", transport: "v1", allowSelfConnection: true })
            )
          )
        )
        return ours
      })
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Peer.dial(connect, { network, requiredServices: [], allowSelfConnection: true })
          assert.deepStrictEqual(events, ["open 1", "close 1", "open 2"])
        })
      )
      assert.deepStrictEqual(events, ["open 1", "close 1", "open 2", "close 2"])
    }).pipe(fresh)
  )

  it("remembers so many addresses, those used last", () => {
    const known = Transport.makeOnlyVersion1(2)
    const at = (port: number) => ({ host: "192.0.2.1", port })
    known.add(at(1))
    known.add(at(2))
    assert.isTrue(known.has(at(1)))
    known.add(at(3))
    assert.deepStrictEqual(
      [1, 2, 3].map((port) => known.has(at(port))),
      [true, false, true]
    )
    known.remove(at(1))
    assert.isFalse(known.has(at(1)))
    const many = Transport.makeOnlyVersion1()
    for (let port = 0; port <= 100; port++) many.add(at(port))
    assert.deepStrictEqual([many.has(at(0)), many.has(at(1))], [false, true])
  })
})

describe("P2P_V2", () => {
  it.effect("is announced to whoever comes where version 2 is accepted, and by nobody else", () =>
    Effect.gen(function* () {
      for (const [transport, offered] of [
        ["v1", "v1"],
        ["auto", "v1"],
        ["auto", "v2"],
        ["v2", "v2"]
      ] as const) {
        const [ours, theirs] = yield* twoPeers({ transport: offered, services: 1n }, { transport, services: 9n })
        assert.strictEqual(ours.info.services, transport === "v1" ? 9n : 9n | Wire.Service.p2pV2)
        assert.strictEqual(theirs.info.services, 1n)
      }
    })
  )
})

/** Our outbound handshake in version 2, and the raw other end. */
const outbound = Effect.fnUntraced(function* (options: Peer.Options = {}) {
  const [ours, theirs] = yield* Connection.makePair()
  const making = yield* fork(Peer.make(ours, { network, transport: "v2", ...options }))
  return { making, theirs, reason: Effect.map(Effect.flip(Fiber.join(making)), ({ reason }) => reason) }
})

const inbound = (options: Peer.Options = {}) => outbound({ direction: "inbound", transport: "auto", ...options })

describe("a hostile or odd remote", () => {
  it.effect("closes on our key: it does not speak version 2", () =>
    Effect.gen(function* () {
      const { reason, theirs } = yield* outbound()
      yield* theirs.pull
      yield* theirs.close
      assert.deepStrictEqual(yield* reason, { _tag: "V2NotSpoken", by: "end" })
    }).pipe(fresh)
  )

  it.effect("answers our key with a version 1 frame of our network, however it arrives: it speaks version 1", () =>
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
              Transport.OnlyVersion1,
              Transport.makeOnlyVersion1()
            )
            theirs.write(frame.slice(0, cut))
            theirs.write(frame.slice(cut))
            assert.deepStrictEqual(yield* reason, { _tag: "V2NotSpoken", by: "version 1" })
          }
        }
      }
    }).pipe(fresh)
  )

  it.effect("gets fewer than 240 bytes with our key: bcoin bans at ten headers of 24 bytes that it cannot read", () =>
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

  it.effect("stays silent on our key, or stops in the middle: the handshake's time covers the key exchange", () =>
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

  it.effect("comes and says nothing: nobody knows what it speaks", () =>
    Effect.gen(function* () {
      const { reason } = yield* inbound()
      yield* TestClock.adjust("60 seconds")
      const failed = yield* reason
      assert(failed._tag === "TimedOut")
      assert.strictEqual(failed.waitingFor, "version")
    }).pipe(fresh)
  )

  it.effect("never ends its garbage", () =>
    Effect.gen(function* () {
      for (const { reason, theirs } of [yield* outbound(), yield* inbound()]) {
        theirs.write(noise(64 + 4_095 + 16))
        assert.strictEqual((yield* reason)._tag, "KeyExchangeFailed")
      }
    }).pipe(fresh)
  )

  it.effect("is a node of another network, in version 1", () =>
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

  it.effect("is a node of another network, in version 2: no key fits", () =>
    Effect.gen(function* () {
      const disguise = { ...(yield* Transport.Disguise), garbage: Effect.succeed(noise(4_095)) }
      const { others, result } = yield* Effect.provideService(
        dialled({ transport: "v2" }, { transport: "v2", network: Network.signet }),
        Transport.Disguise,
        disguise
      )
      assert.deepStrictEqual([outcome(result), ...others.map(outcome)], ["KeyExchangeFailed", "Disconnected"])
    }).pipe(fresh)
  )

  for (const role of ["initiator", "responder"] as const) {
    const begin = () => (role === "initiator" ? inbound() : outbound())

    it.effect(`as ${role} sends decoys first, and a version packet with contents`, () =>
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

    it.effect(`as ${role} sends a packet that is not authentic, in the key exchange or later`, () =>
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
        const broken: Connection.Connection["Service"] = {
          ...second.theirs,
          pull: second.theirs.pull,
          // The last bytes of what is written are those of the version packet.
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

    it.effect(`as ${role} announces a packet above the limit`, () =>
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

  it.effect("is a stranger among many: key exchanges wait for their turn, ours do not", () =>
    Effect.gen(function* () {
      const turns = yield* Semaphore.make(1)
      yield* Semaphore.take(turns, 1)
      const admitted = Effect.provideService(Transport.Admission, turns)
      const stranger = yield* admitted(inbound())
      const ours = yield* admitted(outbound())
      yield* ours.theirs.pull
      const remote = yield* fork(securedRemote(stranger.theirs, "initiator"))
      yield* TestClock.adjust("1 second")
      assert.isUndefined(remote.pollUnsafe())
      yield* Semaphore.release(turns, 1)
      const { send } = yield* Fiber.join(remote)
      yield* send(version(), verack)
      assert.strictEqual((yield* Fiber.join(stranger.making)).info.transport, "v2")
    }).pipe(fresh)
  )

  it.effect("is a stranger who left before his turn: no key is made for him", () =>
    Effect.gen(function* () {
      const turns = yield* Semaphore.make(1)
      yield* Semaphore.take(turns, 1)
      let made = 0
      const disguise = yield* Transport.Disguise
      const keyPair = Effect.tap(disguise.keyPair, () => Effect.sync(() => void made++))
      const strangers = yield* Effect.forEach(Array.from({ length: 100 }), () => inbound()).pipe(
        Effect.provideService(Transport.Admission, turns),
        Effect.provideService(Transport.Disguise, { ...disguise, keyPair })
      )
      for (const { theirs } of strangers) {
        theirs.write(Uint8Array.of(1))
        yield* theirs.close
      }
      yield* Semaphore.release(turns, 1)
      for (const { making } of strangers) {
        assert.strictEqual((yield* Effect.flip(Fiber.join(making))).reason._tag, "Disconnected")
      }
      assert.strictEqual(made, 0)
    }).pipe(fresh)
  )
})
