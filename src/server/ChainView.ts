/**
 * The interface through which a server sees the chain: whether our tip is stale, and whether the chain of a peer has as much work as ours.
 * A block manager implements it. Without it, the server ends no peer for its chain.
 */
import * as Context from "effect/Context"

/**
 * A view of our best chain and of those that peers announced. Every function is synchronous. `id` is the `ConnectedPeer.id` of a peer.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChainView {
  /** The total work of our best chain. */
  readonly tipWork: () => bigint
  /** When our tip last changed, in milliseconds of Unix time. */
  readonly tipChangedAt: () => number
  /** Whether the initial block download is still running. */
  readonly isInitialSync: () => boolean
  /** The total work of the best header that a peer announced; undefined before the first one. */
  readonly workOf: (id: number) => bigint | undefined
  /** Whether a block is in flight from a peer: requested, and not received yet. */
  readonly hasBlockInFlight: (id: number) => boolean
  /** Whether any block is in flight. */
  readonly isDownloading: () => boolean
  /** When a peer last announced a block that was new to us, in milliseconds of Unix time; 0 before that. */
  readonly lastNewBlock: (id: number) => number
  /** Sends getheaders to a peer, from the parent of our tip on, so that a peer in sync answers with our tip at least. */
  readonly askForHeaders: (id: number) => void
}

/**
 * The view of the chain in a context. Its default is undefined: no chain.
 *
 * @category services
 * @since 0.1.0
 */
export const ChainView: Context.Reference<ChainView | undefined> = Context.Reference<ChainView | undefined>(
  "effect-bitcoin-peer/server/ChainView",
  { defaultValue: () => undefined }
)
