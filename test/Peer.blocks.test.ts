/** getBlock, getTransaction and getBlockTransactions: checked answers, or a typed reason. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Result } from "effect"
import { TestClock } from "effect/testing"
import { CompactBlock, MerkleBlock, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { RegtestChain } from "effect-bitcoin-peer/testing"
import { fork, network, type scripted, withRemote } from "./support/peers.ts"

const { genesis } = RegtestChain
const chain = { blocks: [genesis], hashes: [Wire.blockHash(genesis.header)] }
const coinbase = genesis.transactions.at(0)!
/** A transaction with a witness. The output that it spends cannot be spent in a real chain. */
const transaction: Wire.Transaction = {
  ...RegtestChain.spend(RegtestChain.coinOf(coinbase)),
  inputs: [
    {
      previousOutput: { txid: Wire.txid(coinbase), index: 0 },
      script: new Uint8Array(0),
      sequence: 0,
      witness: [RegtestChain.anyone]
    }
  ]
}
const timestamp = genesis.header.timestamp + 600
const block = RegtestChain.mineBlock(chain, { timestamp, transactions: [transaction] })
const hash = Wire.blockHash(block.header)
const bare = (transaction: Wire.Transaction): Wire.Transaction => ({
  ...transaction,
  inputs: Array.from(transaction.inputs, (input) => ({ ...input, witness: [] }))
})
const message = (block: Wire.Block): Wire.BlockMessage => ({ _tag: "block", block })
const stripped = { ...block, transactions: Array.from(block.transactions, bare) }
/** A block with other transactions under the same header. */
const mutated = { ...block, transactions: genesis.transactions }
const bytesOf = (block: Wire.Block): Uint8Array => Result.getOrThrow(Wire.encode(message(block)))

type Remote = ReturnType<typeof scripted>

/** Answers the next ping. */
const pong = (remote: Remote) =>
  Effect.flatMap(remote.receiveUntil("ping"), (ping) => {
    assert(ping._tag === "ping" && ping.nonce !== undefined)
    return remote.send({ _tag: "pong", nonce: ping.nonce })
  })

/** The items of the next getdata. */
const requested = (remote: Remote) =>
  Effect.map(remote.receiveUntil("getdata"), (message) => {
    assert(message._tag === "getdata")
    return Array.from(message.items)
  })

const reasonOf = <A>(fiber: Fiber.Fiber<A, Peer.PeerError>) =>
  Effect.map(Effect.flip(Fiber.join(fiber)), (error) => {
    assert.isNotEmpty(error.message)
    return error.reason
  })

describe.each(["outbound", "inbound"] as const)("an %s peer", (direction) => {
  const start = (options: Peer.Options = {}) => withRemote({ direction, ...options })

  it.effect("getBlock requests the block with witnesses and returns it", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const asking = yield* fork(peer.getBlock(hash))
      assert.deepStrictEqual(yield* requested(remote), [{ type: Wire.InventoryType.witnessBlock, hash }])
      yield* remote.send(message(block))
      assert.deepStrictEqual(bytesOf(yield* Fiber.join(asking)), bytesOf(block))
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("getBlock fails with NotFound on a notfound, and when the pong to a later ping arrives first", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const answers = [
        remote.send({ _tag: "notfound", items: [{ type: Wire.InventoryType.witnessBlock, hash }] }),
        pong(remote)
      ]
      for (const answer of answers) {
        const asking = yield* fork(peer.getBlock(hash))
        yield* requested(remote)
        yield* answer
        assert.deepStrictEqual(yield* reasonOf(asking), { _tag: "NotFound", what: "getdata", hash })
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "the ping after a request does not count as a round trip, because its pong comes after a block that may be large",
    () =>
      Effect.gen(function* () {
        const { peer, remote } = yield* start()
        const asking = yield* fork(peer.getBlock(hash))
        yield* requested(remote)
        yield* TestClock.adjust("20 seconds")
        yield* remote.send(message(block))
        yield* pong(remote)
        yield* Fiber.join(asking)
        const { lastPing, minimumPing } = yield* peer.stats
        assert.deepStrictEqual([lastPing, minimumPing], [undefined, undefined])
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("getBlock fails with TimedOut when neither the block nor a pong arrives", () =>
    Effect.gen(function* () {
      const { peer } = yield* start({ stalls: false })
      const asking = yield* fork(peer.getBlock(hash, { timeout: "20 seconds" }))
      yield* TestClock.adjust("20 seconds")
      assert.deepStrictEqual(yield* reasonOf(asking), {
        _tag: "TimedOut",
        what: "getdata",
        after: Duration.seconds(20)
      })
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a block that the peer did not have can be announced to it: a request does not mark it as known", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const asking = yield* fork(peer.getBlock(hash))
      yield* pong(remote)
      yield* reasonOf(asking)
      yield* peer.announce([{ type: Wire.InventoryType.block, hash }])
      assert.strictEqual((yield* remote.receive)._tag, "inv")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect(
    "a mutated block that answers a request ends the peer, fails the request, and is not passed to handlers",
    () =>
      Effect.gen(function* () {
        for (const [wrong, problem] of [
          [mutated, "the header commits to other transactions"],
          [stripped, "the coinbase has a commitment without its witness"]
        ] as const) {
          const handled: Array<string> = []
          const { peer, remote } = yield* start({
            handlers: { block: () => void handled.push("block"), sendheaders: () => void handled.push("sendheaders") }
          })
          const asking = yield* fork(peer.getBlock(hash))
          yield* remote.send({ _tag: "sendheaders" }, message(wrong), { _tag: "sendheaders" })
          const end = yield* peer.awaitShutdown
          assert.deepStrictEqual(end, { _tag: "BadAnswer", command: "block", hash, problem })
          assert.deepStrictEqual(yield* reasonOf(asking), { _tag: "Ended", end })
          assert.deepStrictEqual(handled, ["sendheaders"])
          assert.include(Peer.describeEnd(end), problem)
          assert.deepStrictEqual(Peer.assess(end), { by: "remote", retry: false, points: 100 })
        }
      }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a block without witnesses answers a request for the block without witnesses", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const asking = yield* fork(peer.getData([{ type: Wire.InventoryType.block, hash }]))
      yield* remote.send(message(stripped))
      assert.strictEqual((yield* Fiber.join(asking))[0]?._tag, "Found")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("an unsolicited mutated block is passed to handlers, and the peer stays connected", () =>
    Effect.gen(function* () {
      const handled: Array<string> = []
      const { remote } = yield* start({ handlers: { block: () => void handled.push("block") } })
      yield* remote.send(message(mutated), { _tag: "ping", nonce: 1n })
      yield* remote.receiveUntil("pong")
      assert.deepStrictEqual(handled, ["block"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a filtered block without a valid proof, or headers that are not a chain, end the peer", () =>
    Effect.gen(function* () {
      const { merkleBlock } = MerkleBlock.make(block, () => true)
      const next = RegtestChain.mineBlock(chain, { timestamp: timestamp + 600 })
      const cases = [
        ["merkleblock", { ...merkleBlock, hashes: [hash] }],
        ["headers", { _tag: "headers", headers: [block.header, next.header] }]
      ] as const
      for (const [command, answer] of cases) {
        const { peer, remote } = yield* start()
        const asking = yield* fork<unknown, Peer.PeerError, never>(
          command === "headers"
            ? peer.getHeaders([network.genesisHash])
            : peer.getData([{ type: Wire.InventoryType.filteredBlock, hash }])
        )
        yield* remote.receiveUntil(command === "headers" ? "getheaders" : "getdata")
        yield* remote.send(answer)
        const end = yield* peer.awaitShutdown
        assert(end._tag === "BadAnswer")
        assert.strictEqual(end.command, command)
        assert.strictEqual((yield* reasonOf(asking))._tag, "Ended")
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a slow block does not stall while its bytes arrive, and does when they stop", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const asking = yield* fork(peer.getBlock(hash, { timeout: "1 hour" }))
      yield* remote.receiveUntil("getdata")
      const frame = remote.frames([message(block)])
      const size = Math.ceil(frame.length / 10)
      for (let from = 0; from < frame.length; from += size) {
        yield* TestClock.adjust("25 seconds")
        yield* remote.sendBytes(frame.subarray(from, from + size))
      }
      assert.deepStrictEqual(bytesOf(yield* Fiber.join(asking)), bytesOf(block))

      const stuck = yield* fork(peer.getBlock(hash, { timeout: "1 hour" }))
      yield* remote.receiveUntil("getdata")
      yield* remote.sendBytes(frame.subarray(0, 100))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* peer.awaitShutdown)._tag, "Stalled")
      assert.strictEqual((yield* reasonOf(stuck))._tag, "Ended")
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("getTransaction requests with witnesses, by the negotiated kind of hash or the given one", () =>
    Effect.gen(function* () {
      const { tx, witnessTx, wtx } = Wire.InventoryType
      const [txid, wtxid] = [Wire.txid(transaction), Wire.wtxid(transaction)]
      assert.notDeepEqual(txid, wtxid)
      for (const wtxidRelay of [false, true]) {
        const negotiation: ReadonlyArray<Wire.Message> = wtxidRelay ? [{ _tag: "wtxidrelay" }] : []
        const { peer, remote } = yield* withRemote({ direction }, {}, {}, negotiation)
        assert.strictEqual(peer.info.wtxidRelay, wtxidRelay)
        const announced = wtxidRelay ? { type: wtx, hash: wtxid } : { type: witnessTx, hash: txid }
        for (const [ask, item] of [
          [peer.getTransaction(announced.hash), announced],
          [peer.getTransaction(txid, { by: "txid" }), { type: witnessTx, hash: txid }],
          [peer.getTransaction(wtxid, { by: "wtxid" }), { type: wtx, hash: wtxid }]
        ] as const) {
          const asking = yield* fork(ask)
          assert.deepStrictEqual(yield* requested(remote), [item])
          yield* remote.send({ _tag: "tx", transaction })
          assert.deepStrictEqual(Wire.wtxid(yield* Fiber.join(asking)), wtxid)
        }
        const missing = yield* fork(peer.getTransaction(hash))
        const items = yield* requested(remote)
        // Some nodes omit the witness flag in notfound.
        yield* remote.send({ _tag: "notfound", items: wtxidRelay ? items : [{ type: tx, hash }] })
        assert.deepStrictEqual(yield* reasonOf(missing), { _tag: "NotFound", what: "getdata", hash })
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("getBlockTransactions returns the blocktxn of its block, or the whole block", () =>
    Effect.gen(function* () {
      const { peer, remote } = yield* start()
      const other = RegtestChain.mineBlock(chain, { timestamp: timestamp + 600 })
      const askings = [
        yield* fork(peer.getBlockTransactions(hash, [0, 1])),
        yield* fork(peer.getBlockTransactions(hash, [0, 1])),
        yield* fork(peer.getBlockTransactions(Wire.blockHash(other.header), [0]))
      ]
      const question = yield* remote.receive
      assert(question._tag === "getblocktxn")
      assert.deepStrictEqual([question.blockHash, Array.from(question.indexes)], [hash, [0, 1]])
      yield* remote.receiveUntil("getblocktxn")
      const answer = Result.getOrThrow(CompactBlock.answer(block, question))
      yield* remote.send({ ...answer, blockHash: new Uint8Array(32) }, answer, message(other))
      const tags: Array<string> = []
      for (const asking of askings) tags.push((yield* Fiber.join(asking))._tag)
      assert.deepStrictEqual(tags, ["blocktxn", "blocktxn", "block"])
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("a blocktxn with more or fewer transactions than requested ends the peer", () =>
    Effect.gen(function* () {
      for (const transactions of [[], [transaction, transaction]]) {
        const { peer, remote } = yield* start()
        yield* fork(peer.getBlockTransactions(hash, [1]))
        yield* remote.receiveUntil("getblocktxn")
        yield* remote.send({ _tag: "blocktxn", blockHash: hash, transactions })
        const problem = `has ${transactions.length} transactions instead of 1`
        assert.deepStrictEqual(yield* peer.awaitShutdown, { _tag: "BadAnswer", command: "blocktxn", hash, problem })
      }
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("getBlockTransactions without indexes fails with NotSendable: the remote would disconnect", () =>
    Effect.gen(function* () {
      const { peer } = yield* start()
      const { reason } = yield* Effect.flip(peer.getBlockTransactions(hash, []))
      assert.strictEqual(reason._tag, "NotSendable")
      assert.strictEqual((yield* peer.stats).openRequests, 0)
    }).pipe(Effect.provide(Nonce.layer))
  )

  it.effect("an unanswered getBlockTransactions ends the peer with Stalled if no pong arrives either", () =>
    Effect.gen(function* () {
      const { peer } = yield* start()
      const asking = yield* fork(peer.getBlockTransactions(hash, [1], { timeout: "1 hour" }))
      yield* TestClock.adjust("50 seconds")
      const end = yield* peer.awaitShutdown
      assert(end._tag === "Stalled")
      assert.deepStrictEqual([end.command, end.hash], ["getblocktxn", hash])
      assert.strictEqual((yield* reasonOf(asking))._tag, "Ended")
    }).pipe(Effect.provide(Nonce.layer))
  )
})
