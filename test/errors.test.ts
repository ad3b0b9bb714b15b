/** The errors of this package as a program sees them: guards, printed text, JSON, and whether to retry. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Logger } from "effect"
import { inspect } from "node:util"
import { Connection, Handshake, Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { withRemote } from "./support/peers.ts"

const connectionError = (reason: Connection.ConnectionReason) => new Connection.ConnectionError({ reason })
const handshakeError = (reason: Handshake.HandshakeReason) => new Handshake.HandshakeError({ reason })
const peerError = (reason: Peer.PeerReason) => new Peer.PeerError({ reason })

const closed = connectionError({ _tag: "Closed" })
const self = handshakeError({ _tag: "SelfConnection" })
const ended = peerError({ _tag: "Ended", end: { _tag: "RemoteClosed" } })

describe("guards", () => {
  it("accept the errors of their module and no others", () => {
    const values = [closed, self, ended, new Error("Closed"), { _tag: "PeerError" }, undefined, null, "PeerError"]
    assert.deepStrictEqual(values.filter(Connection.isConnectionError), [closed])
    assert.deepStrictEqual(values.filter(Handshake.isHandshakeError), [self])
    assert.deepStrictEqual(values.filter(Peer.isPeerError), [ended])
  })

  it.effect("accept a peer, and Peer.Peer is the type of a peer", () =>
    Effect.gen(function* () {
      // A function with a parameter of the type Peer.Peer compiles.
      const pingOf = (peer: Peer.Peer) => peer.ping
      const { peer } = yield* withRemote()
      assert.isTrue(Effect.isEffect(pingOf(peer)))
      assert.deepStrictEqual([peer, Object.create(peer), {}, undefined].map(Peer.isPeer), [true, true, false, false])
      assert.strictEqual(yield* Effect.provideService(Peer.Peer, Peer.Peer, peer), peer)
    }).pipe(Effect.provide(Nonce.layer))
  )
})

describe("an error", () => {
  const errors = [
    closed,
    self,
    ended,
    connectionError({ _tag: "Reset", cause: new Error("ECONNRESET") }),
    handshakeError({ _tag: "ServicesMissing", offered: 1n, required: [8n, 1_025n] }),
    handshakeError({ _tag: "WrongNetwork", expected: Network.mainnet, received: Network.signet.magic }),
    peerError({ _tag: "NotOffered", what: "getcfilters", service: Wire.Service.compactFilters }),
    peerError({ _tag: "TimedOut", what: "getheaders", after: Duration.seconds(90) }),
    peerError({ _tag: "Ended", end: { _tag: "HandlerFailed", command: "inv", cause: Cause.fail("no") } }),
    new Wire.WireError({ command: "inv", reason: { _tag: "Truncated", field: "count", offset: 3 } })
  ]

  it("shows its message to console.log, and its reason", () => {
    for (const error of errors) {
      const shown = inspect(error, { depth: 10, compact: false })
      assert.include(shown, error._tag)
      assert.include(shown, error.message)
      assert.include(shown, error.reason._tag)
    }
  })

  it.effect("shows its message to each logger", () =>
    Effect.gen(function* () {
      for (const format of [Logger.formatSimple, Logger.formatLogFmt, Logger.formatJson]) {
        const lines: Array<string> = []
        const logger = Logger.map(format, (line) => void lines.push(line))
        yield* Effect.forEach(errors, (error) =>
          Effect.andThen(Effect.logError(error), Effect.logError("the text before", error))
        ).pipe(Effect.provide(Logger.layer([logger])))
        assert.strictEqual(lines.length, errors.length * 2)
        for (const [index, line] of lines.entries()) {
          const { message } = errors[index >> 1]!
          assert.include(line.replaceAll("\\", ""), message)
        }
      }
    })
  )

  it("encodes to JSON with any cause: bytes as hex, big integers and durations as text", () => {
    const json = (error: unknown) => JSON.parse(JSON.stringify(error)) as unknown
    for (const error of errors) assert.isObject(json(error))
    assert.deepStrictEqual(json(errors[4]), {
      _tag: "HandshakeError",
      message: errors[4]!.message,
      reason: { _tag: "ServicesMissing", offered: "1", required: ["8", "1025"] }
    })
    assert.deepStrictEqual(json(errors[5]), {
      _tag: "HandshakeError",
      message: "handshake failed: the peer is on signet, not on mainnet",
      reason: { _tag: "WrongNetwork", expected: "mainnet", received: "0a03cf40" }
    })
    const likely = { _tag: "Disconnected", error: closed, likelyNetwork: Network.signet } as const
    assert.include(JSON.stringify(handshakeError(likely)), `"likelyNetwork":"signet"`)
    assert.deepStrictEqual(json(errors[7]), {
      _tag: "PeerError",
      message: "no answer to getheaders within 1m 30s",
      reason: { _tag: "TimedOut", what: "getheaders", after: "1m 30s" }
    })
    const circle: Record<string, unknown> = {}
    circle["self"] = circle
    const circularList: Array<unknown> = []
    circularList.push(circularList)
    for (const cause of [circle, circularList, new Map(), 7n, null, undefined, Symbol("s"), () => 1, ended]) {
      assert.isObject(json(connectionError({ _tag: "Reset", cause })))
    }
    const nested = json(handshakeError({ _tag: "Disconnected", error: closed })) as { reason: unknown }
    assert.deepStrictEqual(nested.reason, { _tag: "Disconnected", error: "ConnectionError: connection closed" })
    const stalled = peerError({
      _tag: "Ended",
      end: { _tag: "Stalled", command: "getdata", hash: Uint8Array.of(1, 255), after: Duration.seconds(30) }
    })
    assert.include(JSON.stringify(stalled), `"hash":"01ff"`)
  })
})

describe("Peer.assess", () => {
  const dial = (problem: Connection.DialProblem) =>
    connectionError({ _tag: "DialFailed", problem, host: "192.0.2.1", port: 8333, cause: undefined })
  const listen = (problem: Connection.ListenProblem) =>
    connectionError({ _tag: "ListenFailed", problem, host: "192.0.2.1", port: 8333, cause: undefined })
  const stalled = { _tag: "TimedOut", what: "getheaders", after: Duration.seconds(90) } as const
  const badValue = new Wire.WireError({ command: "", reason: { _tag: "BadChecksum" } })

  const again = [
    dial("Refused"),
    dial("Timeout"),
    dial("HostNotFound"),
    dial("Unreachable"),
    dial("ProxyUnreachable"),
    dial("ProxyRefused"),
    dial("Other"),
    listen("AddressInUse"),
    closed,
    connectionError({ _tag: "Reset", cause: undefined }),
    handshakeError({ _tag: "Disconnected", error: closed }),
    handshakeError({ _tag: "TimedOut", after: Duration.seconds(60), waitingFor: "version" }),
    ended,
    peerError(stalled),
    peerError({ _tag: "Overflow", capacity: 1 })
  ]
  const never = [
    dial("BadHost"),
    dial("BadPort"),
    dial("NeedsProxy"),
    dial("ProxyAuthFailed"),
    listen("BadPort"),
    self,
    handshakeError({ _tag: "VersionTooOld", protocolVersion: 1, minimum: 2 }),
    handshakeError({ _tag: "WrongNetwork", expected: Network.mainnet, received: Network.signet.magic }),
    peerError({ _tag: "Ended", end: { _tag: "BadMessage", error: badValue } }),
    peerError({ _tag: "NotSendable", error: badValue }),
    peerError({ _tag: "NotSupported", what: "ping", protocolVersion: 60_000 }),
    peerError({ _tag: "NotOffered", what: "getcfilters", service: 64n })
  ]

  it("assesses every error of a connection, a handshake and a peer, and says whether to retry", () => {
    for (const error of again) assert.isTrue(Peer.assess(error).retry, error.message)
    for (const error of never) assert.isFalse(Peer.assess(error).retry, error.message)
  })

  it("gives an error the assessment of its reason", () => {
    assert.deepStrictEqual(Peer.assess(self), Peer.assess(self.reason))
    assert.deepStrictEqual(Peer.assess(ended), Peer.assess({ _tag: "RemoteClosed" }))
    const misbehaved = peerError({ _tag: "Ended", end: { _tag: "BadMessage", error: badValue } })
    assert.strictEqual(Peer.assess(misbehaved).points, 100)
    // A dial that fails because of the proxy or the address is not the remote's fault.
    assert.strictEqual(Peer.assess(dial("ProxyRefused")).by, "local")
    assert.strictEqual(Peer.assess(dial("Refused")).by, "remote")
  })
})
