/** Blocks from a real Bitcoin Core, which runs in a network namespace without anything but loopback; see run.ts. */
import * as os from "node:os"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Bitcoind from "../interop/bitcoind.ts"

/** Whether a node may be started here: it cannot reach anything. */
export const isIsolated = (): boolean =>
  Object.values(os.networkInterfaces()).every((addresses) => addresses?.every(({ internal }) => internal) ?? true)

export interface CoreChain {
  readonly port: number
  /** The hashes of the mined blocks, in wire order. */
  readonly hashes: ReadonlyArray<Buffer>
  readonly stop: () => Promise<void>
}

/** Starts Bitcoin Core, the binary in `BITCOIND`, and mines blocks of one transaction each. */
export const startCore = async (blocks: number): Promise<CoreChain> => {
  const scope = Effect.runSync(Scope.make())
  const node = await Effect.runPromise(Scope.provide(Bitcoind.start({ args: ["-debug=0"] }), scope))
  const hashes = await Effect.runPromise(node.mine(blocks))
  return {
    port: node.port,
    hashes: hashes.map((hash) => Buffer.from(Buffer.from(hash, "hex").toReversed())),
    stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}
