/**
 * Streams of a peer's messages. Every subscriber gets every batch, and chooses what happens when it is not read fast enough.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type * as Wire from "../Wire.ts"
import { PeerError } from "../PeerError.ts"

/** The messages of one pull. Bounds count bytes, not messages. */
interface Batch {
  readonly messages: NonEmptyReadonlyArray<Wire.Message>
  readonly bytes: number
}

/**
 * How a subscriber is served when it does not keep up.
 *
 * @category options
 * @since 0.1.0
 */
export interface SubscribeOptions {
  /**
   * "suspend" (the default) stops the reader, and by back-pressure the remote; "dropOldest" drops the oldest messages; "fail"
   * ends this stream with `Overflow`.
   */
  readonly whenFull?: "suspend" | "dropOldest" | "fail" | undefined
  /**
   * Bytes held for this subscriber with "dropOldest" and "fail"; each message counts 256 bytes more than its size. 4 MiB by
   * default. "suspend" holds the messages of one pull.
   */
  readonly capacity?: number | undefined
}

export const defaultCapacity = 4 * 1024 * 1024

interface Subscriber {
  /** Hands a batch over; returns an Effect when that takes time. */
  readonly publish: (batch: Batch) => Effect.Effect<unknown> | undefined
  readonly end: () => void
}

export interface Subscribers {
  readonly publish: (messages: Batch["messages"], bytes: number) => Effect.Effect<void> | undefined
  readonly end: () => void
  readonly subscribe: (options?: SubscribeOptions) => Stream.Stream<Wire.Message, PeerError>
}

const suspending =
  (queue: Queue.Queue<Batch, PeerError | Cause.Done>): Subscriber["publish"] =>
  (batch) =>
    Queue.offerUnsafe(queue, batch) ? undefined : Queue.offer(queue, batch)

export const makeSubscribers = (): Subscribers => {
  const subscribers = new Set<Subscriber>()
  let ended = false

  const subscribe = ({ capacity = defaultCapacity, whenFull = "suspend" }: SubscribeOptions = {}) =>
    Stream.unwrap(
      Effect.gen(function* () {
        let held = 0
        const bounded =
          (queue: Queue.Queue<Batch, PeerError | Cause.Done>): Subscriber["publish"] =>
          (batch) => {
            while (held + batch.bytes > capacity && held > 0) {
              if (whenFull === "fail") return Queue.fail(queue, overflow(capacity))
              const oldest = Queue.takeUnsafe(queue)
              if (oldest?._tag !== "Success") break
              held -= oldest.value.bytes
            }
            held += batch.bytes
            Queue.offerUnsafe(queue, batch)
            return undefined
          }
        const queue = yield* whenFull === "suspend"
          ? Queue.bounded<Batch, PeerError | Cause.Done>(1)
          : Queue.unbounded<Batch, PeerError | Cause.Done>()
        const publish = whenFull === "suspend" ? suspending(queue) : bounded(queue)
        const subscriber: Subscriber = { publish, end: () => void Queue.endUnsafe(queue) }
        yield* Effect.acquireRelease(
          Effect.sync(() => {
            if (ended) Queue.endUnsafe(queue)
            else subscribers.add(subscriber)
          }),
          () =>
            Effect.sync(() => {
              subscribers.delete(subscriber)
              // This resumes a peer that waits for room.
              Queue.shutdownUnsafe(queue)
            })
        )
        return Stream.flattenArray(
          Stream.map(Stream.fromQueue(queue), ({ bytes, messages }) => {
            held -= bytes
            return messages
          })
        )
      })
    )

  return {
    publish: (messages, bytes) => {
      let waits: Array<Effect.Effect<unknown>> | undefined
      for (const subscriber of subscribers) {
        const effect = subscriber.publish({ messages, bytes })
        if (effect !== undefined) (waits ??= []).push(effect)
      }
      return waits === undefined ? undefined : Effect.all(waits, { discard: true })
    },
    end: () => {
      ended = true
      for (const subscriber of subscribers) subscriber.end()
    },
    subscribe
  }
}

const overflow = (capacity: number): PeerError => new PeerError({ reason: { _tag: "Overflow", capacity } })
