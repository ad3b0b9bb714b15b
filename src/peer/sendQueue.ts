/**
 * What waits to be written, bounded by bytes. A message is let in while less than `limit` bytes wait, so that at most
 * `limit` and one message are held; who comes later waits in line. Nobody who waits is ever forgotten: each is told when
 * its message was let in or written or, by `close`, that it never will be.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Result from "effect/Result"
import type { Outgoing } from "../transport/messageConnection.ts"

export interface Entry {
  readonly outgoing: Outgoing
  readonly written: (() => void) | undefined
}

/** Makes the frame, at the moment when there is room for it. */
export type Encode<E> = () => Result.Result<Outgoing, E>

export interface Outbox<E> {
  readonly queue: Queue.Dequeue<Entry>
  /** Bytes that were let in and are not written yet. */
  readonly bytes: () => number
  /** Messages that were let in and are not written yet. */
  readonly length: () => number
  /** Succeeds when the message was let in: at once where there is room. Interrupting the wait withdraws it. */
  readonly offer: (encode: Encode<E>) => Effect.Effect<void, E>
  /** Succeeds when the message was written. Interrupting withdraws it only while it was not let in. */
  readonly offerAndWait: (encode: Encode<E>) => Effect.Effect<void, E>
  /** Lets a message in whether there is room or not. */
  readonly force: (outgoing: Outgoing, written?: (() => void) | undefined) => void
  /** These were written. */
  readonly release: (entries: ReadonlyArray<Entry>) => void
  /** Whoever waits, or comes later, gets this error. What was not written is dropped. */
  readonly close: (error: E) => void
}

interface Waiter<E> {
  readonly encode: Encode<E>
  readonly untilWritten: boolean
  readonly resume: (exit: Exit.Exit<void, E>) => void
}

export const makeOutbox = <E>(limit: number): Effect.Effect<Outbox<E>> =>
  Effect.map(Queue.unbounded<Entry>(), (queue) => {
    let bytes = 0
    let length = 0
    let closed: Exit.Exit<void, E> | undefined
    /** Who waits for room, in the order they came. */
    const line = new Set<Waiter<E>>()
    /** Whose message was let in and is not written yet. */
    const unwritten = new Set<Waiter<E>>()

    const add = (outgoing: Outgoing, written: (() => void) | undefined): void => {
      bytes += outgoing.frame.length
      length++
      Queue.offerUnsafe(queue, { outgoing, written })
    }

    const letIn = (waiter: Waiter<E>): void => {
      const encoded = waiter.encode()
      if (Result.isFailure(encoded)) return waiter.resume(Exit.fail(encoded.failure))
      if (!waiter.untilWritten) {
        add(encoded.success, undefined)
        return waiter.resume(Exit.void)
      }
      unwritten.add(waiter)
      add(encoded.success, () => {
        if (unwritten.delete(waiter)) waiter.resume(Exit.void)
      })
    }

    const admit = (): void => {
      for (const waiter of line) {
        if (bytes >= limit) return
        line.delete(waiter)
        try {
          letIn(waiter)
        } catch (defect) {
          // This runs on the writer's fiber: a message that no codec can read is its sender's defect, not the peer's end.
          waiter.resume(Exit.die(defect))
        }
      }
    }

    const hasRoom = (): boolean => bytes < limit && line.size === 0

    const wait = (encode: Encode<E>, untilWritten: boolean): Effect.Effect<void, E> =>
      Effect.callback<void, E>((resume) => {
        if (closed !== undefined) return resume(closed)
        const waiter: Waiter<E> = { encode, untilWritten, resume }
        if (hasRoom()) letIn(waiter)
        else line.add(waiter)
        return Effect.sync(() => {
          line.delete(waiter)
          unwritten.delete(waiter)
        })
      })

    return {
      queue,
      bytes: () => bytes,
      length: () => length,
      offer: (encode) =>
        Effect.suspend(() => {
          if (closed !== undefined) return closed
          if (!hasRoom()) return wait(encode, false)
          const encoded = encode()
          if (Result.isFailure(encoded)) return Effect.fail(encoded.failure)
          add(encoded.success, undefined)
          return Effect.void
        }),
      offerAndWait: (encode) => wait(encode, true),
      force: (outgoing, written) => {
        if (closed === undefined) add(outgoing, written)
      },
      release: (entries) => {
        for (const { outgoing, written } of entries) {
          bytes -= outgoing.frame.length
          length--
          written?.()
        }
        admit()
      },
      close: (error) => {
        if (closed !== undefined) return
        closed = Exit.fail(error)
        // Emptied, not shut down: that would end the writer, which is not to say why the peer ends.
        while (Queue.takeUnsafe(queue) !== undefined);
        for (const { resume } of [...line, ...unwritten]) resume(closed)
        line.clear()
        unwritten.clear()
      }
    }
  })
