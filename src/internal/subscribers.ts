/**
 * Who reads a peer's messages as streams. The reader hands each batch to all of them; what happens when one does not keep
 * up is that one's choice.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import type * as Wire from "../Wire.ts"
import { PeerError } from "./peerError.ts"

type Batch = NonEmptyReadonlyArray<Wire.Message>

/** How a subscriber is served that does not keep up. */
export interface SubscribeOptions {
  /**
   * "suspend" (the default) stops the reader, and so the remote; "dropOldest" forgets the oldest messages; "fail" ends this
   * stream with `Overflow`.
   */
  readonly whenFull?: "suspend" | "dropOldest" | "fail" | undefined
  /** Messages held for this subscriber with "dropOldest" and "fail"; 1,000 by default. "suspend" holds one batch. */
  readonly capacity?: number | undefined
}

export const defaultCapacity = 1_000

interface Subscriber {
  /** Hands a batch over; an Effect when that takes time. */
  readonly publish: (batch: Batch) => Effect.Effect<unknown> | undefined
  readonly end: () => void
}

export interface Subscribers {
  readonly publish: (batch: Batch) => Effect.Effect<void> | undefined
  readonly end: () => void
  readonly subscribe: (options?: SubscribeOptions) => Stream.Stream<Wire.Message, PeerError>
}

export const makeSubscribers = (): Subscribers => {
  const subscribers = new Set<Subscriber>()
  let ended = false

  /** Registers with `make` for as long as the stream runs. */
  const whileRunning = <A, E>(
    make: Effect.Effect<Queue.Queue<A, E | Cause.Done>>,
    publish: (queue: Queue.Queue<A, E | Cause.Done>) => Subscriber["publish"]
  ) =>
    Effect.acquireRelease(
      Effect.flatMap(make, (queue) => {
        const subscriber: Subscriber = { publish: publish(queue), end: () => Queue.endUnsafe(queue) }
        return Effect.sync(() => {
          if (ended) Queue.endUnsafe(queue)
          else subscribers.add(subscriber)
          return { queue, subscriber }
        })
      }),
      ({ queue, subscriber }) =>
        Effect.sync(() => {
          subscribers.delete(subscriber)
          // A reader that waits for room goes on.
          Queue.shutdownUnsafe(queue)
        })
    )

  return {
    publish: (batch) => {
      let waits: Array<Effect.Effect<unknown>> | undefined
      for (const subscriber of subscribers) {
        const effect = subscriber.publish(batch)
        if (effect !== undefined) (waits ??= []).push(effect)
      }
      return waits === undefined ? undefined : Effect.all(waits, { discard: true })
    },
    end: () => {
      ended = true
      for (const subscriber of subscribers) subscriber.end()
    },
    subscribe: ({ capacity = defaultCapacity, whenFull = "suspend" } = {}) =>
      Stream.unwrap(
        Effect.gen(function* () {
          switch (whenFull) {
            case "suspend": {
              // A batch is what one pull brought: what is held is bounded by bytes, not by messages.
              const { queue } = yield* whileRunning(
                Queue.bounded<Batch, Cause.Done>(1),
                (queue) => (batch) => (Queue.offerUnsafe(queue, batch) ? undefined : Queue.offer(queue, batch))
              )
              return Stream.flattenArray(Stream.fromQueue(queue))
            }
            case "dropOldest": {
              const { queue } = yield* whileRunning(
                Queue.sliding<Wire.Message, Cause.Done>(capacity),
                (queue) => (batch) => {
                  for (const message of batch) Queue.offerUnsafe(queue, message)
                  return undefined
                }
              )
              return Stream.fromQueue(queue)
            }
            case "fail": {
              const { queue } = yield* whileRunning(
                Queue.dropping<Wire.Message, PeerError | Cause.Done>(capacity),
                (queue) => (batch) => {
                  for (const message of batch) {
                    if (!Queue.offerUnsafe(queue, message)) return Queue.fail(queue, overflow(capacity))
                  }
                  return undefined
                }
              )
              return Stream.fromQueue(queue)
            }
          }
        })
      )
  }
}

const overflow = (capacity: number): PeerError => new PeerError({ reason: { _tag: "Overflow", capacity } })
