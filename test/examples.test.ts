/** The examples in memory. */
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Queue, Result } from "effect"
import { Block, Connection, Network, Peer, Wire } from "effect-bitcoin-peer"
import { TestClock } from "effect/testing"
import { createHash } from "node:crypto"
import * as LightClient from "../examples/light-client.ts"
import * as CompactBlocks from "../examples/compact-blocks.ts"
import * as EightPeers from "../examples/eight-peers.ts"
import * as Regtest from "effect-bitcoin-peer/testing/RegtestChain"
import { serveChain } from "effect-bitcoin-peer/testing/ServingPeer"
import { relay } from "../examples/relay.ts"
import * as Replay from "../examples/replay.ts"
import * as VirtualTime from "../examples/virtual-time.ts"
import { scripted, twoPeers, verack, version } from "./support/peers.ts"

const { block, tx, witnessFlag, wtx } = Wire.InventoryType
const hex = Wire.hashToHex
const zeros = new Uint8Array(32)

const start = Date.UTC(2026, 0, 1)
const mined = (count: number) => Effect.andThen(TestClock.setTime(start), Regtest.mineChain(count))

const mutation = (block: Wire.Block) => Block.mutation(block, { segwitHeight: 0 })
const hasWitness = (block: Wire.Block): boolean =>
  Array.from(block.transactions).some(({ inputs }) => Array.from(inputs).some(({ witness }) => witness.length > 0))

describe("the mined chain", () => {
  it.effect("starts with the genesis block of regtest", () =>
    Effect.gen(function* () {
      const chain = yield* mined(0)
      assert.strictEqual(chain.blocks.length, 1)
      assert.deepStrictEqual(chain.hashes[0], Network.regtest.genesisHash)
      assert.isUndefined(mutation(chain.blocks[0]))
      assert.isTrue(Regtest.hasProofOfWork(chain.blocks[0].header))
    })
  )

  it.effect("links each block to the previous one, with proof of work", () =>
    Effect.gen(function* () {
      const chain = yield* mined(300)
      assert.strictEqual(chain.blocks.length, 301)
      for (const [height, { header }] of chain.blocks.entries()) {
        assert.deepStrictEqual(chain.hashes[height], Wire.blockHash(header))
        assert.deepStrictEqual(header.previousBlock, chain.hashes[height - 1] ?? zeros)
        assert.isTrue(Regtest.hasProofOfWork(header))
      }
    })
  )

  it.effect("commits to its transactions and their witnesses", () =>
    Effect.gen(function* () {
      const { blocks } = yield* mined(300)
      for (const block of blocks) assert.isUndefined(mutation(block))
      assert.strictEqual(blocks.filter(hasWitness).length, 50)
    })
  )

  it.effect("depends on the start time only", () =>
    Effect.gen(function* () {
      const one = yield* mined(120)
      const same = yield* mined(120)
      yield* TestClock.adjust("1 second")
      const other = yield* Regtest.mineChain(120)
      assert.deepStrictEqual(one, same)
      assert.notStrictEqual(hex(one.hashes[1]), hex(other.hashes[1]))
    })
  )

  it.effect("ends at the current time, with ten minutes between blocks", () =>
    Effect.gen(function* () {
      const { blocks } = yield* mined(50)
      assert.strictEqual(blocks.at(-1)?.header.timestamp, start / 1000)
      for (let height = 2; height < blocks.length; height++) {
        assert.strictEqual(blocks[height].header.timestamp - blocks[height - 1].header.timestamp, 600)
      }
    })
  )

  it.effect("has increasing times under a clock before the genesis block", () =>
    Effect.gen(function* () {
      const { blocks } = yield* Regtest.mineChain(50)
      for (let height = 1; height < blocks.length; height++) {
        assert.isAbove(blocks[height].header.timestamp, blocks[height - 1].header.timestamp)
      }
    })
  )

  it.effect("has the height as the first number of each coinbase, in its shortest push", () =>
    Effect.gen(function* () {
      const { blocks } = yield* mined(300)
      const scriptAt = (height: number) => Array.from(blocks[height].transactions.at(0)!.inputs.at(0)!.script)
      assert.deepStrictEqual(scriptAt(1), [0x51, 0])
      assert.deepStrictEqual(scriptAt(16), [0x60, 0])
      assert.deepStrictEqual(scriptAt(17), [1, 17, 0])
      assert.deepStrictEqual(scriptAt(127), [1, 127, 0])
      assert.deepStrictEqual(scriptAt(128), [2, 128, 0, 0])
      assert.deepStrictEqual(scriptAt(300), [2, 0x2c, 1, 0])
    })
  )

  it.effect("pays its miners the subsidy, which halves every 150 blocks", () =>
    Effect.gen(function* () {
      const { blocks } = yield* mined(300)
      const paidAt = (height: number) => blocks[height].transactions.at(0)!.outputs.at(0)!.value
      assert.deepStrictEqual([1, 149, 150, 299, 300].map(paidAt), [50e8, 50e8, 25e8, 25e8, 12.5e8])
    })
  )

  it.effect("spends only coins that exist, are mature and unspent, and no more than they hold", () =>
    Effect.gen(function* () {
      const { blocks } = yield* mined(300)
      const coins = new Map<string, { readonly value: number; readonly spendableFrom: number }>()
      const name = ({ index, txid }: Wire.OutPoint) => `${hex(txid)}:${index}`
      let spent = 0
      for (const [height, { transactions }] of blocks.entries()) {
        for (const [position, transaction] of Array.from(transactions).entries()) {
          const isCoinbase = position === 0
          let value = 0
          for (const { previousOutput } of isCoinbase ? [] : transaction.inputs) {
            const coin = coins.get(name(previousOutput))
            assert.isDefined(coin)
            assert.isAtLeast(height, coin.spendableFrom)
            coins.delete(name(previousOutput))
            value += coin.value
            spent++
          }
          const paid = Array.from(transaction.outputs, (output) => output.value).reduce((sum, next) => sum + next, 0)
          if (!isCoinbase) assert.isAtMost(paid, value)
          const txid = Wire.txid(transaction)
          const spendableFrom = isCoinbase ? height + Regtest.coinbaseMaturity : height
          for (const [index, { value }] of Array.from(transaction.outputs).entries()) {
            // The coinbase of the genesis block cannot be spent.
            if (height > 0) coins.set(name({ txid, index }), { value, spendableFrom })
          }
        }
      }
      assert.strictEqual(spent, 100)
    })
  )

  it("pays to the hash of the witness script", () => {
    const program = createHash("sha256").update(Regtest.anyone).digest()
    assert.deepStrictEqual(Regtest.anyoneWithWitness, Uint8Array.of(0, 32, ...program))
  })

  it.effect("is the same after encoding and decoding", () =>
    Effect.gen(function* () {
      const { blocks } = yield* mined(110)
      for (const block of blocks) {
        const payload = yield* Effect.fromResult(Wire.encode({ _tag: "block", block }))
        const decoded = yield* Effect.fromResult(Wire.decode("block", payload))
        if (decoded._tag !== "block") return assert.fail(decoded._tag)
        assert.deepStrictEqual(decoded.block.header, block.header)
        assert.isUndefined(mutation(decoded.block))
      }
    })
  )
})

describe("proof of work", () => {
  it("is a hash at or below the target of its header", () => {
    const { header } = Regtest.genesis
    assert.isTrue(Regtest.hasProofOfWork(header))
    assert.isFalse(Regtest.hasProofOfWork({ ...header, bits: 0x1d00ffff }))
    assert.isFalse(Regtest.hasProofOfWork(header, new Uint8Array(32).fill(0xff)))
    assert.isTrue(Regtest.hasProofOfWork(header, zeros))
  })
})

/** A peer of a node that serves a chain. The messages of the node wait in a queue. */
const peerOf = Effect.fnUntraced(function* (node: ReturnType<typeof serveChain>, options: Peer.Options = {}) {
  const received = yield* Queue.unbounded<Wire.Message>()
  const put = (message: Wire.Message) => Queue.offer(received, message)
  const handlers = { headers: put, inv: put, block: put, tx: put, notfound: put, getdata: put }
  const [peer, served] = yield* twoPeers({ handlers, ...options }, node.options)
  yield* node.onPeer(served)
  const next = Queue.take(received)
  const ask = (message: Wire.Message) => Effect.andThen(peer.send(message), next)
  /** All messages that arrive before the pong to a ping. */
  const rest = Effect.andThen(peer.ping, Queue.clear(received))
  return { peer, next, ask, rest }
})

const serving = Effect.fnUntraced(function* (count: number) {
  const chain = yield* mined(count)
  const node = serveChain(chain)
  return { chain, node, ...(yield* peerOf(node)) }
})

const headersOf = (message: Wire.Message) =>
  message._tag === "headers" ? Array.from(message.headers, (header) => hex(Wire.blockHash(header))) : message._tag
const itemsOf = (message: Wire.Message) =>
  "items" in message
    ? [message._tag, ...Array.from(message.items, ({ hash, type }) => `${type} ${hex(hash)}`)]
    : [message._tag]
const getheaders = (locator: ReadonlyArray<Uint8Array>, stopHash: Uint8Array = zeros): Wire.GetHeaders => ({
  _tag: "getheaders",
  protocolVersion: 70_016,
  locator,
  stopHash
})
const getdata = (type: number, ...hashes: ReadonlyArray<Uint8Array>): Wire.Message => ({
  _tag: "getdata",
  items: hashes.map((hash) => ({ type, hash }))
})
const unknown = new Uint8Array(32).fill(7)

/** A transaction with a witness that spends an unspent output of the chain. */
const spending = (chain: Regtest.Chain): Wire.Transaction =>
  Regtest.spend(Regtest.coinOf(chain.blocks[104].transactions.at(-1)!), undefined, 1_000)

describe("the serving peer", () => {
  it.effect("sends its current height in each handshake", () =>
    Effect.gen(function* () {
      const { chain, node, peer } = yield* serving(3)
      assert.strictEqual(peer.info.startHeight, 3)
      yield* node.announceBlock(Regtest.mineBlock(chain, { timestamp: start / 1000 }))
      const later = yield* peerOf(node)
      assert.strictEqual(later.peer.info.startHeight, 4)
    })
  )

  it.effect("answers getheaders with the headers after the first known block of the locator", () =>
    Effect.gen(function* () {
      const { ask, chain } = yield* serving(10)
      const all = chain.hashes.map(hex)
      const answers = [
        yield* ask(getheaders([chain.hashes[7], chain.hashes[2]])),
        yield* ask(getheaders([unknown, chain.hashes[2], chain.hashes[0]])),
        yield* ask(getheaders([unknown])),
        yield* ask(getheaders([chain.hashes[10]]))
      ]
      assert.deepStrictEqual(answers.map(headersOf), [all.slice(8), all.slice(3), all.slice(1), []])
    })
  )

  it.effect("ends the headers at the stop hash, and answers an empty locator with the header of the stop hash", () =>
    Effect.gen(function* () {
      const { ask, chain } = yield* serving(10)
      const all = chain.hashes.map(hex)
      const answers = [
        yield* ask(getheaders([chain.hashes[2]], chain.hashes[5])),
        yield* ask(getheaders([chain.hashes[7]], chain.hashes[5])),
        yield* ask(getheaders([chain.hashes[7]], unknown)),
        yield* ask(getheaders([], chain.hashes[5])),
        yield* ask(getheaders([], unknown))
      ]
      assert.deepStrictEqual(answers.map(headersOf), [all.slice(3, 6), all.slice(8), all.slice(8), [all[5]], []])
    })
  )

  it.effect("sends at most 2,000 headers", () =>
    Effect.gen(function* () {
      const { ask, chain } = yield* serving(2_010)
      const first = headersOf(yield* ask(getheaders([chain.hashes[0]])))
      assert.deepStrictEqual(first, chain.hashes.slice(1, 2_001).map(hex))
      assert.strictEqual(headersOf(yield* ask(getheaders([chain.hashes[2_000]]))).length, 10)
    })
  )

  it.effect("answers getblocks with an inv of at most 500 blocks", () =>
    Effect.gen(function* () {
      const { ask, chain } = yield* serving(510)
      const getblocks = { ...getheaders([chain.hashes[5]]), _tag: "getblocks" } as const
      const expected = chain.hashes.slice(6, 506).map((hash) => `${block} ${hex(hash)}`)
      assert.deepStrictEqual(itemsOf(yield* ask(getblocks)), ["inv", ...expected])
    })
  )

  it.effect("sends blocks with witnesses only on request, and notfound for unknown blocks", () =>
    Effect.gen(function* () {
      const { ask, chain, next } = yield* serving(104)
      const [hash, other] = [chain.hashes[104], chain.hashes[103]]
      const full = yield* ask(getdata(block | witnessFlag, hash))
      const stripped = yield* ask(getdata(block, hash))
      if (full._tag !== "block" || stripped._tag !== "block") return assert.fail("no block")
      assert.isTrue(hasWitness(full.block))
      assert.isFalse(hasWitness(stripped.block))
      assert.isUndefined(Block.mutation(stripped.block))
      assert.strictEqual((yield* ask(getdata(block, other, unknown, other)))._tag, "block")
      assert.strictEqual((yield* next)._tag, "block")
      assert.deepStrictEqual(itemsOf(yield* next), ["notfound", `${block} ${hex(unknown)}`])
    })
  )

  it.effect("announces a transaction by wtxid if both sides sent wtxidrelay, otherwise by txid", () =>
    Effect.gen(function* () {
      const { chain, next, node } = yield* serving(104)
      const older = yield* peerOf(node, { protocolVersion: 70_015 })
      const deaf = yield* peerOf(node, { relay: false })
      const transaction = spending(chain)
      yield* node.announceTransaction(transaction)
      assert.deepStrictEqual(itemsOf(yield* next), ["inv", `${wtx} ${hex(Wire.wtxid(transaction))}`])
      assert.deepStrictEqual(itemsOf(yield* older.next), ["inv", `${tx} ${hex(Wire.txid(transaction))}`])
      assert.isEmpty(yield* deaf.rest)
    })
  )

  it.effect("sends a transaction by txid or wtxid, with its witness only on request", () =>
    Effect.gen(function* () {
      const { ask, chain, next, node } = yield* serving(104)
      const transaction = spending(chain)
      yield* node.announceTransaction(transaction)
      yield* next
      const bytes = (message: Wire.Message) =>
        message._tag === "tx" ? Result.getOrThrow(Wire.encodeTransaction(message.transaction)).length : message._tag
      const size = Result.getOrThrow(Wire.encodeTransaction(transaction)).length
      assert.strictEqual(bytes(yield* ask(getdata(wtx, Wire.wtxid(transaction)))), size)
      assert.strictEqual(bytes(yield* ask(getdata(tx | witnessFlag, Wire.txid(transaction)))), size)
      // Without the marker, the flag, two counts and the byte of OP_TRUE.
      assert.strictEqual(bytes(yield* ask(getdata(tx, Wire.txid(transaction)))), size - 5)
    })
  )

  it.effect("requests an announced transaction, keeps it and announces it to the other peers", () =>
    Effect.gen(function* () {
      const { ask, chain, node, peer, rest } = yield* serving(104)
      const other = yield* peerOf(node)
      const transaction = spending(chain)
      const item = { type: wtx, hash: Wire.wtxid(transaction) }
      const expected = `${wtx} ${hex(item.hash)}`
      assert.deepStrictEqual(itemsOf(yield* ask({ _tag: "inv", items: [item] })), ["getdata", expected])
      yield* peer.send({ _tag: "tx", transaction })
      assert.deepStrictEqual(itemsOf(yield* other.next), ["inv", expected])
      yield* peer.send({ _tag: "inv", items: [item] })
      assert.isEmpty(yield* rest)
    })
  )

  it.effect(
    "announces a block by header after sendheaders, else by hash, and forgets the transactions that it confirms",
    () =>
      Effect.gen(function* () {
        const { ask, chain, next, node } = yield* serving(104)
        const modern = yield* peerOf(node)
        yield* modern.peer.send({ _tag: "sendheaders" })
        yield* modern.rest
        const transaction = spending(chain)
        yield* node.announceTransaction(transaction)
        yield* Effect.all([next, modern.next])
        const mined = Regtest.mineBlock(chain, { timestamp: start / 1000 + 600, transactions: [transaction] })
        const hash = hex(Wire.blockHash(mined.header))
        yield* node.announceBlock(mined)
        assert.deepStrictEqual(itemsOf(yield* next), ["inv", `${block} ${hash}`])
        assert.deepStrictEqual(headersOf(yield* modern.next), [hash])
        assert.strictEqual((yield* ask(getdata(wtx, Wire.wtxid(transaction))))._tag, "notfound")
        assert.strictEqual((yield* node.chain).blocks.length, 106)
      })
  )

  it.effect("still announces to the other peers after one has disconnected", () =>
    Effect.gen(function* () {
      const { chain, next, node } = yield* serving(104)
      const other = yield* peerOf(node)
      yield* other.peer.disconnect()
      yield* other.peer.awaitShutdown
      yield* node.announceTransaction(spending(chain))
      assert.strictEqual((yield* next)._tag, "inv")
    })
  )

  it.effect("does not answer getaddr", () =>
    Effect.gen(function* () {
      const { peer, rest } = yield* serving(1)
      yield* peer.send({ _tag: "getaddr" })
      assert.isEmpty(yield* rest)
    })
  )
})

describe("the example of virtual time", () => {
  it.effect("measures an exact round trip, and counts the pings of an hour", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* VirtualTime.program, { roundTrip: 100, pings: 31 })
    })
  )
})

describe("the example of a replay", () => {
  it.effect("replays the recorded messages to the handlers", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* Effect.provide(Replay.program, NodeServices.layer), {
        seen: ["at least 1000 satoshi per 1,000 bytes", "1 announced"],
        end: "the peer closed the connection"
      })
    })
  )
})

describe("the example of compact blocks", () => {
  it.effect("rebuilds the block from known and requested transactions", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* CompactBlocks.program, {
        isTheBlock: true,
        transactions: 3,
        received: ["cmpctblock", "blocktxn"]
      })
    })
  )

  it.effect("fetches the whole block if a short id matches a wrong transaction", () =>
    Effect.gen(function* () {
      const { blocks, hashes } = yield* mined(104)
      const tip = blocks[104]
      const [peer] = yield* twoPeers({}, { handlers: CompactBlocks.serveBlock(tip, 7n) })
      const wtxids = Array.from(tip.transactions, Wire.wtxid)
      const pool = [1, 2].map((index) => ({ wtxid: wtxids[index], transaction: tip.transactions.at(3 - index)! }))
      const fetched = yield* CompactBlocks.fetchBlock(peer, hashes[104], pool)
      assert.deepStrictEqual(Array.from(fetched!.transactions, Wire.wtxid), wtxids)
      assert.strictEqual((yield* peer.stats).received["block"]?.messages, 1)
    })
  )

  it.effect("disconnects a peer that requests a transaction outside the block", () =>
    Effect.gen(function* () {
      const { blocks, hashes } = yield* mined(104)
      const [peer] = yield* twoPeers({}, { handlers: CompactBlocks.serveBlock(blocks[104], 7n) })
      const asking = yield* Effect.flip(peer.getBlockTransactions(hashes[104], [3]))
      assert.deepStrictEqual(asking.reason, { _tag: "Ended", end: { _tag: "RemoteClosed" } })
    })
  )
})

describe("the relay", () => {
  it.effect("fetches a transaction that one node announces, announces it to the other, and serves it", () =>
    Effect.gen(function* () {
      const pairs = [yield* Connection.makePair(), yield* Connection.makePair()] as const
      const remotes = pairs.map(([, theirs]) => scripted(theirs))
      yield* Effect.forkChild(relay([pairs[0][0], pairs[1][0]]), { startImmediately: true })
      for (const remote of remotes) yield* remote.send(version(), verack)
      const [first, second] = remotes as [ReturnType<typeof scripted>, ReturnType<typeof scripted>]
      const transaction: Wire.Transaction = {
        version: 2,
        inputs: [{ previousOutput: { txid: zeros, index: 0 }, script: zeros, sequence: 0, witness: [] }],
        outputs: [{ value: 1, script: zeros }],
        lockTime: 0
      }
      const item = { type: tx, hash: Wire.txid(transaction) }
      yield* first.send({ _tag: "inv", items: [item] })
      yield* first.receiveUntil("getdata")
      yield* first.send({ _tag: "tx", transaction })
      yield* TestClock.adjust("1 minute")
      const announced = yield* second.receiveUntil("inv")
      assert(announced._tag === "inv")
      assert.deepStrictEqual(Array.from(announced.items), [item])
      yield* second.send({ _tag: "getdata", items: announced.items })
      const relayed = yield* second.receiveUntil("tx")
      assert(relayed._tag === "tx")
      assert.deepStrictEqual(Wire.txid(relayed.transaction), item.hash)
    })
  )
})

describe("the light client", () => {
  it.effect("finds the payment to its key, and the transaction that spends it", () =>
    Effect.gen(function* () {
      const { expected, found } = yield* LightClient.program
      assert.deepStrictEqual(found, expected)
    })
  )
})

describe("eight peers", () => {
  it.effect("keeps eight nodes of a simulated network for an hour, and prints the table of btcpeer net", () =>
    Effect.gen(function* () {
      const table = yield* EightPeers.program
      const peers = table.match(/^out +full +ipv4 +nw +1 +100 +100 +\d+ +\d+ +60 +\d+ \d+\.0\.7\.1:8333/gm)
      assert.strictEqual(peers?.length, 8)
      assert.match(table, /^out +8 +0 +0 +0 +0 +8 +0$/m)
    })
  )
})
