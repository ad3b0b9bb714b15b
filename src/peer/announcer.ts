/** Announces blocks and transactions to one peer: blocks at once, transactions with the trickle. */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Inventory from "../Inventory.ts"
import * as Wire from "../Wire.ts"
import type { Lifecycle } from "./lifecycle.ts"
import { ended } from "./misbehavior.ts"
import type { SendQueue } from "./sendQueue.ts"
import { notSendable, type PeerError } from "../PeerError.ts"
import type { RemoteState } from "./remoteState.ts"
import { notA } from "../primitives/types.ts"
import { WaitList } from "../primitives/waitList.ts"

/** More blocks than that are announced by the hash of the last one, as in Core. */
const maximumAnnouncedHeaders = 8

export interface AnnouncerOptions {
  readonly inventory: Inventory.Inventory
  readonly trickle: Inventory.Trickle
  readonly remote: RemoteState
  readonly sendQueue: SendQueue<PeerError>
  readonly now: () => number
  readonly lifecycle: Lifecycle
}

/** The error for a hash that is not 32 bytes. */
const badHash = (announcements: ReadonlyArray<Inventory.Announcement>): PeerError | undefined => {
  for (const announcement of announcements) {
    for (const field of "hash" in announcement ? (["hash"] as const) : (["txid", "wtxid"] as const)) {
      const hash: unknown = announcement[field as keyof typeof announcement]
      if (hash instanceof Uint8Array && hash.length === 32) continue
      const problem = hash instanceof Uint8Array ? `has ${hash.length} bytes instead of 32` : notA(hash, "Uint8Array")
      const reason = { _tag: "BadValue", field, problem } as const
      return notSendable(new Wire.WireError({ command: "inv", reason }))
    }
  }
  return undefined
}

export class Announcer {
  readonly #options: AnnouncerOptions
  #announced: WaitList | undefined

  constructor(options: AnnouncerOptions) {
    this.#options = options
  }

  /** The loop that sends waiting transactions at the times of the trickle. */
  get #trickler(): Effect.Effect<never> {
    const { inventory, now, remote, sendQueue, trickle } = this.#options
    const announced = (this.#announced = new WaitList(() => (inventory.waiting.length > 0 ? Effect.void : undefined)))
    return Effect.gen({ self: this }, function* () {
      while (true) {
        // A peer without waiting announcements costs no timer; the random times have no memory, so that is the same.
        yield* announced.wait
        const wait = Inventory.nextTrickle(trickle, now(), yield* Random.next)
        if (wait > 0) yield* Effect.sleep(wait)
        for (const items of inventory.take(remote)) yield* sendQueue.offer({ _tag: "inv", items })
      }
      // It fails when nothing is sent any more: the peer ends then, for the reason of another loop.
    }).pipe(Effect.catch(() => Effect.never))
  }

  announce(
    announcements: ReadonlyArray<Inventory.Announcement>
  ): Effect.Effect<ReadonlyArray<Inventory.Announced>, PeerError> {
    const { inventory, remote, sendQueue } = this.#options
    return Effect.suspend(() => {
      const error = this.#ended() ?? badHash(announcements)
      if (error !== undefined) return Effect.fail(error)
      const blocks: Array<Wire.InventoryItem> = []
      const results = announcements.map((announcement): Inventory.Announced => {
        const item = Inventory.itemOf(announcement, remote)
        if (item.type !== Wire.InventoryType.block) return inventory.queue(item, remote)
        if (inventory.known.has(item.hash) || blocks.some(({ hash }) => Wire.hashEquals(hash, item.hash)))
          return "known"
        blocks.push({ type: item.type, hash: item.hash })
        return "queued"
      })
      if (this.#announced !== undefined) this.#announced.wake()
      else if (inventory.waiting.length > 0) this.#options.lifecycle.fork(this.#trickler)
      return Effect.as(
        // Known once it was accepted: an announcement that is interrupted before can be repeated.
        Effect.forEach(
          blocks,
          (item) => Effect.map(sendQueue.offer({ _tag: "inv", items: [item] }), () => inventory.known.add(item.hash)),
          { discard: true }
        ),
        results
      )
    })
  }

  announceBlocks(headers: ReadonlyArray<Wire.BlockHeader>): Effect.Effect<void, PeerError> {
    const { inventory, remote, sendQueue } = this.#options
    return Effect.suspend(() => {
      const tip = headers.at(-1)
      if (tip === undefined) return Effect.void
      const hash = Wire.blockHash(tip)
      const items = [{ type: Wire.InventoryType.block, hash }]
      if (!remote.wantsHeaders || headers.length > maximumAnnouncedHeaders) return Effect.asVoid(this.announce(items))
      if (inventory.known.has(hash)) {
        const error = this.#ended()
        return error === undefined ? Effect.void : Effect.fail(error)
      }
      return sendQueue.offer({ _tag: "headers", headers })
    })
  }

  #ended(): PeerError | undefined {
    const { lifecycle } = this.#options
    return lifecycle.isEnding ? ended(lifecycle.reason!) : undefined
  }
}
