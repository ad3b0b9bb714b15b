/** The send queue: its byte limit, the order of senders, and the answers to waiting senders. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Queue, Result } from "effect"
import { SendQueue } from "../src/peer/sendQueue.ts"
import type { Message } from "../src/Wire.ts"

/** A message with a frame of `length` bytes. */
const bytes = (length: number, command = "test"): Message => ({
  _tag: "Unknown",
  command,
  payload: new Uint8Array(length)
})

/** Frames are payloads. `encoded` sees the commands in the order in which they are encoded; "bad" and "defect" fail. */
const makeQueue = (limit: number, encoded: Array<string> = []) => {
  const queue = new SendQueue<string>(limit, (message) => {
    if (message._tag !== "Unknown") return Result.fail("unexpected")
    if (message.command === "bad") return Result.fail("bad")
    if (message.command === "defect") throw new Error("not a message")
    encoded.push(message.command)
    return Result.succeed({ message, frame: message.payload })
  })
  return Effect.as(queue.open, queue)
}

const fork = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

describe("SendQueue", () => {
  it.effect("accepts messages while it holds fewer bytes than the limit, then suspends the sender", () =>
    Effect.gen(function* () {
      const queue = yield* makeQueue(100)
      yield* queue.offer(bytes(99))
      yield* queue.offer(bytes(1000))
      assert.strictEqual(queue.bytes, 1099)
      const third = yield* fork(queue.offer(bytes(1)))
      assert.isUndefined(third.pollUnsafe())
      assert.strictEqual(queue.length, 2)
      queue.release(yield* Queue.takeAll(queue.entries))
      yield* Fiber.join(third)
      assert.strictEqual(queue.bytes, 1)
    })
  )

  it.effect("holds at most one message above the limit, however many senders wait", () =>
    Effect.gen(function* () {
      const queue = yield* makeQueue(100)
      const senders = yield* Effect.forEach(Array.from({ length: 50 }), () => fork(queue.offer(bytes(80))))
      assert.strictEqual(queue.bytes, 160)
      while (queue.length > 0) {
        assert.isAtMost(queue.bytes, 180)
        queue.release(yield* Queue.takeAll(queue.entries))
      }
      yield* Fiber.joinAll(senders)
    })
  )

  it.effect("accepts suspended senders in the order of their calls", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const queue = yield* makeQueue(1, order)
      const send = (command: string) => queue.offer(bytes(10, command))
      yield* send("0")
      const senders = yield* Effect.forEach(["1", "2", "3"], (command) => fork(send(command)))
      while (queue.length > 0) queue.release(yield* Queue.takeAll(queue.entries))
      yield* Fiber.joinAll(senders)
      assert.deepStrictEqual(order, ["0", "1", "2", "3"])
    })
  )

  it.effect("accepts suspended senders before a sender that calls again after its message was written", () =>
    Effect.gen(function* () {
      const order: Array<string> = []
      const queue = yield* makeQueue(1, order)
      const written = yield* fork(
        Effect.andThen(queue.offerAndWait(bytes(10, "first")), queue.offer(bytes(10, "third")))
      )
      const waiting = yield* fork(queue.offer(bytes(10, "second")))
      while (queue.length > 0) queue.release(yield* Queue.takeAll(queue.entries))
      yield* Fiber.joinAll([written, waiting])
      assert.deepStrictEqual(order, ["first", "second", "third"])
    })
  )

  it.effect("completes offerAndWait when the message has been written, not before", () =>
    Effect.gen(function* () {
      const queue = yield* makeQueue(100)
      const waiting = yield* fork(queue.offerAndWait(bytes(10)))
      const entries = yield* Queue.takeAll(queue.entries)
      assert.isUndefined(waiting.pollUnsafe())
      queue.release(entries)
      yield* Fiber.join(waiting)
    })
  )

  it.effect("fails all waiting and all later senders when it is closed", () =>
    Effect.gen(function* () {
      const queue = yield* makeQueue(10)
      const forWritten = yield* fork(queue.offerAndWait(bytes(10)))
      const forRoom = yield* fork(queue.offer(bytes(10)))
      const forBoth = yield* fork(queue.offerAndWait(bytes(10)))
      queue.close(() => "gone")
      for (const fiber of [forWritten, forRoom, forBoth]) {
        assert.deepStrictEqual(yield* Fiber.await(fiber), Exit.fail("gone"))
      }
      assert.strictEqual(yield* Effect.flip(queue.offer(bytes(1))), "gone")
      assert.strictEqual(yield* Effect.flip(queue.offerAndWait(bytes(1))), "gone")
    })
  )

  it.effect("drops the message of a sender that is interrupted while it is suspended", () =>
    Effect.gen(function* () {
      const queue = yield* makeQueue(10)
      yield* queue.offer(bytes(10))
      const waiting = yield* fork(queue.offer(bytes(99)))
      yield* Fiber.interrupt(waiting)
      queue.release(yield* Queue.takeAll(queue.entries))
      assert.strictEqual(queue.bytes, 0)
    })
  )

  it.effect("fails only the sender of a message that cannot be encoded, suspended or not", () =>
    Effect.gen(function* () {
      const queue = yield* makeQueue(10)
      assert.strictEqual(yield* Effect.flip(queue.offer(bytes(1, "bad"))), "bad")
      yield* queue.offer(bytes(10))
      const bad = yield* fork(queue.offer(bytes(1, "bad")))
      const defect = yield* fork(queue.offer(bytes(1, "defect")))
      const good = yield* fork(queue.offer(bytes(5)))
      queue.release(yield* Queue.takeAll(queue.entries))
      assert.strictEqual(yield* Effect.flip(Fiber.join(bad)), "bad")
      assert.isTrue(Exit.hasDies(yield* Fiber.await(defect)))
      yield* Fiber.join(good)
      assert.strictEqual(queue.bytes, 5)
    })
  )

  it.effect("fails the senders in line when one that was just accepted closes the queue", () =>
    Effect.gen(function* () {
      const queue = yield* makeQueue(10)
      yield* queue.offer(bytes(20))
      const closing = yield* fork(
        Effect.andThen(
          queue.offer(bytes(5)),
          Effect.sync(() => queue.close(() => "closed"))
        )
      )
      const waiting = yield* fork(queue.offer(bytes(5)))
      queue.release(yield* Queue.takeAll(queue.entries))
      assert.deepStrictEqual(yield* Fiber.await(waiting), Exit.fail("closed"))
      yield* Fiber.join(closing)
    })
  )

  it.effect("writes the messages of one turn of the event loop together, at its end", () =>
    Effect.gen(function* () {
      const queue = yield* makeQueue(100)
      const writes: Array<number> = []
      queue.writeDirectly((batch) => {
        writes.push(batch.length)
        return 0
      })
      yield* queue.offer(bytes(10))
      yield* queue.offer(bytes(20))
      assert.deepStrictEqual(writes, [])
      const written = yield* fork(queue.offerAndWait(bytes(30)))
      yield* Effect.promise(() => Promise.resolve())
      assert.deepStrictEqual(writes, [3])
      assert.strictEqual(queue.bytes, 0)
      yield* Fiber.join(written)
    })
  )

  it.effect("leaves the messages to the writer when the connection does not take all, in their order", () =>
    Effect.gen(function* () {
      const queue = yield* makeQueue(100)
      queue.writeDirectly(() => 7)
      yield* queue.offer(bytes(10))
      yield* Effect.promise(() => Promise.resolve())
      yield* queue.offer(bytes(20))
      const entries = yield* Queue.takeAll(queue.entries)
      assert.deepStrictEqual(
        entries.map(({ isWritten, outgoing }) => [isWritten, outgoing.frame.length]),
        [
          [true, 10],
          [false, 20]
        ]
      )
      assert.strictEqual(queue.bytes, 30)
    })
  )

  it.effect("drops the messages of a turn when it is closed before the end of the turn", () =>
    Effect.gen(function* () {
      const queue = yield* makeQueue(100)
      let writes = 0
      queue.writeDirectly(() => {
        writes++
        return 0
      })
      const written = yield* fork(queue.offerAndWait(bytes(10)))
      queue.close(() => "gone")
      yield* Effect.promise(() => Promise.resolve())
      assert.strictEqual(writes, 0)
      assert.deepStrictEqual(yield* Fiber.await(written), Exit.fail("gone"))
    })
  )
})
