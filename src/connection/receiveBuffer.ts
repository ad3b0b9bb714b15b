/** The bytes that a connection has received and that were not pulled yet. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"

type Batch = NonEmptyReadonlyArray<Uint8Array>

/**
 * The bytes that arrived and were not pulled yet, and the one fiber that waits for more. It has no limit of its own: the
 * pusher checks `size`.
 *
 * A batch leaves in the thunk of `take`, which runs the continuation of the puller without a step in between. So no
 * interruption can fall between the moment when the batch leaves and the moment when the puller has it.
 */
export class ReceiveBuffer<E> {
  /** The number of bytes that are held. */
  size = 0
  /** Whether bytes that arrive are dropped. */
  discarding = false

  private held: Array<Uint8Array> = []
  private heldFrom = 0
  private handed: Batch | undefined
  private resume: ((effect: Effect.Effect<Batch, E>) => void) | undefined
  private end: Effect.Effect<never, E> | undefined
  private readonly onTaken: () => void
  private readonly single: boolean

  /** `onTaken` runs after each batch that leaves. `single` returns one piece for each pull, not all that are held. */
  constructor(onTaken: () => void, single = false) {
    this.onTaken = onTaken
    this.single = single
  }

  /** The number of pieces that are held. */
  get pieces(): number {
    return this.held.length - this.heldFrom
  }

  readonly pull: Effect.Effect<Batch, E> = Effect.callback<Batch, E>((resume) => {
    if (this.resume !== undefined) {
      return resume(Effect.die(new Error("two fibers pull from one connection: only one may at a time")))
    }
    if (!this.discarding) {
      // An earlier pull that was interrupted before its `take` ran has set it already.
      this.handed ??= this.next()
      if (this.handed !== undefined) return resume(this.take)
    }
    if (this.end !== undefined) return resume(this.end)
    this.resume = resume
    return this.forget
  })

  private readonly take: Effect.Effect<Batch> = Effect.sync(() => {
    const batch = this.handed
    if (batch === undefined) throw new Error("two fibers pull from one connection: only one may at a time")
    this.handed = undefined
    if (!this.discarding) {
      for (const bytes of batch) this.size -= bytes.length
      this.onTaken()
    }
    return batch
  })

  private readonly forget: Effect.Effect<void> = Effect.sync(() => {
    this.resume = undefined
  })

  private next(): Batch | undefined {
    const length = this.held.length
    if (length === 0) return undefined
    if (!this.single) {
      const batch = this.held
      this.held = []
      return batch as unknown as Batch
    }
    const bytes = this.held[this.heldFrom++]!
    if (this.heldFrom === length) {
      this.held = []
      this.heldFrom = 0
    }
    return [bytes]
  }

  /** Adds bytes that arrived. Empty ones are dropped, because a batch has none. */
  push(bytes: Uint8Array): void {
    if (this.discarding || bytes.length === 0) return
    this.size += bytes.length
    const resume = this.resume
    if (resume === undefined) {
      this.held.push(bytes)
      return
    }
    this.resume = undefined
    this.handed = [bytes]
    resume(this.take)
  }

  /** Adds several pieces at once, as one batch if a fiber waits. */
  pushAll(batch: Batch): void {
    for (const bytes of batch) {
      if (bytes.length === 0 || this.single) {
        for (const bytes of batch) this.push(bytes)
        return
      }
    }
    if (this.discarding) return
    for (const bytes of batch) this.size += bytes.length
    const resume = this.resume
    if (resume === undefined) {
      for (const bytes of batch) this.held.push(bytes)
      return
    }
    this.resume = undefined
    this.handed = batch
    resume(this.take)
  }

  /** No more bytes will arrive: when those that are held were pulled, pulls fail with the first such error. */
  fail(error: E): void {
    if (this.end !== undefined) return
    this.end = Effect.fail(error)
    this.wakeWithEnd()
  }

  /** Drops all bytes, also those that still arrive: pulls fail at once. */
  discard(error: E): void {
    this.discarding = true
    this.held = []
    this.heldFrom = 0
    this.size = 0
    this.end ??= Effect.fail(error)
    this.wakeWithEnd()
  }

  private wakeWithEnd(): void {
    const resume = this.resume
    if (resume === undefined || this.end === undefined) return
    this.resume = undefined
    resume(this.end)
  }
}
