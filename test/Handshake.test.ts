/** Handshake.run over in-memory connections: negotiation, versions, services, networks, time-outs and failures. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Result } from "effect"
import { TestClock } from "effect/testing"
import { Connection, Handshake, Network, Nonce, Policy, Wire } from "effect-bitcoin-peer"
import { countedNonces, fork, network, scripted, verack, version } from "./support/peers.ts"

/** Starts our handshake, and returns it with the other end of the connection. */
const begin = Effect.fnUntraced(function* (options: Handshake.Options = {}) {
  const [ours, theirs] = yield* Connection.makePair()
  const fiber = yield* fork(Handshake.run(ours, { network, ...options }))
  const reason = Effect.map(Effect.flip(Fiber.join(fiber)), ({ reason }) => reason)
  return { ours, remote: scripted(theirs), fiber, result: Fiber.join(fiber), reason }
})

const withBadChecksum = (frame: Uint8Array): Uint8Array => {
  const bad = frame.slice()
  bad[20]! ^= 1
  return bad
}

describe("Handshake.run", () => {
  it.effect("returns the negotiated settings and the contents of the peer's version", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(1_000_000_500)
      const { remote, result } = yield* begin()
      yield* remote.send(
        version({
          protocolVersion: 70_016,
          services: (1n << 63n) | 9n,
          timestamp: 1_000_042,
          relay: false,
          nonce: 99n
        }),
        { _tag: "wtxidrelay" },
        { _tag: "sendaddrv2" },
        verack
      )
      assert.deepStrictEqual(yield* result, {
        direction: "outbound",
        transport: "v1",
        sessionId: undefined,
        protocolVersion: 70_016,
        remoteProtocolVersion: 70_016,
        services: (1n << 63n) | 9n,
        userAgent: "/remote:1.0/",
        startHeight: 100,
        relay: false,
        timeOffset: Duration.seconds(42),
        addrV2: true,
        wtxidRelay: true,
        features: new Map(),
        remoteNonce: 99n
      })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("sends a version with the given options and zero addresses", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(5_000_999)
      const { remote } = yield* begin({
        services: 9n,
        userAgent: "/mine:2.0/",
        startHeight: Effect.succeed(77),
        relay: false,
        protocolVersion: 70_015
      })
      const zeros = { address: new Uint8Array(16), port: 0 }
      const sent = (yield* remote.receive) as Wire.Version
      assert.deepStrictEqual(sent, {
        _tag: "version",
        protocolVersion: 70_015,
        services: 9n,
        timestamp: 5_000,
        receiver: { services: 0n, ...zeros },
        sender: { services: 9n, ...zeros },
        nonce: 1n,
        userAgent: "/mine:2.0/",
        startHeight: 77,
        relay: false
      })
    }).pipe(Effect.provide(countedNonces))
  )

  it.effect("puts comments into the user agent (BIP14), and refuses comments with reserved characters", () =>
    Effect.gen(function* () {
      const { remote } = yield* begin({ userAgent: "/mine:2.0/", userAgentComments: ["one", "two 2"] })
      const sent = yield* remote.receive
      assert(sent._tag === "version")
      assert.strictEqual(sent.userAgent, "/mine:2.0(one; two 2)/")
      for (const comment of ["a/b", "a:b", "a(b", "a)b", "", "\u001b[31m"]) {
        const { reason } = yield* begin({ userAgentComments: [comment] })
        assert.strictEqual((yield* reason)._tag, "BadOptions", comment)
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("sends an inbound peer nothing before its version has arrived", () =>
    Effect.gen(function* () {
      const { fiber, remote } = yield* begin({ direction: "inbound" })
      const first = yield* fork(remote.receive)
      yield* TestClock.adjust("59 seconds")
      assert.isUndefined(first.pollUnsafe())
      assert.isUndefined(fiber.pollUnsafe())
      yield* remote.send(version())
      assert.strictEqual((yield* Fiber.join(first))._tag, "version")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("leaves the connection open", () =>
    Effect.gen(function* () {
      const { ours, remote, result } = yield* begin()
      yield* remote.send(version(), verack)
      yield* result
      yield* remote.receiveUntil("verack")
      ours.write(Uint8Array.of(1))
      assert.deepStrictEqual(yield* remote.connection.pull, [Uint8Array.of(1)])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("completes when bytes arrive one at a time", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair({ split: [1] })
      const both = yield* Effect.all(
        [
          Handshake.run(ours, { network, requiredServices: [] }),
          Handshake.run(theirs, { network, direction: "inbound", allowSelfConnection: true })
        ],
        { concurrency: 2 }
      ).pipe(
        Effect.provideService(Nonce.Nonce, {
          next: Effect.succeed(1n),
          unremembered: Effect.succeed(1n),
          isOwn: () => false,
          wasReceived: () => false
        })
      )
      assert.deepStrictEqual(
        both.map(({ wtxidRelay }) => wtxidRelay),
        [true, true]
      )
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "fails with SelfConnection on both sides that share a Nonce service, unless allowSelfConnection is set",
    () =>
      Effect.gen(function* () {
        const both = (options: Handshake.Options) =>
          Effect.gen(function* () {
            const [ours, theirs] = yield* Connection.makePair()
            const sides = [
              { connection: theirs, direction: "inbound" },
              { connection: ours, direction: "outbound" }
            ] as const
            return yield* Effect.forEach(
              sides,
              ({ connection, direction }) =>
                Handshake.run(connection, { network, direction, requiredServices: [], ...options }).pipe(
                  Effect.onError(() => connection.close),
                  Effect.result,
                  Effect.map((result) =>
                    result._tag === "Failure" ? result.failure.reason._tag : result.success.transport
                  )
                ),
              { concurrency: 2 }
            )
          })
        assert.deepStrictEqual(yield* both({}), ["SelfConnection", "SelfConnection"])
        assert.deepStrictEqual(yield* both({ transport: "v2" }), ["SelfConnection", "SelfConnection"])
        assert.deepStrictEqual(yield* both({ allowSelfConnection: true }), ["v1", "v1"])
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "suggests the network of the remote port when the node sends nothing and the port is another network's default",
    () =>
      Effect.gen(function* () {
        const failing = Effect.fnUntraced(function* (port: number, end: "close" | "silence") {
          const [ours, theirs] = yield* Connection.makePair({
            addresses: [
              { host: "192.0.2.1", port: 50_001 },
              { host: "192.0.2.2", port }
            ]
          })
          const fiber = yield* fork(Effect.flip(Handshake.run(ours, { network })))
          if (end === "close") yield* theirs.close
          else yield* TestClock.adjust("1 minute")
          return yield* Fiber.join(fiber)
        })
        for (const end of ["close", "silence"] as const) {
          const { message, reason } = yield* failing(Network.signet.port, end)
          assert(reason._tag === "Disconnected" || reason._tag === "TimedOut")
          assert.strictEqual(reason.likelyNetwork, Network.signet)
          assert.match(message, /; is it on signet, whose default port is 38333\?$/)
          for (const port of [network.port, 12_345]) {
            assert.notProperty((yield* failing(port, end)).reason, "likelyNetwork")
          }
        }
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("suggests no network for an inbound peer, or for one that has sent its version", () =>
    Effect.gen(function* () {
      const inbound = yield* begin({ direction: "inbound" })
      yield* inbound.remote.connection.close
      assert.notProperty(yield* inbound.reason, "likelyNetwork")
      const outbound = yield* begin()
      yield* outbound.remote.send(version())
      yield* outbound.remote.connection.close
      assert.notProperty(yield* outbound.reason, "likelyNetwork")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("calls onVersion before it answers, and fails with Refused and the text of its error", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const { reason, remote } = yield* begin({
        direction: "inbound",
        onVersion: (version) =>
          Effect.suspend(() => {
            seen.push(version.userAgent)
            return Effect.fail("not on my lawn")
          })
      })
      yield* remote.send(version())
      assert.deepStrictEqual(yield* reason, { _tag: "Refused", problem: "not on my lawn" })
      assert.deepStrictEqual(seen, ["/remote:1.0/"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fails with WrongNetwork and names the peer's network by its magic", () =>
    Effect.gen(function* () {
      const { fiber, reason, remote } = yield* begin()
      yield* remote.sendBytes(Network.testnet4.magic)
      assert.deepStrictEqual(yield* reason, {
        _tag: "WrongNetwork",
        expected: network,
        received: Network.testnet4.magic
      })
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.strictEqual(error.message, "handshake failed: the peer is on testnet4, not on regtest")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("quotes the first bytes of a remote that is not a Bitcoin node", () =>
    Effect.gen(function* () {
      const { fiber, remote } = yield* begin()
      yield* remote.sendBytes(new TextEncoder().encode("HTTP/1.1 400 Bad Request\r\n\r\n"))
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.strictEqual(error.reason._tag, "WrongNetwork")
      assert.include(error.message, `not a Bitcoin node of regtest: its first bytes are 48545450 ("HTTP")`)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fails on a payload above the limit before it has arrived", () =>
    Effect.gen(function* () {
      const { reason, remote } = yield* begin()
      const header = remote.frames([version()]).slice(0, 24)
      new DataView(header.buffer).setUint32(16, 4_000_001, true)
      yield* remote.sendBytes(header)
      const failed = yield* reason
      assert(failed._tag === "BadMessage")
      assert.strictEqual(failed.error.reason._tag, "PayloadTooLarge")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ignores an unreadable first message under Core's policy, and fails under btcd's", () =>
    Effect.gen(function* () {
      const btcd = yield* begin({ policy: Policy.btcd })
      yield* btcd.remote.sendBytes(withBadChecksum(btcd.remote.frames([version()])))
      assert.strictEqual((yield* btcd.reason)._tag, "BadMessage")
      const { remote, result } = yield* begin()
      yield* remote.sendBytes(withBadChecksum(remote.frames([version()])))
      yield* remote.send(version({ userAgent: "/second/" }), verack)
      assert.strictEqual((yield* result).userAgent, "/second/")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("ignores a version that ends before its nonce (72 bytes) under Core's policy, and fails under btcd's", () =>
    Effect.gen(function* () {
      const cut: Wire.Message = {
        _tag: "Unknown",
        command: "version",
        payload: Result.getOrThrow(Wire.encode(version())).slice(0, 72)
      }
      const { fiber, remote, result } = yield* begin()
      yield* remote.receiveUntil("version")
      yield* remote.send(cut, verack)
      yield* TestClock.adjust("30 seconds")
      assert.isUndefined(fiber.pollUnsafe(), "the handshake has ended")
      yield* remote.send(version({ userAgent: "/second/" }), verack)
      assert.strictEqual((yield* result).userAgent, "/second/")
      const btcd = yield* begin({ policy: Policy.btcd })
      yield* btcd.remote.send(cut)
      assert.strictEqual((yield* btcd.reason)._tag, "BadMessage")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fails on a malformed feature under every policy", () =>
    Effect.gen(function* () {
      for (const policy of [Policy.core, Policy.btcd]) {
        const { reason, remote } = yield* begin({ policy })
        // An id of 3 bytes; the minimum is 4.
        yield* remote.send(version(), {
          _tag: "Unknown",
          command: "feature",
          payload: Uint8Array.of(3, 65, 66, 67, 0)
        })
        assert.include(["BadFeature", "BadMessage"], (yield* reason)._tag)
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("sends our features to a peer of version 70017 and records the peer's", () =>
    Effect.gen(function* () {
      const features = [{ id: "BIP9999", data: Uint8Array.of(1, 2) }]
      const { remote, result } = yield* begin({ features })
      yield* remote.send(version(), { _tag: "feature", id: "BIP8888", data: Uint8Array.of(3) }, verack)
      assert.deepStrictEqual(yield* remote.receiveUntil("feature"), { _tag: "feature", ...features[0]! })
      assert.deepStrictEqual(Array.from((yield* result).features), [["BIP8888", Uint8Array.of(3)]])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "requires NETWORK or NETWORK_LIMITED, and WITNESS, from an outbound peer, and no services from an inbound one",
    () =>
      Effect.gen(function* () {
        const { fiber, remote } = yield* begin()
        yield* remote.send(version({ services: 1n }), verack)
        const error = yield* Effect.flip(Fiber.join(fiber))
        assert.strictEqual(error.reason._tag, "ServicesMissing")
        assert.include(error.message, "WITNESS")
        const limited = yield* begin()
        yield* limited.remote.send(version({ services: 1024n | 8n }), verack)
        yield* limited.result
        const inbound = yield* begin({ direction: "inbound" })
        yield* inbound.remote.send(version({ services: 0n }), verack)
        yield* inbound.result
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("fails with BadOptions and sends nothing when our own version cannot be encoded", () =>
    Effect.gen(function* () {
      const { reason, remote, ours } = yield* begin({ userAgent: "x".repeat(257) })
      const failed = yield* reason
      assert(failed._tag === "BadOptions")
      assert.strictEqual(failed.error.reason._tag, "TooMany")
      yield* ours.close
      assert.strictEqual((yield* Effect.flip(remote.receive))._tag, "ConnectionError")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("times out after handshakeTimeout, even while bytes arrive", () =>
    Effect.gen(function* () {
      const { fiber, reason, remote } = yield* begin({ handshakeTimeout: "10 seconds" })
      const bytes = remote.frames([version()])
      for (let second = 0; second < 10; second++) {
        assert.isUndefined(fiber.pollUnsafe())
        yield* remote.sendBytes(bytes.subarray(second, second + 1))
        yield* TestClock.adjust("1 second")
      }
      const failed = yield* reason
      assert(failed._tag === "TimedOut")
      assert.strictEqual(Duration.toSeconds(failed.after), 10)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("completes with protocol versions from 31800 to above ours", () =>
    Effect.gen(function* () {
      for (const protocolVersion of [31_800, 60_000, 60_001, 70_001, 70_002, 70_015, 70_016, 70_017, 80_000]) {
        const { remote, result } = yield* begin()
        yield* remote.send(version({ protocolVersion }), verack)
        const negotiated = yield* result
        assert.strictEqual(negotiated.protocolVersion, Math.min(protocolVersion, 70_017))
        assert.strictEqual(negotiated.remoteProtocolVersion, protocolVersion)
      }
    }).pipe(Effect.provide(Nonce.layer))
  )
})
