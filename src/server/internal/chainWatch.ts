/** Compares the chains of outbound peers with ours, where the server has a chain. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { ChainView } from "../ChainView.ts"
import type { ServerEvent } from "../ServerEvent.ts"
import { OutboundWatch } from "./outboundWatch.ts"
import type { Registry } from "./registry.ts"
import { type Connections, networkOf } from "./running.ts"

export interface ChainWatchParts {
  readonly limits: { readonly fullRelay: number; readonly blockRelay: number }
  readonly connections: Connections
  readonly registry: Registry
  readonly emit: (event: ServerEvent) => void
  readonly runFork: (effect: Effect.Effect<unknown>) => void
  readonly wake: () => void
  readonly now: () => number
}

/** How often the chains are compared. */
const watchInterval = Duration.seconds(5)

/** Ends outbound peers with a bad chain, and looks for another one while the tip is old. */
export const watchChain = (chain: ChainView, parts: ChainWatchParts): Effect.Effect<never> => {
  const { connections, emit, limits, now, registry, runFork, wake } = parts
  const watch = new OutboundWatch(limits, now())
  const turn = Effect.suspend(() => {
    const watched = [...connections.values()].flatMap((one) => {
      const { id, isEnding, isOnce, kind, readyAt } = one.entry
      if (isOnce) return []
      const isWatched = kind === "outbound-full-relay" || kind === "block-relay-only" || kind === "manual"
      return isWatched && readyAt !== undefined && !isEnding
        ? [{ id, kind, readyAt, network: networkOf(one), lastBlock: one.lastBlock }]
        : []
    })
    for (const action of watch.tick(watched, chain, now())) {
      const one = connections.get(action.id)
      if (action._tag === "AskForHeaders") chain.askForHeaders(action.id)
      else if (one !== undefined) {
        emit({ _tag: "Evicted", id: action.id, by: undefined })
        runFork(connections.end(one, { _tag: "Evicted", why: action.why }))
      }
    }
    if (watch.wantsExtraFullRelay && !registry.wantsExtraFullRelay) emit({ _tag: "StaleTip" })
    registry.wantsExtraFullRelay = watch.wantsExtraFullRelay
    registry.wantsExtraBlockRelay = !chain.isInitialSync()
    wake()
    return Effect.sleep(watchInterval)
  })
  return Effect.forever(turn)
}
