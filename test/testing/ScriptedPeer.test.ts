/** Scripted remotes: the usual ones against real peers, and the actions of scripts. */
import { assert, describe } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Connection, Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { RegtestChain, ScriptedPeer, Simulation } from "effect-bitcoin-peer/testing"
import { fork, scripted, version } from "../support/peers.ts"
import { virtual } from "../support/virtual.ts"

const network = Network.regtest
const chain = RegtestChain.extend(RegtestChain.start, 120, { transactions: RegtestChain.usualTransactions })
const now = Clock.currentTimeMillis

/** A peer of ours over a connection to a script, in a simulation. */
const against = Effect.fnUntraced(function* <S>(script: ScriptedPeer.Script<S>, options: Peer.Options = {}) {
  const simulation = yield* Simulation.make()
  const [node, wallet] = [yield* simulation.host({ name: "node" }), yield* simulation.host({ name: "wallet" })]
  const attached = yield* ScriptedPeer.attach(node, script)
  const making = yield* fork(
    Effect.flatMap(wallet.dial(node.addresses[0]), (connection) => Peer.make(connection, { network, ...options })).pipe(
      Effect.provide(wallet.layer)
    )
  )
  yield* TestClock.adjust("1 second")
  return { simulation, attached, making, wallet, node }
})

const answer = Effect.fnUntraced(function* <A, E>(effect: Effect.Effect<A, E>) {
  const fiber = yield* fork(effect)
  yield* TestClock.adjust("1 minute")
  return yield* Fiber.join(fiber)
})

describe("an honest node", () => {
  virtual("answers for its headers, blocks, inventories and addresses", () =>
    Effect.gen(function* () {
      const address = { timestamp: 1, services: 1n, networkId: 1, address: Uint8Array.of(1, 2, 3, 4), port: 8333 }
      const addresses = [address, { ...address, networkId: 4, address: new Uint8Array(32) }]
      const { making } = yield* against(ScriptedPeer.honest(chain, { addresses }))
      const peer = yield* Fiber.join(making)
      assert.strictEqual(peer.info.startHeight, 120)
      const headers = yield* answer(peer.getHeaders([chain.hashes[100]!]))
      assert.deepStrictEqual(
        Array.from(headers, (header) => Wire.blockHash(header)),
        chain.hashes.slice(101)
      )
      assert.strictEqual((yield* answer(peer.getHeaders([chain.hashes[120]!]))).length, 0)
      const inventory = yield* answer(peer.getBlocks([chain.hashes[90]!], chain.hashes[95]!))
      assert.deepStrictEqual(
        Array.from(inventory, ({ hash }) => hash),
        chain.hashes.slice(91, 96)
      )
      const block = yield* answer(peer.getBlock(chain.hashes[104]!))
      assert.strictEqual(block.transactions.length, 3)
      assert.strictEqual((yield* answer(Effect.flip(peer.getBlock(new Uint8Array(32))))).reason._tag, "NotFound")
      assert.deepStrictEqual(
        (yield* answer(peer.getAddresses())).map(({ networkId }) => networkId),
        [1, 4]
      )
      yield* answer(peer.ping)
    })
  )

  virtual("announces what its chain grows by", () =>
    Effect.gen(function* () {
      let current = chain
      const heard: Array<string> = []
      const { attached, making } = yield* against(
        ScriptedPeer.honest(() => current),
        {
          handlers: {
            inv: ({ items }) => void heard.push(`inv ${Wire.hashToHex(items.at(0)!.hash)}`),
            headers: ({ headers }) => void heard.push(`headers ${Wire.hashToHex(Wire.blockHash(headers.at(0)!))}`)
          }
        }
      )
      const peer = yield* Fiber.join(making)
      const expected: Array<string> = []
      for (const what of ["inv", "headers"]) {
        current = RegtestChain.extend(current, 1)
        if (what === "headers") yield* answer(peer.send({ _tag: "sendheaders" }))
        yield* attached.tell(ScriptedPeer.announce(current))
        expected.push(`${what} ${Wire.hashToHex(current.hashes.at(-1)!)}`)
        yield* TestClock.adjust("1 second")
      }
      assert.deepStrictEqual(heard, expected)
      assert.strictEqual((yield* answer(peer.getHeaders([chain.hashes[120]!]))).length, 2)
    })
  )

  virtual("dials, too", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const running = yield* fork(ScriptedPeer.run(theirs, ScriptedPeer.honest(chain), { direction: "outbound" }))
      const peer = yield* Peer.make(ours, { network, direction: "inbound" })
      assert.strictEqual(peer.info.startHeight, 120)
      yield* peer.disconnect()
      yield* Fiber.join(running)
    }).pipe(Effect.provide(Nonce.layer))
  )
})

describe("a silent remote", () => {
  virtual("lets the handshake time out", () =>
    Effect.gen(function* () {
      const { attached, making } = yield* against(ScriptedPeer.silent)
      assert.strictEqual(yield* attached.connections, 1)
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual((yield* Effect.flip(Fiber.join(making)))._tag, "HandshakeError")
      assert.strictEqual(yield* attached.connections, 0)
      assert.strictEqual(yield* attached.accepted, 1)
    })
  )

  virtual("after the handshake is ended as idle", () =>
    Effect.gen(function* () {
      const { making } = yield* against(ScriptedPeer.mute)
      const peer = yield* Fiber.join(making)
      const ending = yield* fork(peer.awaitShutdown)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* Fiber.join(ending))._tag, "IdleTimeout")
    })
  )
})

virtual("a slow remote answers after its delay, one message after the other", () =>
  Effect.gen(function* () {
    const { making } = yield* against(ScriptedPeer.slow(ScriptedPeer.honest(chain), "4 seconds"))
    yield* TestClock.adjust("1 minute")
    const peer = yield* Fiber.join(making)
    const start = yield* now
    const pings = yield* fork(
      Effect.all([Effect.andThen(peer.ping, now), Effect.andThen(peer.ping, now)], { concurrency: 2 })
    )
    yield* TestClock.adjust("1 minute")
    assert.deepStrictEqual(
      (yield* Fiber.join(pings)).map((at) => at - start),
      [4_100, 8_100]
    )
  })
)

virtual("a node of version 1 only ends a key exchange, and shakes hands in the old way", () =>
  Effect.gen(function* () {
    const { attached, making, node, wallet } = yield* against(ScriptedPeer.v1Only(chain), { transport: "v2" })
    assert.strictEqual((yield* Effect.flip(Fiber.join(making)))._tag, "HandshakeError")
    const dialling = yield* fork(
      Peer.dial(wallet.dial(node.addresses[0]), { network, transport: "auto" }).pipe(Effect.provide(wallet.layer))
    )
    yield* TestClock.adjust("5 seconds")
    const peer = yield* Fiber.join(dialling)
    assert.strictEqual(peer.info.transport, "v1")
    assert.isFalse(peer.info.wtxidRelay)
    assert.strictEqual(yield* attached.accepted, 3)
  })
)

describe("a liar", () => {
  const lied = Effect.fnUntraced(function* (lie: ScriptedPeer.Lie, options: Peer.Options = {}) {
    const { making } = yield* against(ScriptedPeer.liar(chain, lie), options)
    const peer = yield* Fiber.join(making)
    return { peer, ending: yield* fork(peer.awaitShutdown) }
  })

  virtual("about its height", () =>
    Effect.gen(function* () {
      assert.strictEqual((yield* lied("height")).peer.info.startHeight, 1_120)
    })
  )

  virtual("about headers sends some that do not connect", () =>
    Effect.gen(function* () {
      const { peer } = yield* lied("headers")
      const error = yield* answer(Effect.flip(peer.getHeaders([chain.hashes[5]!])))
      assert.strictEqual(error.reason._tag, "DoesNotConnect")
    })
  )

  virtual("about work sends headers without it", () =>
    Effect.gen(function* () {
      const headers: Array<Wire.BlockHeader> = []
      const { ending, peer } = yield* lied("work", {
        handlers: { headers: (message) => void headers.push(...message.headers) }
      })
      yield* peer.sendGetHeaders([chain.hashes[100]!])
      yield* TestClock.adjust("1 second")
      assert.isUndefined(ending.pollUnsafe())
      assert.isFalse(headers.some((header) => RegtestChain.hasProofOfWork(header)))
      assert.strictEqual(headers.length, 20)
    })
  )

  virtual("about transactions is found out", () =>
    Effect.gen(function* () {
      const { ending, peer } = yield* lied("transactions")
      assert.strictEqual((yield* answer(Effect.flip(peer.getBlock(chain.hashes[50]!)))).reason._tag, "Ended")
      assert.strictEqual((yield* Fiber.join(ending))._tag, "BadAnswer")
    })
  )

  for (const lie of ["block", "nothing"] as const) {
    virtual(`about ${lie} gives no block`, () =>
      Effect.gen(function* () {
        const { peer } = yield* lied(lie)
        assert.strictEqual((yield* answer(Effect.flip(peer.getBlock(chain.hashes[50]!)))).reason._tag, "NotFound")
      })
    )
  }

  virtual("about pongs never answers a ping", () =>
    Effect.gen(function* () {
      const { peer } = yield* lied("pong")
      const pinging = yield* fork(peer.ping)
      yield* TestClock.adjust("10 minutes")
      assert.isUndefined(pinging.pollUnsafe())
    })
  )
})

describe("a flood", () => {
  for (const [name, make] of Object.entries(ScriptedPeer.floods)) {
    virtual(`of ${name} arrives at its rate, and back-pressure holds it up`, () =>
      Effect.gen(function* () {
        const { making } = yield* against(ScriptedPeer.flood(make, { every: 100, count: 3 }))
        const peer = yield* Fiber.join(making)
        const { received } = yield* peer.stats
        yield* TestClock.adjust("10 seconds")
        const after = (yield* peer.stats).received
        const messages = (of: typeof received): number =>
          Object.values(of).reduce((sum, count) => sum + (count?.messages ?? 0), 0)
        assert.isAtLeast(messages(after) - messages(received), 290)
        yield* peer.disconnect()
        yield* TestClock.adjust("1 second")
      })
    )
  }
})

describe("a script", () => {
  const ping = { _tag: "ping", nonce: 1n } as const

  virtual("performs its actions in order, and waits between them", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const remote = scripted(ours)
      const running = yield* fork(
        ScriptedPeer.run(theirs, {
          state: 0,
          onMessage: (_, count) => [
            count + 1,
            { _tag: "pong", nonce: BigInt(count) },
            { _tag: "Wait", duration: "1 second" },
            Uint8Array.of(1, 2, 3),
            ...(count === 1 ? [{ _tag: "Close" as const }] : [])
          ]
        })
      )
      yield* remote.send(ping, ping)
      assert.deepStrictEqual(yield* remote.receive, { _tag: "pong", nonce: 0n })
      const bytes = yield* fork(ours.pull)
      yield* TestClock.adjust(999)
      assert.isUndefined(bytes.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.deepStrictEqual((yield* Fiber.join(bytes))[0], Uint8Array.of(1, 2, 3))
      yield* ours.pull
      yield* TestClock.adjust("1 second")
      yield* ours.pull
      assert.strictEqual((yield* Effect.flip(ours.pull)).reason._tag, "Closed")
      yield* Fiber.join(running)
    })
  )

  virtual("ticks while its remote is silent, and stops with the connection", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      let ticks = 0
      const running = yield* fork(
        ScriptedPeer.run(theirs, {
          state: undefined,
          onMessage: () => [undefined],
          tick: { every: "1 second", onTick: () => (++ticks, [undefined]) }
        })
      )
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(ticks, 10)
      yield* ours.destroy
      yield* Fiber.join(running)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(ticks, 10)
    })
  )

  virtual("is not read further than a thousand messages ahead", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const remote = scripted(ours)
      yield* fork(
        ScriptedPeer.run(theirs, {
          state: undefined,
          onMessage: () => [undefined, { _tag: "Wait", duration: "1 hour" }]
        })
      )
      for (let i = 0; i < 20; i++) yield* remote.send(...Array.from({ length: 1_000 }, () => ping))
      assert.isAbove(ours.write(new Uint8Array(0)), 100_000)
    })
  )

  virtual("that throws ends its run as a defect, and no other", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const remote = scripted(ours)
      const running = yield* fork(
        ScriptedPeer.run(theirs, {
          state: undefined,
          onMessage: () => {
            throw new Error("a mistake in the test")
          }
        })
      )
      yield* remote.send(version())
      const exit = yield* Fiber.await(running)
      assert.match(String(exit), /a mistake in the test/)
    })
  )

  virtual("runs over a connection that can only be pulled", () =>
    Effect.gen(function* () {
      const [ours, theirs] = yield* Connection.makePair()
      const { close, destroy, drained, localAddress, pull, remoteAddress } = theirs
      const plain: Connection.Connection = {
        localAddress,
        remoteAddress,
        pull,
        drained,
        close,
        destroy,
        write: (bytes) => theirs.write(bytes)
      }
      yield* fork(ScriptedPeer.run(plain, ScriptedPeer.honest(chain)))
      const peer = yield* Peer.make(ours, { network })
      assert.strictEqual((yield* peer.getHeaders([chain.hashes[0]!])).length, 120)
    }).pipe(Effect.provide(Nonce.layer))
  )
})
