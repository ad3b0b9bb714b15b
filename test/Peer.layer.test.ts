/** Invalid options, and peers as a service: layers and configuration. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, ConfigProvider, Context, Effect, Exit, Fiber, Layer, Option } from "effect"
import { TestClock } from "effect/testing"
import { Connection, Network, Nonce, Peer } from "effect-bitcoin-peer"
import { fork, network, scripted, verack, version, withRemote } from "./support/peers.ts"

describe("options", () => {
  const bad: ReadonlyArray<Peer.Options> = [
    { pingInterval: 0 },
    { pingInterval: "0 millis" },
    { pingTimeout: -1 },
    { idleTimeout: Number.NaN },
    { handshakeTimeout: 0 },
    { maximumQueuedBytes: 0 },
    { maximumQueuedBytes: Number.NaN },
    { knownInventory: 1.5 },
    { knownInventory: -1 },
    { protocolVersion: -1 },
    { userAgent: "/x\n\u001b[31m/" },
    { network: { ...network, magic: Uint8Array.of(1, 2, 3) } },
    { trickle: { _tag: "Poisson", mean: Number.NaN } }
  ]
  it.effect("that are invalid fail with BadOptions before anything is sent, and close the connection", () =>
    Effect.gen(function* () {
      for (const options of bad) {
        const [ours, theirs] = yield* Connection.makePair()
        const error = yield* Effect.flip(Peer.make(ours, { network, ...options }))
        assert.strictEqual(error.reason._tag, "BadOptions", JSON.stringify(options))
        assert.strictEqual((yield* Effect.flip(theirs.pull)).reason._tag, "Closed")
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("with a startHeight that never completes make the handshake time out", () =>
    Effect.gen(function* () {
      const [ours] = yield* Connection.makePair()
      const making = yield* fork(Effect.flip(Peer.make(ours, { network, startHeight: Effect.never })))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(making)).reason._tag, "TimedOut")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("with a pingTimeout below the pingInterval are accepted, and the timeout ends the peer", () =>
    Effect.gen(function* () {
      const { peer } = yield* withRemote({ pingTimeout: "10 seconds", pingInterval: "10 minutes" })
      yield* fork(Effect.ignore(peer.ping))
      yield* TestClock.adjust("20 seconds")
      assert.strictEqual((yield* peer.awaitShutdown)._tag, "PingTimeout")
    }).pipe(Effect.provide(Nonce.layer))
  )
})

describe("Peer.layer", () => {
  const inMemory = Layer.effectContext(
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const remote = scripted(theirs)
      yield* remote.send(version(), verack)
      return Context.make(Connection.Connection, ours)
    })
  )

  it.effect("makes a peer on the connection of the context, and ends it with the layer", () =>
    Effect.gen(function* () {
      const peer = yield* Effect.provide(
        Peer.Peer,
        Peer.layer({ network }).pipe(Layer.provide(inMemory), Layer.provide(Nonce.layer))
      )
      assert.strictEqual(peer.info.userAgent, "/remote:1.0/")
      assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "ScopeClosed" })
    })
  )

  it.effect("reads settings from the configuration, which overrides the options", () =>
    Effect.gen(function* () {
      const peer = yield* Effect.provide(
        Peer.Peer,
        Peer.layerConfig({ network: Network.signet, userAgent: "/x/" }).pipe(
          Layer.provide(inMemory),
          Layer.provide(Nonce.layer),
          Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ BTCPEER_NETWORK: "regtest" })))
        )
      )
      assert.strictEqual(peer.info.network, Network.regtest)
    })
  )

  it.effect("fails with a ConfigError for an invalid value", () =>
    Effect.gen(function* () {
      for (const bad of [
        { BTCPEER_NETWORK: "moonnet" },
        { BTCPEER_PING_INTERVAL: "soon" },
        { BTCPEER_POLICY: "nice" },
        { BTCPEER_TRANSPORT: "v3" }
      ]) {
        const exit = yield* Effect.exit(
          Effect.provide(
            Peer.Peer,
            Peer.layerConfig({ network }).pipe(
              Layer.provide(inMemory),
              Layer.provide(Nonce.layer),
              Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(bad)))
            )
          )
        )
        assert(Exit.isFailure(exit))
        const error = Option.getOrThrow(Cause.findErrorOption(exit.cause))
        assert.strictEqual(error._tag, "ConfigError")
      }
    })
  )
})
