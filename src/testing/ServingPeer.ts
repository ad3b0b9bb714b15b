/**
 * The serving side of the protocol, with handlers alone: a node with a chain and a mempool. It answers requests of its peers, takes
 * their transactions, and announces new blocks and transactions. It validates nothing, so use it on private networks only.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type * as Peer from "../Peer.ts"
import * as Wire from "../Wire.ts"
import { blockWithoutWitnesses, heightsAfter, maxBlocksAnnounced, withoutWitnesses } from "./internal/serving.ts"
import { type Chain, network } from "./RegtestChain.ts"

/** The most transactions in the mempool. Further ones are ignored. */
const maxMempool = 5_000

const { block, tx, witnessFlag, witnessTx, wtx } = Wire.InventoryType

const copied = (transaction: Wire.Transaction): Wire.Transaction =>
  Result.getOrThrow(Result.flatMap(Wire.encodeTransaction(transaction), Wire.decodeTransaction))

/** Announces a transaction by wtxid if both sides sent wtxidrelay (BIP339), else by txid. */
const itemFor = (peer: Peer.Peer, transaction: Wire.Transaction): Wire.InventoryItem =>
  peer.info.wtxidRelay ? { type: wtx, hash: Wire.wtxid(transaction) } : { type: tx, hash: Wire.txid(transaction) }

/**
 * Serves a chain. The result has the options of the peers (`options`), the Effect to run with each peer (`onPeer`), and the
 * functions that announce.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Network, Nonce, PeerServer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 * import { RegtestChain, ServingPeer } from "effect-bitcoin-peer/testing"
 *
 * export const program = Effect.gen(function*() {
 *   const node = ServingPeer.serveChain(yield* RegtestChain.mineChain(300))
 *   const listener = yield* NodeConnection.listen({ host: "127.0.0.1", port: Network.regtest.port })
 *   return yield* PeerServer.serve(listener, { peer: node.options, onPeer: node.onPeer })
 * }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const serveChain = (start: Chain) => {
  // A map compares byte arrays by identity, so the keys are hexadecimal.
  const key = Wire.hashToHex
  const blocks = [...start.blocks]
  const hashes = [...start.hashes]
  const heights = new Map(hashes.map((hash, height) => [key(hash), height]))
  const byTxid = new Map<string, Wire.Transaction>()
  const byWtxid = new Map<string, Wire.Transaction>()
  const peers = new Set<Peer.Peer>()
  const wantsHeaders = new WeakSet<Peer.Peer>()

  const after = (message: Wire.GetHeaders | Wire.GetBlocks, limit: number): readonly [number, number] =>
    heightsAfter(message, (hash) => heights.get(key(hash)), blocks.length, limit)

  /** The message that answers an item of a getdata, or `undefined` if the node does not have it. */
  const find = ({ type, hash }: Wire.InventoryItem): Wire.Message | undefined => {
    const witnesses = (type & witnessFlag) !== 0
    switch (type & ~witnessFlag) {
      case block: {
        const found = blocks[heights.get(key(hash)) ?? -1]
        if (found === undefined || witnesses) return found && { _tag: "block", block: found }
        return { _tag: "block", block: blockWithoutWitnesses(found) }
      }
      case tx: {
        const found = byTxid.get(key(hash))
        return found && { _tag: "tx", transaction: witnesses ? found : withoutWitnesses(found) }
      }
      case wtx: {
        const found = byWtxid.get(key(hash))
        return found && { _tag: "tx", transaction: found }
      }
      default:
        return undefined
    }
  }

  const isKnown = ({ type, hash }: Wire.InventoryItem): boolean => (type === wtx ? byWtxid : byTxid).has(key(hash))

  /** Sends to all peers at once. A peer that does not read for a second misses the message, as does one that has ended. */
  const broadcast = (message: (peer: Peer.Peer) => Wire.Message | undefined): Effect.Effect<void> =>
    Effect.forEach(
      peers,
      (peer) => {
        const toSend = message(peer)
        return toSend === undefined ? Effect.void : Effect.ignore(Effect.timeout(peer.send(toSend), "1 second"))
      },
      { concurrency: "unbounded", discard: true }
    )

  /** Adds a transaction to the mempool and announces it to all peers but the one that sent it. */
  const announceTransaction = (transaction: Wire.Transaction, from?: Peer.Peer): Effect.Effect<void> =>
    Effect.suspend(() => {
      const wtxid = key(Wire.wtxid(transaction))
      if (byWtxid.has(wtxid) || byWtxid.size >= maxMempool) return Effect.void
      byWtxid.set(wtxid, transaction)
      byTxid.set(key(Wire.txid(transaction)), transaction)
      return broadcast((peer) =>
        peer === from || !peer.info.relay ? undefined : { _tag: "inv", items: [itemFor(peer, transaction)] }
      )
    })

  /** Appends a block to the chain and announces it: by its header to peers that sent `sendheaders` (BIP130), else by inv. */
  const announceBlock = (next: Wire.Block): Effect.Effect<void> =>
    Effect.suspend(() => {
      const hash = Wire.blockHash(next.header)
      if (!Wire.hashEquals(next.header.previousBlock, hashes.at(-1)!))
        return Effect.die(new Error("not the next block"))
      heights.set(key(hash), blocks.length)
      blocks.push(next)
      hashes.push(hash)
      for (const transaction of next.transactions) {
        byTxid.delete(key(Wire.txid(transaction)))
        byWtxid.delete(key(Wire.wtxid(transaction)))
      }
      return broadcast((peer) =>
        wantsHeaders.has(peer)
          ? { _tag: "headers", headers: [next.header] }
          : { _tag: "inv", items: [{ type: block, hash }] }
      )
    })

  const handlers = {
    sendheaders: (_, peer) => void wantsHeaders.add(peer),

    getheaders: (message, peer) => {
      const [from, to] = after(message, Wire.maxHeaders)
      return peer.send({ _tag: "headers", headers: blocks.slice(from, to).map(({ header }) => header) })
    },

    getblocks: (message, peer) => {
      const [from, to] = after(message, maxBlocksAnnounced)
      const items = hashes.slice(from, to).map((hash) => ({ type: block, hash }))
      return items.length === 0 ? undefined : peer.send({ _tag: "inv", items })
    },

    // `send` waits while the peer does not read. The next message of the peer is handled after this one is answered.
    getdata: ({ items }, peer) =>
      Effect.gen(function* () {
        const missing: Array<Wire.InventoryItem> = []
        for (const item of items) {
          const found = find(item)
          if (found === undefined) missing.push(item)
          else yield* peer.send(found)
        }
        if (missing.length > 0) yield* peer.send({ _tag: "notfound", items: missing })
      }),

    inv: ({ items }, peer) => {
      const wanted = Array.from(items).filter((item) => (item.type === tx || item.type === wtx) && !isKnown(item))
      if (wanted.length === 0) return
      return peer.send({
        _tag: "getdata",
        items: wanted.map(({ type, hash }) => ({ type: type === tx ? witnessTx : type, hash }))
      })
    },

    // A decoded transaction is a view that keeps the whole received buffer in memory, so the mempool gets a copy.
    tx: ({ transaction }, peer) => announceTransaction(copied(transaction), peer)

    // No `getaddr`: this node knows no addresses. The library answers pings.
  } satisfies Peer.Handlers

  return {
    options: {
      network,
      services: Wire.Service.network | Wire.Service.witness,
      // An Effect, evaluated at each handshake, because the chain grows.
      startHeight: Effect.sync(() => blocks.length - 1),
      handlers
    },

    /** Announces new blocks and transactions to a peer until it ends. */
    onPeer: (peer: Peer.Peer): Effect.Effect<void> =>
      Effect.suspend(() => {
        peers.add(peer)
        return Scope.addFinalizer(
          peer.scope,
          Effect.sync(() => peers.delete(peer))
        )
      }),

    /** The current chain, as a copy. */
    chain: Effect.sync((): Chain => ({ blocks: [...blocks], hashes: [...hashes] })),

    /** Adds a transaction to the mempool and announces it to all peers. */
    announceTransaction: (transaction: Wire.Transaction): Effect.Effect<void> => announceTransaction(transaction),
    /** Appends a block to the chain and announces it. Dies if the block does not follow the tip. */
    announceBlock
  }
}
