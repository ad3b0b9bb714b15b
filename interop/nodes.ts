/** The kinds of nodes that the tests of this folder run with: bcoin, and Bitcoin Core if `BITCOIND` is set. */
import * as Bcoin from "./bcoin.ts"
import * as Bitcoind from "./bitcoind.ts"
import type { InteropNodeKind } from "./InteropNode.ts"

/**
 * @example
 * ```ts
 * describe.each(nodes)("$name", ({ start }) => {
 *   it.live("…", () => Effect.gen(function* () { const node = yield* start() }))
 * })
 * ```
 */
export const nodes: ReadonlyArray<InteropNodeKind> = [
  { name: "bcoin", start: Bcoin.start },
  ...(Bitcoind.program === undefined ? [] : [{ name: "bitcoind", start: Bitcoind.start }])
]
