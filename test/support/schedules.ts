/** The tests of Peer.simulation: in no random schedule does a caller hang, a fiber leak, or a message get lost or doubled. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { interleave } from "./interleaving.ts"
import { type Report, simulate } from "./simulation.ts"

/** Seeds from `from` (inclusive) to `to` (exclusive). A seed gives the same schedule on every machine. */
export interface Seeds {
  readonly from: number
  readonly to: number
}

/** A single seed, to replay a failure. */
const only = process.env["SIMULATION_SEED"]
const batchSize = 1_000

const batchesOf = ({ from, to }: Seeds): ReadonlyArray<Seeds> =>
  only === undefined
    ? Array.from({ length: Math.ceil((to - from) / batchSize) }, (_, index) => ({
        from: from + index * batchSize,
        to: Math.min(to, from + (index + 1) * batchSize)
      }))
    : [{ from: Number(only), to: Number(only) + 1 }]

const describeRun = (seed: number, problems: ReadonlyArray<string>, { ends, trace }: Report): string =>
  [
    `seed ${seed}; replay: SIMULATION_SEED=${seed} npx vitest run test/Peer.simulation.test.ts`,
    ...problems,
    `the ends: ${ends.join(" and ")}`,
    ...trace
  ].join("\n  ")

const check = (seed: number, report: Report): void => {
  if (report.problems.length > 0) assert.fail(describeRun(seed, report.problems, report))
}

/** Registers the tests of the schedules of these seeds. */
export const testSchedules = (seeds: Seeds): void => {
  const batches = batchesOf(seeds)

  describe("two peers over a connection that delays, splits and cuts", () => {
    const lost: Array<string> = []

    it.effect.each(batches)(
      "keep every rule in the schedules of seeds $from to $to",
      ({ from, to }) =>
        Effect.gen(function* () {
          const ends = new Map<string, number>()
          for (let seed = from; seed < to; seed++) {
            const report = yield* simulate(seed)
            for (const end of report.ends) ends.set(end, (ends.get(end) ?? 0) + 1)
            if (report.lost.length > 0) lost.push(describeRun(seed, report.lost, report))
            check(seed, report)
          }
          // The schedules must produce every kind of end.
          if (only !== undefined) return
          for (const end of ["Requested", "ScopeClosed", "RemoteClosed", "ConnectionLost", "Stalled", "no handshake"]) {
            assert.isAbove(ends.get(end) ?? 0, 0, `no schedule ends with ${end}`)
          }
        }),
      120_000
    )

    it("handle every message written before a graceful close, in all of these schedules", () => {
      assert.strictEqual(lost.length, 0, `${lost.length} runs lost messages, the first:\n${lost[0]}`)
    })
  })

  describe("one peer with sends, waits, interruptions and an end in any order", () => {
    it.effect.each(batches)(
      "keeps every rule in the interleavings of seeds $from to $to",
      ({ from, to }) =>
        Effect.gen(function* () {
          for (let seed = from; seed < to; seed++) check(seed, yield* interleave(seed))
        }),
      120_000
    )
  })
}
