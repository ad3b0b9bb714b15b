/** The rules of `Connection.receive`. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scopes from "effect/Scope"
import type { Connection } from "../../Connection.ts"
import type { ConnectionError } from "../../ConnectionError.ts"
import { makeRule, type Rule, type Setup } from "./compliance.ts"
import { atMost, holds, same, sameBytes, throws } from "./rule.ts"

/** Receives until `takesNext` says no. `until(length)` waits for that many bytes. */
const receiving = (connection: Connection, takesNext: (length: number) => boolean = () => true) => {
  const bytes: Array<number> = []
  const ended = Deferred.makeUnsafe<ConnectionError>()
  const waiting: Array<readonly [number, Deferred.Deferred<void>]> = []
  const stop = connection.receive!({
    onBytes: (batch) => {
      for (const piece of batch) bytes.push(...piece)
      for (const [length, deferred] of waiting) {
        if (bytes.length >= length) Deferred.doneUnsafe(deferred, Exit.void)
      }
      return takesNext(bytes.length)
    },
    onEnd: (error) => void Deferred.doneUnsafe(ended, Exit.succeed(error))
  })
  const until = (length: number): Effect.Effect<void> => {
    const deferred = Deferred.makeUnsafe<void>()
    waiting.push([length, deferred])
    return bytes.length >= length ? Effect.void : Deferred.await(deferred)
  }
  return { bytes, stop, until, ended: Deferred.await(ended) }
}

const pulled = (connection: Connection) => Effect.map(connection.pull, (batch) => batch.flatMap((piece) => [...piece]))

export const receiverRules = ({ make, settle }: Setup): ReadonlyArray<Rule> => {
  const rules: Array<Rule> = []
  const rule = (name: string, test: () => Effect.Effect<void, unknown, Scopes.Scope>): void => {
    rules.push(makeRule(`a receiver ${name}`, test))
  }

  rule("gets the bytes that are held, those that follow, and then the end", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      a.write(Uint8Array.of(1, 2))
      yield* settle
      const { bytes, ended, until } = receiving(b)
      yield* until(2)
      a.write(Uint8Array.of(3))
      yield* until(3)
      a.write(Uint8Array.of(4))
      yield* a.close
      same((yield* ended).reason._tag, "Closed")
      sameBytes(bytes, [1, 2, 3, 4])
    })
  )

  rule("that returns false gets no more; the next reader gets the rest", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      const first = receiving(b, () => false)
      a.write(Uint8Array.of(1))
      yield* first.until(1)
      a.write(Uint8Array.of(2))
      yield* settle
      sameBytes(first.bytes, [1])
      sameBytes(yield* pulled(b), [2])
      const second = receiving(b)
      a.write(Uint8Array.of(3))
      yield* second.until(1)
      sameBytes(first.bytes, [1])
      sameBytes(second.bytes, [3])
    })
  )

  rule("that is stopped gets neither bytes nor the end, also where its own call stops it", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      const outside = receiving(b)
      outside.stop()
      a.write(Uint8Array.of(1))
      yield* settle
      let stop: (() => void) | undefined
      const inside = receiving(b, () => {
        stop?.()
        return true
      })
      stop = inside.stop
      yield* inside.until(1)
      a.write(Uint8Array.of(2))
      yield* inside.until(2)
      a.write(Uint8Array.of(3))
      yield* settle
      sameBytes(outside.bytes, [])
      sameBytes(inside.bytes, [1, 2])
      sameBytes(yield* pulled(b), [3])
    })
  )

  rule("is not called inside of its own call, also where it writes and is answered", () =>
    Effect.gen(function* () {
      const { a, b } = yield* make({})
      let depth = 0
      let deepest = 0
      const answering = (connection: Connection, rounds: number) =>
        receiving(connection, (length) => {
          deepest = Math.max(deepest, ++depth)
          if (length < rounds) connection.write(Uint8Array.of(length))
          depth--
          return true
        })
      const left = answering(a, 50)
      answering(b, 50)
      a.write(Uint8Array.of(0))
      yield* left.until(49)
      // One call for each side.
      atMost(deepest, 2)
    })
  )

  rule("may be the only reader", () =>
    Effect.gen(function* () {
      const { b } = yield* make({})
      receiving(b)
      holds(throws(() => void receiving(b)))
      holds(Exit.hasDies(yield* Effect.exit(b.pull)))
    })
  )

  return rules
}
