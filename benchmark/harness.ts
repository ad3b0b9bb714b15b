/**
 * Interleaved timing of competitors, after a check that their results are equal.
 *
 * A round runs every competitor once, each for about 100 ms. Each round starts with the next competitor in the list. The
 * result of a pair is the median and the quartiles of its ratios, one per round: other load on the machine slows the whole
 * round and does not change the ratio, and a disturbance of one side shows as spread. Two warm-up rounds are discarded.
 *
 * Synchronous work is measured in processor time of the process, including the threads of the garbage collector: with more
 * runnable processes than processors, wall time would include the time in which a collection waits for its threads. Work
 * that waits for another process is measured in wall time.
 *
 * The young generation is collected before each sample, so that no competitor pays for the garbage of another. A full
 * collection would return the pages of the young generation to the system; allocating them again took as long as decoding a
 * block.
 *
 * V8 infers that objects live long where earlier ones of the same place in the code did, and allocates them in the old generation,
 * with all objects that they refer to. The preparation of a question keeps whole blocks as objects, as some programs do. The
 * same code then decodes a block of 1 MB in 0.54 ms or in 1.5, differently in each run and for each competitor. So `codec`, `lists`
 * and `peer` are measured as programs run, and once more with the flag that turns this off.
 */
import assert from "node:assert/strict"
import { performance } from "node:perf_hooks"

export const pretenuringFlag = "--no-allocation-site-pretenuring"

/** One implementation of the measured work. */
export interface Competitor {
  readonly name: string
  /** Does the work once. Its result (or that of its promise) must be equal for all competitors; checked before timing. */
  readonly run: () => unknown
}

/** A measurement of all competitors; the first one is ours. */
export interface Question {
  readonly title: string
  readonly competitors: readonly [Competitor, ...Array<Competitor | undefined>]
  /** The work of one run: `{ count: 1000, unit: "messages" }`. */
  readonly amount: { readonly count: number; readonly unit: string }
  /** Target ratios by the name of the competitor: our speed divided by its speed. */
  readonly targets?: Readonly<Record<string, number>>
  /** Target rate of ours, in units of `amount` per second. */
  readonly targetRate?: number
  readonly pace?: Pace
}

/** How long a question takes. */
export interface Pace {
  readonly rounds: number
  /** Milliseconds. */
  readonly sampleTime: number
  readonly warmTime: number
}

const warmUp = 2
const defaultPace: Pace = { rounds: 9, sampleTime: 100, warmTime: 1_000 }
const only = process.env.BENCH_ONLY

/** A pace, unless the environment says otherwise. */
const paceOf = (pace: Pace = defaultPace): Pace => {
  const { BENCH_ROUNDS: rounds = pace.rounds, BENCH_SAMPLE_MS: sampleTime } = process.env
  return sampleTime === undefined
    ? { ...pace, rounds: Number(rounds) }
    : { rounds: Number(rounds), sampleTime: Number(sampleTime), warmTime: 10 * Number(sampleTime) }
}

/** Results are stored here, so that the compiler cannot remove the work as unused. */
export let last: unknown

const processorTime = (): number => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1_000
}

const sample = async (competitor: Competitor, times: number): Promise<number> => {
  globalThis.gc?.({ type: "minor" })
  const wall = performance.now()
  const processor = processorTime()
  let waited = false
  for (let i = 0; i < times; i++) {
    const result = competitor.run()
    waited = result instanceof Promise
    last = waited ? await result : result
  }
  return waited ? performance.now() - wall : processorTime() - processor
}

/**
 * The number of runs in one sample. It is determined after a second of warm-up: the first thousand round trips run at half
 * the speed of the next ten thousand, for every competitor.
 */
const calibrate = async (competitor: Competitor, { sampleTime, warmTime }: Pace): Promise<number> => {
  let times = 1
  let spent = 0
  while (true) {
    const took = await sample(competitor, times)
    spent += took
    if (took < sampleTime / 2) times *= 2
    else if (spent >= warmTime) return Math.max(1, Math.round((times * sampleTime) / took))
  }
}

export const quantile = (values: ReadonlyArray<number>, q: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const position = (sorted.length - 1) * q
  const below = sorted[Math.floor(position)] ?? Number.NaN
  const above = sorted[Math.ceil(position)] ?? Number.NaN
  return below + (above - below) * (position % 1)
}

const significant = (value: number): string =>
  value >= 100 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(value >= 10 ? 3 : 2)

const rate = (perSecond: number, unit: string): string => `${significant(perSecond)} ${unit}/s`

export const duration = (milliseconds: number): string =>
  milliseconds >= 1 ? `${significant(milliseconds)} ms` : `${significant(milliseconds * 1_000)} µs`

export const factor = (value: number): string => value.toFixed(value < 9.95 ? 2 : 1)

type Row = readonly [
  question: string,
  implementation: string,
  time: string,
  rate: string,
  ratio: string,
  target: string
]

const rows: Array<Row> = []

/** Adds a row to the table of this file. */
export const row = (...cells: Row): void => {
  rows.push(cells)
  process.stderr.write(`  ${cells.filter((cell) => cell !== "").join("  ")}\n`)
}

/** "reached", or the missing factor, for a value that should be at least (or at most) `wanted`. */
export const verdict = (value: number, wanted: number, text: string, atMost = false): string => {
  const share = atMost ? wanted / value : value / wanted
  return `${text}: ${share >= 1 ? "reached" : `**not reached**, ${factor(1 / share)}x missing`}`
}

/** Whether a question is selected: its title contains `BENCH_ONLY`, or that is not set. */
export const wanted = (title: string): boolean => only === undefined || title.includes(only)

/** Asserts that all results are equal, then measures: milliseconds per run, for each round. */
export const measure = async (
  title: string,
  all: ReadonlyArray<Competitor>,
  asked?: Pace
): Promise<Array<Array<number>>> => {
  const pace = paceOf(asked)
  const [ours, ...others] = all
  const expected = await ours?.run()
  for (const other of others) assert.deepEqual(await other.run(), expected, `${title}: ${other.name}`)

  const times: Array<number> = []
  for (const competitor of all) times.push(await calibrate(competitor, pace))
  const samples: Array<Array<number>> = all.map(() => [])
  for (let round = 0; round < warmUp + pace.rounds; round++) {
    for (let i = 0; i < all.length; i++) {
      const at = (round + i) % all.length
      const took = await sample(all[at]!, times[at]!)
      if (round >= warmUp) samples[at]!.push(took / times[at]!)
    }
  }
  return samples
}

/** Measures all competitors, and adds a row for each. */
export const ask = async ({ amount, competitors, pace, targetRate, targets = {}, title }: Question): Promise<void> => {
  if (!wanted(title)) return
  const all = competitors.filter((competitor) => competitor !== undefined)
  const samples = await measure(title, all, pace)

  for (const [at, competitor] of all.entries()) {
    const time = quantile(samples[at]!, 0.5)
    const perSecond = (amount.count / time) * 1_000
    const ratios = samples[at]!.map((other, round) => other / samples[0]![round]!)
    const ratio = quantile(ratios, 0.5)
    const target = targets[competitor.name]
    const ownTarget = at === 0 ? targetRate : undefined
    row(
      at === 0 ? title : "",
      competitor.name,
      duration(time),
      rate(perSecond, amount.unit),
      at === 0 ? "" : `${factor(ratio)} (${factor(quantile(ratios, 0.25))}–${factor(quantile(ratios, 0.75))})`,
      ownTarget !== undefined
        ? verdict(perSecond, ownTarget, `≥ ${rate(ownTarget, amount.unit)}`)
        : target === undefined
          ? ""
          : verdict(ratio, target, `≥ ${target}`)
    )
  }
}

/** Prints the table, as Markdown. */
export const printTable = (title: string): void => {
  const head: Row = [
    "question",
    "implementation",
    "time per run",
    "rate",
    "we are … times as fast (quartiles)",
    "target"
  ]
  const widths = head.map((cell, i) => Math.max(cell.length, ...rows.map((row) => row[i]!.length)))
  const line = (cells: ReadonlyArray<string>): string =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`
  const flag = process.execArgv.includes(pretenuringFlag) ? `, with ${pretenuringFlag}` : ""
  console.log(`\n### ${title}${flag}\n`)
  console.log(line(head))
  console.log(`|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`)
  for (const cells of rows) console.log(line(cells))
}
