/**
 * A whole peer over loopback, the same implementation at both ends, each end in a process of its own: `ends/`. Both ends are what a
 * program of that library would write. README.md says what is fair about each row.
 *
 * Rows are measured without V8 flags, as a program runs; then once more, shorter, with `--no-allocation-site-pretenuring`.
 * `BENCH_ENDS` selects implementations by a part of their name; `BENCH_SOURCE=/path/to/a/checkout` adds ours of another checkout.
 */
import assert from "node:assert/strict"
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import * as fs from "node:fs"
import * as path from "node:path"
import { isIsolated, startCore } from "./core.ts"
import { type Answer, type Commands, type IdleSize, invsPerRound } from "./ends/end.ts"
import {
  ask,
  type Competitor,
  duration,
  factor,
  type Pace,
  pretenuringFlag,
  printTable,
  quantile,
  row,
  verdict,
  wanted
} from "./harness.ts"
import { us } from "./shared.ts"
import { measureStart, startTitle } from "./start.ts"

interface Implementation {
  readonly name: string
  /** The file in `ends/`. */
  readonly file: string
  /** Of ours: the checkout, the transport, and "by hand" for blocks without `getData`. */
  readonly args?:
    | readonly [checkout: string, transport: "v1" | "v2"]
    | readonly [checkout: string, transport: "v1", "by hand"]
  /** Whether it does not check the blocks that it asked for; it only takes part in rows of such blocks. */
  readonly unchecked?: boolean
}

const checkout = path.join(import.meta.dirname, "..")
const { BENCH_ENDS: asked, BENCH_SOURCE: other } = process.env

const hasCompetitors = fs.existsSync(path.join(import.meta.dirname, "node_modules/bcoin"))
if (!hasCompetitors) console.error("without the competitors: npm ci --ignore-scripts --prefix benchmark")

/** Our package in a checkout, with and without the check of blocks. */
const oursOf = (name: string, checkout: string): ReadonlyArray<Implementation> => [
  { name, file: "ours", args: [checkout, "v1"] },
  { name: `${name}, not checked`, file: "ours", args: [checkout, "v1", "by hand"], unchecked: true }
]

const implementations: ReadonlyArray<Implementation> = [
  ...oursOf(us, checkout),
  ...(other === undefined ? [] : oursOf(`${us} of ${other}`, other)),
  ...(hasCompetitors
    ? [
        { name: "bcoin 1.0.2", file: "bcoin" },
        { name: "bitcore-p2p 10.10.7", file: "bitcore" }
      ]
    : []),
  { name: "node:net", file: "plain" }
].filter(
  ({ file, name }) => file === "ours" || asked === undefined || asked.split(",").some((part) => name.includes(part))
)

/** One process. Its calls must not overlap. */
class EndProcess {
  readonly #child: ChildProcess

  constructor({ args, file }: Implementation, flags: ReadonlyArray<string>) {
    this.#child = fork(path.join(import.meta.dirname, "ends", `${file}.ts`), [...(args ?? [])], {
      execArgv: ["--conditions=@effect-bitcoin-peer/source", "--expose-gc", "--no-deprecation", ...flags],
      serialization: "advanced"
    })
    this.#child.on("exit", (code) => {
      if (code !== 0) throw new Error(`ends/${file}.ts ended with exit code ${code}`)
    })
  }

  async call<Name extends keyof Commands>(
    command: Name,
    ...args: Parameters<Commands[Name]>
  ): Promise<Awaited<ReturnType<Commands[Name]>>> {
    this.#child.send({ command, args })
    const [answer] = (await once(this.#child, "message")) as [Answer]
    if ("error" in answer) throw new Error(answer.error)
    return answer.result as Awaited<ReturnType<Commands[Name]>>
  }

  stop(): void {
    this.#child.disconnect()
  }
}

/** Both ends of an implementation. */
interface Ends extends Implementation {
  readonly server: EndProcess
  readonly client: EndProcess
  readonly port: number
  /** The number of handshakes that the client was asked for. */
  handshakes: number
}

const start = async (implementation: Implementation, flags: ReadonlyArray<string>): Promise<Ends> => {
  const server = new EndProcess(implementation, flags)
  const port = await server.call("serve")
  const client = new EndProcess(implementation, flags)
  await client.call("connect", port)
  return { ...implementation, server, client, port, handshakes: 1 }
}

const handshakes = (ends: Ends, count: number, atOnce: number): Promise<number> => {
  ends.handshakes += count
  return ends.client.call("handshakes", ends.port, count, atOnce)
}

interface Row {
  readonly title: string
  /** The work of one run: about 0.1 s. */
  readonly amount: { readonly count: number; readonly unit: string }
  /** Whether ours does not check blocks, as the others. */
  readonly unchecked?: boolean
  readonly run: (ends: Ends) => Promise<number>
  /** The target compared with plain. */
  readonly ofPlain: number
}

const rows: ReadonlyArray<Row> = [
  {
    title: "handshakes, one at a time, to the clean end",
    amount: { count: 50, unit: "handshakes" },
    run: (ends) => handshakes(ends, 50, 1),
    ofPlain: 0.75
  },
  {
    title: "handshakes, 32 at once, to the clean end",
    amount: { count: 128, unit: "handshakes" },
    run: (ends) => handshakes(ends, 128, 32),
    ofPlain: 0.65
  },
  {
    title: "ping round trips, one at a time",
    amount: { count: 500, unit: "round trips" },
    run: ({ client }) => client.call("pings", 500),
    ofPlain: 0.9
  },
  ...[false, true].flatMap((unchecked): ReadonlyArray<Row> => {
    const how = unchecked ? ", not checked" : ""
    return [
      {
        title: `blocks of 1 MB, one asked at a time${how}`,
        amount: { count: 16, unit: "MB" },
        unchecked,
        run: ({ client }) => client.call("blocks", 16, 1),
        ofPlain: 0.85
      },
      {
        title: `blocks of 1 MB, 16 asked at once${how}`,
        amount: { count: 16, unit: "MB" },
        unchecked,
        run: ({ client }) => client.call("blocks", 16, 16),
        ofPlain: 0.9
      }
    ]
  }),
  {
    title: "inv of 1,000 new items",
    amount: { count: 2 * invsPerRound, unit: "invs" },
    run: async ({ client, server }) => {
      await server.call("repeatInv", false)
      return client.call("invs", 2)
    },
    ofPlain: 0.85
  },
  {
    title: "inv of 1,000 items, always the same",
    amount: { count: 2 * invsPerRound, unit: "invs" },
    run: async ({ client, server }) => {
      await server.call("repeatInv", true)
      return client.call("invs", 2)
    },
    ofPlain: 0.85
  }
]

/** Those that take part in most rows. */
const checking = <A extends Implementation>(all: ReadonlyArray<A>): ReadonlyArray<A> =>
  all.filter(({ unchecked = false }) => !unchecked)

const targetsOf = (ends: ReadonlyArray<Implementation>, ofPlain: number): Record<string, number> =>
  Object.fromEntries(
    ends.filter(({ file }) => file !== "ours").map(({ file, name }) => [name, file === "plain" ? ofPlain : 1])
  )

const processorTime = async ({ client, server }: Ends): Promise<number> =>
  (await client.call("processorTime")) + (await server.call("processorTime"))

/**
 * Measures a row, and adds the processor time of both ends, warm-up included. It tells how much work is done, also on a busy machine,
 * where the wall time of two processes that wait for each other depends on the other load.
 */
const measureRow = async (
  { amount, ofPlain, run, title, unchecked = false }: Row,
  ends: ReadonlyArray<Ends>,
  pace: Pace,
  suffix: string
): Promise<void> => {
  const compared = ends.filter((each) => each.file !== "ours" || (each.unchecked ?? false) === unchecked)
  const runs = compared.map(() => 0)
  const [first, ...others] = compared.map((each, at): Competitor => {
    const count = (): Promise<number> => {
      runs[at]!++
      return run(each)
    }
    return { name: each.name, run: count }
  })
  const before = await Promise.all(compared.map(processorTime))
  const targets = targetsOf(ends, ofPlain)
  await ask({ title: title + suffix, competitors: [first!, ...others], amount, targets, pace })
  const after = await Promise.all(compared.map(processorTime))
  const [ours = 0, ...theirs] = after.map((time, at) => (time - before[at]!) / runs[at]! / amount.count)
  const ratios = theirs.map((time, at) => `${factor(time / ours)} ${others[at]!.name}`)
  row("", "processor time of both ends", `${duration(ours)} each`, "", ratios.join(", "), "")
}

const measureRows = async (ends: ReadonlyArray<Ends>, pace: Pace, suffix: string): Promise<void> => {
  for (const each of rows) if (wanted(each.title + suffix)) await measureRow(each, ends, pace, suffix)
  for (const { handshakes, name, server } of ends) assert.equal(await server.call("served"), handshakes, name)
}

const pace: Pace = { rounds: 5, sampleTime: 250, warmTime: 1_500 }
const shortPace: Pace = { rounds: 3, sampleTime: 250, warmTime: 400 }

// ---- heap

const idleTitle = "heap and buffers of an idle peer"
const idlePeers = 500
const idleLimit = 16

const measureIdle = async (ends: ReadonlyArray<Ends>): Promise<void> => {
  const compared = checking(ends)
  const sizes: Array<Array<IdleSize>> = compared.map(() => [])
  // The first round is discarded: it includes code and caches.
  for (let round = -1; round < 2; round++) {
    for (const [at, { client, port }] of compared.entries()) {
      const size = await client.call("idle", port, idlePeers)
      if (round >= 0) sizes[at]!.push(size)
    }
  }
  const kilobytes = (at: number, part: (size: IdleSize) => number): number =>
    quantile(sizes[at]!.map(part), 0.5) / 1_000
  const total = ({ buffers, heap }: IdleSize): number => heap + buffers
  for (const [at, { name }] of compared.entries()) {
    const size = kilobytes(at, total)
    row(
      at === 0 ? idleTitle : "",
      name,
      `${size.toFixed(1)} kB`,
      `${kilobytes(at, ({ buffers }) => buffers).toFixed(1)} kB of it buffers`,
      at === 0 ? "" : `${factor(size / kilobytes(0, total))} of ours`,
      at === 0 ? verdict(size, idleLimit, `≤ ${idleLimit} kB`, true) : ""
    )
  }
}

// ---- blocks of Bitcoin Core

const coreTitle = "3,000 small blocks of Bitcoin Core by getdata"
const coreBlocks = 3_000
const coreBatch = 1_000

const measureCore = async (): Promise<void> => {
  const { hashes, port, stop } = await startCore(coreBlocks)
  for (const transport of ["v1", "v2"] as const) {
    const compared = checking(implementations)
      .filter(({ file }) => file !== "bitcore")
      .map(({ args, file, name }): Implementation =>
        args === undefined ? { file, name } : { file, name, args: [args[0], transport] }
      )
    const clients: Array<EndProcess> = []
    const competitors: Array<Competitor> = []
    for (const implementation of compared) {
      const client = new EndProcess(implementation, [])
      clients.push(client)
      await client.call("connect", port, hashes)
      competitors.push({ name: implementation.name, run: () => client.call("blocks", coreBlocks, coreBatch) })
    }
    await ask({
      title: `${coreTitle}, ours ${transport}`,
      competitors: [competitors[0]!, ...competitors.slice(1)],
      amount: { count: coreBlocks, unit: "blocks" },
      targets: Object.fromEntries(compared.filter(({ file }) => file === "bcoin").map(({ name }) => [name, 1])),
      pace
    })
    for (const client of clients) client.stop()
  }
  await stop()
}

// ---- all

/** Starts the ends of all implementations, one after the other, so that no start disturbs another. */
const withEnds = async (
  flags: ReadonlyArray<string>,
  run: (ends: ReadonlyArray<Ends>) => Promise<void>
): Promise<void> => {
  const ends: Array<Ends> = []
  for (const each of implementations) ends.push(await start(each, flags))
  await run(ends)
  for (const { client, server } of ends) {
    client.stop()
    server.stop()
  }
}

/** Whether one of these rows was asked for. */
const isAsked = (suffix: string, ...others: ReadonlyArray<string>): boolean =>
  [...rows.map(({ title }) => title + suffix), ...others].some(wanted)

if (isAsked("", idleTitle, startTitle)) {
  await withEnds([], async (ends) => {
    await measureRows(ends, pace, "")
    if (wanted(idleTitle)) await measureIdle(ends)
    if (wanted(startTitle)) await measureStart(ends.filter(({ file, name }) => file !== "ours" || name === us))
  })
}

if (wanted(coreTitle)) {
  if (process.env["BITCOIND"] === undefined) console.error(`${coreTitle}: left out, BITCOIND is not set`)
  else if (!isIsolated()) console.error(`${coreTitle}: left out, no network namespace can be made here`)
  else await measureCore()
}

const suffix = `, with ${pretenuringFlag}`
if (isAsked(suffix)) await withEnds([pretenuringFlag], (ends) => measureRows(ends, shortPace, suffix))

printTable("peer: the same implementation at both ends, over loopback")
