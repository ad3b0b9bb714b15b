/**
 * The serving side of the protocol, with nothing but handlers: a node that has a chain and a mempool, answers what peers
 * ask for, takes their transactions and tells them what is new. It validates nothing, so it is for networks of one's own.
 *
 * @example
 * ```ts
 * const node = serveChain(yield* mineChain(300))
 * const listener = yield* NodeConnection.listen({ port: Network.regtest.port })
 * yield* Peer.serve(listener, { peer: node.options, onPeer: node.onPeer })
 * ```
 */
import { Effect, Result, Scope } from "effect"
import { type Peer, Wire } from "effect-bitcoin-peer"
import { type Chain, network, sameHash } from "./regtest-chain.ts"

/** A `getblocks` is answered with the hashes of so many blocks at most. */
const maxBlocksAnnounced = 500
/** So many transactions wait to be mined; more are not taken. */
const maxMempool = 5_000

const { block, tx, witnessFlag, wtx } = Wire.InventoryType

/** What a peer gets that did not ask for witnesses. */
const withoutWitnesses = (transaction: Wire.Transaction): Wire.Transaction => ({
  ...transaction,
  inputs: Array.from(transaction.inputs, (input) => ({ ...input, witness: [] }))
})

const copied = (transaction: Wire.Transaction): Wire.Transaction =>
  Result.getOrThrow(Result.flatMap(Wire.encodeTransaction(transaction), Wire.decodeTransaction))

/** How a transaction is announced: by wtxid where both sides said so in the handshake [339]. */
const itemFor = (peer: Peer.Peer["Service"], transaction: Wire.Transaction): Wire.InventoryItem =>
  peer.info.wtxidRelay ? { type: wtx, hash: Wire.wtxid(transaction) } : { type: tx, hash: Wire.txid(transaction) }

/** Serves a chain: options for `Peer.make` or `Peer.serve`, what to run with each peer, and the news. */
export const serveChain = (start: Chain) => {
  // Maps have no bytes as keys, so hashes are kept as they are printed.
  const key = Wire.hashToHex
  const blocks = [...start.blocks]
  const hashes = [...start.hashes]
  const heights = new Map(hashes.map((hash, height) => [key(hash), height]))
  const byTxid = new Map<string, Wire.Transaction>()
  const byWtxid = new Map<string, Wire.Transaction>()
  const peers = new Set<Peer.Peer["Service"]>()
  const wantsHeaders = new WeakSet<Peer.Peer["Service"]>()

  /** The heights a locator asks for: behind the first of its blocks that is ours, up to the last that is wanted. */
  const after = ({ locator, stopHash }: Wire.GetHeaders | Wire.GetBlocks, limit: number): readonly [number, number] => {
    const stop = heights.get(key(stopHash)) ?? Infinity
    // Without a locator it is about the one block.
    if (locator.length === 0) return stop === Infinity ? [0, 0] : [stop, stop + 1]
    let from = 1
    for (const hash of locator) {
      const height = heights.get(key(hash))
      if (height === undefined) continue
      from = height + 1
      break
    }
    return [from, Math.min(from + limit, blocks.length, stop < from ? Infinity : stop + 1)]
  }

  /** What an item of a getdata names, or undefined when it is not there. */
  const find = ({ type, hash }: Wire.InventoryItem): Wire.Message | undefined => {
    const witnesses = (type & witnessFlag) !== 0
    switch (type & ~witnessFlag) {
      case block: {
        const found = blocks[heights.get(key(hash)) ?? -1]
        if (found === undefined || witnesses) return found && { _tag: "block", block: found }
        const transactions = Array.from(found.transactions, withoutWitnesses)
        return { _tag: "block", block: { ...found, transactions } }
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

  /** To all peers at once. One that has just ended misses it, and so does one that does not read, after a second. */
  const broadcast = (message: (peer: Peer.Peer["Service"]) => Wire.Message | undefined): Effect.Effect<void> =>
    Effect.forEach(
      peers,
      (peer) => {
        const toSend = message(peer)
        return toSend === undefined ? Effect.void : Effect.ignore(Effect.timeout(peer.send(toSend), "1 second"))
      },
      { concurrency: "unbounded", discard: true }
    )

  /** Takes a transaction into the mempool and announces it, but not to the peer that it came from. */
  const announceTransaction = (transaction: Wire.Transaction, from?: Peer.Peer["Service"]): Effect.Effect<void> =>
    Effect.suspend(() => {
      const wtxid = key(Wire.wtxid(transaction))
      if (byWtxid.has(wtxid) || byWtxid.size >= maxMempool) return Effect.void
      byWtxid.set(wtxid, transaction)
      byTxid.set(key(Wire.txid(transaction)), transaction)
      return broadcast((peer) =>
        peer === from || !peer.info.relay ? undefined : { _tag: "inv", items: [itemFor(peer, transaction)] }
      )
    })

  /** Appends a block to the chain and announces it, by its header to those who asked for that [130]. */
  const announceBlock = (next: Wire.Block): Effect.Effect<void> =>
    Effect.suspend(() => {
      const hash = Wire.blockHash(next.header)
      if (!sameHash(next.header.previousBlock, hashes.at(-1)!)) return Effect.die(new Error("not the next block"))
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

    // `send` waits while the peer does not read, and its next message is not looked at before this one is answered.
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
        items: wanted.map(({ type, hash }) => ({ type: type === tx ? tx | witnessFlag : type, hash }))
      })
    },

    // What was decoded is a view that keeps all bytes alive it came with, so what is to stay is copied.
    tx: ({ transaction }, peer) => announceTransaction(copied(transaction), peer)

    // No `getaddr`: this node knows no other, and says nothing. Pings are answered without a handler.
  } satisfies Peer.Handlers

  return {
    options: {
      network,
      services: Wire.Service.network | Wire.Service.witness,
      // Asked for at each handshake, as the chain grows.
      startHeight: Effect.sync(() => blocks.length - 1),
      handlers
    },

    /** Tells a peer the news as long as it is connected. */
    onPeer: (peer: Peer.Peer["Service"]): Effect.Effect<void> =>
      Effect.suspend(() => {
        peers.add(peer)
        return Scope.addFinalizer(
          peer.scope,
          Effect.sync(() => peers.delete(peer))
        )
      }),

    /** The chain as it is now. */
    chain: Effect.sync((): Chain => ({ blocks: [...blocks], hashes: [...hashes] })),

    announceTransaction: (transaction: Wire.Transaction): Effect.Effect<void> => announceTransaction(transaction),
    announceBlock
  }
}
