/**
 * `npm run fuzz`: runs until Ctrl-C, a finding, or the end that an option sets.
 *
 *     --seconds N   how long to run (FUZZ_SECONDS)          --target NAME   only this target
 *     --runs N      how many inputs to check (FUZZ_RUNS)    --hex BYTES     only this input, with --target
 *     --seed N      seed of the first input (FUZZ_SEED); each further input has the next one
 */
import * as fs from "node:fs"
import { parseArgs } from "node:util"
import { isMainThread, Worker, workerData } from "node:worker_threads"
import { explain, run, targetNamed } from "./loop.ts"
import { targets } from "./targets.ts"

/** Seconds after which an input counts as a hang. */
const hangs = 30

/** Shared with the watching thread: the number of runs begun, and the seed of the last one. */
type Shared = Int32Array<SharedArrayBuffer>

/** The data of the watching thread. */
interface Watched {
  readonly shared: Shared
  readonly names: ReadonlyArray<string>
}

/** Runs in a second thread, which can report the seed while the first one hangs. */
const watch = ({ names, shared }: Watched): void => {
  for (let last = -1; ;) {
    const begun = Atomics.load(shared, 0)
    if (begun === last) {
      const seed = Atomics.load(shared, 1) >>> 0
      const name = names[seed % names.length]
      fs.writeSync(
        2,
        `${name}, seed ${seed}: hangs\nreplay: npm run fuzz -- --target ${name} --seed ${seed} --runs 1\n`
      )
      process.kill(process.pid, "SIGKILL")
    }
    last = begun
    Atomics.wait(shared, 2, 0, hangs * 1_000)
  }
}

const number = (text: string | undefined, otherwise: number): number => {
  if (text === undefined) return otherwise
  const value = Number(text)
  if (!Number.isFinite(value) || value < 0) throw new Error(`no number: ${text}`)
  return value
}

const main = async (): Promise<number> => {
  const { values } = parseArgs({
    options: {
      seconds: { type: "string" },
      runs: { type: "string" },
      seed: { type: "string" },
      target: { type: "string" },
      hex: { type: "string" }
    }
  })
  const chosen = values.target === undefined ? targets : [targetNamed(values.target)]
  if (values.hex !== undefined) {
    if (chosen.length !== 1) throw new Error("--hex needs --target")
    chosen[0]!.check(Uint8Array.from(Buffer.from(values.hex, "hex")))
    console.log("nothing is wrong with it")
    return 0
  }
  const first = number(values.seed ?? process.env.FUZZ_SEED, Math.floor(Math.random() * 2 ** 32))
  const runs = number(values.runs ?? process.env.FUZZ_RUNS, Infinity)
  const end = performance.now() + number(values.seconds ?? process.env.FUZZ_SECONDS, Infinity) * 1_000
  console.log(`seed ${first}, ${chosen.length} targets${runs === Infinity ? ", until Ctrl-C" : ""}`)

  const shared: Shared = new Int32Array(new SharedArrayBuffer(12))
  const watched: Watched = { shared, names: chosen.map(({ name }) => name) }
  new Worker(import.meta.filename, { workerData: watched }).unref()
  const started = performance.now()
  let done = 0
  const progress = (): void => {
    const seconds = (performance.now() - started) / 1_000
    console.log(`${done} runs in ${seconds.toFixed(0)} s, ${(done / seconds).toFixed(0)} a second`)
  }
  process.once("SIGINT", () => {
    progress()
    process.exit(0)
  })
  for (let shown = started; done < runs && performance.now() < end;) {
    const seed = (first + done) >>> 0
    Atomics.store(shared, 1, seed | 0)
    Atomics.store(shared, 0, ++done)
    // The seed chooses the target, so that a seed alone replays a run.
    const finding = run(chosen[seed % chosen.length]!, seed)
    if (finding !== undefined) {
      progress()
      console.error(explain(finding))
      return 1
    }
    if (done % 64 === 0) {
      // Lets Ctrl-C be handled.
      await new Promise((resolve) => setImmediate(resolve))
      if (performance.now() - shown > 5_000) {
        shown = performance.now()
        progress()
      }
    }
  }
  progress()
  return 0
}

if (isMainThread) process.exitCode = await main()
else watch(workerData as Watched)
