/** `Peer` and a real node: blocks, transactions and addresses arrive whole. The reference is what the node's RPC prints. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Result, Schema, Stream } from "effect"
import { Network, Nonce, Wire } from "../src/index.ts"
import * as Coins from "./coins.ts"
import { eventually, expecting, type InteropNode, type StartOptions } from "./InteropNode.ts"
import { nodes } from "./nodes.ts"
import * as OurPeer from "./ourPeer.ts"

const { services } = OurPeer
const { block, tx, witnessFlag, wtx } = Wire.InventoryType

/** On bcoin's regtest segwit is active from block 432 on; what was mined first can be spent by then. */
const segwit = 440
const zeros = new Uint8Array(32)
const { genesisHash } = Network.regtest

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

const toHex = (message: Wire.Message): string => Buffer.from(Result.getOrThrow(Wire.encode(message))).toString("hex")
const hashOf = (header: Wire.BlockHeader): string => Wire.hashToHex(Wire.blockHash(header))
const txidOf = (transaction: Wire.Transaction): string => Wire.hashToHex(Wire.txid(transaction))
const itemsOf = (type: number, hashes: ReadonlyArray<string>): ReadonlyArray<Wire.InventoryItem> =>
  hashes.map((hash) => ({ type, hash: Wire.hashFromHex(hash) }))
const hashesOf = (items: Iterable<Wire.InventoryItem>): ReadonlyArray<string> =>
  Array.from(items, ({ hash }) => Wire.hashToHex(hash))

const RawTransaction = Schema.Struct({ hash: Schema.String, hex: Schema.String })
const Hashes = Schema.Array(Schema.String)

const mempool = (node: InteropNode) => node.rpc("getrawmempool").pipe(expecting(Hashes))
const tip = (node: InteropNode) => node.rpc("getbestblockhash").pipe(expecting(Schema.String))

/** Puts a transaction without a witness and one with into the node's mempool; they spend the coinbase of this block. */
const submitPair = Effect.fnUntraced(function* (node: InteropNode, blockHash: string) {
  const pair = yield* Coins.makePair(node, blockHash)
  for (const transaction of pair) yield* node.rpc("sendrawtransaction", Coins.toHex(transaction))
  const txids = pair.map(txidOf)
  yield* eventually(mempool(node), (inside) => txids.every((txid) => inside.includes(txid)))
  return txids
})

/** Checks a block, and that its bytes are those of the node, also when it is put together anew. */
const assertWholeBlock = Effect.fnUntraced(function* (node: InteropNode, message: Wire.BlockMessage) {
  const { header } = message.block
  const transactions = Array.from(message.block.transactions)
  assert.deepEqual(Wire.merkleRoot(transactions.map(Wire.txid)), header.merkleRoot)
  const raw = yield* node.rpc("getblock", hashOf(header), false).pipe(expecting(Schema.String))
  assert.strictEqual(toHex(message), raw)
  assert.strictEqual(toHex({ _tag: "block", block: { header, transactions: transactions.map(Coins.rebuilt) } }), raw)
})

/** Checks a transaction in the same way; returns its hash, the wtxid, as the node prints it. */
const assertWholeTransaction = Effect.fnUntraced(function* (node: InteropNode, transaction: Wire.Transaction) {
  const raw = yield* node.rpc("getrawtransaction", txidOf(transaction), true).pipe(expecting(RawTransaction))
  assert.strictEqual(Coins.toHex(transaction), raw.hex)
  assert.strictEqual(Coins.toHex(Coins.rebuilt(transaction)), raw.hex)
  assert.strictEqual(Wire.hashToHex(Wire.wtxid(transaction)), raw.hash)
  return raw.hash
})

describe.each(nodes)("a peer and $name", ({ name, start }) => {
  const isCore = name === "bitcoind"
  const live = OurPeer.liveWith(start)
  // Else Core waits a while, so that nobody can tell from whom it has a transaction.
  const announcesAtOnce: StartOptions = isCore ? { args: ["-whitelist=in,out,noban@127.0.0.1"] } : {}
  const tellsItsMempool: StartOptions = isCore
    ? { args: ["-whitelist=in,out,mempool,noban@127.0.0.1"] }
    : { args: ["--bip37=true"] }

  describe.each(OurPeer.directions)("%s", (direction) => {
    live("all of 2,005 blocks arrive as the node has them", (node) =>
      Effect.gen(function* () {
        const mined = [...(yield* node.mine(2002))]
        for (const hash of mined.slice(0, 3)) yield* node.spendCoinbase(hash)
        yield* submitPair(node, mined[3]!)
        mined.push(...(yield* node.mine(3)))

        const { peer } = yield* OurPeer.meet(node, direction, {
          // It asks us as well.
          handlers: { getheaders: (_, peer) => peer.send({ _tag: "headers", headers: [] }) }
        })

        const headers: Array<Wire.BlockHeader> = []
        let last = genesisHash
        for (const count of [2000, 5]) {
          const more = yield* peer.getHeaders([last])
          assert.strictEqual(more.length, count)
          for (const header of more) {
            assert.deepEqual(header.previousBlock, last)
            headers.push(header)
            last = Wire.blockHash(header)
          }
        }
        assert.deepEqual(headers.map(hashOf), mined)

        const inventory = Array.from(yield* peer.getBlocks([genesisHash]))
        assert.deepEqual(hashesOf(inventory), mined.slice(0, 500))
        assert.isTrue(inventory.every(({ type }) => type === block))
        const { reason } = yield* Effect.flip(peer.getBlocks([last]))
        assert.deepStrictEqual(reason, { _tag: "NoAnswer", what: "getblocks" })

        const streamed = yield* peer.messages.pipe(
          Stream.filter((message) => message._tag === "block"),
          Stream.take(mined.length),
          Stream.runCollect,
          fork
        )
        const results = yield* peer.getData(itemsOf(block | witnessFlag, mined))
        const blocks = yield* Fiber.join(streamed)
        for (const [index, message] of blocks.entries()) {
          const result = results[index]!
          assert.isTrue(result._tag === "Found" && result.message === message)
          assert.deepEqual(message.block.header, headers[index])
          if (index % 100 === 0 || index > 2000) yield* assertWholeBlock(node, message)
        }

        const full = blocks[2002]!
        const transactions = Array.from(full.block.transactions)
        assert.strictEqual(transactions.length, 6)
        assert.isTrue(Coins.witnessesAreCommitted(transactions))
        // The coinbase and one more have a witness.
        const haveWitness = transactions.map(({ inputs }) => inputs.at(0)!.witness.length > 0)
        assert.isTrue(haveWitness[0])
        assert.strictEqual(haveWitness.filter(Boolean).length, 2)

        // The same without its witnesses, and with them once more.
        const hash = [mined[2002]!]
        const both = yield* peer.getData([...itemsOf(block, hash), ...itemsOf(block | witnessFlag, hash)])
        const [stripped, again] = both.map((result) => {
          assert(result._tag === "Found" && result.message._tag === "block")
          return result.message
        })
        assert.strictEqual(toHex(again!), toHex(full))
        assert.deepEqual(Array.from(stripped!.block.transactions, Wire.wtxid), transactions.map(Wire.txid))
      })
    )

    live("a new block is announced, by inv and by headers, and fetched", (node) =>
      Effect.gen(function* () {
        const [known = ""] = yield* node.mine(1)
        const met = yield* OurPeer.meet(node, direction, {
          handlers: {
            // As Core does: the headers that lead to it first.
            inv: (_, peer) => peer.sendGetHeaders([Wire.hashFromHex(known)]),
            headers: ({ headers }, peer) =>
              peer.send({ _tag: "getdata", items: itemsOf(block | witnessFlag, Array.from(headers, hashOf)) })
          }
        })
        yield* OurPeer.rowOf(node, met)
        const [first = ""] = yield* node.mine(1)
        yield* assertWholeBlock(node, yield* met.receive("block", ({ block }) => hashOf(block.header) === first))
        const { items } = yield* met.receive("inv")
        assert.deepEqual(Array.from(items), itemsOf(block, [first]))

        yield* met.peer.send({ _tag: "sendheaders" })
        yield* met.peer.ping
        const [second = ""] = yield* node.mine(1)
        yield* assertWholeBlock(node, yield* met.receive("block", ({ block }) => hashOf(block.header) === second))
        assert.strictEqual((yield* met.peer.stats).received["inv"]?.messages, 1)
      })
    )

    live("a new block comes unasked as a compact one, when we ask for that [152]", (node) =>
      Effect.gen(function* () {
        const [known = ""] = yield* node.mine(1)
        const { peer, receive } = yield* OurPeer.meet(node, direction)
        yield* peer.send({ _tag: "sendcmpct", announce: true, version: 2n })
        // Core wants to know that we have the block before.
        assert.deepEqual(Array.from(yield* peer.getHeaders([zeros]), hashOf), [known])
        yield* node.mine(1)
        const { header } = yield* receive("cmpctblock", () => true)
        assert.strictEqual(Wire.hashToHex(header.previousBlock), known)
      })
    )

    for (const protocolVersion of isCore ? [70_017, 70_015] : [70_017]) {
      live(
        `transactions arrive as the node has them, at version ${protocolVersion} of ours`,
        (node) =>
          Effect.gen(function* () {
            const [first = "", second = ""] = yield* node.mine(segwit)
            const met = yield* OurPeer.meet(node, direction, {
              protocolVersion,
              handlers: {
                inv: ({ items }, peer) =>
                  peer.send({
                    _tag: "getdata",
                    items: Array.from(items, ({ hash, type }) => ({
                      type: type === tx ? tx | witnessFlag : type,
                      hash
                    }))
                  })
              }
            })
            yield* OurPeer.rowOf(node, met)
            const byWtxid = isCore && protocolVersion >= 70_016
            assert.strictEqual(met.peer.info.wtxidRelay, byWtxid)
            for (const txid of [yield* node.spendCoinbase(first), ...(yield* submitPair(node, second))]) {
              const { transaction } = yield* met.receive("tx", ({ transaction }) => txidOf(transaction) === txid)
              const wtxid = yield* assertWholeTransaction(node, transaction)
              const announced = byWtxid ? wtxid : txid
              const { items } = yield* met.receive("inv", ({ items }) => hashesOf(items).includes(announced))
              for (const { type } of items) assert.strictEqual(type, byWtxid ? wtx : tx)
            }
          }),
        announcesAtOnce
      )
    }

    live("transactions of ours end in the node's mempool", (node) =>
      Effect.gen(function* () {
        const [first = ""] = yield* node.mine(segwit)
        const pair = yield* Coins.makePair(node, first)
        const known = new Map(
          pair.flatMap((transaction) => [
            [Wire.hashToHex(Wire.txid(transaction)), transaction],
            [Wire.hashToHex(Wire.wtxid(transaction)), transaction]
          ])
        )
        const asked: Array<number> = []
        const met = yield* OurPeer.meet(node, direction, {
          trickle: { _tag: "Fixed", interval: 10 },
          handlers: {
            getdata: ({ items }, peer) =>
              Effect.forEach(items, (item) => {
                asked.push(item.type)
                const transaction = known.get(Wire.hashToHex(item.hash))
                return peer.send(
                  transaction === undefined ? { _tag: "notfound", items: [item] } : { _tag: "tx", transaction }
                )
              })
          }
        })
        yield* OurPeer.rowOf(node, met)
        // By both hashes, of which the one that was agreed is chosen.
        const announced = yield* met.peer.announce(
          pair.map((transaction) => ({ txid: Wire.txid(transaction), wtxid: Wire.wtxid(transaction) }))
        )
        assert.deepEqual(announced, ["queued", "queued"])
        yield* eventually(mempool(node), (inside) => pair.every((transaction) => inside.includes(txidOf(transaction))))
        for (const transaction of pair) yield* assertWholeTransaction(node, transaction)
        assert.deepEqual(asked, isCore ? [wtx, wtx] : [tx | witnessFlag, tx | witnessFlag])
      })
    )
  })

  live(
    "the mempool is told when asked for, and what is not in it is not found",
    (node) =>
      Effect.gen(function* () {
        const [first = "", second = ""] = yield* node.mine(segwit)
        const txids = [yield* node.spendCoinbase(first), ...(yield* submitPair(node, second))]
        const { peer, receive } = yield* OurPeer.meet(node, "outbound")
        yield* peer.send({ _tag: "mempool" })
        const { items } = yield* receive("inv", ({ items }) => items.length === txids.length)
        const type = isCore ? wtx : tx | witnessFlag
        const [unknown, ...results] = yield* peer.getData([
          { type, hash: zeros },
          ...Array.from(items, ({ hash }) => ({ type, hash }))
        ])
        assert.strictEqual(unknown?._tag, "NotFound")
        const found: Array<string> = []
        for (const result of results) {
          assert(result._tag === "Found" && result.message._tag === "tx")
          const { transaction } = result.message
          const wtxid = yield* assertWholeTransaction(node, transaction)
          assert.strictEqual(Wire.hashToHex(result.item.hash), isCore ? wtxid : txidOf(transaction))
          found.push(txidOf(transaction))
        }
        assert.sameMembers(found, txids)
        // By the hash that is announced, and by txid in any case.
        const announced = items.at(0)!.hash
        const transaction = yield* peer.getTransaction(announced)
        yield* assertWholeTransaction(node, transaction)
        const again = yield* peer.getTransaction(Wire.txid(transaction), { by: "txid" })
        assert.strictEqual(Coins.toHex(again), Coins.toHex(transaction))
        const missing = yield* Effect.flip(peer.getTransaction(zeros))
        assert.strictEqual(missing.reason._tag, "NotFound")
      }),
    tellsItsMempool
  )

  live("a node catches up with another through two peers of ours, and keeps up", (node) =>
    Effect.gen(function* () {
      const source = yield* start()
      const mined = [...(yield* source.mine(segwit))]
      yield* source.spendCoinbase(mined[0]!)
      yield* submitPair(source, mined[1]!)
      mined.push(...(yield* source.mine(1)))

      const reader = yield* OurPeer.meet(source, "outbound")
      const chain = new Map<string, Wire.Block>()
      const fetch = Effect.fnUntraced(function* (after: Uint8Array) {
        const headers = Array.from(yield* reader.peer.getHeaders([after]))
        for (const result of yield* reader.peer.getData(itemsOf(block | witnessFlag, headers.map(hashOf)))) {
          assert(result._tag === "Found" && result.message._tag === "block")
          chain.set(Wire.hashToHex(result.item.hash), result.message.block)
        }
        return headers
      })
      yield* fetch(genesisHash)
      assert.deepEqual([...chain.keys()], mined)

      const hashesAfter = (locator: Iterable<Uint8Array>): ReadonlyArray<string> => {
        const hashes = [...chain.keys()]
        const from = Array.from(locator, Wire.hashToHex).find((hash) => chain.has(hash))
        return from === undefined ? hashes : hashes.slice(hashes.indexOf(from) + 1)
      }
      const writer = yield* OurPeer.meet(node, "inbound", {
        startHeight: Effect.sync(() => chain.size),
        handlers: {
          getheaders: ({ locator }, peer) =>
            peer.send({ _tag: "headers", headers: hashesAfter(locator).map((hash) => chain.get(hash)!.header) }),
          getblocks: ({ locator }, peer) => peer.send({ _tag: "inv", items: itemsOf(block, hashesAfter(locator)) }),
          getdata: ({ items }, peer) =>
            Effect.forEach(items, (item) => {
              const wanted = chain.get(Wire.hashToHex(item.hash))
              return peer.send(
                wanted === undefined ? { _tag: "notfound", items: [item] } : { _tag: "block", block: wanted }
              )
            })
        }
      })
      yield* eventually(tip(node), (hash) => hash === mined.at(-1))

      for (let last = mined.at(-1)!; chain.size < mined.length + 2;) {
        const [next = ""] = yield* source.mine(1)
        yield* writer.peer.announceBlocks(yield* fetch(Wire.hashFromHex(last)))
        yield* eventually(tip(node), (hash) => hash === next)
        last = next
      }
    })
  )

  live("addresses go from one peer of ours through the node to others", (node) =>
    Effect.gen(function* () {
      const timestamp = Math.floor(Date.now() / 1000) - 600
      const given = Array.from({ length: 200 }, (_, index) => ({
        timestamp,
        services,
        ...(index % 2 === 0
          ? { networkId: 1, address: Uint8Array.of(8, index, 8, 8) }
          : { networkId: 2, address: Uint8Array.of(0x26, index, ...new Uint8Array(13), 1) }),
        port: 18_000 + index
      }))
      const giver = yield* OurPeer.meet(node, "inbound", {
        handlers: { getaddr: (_, peer) => peer.sendAddresses(given) }
      })
      yield* giver.receive("getaddr")
      yield* giver.peer.ping

      const names = given.map(Wire.formatAddress)
      for (const protocolVersion of [70_017, 70_015]) {
        const asker = yield* OurPeer.meet(node, "outbound", { protocolVersion })
        const addresses = yield* asker.peer.getAddresses()
        const told = new Map(addresses.map((address) => [Wire.formatAddress(address), address.services]))
        const ours = names.filter((name) => told.has(name))
        for (const name of ours) assert.strictEqual(told.get(name), services)
        // Core tells 23 % of what it has.
        assert.isAtLeast(ours.length, 20)
        for (const six of [true, false]) assert.isTrue(ours.some((name) => name.startsWith("[") === six))
      }
    })
  )

  live("there are no headers after the last block: Core says so, bcoin says nothing", (node) =>
    Effect.gen(function* () {
      const [last = ""] = yield* node.mine(1)
      const { peer } = yield* OurPeer.meet(node, "outbound")
      const asking = Effect.result(peer.getHeaders([Wire.hashFromHex(last)]))
      for (const result of [yield* asking, yield* asking]) {
        if (Result.isSuccess(result)) assert.deepEqual([isCore, Array.from(result.success)], [true, []])
        else assert.deepEqual([isCore, result.failure.reason], [false, { _tag: "NoAnswer", what: "getheaders" }])
      }
    })
  )

  live("an unknown block is not found, between known ones, and the peer stays", (node) =>
    Effect.gen(function* () {
      const [known = ""] = yield* node.mine(1)
      const { peer } = yield* OurPeer.meet(node, "outbound")
      for (const type of [block, block | witnessFlag]) {
        const results = yield* peer.getData([
          ...itemsOf(type, [known]),
          { type, hash: new Uint8Array(32).fill(7) },
          ...itemsOf(type, [Wire.hashToHex(genesisHash)])
        ])
        assert.deepEqual(
          results.map(({ _tag }) => _tag),
          ["Found", "NotFound", "Found"]
        )
      }
      const found = yield* peer.getBlock(Wire.hashFromHex(known))
      yield* assertWholeBlock(node, { _tag: "block", block: found })
      const missing = yield* Effect.flip(peer.getBlock(new Uint8Array(32).fill(7)))
      assert.strictEqual(missing.reason._tag, "NotFound")
      if (isCore) {
        // bcoin ends a peer for this.
        const { reason } = yield* Effect.flip(peer.getBlockTransactions(new Uint8Array(32).fill(7), [0]))
        assert.strictEqual(reason._tag, "NotFound")
      }
      yield* peer.ping
    })
  )

  if (isCore) {
    live("the node keeps to the fee rate that we ask for", (node) =>
      Effect.gen(function* () {
        const Rates = Schema.Array(Schema.Struct({ addr: Schema.String, minfeefilter: Schema.Number }))
        yield* node.mine(1)
        const { address, peer, receive } = yield* OurPeer.meet(node, "outbound")
        assert.isBelow((yield* receive("feefilter")).feeRate, 100_000)
        yield* peer.send({ _tag: "feefilter", feeRate: 12_345 })
        yield* peer.ping
        assert.deepInclude(yield* node.rpc("getpeerinfo").pipe(expecting(Rates)), {
          addr: address,
          minfeefilter: 0.00012345
        })
      })
    )
    return
  }

  it.live("the node says why it rejects a transaction [61]", () =>
    Effect.gen(function* () {
      const node = yield* start()
      const [first = ""] = yield* node.mine(segwit)
      const [plain] = yield* Coins.makePair(node, first)
      const greedy = { ...plain, outputs: [{ ...plain.outputs.at(0)!, value: 51e8 }] }
      const hash = Wire.txid(greedy)
      const met = yield* OurPeer.meet(node, "outbound", {
        trickle: { _tag: "Fixed", interval: 10 },
        handlers: { getdata: (_, peer) => peer.send({ _tag: "tx", transaction: greedy }) }
      })
      yield* OurPeer.rowOf(node, met)
      yield* met.peer.announce([{ type: tx, hash }])
      const reject = yield* met.receive("reject")
      assert.deepInclude(reject, { rejected: "tx", code: 0x10, reason: "bad-txns-in-belowout" })
      assert.deepEqual(reject.hash, hash)
    }).pipe(Effect.provide(Nonce.layer))
  )
})
