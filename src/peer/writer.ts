/** The loop that writes: it takes what waits in the send queue, joins small frames, and waits while the remote takes nothing. */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type { EndReason, PeerError } from "../PeerError.ts"
import type { MessageConnection } from "../transport/messageConnection.ts"
import type { Message } from "../Wire.ts"
import type { Lifecycle } from "./lifecycle.ts"
import { ended, endOfConnection } from "./misbehavior.ts"
import type { Entry, SendQueue } from "./sendQueue.ts"
import type { Observer } from "./telemetry.ts"

// One write of small frames joined is 20 to 35 times faster than one by one; above some 64 KiB nothing more is won.
const maximumBatch = 256 * 1024
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

/** The entries from `from` on that are written together: one at least, and no more bytes than `maximumBatch`. */
const batchFrom = (entries: ReadonlyArray<Entry>, from: number): ReadonlyArray<Entry> => {
  let to = from
  let size = 0
  do size += entries[to++]!.outgoing.frame.length
  while (to < entries.length && size + entries[to]!.outgoing.frame.length <= maximumBatch)
  return from === 0 && to === entries.length ? entries : entries.slice(from, to)
}

export class Writer {
  readonly #options: WriterOptions

  constructor(options: WriterOptions) {
    this.#options = options
  }

  readonly loop: Effect.Effect<never, EndReason> = Effect.suspend(() => {
    const { link, observer, onBatch, onSend, sendQueue, timeout } = this.#options
    const drained = Effect.catch(link.connection.drained, (error) => this.#readToTheEnd(endOfConnection(error)))
    const drainedInTime = Effect.timeoutOrElse(drained, {
      duration: timeout,
      orElse: () => Effect.fail<EndReason>({ _tag: "WriteTimeout", after: timeout })
    })
    return Effect.gen(function* () {
      while (true) {
        const entries = yield* Queue.takeAll(sendQueue.entries)
        for (let from = 0; from < entries.length;) {
          const batch = batchFrom(entries, from)
          for (const { outgoing } of batch) onSend(outgoing.message)
          onBatch()
          if (observer.log !== undefined) {
            for (const { outgoing } of batch) yield* observer.log("sent", outgoing.message, outgoing.frame.length)
          }
          const waits = link.writeFrames(batch.map(({ outgoing }) => outgoing))
          observer.count()
          yield* waits === 0 ? drained : drainedInTime
          if (link.room !== undefined) yield* link.room
          sendQueue.release(batch)
          from += batch.length
        }
      }
    })
  })

  /**
   * Writing failed, but the messages that the remote sent before are still read and handled: usually the reader meets the same
   * end. Only a reader that has nothing to read for a second leaves the end to the writer.
   */
  #readToTheEnd(reason: EndReason): Effect.Effect<never, EndReason> {
    const { dispatcher, lifecycle, reader, sendQueue } = this.#options
    return Effect.gen(function* () {
      const holds = lifecycle.drain(reason)
      sendQueue.close(ended(holds))
      while (true) {
        const before = reader.batches
        yield* dispatcher.idle
        yield* Effect.sleep(writeFailureGrace)
        if (dispatcher.isIdle() && reader.batches === before) return yield* Effect.fail(holds)
      }
    })
  }
}
