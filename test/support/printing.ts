/** Runs programs whose output a test reads line by line. */
import { Console, Effect, Fiber, Queue } from "effect"
import { format } from "node:util"

/** Runs an effect whose console is a queue. */
export const printing = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  const lines = yield* Queue.unbounded<string>()
  const current = yield* Console.Console
  const printer = {
    ...current,
    log: (...texts: ReadonlyArray<unknown>) => void Queue.offerUnsafe(lines, format(...texts))
  }
  const fiber = yield* Effect.provideService(effect, Console.Console, printer).pipe(Effect.forkScoped)
  // If the program fails, waiting for a line fails as well, so that the test does not hang.
  const ended = Effect.andThen(Fiber.join(fiber), Effect.never)
  return { fiber, line: Effect.raceFirst(Queue.take(lines), ended) }
})
