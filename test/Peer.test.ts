/** A connected peer: handlers, sending, pings, statistics. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Duration, Effect, Fiber, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Connection, Nonce, Peer, Policy, Wire } from "effect-bitcoin-peer"
import { filler, fork, network, ping, scripted, startIn, twoPeers, verack, version } from "./support/peers.ts"

describe.each(["outbound", "inbound"] as const)("an %s peer", (direction) => {
  const start = startIn(direction)

  it.effect("has completed its handshake and holds the result in peer.info", () =>
    Effect.gen(function* () {
      const { pair, peer } = yield* start()
      assert.strictEqual(peer.info.direction, direction)
      assert.strictEqual(peer.info.userAgent, "/remote:1.0/")
      assert.strictEqual(peer.info.network, network)
      assert.strictEqual(peer.info.transport, "v1")
      assert.deepStrictEqual(peer.info.remoteAddress, pair[0].remoteAddress)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("runs handlers one at a time, in the order of the messages", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const { peer, remote } = yield* start({
        handlers: {
          inv: () =>
            Effect.gen(function* () {
              log.push("inv begins")
              yield* Deferred.await(gate)
              log.push("inv ends")
            }),
          sendheaders: () => void log.push("sendheaders"),
          Unknown: (message) => Effect.sync(() => log.push(message.command))
        }
      })
      yield* remote.send({ _tag: "inv", items: [] }, { _tag: "sendheaders" }, filler(3))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(log, ["inv begins"])
      yield* Deferred.succeed(gate, undefined)
      yield* remote.send(ping(1))
      yield* remote.receiveUntil("pong")
      assert.deepStrictEqual(log, ["inv begins", "inv ends", "sendheaders", "filler"])
      assert.strictEqual((yield* peer.stats).messagesReceived, 6)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("passes messages that arrived in one batch with verack to handlers", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const remote = scripted(theirs)
      const seen: Array<string> = []
      const making = yield* fork(
        Peer.make(ours, { network, direction, handlers: { sendheaders: (message) => void seen.push(message._tag) } })
      )
      yield* remote.send(version(), verack, { _tag: "sendheaders" }, { _tag: "sendheaders" })
      yield* Fiber.join(making)
      assert.deepStrictEqual(seen, ["sendheaders", "sendheaders"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("runs handlers with the services of the fiber that made the peer, and with the peer's scope", () =>
    Effect.gen(function* () {
      class Name extends Context.Service<Name, string>()("test/Name") {}
      const ended = yield* Deferred.make<string>()
      const { close, remote } = yield* start({
        handlers: {
          sendheaders: () =>
            Effect.gen(function* () {
              const name = yield* Name
              yield* Effect.addFinalizer(() => Deferred.succeed(ended, name))
            })
        }
      }).pipe(Effect.provideService(Name, "seven"))
      yield* remote.send({ _tag: "sendheaders" }, ping(1))
      yield* remote.receiveUntil("pong")
      yield* close
      assert.strictEqual(yield* Deferred.await(ended), "seven")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "replaces, adds and removes handlers while connected; they run with the services of the fiber that set them",
    () =>
      Effect.gen(function* () {
        class Name extends Context.Service<Name, string>()("test/Name") {}
        const log: Array<string> = []
        const ended = yield* Deferred.make<string>()
        const { close, peer, remote } = yield* start({
          handlers: { sendheaders: () => void log.push("first"), getaddr: () => void log.push("getaddr") }
        })
        const round = Effect.gen(function* () {
          yield* remote.send({ _tag: "sendheaders" }, { _tag: "getaddr" }, filler(1), ping(1))
          yield* remote.receiveUntil("pong")
        })
        yield* round
        yield* peer
          .handle({
            sendheaders: () =>
              Effect.gen(function* () {
                const name = yield* Name
                log.push(name)
                yield* Effect.addFinalizer(() => Deferred.succeed(ended, name))
              }),
            getaddr: undefined,
            Unknown: ({ command }) => void log.push(command)
          })
          .pipe(Effect.provideService(Name, "second"))
        yield* round
        assert.deepStrictEqual(log, ["first", "getaddr", "second", "filler"])
        yield* close
        assert.strictEqual(yield* Deferred.await(ended), "second")
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "sends and handles custom message types; drops malformed ones, or ends with BadMessage under btcd's policy",
    () =>
      Effect.gen(function* () {
        const number: Peer.CustomType<number> = {
          command: "number",
          encode: (value) => Uint8Array.of(value),
          decode: (payload) => (payload.length === 1 ? payload[0] : undefined)
        }
        const seen: Array<number> = []
        const unknown: Array<string> = []
        const custom = [
          Peer.custom(number, (value, peer) => {
            seen.push(value)
            return peer.send(Peer.customMessage(number, value + 1))
          })
        ]
        const handlers = { Unknown: ({ command }: Wire.Unknown) => void unknown.push(command) }
        const malformed: Wire.Message = { _tag: "Unknown", command: "number", payload: new Uint8Array(2) }
        const { peer, remote } = yield* start({ custom, handlers })
        yield* remote.send(Peer.customMessage(number, 7), malformed, filler(1))
        assert.deepStrictEqual(yield* remote.receive, Peer.customMessage(number, 8))
        assert.deepStrictEqual([seen, unknown], [[7], ["filler"]])
        assert.strictEqual((yield* peer.stats).messagesDropped, 1)
        const strict = yield* start({ custom, policy: Policy.btcd })
        yield* strict.remote.send(malformed)
        assert.strictEqual((yield* strict.peer.awaitShutdown)._tag, "BadMessage")
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("describes the remote in its statistics, with the last announced and the last received block", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const header = (nonce: number): Wire.BlockHeader => ({
        version: 4,
        previousBlock: new Uint8Array(32),
        merkleRoot: new Uint8Array(32),
        timestamp: 1,
        bits: 1,
        nonce
      })
      const hex = (nonce: number) => Wire.hashToHex(Wire.blockHash(header(nonce)))
      yield* remote.send(
        { _tag: "feefilter", feeRate: 1_000 },
        { _tag: "headers", headers: [header(1), header(2)] },
        ping(1)
      )
      yield* remote.receiveUntil("pong")
      const before = yield* peer.stats
      assert.strictEqual(before.direction, direction)
      assert.strictEqual(before.userAgent, "/remote:1.0/")
      assert.deepStrictEqual(before.services, ["NETWORK", "WITNESS"])
      assert.deepStrictEqual([before.protocolVersion, before.startHeight, before.feeFilter], [70_017, 100, 1_000])
      assert.strictEqual(before.lastBlockAnnounced, hex(2))
      assert.isUndefined(before.lastBlockReceived)
      yield* remote.send(
        {
          _tag: "inv",
          items: [
            { type: 2, hash: Wire.blockHash(header(3)) },
            { type: 1, hash: new Uint8Array(32) }
          ]
        },
        { _tag: "block", block: { header: header(4), transactions: [] } },
        ping(2)
      )
      yield* remote.receiveUntil("pong")
      const after = yield* peer.stats
      assert.strictEqual(after.lastBlockAnnounced, hex(3))
      assert.strictEqual(after.lastBlockReceived, hex(4))
      assert.strictEqual(after.id, before.id)
      yield* remote.send({ _tag: "cmpctblock", header: header(5), nonce: 0n, shortIds: [], prefilled: [] }, ping(3))
      yield* remote.receiveUntil("pong")
      assert.strictEqual((yield* peer.stats).lastBlockAnnounced, hex(5))
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("answers a ping with its nonce", () =>
    Effect.gen(function* () {
      const { remote } = yield* start()
      yield* remote.send({ _tag: "ping", nonce: 0xffff_ffff_ffff_ffffn })
      assert.deepStrictEqual(yield* remote.receive, { _tag: "pong", nonce: 0xffff_ffff_ffff_ffffn })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("answers pings from version 60001 on, and refuses to ping below (BIP31)", () =>
    Effect.gen(function* () {
      for (const [protocolVersion, answered] of [
        [60_000, false],
        [60_001, true]
      ] as const) {
        const { peer, remote } = yield* start({}, { protocolVersion })
        yield* remote.send(ping(1), { _tag: "sendheaders" })
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* peer.stats).sent["pong"] !== undefined, answered)
        const pinged = yield* fork(Effect.result(peer.ping))
        if (answered) assert.isUndefined(pinged.pollUnsafe())
        else {
          const result = yield* Fiber.join(pinged)
          assert(result._tag === "Failure")
          assert.strictEqual(result.failure.reason._tag, "NotSupported")
        }
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("pings every two minutes and reports the last and the smallest round trip", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      let late = 0
      for (const delay of [30, 10, 20]) {
        yield* TestClock.adjust(120_000 - late)
        late = delay
        const message = yield* remote.receiveUntil("ping")
        assert(message._tag === "ping")
        yield* TestClock.adjust(delay)
        yield* remote.send({ _tag: "pong", nonce: message.nonce! }, ping(1))
        yield* remote.receiveUntil("pong")
      }
      const { lastPing, minimumPing, sent } = yield* peer.stats
      assert.strictEqual(sent["ping"]?.messages, 3)
      assert.strictEqual(Duration.toMillis(lastPing!), 20)
      assert.strictEqual(Duration.toMillis(minimumPing!), 10)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("measures concurrent calls of ping separately, and ignores a pong with an unknown nonce", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const first = yield* fork(peer.ping)
      const one = yield* remote.receiveUntil("ping")
      yield* TestClock.adjust(10)
      const second = yield* fork(peer.ping)
      const two = yield* remote.receiveUntil("ping")
      assert(one._tag === "ping" && two._tag === "ping")
      yield* TestClock.adjust(5)
      yield* remote.send({ _tag: "pong", nonce: one.nonce! ^ two.nonce! }, { _tag: "pong", nonce: two.nonce! })
      assert.strictEqual(Duration.toMillis(yield* Fiber.join(second)), 5)
      assert.isUndefined(first.pollUnsafe())
      yield* TestClock.adjust(5)
      yield* remote.send({ _tag: "pong", nonce: one.nonce! })
      assert.strictEqual(Duration.toMillis(yield* Fiber.join(first)), 20)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("sends messages in the order of the calls", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      for (let index = 0; index < 100; index++) yield* peer.send(ping(index))
      for (let index = 0; index < 100; index++) {
        assert.deepStrictEqual(yield* remote.receiveUntil("ping"), ping(index))
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("completes sendAndWait when the message has been written, not before", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      yield* peer.sendAndWait(ping(1))
      const big = yield* fork(peer.sendAndWait(filler(500_000)))
      yield* TestClock.adjust("1 second")
      assert.isUndefined(big.pollUnsafe())
      const received = yield* fork(remote.receiveUntil("Unknown"))
      yield* Fiber.join(big)
      const message = yield* Fiber.join(received)
      assert(message._tag === "Unknown")
      assert.strictEqual(message.payload.length, 500_000)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("refuses a message that cannot be encoded with NotSendable, and stays connected", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const item = { type: 1, hash: new Uint8Array(32) }
      const bad: ReadonlyArray<Wire.Message> = [
        { _tag: "inv", items: Array.from({ length: 50_001 }, () => item) },
        { _tag: "inv", items: [{ type: 1, hash: new Uint8Array(31) }] },
        { _tag: "Unknown", command: "much too long a name", payload: new Uint8Array(0) },
        filler(4_000_001)
      ]
      for (const message of bad) {
        for (const send of [peer.send, peer.sendAndWait]) {
          assert.strictEqual((yield* Effect.flip(send(message))).reason._tag, "NotSendable")
        }
      }
      yield* peer.send(ping(5))
      assert.deepStrictEqual(yield* remote.receive, ping(5))
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("drops a message with a wrong checksum, counts it, and stays connected", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const bad = remote.frames([ping(1)])
      bad[20]! ^= 1
      yield* remote.sendBytes(bad)
      yield* remote.send(ping(2))
      assert.deepStrictEqual(yield* remote.receive, { _tag: "pong", nonce: 2n })
      assert.strictEqual((yield* peer.stats).messagesDropped, 1)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("answers a malformed message with a reject and ends, under btcd's policy", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start({ policy: Policy.btcd })
      yield* remote.send({ _tag: "Unknown", command: "inv", payload: Uint8Array.of(1) })
      const reject = yield* remote.receive
      assert(reject._tag === "reject")
      assert.deepStrictEqual([reject.rejected, reject.code], ["inv", 1])
      assert.strictEqual((yield* peer.awaitShutdown)._tag, "BadMessage")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("sends no reject to a peer below version 70002", () =>
    Effect.gen(function* () {
      for (const [protocolVersion, expected] of [
        [70_001, "ConnectionError"],
        [70_002, "reject"]
      ] as const) {
        const { peer, remote } = yield* start({ policy: Policy.btcd }, { protocolVersion })
        yield* remote.send({ _tag: "Unknown", command: "inv", payload: Uint8Array.of(1) })
        const last = yield* Effect.catch(remote.receive, (error) => Effect.succeed(error))
        assert.strictEqual(last._tag, expected)
        assert.strictEqual((yield* peer.awaitShutdown)._tag, "BadMessage")
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("joins queued messages into writes of at most 256 KiB; a larger message is written alone", () =>
    Effect.gen(function* () {
      const { pair, peer, remote } = yield* start({}, {}, { window: 1 })
      const write = pair[0].write
      const sizes: Array<number> = []
      Object.assign(pair[0], {
        write: (bytes: Uint8Array) => {
          sizes.push(bytes.length)
          return write(bytes)
        }
      })
      const payloads = [...Array.from({ length: 7 }, () => 100_000), 300_000, 1, 1]
      const sends = yield* Effect.forEach(payloads, (size) => fork(peer.sendAndWait(filler(size))))
      for (const _ of payloads) yield* remote.receiveUntil("Unknown")
      for (const fiber of sends) yield* Fiber.join(fiber)
      assert.deepStrictEqual(sizes, [200_048, 200_048, 200_048, 100_024, 300_024, 50])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect.each(["version", "verack"] as const)(
    "ends on a second %s under btcd's policy, and ignores it under Core's (the default)",
    (tag) =>
      Effect.gen(function* () {
        const message = tag === "version" ? version() : verack
        const strict = yield* start({ policy: Policy.btcd })
        yield* strict.remote.send(message)
        assert.deepStrictEqual(yield* strict.peer.awaitShutdown, {
          _tag: "ProtocolViolation",
          command: tag,
          problem: "duplicate message"
        })
        const lenient = yield* start()
        yield* lenient.remote.send(message, ping(1))
        assert.strictEqual((yield* lenient.remote.receive)._tag, "pong")
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("counts bytes and messages per direction and command, with one row for all unknown commands", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const before = yield* peer.stats
      const inventions = Array.from({ length: 500 }, (_, index): Wire.Message => ({
        _tag: "Unknown",
        command: `invented${index}`,
        payload: new Uint8Array(1)
      }))
      yield* remote.send(...inventions, ping(1))
      yield* remote.receiveUntil("pong")
      const after = yield* peer.stats
      assert.deepStrictEqual(after.received["*other*"], { messages: 500, bytes: 500 * 25 })
      assert.deepStrictEqual(after.received["ping"], { messages: 1, bytes: 32 })
      assert.deepStrictEqual(after.sent["pong"], { messages: 1, bytes: 32 })
      assert.strictEqual(after.bytesReceived - before.bytesReceived, 500 * 25 + 32)
      assert.strictEqual(after.messagesReceived - before.messagesReceived, 501)
      assert.notProperty(after.received, "invented1")
      assert.isUndefined(before.received["ping"], "a snapshot does not change")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("encodes its statistics as JSON, also after it has ended", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(1_700_000_000_000)
      const { peer } = yield* start()
      yield* peer.disconnect()
      yield* peer.awaitShutdown
      const json = yield* Schema.encodeEffect(Peer.Stats)(yield* peer.stats)
      assert.strictEqual(json.connectedAt, "2023-11-14T22:13:20.000Z")
      assert.strictEqual(json.queuedBytes, 0)
      assert.deepStrictEqual(JSON.parse(JSON.stringify(json)), json)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("calls onRead and onWrite for every message, including those of the handshake", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { peer, remote } = yield* start({
        onRead: (event) => void log.push(`in ${event._tag === "Received" ? event.message._tag : "dropped"}`),
        onWrite: (message, size) => void log.push(`out ${message._tag} ${size}`)
      })
      yield* remote.send(ping(1))
      yield* remote.receiveUntil("pong")
      assert.includeMembers(log, ["in version", "in verack", "out verack 24", "in ping", "out pong 32"])
      assert.strictEqual(log.length, (yield* peer.stats).messagesReceived + (yield* peer.stats).messagesSent)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("stops reading pings when a bounded number of pongs waits for a remote that reads nothing", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      for (let index = 0; index < 200; index++) {
        yield* remote.send(...Array.from({ length: 100 }, (_, offset) => ping(index * 100 + offset)))
      }
      yield* TestClock.adjust("1 minute")
      const { messagesReceived, queuedBytes } = yield* peer.stats
      assert.isBelow(queuedBytes, 200_000)
      assert.isBelow(messagesReceived, 10_000)
    }).pipe(Effect.provide(Nonce.layer))
  )
})

describe("two peers", () => {
  it.live("that answer each other without end leave time for timers", () =>
    Effect.gen(function* () {
      let count = 0
      const handlers: Peer.Handlers = {
        getaddr: (_, peer) => {
          count++
          return peer.send({ _tag: "getaddr" })
        }
      }
      const [first] = yield* twoPeers({ handlers }, { handlers })
      yield* first.send({ _tag: "getaddr" })
      for (let turn = 0; turn < 3; turn++) yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 0)))
      assert.isAbove(count, 0)
    })
  )

  it.effect("each send 500 messages of 100 kB at once without deadlock", () =>
    Effect.gen(function* () {
      let first = 0
      let second = 0
      const done = yield* Deferred.make<void>()
      const count = (received: () => number) => () =>
        received() === 500 && first + second === 1000 ? Deferred.succeed(done, undefined) : undefined
      const peers = yield* twoPeers(
        { handlers: { Unknown: () => count(() => ++first)() } },
        { handlers: { Unknown: () => count(() => ++second)() } }
      )
      yield* Effect.forEach(
        peers,
        (peer) => Effect.forEach(Array.from({ length: 500 }), () => peer.send(filler(100_000)), { discard: true }),
        { concurrency: 2 }
      )
      yield* Deferred.await(done)
    })
  )

  it.effect("ping each other while both send queues are full", () =>
    Effect.gen(function* () {
      const peers = yield* twoPeers({ maximumQueuedBytes: 1 }, { maximumQueuedBytes: 1 })
      const floods = yield* Effect.forEach(peers, (peer) =>
        fork(Effect.forEach(Array.from({ length: 50 }), () => peer.send(filler(1_000_000)), { discard: true }))
      )
      yield* Effect.all(
        peers.map((peer) => peer.ping),
        { concurrency: 2 }
      )
      yield* Effect.forEach(floods, Fiber.join)
    })
  )

  it.effect("stay connected for a day of virtual time by their pings alone", () =>
    Effect.gen(function* () {
      const [first, second] = yield* twoPeers({}, {}, { delay: "50 millis" }).pipe(
        Effect.forkChild({ startImmediately: true }),
        Effect.tap(() => TestClock.adjust("1 second")),
        Effect.flatMap(Fiber.join)
      )
      yield* TestClock.adjust("1 day")
      for (const peer of [first, second]) {
        const stats = yield* peer.stats
        assert.isAbove(stats.sent["ping"]!.messages, 700)
        assert.strictEqual(Duration.toMillis(stats.lastPing!), 100)
      }
    })
  )
})

describe("two peers whose handlers ping each other", () => {
  it.effect("both get their pongs: a pong does not wait for the running handler", () =>
    Effect.gen(function* () {
      const answered: Array<string> = []
      const asking = (name: string): Peer.Handlers => ({
        sendheaders: (_, peer) =>
          Effect.andThen(
            peer.ping,
            Effect.sync(() => void answered.push(name))
          ).pipe(Effect.ignore)
      })
      const [first, second] = yield* twoPeers({ handlers: asking("first") }, { handlers: asking("second") })
      yield* Effect.all([first.send({ _tag: "sendheaders" }), second.send({ _tag: "sendheaders" })], { concurrency: 2 })
      for (let second = 0; second < 10 && answered.length < 2; second++) yield* TestClock.adjust("1 second")
      assert.sameMembers(answered, ["first", "second"])
    })
  )
})
