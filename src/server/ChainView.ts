/**
 * What a server has to know of the chain to judge its peers: whether our tip is old, and whether a peer has a chain as good as ours. A
 * block manager provides it. Without one, no peer is ended for its chain.
 */
import * as Context from "effect/Context"

/**
 * A view of the chain, and of what peers told of theirs. Every function is synchronous; peers are named by their numbers in the server.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChainView {
  /** The total work of our best chain. */
  readonly tipWork: () => bigint
  /** Milliseconds of Unix time when our tip changed last. */
  readonly tipChangedAt: () => number
  /** Whether the first synchronisation is still under way. */
  readonly isInitialSync: () => boolean
  /** The work of the best header that a peer told of; undefined before it told of one. */
  readonly workOf: (id: number) => bigint | undefined
  /** Whether a block is requested of a peer and has not come. */
  readonly hasBlockInFlight: (id: number) => boolean
  /** Whether any block is requested and has not come. */
  readonly isDownloading: () => boolean
  /** Milliseconds of Unix time when a peer was the first to announce a block; 0 before that. */
  readonly lastNewBlock: (id: number) => number
  /** Asks a peer for headers that follow the parent of our tip. */
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
