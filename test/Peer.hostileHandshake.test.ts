/** Hostile remotes during the handshake: it tolerates them or fails with the right reason, and memory stays bounded. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Nonce, Policy, Wire } from "effect-bitcoin-peer"
import { filler, network, ping, verack, version } from "./support/peers.ts"
import { inv } from "./support/requests.ts"
import {
  assertKeeps,
  assertKept,
  assertUnharmed,
  begun,
  connected,
  count,
  directions,
  endOf,
  flood,
  frames,
  header,
  memory,
  MiB,
  refusal,
  scale
} from "./support/hostile.ts"
import { dice } from "./support/dice.ts"

describe.each(directions)("the handshake of an %s peer with a hostile remote", (direction) => {
  // v1 only: under "auto" an inbound peer takes first bytes that are not a version message for a BIP324 key.
  const options = { direction, transport: "v1" } as const

  it.effect.each([
    ["a byte a second", 1_000, 60],
    ["a byte a minute", 60_000, 1]
  ] as const)("times out after 60 seconds when the remote sends %s (slow loris)", ([, every, bytes]) =>
    Effect.gen(function* () {
      const session = yield* begun(options)
      const slow = frames([version()])
      for (let at = 0; at < bytes; at++) {
        assert.isUndefined(session.making.pollUnsafe())
        yield* session.remote.sendBytes(slow.subarray(at, at + 1))
        yield* TestClock.adjust(every)
      }
      const reason = yield* refusal(session)
      assert(reason._tag === "TimedOut")
      assert.strictEqual(reason.waitingFor, "version")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("times out waiting for verack when the remote sends version and then an unknown message every second", () =>
    Effect.gen(function* () {
      const session = yield* begun(options)
      yield* session.remote.send(version())
      yield* assertKeeps(
        MiB,
        Effect.gen(function* () {
          for (let second = 0; second < 60; second++) {
            assert.isUndefined(session.making.pollUnsafe())
            yield* session.remote.send(filler(100_000))
            yield* TestClock.adjust("1 second")
          }
        })
      )
      const reason = yield* refusal(session)
      assert(reason._tag === "TimedOut")
      assert.strictEqual(reason.waitingFor, "verack")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each([0, 1, 3, 4, 12, 23])(
    "times out after 60 seconds when the remote stops after %d bytes of a header",
    (bytes) =>
      Effect.gen(function* () {
        const session = yield* begun(options)
        yield* session.remote.sendBytes(frames([version()]).subarray(0, bytes))
        yield* TestClock.adjust("59999 millis")
        assert.isUndefined(session.making.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual((yield* refusal(session))._tag, "TimedOut")
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("allocates nothing for a header that announces 4,000,000 bytes (20 remotes at once)", () =>
    Effect.gen(function* () {
      const sessions = yield* assertKeeps(
        4 * MiB,
        Effect.forEach(count(20, Number), () =>
          Effect.gen(function* () {
            const session = yield* begun(options)
            yield* session.remote.sendBytes(header("version", 4_000_000))
            yield* TestClock.adjust(0)
            return session
          })
        )
      )
      yield* TestClock.adjust("60 seconds")
      for (const session of sessions) assert.strictEqual((yield* refusal(session))._tag, "TimedOut")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fails with BadMessage on a header that announces 4,000,001 bytes", () =>
    Effect.gen(function* () {
      const session = yield* begun(options)
      yield* session.remote.sendBytes(header("version", 4_000_001))
      const reason = yield* refusal(session)
      assert(reason._tag === "BadMessage")
      assert.strictEqual(reason.error.reason._tag, "PayloadTooLarge")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each([
    verack,
    ping(1),
    inv(1, 2),
    filler(10),
    { _tag: "wtxidrelay" },
    { _tag: "sendaddrv2" },
    { _tag: "getaddr" }
  ] satisfies ReadonlyArray<Wire.Message>)(
    "fails with NotVersionFirst on $_tag before version under btcd's policy",
    (message) =>
      Effect.gen(function* () {
        const session = yield* begun({ ...options, policy: Policy.btcd })
        yield* session.remote.send(message, version(), verack)
        const reason = yield* refusal(session)
        assert(reason._tag === "NotVersionFirst")
        assert.strictEqual(reason.received, Wire.command(message))
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ignores messages before version under Core's policy, keeps nothing of them, and times out", () =>
    Effect.gen(function* () {
      const session = yield* begun({ ...options, policy: Policy.core })
      const bytes = frames(count(10, () => inv(...count(1_000, () => 5))))
      yield* assertKeeps(MiB, flood(session.remote, bytes, 60))
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual((yield* refusal(session))._tag, "TimedOut")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ignores messages before verack: handlers never see them, nothing is kept, and it times out", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const session = yield* begun({
        ...options,
        handlers: { inv: () => void seen.push("inv"), ping: () => void seen.push("ping") }
      })
      const bytes = frames([inv(...count(1_000, () => 5)), ping(1), filler(1_000)])
      yield* session.remote.send(version())
      yield* session.remote.receiveUntil("verack")
      yield* assertKeeps(MiB, flood(session.remote, bytes, 500))
      yield* TestClock.adjust("60 seconds")
      const reason = yield* refusal(session)
      assert(reason._tag === "TimedOut")
      assert.strictEqual(reason.waitingFor, "verack")
      assert.deepStrictEqual(seen, [])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fails with DuplicateVersion on a second version under btcd's policy", () =>
    Effect.gen(function* () {
      const session = yield* begun({ ...options, policy: Policy.btcd })
      yield* session.remote.send(version(), version(), verack)
      assert.strictEqual((yield* refusal(session))._tag, "DuplicateVersion")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "keeps nothing of 10,000 duplicate versions, wtxidrelays and features under Core's policy, and times out",
    () =>
      Effect.gen(function* () {
        const session = yield* begun({ ...options, policy: Policy.core })
        const feature: Wire.Message = { _tag: "feature", id: "BIP-9999", data: new Uint8Array(512) }
        const bytes = frames(count(100, () => [version(), { _tag: "wtxidrelay" } as const, feature]).flat())
        yield* assertKeeps(MiB, flood(session.remote, bytes, 100))
        yield* TestClock.adjust("60 seconds")
        assert.strictEqual((yield* refusal(session))._tag, "TimedOut")
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("remembers a bounded number of 20,000 or more different features", () =>
    Effect.gen(function* () {
      const session = yield* begun(options)
      yield* session.remote.send(version())
      const before = memory()
      for (let from = 0; from < 20_000 * scale; from += 1_000) {
        const features = count(1_000, (index): Wire.Message => ({
          _tag: "feature",
          id: `FEATURE-${from + index}`,
          data: new Uint8Array(512)
        }))
        yield* Effect.exit(flood(session.remote, frames(features), 1))
      }
      yield* assertKept(before, 2 * MiB, "the handshake keeps features without a bound")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("drops 10,000 messages with wrong checksums and times out", () =>
    Effect.gen(function* () {
      const session = yield* begun(options)
      yield* session.remote.send(version())
      const bad = frames(count(100, () => filler(1_000)))
      for (let at = 0; at < bad.length; at += 1_024) bad[at + 20]! ^= 1
      yield* assertKeeps(MiB, flood(session.remote, bad, 100))
      yield* TestClock.adjust("60 seconds")
      assert.strictEqual((yield* refusal(session))._tag, "TimedOut")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fails with Disconnected when the remote closes or resets after any byte of its handshake", () =>
    Effect.gen(function* () {
      const bytes = frames([version(), { _tag: "wtxidrelay" }, { _tag: "sendaddrv2" }, verack])
      for (let size = 0; size <= bytes.length; size++) {
        for (const how of ["closes", "resets"] as const) {
          const session = yield* begun(options)
          yield* session.remote.sendBytes(bytes.subarray(0, size))
          yield* how === "closes" ? session.remote.connection.close : session.pair.reset()
          if (size === bytes.length) {
            const peer = yield* Fiber.await(session.making)
            // The handshake was complete: the peer may be made before it notices the end, and then ends at once.
            if (peer._tag === "Success") {
              const reason = yield* peer.value.awaitShutdown
              assert.include(["RemoteClosed", "ConnectionLost", "ScopeClosed"], reason._tag)
            } else assert.strictEqual((yield* refusal(session))._tag, "Disconnected")
            continue
          }
          const reason = yield* refusal(session)
          assert(reason._tag === "Disconnected", `${how} after ${size} bytes: ${reason._tag}`)
          assert.strictEqual(reason.error.reason._tag, how === "closes" ? "Closed" : "Reset")
        }
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fails with Disconnected when the connection is cut after any byte that we send", () =>
    Effect.gen(function* () {
      for (let size = 0; size < 250; size++) {
        const session = yield* begun(options, { cutAfter: [size, undefined] })
        yield* session.remote.send(version(), verack)
        const exit = yield* Fiber.await(session.making)
        if (exit._tag === "Success") {
          // The cut came after our last byte, or within our answer to a version and verack received in one batch.
          assert.include(["ConnectionLost", "ScopeClosed"], (yield* exit.value.awaitShutdown)._tag)
        } else assert.strictEqual((yield* refusal(session))._tag, "Disconnected", `cut after ${size}`)
        assert.strictEqual(session.tracker.waiting(), 0)
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fails with WrongNetwork, BadMessage or TimedOut on random bytes before or after version (200 seeds)", () =>
    Effect.gen(function* () {
      const stages: ReadonlyArray<Uint8Array> = [new Uint8Array(0), frames([version()])]
      for (let seed = 0; seed < 200; seed++) {
        const random = dice(seed)
        const garbage = random.bytes(1 + random.below(2_000))
        // Bytes that begin with the right magic reach the checks after it.
        if (random.chance(0.5)) garbage.set(network.magic.subarray(0, garbage.length))
        const session = yield* begun(options)
        yield* session.remote.sendBytes(random.pick(stages))
        yield* session.remote.sendBytes(garbage)
        yield* TestClock.adjust("60 seconds")
        const reason = yield* refusal(session)
        assert.include(["WrongNetwork", "BadMessage", "TimedOut"], reason._tag, `seed ${seed}`)
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("completes with a remote that sends and receives one byte at a time", () =>
    Effect.gen(function* () {
      const session = yield* connected(options, { split: [1], window: 1 })
      yield* session.remote.send(filler(200))
      yield* assertUnharmed(session)
      yield* session.peer.disconnect("done")
      assert.strictEqual((yield* endOf(session))._tag, "Requested")
    }).pipe(Effect.provide(Nonce.layer))
  )
})
