/** Assertions of the suites, which belong to no test runner. */
import * as Data from "effect/Data"

/**
 * A rule that does not hold. A suite throws it, so it is a defect of the effect that checks the rule.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotCompliant extends Data.TaggedError("NotCompliant")<{ readonly message: string }> {}

export const fail = (message: string): never => {
  throw new NotCompliant({ message })
}

export const holds = (condition: boolean, what = "a condition does not hold"): void => {
  if (!condition) fail(what)
}

export const same = <A>(actual: A, expected: A): void => {
  if (!Object.is(actual, expected)) fail(`${String(actual)} instead of ${String(expected)}`)
}

export const above = (actual: number, limit: number): void => holds(actual > limit, `${actual} is not above ${limit}`)

export const atMost = (actual: number, limit: number): void => holds(actual <= limit, `${actual} is above ${limit}`)

export const sameBytes = (actual: ArrayLike<number>, expected: ArrayLike<number>): void => {
  if (actual.length !== expected.length) fail(`${actual.length} bytes instead of ${expected.length}`)
  for (let i = 0; i < expected.length; i++) {
    if (actual[i] !== expected[i]) fail(`the byte at ${i} is ${actual[i]} instead of ${expected[i]}`)
  }
}

export const throws = (run: () => void): boolean => {
  try {
    run()
    return false
  } catch {
    return true
  }
}
