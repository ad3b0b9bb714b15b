/** The rules of `Connection` that need no `receive`. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scopes from "effect/Scope"
import type { Connection } from "../../Connection.ts"
import { makeRule, type Rule, type Setup } from "./compliance.ts"
import { above, atMost, fail, holds, same, sameBytes } from "./rule.ts"
import { fill, joined, patterned, pullBytes, pullToEnd } from "./streams.ts"

const chunk = 65_536

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

export const connectionRules = ({ capacity, heldBy, make, passes, settle, time }: Setup): ReadonlyArray<Rule> => {
  const rules: Array<Rule> = []
  const rule = (name: string, test: () => Effect.Effect<void, unknown, Scopes.Scope>): void => {
    rules.push(makeRule(name, test))
  }

  /** Writes until `drained` no longer succeeds; returns the number of bytes written. */
  const fillUp = Effect.fnUntraced(function* (end: Connection) {
    let written = 0
    while (true) {
      while (end.write(patterned(chunk, written)) === 0) written += chunk
      written += chunk
      holds(written < capacity, "the writer is never held back")
      const drained = yield* fork(end.drained)
      yield* settle
      const exit = drained.pollUnsafe()
      yield* Fiber.interrupt(drained)
      if (exit === undefined) return written
    }
  })

  rule("bytes arrive in the order of the writes, for any sizes", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      const sizes = Array.from({ length: 300 }, (_, i) => 1 + ((i * 7919) % 1500))
      const total = sizes.reduce((sum, size) => sum + size, 0)
      const fiber = yield* fork(pullBytes(b, total))
      let from = 0
      for (const size of sizes) {
        a.write(patterned(size, from))
        from += size
        yield* a.drained
      }
      sameBytes(yield* Fiber.join(fiber), patterned(total))
    })
  )

  rule("one large write arrives completely, in several batches if needed", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      a.write(patterned(3_000_000))
      sameBytes(yield* pullBytes(b, 3_000_000), patterned(3_000_000))
      yield* a.drained
    })
  )

  rule("both directions at once do not disturb each other", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      fill(a, 1_000_000)
      fill(b, 1_000_000)
      const [fromB, fromA] = yield* Effect.all([pullBytes(a, 1_000_000), pullBytes(b, 1_000_000)], {
        concurrency: "unbounded"
      })
      sameBytes(fromB, patterned(1_000_000))
      sameBytes(fromA, patterned(1_000_000))
    })
  )

  rule("an empty write writes nothing", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      a.write(new Uint8Array(0))
      a.write(Uint8Array.of(7))
      a.write(new Uint8Array(0))
      yield* a.close
      sameBytes((yield* pullToEnd(b)).bytes, Uint8Array.of(7))
    })
  )

  rule("drained succeeds when nothing is waiting to be sent", () =>
    Effect.gen(function* () {
      const { a } = yield* make({})
      yield* a.drained
      a.write(Uint8Array.of(1))
      yield* a.drained
      same(a.write(new Uint8Array(0)), 0)
    })
  )

  rule("after the remote's close, pull gives all bytes before it and then always fails with Closed", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      a.write(patterned(10_000))
      yield* a.close
      const { bytes, error } = yield* pullToEnd(b)
      sameBytes(bytes, patterned(10_000))
      same(error.reason._tag, "Closed")
      same(yield* Effect.flip(b.pull), error)
      same(yield* Effect.flip(b.drained), error)
    })
  )

  rule("the remote's close fails a waiting pull", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      const fiber = yield* fork(Effect.flip(b.pull))
      yield* a.close
      same((yield* Fiber.join(fiber)).reason._tag, "Closed")
    })
  )

  rule("close sends all written bytes first", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({ closeTimeout: "20 seconds" })
      above(fill(a, capacity), 0)
      const closing = yield* fork(a.close)
      const { bytes, error } = yield* pullToEnd(b)
      sameBytes(bytes, patterned(capacity))
      same(error.reason._tag, "Closed")
      yield* Fiber.join(closing)
    })
  )

  rule("after a reset, pull gives the bytes that had arrived and then always fails with Reset", () =>
    Effect.gen(function* () {
      const { a, b, resetB } = yield* make({})
      a.write(patterned(1000))
      yield* a.drained
      yield* settle
      yield* resetB
      const { bytes, error } = yield* pullToEnd(b)
      sameBytes(bytes, patterned(1000))
      if (error.reason._tag !== "Reset") return fail(error.message)
      holds(error.reason.cause !== undefined)
      same(yield* Effect.flip(b.pull), error)
      same(b.write(Uint8Array.of(1)), -1)
      same(yield* Effect.flip(b.drained), error)
      yield* b.close
      same(yield* Effect.flip(b.pull), error)
    })
  )

  rule("a reset fails a waiting pull and a waiting drained", () =>
    Effect.gen(function* () {
      const { b, resetB } = yield* make({})
      yield* fillUp(b)
      const pull = yield* fork(Effect.flip(b.pull))
      const drained = yield* fork(Effect.flip(b.drained))
      yield* resetB
      same((yield* Fiber.join(pull)).reason._tag, "Reset")
      same((yield* Fiber.join(drained)).reason._tag, "Reset")
    })
  )

  for (const direction of ["a to b", "b to a"] as const) {
    rule(`a reader that does not pull holds the writer back, with bounded memory (${direction})`, () =>
      Effect.gen(function* () {
        const { a, b } = yield* make({})
        const [writer, reader] = direction === "a to b" ? [a, b] : [b, a]
        const written = yield* fillUp(writer)
        if (heldBy !== undefined) atMost(heldBy(reader), 262_144)
        const drained = yield* fork(writer.drained)
        same(drained.pollUnsafe(), undefined)
        sameBytes(yield* pullBytes(reader, written), patterned(written))
        yield* Fiber.join(drained)
        same(writer.write(new Uint8Array(0)), 0)
      })
    )
  }

  rule("interrupting a pull loses no bytes", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      const pieces: Array<Uint8Array> = []
      for (let i = 0; i < 200; i++) {
        const fiber = yield* fork(b.pull)
        a.write(patterned(10, i * 10))
        if (i % 3 === 0) yield* Effect.yieldNow
        if (i % 20 === 0) yield* settle
        yield* Fiber.interrupt(fiber)
        const exit = yield* Fiber.await(fiber)
        if (Exit.isSuccess(exit)) pieces.push(...exit.value)
      }
      yield* a.close
      pieces.push((yield* pullToEnd(b)).bytes)
      sameBytes(joined(pieces), patterned(2000))
    })
  )

  rule("another pull can follow one that was interrupted while it waited", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      const first = yield* fork(b.pull)
      yield* settle
      yield* Fiber.interrupt(first)
      const second = yield* fork(b.pull)
      a.write(Uint8Array.of(1))
      sameBytes(joined(yield* Fiber.join(second)), Uint8Array.of(1))
    })
  )

  rule("a second concurrent pull dies and does not affect the first", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      const first = yield* fork(b.pull)
      const second = yield* Effect.exit(b.pull)
      holds(Exit.hasDies(second))
      a.write(Uint8Array.of(1))
      sameBytes(joined(yield* Fiber.join(first)), Uint8Array.of(1))
    })
  )

  rule("interrupting drained does not stop the bytes from being sent", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      const written = yield* fillUp(a)
      const waiting = yield* fork(a.drained)
      yield* Fiber.interrupt(waiting)
      const again = yield* fork(a.drained)
      sameBytes(yield* pullBytes(b, written), patterned(written))
      yield* Fiber.join(again)
    })
  )

  rule("destroy drops unsent bytes at once, even if the remote never reads", () =>
    Effect.gen(function* () {
      const { a } = yield* make({})
      above(fill(a, 8_388_608), 0)
      const pull = yield* fork(Effect.flip(a.pull))
      const drained = yield* fork(Effect.flip(a.drained))
      yield* a.destroy
      same((yield* Fiber.join(pull)).reason._tag, "Closed")
      same((yield* Fiber.join(drained)).reason._tag, "Closed")
      same((yield* Effect.flip(a.pull)).reason._tag, "Closed")
      same((yield* Effect.flip(a.drained)).reason._tag, "Closed")
      yield* a.destroy
      yield* a.close
    })
  )

  rule("the remote sees destroy as an end", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      const fiber = yield* fork(Effect.flip(b.pull))
      yield* a.destroy
      same((yield* Fiber.join(fiber))._tag, "ConnectionError")
    })
  )

  rule("after our own close a waiting pull and all later ones fail with Closed, even if bytes had arrived", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      const waiting = yield* fork(Effect.flip(a.pull))
      yield* a.close
      same((yield* Fiber.join(waiting)).reason._tag, "Closed")
      b.write(Uint8Array.of(1))
      yield* settle
      same((yield* Effect.flip(a.pull)).reason._tag, "Closed")
    })
  )

  rule("our own close discards received bytes that were not pulled", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      b.write(patterned(1000))
      yield* b.drained
      yield* settle
      yield* a.close
      same((yield* Effect.flip(a.pull)).reason._tag, "Closed")
    })
  )

  rule("writes after our own close or the remote's end are dropped and return -1", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      yield* a.close
      same(a.write(patterned(100_000)), -1)
      same((yield* Effect.flip(a.drained)).reason._tag, "Closed")
      same((yield* Effect.flip(b.pull)).reason._tag, "Closed")
      same(b.write(patterned(100_000)), -1)
      same((yield* Effect.flip(b.drained)).reason._tag, "Closed")
    })
  )

  rule("a second close does nothing, also after destroy", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      yield* a.close
      yield* a.close
      yield* a.destroy
      yield* b.destroy
      yield* b.close
    })
  )

  rule("both ends can close at once, and neither waits for the timeout", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({ closeTimeout: "20 seconds" })
      fill(a, 1_000_000)
      fill(b, 1_000_000)
      yield* Effect.all([a.close, b.close, a.close], { concurrency: "unbounded" })
      same((yield* Effect.flip(a.pull)).reason._tag, "Closed")
      same((yield* Effect.flip(b.pull)).reason._tag, "Closed")
    })
  )

  rule("close receives and discards the remote's remaining bytes, and then does not wait for the timeout", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({ closeTimeout: "20 seconds" })
      yield* fillUp(b)
      const drained = yield* fork(Effect.exit(b.drained))
      yield* a.close
      yield* Fiber.join(drained)
      same((yield* Effect.flip(b.pull)).reason._tag, "Closed")
    })
  )

  rule("drained succeeds only after all writes were sent", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      const total = 8_388_608
      above(fill(a, total), 0)
      const reading = yield* fork(pullBytes(b, total))
      yield* a.drained
      same(a.write(new Uint8Array(0)), 0)
      yield* Fiber.join(reading)
    })
  )

  rule("a closing end still receives the other end's bytes while its own cannot be sent", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({ closeTimeout: "1 hour" })
      yield* fillUp(a)
      yield* fillUp(b)
      const closing = yield* fork(a.close)
      yield* b.drained
      same(closing.pollUnsafe(), undefined)
      yield* Fiber.interrupt(closing)
    })
  )

  rule("close waits for a remote that never reads until the timeout and no longer, for every concurrent caller", () =>
    Effect.gen(function* () {
      const { a } = yield* make({ closeTimeout: 200 })
      above(fill(a, capacity), 0)
      const before = yield* Clock.currentTimeMillis
      const first = yield* fork(a.close)
      const second = yield* fork(a.close)
      yield* passes(time === "virtual" ? 199 : 100)
      // Holds unless the machine stalled for longer than that.
      if (time === "virtual" || (yield* Clock.currentTimeMillis) - before < 200) {
        same(first.pollUnsafe(), undefined)
        same(second.pollUnsafe(), undefined)
      }
      yield* passes(time === "virtual" ? 1 : 0)
      yield* Fiber.join(first)
      yield* Fiber.join(second)
      yield* a.close
    })
  )

  rule("an interrupted close destroys", () =>
    Effect.gen(function* () {
      const { a } = yield* make({ closeTimeout: "1 hour" })
      above(fill(a, capacity), 0)
      const first = yield* fork(a.close)
      const second = yield* fork(a.close)
      yield* settle
      same(second.pollUnsafe(), undefined)
      yield* Fiber.interrupt(first)
      yield* Fiber.join(second)
      yield* a.close
    })
  )

  rule("the end of the scope closes the connection", () =>
    Effect.gen(function* () {
      const scope = yield* Scopes.make()
      const { a, b } = yield* Scopes.provide(make({}), scope)
      yield* Scopes.close(scope, Exit.void)
      for (const end of [a, b]) {
        same((yield* Effect.flip(end.pull)).reason._tag, "Closed")
        same(end.write(Uint8Array.of(1)), -1)
      }
    })
  )

  rule("the end of the scope does not wait for a remote that never reads", () =>
    Effect.gen(function* () {
      const scope = yield* Scopes.make()
      const { a } = yield* Scopes.provide(make({ closeTimeout: 100 }), scope)
      fill(a, capacity)
      const closing = yield* fork(Scopes.close(scope, Exit.void))
      yield* passes(100)
      yield* passes(100)
      yield* Fiber.join(closing)
      same((yield* Effect.flip(a.pull)).reason._tag, "Closed")
    })
  )

  return rules
}
