/**
 * The contract of `Connection` as a suite for its implementers: named effects, for any test runner. Each makes a connection, uses both of its
 * ends, and dies with `NotCompliant` if a rule does not hold.
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import type { Connection } from "../Connection.ts"
import type { ConnectionError } from "../ConnectionError.ts"
import { connectionRules } from "./internal/connectionRules.ts"
import { receiverRules } from "./internal/receiverRules.ts"

export { NotCompliant } from "./internal/rule.ts"
export { fill, patterned, pullBytes, pullToEnd } from "./internal/streams.ts"

/**
 * Both ends of one connection, and an effect that breaks it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ends {
  readonly a: Connection
  readonly b: Connection
  /** Resets the connection from the side of `a`, so that `b` sees it. */
  readonly resetB: Effect.Effect<void>
}

/**
 * An implementation of `Connection`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Implementation {
  /** Makes two ends whose `close` waits so long for the other one; as long as the implementation likes if that is left out. */
  readonly make: (options: {
    readonly closeTimeout?: Duration.Input
  }) => Effect.Effect<Ends, ConnectionError, Scope.Scope>
  /**
   * "virtual": bytes arrive without the Clock, and the tests run under a `TestClock` or a `VirtualClock`. "real": over sockets, in real
   * time.
   */
  readonly time: "virtual" | "real"
  /** More bytes than both ends and the buffers between them can hold. */
  readonly capacity: number
  /** The number of bytes that one end holds until the next pull; undefined if the implementation cannot tell. */
  readonly heldBy?: ((end: Connection) => number) | undefined
  /** Whether its connections have `receive`; true by default. */
  readonly receives?: boolean | undefined
}

/**
 * A test of the suite.
 *
 * @category models
 * @since 0.1.0
 */
export interface Test {
  /** The rule. */
  readonly name: string
  readonly test: Effect.Effect<void, never, Scope.Scope>
}

/** Ten pauses of 5 ms. On a machine that stalls, one long pause could be a single turn of the event loop. */
const quiet: Effect.Effect<void> = Effect.asVoid(Effect.repeat(Effect.sleep(5), { times: 9 }))

const yields: Effect.Effect<void> = Effect.asVoid(Effect.repeat(Effect.yieldNow, { times: 49 }))

/**
 * The tests of an implementation. Run each in a scope of its own.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-bitcoin-peer"
 * import { ConnectionCompliance, VirtualClock } from "effect-bitcoin-peer/testing"
 *
 * const suite = ConnectionCompliance.tests({
 *   time: "virtual",
 *   capacity: 1_000_000,
 *   make: (options) => Effect.map(Connection.makePair(options), (pair) => ({ a: pair[0], b: pair[1], resetB: pair.reset() }))
 * })
 *
 * // With @effect/vitest: for (const { name, test } of suite) it.effect(name, () => test)
 * for (const { name, test } of suite) {
 *   await Effect.runPromise(test.pipe(Effect.scoped, Effect.provide(VirtualClock.layer)))
 *   console.log(`ok ${name}`)
 * }
 * ```
 *
 * @category suites
 * @since 0.1.0
 */
export const tests = (implementation: Implementation): ReadonlyArray<Test> => {
  const isVirtual = implementation.time === "virtual"
  const setup = {
    ...implementation,
    passes: (millis: number): Effect.Effect<void> => (isVirtual ? TestClock.adjust(millis) : Effect.sleep(millis)),
    settle: isVirtual ? yields : quiet
  }
  return [...connectionRules(setup), ...(implementation.receives === false ? [] : receiverRules(setup))]
}
