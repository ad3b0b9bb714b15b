/** One run of the fuzzer: checks an input, and shrinks it where a rule is broken. */
import { dice } from "../support/dice.ts"
import type { Target } from "./rules.ts"
import { targets } from "./targets.ts"

/** An input that breaks a rule. */
export interface Finding {
  readonly target: string
  readonly seed: number
  readonly error: unknown
  /** The smallest input found that breaks a rule. */
  readonly input: Uint8Array
}

export const targetNamed = (name: string): Target => {
  const found = targets.find((target) => target.name === name)
  if (found === undefined) throw new Error(`no such target: there are ${targets.map(({ name }) => name).join(", ")}`)
  return found
}

const problemOf = (target: Target, input: Uint8Array): { readonly error: unknown } | undefined => {
  try {
    target.check(input)
    return undefined
  } catch (error) {
    return { error }
  }
}

/** Milliseconds for shrinking: less than the time after which `main.ts` reports a hang. */
const longest = 15_000

/** Thrown to end shrinking. */
const enough = new Error("enough tries")

/** Removes parts, then zeroes bytes, as long as a rule stays broken. */
export const shrink = (target: Target, input: Uint8Array, tries = 3_000): Uint8Array => {
  let best = input
  let left = tries
  // A large input takes long each time, and must not look like a hang.
  const end = performance.now() + longest
  const holds = (candidate: Uint8Array): boolean => {
    if (left-- <= 0 || performance.now() > end) throw enough
    if (problemOf(target, candidate) === undefined) return false
    best = candidate
    return true
  }
  try {
    for (let size = best.length >> 1; size >= 1; size = size >> 1) {
      for (let offset = 0; offset < best.length;) {
        const without = new Uint8Array(Math.max(best.length - size, offset))
        without.set(best.subarray(0, offset))
        without.set(best.subarray(offset + size), offset)
        if (!holds(without)) offset += size
      }
    }
    for (let offset = 0; offset < best.length; offset++) {
      if (best[offset] !== 0) holds(best.with(offset, 0))
    }
  } catch (error) {
    if (error !== enough) throw error
  }
  return best
}

/** Checks the input of a seed; returns what was found. */
export const run = (target: Target, seed: number): Finding | undefined => {
  const input = target.make(dice(seed))
  const problem = problemOf(target, input)
  if (problem === undefined) return undefined
  const smallest = shrink(target, input)
  return { target: target.name, seed, error: (problemOf(target, smallest) ?? problem).error, input: smallest }
}

/** A finding as text: the broken rule, the input, and how to replay it. */
export const explain = ({ error, input, seed, target }: Finding): string => {
  const hex = Buffer.from(input).toString("hex")
  return [
    `${target}, seed ${seed}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
    `input (${input.length} bytes): ${hex}`,
    `replay: npm run fuzz -- --target ${target} --hex ${hex.length <= 2_000 ? hex : `HEX, or --seed ${seed} --runs 1`}`
  ].join("\n")
}
