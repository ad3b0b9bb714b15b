/** `Peer` with a real node: blocks, transactions and addresses. The reference is the output of the node's RPC. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Result, Schema, Stream } from "effect"
import { Network, Nonce, Wire } from "../src/index.ts"
import * as Coins from "./coins.ts"
import { eventually, expecting, type InteropNode, type StartOptions } from "./InteropNode.ts"
import { nodes } from "./nodes.ts"
import * as OurPeer from "./ourPeer.ts"

const { services } = OurPeer
const { block, tx, witnessFlag, wtx } = Wire.InventoryType

/** Segwit is active on bcoin's regtest from block 432 on. The first coinbases can be spent at that height. */
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

/** Submits a transaction without a witness that spends the coinbase of a block, and one with a witness that spends the first. */
const submitPair = Effect.fnUntraced(function* (node: InteropNode, blockHash: string) {
  const pair = yield* Coins.makePair(node, blockHash)
  for (const transaction of pair) yield* node.rpc("sendrawtransaction", Coins.toHex(transaction))
  const txids = pair.map(txidOf)
  yield* eventually(mempool(node), (inside) => txids.every((txid) => inside.includes(txid)))
  return txids
})

/** Asserts that a block has a valid merkle root and the node's bytes, as views and rebuilt from plain data. */
const assertWholeBlock = Effect.fnUntraced(function* (node: InteropNode, message: Wire.BlockMessage) {
  const { header } = message.block
  const transactions = Array.from(message.block.transactions)
  assert.deepEqual(Wire.merkleRoot(transactions.map(Wire.txid)), header.merkleRoot)
  const raw = yield* node.rpc("getblock", hashOf(header), false).pipe(expecting(Schema.String))
  assert.strictEqual(toHex(message), raw)
  assert.strictEqual(toHex({ _tag: "block", block: { header, transactions: transactions.map(Coins.rebuilt) } }), raw)
})

/** Asserts the same of a transaction; returns its wtxid as printed. */
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
  // Without this, Core delays announcements to hide the origin of transactions.
  const announcesAtOnce: StartOptions = isCore ? { args: ["-whitelist=in,out,noban@127.0.0.1"] } : {}
  const servesItsMempool: StartOptions = isCore
    ? { args: ["-whitelist=in,out,mempool,noban@127.0.0.1"] }
    : { args: ["--bip37=true"] }

  describe.each(OurPeer.directions)("%s", (direction) => {
    live("getHeaders and getData return all 2,005 blocks of the node unchanged", (node) =>
      Effect.gen(function* () {
        const mined = [...(yield* node.mine(2002))]
        for (const hash of mined.slice(0, 3)) yield* node.spendCoinbase(hash)
        yield* submitPair(node, mined[3]!)
        mined.push(...(yield* node.mine(3)))

        const { peer } = yield* OurPeer.meet(node, direction, {
          // The node requests our headers as well.
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
        // The coinbase and one other transaction have a witness.
        const haveWitness = transactions.map(({ inputs }) => inputs.at(0)!.witness.length > 0)
        assert.isTrue(haveWitness[0])
        assert.strictEqual(haveWitness.filter(Boolean).length, 2)

        // The same block without witnesses and again with them.
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

    live("the node announces a new block by inv and, after sendheaders, by headers, and we fetch it", (node) =>
      Effect.gen(function* () {
        const [known = ""] = yield* node.mine(1)
        const met = yield* OurPeer.meet(node, direction, {
          handlers: {
            // As in Core: request the headers before the block.
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

    live("the node sends a new block as cmpctblock after our sendcmpct in high-bandwidth mode (BIP152)", (node) =>
      Effect.gen(function* () {
        const [known = ""] = yield* node.mine(1)
        const { peer, receive } = yield* OurPeer.meet(node, direction)
        yield* peer.send({ _tag: "sendcmpct", announce: true, version: 2n })
        // Core must know that we have the previous block.
        assert.deepEqual(Array.from(yield* peer.getHeaders([zeros]), hashOf), [known])
        yield* node.mine(1)
        const { header } = yield* receive("cmpctblock", () => true)
        assert.strictEqual(Wire.hashToHex(header.previousBlock), known)
      })
    )

    for (const protocolVersion of isCore ? [70_017, 70_015] : [70_017]) {
      live(
        `the node announces and sends its transactions unchanged to our version ${protocolVersion}`,
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

    live("transactions that we announce arrive in the node's mempool", (node) =>
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
        // Both hashes: announce chooses the negotiated one.
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
    "the node answers mempool with its transactions, and getData of an unknown one is NotFound",
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
        // By the announced hash, and by txid.
        const announced = items.at(0)!.hash
        const transaction = yield* peer.getTransaction(announced)
        yield* assertWholeTransaction(node, transaction)
        const again = yield* peer.getTransaction(Wire.txid(transaction), { by: "txid" })
        assert.strictEqual(Coins.toHex(again), Coins.toHex(transaction))
        const missing = yield* Effect.flip(peer.getTransaction(zeros))
        assert.strictEqual(missing.reason._tag, "NotFound")
      }),
    servesItsMempool
  )

  live("a node synchronizes with another node through two of our peers, and follows new blocks", (node) =>
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

  live("addresses sent by one of our peers reach others through the node", (node) =>
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
        // Core returns 23 % of its addresses.
        assert.isAtLeast(ours.length, 20)
        for (const six of [true, false]) assert.isTrue(ours.some((name) => name.startsWith("[") === six))
      }
    })
  )

  live("getHeaders after the last block is empty with Core, and NoAnswer with bcoin, which does not answer", (node) =>
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

  live("getData of an unknown block between known ones is NotFound, and the peer stays connected", (node) =>
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
        // bcoin disconnects a peer for this request.
        const { reason } = yield* Effect.flip(peer.getBlockTransactions(new Uint8Array(32).fill(7), [0]))
        assert.strictEqual(reason._tag, "NotFound")
      }
      yield* peer.ping
    })
  )

  if (isCore) {
    live("the node applies our feefilter", (node) =>
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

  it.live("the node rejects an invalid transaction with a reason (BIP61)", () =>
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
