/**
 * A light client with bloom filters (BIP37), and a node that serves it. The client sends a filter, and receives from each
 * block the matching transactions with a proof. After `npm run build`: `npx node examples/light-client.ts`
 *
 * Core serves bloom filters with -peerbloomfilters only. A filter tells the node which keys the client looks for; compact
 * filters (see README) do not.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Random } from "effect"
import { BloomFilter, Connection, MerkleBlock, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { type Chain, coinOf, mineBlock, mineChain, network, spend } from "effect-bitcoin-peer/testing/RegtestChain"

const { filteredBlock } = Wire.InventoryType

const withoutWitnesses = (transaction: Wire.Transaction): Wire.Transaction => ({
  ...transaction,
  inputs: Array.from(transaction.inputs, (input) => ({ ...input, witness: [] }))
})

/** Options of a peer that serves filtered blocks of a chain. Each remote has its own filter. */
export const serveFilteredBlocks = ({ blocks, hashes }: Chain) => {
  const heights = new Map(hashes.map((hash, height) => [Wire.hashToHex(hash), height]))
  const filters = new WeakMap<Peer.Peer, BloomFilter.BloomFilter>()
  const handlers = {
    filterload: (message, peer) => void filters.set(peer, BloomFilter.fromFilterLoad(message)),
    filterclear: (_, peer) => void filters.delete(peer),
    filteradd: ({ data }, peer) => {
      const filter = filters.get(peer)
      return filter === undefined ? peer.disconnect("filteradd without a filter") : BloomFilter.insert(filter, data)
    },
    getdata: ({ items }, peer) =>
      Effect.gen(function* () {
        const filter = filters.get(peer)
        for (const item of items) {
          const block = blocks[heights.get(Wire.hashToHex(item.hash)) ?? -1]
          // Core does not answer either while no filter is loaded.
          if (item.type !== filteredBlock || filter === undefined) continue
          if (block === undefined) {
            yield* peer.send({ _tag: "notfound", items: [item] })
            continue
          }
          const { merkleBlock, transactions } = MerkleBlock.make(block, (transaction, txid) =>
            BloomFilter.matches(filter, transaction, txid)
          )
          yield* peer.send(merkleBlock)
          for (const transaction of transactions) {
            yield* peer.send({ _tag: "tx", transaction: withoutWitnesses(transaction) })
          }
        }
      })
  } satisfies Peer.Handlers
  return { network, services: Wire.Service.network | Wire.Service.bloom, handlers }
}

/**
 * Loads the filter into a peer and returns the matching transactions of these blocks. Each has a proof: a peer that sends a filtered
 * block without one is ended by `BadAnswer`, and `transactions` has only those whose hashes are in the proof.
 */
export const findTransactions = Effect.fnUntraced(function* (
  peer: Peer.Peer,
  filter: BloomFilter.BloomFilter,
  blockHashes: ReadonlyArray<Uint8Array>
) {
  yield* peer.send(BloomFilter.toFilterLoad(filter))
  const results = yield* peer.getData(blockHashes.map((hash) => ({ type: filteredBlock, hash })))
  return results.flatMap((result) => (result._tag === "Found" ? (result.transactions ?? []) : []))
})

const append = (chain: Chain, ...transactions: ReadonlyArray<Wire.Transaction>): Chain => {
  const block = mineBlock(chain, { timestamp: chain.blocks.at(-1)!.header.timestamp + 600, transactions })
  return { blocks: [...chain.blocks, block], hashes: [...chain.hashes, Wire.blockHash(block.header)] }
}

/** A client and a node in memory. One transaction pays to a key of the client; another one spends that output. */
export const program = Effect.gen(function* () {
  const key = new Uint8Array(20).fill(7)
  const chain = yield* mineChain(110)
  const payment = spend(coinOf(chain.blocks[1]!.transactions.at(0)!), Uint8Array.of(0, 20, ...key))
  const spending = spend(coinOf(payment))
  const { blocks, hashes } = append(append(chain, payment), spending)

  // A real client chooses a higher rate: false positives hide its keys.
  const filter = BloomFilter.make({
    elements: 10,
    falsePositiveRate: 0.000001,
    tweak: yield* Random.nextIntBetween(0, 0xffffffff)
  })
  BloomFilter.insert(filter, key)

  const [ours, theirs] = yield* Connection.makePair()
  const nonce = Layer.fresh(Nonce.layer)
  const [client] = yield* Effect.all(
    [
      Peer.make(ours, { network, relay: false, requiredServices: [Wire.Service.bloom] }).pipe(Effect.provide(nonce)),
      Peer.make(theirs, { ...serveFilteredBlocks({ blocks, hashes }), direction: "inbound" }).pipe(
        Effect.provide(nonce)
      )
    ],
    { concurrency: 2 }
  )
  const found = yield* findTransactions(client, filter, hashes.slice(1))
  return {
    expected: [payment, spending].map((transaction) => Wire.hashToHex(Wire.txid(transaction))),
    found: found.map((transaction) => Wire.hashToHex(Wire.txid(transaction)))
  }
}).pipe(Effect.scoped)

if (import.meta.main) NodeRuntime.runMain(Effect.flatMap(program, Console.log))
