/** Nodes with a chain, for the tests of the examples and of the README. */
import { Effect, Schema } from "effect"
import { expecting, type InteropNode, type InteropNodeKind, type StartOptions } from "./InteropNode.ts"

/** Makes Core announce transactions to this peer at once, as bcoin always does. */
export const optionsOf = (name: string, args: ReadonlyArray<string> = []): StartOptions => ({
  args: name === "bitcoind" ? ["-whitelist=noban@127.0.0.1", ...args] : args
})

/** A node with a chain of 105 blocks. Its first coinbases can be spent. */
export const started = Effect.fnUntraced(function* ({ name, start }: InteropNodeKind, args?: ReadonlyArray<string>) {
  const node = yield* start(optionsOf(name, args))
  const hashes = yield* node.mine(105)
  return { node, coinbase: hashes[0]! }
})

/** Submits all blocks of one node to another. */
export const copyChain = Effect.fnUntraced(function* (from: InteropNode, to: InteropNode, height: number) {
  for (let at = 1; at <= height; at++) {
    const hash = yield* from.rpc("getblockhash", at).pipe(expecting(Schema.String))
    yield* to.rpc("submitblock", yield* from.rpc("getblock", hash, false))
  }
})
