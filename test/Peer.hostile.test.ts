/** Hostile remotes after the handshake: the peer tolerates them or ends with the right reason, and its memory stays bounded. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Nonce, Peer, Policy, Wire } from "effect-bitcoin-peer"
import { filler, fork, ping, verack, version } from "./support/peers.ts"
import {
  block,
  getdata,
  hash,
  header as blockHeader,
  inv,
  item,
  notfound,
  transaction,
  tx
} from "./support/requests.ts"
import {
  assertKeeps,
  assertKept,
  assertUnharmed,
  connected,
  count,
  directions,
  endOf,
  flood,
  frames,
  header,
  memory,
  MiB,
  scale
} from "./support/hostile.ts"
import { dice } from "./support/dice.ts"

describe.each(directions)("an %s peer with a hostile remote", (direction) => {
  const start = <H extends Peer.Handlers<unknown> = Peer.Handlers>(options: Peer.Options<H> = {}) =>
    connected({ direction, ...options })

  it.effect("ends with PingTimeout when the remote sends one byte a minute (slow loris)", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const slow = frames([filler(100)])
      for (let minute = 0; minute < 22; minute++) {
        assert.isUndefined(session.ending.pollUnsafe(), `ended after ${minute} minutes`)
        yield* session.remote.sendBytes(slow.subarray(minute, minute + 1))
        yield* TestClock.adjust("1 minute")
      }
      assert.strictEqual((yield* endOf(session))._tag, "PingTimeout")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each([1, 4, 12, 23])(
    "ends with IdleTimeout after 20 minutes when the remote stops after %d bytes of a header",
    (bytes) =>
      Effect.gen(function* () {
        const session = yield* start()
        yield* session.remote.sendBytes(frames([ping(1)]).subarray(0, bytes))
        yield* TestClock.adjust("1199 seconds")
        assert.isUndefined(session.ending.pollUnsafe())
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* endOf(session))._tag, "IdleTimeout")
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "allocates nothing for a header that announces 4,000,000 bytes, and ends with IdleTimeout (20 remotes)",
    () =>
      Effect.gen(function* () {
        const sessions = yield* Effect.forEach(count(20, Number), () => start())
        yield* assertKeeps(
          2 * MiB,
          Effect.gen(function* () {
            for (const { remote } of sessions) yield* remote.sendBytes(header("block", 4_000_000))
            yield* TestClock.adjust("1 minute")
          })
        )
        yield* TestClock.adjust("20 minutes")
        for (const session of sessions) assert.strictEqual((yield* endOf(session))._tag, "IdleTimeout")
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "keeps only the bytes received of a 4,000,000-byte message sent at 1,000 bytes a second, and ends with PingTimeout",
    () =>
      Effect.gen(function* () {
        const session = yield* start()
        const before = memory()
        yield* session.remote.sendBytes(header("block", 4_000_000))
        const drip = new Uint8Array(1_000)
        for (let second = 1; second < 22 * 60; second++) {
          yield* session.remote.sendBytes(drip)
          yield* TestClock.adjust("1 second")
          if (second % 300 !== 0) continue
          yield* assertKept(before, second * 1_000 + MiB, `the peer keeps too much after ${second} s`)
        }
        assert.isUndefined(session.ending.pollUnsafe())
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* endOf(session))._tag, "PingTimeout")
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("releases a partial message of 3,900,000 bytes when it ends, even while the caller holds the peer", () =>
    Effect.gen(function* () {
      const session = yield* start()
      yield* assertKeeps(
        MiB,
        Effect.gen(function* () {
          yield* session.remote.sendBytes(header("block", 4_000_000))
          for (let at = 0; at < 3_900_000; at += 10_000) yield* flood(session.remote, new Uint8Array(10_000), 1)
          yield* session.remote.connection.close
          assert.strictEqual((yield* endOf(session))._tag, "RemoteClosed")
        })
      )
      assert.isAbove((yield* session.peer.stats).bytesReceived, 3_900_000)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("releases messages that wait for a handler when it ends, even while the caller holds the peer", () =>
    Effect.gen(function* () {
      const session = yield* start({ handlers: { sendheaders: (_, peer) => Effect.ignore(peer.ping) } })
      yield* assertKeeps(
        MiB,
        Effect.gen(function* () {
          yield* session.remote.send({ _tag: "sendheaders" })
          yield* session.remote.receiveUntil("ping")
          for (let count = 0; count < 50; count++) yield* flood(session.remote, frames([filler(100_000)]), 1)
          yield* session.peer.disconnect("done")
          assert.strictEqual((yield* endOf(session))._tag, "Requested")
        })
      )
      assert.isAbove((yield* session.peer.stats).bytesReceived, 5_000_000)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each([24, 100, 10_000])(
    "bounds the messages of %d bytes that arrive while a handler waits for an answer, and ends with a timeout",
    (size) =>
      Effect.gen(function* () {
        let asking = 0
        const session = yield* start({
          handlers: {
            Unknown: (_, peer) => {
              asking++
              return Effect.ignore(peer.ping)
            }
          }
        })
        const before = memory()
        const flooding = yield* fork(flood(session.remote, frames(count(100, () => filler(size - 24))), 4_000))
        yield* TestClock.adjust("1 minute")
        for (let turn = 0; turn < 5_000; turn++) yield* Effect.yieldNow
        const kept = memory() - before
        for (let minute = 0; minute < 60 && session.ending.pollUnsafe() === undefined; minute++) {
          yield* TestClock.adjust("1 minute")
        }
        yield* Fiber.interrupt(flooding)
        assert.isAtMost(kept, 32 * MiB, `the peer keeps ${kept} bytes`)
        assert.isDefined(session.ending.pollUnsafe(), "the peer never ends")
        assert.strictEqual(asking, 1)
        assert.include(["PingTimeout", "IdleTimeout"], (yield* endOf(session))._tag)
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with BadMessage on a header that announces 4,000,001 bytes", () =>
    Effect.gen(function* () {
      const session = yield* start()
      yield* session.remote.sendBytes(header("block", 4_000_001))
      const reason = yield* endOf(session)
      assert(reason._tag === "BadMessage")
      assert.strictEqual(reason.error.reason._tag, "PayloadTooLarge")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "queues a bounded number of pongs for 400,000 pings of a remote that reads nothing, and ends with WriteTimeout",
    () =>
      Effect.gen(function* () {
        const session = yield* start()
        const before = memory()
        const flooding = yield* fork(flood(session.remote, frames(count(1_000, ping)), 400))
        for (let minute = 0; minute < 60 && session.ending.pollUnsafe() === undefined; minute++) {
          yield* TestClock.adjust("1 minute")
          const { queuedBytes, queuedMessages } = yield* session.peer.stats
          assert.isAtMost(queuedMessages, 4_000)
          assert.isAtMost(queuedBytes, 200_000)
        }
        yield* Fiber.interrupt(flooding)
        yield* assertKept(before, MiB)
        assert.isDefined(session.ending.pollUnsafe(), "the peer never ends")
        assert.strictEqual((yield* endOf(session))._tag, "WriteTimeout")
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "ends with WriteTimeout after 20 minutes when the remote reads nothing, even if it sends a message every minute",
    () =>
      Effect.gen(function* () {
        const session = yield* start()
        const sends = yield* fork(
          Effect.forEach(count(100, Number), () => session.peer.send(filler(100_000)), { discard: true })
        )
        const waits = yield* Effect.forEach(count(10, Number), () => fork(session.peer.sendAndWait(filler(10))))
        for (let minute = 0; minute < 20; minute++) {
          assert.isUndefined(session.ending.pollUnsafe(), `ended after ${minute} minutes`)
          const { queuedBytes } = yield* session.peer.stats
          assert.isAtMost(queuedBytes, Peer.defaultMaximumQueuedBytes + 100_024 + 1_000)
          yield* session.remote.send({ _tag: "sendheaders" })
          yield* TestClock.adjust("1 minute")
        }
        assert.strictEqual((yield* endOf(session))._tag, "WriteTimeout")
        for (const fiber of [sends, ...waits]) assert.strictEqual((yield* Fiber.await(fiber))._tag, "Failure")
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("remembers a bounded number of hashes from repeated invs of 50,000", () =>
    Effect.gen(function* () {
      const session = yield* start()
      yield* assertKeeps(
        MiB,
        Effect.gen(function* () {
          for (let time = 0; time < 8 * scale; time++) {
            const items = count(50_000, (index) => item(Wire.InventoryType.wtx, hash(time * 50_000 + index)))
            yield* flood(session.remote, frames([{ _tag: "inv", items }]), 1)
          }
          yield* assertUnharmed(session)
        })
      )
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("reports the last of 50,000 announced blocks as lastBlockAnnounced", () =>
    Effect.gen(function* () {
      const session = yield* start()
      yield* assertKeeps(
        MiB,
        Effect.gen(function* () {
          const items = count(50_000, (index) => item(Wire.InventoryType.block, hash(index)))
          yield* flood(session.remote, frames([{ _tag: "inv", items }]), 1)
          const stats = yield* assertUnharmed(session)
          assert.deepStrictEqual(stats.lastBlockAnnounced, Wire.hashToHex(hash(49_999)))
        })
      )
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("keeps nothing of twenty unanswered getdata of 50,000 items", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const bytes = frames([getdata(...count(50_000, (index) => item(Wire.InventoryType.block, hash(index))))])
      yield* assertKeeps(MiB, Effect.andThen(flood(session.remote, bytes, 20), assertUnharmed(session)))
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("keeps nothing of 1,000 addr messages of 1,000 addresses", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const address = { timestamp: 1, services: 1n, address: new Uint8Array(16), port: 8333 }
      const bytes = frames(count(10, () => ({ _tag: "addr", addresses: count(1_000, () => address) }) as const))
      yield* assertKeeps(MiB, Effect.andThen(flood(session.remote, bytes, 100), assertUnharmed(session)))
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("keeps a bounded number of hashes from unsolicited headers messages of 2,000", () =>
    Effect.gen(function* () {
      const session = yield* start()
      yield* assertKeeps(
        MiB,
        Effect.gen(function* () {
          for (let time = 0; time < 25 * scale; time++) {
            const headers = count(2_000, (index) => blockHeader(time * 2_000 + index))
            yield* flood(session.remote, frames([{ _tag: "headers", headers }]), 1)
          }
          yield* assertUnharmed(session)
        })
      )
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("drops 100,000 messages with wrong checksums and stays connected", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const bad = frames(count(1_000, ping))
      for (let at = 0; at < bad.length; at += 32) bad[at + 20]! ^= 1
      yield* assertKeeps(MiB, flood(session.remote, bad, 100))
      const stats = yield* assertUnharmed(session)
      assert.strictEqual(stats.messagesDropped, 100_000)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with BadMessage on a wrong checksum under btcd's policy", () =>
    Effect.gen(function* () {
      const session = yield* start({ policy: Policy.btcd })
      const bad = frames([ping(1)])
      bad[20]! ^= 1
      yield* session.remote.sendBytes(bad)
      const reason = yield* endOf(session)
      assert(reason._tag === "BadMessage")
      assert.strictEqual(reason.error.reason._tag, "BadChecksum")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("counts 100,000 or more unknown commands in one row of its statistics", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const commandsBefore = Object.keys((yield* session.peer.stats).received).length
      yield* assertKeeps(
        MiB,
        Effect.gen(function* () {
          for (let from = 0; from < 100_000 * scale; from += 5_000) {
            const bytes = new Uint8Array(5_000 * 24)
            for (let index = 0; index < 5_000; index++) bytes.set(header(`x${from + index}`, 0, 0xe2e0f65d), index * 24)
            yield* flood(session.remote, bytes, 1)
          }
          const stats = yield* assertUnharmed(session)
          assert.isAtMost(Object.keys(stats.received).length, commandsBefore + 2)
          assert.isAtLeast(stats.received["*other*"]?.messages ?? 0, 100_000 * scale)
        })
      )
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("keeps nothing of 30,000 or more unsolicited tx, block and notfound messages", () =>
    Effect.gen(function* () {
      const session = yield* start()
      yield* assertKeeps(
        MiB,
        Effect.gen(function* () {
          for (let from = 0; from < 30_000 * scale; from += 3_000) {
            const messages = count(1_000, (index) => [
              tx(from + index),
              block(from + index),
              notfound(item(1, hash(from + index)))
            ])
            yield* flood(session.remote, frames(messages.flat()), 1)
          }
          const stats = yield* assertUnharmed(session)
          assert.strictEqual(stats.openRequests, 0)
        })
      )
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ignores 100,000 pongs with unknown nonces: its pings stay unanswered and it ends with PingTimeout", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const pinging = yield* fork(session.peer.ping)
      yield* session.remote.receiveUntil("ping")
      const bytes = frames(count(1_000, (nonce) => ({ _tag: "pong", nonce: BigInt(nonce) }) as const))
      yield* assertKeeps(MiB, flood(session.remote, bytes, 100))
      const stats = yield* assertUnharmed(session)
      assert.isUndefined(stats.lastPing)
      assert.isUndefined(pinging.pollUnsafe())
      // These pongs do not answer the keep-alive's pings either.
      for (let minute = 0; minute < 22; minute++) {
        yield* session.remote.sendBytes(bytes)
        yield* TestClock.adjust("1 minute")
      }
      assert.strictEqual((yield* endOf(session))._tag, "PingTimeout")
      assert.strictEqual((yield* Effect.flip(Fiber.join(pinging))).reason._tag, "Ended")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ignores feefilters that are negative, above 21 million bitcoins or malformed", () =>
    Effect.gen(function* () {
      const session = yield* start()
      yield* session.remote.send({ _tag: "feefilter", feeRate: 1_000 })
      const payload = (value: bigint): Uint8Array => {
        const bytes = new Uint8Array(8)
        new DataView(bytes.buffer).setBigInt64(0, value, true)
        return bytes
      }
      for (const value of [-1n, -(2n ** 63n), 2n ** 63n - 1n, 21n * 10n ** 14n + 1n]) {
        yield* session.remote.send({ _tag: "Unknown", command: "feefilter", payload: payload(value) })
      }
      yield* session.remote.send({ _tag: "Unknown", command: "feefilter", payload: new Uint8Array(3) })
      const stats = yield* assertUnharmed(session)
      assert.strictEqual(stats.feeFilter, 1_000)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("reports an item as TimedOut and ends with Stalled when the remote answers getdata with other data", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const wanted = item(Wire.InventoryType.tx, Wire.txid(transaction(1)))
      const asking = yield* fork(session.peer.getData([wanted]))
      yield* session.remote.receiveUntil("getdata")
      yield* assertKeeps(
        MiB,
        Effect.gen(function* () {
          for (let second = 0; second < 29; second++) {
            yield* session.remote.send(tx(1_000 + second), block(second), notfound(item(1, hash(second))))
            yield* TestClock.adjust("1 second")
          }
        })
      )
      assert.isUndefined(asking.pollUnsafe())
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* Fiber.join(asking), [{ _tag: "TimedOut", item: wanted }])
      // The remote does not answer the ping that follows the request either.
      yield* TestClock.adjust("30 seconds")
      const reason = yield* endOf(session)
      assert(reason._tag === "Stalled")
      assert.strictEqual(reason.command, "getdata")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with Stalled when the remote repeats one of two requested items and never sends the other", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const items = [1, 2].map((number) => item(Wire.InventoryType.tx, Wire.txid(transaction(number))))
      const asking = yield* fork(session.peer.getData(items))
      yield* session.remote.receiveUntil("getdata")
      for (let second = 0; second < 75 && session.ending.pollUnsafe() === undefined; second++) {
        yield* session.remote.send(tx(1))
        yield* TestClock.adjust("1 second")
      }
      const results = yield* Fiber.join(asking)
      assert.deepStrictEqual(
        results.map(({ _tag }) => _tag),
        ["Found", "TimedOut"]
      )
      assert.strictEqual((yield* endOf(session))._tag, "Stalled")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ends with ProtocolViolation on a getblocktxn without indexes", () =>
    Effect.gen(function* () {
      const session = yield* start()
      yield* session.remote.send({ _tag: "getblocktxn", blockHash: new Uint8Array(32), indexes: [] })
      assert.deepStrictEqual(yield* endOf(session), {
        _tag: "ProtocolViolation",
        command: "getblocktxn",
        problem: "asks for nothing"
      })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each([
    ["version", version()],
    ["verack", verack],
    ["wtxidrelay", { _tag: "wtxidrelay" }],
    ["sendaddrv2", { _tag: "sendaddrv2" }],
    ["feature", { _tag: "feature", id: "BIP434", data: new Uint8Array(0) }]
  ] satisfies ReadonlyArray<readonly [string, Wire.Message]>)(
    "ends with ProtocolViolation on %s after verack (version and verack under btcd's policy)",
    ([command, message]) =>
      Effect.gen(function* () {
        const session = yield* start(command === "version" || command === "verack" ? { policy: Policy.btcd } : {})
        yield* session.remote.send(message)
        const reason = yield* endOf(session)
        assert(reason._tag === "ProtocolViolation")
        assert.strictEqual(reason.command, command)
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ignores 100,000 duplicate versions and veracks under Core's policy", () =>
    Effect.gen(function* () {
      const session = yield* start({ policy: Policy.core })
      const bytes = frames(count(1_000, () => [version({ nonce: 43n, userAgent: "/other/" }), verack]).flat())
      yield* assertKeeps(MiB, flood(session.remote, bytes, 50))
      const { userAgent } = yield* assertUnharmed(session)
      assert.strictEqual(userAgent, "/remote:1.0/")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each(["getheaders", "getblocks"])("ends with BadMessage on a %s with 102 locator hashes", (command) =>
    Effect.gen(function* () {
      const session = yield* start()
      const payload = new Uint8Array(4 + 1 + 102 * 32 + 32)
      payload[4] = 102
      yield* session.remote.send({ _tag: "Unknown", command, payload })
      const reason = yield* endOf(session)
      assert(reason._tag === "BadMessage")
      assert.strictEqual(reason.error.reason._tag, "TooMany")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("keeps nothing of 2,000 unanswered getheaders with 101 locator hashes", () =>
    Effect.gen(function* () {
      const session = yield* start()
      const locator = count(101, hash)
      const ask: Wire.Message = { _tag: "getheaders", protocolVersion: 70_016, locator, stopHash: hash(0) }
      yield* assertKeeps(MiB, flood(session.remote, frames(count(100, () => ask)), 20))
      yield* assertUnharmed(session)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "ends with RemoteClosed or ConnectionLost when the remote closes or resets after any byte of a message",
    () =>
      Effect.gen(function* () {
        const bytes = frames([ping(1), inv(1, 2)])
        for (let size = 0; size <= bytes.length; size++) {
          for (const how of ["closes", "resets"] as const) {
            const session = yield* start()
            yield* session.remote.sendBytes(bytes.subarray(0, size))
            yield* how === "closes" ? session.remote.connection.close : session.pair.reset()
            assert.strictEqual((yield* endOf(session))._tag, how === "closes" ? "RemoteClosed" : "ConnectionLost")
          }
        }
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "ends with BadMessage or a timeout on random bytes, or on valid frames with random bytes changed (200 seeds)",
    () =>
      Effect.gen(function* () {
        for (let seed = 0; seed < 200; seed++) {
          const random = dice(seed)
          const garbage = random.bytes(1 + random.below(2_000))
          const honest = frames([ping(1), filler(50), inv(1, 2)])
          const session = yield* start()
          // Half of the seeds send valid frames with one to four bytes changed, the others random bytes.
          if (random.chance(0.5)) {
            for (let change = 0; change < 1 + random.below(4); change++)
              honest[random.below(honest.length)] = random.below(256)
            yield* session.remote.sendBytes(honest)
          } else yield* session.remote.sendBytes(garbage)
          yield* TestClock.adjust("23 minutes")
          const reason = yield* endOf(session)
          assert.include(["BadMessage", "IdleTimeout", "PingTimeout"], reason._tag, `seed ${seed}`)
        }
      }).pipe(Effect.provide(Nonce.layer))
  )
})
