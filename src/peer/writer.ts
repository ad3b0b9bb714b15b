/**
 * Writes the messages of the send queue, small frames joined. Usually the queue writes at the end of a turn of the event loop,
 * straight to the connection. The loop here starts when the connection does not take all for the first time: it waits for the
 * connection, and ends a remote that takes nothing.
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type { EndReason, PeerError } from "../PeerError.ts"
import type { MessageConnection } from "../transport/messageConnection.ts"
import type { Message } from "../Wire.ts"
import type { Lifecycle } from "./lifecycle.ts"
import { ended, endOfConnection } from "./misbehavior.ts"
import { batchFrom, type Entry, type SendQueue, type Write } from "./sendQueue.ts"
import type { Observer } from "./telemetry.ts"

/** How long the reader has to come to the end that the writer has met. */
const writeFailureGrace = Duration.seconds(1)

export interface WriterOptions {
  readonly link: MessageConnection
  readonly sendQueue: SendQueue<PeerError>
  readonly lifecycle: Lifecycle
  readonly observer: Observer
  /** A remote that takes nothing for this long is ended. */
  readonly timeout: Duration.Duration
  /** Called for each message that is about to be written. */
  readonly onSend: (message: Message) => void
  /** Called after `onSend` of each message of a batch, before the batch is written. */
  readonly onBatch: () => void
  readonly reader: { readonly batches: number }
  readonly dispatcher: { readonly isIdle: () => boolean; readonly idle: Effect.Effect<void> }
}

export class Writer {
  readonly #options: WriterOptions

  constructor(options: WriterOptions) {
    this.#options = options
  }

  /** Starts the loop, at once or when the connection does not take all for the first time. */
  start(): void {
    const { lifecycle, sendQueue } = this.#options
    if (this.#isDirect) sendQueue.writeDirectly(this.#writeDirectly, () => lifecycle.fork(this.#loop))
    else lifecycle.fork(this.#loop)
  }

  /** A log takes an Effect, and a recording may have to be waited for. */
  get #isDirect(): boolean {
    return !this.#options.observer.logs && this.#options.link.room === undefined
  }

  get #loop(): Effect.Effect<never, EndReason> {
    const { link, observer, sendQueue, timeout } = this.#options
    const isDirect = this.#isDirect
    const drained = Effect.catch(link.connection.drained, (error) => this.#readToTheEnd(endOfConnection(error)))
    const drainedInTime = Effect.timeoutOrElse(drained, {
      duration: timeout,
      orElse: () => Effect.fail<EndReason>({ _tag: "WriteTimeout", after: timeout })
    })
    return Effect.gen({ self: this }, function* () {
      yield* sendQueue.open
      while (true) {
        const entries = yield* Queue.takeAll(sendQueue.entries)
        for (let from = 0; from < entries.length;) {
          const batch = batchFrom(entries, from)
          if (observer.logs) {
            for (const { outgoing } of batch) yield* observer.log("sent", outgoing.message, outgoing.frame.length)
          }
          const waits = batch[0]!.isWritten || this.#write(batch) !== 0
          yield* waits ? drainedInTime : drained
          if (link.room !== undefined) yield* link.room
          sendQueue.release(batch)
          from += batch.length
        }
        if (isDirect && Queue.sizeUnsafe(sendQueue.entries) === 0) sendQueue.writeDirectly(this.#writeDirectly)
      }
    })
  }

  /** Returns how many bytes wait in the connection, or -1 when it has ended. */
  #write(batch: ReadonlyArray<Entry>): number {
    const { link, observer, onBatch, onSend } = this.#options
    for (const { outgoing } of batch) onSend(outgoing.message)
    onBatch()
    const waits = link.writeFrames(batch.map(({ outgoing }) => outgoing))
    observer.count()
    return waits
  }

  /** Writes outside of the writer's fiber. */
  readonly #writeDirectly: Write = (batch) => {
    try {
      return this.#write(batch)
    } catch (defect) {
      // An observer (`onWrite`) threw.
      this.#options.lifecycle.end({ _tag: "Defect", cause: Cause.die(defect) })
      return -1
    }
  }

  /**
   * Writing failed, but the messages that the remote sent before are still read and handled: usually the reader meets the same
   * end. Only a reader that has nothing to read for a second leaves the end to the writer.
   */
  #readToTheEnd(reason: EndReason): Effect.Effect<never, EndReason> {
    const { dispatcher, lifecycle, reader, sendQueue } = this.#options
    return Effect.gen(function* () {
      const holds = lifecycle.drain(reason)
      sendQueue.close(() => ended(holds))
      while (true) {
        const before = reader.batches
        yield* dispatcher.idle
        yield* Effect.sleep(writeFailureGrace)
        if (dispatcher.isIdle() && reader.batches === before) return yield* Effect.fail(holds)
      }
    })
  }
}
