import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Queue, Result } from "effect"
import type { Outgoing } from "../src/transport/messageConnection.ts"
import { makeOutbox } from "../src/peer/sendQueue.ts"

const bytes =
  (size: number): (() => Result.Result<Outgoing, string>) =>
  () =>
    Result.succeed({ message: { _tag: "verack" }, frame: new Uint8Array(size) })

const fork = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })

describe("outbox", () => {
  it.effect("lets in while less than the limit waits, then suspends", () =>
    Effect.gen(function* () {
      const outbox = yield* makeOutbox<string>(100)
      yield* outbox.offer(bytes(99))
      yield* outbox.offer(bytes(1000))
      assert.strictEqual(outbox.bytes(), 1099)
      const third = yield* fork(outbox.offer(bytes(1)))
      assert.isUndefined(third.pollUnsafe())
      assert.strictEqual(outbox.length(), 2)
      outbox.release(yield* Queue.takeAll(outbox.queue))
      yield* Fiber.join(third)
      assert.strictEqual(outbox.bytes(), 1)
    })
  )

  it.effect("lets in no more than one message above the limit, however many wait", () =>
    Effect.gen(function* () {
      const outbox = yield* makeOutbox<string>(100)
      const senders = yield* Effect.forEach(Array.from({ length: 50 }), () => fork(outbox.offer(bytes(80))))
      assert.strictEqual(outbox.bytes(), 160)
      while (outbox.length() > 0) {
        assert.isAtMost(outbox.bytes(), 180)
        outbox.release(yield* Queue.takeAll(outbox.queue))
      }
      yield* Fiber.joinAll(senders)
    })
  )

  it.effect("keeps the order in which senders came, also when there is room again", () =>
    Effect.gen(function* () {
      const outbox = yield* makeOutbox<string>(1)
      const order: Array<number> = []
      const send = (id: number) =>
        outbox.offer(() => {
          order.push(id)
          return bytes(10)()
        })
      yield* send(0)
      const senders = yield* Effect.forEach([1, 2, 3], (id) => fork(send(id)))
      while (outbox.length() > 0) outbox.release(yield* Queue.takeAll(outbox.queue))
      yield* Fiber.joinAll(senders)
      assert.deepStrictEqual(order, [0, 1, 2, 3])
    })
  )

  it.effect(
    "lets nobody in before those who wait in line, not even who is just told that his message was written",
    () =>
      Effect.gen(function* () {
        const outbox = yield* makeOutbox<string>(1)
        const order: Array<string> = []
        const encoding = (id: string) => () => {
          order.push(id)
          return bytes(10)()
        }
        const told = yield* fork(
          Effect.andThen(outbox.offerAndWait(encoding("first")), outbox.offer(encoding("third")))
        )
        const waiting = yield* fork(outbox.offer(encoding("second")))
        while (outbox.length() > 0) outbox.release(yield* Queue.takeAll(outbox.queue))
        yield* Fiber.joinAll([told, waiting])
        assert.deepStrictEqual(order, ["first", "second", "third"])
      })
  )

  it.effect("tells a waiting sender that its message was written only when it was released", () =>
    Effect.gen(function* () {
      const outbox = yield* makeOutbox<string>(100)
      const waiting = yield* fork(outbox.offerAndWait(bytes(10)))
      const entries = yield* Queue.takeAll(outbox.queue)
      assert.isUndefined(waiting.pollUnsafe())
      outbox.release(entries)
      yield* Fiber.join(waiting)
    })
  )

  it.effect("answers everyone who waits, and everyone who comes later, when it is closed", () =>
    Effect.gen(function* () {
      const outbox = yield* makeOutbox<string>(10)
      const forWritten = yield* fork(outbox.offerAndWait(bytes(10)))
      const forRoom = yield* fork(outbox.offer(bytes(10)))
      const forBoth = yield* fork(outbox.offerAndWait(bytes(10)))
      outbox.close("gone")
      for (const fiber of [forWritten, forRoom, forBoth]) {
        assert.deepStrictEqual(yield* Fiber.await(fiber), Exit.fail("gone"))
      }
      assert.strictEqual(yield* Effect.flip(outbox.offer(bytes(1))), "gone")
      assert.strictEqual(yield* Effect.flip(outbox.offerAndWait(bytes(1))), "gone")
    })
  )

  it.effect("withdraws the message of a sender that is interrupted while it waits for room", () =>
    Effect.gen(function* () {
      const outbox = yield* makeOutbox<string>(10)
      yield* outbox.offer(bytes(10))
      const waiting = yield* fork(outbox.offer(bytes(99)))
      yield* Fiber.interrupt(waiting)
      outbox.release(yield* Queue.takeAll(outbox.queue))
      assert.strictEqual(outbox.bytes(), 0)
    })
  )

  it.effect("gives a message that cannot be encoded back to its sender alone, at once or after a wait", () =>
    Effect.gen(function* () {
      const outbox = yield* makeOutbox<string>(10)
      assert.strictEqual(yield* Effect.flip(outbox.offer(() => Result.fail("bad"))), "bad")
      yield* outbox.offer(bytes(10))
      const bad = yield* fork(outbox.offer(() => Result.fail("bad")))
      const defect = yield* fork(
        outbox.offer(() => {
          throw new Error("not a message")
        })
      )
      const good = yield* fork(outbox.offer(bytes(5)))
      outbox.release(yield* Queue.takeAll(outbox.queue))
      assert.strictEqual(yield* Effect.flip(Fiber.join(bad)), "bad")
      assert.isTrue(Exit.hasDies(yield* Fiber.await(defect)))
      yield* Fiber.join(good)
      assert.strictEqual(outbox.bytes(), 5)
    })
  )
})
