/**
 * Compact blocks (BIP152) between two peers in memory. One sends the short ids of the transactions; the other rebuilds the
 * block from its mempool and asks for the missing transactions. After `npm run build`: `npx node examples/compact-blocks.ts`
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { CompactBlock, Connection, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { mineChain, network } from "effect-bitcoin-peer/testing/RegtestChain"

const { compactBlock, witnessBlock } = Wire.InventoryType

/** Handlers that serve one block. Use a new random nonce for each block. */
export const serveBlock = (served: Wire.Block, nonce: bigint) =>
  ({
    getdata: Effect.fnUntraced(function* ({ items }, peer) {
      for (const { type } of items) {
        if (type === compactBlock) yield* peer.send(yield* Effect.fromResult(CompactBlock.make(served, { nonce })))
        else if (type === witnessBlock) yield* peer.send({ _tag: "block", block: served })
      }
    }),
    getblocktxn: (request, peer) =>
      Effect.fromResult(CompactBlock.answer(served, request)).pipe(
        Effect.flatMap(peer.send),
        Effect.catchTag("CompactBlockError", (error) =>
          error.misbehaved ? peer.disconnect(error.message) : Effect.void
        )
      )
  }) satisfies Peer.Handlers

/** Rebuilds the block of a compact block. Fetches the whole block when short ids collide. */
export const rebuildBlock = (peer: Peer.Peer, message: Wire.CmpctBlock, mempool: CompactBlock.Pool) =>
  Effect.gen(function* () {
    const rebuilt = yield* Effect.fromResult(CompactBlock.rebuild(message, mempool))
    if (rebuilt._tag === "Complete") return rebuilt.block
    const { blockHash, indexes } = rebuilt.request
    const answer = yield* peer.getBlockTransactions(blockHash, indexes)
    return yield* Effect.fromResult(CompactBlock.complete(rebuilt, answer))
  }).pipe(
    Effect.catchTag(
      "CompactBlockError",
      Effect.fnUntraced(function* (error) {
        if (error.misbehaved) {
          yield* peer.disconnect(error.message)
          return yield* error
        }
        return yield* peer.getBlock(Wire.blockHash(message.header))
      })
    )
  )

/** Fetches a block as a compact block. Returns `undefined` when the peer does not have it. */
export const fetchBlock = Effect.fnUntraced(function* (peer: Peer.Peer, hash: Uint8Array, mempool: CompactBlock.Pool) {
  const [result] = yield* peer.getData([{ type: compactBlock, hash }])
  const message = result?._tag === "Found" ? result.message : undefined
  // A node sends the whole block when it is not recent.
  if (message?._tag === "block") return message.block
  return message?._tag === "cmpctblock" ? yield* rebuildBlock(peer, message, mempool) : undefined
})

export const program = Effect.gen(function* () {
  const { blocks, hashes } = yield* mineChain(104)
  const [tip, hash] = [blocks.at(-1)!, hashes.at(-1)!]
  const nonce = yield* (yield* Nonce.Nonce).unremembered
  const [ours, theirs] = yield* Connection.makePair()
  const services = Wire.Service.network | Wire.Service.witness
  const [peer] = yield* Effect.all(
    [
      Peer.make(ours, { network }),
      Peer.make(theirs, { network, services, direction: "inbound", handlers: serveBlock(tip, nonce) }).pipe(
        // A node of its own: peers that share a Nonce are one node, and refuse a connection to themselves.
        Effect.provide(Layer.fresh(Nonce.layer))
      )
    ],
    { concurrency: 2 }
  )
  // Version 2 (with witnesses). `announce: false`: new blocks are announced by inv, as before.
  yield* peer.send({ _tag: "sendcmpct", announce: false, version: 2n })
  // The block has a coinbase and two transactions. Our mempool has one of these.
  const rebuilt = yield* fetchBlock(peer, hash, [tip.transactions.at(1)!])
  const { received } = yield* peer.stats
  return {
    isTheBlock: rebuilt !== undefined && Wire.hashToHex(Wire.blockHash(rebuilt.header)) === Wire.hashToHex(hash),
    transactions: rebuilt?.transactions.length,
    received: Object.keys(received).filter((command) => /block/.test(command))
  }
}).pipe(Effect.scoped, Effect.provide(Nonce.layer))

if (import.meta.main) NodeRuntime.runMain(Effect.flatMap(program, Console.log))
