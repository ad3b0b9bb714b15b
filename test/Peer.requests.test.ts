/** What a peer asks for, who gets the answer, and the end of a peer that does not answer. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Fiber, Result, Stream } from "effect"
import { TestClock } from "effect/testing"
import { MerkleBlock, Nonce, type Peer, Wire } from "effect-bitcoin-peer"
import { fork, network, type scripted, withRemote } from "./support/peers.ts"

const transaction = (lockTime: number): Wire.Transaction => ({
  version: 2,
  inputs: [
    { previousOutput: { txid: new Uint8Array(32), index: 0 }, script: new Uint8Array(0), sequence: 0, witness: [] }
  ],
  outputs: [{ value: 1, script: new Uint8Array(0) }],
  lockTime
})
const item = (lockTime: number): Wire.InventoryItem => ({ type: 1, hash: Wire.txid(transaction(lockTime)) })
const header = (previousBlock: Uint8Array, nonce: number): Wire.BlockHeader => ({
  version: 4,
  previousBlock,
  merkleRoot: new Uint8Array(32),
  timestamp: 1_700_000_000,
  bits: 0x207fffff,
  nonce
})
const first = header(network.genesisHash, 1)
const second = header(Wire.blockHash(first), 2)

describe.each(["outbound", "inbound"] as const)("an %s peer", (direction) => {
  const start = (options: Peer.Options = {}) => withRemote({ direction, ...options })

  it.effect(
    "getHeaders returns the headers that follow the locator, and not announced headers that arrive before them",
    () =>
      Effect.gen(function* () {
        const { peer, remote } = yield* start()
        const asking = yield* fork(peer.getHeaders([network.genesisHash]))
        const question = yield* remote.receive
        assert(question._tag === "getheaders")
        assert.deepStrictEqual(Array.from(question.locator), [network.genesisHash])
        yield* remote.send({ _tag: "headers", headers: [header(new Uint8Array(32).fill(9), 7)] })
        yield* remote.send({ _tag: "headers", headers: [first, second] })
        assert.deepStrictEqual(Array.from(yield* Fiber.join(asking)), [first, second])
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("equal calls of getHeaders send one request and all get the answer", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const askings = yield* Effect.forEach([1, 2, 3], () => fork(peer.getHeaders([network.genesisHash])))
      yield* remote.receiveUntil("getheaders")
      yield* remote.send({ _tag: "headers", headers: [] }, { _tag: "ping", nonce: 1n })
      for (const asking of askings) assert.strictEqual((yield* Fiber.join(asking)).length, 0)
      assert.deepStrictEqual([(yield* remote.receive)._tag, (yield* remote.receive)._tag], ["ping", "pong"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("getData returns one result for each item, in the order of the items", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start({ stalls: false })
      const asking = yield* fork(peer.getData([item(1), item(2), item(3)], { timeout: "10 seconds" }))
      const question = yield* remote.receive
      assert(question._tag === "getdata")
      assert.strictEqual(question.items.length, 3)
      yield* remote.send(
        { _tag: "tx", transaction: transaction(3) },
        { _tag: "tx", transaction: transaction(99) },
        { _tag: "notfound", items: [item(1)] }
      )
      yield* TestClock.adjust("10 seconds")
      const results = yield* Fiber.join(asking)
      assert.deepStrictEqual(
        results.map(({ _tag, item }) => [_tag, item.hash]),
        [
          ["NotFound", item(1).hash],
          ["TimedOut", item(2).hash],
          ["Found", item(3).hash]
        ]
      )
      const found = results[2]
      assert(found?._tag === "Found" && found.message._tag === "tx")
      assert.strictEqual(found.message.transaction.lockTime, 3)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "getData of a filtered block returns the merkleblock and the transactions after it, which handlers see too",
    () =>
      Effect.gen(function* () {
        const seen: Array<string> = []
        const handlers: Peer.Handlers = {
          merkleblock: () => void seen.push("merkleblock"),
          tx: ({ transaction }) => void seen.push(`tx ${transaction.lockTime}`)
        }
        const { peer, remote } = yield* start({ handlers })
        const transactions = [1, 2, 3].map(transaction)
        const block = {
          header: { ...first, merkleRoot: Wire.merkleRoot(transactions.map(Wire.txid)) },
          transactions
        }
        const { merkleBlock } = MerkleBlock.make(block, (_, __, index) => index > 0)
        const item = { type: Wire.InventoryType.filteredBlock, hash: Wire.blockHash(block.header) }
        // All come, and then only one, as from old nodes that leave out what they have announced.
        for (const sent of [[2, 3], [3]]) {
          const asking = yield* fork(peer.getData([item]))
          yield* remote.receiveUntil("getdata")
          const ping = yield* remote.receive
          assert(ping._tag === "ping" && ping.nonce !== undefined)
          yield* remote.send(
            merkleBlock,
            ...sent.map((number): Wire.Message => ({ _tag: "tx", transaction: transaction(number) })),
            { _tag: "pong", nonce: ping.nonce },
            // Behind the pong it is none of this block.
            { _tag: "tx", transaction: transaction(2) }
          )
          const [found] = yield* Fiber.join(asking)
          assert(found?._tag === "Found" && found.message._tag === "merkleblock")
          assert.deepStrictEqual(
            Result.getOrThrow(MerkleBlock.verify(found.message)).map(({ index }) => index),
            [1, 2]
          )
          assert.deepStrictEqual(
            found.transactions?.map(({ lockTime }) => lockTime),
            sent
          )
        }
        yield* remote.send({ _tag: "ping", nonce: 5n })
        yield* remote.receiveUntil("pong")
        assert.deepStrictEqual(seen, ["merkleblock", "tx 2", "tx 3", "tx 2", "merkleblock", "tx 3", "tx 2"])
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("getData asks in batches of 1,000, and not again for items that another caller has requested", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const items = Array.from({ length: 2_100 }, (_, number) => item(number))
      const both = [yield* fork(peer.getData(items)), yield* fork(peer.getData(items.slice(50, 60)))]
      for (const size of [1_000, 1_000, 100]) {
        const question = yield* remote.receive
        assert(question._tag === "getdata")
        assert.strictEqual(question.items.length, size)
      }
      for (let from = 0; from < 2_100; from += 100) {
        yield* remote.send(
          ...items.slice(from, from + 100).map((_, index): Wire.Message => ({
            _tag: "tx",
            transaction: transaction(from + index)
          }))
        )
      }
      for (const [index, asking] of both.entries()) {
        const results = yield* Fiber.join(asking)
        assert.strictEqual(results.length, [2_100, 10][index])
        assert.isTrue(results.every(({ _tag }) => _tag === "Found"))
      }
      assert.deepStrictEqual(yield* peer.getData([]), [])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a request is still sent for the callers that joined it when the first caller is interrupted before", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start({ maximumQueuedBytes: 1 })
      const filler: Wire.Message = { _tag: "Unknown", command: "filler", payload: new Uint8Array(300_000) }
      yield* peer.send(filler)
      const asker = yield* fork(peer.getData([item(1)]))
      const joined = yield* fork(peer.getData([item(1)]))
      yield* Fiber.interrupt(asker)
      yield* remote.receiveUntil("getdata")
      yield* remote.send({ _tag: "tx", transaction: transaction(1) })
      assert.strictEqual((yield* Fiber.join(joined))[0]?._tag, "Found")
    }).pipe(Effect.provide(Nonce.layer))
  )

  /** Answers the next ping, in front of which other messages may come. */
  const pong = (remote: ReturnType<typeof scripted>) =>
    Effect.flatMap(remote.receiveUntil("ping"), (ping) => {
      assert(ping._tag === "ping" && ping.nonce !== undefined)
      return remote.send({ _tag: "pong", nonce: ping.nonce })
    })

  it.effect(
    "a request for a block that others joined is sent with its ping when its caller is interrupted before",
    () =>
      Effect.gen(function* () {
        const { peer, remote } = yield* start({ maximumQueuedBytes: 1 })
        yield* peer.send({ _tag: "Unknown", command: "filler", payload: new Uint8Array(300_000) })
        const block = { type: Wire.InventoryType.witnessBlock, hash: new Uint8Array(32).fill(7) }
        const caller = yield* fork(peer.getData([block]))
        const joined = yield* fork(peer.getData([block]))
        yield* Fiber.interrupt(caller)
        yield* remote.receiveUntil("getdata")
        yield* pong(remote)
        assert.deepStrictEqual(yield* Fiber.join(joined), [{ _tag: "NotFound", item: block }])
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("getBlocks returns the inventory of blocks; a single block only when the pong to a later ping comes", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const [one, two] = [first, second].map((header) => ({ type: 2, hash: Wire.blockHash(header) }))
      const asking = yield* fork(peer.getBlocks([network.genesisHash]))
      yield* remote.receiveUntil("getblocks")
      yield* remote.send({ _tag: "inv", items: [two!] }, { _tag: "inv", items: [one!, two!] })
      assert.deepStrictEqual(Array.from(yield* Fiber.join(asking)), [one, two])
      yield* pong(remote)

      const single = yield* fork(peer.getBlocks([Wire.blockHash(first)]))
      yield* remote.receiveUntil("getblocks")
      yield* remote.send({ _tag: "inv", items: [two!] })
      assert.isUndefined(single.pollUnsafe())
      yield* pong(remote)
      assert.deepStrictEqual(Array.from(yield* Fiber.join(single)), [two])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a peer that answers a later ping but not the request gives NoAnswer, and does not stall", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start({ pingTimeout: "1 hour", idleTimeout: "1 hour", pingInterval: "1 hour" })
      const block = { type: Wire.InventoryType.witnessBlock, hash: new Uint8Array(32).fill(7) }
      const data = yield* fork(peer.getData([block]))
      yield* pong(remote)
      assert.deepStrictEqual(yield* Fiber.join(data), [{ _tag: "NotFound", item: block }])
      const reasons: Array<Peer.PeerReason> = []
      for (const effect of [
        peer.getHeaders([network.genesisHash]),
        peer.getBlocks([network.genesisHash]),
        peer.getBlockTransactions(block.hash, [1])
      ] as ReadonlyArray<Effect.Effect<unknown, Peer.PeerError>>) {
        const asking = yield* fork(effect)
        yield* pong(remote)
        const error = yield* Effect.flip(Fiber.join(asking))
        assert.isNotEmpty(error.message)
        reasons.push(error.reason)
      }
      assert.deepStrictEqual(reasons, [
        { _tag: "NoAnswer", what: "getheaders" },
        { _tag: "NoAnswer", what: "getblocks" },
        { _tag: "NotFound", what: "getblocktxn", hash: block.hash }
      ])
      // The late answer is no answer any more.
      yield* remote.send({ _tag: "headers", headers: [first] })
      yield* TestClock.adjust("10 minutes")
      assert.isUndefined((yield* fork(peer.awaitShutdown)).pollUnsafe())
      assert.strictEqual((yield* peer.stats).openRequests, 0)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("headers that do not connect to the locator give DoesNotConnect and not an empty list", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const asking = yield* fork(peer.getHeaders([network.genesisHash]))
      yield* remote.receiveUntil("getheaders")
      yield* remote.send({ _tag: "headers", headers: [second] })
      yield* pong(remote)
      const { reason } = yield* Effect.flip(Fiber.join(asking))
      assert.deepStrictEqual(reason, { _tag: "DoesNotConnect", what: "getheaders" })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a block that a caller requested with send and that is late is followed by a ping", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const wanted = { type: Wire.InventoryType.block, hash: new Uint8Array(32).fill(7) }
      yield* peer.sendAndWait({ _tag: "getdata", items: [wanted] })
      const joined = yield* fork(peer.getData([wanted], { timeout: "1 hour" }))
      yield* TestClock.adjust("45 seconds")
      yield* pong(remote)
      assert.deepStrictEqual(yield* Fiber.join(joined), [{ _tag: "NotFound", item: wanted }])
      yield* TestClock.adjust("60 seconds")
      assert.isUndefined((yield* fork(peer.awaitShutdown)).pollUnsafe())
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("the pong goes out after the answers to the messages before the ping", () =>
    Effect.gen(function* () {
      const { remote } = yield* withRemote({
        direction,
        handlers: {
          getblocks: (_, peer) => Effect.andThen(Effect.sleep(100), peer.send({ _tag: "inv", items: [item(1)] }))
        }
      })
      yield* remote.send(
        { _tag: "getblocks", protocolVersion: 70_017, locator: [], stopHash: new Uint8Array(32) },
        { _tag: "ping", nonce: 1n }
      )
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([(yield* remote.receive)._tag, (yield* remote.receive)._tag], ["inv", "pong"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "getAddresses returns addresses of an addr in the form of addrv2, and skips the peer's own announcement",
    () =>
      Effect.gen(function* () {
        const { peer, remote } = yield* start()
        const asking = yield* fork(peer.getAddresses())
        yield* remote.receiveUntil("getaddr")
        const four = new Uint8Array(16)
        four.set([0xff, 0xff, 1, 2, 3, 4], 10)
        const six = new Uint8Array(16).fill(0x20)
        const one = { timestamp: 1, services: 9n, address: four, port: 8333 }
        const two = { timestamp: 2, services: 9n, address: six, port: 8334 }
        yield* remote.send({ _tag: "addr", addresses: [one] }, { _tag: "addr", addresses: [one, two] })
        assert.deepStrictEqual(yield* Fiber.join(asking), [
          { ...one, networkId: 1, address: Uint8Array.of(1, 2, 3, 4) },
          { ...two, networkId: 2 }
        ])
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("getAddresses returns a single address when the time is over", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const asking = yield* fork(peer.getAddresses({ timeout: "30 seconds" }))
      yield* remote.receiveUntil("getaddr")
      const one = { timestamp: 1, services: 9n, address: new Uint8Array(16).fill(0x20), port: 8333 }
      yield* remote.send({ _tag: "addr", addresses: [one] })
      yield* TestClock.adjust("30 seconds")
      assert.deepStrictEqual(yield* Fiber.join(asking), [{ ...one, networkId: 2 }])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("requests time out with a typed error, and the peer stays connected", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start({ stalls: false })
      const askings = [
        [yield* fork(peer.getHeaders([])), "getheaders", 90],
        [yield* fork(peer.getBlocks([])), "getblocks", 30],
        [yield* fork(peer.getBlockTransactions(Wire.blockHash(first), [1])), "getblocktxn", 30],
        [yield* fork(peer.getAddresses()), "getaddr", 120]
      ] as const
      yield* TestClock.adjust("2 minutes")
      for (const [asking, what, seconds] of askings) {
        const { reason } = yield* Effect.flip(Fiber.join(asking as Fiber.Fiber<unknown, Peer.PeerError>))
        assert(reason._tag === "TimedOut")
        assert.strictEqual(reason.what, what)
        assert.strictEqual(Duration.toSeconds(reason.after), seconds)
      }
      yield* remote.send({ _tag: "ping", nonce: 1n })
      yield* remote.receiveUntil("pong")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a handler may call the peer and wait for the answer while other messages arrive", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const { peer, remote } = yield* withRemote({
        direction,
        handlers: {
          inv: (message, peer) =>
            Effect.gen(function* () {
              log.push("asks")
              yield* peer.ping
              const [result] = yield* peer.getData(message.items)
              log.push(result!._tag)
            }),
          sendheaders: () => void log.push("sendheaders")
        }
      })
      yield* remote.send({ _tag: "inv", items: [item(1)] }, { _tag: "sendheaders" })
      const ping = yield* remote.receiveUntil("ping")
      assert(ping._tag === "ping")
      yield* remote.send({ _tag: "sendheaders" }, { _tag: "pong", nonce: ping.nonce! })
      yield* remote.receiveUntil("getdata")
      yield* remote.send({ _tag: "tx", transaction: transaction(1) }, { _tag: "ping", nonce: 7n })
      yield* remote.receiveUntil("pong")
      assert.deepStrictEqual(log, ["asks", "Found", "sendheaders", "sendheaders"])
      yield* peer.disconnect()
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "a handler that waits for an answer when the remote closes gets an error, and the peer ends with RemoteClosed",
    () =>
      Effect.gen(function* () {
        const { peer, remote } = yield* withRemote({ direction, handlers: { inv: (_, peer) => peer.ping } })
        yield* remote.send({ _tag: "inv", items: [] })
        yield* remote.receiveUntil("ping")
        yield* remote.connection.close
        assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "RemoteClosed" })
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("the consumer of a stream may call the peer for each message", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const found: Array<string> = []
      yield* fork(
        Stream.runForEach(peer.messages, (message) =>
          message._tag === "inv"
            ? Effect.map(peer.getData(message.items), ([result]) => void found.push(result!._tag))
            : Effect.void
        )
      )
      for (let number = 0; number < 5; number++) yield* remote.send({ _tag: "inv", items: [item(number)] })
      for (let number = 0; number < 5; number++) {
        yield* remote.receiveUntil("getdata")
        yield* remote.send({ _tag: "tx", transaction: transaction(number) })
      }
      yield* remote.send({ _tag: "ping", nonce: 1n })
      yield* remote.receiveUntil("pong")
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(found, ["Found", "Found", "Found", "Found", "Found"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("the bytes read ahead while a caller waits are bounded", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* withRemote({ direction, handlers: { inv: (_, peer) => peer.ping } })
      yield* remote.send({ _tag: "inv", items: [] })
      const filler: Wire.Message = { _tag: "Unknown", command: "filler", payload: new Uint8Array(100_000) }
      for (let count = 0; count < 200; count++) yield* remote.send(filler)
      yield* TestClock.adjust("1 second")
      assert.isBelow((yield* peer.stats).bytesReceived, 9 * 1024 * 1024)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("every waiting and every later request fails with Ended when the peer ends", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const ask = [
        peer.getHeaders([]),
        peer.getBlocks([]),
        peer.getAddresses(),
        peer.getData([item(1)]),
        peer.getBlockTransactions(Wire.blockHash(first), [1])
      ] as ReadonlyArray<Effect.Effect<unknown, Peer.PeerError>>
      const askings = yield* Effect.forEach(ask, fork)
      yield* remote.connection.close
      for (const asking of askings) {
        assert.strictEqual((yield* Effect.flip(Fiber.join(asking))).reason._tag, "Ended")
      }
      for (const question of ask) assert.strictEqual((yield* Effect.flip(question)).reason._tag, "Ended")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a request that cannot be sent fails at once", () =>
    Effect.gen(function* () {
      const { peer } = yield* start()
      const locator = Array.from({ length: 102 }, () => new Uint8Array(32))
      assert.strictEqual((yield* Effect.flip(peer.getHeaders(locator))).reason._tag, "NotSendable")
      const bad = { type: 1, hash: new Uint8Array(31) }
      assert.strictEqual((yield* Effect.flip(peer.getData([bad]))).reason._tag, "NotSendable")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "an unanswered getdata is followed by a ping after 30 s and stalls after 30 s more, a getheaders after 90 s each",
    () =>
      Effect.gen(function* () {
        for (const [message, seconds] of [
          [{ _tag: "getdata", items: [item(1), item(2)] }, 30],
          [{ _tag: "getheaders", protocolVersion: 70_017, locator: [], stopHash: new Uint8Array(32) }, 90]
        ] as const) {
          const { peer, remote } = yield* start()
          yield* peer.sendAndWait(message)
          yield* remote.send({ _tag: "tx", transaction: transaction(77) }, { _tag: "tx", transaction: transaction(2) })
          yield* remote.receiveUntil(message._tag)
          yield* TestClock.adjust(Duration.seconds(2 * seconds - 1))
          assert.isUndefined((yield* fork(peer.awaitShutdown)).pollUnsafe())
          yield* TestClock.adjust("16 seconds")
          const end = yield* peer.awaitShutdown
          assert(end._tag === "Stalled")
          assert.strictEqual(end.command, message._tag)
          if (end.command === "getdata") assert.deepStrictEqual(end.hash, item(1).hash)
        }
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("answered requests do not stall, nor does a getblocks or a mempool without an answer", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      yield* peer.send({ _tag: "getdata", items: [item(1), item(2)] })
      yield* peer.send({ _tag: "getblocks", protocolVersion: 70_017, locator: [], stopHash: new Uint8Array(32) })
      yield* peer.sendAndWait({ _tag: "mempool" })
      yield* remote.send({ _tag: "tx", transaction: transaction(1) }, { _tag: "notfound", items: [item(2)] })
      // The only thing to do is to answer a ping.
      yield* TestClock.adjust("45 seconds")
      yield* pong(remote)
      yield* TestClock.adjust("10 minutes")
      assert.isUndefined((yield* fork(peer.awaitShutdown)).pollUnsafe())
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("the time that our own handlers take does not count as a stall", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const { peer, remote } = yield* withRemote({
        direction,
        handlers: { sendheaders: () => Deferred.await(gate) }
      })
      yield* peer.sendAndWait({ _tag: "getdata", items: [item(1)] })
      yield* remote.send({ _tag: "sendheaders" }, { _tag: "tx", transaction: transaction(1) })
      yield* TestClock.adjust("5 minutes")
      yield* Deferred.succeed(gate, undefined)
      yield* TestClock.adjust("5 minutes")
      assert.isUndefined((yield* fork(peer.awaitShutdown)).pollUnsafe())
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("stalls can be turned off", () =>
    Effect.gen(function* () {
      const { peer } = yield* start({ stalls: false })
      yield* peer.send({ _tag: "getdata", items: [item(1)] })
      yield* TestClock.adjust("15 minutes")
      assert.isUndefined((yield* fork(peer.awaitShutdown)).pollUnsafe())
    }).pipe(Effect.provide(Nonce.layer))
  )
})
