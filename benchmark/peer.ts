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
import type { Answer, Commands } from "./ends/end.ts"
import { invsPerRound } from "./ends/end.ts"
import { ask, type Pace, printTable, wanted } from "./harness.ts"
import { us } from "./shared.ts"

const plain = "node:net, framing and decoding of the package"

interface Implementation {
  readonly name: string
  /** The file in `ends/`. */
  readonly file: string
  readonly args?: ReadonlyArray<string>
  /** Whether it only takes part in the rows of blocks. */
  readonly onlyBlocks?: boolean
}

const checkout = path.join(import.meta.dirname, "..")
const { BENCH_ENDS: asked, BENCH_SOURCE: other } = process.env

const implementations: ReadonlyArray<Implementation> = [
  { name: us, file: "ours" },
  ...(other === undefined ? [] : [{ name: `effect-bitcoin-peer of ${other}`, file: "ours", args: [other] }]),
  { name: `${us}, getdata sent, not checked`, file: "ours", args: [checkout, "v1", "by hand"], onlyBlocks: true },
  { name: "bcoin 1.0.2", file: "bcoin" },
  { name: "bitcore-p2p 10.10.7", file: "bitcore" },
  { name: plain, file: "plain" }
].filter(
  ({ file, name }) => file === "ours" || asked === undefined || asked.split(",").some((part) => name.includes(part))
)

/** One process. Its calls must not overlap. */
class EndProcess {
  readonly #child: ChildProcess

  constructor({ args = [], file }: Implementation, flags: ReadonlyArray<string>) {
    this.#child = fork(path.join(import.meta.dirname, "ends", `${file}.ts`), [...args], {
      execArgv: ["--conditions=@effect-bitcoin-peer/source", "--expose-gc", "--no-deprecation", ...flags],
      serialization: "advanced"
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
}

const start = async (implementation: Implementation, flags: ReadonlyArray<string>): Promise<Ends> => {
  const server = new EndProcess(implementation, flags)
  const port = await server.call("serve")
  const client = new EndProcess(implementation, flags)
  await client.call("connect", port)
  return { ...implementation, server, client, port }
}

interface Row {
  readonly title: string
  /** The work of one run: about 0.1 s. */
  readonly amount: { readonly count: number; readonly unit: string }
  readonly isBlocks?: boolean
  readonly run: (ends: Ends) => Promise<number>
  /** The target compared with plain. */
  readonly ofPlain: number
}

const rows: ReadonlyArray<Row> = [
  {
    title: "handshakes, one at a time, to the clean end",
    amount: { count: 50, unit: "handshakes" },
    run: ({ client, port }) => client.call("handshakes", port, 50, 1),
    ofPlain: 0.75
  },
  {
    title: "handshakes, 32 at once, to the clean end",
    amount: { count: 128, unit: "handshakes" },
    run: ({ client, port }) => client.call("handshakes", port, 128, 32),
    ofPlain: 0.65
  },
  {
    title: "ping round trips, one at a time",
    amount: { count: 500, unit: "round trips" },
    run: ({ client }) => client.call("pings", 500),
    ofPlain: 0.9
  },
  {
    title: "blocks of 1 MB, one asked at a time",
    amount: { count: 16, unit: "MB" },
    isBlocks: true,
    run: ({ client }) => client.call("blocks", 16, 1),
    ofPlain: 0.85
  },
  {
    title: "blocks of 1 MB, 16 asked at once",
    amount: { count: 16, unit: "MB" },
    isBlocks: true,
    run: ({ client }) => client.call("blocks", 16, 16),
    ofPlain: 0.9
  },
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

const measureRows = async (ends: ReadonlyArray<Ends>, pace: Pace, suffix = ""): Promise<void> => {
  for (const { amount, isBlocks = false, ofPlain, run, title } of rows) {
    const competitors = ends
      .filter(({ onlyBlocks = false }) => isBlocks || !onlyBlocks)
      .map((each) => ({ name: each.name, run: () => run(each) }))
    const targets = Object.fromEntries(
      ends.filter(({ file }) => file !== "ours").map(({ file, name }) => [name, file === "plain" ? ofPlain : 1])
    )
    await ask({ title: title + suffix, competitors: [competitors[0]!, ...competitors.slice(1)], amount, targets, pace })
  }
}

const flag = "--no-allocation-site-pretenuring"

for (const [flags, pace, suffix] of [
  [[], { rounds: 7, sampleTime: 300, warmTime: 800 }, ""],
  [[flag], { rounds: 3, sampleTime: 300, warmTime: 800 }, `, with ${flag}`]
] as const) {
  if (!rows.some(({ title }) => wanted(title + suffix))) continue
  const ends: Array<Ends> = []
  for (const each of implementations) ends.push(await start(each, flags))
  await measureRows(ends, pace, suffix)
  for (const { client, server } of ends) {
    client.stop()
    server.stop()
  }
}

printTable("peer: the same implementation at both ends, over loopback")
void [assert, fs]
