/** Announcing blocks and transactions to one peer: blocks at once, transactions with the trickle. */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import type * as Result from "effect/Result"
import * as Inventory from "../Inventory.ts"
import * as Wire from "../Wire.ts"
import type { Outgoing } from "../transport/messageConnection.ts"
import type { Outbox } from "./sendQueue.ts"
import { notSendable, type PeerError } from "../PeerError.ts"
import type { RemoteState } from "./remoteState.ts"
import { WaitList } from "../primitives/waitList.ts"

/** More than that are announced by the hash of the last one, as in Core. */
const maximumAnnouncedHeaders = 8

export interface AnnouncerOptions {
  readonly inventory: Inventory.Inventory
  readonly trickle: Inventory.Trickle
  readonly remote: RemoteState
  readonly outbox: Outbox<PeerError>
  readonly encode: (message: Wire.Message) => Result.Result<Outgoing, PeerError>
  readonly now: () => number
  /** What whoever announces something after the end is told. */
  readonly ended: () => PeerError | undefined
}

export const makeAnnouncer = ({ encode, ended, inventory, now, outbox, remote, trickle }: AnnouncerOptions) => {
  const announced = new WaitList(() => (inventory.waiting.length > 0 ? Effect.void : undefined))
  const rules = (): Inventory.Rules => remote

  const trickler = Effect.gen(function* () {
    while (true) {
      // A peer to whom nothing is to be announced costs no timer; the random times have no memory, so that is the same.
      yield* announced.wait
      const wait = Inventory.nextTrickle(trickle, now(), yield* Random.next)
      if (wait > 0) yield* Effect.sleep(wait)
      for (const items of inventory.take(rules())) yield* outbox.offer(() => encode({ _tag: "inv", items }))
    }
    // It fails when nothing is sent any more: the end is near, and others say why.
  }).pipe(Effect.catch(() => Effect.never))

  const announce = (announcements: ReadonlyArray<Inventory.Announcement>): Effect.Effect<void, PeerError> =>
    Effect.suspend(() => {
      const error = ended()
      if (error !== undefined) return Effect.fail(error)
      const blocks: Array<Wire.InventoryItem> = []
      for (const { feeRate, hash, type } of announcements) {
        if (hash.length !== 32) {
          const reason = { _tag: "BadValue", field: "hash", problem: `has ${hash.length} bytes instead of 32` } as const
          return Effect.fail(notSendable(new Wire.WireError({ command: "inv", reason })))
        }
        if (type === Wire.InventoryType.block) {
          if (inventory.known.add(hash)) blocks.push({ type, hash })
        } else inventory.queue({ type, hash, feeRate }, rules())
      }
      announced.wake()
      return Effect.forEach(blocks, (item) => outbox.offer(() => encode({ _tag: "inv", items: [item] })), {
        discard: true
      })
    })

  const announceBlocks = (headers: ReadonlyArray<Wire.BlockHeader>): Effect.Effect<void, PeerError> =>
    Effect.suspend(() => {
      const tip = headers.at(-1)
      if (tip === undefined) return Effect.void
      const hash = Wire.blockHash(tip)
      const items = [{ type: Wire.InventoryType.block, hash }]
      if (!remote.wantsHeaders || headers.length > maximumAnnouncedHeaders) return announce(items)
      if (inventory.known.has(hash)) {
        const error = ended()
        return error === undefined ? Effect.void : Effect.fail(error)
      }
      return outbox.offer(() => encode({ _tag: "headers", headers }))
    })

  return { trickler, announce, announceBlocks }
}
