/**
 * The messages that wait to be written, bounded by their bytes. A message is accepted while fewer than `limit` bytes wait, so
 * the queue holds at most `limit` bytes and one message, besides the messages of `force`. A sender that finds no room
 * waits in line. Every sender gets an answer: its message was accepted, it was written or, after `close`, it never will be.
 *
 * The messages of one turn of the event loop are written together at its end, or as soon as they are many, straight to the
 * connection. Only when the connection does not take them all do they, and those that follow, go through the queue of the
 * writer, which waits for it.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type { Outgoing } from "../transport/messageConnection.ts"
import type { Message } from "../Wire.ts"

/** An accepted message, encoded, with the call that its writing triggers. */
export interface Entry {
  readonly outgoing: Outgoing
  readonly onWritten: (() => void) | undefined
  /** Whether the connection has the frame. */
  isWritten: boolean
}

/** Hands frames to the connection; returns how many bytes wait there, or -1 when it has ended. */
export type Write = (batch: ReadonlyArray<Entry>) => number

/** Turns that are written directly before one goes through the queue. */
const maximumDirectTurns = 64

// One write of small frames joined is 20 to 35 times faster than one by one; above some 64 KiB nothing more is won.
const maximumBatch = 256 * 1024
/** A turn with so many bytes is written at once, so that the remote reads while the next message is encoded. */
const longTurn = 64 * 1024

/** The entries from `from` on that are written together: one at least, and no more bytes than `maximumBatch`. */
export const batchFrom = (entries: ReadonlyArray<Entry>, from: number): ReadonlyArray<Entry> => {
  let to = from
  let size = 0
  do size += entries[to++]!.outgoing.frame.length
  while (
    to < entries.length &&
    entries[to]!.isWritten === entries[from]!.isWritten &&
    size + entries[to]!.outgoing.frame.length <= maximumBatch
  )
  return from === 0 && to === entries.length ? entries : entries.slice(from, to)
}

interface Waiter<E> {
  readonly message: Message
  /** Whether the sender waits until the message was written, not only until it was accepted. */
  readonly untilWritten: boolean
  readonly resume: (exit: Exit.Exit<void, E>) => void
}

export class SendQueue<E> {
  /** Bytes that were accepted and are not written yet. */
  bytes = 0
  /** Messages that were accepted and are not written yet. */
  length = 0
  /** Writes at the end of the turn, where it is set. */
  #write: Write | undefined
  #onQueue: (() => void) | undefined
  /** Accepted in this turn of the event loop. */
  #turn: Array<Entry> = []
  #turnBytes = 0
  /** Turns that were written directly since the writer's last one. */
  #directTurns = 0
  /** Whether entries go to the queue, because the writer waits for the connection. */
  #isQueueing = true
  /** Made when it is first needed: most connections take all. */
  #queue: Queue.Queue<Entry> | undefined
  /** Entries that wait for the queue to open. */
  #held: Array<Entry> = []
  readonly #limit: number
  readonly #encode: (message: Message) => Result.Result<Outgoing, E>
  #closed: (() => E) | undefined
  /** Senders that wait for room, the first first. Made when the first one waits. */
  #line: Set<Waiter<E>> | undefined
  /** Senders whose message was accepted and is not written yet. */
  #unwritten: Set<Waiter<E>> | undefined

  /** A message is encoded when it is accepted. */
  constructor(limit: number, encode: (message: Message) => Result.Result<Outgoing, E>) {
    this.#limit = limit
    this.#encode = encode
  }

  /**
   * Makes the queue of the writer. Run it on the writer's fiber: the queue wakes the writer through the scheduler of the fiber that
   * made it, in a later turn of the event loop.
   */
  get open(): Effect.Effect<void> {
    return Effect.map(Queue.unbounded<Entry>(), (queue) => {
      Queue.offerAllUnsafe(queue, this.#held)
      this.#held = []
      this.#queue = queue
    })
  }

  /** The entries for the writer, once the queue is open. */
  get entries(): Queue.Dequeue<Entry> {
    return this.#queue!
  }

  #enqueue(entry: Entry): void {
    if (this.#queue === undefined) this.#held.push(entry)
    else Queue.offerUnsafe(this.#queue, entry)
  }

  /** Succeeds when the message was accepted, at once where there is room. Interrupting the wait withdraws it. */
  offer(message: Message): Effect.Effect<void, E> {
    return Effect.suspend(() => {
      if (this.#closed !== undefined) return Effect.fail(this.#closed())
      if (!this.#hasRoom()) return this.#wait(message, false)
      const encoded = this.#encode(message)
      if (Result.isFailure(encoded)) return Effect.fail(encoded.failure)
      this.#add(encoded.success, undefined)
      // Not in `#add`: a write lets the next sender in line add its message, and so on.
      if (this.#turnBytes >= longTurn) this.#endTurn()
      return Effect.void
    })
  }

  /** Succeeds when the message was written. Interrupting the wait withdraws a message that was not accepted yet. */
  offerAndWait(message: Message): Effect.Effect<void, E> {
    return this.#wait(message, true)
  }

  /** Accepts a message whether there is room or not; drops it when it cannot be encoded or the queue is closed. */
  force(message: Message, onWritten?: () => void): void {
    if (this.#closed !== undefined) return
    const encoded = this.#encode(message)
    if (Result.isSuccess(encoded)) this.#add(encoded.success, onWritten)
  }

  /**
   * To be called while the connection takes all, and no entry waits: `write` takes the next entries, without the queue. `onQueue`
   * is called when the next entry goes to the queue.
   */
  writeDirectly(write: Write, onQueue?: () => void): void {
    this.#write = write
    this.#onQueue = onQueue
    this.#isQueueing = false
    this.#directTurns = 0
  }

  /** Gives the room of written messages to the senders in line. */
  release(entries: ReadonlyArray<Entry>): void {
    for (const { onWritten, outgoing } of entries) {
      this.bytes -= outgoing.frame.length
      this.length--
      onWritten?.()
    }
    this.#admit()
  }

  /** Fails every sender that waits or comes later with this error, and drops the messages that were not written. */
  close(error: () => E): void {
    if (this.#closed !== undefined) return
    this.#closed = error
    // Emptied, not shut down: a shutdown would end the writer, and the peer with it, without the reason.
    if (this.#queue !== undefined) while (Queue.takeUnsafe(this.#queue) !== undefined);
    this.#turn = []
    this.#held = []
    const waiting = [...(this.#line ?? []), ...(this.#unwritten ?? [])]
    this.#line = this.#unwritten = undefined
    for (const { resume } of waiting) resume(Exit.fail(error()))
  }

  #hasRoom(): boolean {
    return this.bytes < this.#limit && (this.#line === undefined || this.#line.size === 0)
  }

  #add(outgoing: Outgoing, onWritten: (() => void) | undefined): void {
    this.bytes += outgoing.frame.length
    this.length++
    const entry: Entry = { outgoing, onWritten, isWritten: false }
    // Entries of this turn that wait for its end must not be overtaken.
    if (this.#isQueueing && this.#turn.length === 0) {
      this.#enqueue(entry)
      this.#startWriter()
    } else {
      this.#turnBytes += outgoing.frame.length
      if (this.#turn.push(entry) === 1) queueMicrotask(this.#endTurn)
    }
  }

  /** After all entries of a turn: the writer takes what there is when it starts. */
  #startWriter(): void {
    const onQueue = this.#onQueue
    this.#onQueue = undefined
    onQueue?.()
  }

  readonly #endTurn = (): void => {
    const entries = this.#turn
    if (entries.length === 0) return
    this.#turn = []
    this.#turnBytes = 0
    let from = 0
    // The writer's fiber lets the event loop go on: two peers in memory that answer each other would otherwise stop all timers.
    if (++this.#directTurns >= maximumDirectTurns) this.#isQueueing = true
    while (from < entries.length && !this.#isQueueing && this.#closed === undefined) {
      const batch = batchFrom(entries, from)
      from += batch.length
      if (this.#write!(batch) === 0) this.release(batch)
      else {
        this.#isQueueing = true
        for (const entry of batch) {
          entry.isWritten = true
          this.#enqueue(entry)
        }
      }
    }
    for (; from < entries.length; from++) this.#enqueue(entries[from]!)
    if (this.#isQueueing) this.#startWriter()
  }

  #wait(message: Message, untilWritten: boolean): Effect.Effect<void, E> {
    return Effect.callback<void, E>((resume) => {
      if (this.#closed !== undefined) return resume(Exit.fail(this.#closed()))
      const waiter: Waiter<E> = { message, untilWritten, resume }
      if (this.#hasRoom()) this.#accept(waiter)
      else (this.#line ??= new Set()).add(waiter)
      return Effect.sync(() => {
        this.#line?.delete(waiter)
        this.#unwritten?.delete(waiter)
      })
    })
  }

  #accept(waiter: Waiter<E>): void {
    const encoded = this.#encode(waiter.message)
    if (Result.isFailure(encoded)) return waiter.resume(Exit.fail(encoded.failure))
    if (!waiter.untilWritten) {
      this.#add(encoded.success, undefined)
      return waiter.resume(Exit.void)
    }
    ;(this.#unwritten ??= new Set()).add(waiter)
    this.#add(encoded.success, () => {
      if (this.#unwritten?.delete(waiter) === true) waiter.resume(Exit.void)
    })
  }

  #admit(): void {
    const line = this.#line
    if (line === undefined) return
    for (const waiter of line) {
      // A sender that goes on at once may close the queue, which fails the others in line.
      if (this.bytes >= this.#limit || this.#closed !== undefined) return
      line.delete(waiter)
      try {
        this.#accept(waiter)
      } catch (defect) {
        // This runs on the writer's fiber: a message that no codec can read is its sender's defect and does not end the peer.
        waiter.resume(Exit.die(defect))
      }
    }
  }
}
