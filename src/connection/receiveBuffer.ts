import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"

type Batch = NonEmptyReadonlyArray<Uint8Array>

/**
 * Bytes that arrived and were not pulled yet, and the one fiber that waits for them. It has no bound of its own: who
 * pushes looks at `size`.
 *
 * A batch leaves in the thunk of `take`, which runs the puller's continuation without a step between, so that no
 * interruption can fall between "left the receiveBuffer" and "was seen".
 */
export class ReceiveBuffer<E> {
  /** Bytes that are held. */
  size = 0
  /** Whether what arrives is thrown away. */
  discarding = false

  private held: Array<Uint8Array> = []
  private heldFrom = 0
  private handed: Batch | undefined
  private resume: ((effect: Effect.Effect<Batch, E>) => void) | undefined
  private end: Effect.Effect<never, E> | undefined
  private readonly onTaken: () => void
  private readonly single: boolean

  /** `onTaken` runs whenever a batch left; `single` hands out one piece a pull instead of all that is held. */
  constructor(onTaken: () => void, single = false) {
    this.onTaken = onTaken
    this.single = single
  }

  /** Pieces that are held. */
  get pieces(): number {
    return this.held.length - this.heldFrom
  }

  readonly pull: Effect.Effect<Batch, E> = Effect.callback<Batch, E>((resume) => {
    if (this.resume !== undefined) {
      return resume(Effect.die(new Error("two fibers pull from one connection: only one may at a time")))
    }
    if (!this.discarding) {
      // Set already when an earlier pull was interrupted before its `take` ran.
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

  /** Bytes arrived. Empty ones are dropped, for a batch has none. */
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

  /** Several at once, in one batch when somebody waits. */
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

  /** Nothing more will arrive: once what is held was pulled, pulls fail with the first such error. */
  fail(error: E): void {
    if (this.end !== undefined) return
    this.end = Effect.fail(error)
    this.wakeWithEnd()
  }

  /** Nobody wants what is held or still arrives: pulls fail at once. */
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
