/**
 * Compact blocks [152] between two peers in memory: one serves a block by the short ids of its transactions, the other
 * rebuilds it from its mempool and asks for what it lacks. After `npm run build`: `npx node examples/compact-blocks.ts`
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { CompactBlock, Connection, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { mineChain, network } from "./regtest-chain.ts"

const { block, compactBlock, witnessFlag } = Wire.InventoryType

/** Answers for one block. The nonce is to be random, and another one for each block. */
export const serveBlock = (served: Wire.Block, nonce: bigint) =>
  ({
    getdata: Effect.fnUntraced(function* ({ items }, peer) {
      for (const { type } of items) {
        if (type === compactBlock) yield* peer.send(yield* Effect.fromResult(CompactBlock.make(served, { nonce })))
        else if (type === (block | witnessFlag)) yield* peer.send({ _tag: "block", block: served })
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

/** What a peer answers for a block, in one form or another. */
const ask = Effect.fnUntraced(function* (peer: Peer.Peer["Service"], type: number, hash: Uint8Array) {
  const [result] = yield* peer.getData([{ type, hash }])
  return result?._tag === "Found" ? result.message : undefined
})

/** The block that a compact one stands for; by bad luck it has to be fetched whole. */
export const rebuildBlock = (peer: Peer.Peer["Service"], message: Wire.CmpctBlock, mempool: CompactBlock.Pool) =>
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
        const whole = yield* ask(peer, block | witnessFlag, Wire.blockHash(message.header))
        return whole?._tag === "block" ? whole.block : undefined
      })
    )
  )

/** Fetches a block the compact way; `undefined` when the peer has not got it. */
export const fetchBlock = Effect.fnUntraced(function* (
  peer: Peer.Peer["Service"],
  hash: Uint8Array,
  mempool: CompactBlock.Pool
) {
  const message = yield* ask(peer, compactBlock, hash)
  // A node sends the whole block where it is no longer new.
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
        // Another node: peers that share their nonces are one, which does not talk to itself.
        Effect.provide(Layer.fresh(Nonce.layer))
      )
    ],
    { concurrency: 2 }
  )
  // Version 2, and new blocks are announced as before.
  yield* peer.send({ _tag: "sendcmpct", announce: false, version: 2n })
  // Of a coinbase and two transactions we know one.
  const rebuilt = yield* fetchBlock(peer, hash, [tip.transactions.at(1)!])
  const { received } = yield* peer.stats
  return {
    isTheBlock: rebuilt !== undefined && Wire.hashToHex(Wire.blockHash(rebuilt.header)) === Wire.hashToHex(hash),
    transactions: rebuilt?.transactions.length,
    received: Object.keys(received).filter((command) => /block/.test(command))
  }
}).pipe(Effect.scoped, Effect.provide(Nonce.layer))

if (import.meta.main) NodeRuntime.runMain(Effect.flatMap(program, Console.log))
