/** Choosing the transport (BIP324): v1, v2 and fallback between two of our peers, obfuscation, and P2P_V2. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"
import { Connection, Peer, Transport, Wire } from "effect-bitcoin-peer"
import { fork, network, scripted, twoPeers, verack, version } from "./support/peers.ts"
import { keyPairs, noise } from "./support/secured.ts"
import { dialled, fresh, outbound, outcome } from "./support/transports.ts"

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

  it.effect("use v1 if the outbound one is made without `dial`: falling back to v1 needs a second connection", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* twoPeers()
      assert.deepStrictEqual([ours.info.transport, theirs.info.transport], ["v1", "v1"])
      assert.isUndefined(ours.info.sessionId)
      assert.notProperty(yield* ours.stats, "sessionId")
    })
  )

  it.effect("have the same session id, a new one for each connection, and report it in their statistics", () =>
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

  it.effect("exchange messages of all sizes in order over v2, in any chunks", () =>
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
        // The pong arrives after the answers, but the handlers of the answers may still have to run.
        yield* ours.ping
        while (back.length < sizes.length) yield* Effect.yieldNow
        assert.deepStrictEqual(received, sizes)
        assert.deepStrictEqual(back, sizes)
      }
    })
  )

  it.effect("connect with garbage and decoys of any allowed length", () =>
    Effect.gen(function* () {
      for (const [garbage, decoys] of [
        [0, []],
        [1, [0]],
        [4_095, [0, 1, 70_000]]
      ] as const) {
        const obfuscation: Transport.Obfuscation = {
          keyPair: Effect.succeed(keyPairs[0]),
          garbage: () => Effect.succeed(noise(garbage)),
          decoys: Effect.succeed(decoys)
        }
        const [ours, theirs] = yield* Effect.provideService(
          twoPeers({ transport: "v2", remoteServices: Wire.Service.p2pV2 }, { transport: "v2" }),
          Transport.Obfuscation,
          obfuscation
        )
        yield* ours.ping
        yield* theirs.ping
      }
    })
  )

  it.effect("fail with BadOptions when their own obfuscation breaks the rules", () =>
    Effect.gen(function* () {
      const obfuscation = yield* Transport.Obfuscation
      for (const broken of [
        { ...obfuscation, garbage: () => Effect.succeed(noise(4_096)) },
        // The limit of a node that may not support version 2.
        { ...obfuscation, garbage: () => Effect.succeed(noise(176)) },
        { ...obfuscation, decoys: Effect.succeed([4_000_014]) }
      ]) {
        const { reason, theirs } = yield* Effect.provideService(outbound(), Transport.Obfuscation, broken)
        theirs.write(noise(64))
        assert.strictEqual((yield* reason)._tag, "BadOptions")
      }
    }).pipe(fresh)
  )
})

describe("Transport.makeObfuscation", () => {
  it.effect("draws garbage and decoys from the given randomness, within its limits", () =>
    Effect.gen(function* () {
      const seeded = (seed: number) => {
        let next = seed
        return Transport.makeObfuscation({ maximumGarbage: 9, maximumDecoys: 3, maximumDecoyLength: 20 }).pipe(
          Effect.provideService(
            SecureRandom.SecureRandom,
            SecureRandom.make((size) => noise(size, next++))
          )
        )
      }
      const [one, same] = [yield* seeded(5), yield* seeded(5)]
      const lengths = new Set<number>()
      for (let turn = 0; turn < 100; turn++) {
        const garbage = yield* one.garbage(4_095)
        const decoys = yield* one.decoys
        assert.deepStrictEqual([yield* same.garbage(4_095), yield* same.decoys], [garbage, decoys])
        assert.isAtMost(garbage.length, 9)
        assert.isAtMost(decoys.length, 3)
        for (const length of decoys) assert.isAtMost(length, 20)
        lengths.add(garbage.length)
      }
      assert.strictEqual(lengths.size, 10)
    })
  )

  it.effect(
    "by default gives garbage of a random length up to the limit, no decoys, and a new key for each connection",
    () =>
      Effect.gen(function* () {
        const { decoys, garbage, keyPair } = yield* Transport.Obfuscation
        for (const limit of [0, 175, 4_095]) {
          const lengths: Array<number> = []
          for (let turn = 0; turn < 50; turn++) lengths.push((yield* garbage(limit)).length)
          assert.isAtMost(Math.max(...lengths), limit)
          // 50 random lengths all stay below half of the limit with a probability of 2^-50.
          assert.isAtLeast(Math.max(...lengths), Math.floor(limit / 2))
        }
        assert.deepStrictEqual(yield* decoys, [])
        assert.notDeepEqual((yield* keyPair).publicKey, (yield* keyPair).publicKey)
      })
  )
})

describe("the fallback to v1", () => {
  it.effect("makes the next dial to that address v1 only, until its node offers P2P_V2", () =>
    Effect.gen(function* () {
      const first = yield* dialled({}, { transport: "v1" })
      assert.strictEqual(first.dials, 2)
      const second = yield* dialled({}, {})
      assert.strictEqual(second.dials, 1)
      assert.strictEqual(outcome(second.result), "v1")
      // The node of the second dial announced P2P_V2.
      const third = yield* dialled({}, {})
      assert.strictEqual(outcome(third.result), "v2")
    }).pipe(fresh)
  )

  it.effect("is not remembered for a node that closed after our key and then offers P2P_V2 over v1", () =>
    Effect.gen(function* () {
      const connections: Array<Connection.Connection> = []
      const connect = Effect.map(Connection.makePair(), ([ours, theirs]) => {
        connections.push(theirs)
        return ours
      })
      const known = yield* Transport.V1Peers
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

  it.effect("happens after 15 seconds without an answer to our key", () =>
    Effect.gen(function* () {
      const connections: Array<Connection.Connection> = []
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

  it.effect("does not happen when the remote sent any byte, or when the dial itself fails", () =>
    Effect.gen(function* () {
      const connections: Array<Connection.Connection> = []
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

  it.effect("closes the first connection before it opens the second, and the second with the scope", () =>
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

  it.effect("is skipped for a node whose known services lack P2P_V2: the first dial is v1", () =>
    Effect.gen(function* () {
      const remoteServices = Wire.Service.network | Wire.Service.witness
      const plain = yield* dialled({ remoteServices }, { transport: "v1" })
      assert.strictEqual(plain.dials, 1)
      assert.strictEqual(outcome(plain.result), "v1")
      // The caller's remoteServices decide, even if the node supports v2.
      const able = yield* dialled({ remoteServices }, {})
      assert.deepStrictEqual([able.dials, outcome(able.result)], [1, "v1"])
      // An address is remembered only after a failed v2 dial, not for its services.
      assert.isFalse((yield* Transport.V1Peers).has({ host: "192.0.2.2", port: 8333 }))
    }).pipe(fresh)
  )

  it.effect("happens also for a node whose known services include P2P_V2", () =>
    Effect.gen(function* () {
      const remoteServices = Wire.Service.network | Wire.Service.p2pV2
      const able = yield* dialled({ remoteServices }, {})
      assert.deepStrictEqual([able.dials, outcome(able.result)], [1, "v2"])
      const outdated = yield* dialled({ remoteServices }, { transport: "v1" })
      assert.deepStrictEqual([outdated.dials, outcome(outdated.result)], [2, "v1"])
    }).pipe(fresh)
  )

  it.effect('never happens with transport "v2", even for a node without P2P_V2', () =>
    Effect.gen(function* () {
      const { result } = yield* dialled({ remoteServices: Wire.Service.network, transport: "v2" }, {})
      assert.strictEqual(outcome(result), "v2")
    }).pipe(fresh)
  )

  it("remembers a limited number of addresses (100 by default), those used last", () => {
    const known = Transport.makeV1Peers(2)
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
    const many = Transport.makeV1Peers()
    for (let port = 0; port <= 100; port++) many.add(at(port))
    assert.deepStrictEqual([many.has(at(0)), many.has(at(1))], [false, true])
  })
})

describe("P2P_V2", () => {
  it.effect("is announced by an inbound peer that accepts v2, and by no other peer", () =>
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
