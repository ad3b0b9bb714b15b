/** The compliance suite: the rules for every implementation of `Connection`. */
import { assert, describe, it } from "@effect/vitest"
import type { Duration, Scope } from "effect"
import { Effect, Exit, Fiber, Scope as Scopes } from "effect"
import { TestClock } from "effect/testing"
import type { Connection, ConnectionError } from "../../src/Connection.ts"
import { receiverCompliance } from "./receiverCompliance.ts"

type Service = Connection

/** Both ends of one connection, and an effect that breaks it. */
export interface Ends {
  readonly a: Service
  readonly b: Service
  /** Resets the connection from the remote side of `b`. */
  readonly resetB: Effect.Effect<void>
}

export interface Implementation {
  readonly make: (options: {
    readonly closeTimeout?: Duration.Input
  }) => Effect.Effect<Ends, ConnectionError, Scope.Scope>
  /** "virtual" runs under the TestClock, "real" with real sockets and time. */
  readonly time: "virtual" | "real"
  /** The bytes that one end holds until the next pull; undefined if the implementation cannot tell. */
  readonly heldBy?: (end: Service) => number
  /** More bytes than both ends and the buffers between them can hold. */
  readonly capacity: number
}

const chunk = 65_536

/** Bytes that depend on their offset in the stream. */
export const patterned = (length: number, from = 0): Uint8Array => {
  const bytes = new Uint8Array(length)
  for (let i = 0; i < length; i++) bytes[i] = ((from + i) * 31 + ((from + i) >>> 8)) & 0xff
  return bytes
}

/** Writes `total` bytes in chunks, and returns how many are not sent yet. */
export const fill = (connection: Service, total: number): number => {
  let waiting = 0
  for (let from = 0; from < total; from += chunk) {
    waiting = connection.write(patterned(Math.min(chunk, total - from), from))
  }
  return waiting
}

const joined = (pieces: ReadonlyArray<Uint8Array>): Uint8Array => Uint8Array.from(Buffer.concat(pieces))

/** Pulls exactly `length` bytes. */
export const pullBytes = Effect.fnUntraced(function* (connection: Service, length: number) {
  const pieces: Array<Uint8Array> = []
  let got = 0
  while (got < length) {
    const batch = yield* connection.pull
    assert.isAbove(batch.length, 0)
    for (const bytes of batch) {
      assert.isAbove(bytes.length, 0)
      pieces.push(bytes)
      got += bytes.length
    }
  }
  assert.strictEqual(got, length)
  return joined(pieces)
})

/** Pulls until the connection ends. */
export const pullToEnd = Effect.fnUntraced(function* (connection: Service) {
  const pieces: Array<Uint8Array> = []
  while (true) {
    const exit = yield* Effect.result(connection.pull)
    if (exit._tag === "Failure") return { bytes: joined(pieces), error: exit.failure }
    pieces.push(...exit.success)
  }
})

const assertSame = (actual: Uint8Array, expected: Uint8Array) => {
  assert.strictEqual(actual.length, expected.length)
  assert.strictEqual(Buffer.compare(actual, expected), 0, "the bytes differ")
}

/** Ten pauses of 5 ms. On a machine that stalls, one long pause could be a single turn of the event loop. */
export const quiet: Effect.Effect<void> = Effect.repeat(Effect.sleep(5), { times: 9 })

const forkNow = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

/** Registers the tests for one implementation. */
export const compliance = (name: string, implementation: Implementation): void => {
  const { make, time, capacity, heldBy } = implementation
  const test = time === "virtual" ? it.effect : it.live
  const passes = (millis: number) => (time === "virtual" ? TestClock.adjust(millis) : Effect.sleep(millis))
  /** Waits until all pending work that needs no further call is done. */
  const settle =
    time === "virtual"
      ? Effect.gen(function* () {
          for (let i = 0; i < 50; i++) yield* Effect.yieldNow
        })
      : quiet

  /** Writes until `drained` no longer succeeds; returns the number of bytes written. */
  const fillUp = Effect.fnUntraced(function* (end: Service) {
    let written = 0
    while (true) {
      while (end.write(patterned(chunk, written)) === 0) written += chunk
      written += chunk
      assert.isBelow(written, capacity, "the writer is never held back")
      const drained = yield* forkNow(end.drained)
      yield* settle
      const exit = drained.pollUnsafe()
      yield* Fiber.interrupt(drained)
      if (exit === undefined) return written
    }
  })

  receiverCompliance(name, { make, settle, test })

  describe(name, () => {
    test("bytes arrive in the order of the writes, for any sizes", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        const sizes = Array.from({ length: 300 }, (_, i) => 1 + ((i * 7919) % 1500))
        const total = sizes.reduce((sum, size) => sum + size, 0)
        const fiber = yield* forkNow(pullBytes(b, total))
        let from = 0
        for (const size of sizes) {
          a.write(patterned(size, from))
          from += size
          yield* a.drained
        }
        assertSame(yield* Fiber.join(fiber), patterned(total))
      }))

    test("one large write arrives completely, in several batches if needed", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        a.write(patterned(3_000_000))
        assertSame(yield* pullBytes(b, 3_000_000), patterned(3_000_000))
        yield* a.drained
      }))

    test("both directions at once do not disturb each other", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        fill(a, 1_000_000)
        fill(b, 1_000_000)
        const [fromB, fromA] = yield* Effect.all([pullBytes(a, 1_000_000), pullBytes(b, 1_000_000)], {
          concurrency: "unbounded"
        })
        assertSame(fromB, patterned(1_000_000))
        assertSame(fromA, patterned(1_000_000))
      }))

    test("an empty write writes nothing", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        a.write(new Uint8Array(0))
        a.write(Uint8Array.of(7))
        a.write(new Uint8Array(0))
        yield* a.close
        assertSame((yield* pullToEnd(b)).bytes, Uint8Array.of(7))
      }))

    test("drained succeeds when nothing is waiting to be sent", () =>
      Effect.gen(function* () {
        const { a } = yield* make({})
        yield* a.drained
        a.write(Uint8Array.of(1))
        yield* a.drained
        assert.strictEqual(a.write(new Uint8Array(0)), 0)
      }))

    test("after the remote's close, pull gives all bytes before it and then always fails with Closed", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        a.write(patterned(10_000))
        yield* a.close
        const { bytes, error } = yield* pullToEnd(b)
        assertSame(bytes, patterned(10_000))
        assert.strictEqual(error.reason._tag, "Closed")
        assert.strictEqual(yield* Effect.flip(b.pull), error)
        assert.strictEqual(yield* Effect.flip(b.drained), error)
      }))

    test("the remote's close fails a waiting pull", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        const fiber = yield* forkNow(Effect.flip(b.pull))
        yield* a.close
        assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "Closed")
      }))

    test("close sends all written bytes first", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({ closeTimeout: "20 seconds" })
        assert.isAbove(fill(a, capacity), 0)
        const closing = yield* forkNow(a.close)
        const { bytes, error } = yield* pullToEnd(b)
        assertSame(bytes, patterned(capacity))
        assert.strictEqual(error.reason._tag, "Closed")
        yield* Fiber.join(closing)
      }))

    test("after a reset, pull gives the bytes that had arrived and then always fails with Reset", () =>
      Effect.gen(function* () {
        const { a, b, resetB } = yield* make({})
        a.write(patterned(1000))
        yield* a.drained
        yield* settle
        yield* resetB
        const { bytes, error } = yield* pullToEnd(b)
        assertSame(bytes, patterned(1000))
        if (error.reason._tag !== "Reset") return assert.fail(error.message)
        assert.isDefined(error.reason.cause)
        assert.strictEqual(yield* Effect.flip(b.pull), error)
        assert.strictEqual(b.write(Uint8Array.of(1)), -1)
        assert.strictEqual(yield* Effect.flip(b.drained), error)
        yield* b.close
        assert.strictEqual(yield* Effect.flip(b.pull), error)
      }))

    test("a reset fails a waiting pull and a waiting drained", () =>
      Effect.gen(function* () {
        const { b, resetB } = yield* make({})
        yield* fillUp(b)
        const pull = yield* forkNow(Effect.flip(b.pull))
        const drained = yield* forkNow(Effect.flip(b.drained))
        yield* resetB
        assert.strictEqual((yield* Fiber.join(pull)).reason._tag, "Reset")
        assert.strictEqual((yield* Fiber.join(drained)).reason._tag, "Reset")
      }))

    for (const direction of ["a to b", "b to a"] as const) {
      test(`a reader that does not pull holds the writer back, with bounded memory (${direction})`, () =>
        Effect.gen(function* () {
          const { a, b } = yield* make({})
          const [writer, reader] = direction === "a to b" ? [a, b] : [b, a]
          const written = yield* fillUp(writer)
          if (heldBy !== undefined) assert.isAtMost(heldBy(reader), 262_144)
          const drained = yield* forkNow(writer.drained)
          assert.isUndefined(drained.pollUnsafe())
          assertSame(yield* pullBytes(reader, written), patterned(written))
          yield* Fiber.join(drained)
          assert.strictEqual(writer.write(new Uint8Array(0)), 0)
        }))
    }

    test("interrupting a pull loses no bytes", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        const pieces: Array<Uint8Array> = []
        for (let i = 0; i < 200; i++) {
          const fiber = yield* forkNow(b.pull)
          a.write(patterned(10, i * 10))
          if (i % 3 === 0) yield* Effect.yieldNow
          if (i % 20 === 0) yield* settle
          yield* Fiber.interrupt(fiber)
          const exit = yield* Fiber.await(fiber)
          if (Exit.isSuccess(exit)) pieces.push(...exit.value)
        }
        yield* a.close
        pieces.push((yield* pullToEnd(b)).bytes)
        assertSame(joined(pieces), patterned(2000))
      }))

    test("another pull can follow one that was interrupted while it waited", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        const first = yield* forkNow(b.pull)
        yield* settle
        yield* Fiber.interrupt(first)
        const second = yield* forkNow(b.pull)
        a.write(Uint8Array.of(1))
        assertSame(joined(yield* Fiber.join(second)), Uint8Array.of(1))
      }))

    test("a second concurrent pull dies and does not affect the first", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        const first = yield* forkNow(b.pull)
        const second = yield* Effect.exit(b.pull)
        assert.isTrue(Exit.hasDies(second))
        a.write(Uint8Array.of(1))
        assertSame(joined(yield* Fiber.join(first)), Uint8Array.of(1))
      }))

    test("interrupting drained does not stop the bytes from being sent", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        const written = yield* fillUp(a)
        const waiting = yield* forkNow(a.drained)
        yield* Fiber.interrupt(waiting)
        const again = yield* forkNow(a.drained)
        assertSame(yield* pullBytes(b, written), patterned(written))
        yield* Fiber.join(again)
      }))

    test("destroy drops unsent bytes at once, even if the remote never reads", () =>
      Effect.gen(function* () {
        const { a } = yield* make({})
        assert.isAbove(fill(a, 8_388_608), 0)
        const pull = yield* forkNow(Effect.flip(a.pull))
        const drained = yield* forkNow(Effect.flip(a.drained))
        yield* a.destroy
        assert.strictEqual((yield* Fiber.join(pull)).reason._tag, "Closed")
        assert.strictEqual((yield* Fiber.join(drained)).reason._tag, "Closed")
        assert.strictEqual((yield* Effect.flip(a.pull)).reason._tag, "Closed")
        assert.strictEqual((yield* Effect.flip(a.drained)).reason._tag, "Closed")
        yield* a.destroy
        yield* a.close
      }))

    test("the remote sees destroy as an end", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        const fiber = yield* forkNow(Effect.flip(b.pull))
        yield* a.destroy
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "ConnectionError")
      }))

    test("after our own close a waiting pull and all later ones fail with Closed, even if bytes had arrived", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        const waiting = yield* forkNow(Effect.flip(a.pull))
        yield* a.close
        assert.strictEqual((yield* Fiber.join(waiting)).reason._tag, "Closed")
        b.write(Uint8Array.of(1))
        yield* settle
        assert.strictEqual((yield* Effect.flip(a.pull)).reason._tag, "Closed")
      }))

    test("our own close discards received bytes that were not pulled", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        b.write(patterned(1000))
        yield* b.drained
        yield* settle
        yield* a.close
        assert.strictEqual((yield* Effect.flip(a.pull)).reason._tag, "Closed")
      }))

    test("writes after our own close or the remote's end are dropped and return 0", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        yield* a.close
        assert.strictEqual(a.write(patterned(100_000)), -1)
        assert.strictEqual((yield* Effect.flip(a.drained)).reason._tag, "Closed")
        assert.strictEqual((yield* Effect.flip(b.pull)).reason._tag, "Closed")
        assert.strictEqual(b.write(patterned(100_000)), -1)
        assert.strictEqual((yield* Effect.flip(b.drained)).reason._tag, "Closed")
      }))

    test("a second close does nothing, also after destroy", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        yield* a.close
        yield* a.close
        yield* a.destroy
        yield* b.destroy
        yield* b.close
      }))

    test("both ends can close at once, and neither waits for the timeout", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({ closeTimeout: "20 seconds" })
        fill(a, 1_000_000)
        fill(b, 1_000_000)
        yield* Effect.all([a.close, b.close, a.close], { concurrency: "unbounded" })
        assert.strictEqual((yield* Effect.flip(a.pull)).reason._tag, "Closed")
        assert.strictEqual((yield* Effect.flip(b.pull)).reason._tag, "Closed")
      }))

    test("close receives and discards the remote's remaining bytes, and then does not wait for the timeout", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({ closeTimeout: "20 seconds" })
        yield* fillUp(b)
        const drained = yield* forkNow(Effect.exit(b.drained))
        yield* a.close
        yield* Fiber.join(drained)
        assert.strictEqual((yield* Effect.flip(b.pull)).reason._tag, "Closed")
      }))

    test("drained succeeds only after all writes were sent", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        const total = 8_388_608
        assert.isAbove(fill(a, total), 0)
        const reading = yield* forkNow(pullBytes(b, total))
        yield* a.drained
        assert.strictEqual(a.write(new Uint8Array(0)), 0)
        yield* Fiber.join(reading)
      }))

    test("a closing end still receives the other end's bytes while its own cannot be sent", () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({ closeTimeout: "1 hour" })
        yield* fillUp(a)
        yield* fillUp(b)
        const closing = yield* forkNow(a.close)
        yield* b.drained
        assert.isUndefined(closing.pollUnsafe())
        yield* Fiber.interrupt(closing)
      }))

    test("close waits for a remote that never reads until the timeout and no longer, for every concurrent caller", () =>
      Effect.gen(function* () {
        const { a } = yield* make({ closeTimeout: 200 })
        assert.isAbove(fill(a, capacity), 0)
        const before = performance.now()
        const first = yield* forkNow(a.close)
        const second = yield* forkNow(a.close)
        yield* passes(time === "virtual" ? 199 : 100)
        // Holds unless the machine stalled for longer than that.
        if (time === "virtual" || performance.now() - before < 200) {
          assert.isUndefined(first.pollUnsafe())
          assert.isUndefined(second.pollUnsafe())
        }
        yield* passes(time === "virtual" ? 1 : 0)
        yield* Fiber.join(first)
        yield* Fiber.join(second)
        yield* a.close
      }))

    test("an interrupted close destroys", () =>
      Effect.gen(function* () {
        const { a } = yield* make({ closeTimeout: "1 hour" })
        assert.isAbove(fill(a, capacity), 0)
        const first = yield* forkNow(a.close)
        const second = yield* forkNow(a.close)
        yield* settle
        assert.isUndefined(second.pollUnsafe())
        yield* Fiber.interrupt(first)
        yield* Fiber.join(second)
        yield* a.close
      }))

    test("the end of the scope closes the connection", () =>
      Effect.gen(function* () {
        const scope = yield* Scopes.make()
        const { a, b } = yield* Scopes.provide(make({}), scope)
        yield* Scopes.close(scope, Exit.void)
        for (const end of [a, b]) {
          assert.strictEqual((yield* Effect.flip(end.pull)).reason._tag, "Closed")
          assert.strictEqual(end.write(Uint8Array.of(1)), -1)
        }
      }))

    test("the end of the scope does not wait for a remote that never reads", () =>
      Effect.gen(function* () {
        const scope = yield* Scopes.make()
        const { a } = yield* Scopes.provide(make({ closeTimeout: 100 }), scope)
        fill(a, capacity)
        const closing = yield* forkNow(Scopes.close(scope, Exit.void))
        yield* passes(100)
        yield* passes(100)
        yield* Fiber.join(closing)
        assert.strictEqual((yield* Effect.flip(a.pull)).reason._tag, "Closed")
      }))
  })
}
