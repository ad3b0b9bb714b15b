/** Answers of a node with a chain. */
import * as Wire from "../../Wire.ts"
import type { Chain } from "../RegtestChain.ts"

/** The most block hashes in the answer to a `getblocks`. */
export const maxBlocksAnnounced = 500

/** The form of a transaction for peers that did not ask for witnesses. */
export const withoutWitnesses = (transaction: Wire.Transaction): Wire.Transaction => ({
  ...transaction,
  inputs: Array.from(transaction.inputs, (input) => ({ ...input, witness: [] }))
})

export const blockWithoutWitnesses = (block: Wire.Block): Wire.Block => ({
  ...block,
  transactions: Array.from(block.transactions, withoutWitnesses)
})

/**
 * The heights that a locator asks for, from the first to the one after the last: from the block after the first known hash, to the stop
 * hash. `length` is the number of blocks of the chain.
 */
export const heightsAfter = (
  { locator, stopHash }: Wire.GetHeaders | Wire.GetBlocks,
  heightOf: (hash: Uint8Array) => number | undefined,
  length: number,
  limit: number
): readonly [number, number] => {
  const stop = heightOf(stopHash) ?? Infinity
  // An empty locator asks for the block of the stop hash alone.
  if (locator.length === 0) return stop === Infinity ? [0, 0] : [stop, stop + 1]
  let from = 1
  for (const hash of locator) {
    const height = heightOf(hash)
    if (height === undefined) continue
    from = height + 1
    break
  }
  return [from, Math.min(from + limit, length, stop < from ? Infinity : stop + 1)]
}

const heights = new WeakMap<Chain, Map<string, number>>()

/** The height of a block of a chain that does not change. */
export const heightIn = (chain: Chain, hash: Uint8Array): number | undefined => {
  let known = heights.get(chain)
  if (known === undefined) {
    known = new Map(chain.hashes.map((hash, height) => [Wire.hashToHex(hash), height]))
    heights.set(chain, known)
  }
  return known.get(Wire.hashToHex(hash))
}
