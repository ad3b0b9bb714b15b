/**
 * The inbound slots of each bind. With one pool for all, an attacker who fills it through one address of a node sees evictions on the
 * other address, and so learns that the clearnet and the onion address are one node ("evict and fill"). A bind never takes a slot of
 * another one.
 */
import * as Data from "effect/Data"

/**
 * The shares of inbound slots are wrong: more than all, or not whole numbers.
 *
 * @category errors
 * @since 0.1.0
 */
export class PoolsError extends Data.TaggedError("PoolsError")<{ readonly problem: string }> {
  override get message(): string {
    return `the shares of inbound slots are wrong: ${this.problem}`
  }
}

/**
 * The slots of each bind: the given ones, and equal parts of the rest for the others. What is left over goes to the first ones, one
 * each.
 */
export const inboundPools = (
  slots: number,
  binds: ReadonlyArray<string>,
  given: { readonly [bind: string]: number | undefined } = {}
): ReadonlyMap<string, number> | PoolsError => {
  const unknown = Object.keys(given).find((bind) => !binds.includes(bind))
  if (unknown !== undefined) return new PoolsError({ problem: `there is no bind "${unknown}"` })
  const shares = new Map<string, number>()
  let rest = slots
  for (const bind of binds) {
    const share = given[bind]
    if (share === undefined) continue
    if (!Number.isSafeInteger(share) || share < 0) {
      return new PoolsError({ problem: `${share} slots for "${bind}" is not a whole number` })
    }
    shares.set(bind, share)
    rest -= share
  }
  if (rest < 0)
    return new PoolsError({ problem: `they add up to ${slots - rest}, but there are ${slots} inbound slots` })
  const others = binds.filter((bind) => !shares.has(bind))
  for (const [index, bind] of others.entries()) {
    shares.set(bind, Math.floor(rest / others.length) + (index < rest % others.length ? 1 : 0))
  }
  return new Map(binds.map((bind) => [bind, shares.get(bind)!]))
}
