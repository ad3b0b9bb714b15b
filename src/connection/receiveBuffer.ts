/** The bytes that a connection has received and that were not pulled yet. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"

type Batch = NonEmptyReadonlyArray<Uint8Array>

/**
 * Takes the bytes of a connection as they arrive, without a fiber. Its functions must not throw.
 *
 * @category models
 * @since 0.1.0
 */
export interface Receiver<E> {
  /** Takes a batch. Returns whether it takes the next one too; if it does not, the connection holds the bytes that follow. */
  readonly onBytes: (batch: Batch) => boolean
  /** The connection has ended, and all its bytes were taken. */
  readonly onEnd: (error: E) => void
}

/** The connection that pushes. */
interface Owner {
  /** Called after each batch that leaves. */
  readonly taken: () => void
}

const twoReaders = "two readers take from one connection: only one may at a time"

/**
 * The bytes that arrived and were not taken yet, and the one fiber that waits for more, or the receiver. It has no limit of its
 * own: the pusher checks `size`.
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
  private endError: E | undefined
  private receiver: Receiver<E> | undefined
  /** The receiver whose call runs and that was not stopped. */
  private called: Receiver<E> | undefined
  /** Whether a receiver's call runs. Bytes that arrive meanwhile are held: no call runs inside of another. */
  private delivering = false
  private readonly owner: Owner
  private readonly single: boolean

  /** `single` returns one piece for each pull, not all that are held. */
  constructor(owner: Owner, single = false) {
    this.owner = owner
    this.single = single
  }

  /** The number of pieces that are held. */
  get pieces(): number {
    return this.held.length - this.heldFrom
  }

  // Made when it is asked for: a peer does not pull.
  get pull(): Effect.Effect<Batch, E> {
    return Effect.callback<Batch, E>((resume) => this.pullWith(resume))
  }

  private pullWith(resume: (effect: Effect.Effect<Batch, E>) => void): Effect.Effect<void> | undefined {
    if (this.resume !== undefined || this.receiver !== undefined) {
      resume(Effect.die(new Error(twoReaders)))
      return undefined
    }
    // An earlier pull that was interrupted before its `take` ran has set it already.
    if (!this.discarding) this.handed ??= this.next()
    if (!this.discarding && this.handed !== undefined) resume(this.take)
    else if (this.end !== undefined) resume(this.end)
    else {
      this.resume = resume
      return Effect.sync(() => {
        this.resume = undefined
      })
    }
    return undefined
  }

  private get take(): Effect.Effect<Batch> {
    return Effect.sync(() => this.takeUnsafe())
  }

  private takeUnsafe(): Batch {
    const batch = this.handed
    if (batch === undefined) throw new Error(twoReaders)
    this.handed = undefined
    if (!this.discarding) {
      for (const bytes of batch) this.size -= bytes.length
      this.owner.taken()
    }
    return batch
  }

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

  /** Hands the bytes that are held, and all that arrive, to `receiver`. The returned function stops that. */
  receive(receiver: Receiver<E>): () => void {
    if (this.resume !== undefined || this.receiver !== undefined) throw new Error(twoReaders)
    this.receiver = receiver
    this.deliver()
    return () => {
      if (this.receiver === receiver) this.receiver = undefined
      if (this.called === receiver) this.called = undefined
    }
  }

  private deliver(): void {
    if (this.delivering) return
    this.delivering = true
    while (this.receiver !== undefined) {
      const receiver = this.receiver
      const batch = this.discarding ? undefined : (this.handed ?? this.next())
      if (batch === undefined && this.end === undefined) break
      this.receiver = undefined
      if (batch === undefined) {
        receiver.onEnd(this.endError!)
        continue
      }
      this.handed = undefined
      for (const bytes of batch) this.size -= bytes.length
      this.owner.taken()
      this.called = receiver
      // The call may set another receiver, or stop this one.
      if (receiver.onBytes(batch) && this.called === receiver) this.receiver = receiver
    }
    this.called = undefined
    this.delivering = false
  }

  /** Adds bytes that arrived. Empty ones are dropped, because a batch has none. */
  push(bytes: Uint8Array): void {
    if (this.discarding || bytes.length === 0) return
    this.size += bytes.length
    const resume = this.resume
    if (resume === undefined) {
      this.held.push(bytes)
      this.deliver()
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
      this.deliver()
      return
    }
    this.resume = undefined
    this.handed = batch
    resume(this.take)
  }

  /** No more bytes will arrive: when those that are held were pulled, pulls fail with the first such error. */
  fail(error: E): void {
    if (this.end !== undefined) return
    this.endWith(error)
    this.wakeWithEnd()
  }

  /** Drops all bytes, also those that still arrive: pulls fail at once. */
  discard(error: E): void {
    this.discarding = true
    this.held = []
    this.heldFrom = 0
    this.size = 0
    this.endWith(error)
    this.wakeWithEnd()
  }

  private endWith(error: E): void {
    if (this.end !== undefined) return
    this.end = Effect.fail(error)
    this.endError = error
  }

  private wakeWithEnd(): void {
    this.deliver()
    const resume = this.resume
    if (resume === undefined || this.end === undefined) return
    this.resume = undefined
    resume(this.end)
  }
}
