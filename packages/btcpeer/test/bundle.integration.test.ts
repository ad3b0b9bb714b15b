/** The command as it is shipped: two files that run without any package beside them. */
import { assert, describe } from "@effect/vitest"
import { execFile } from "node:child_process"
import * as fs from "node:fs"
import { builtinModules } from "node:module"
import * as os from "node:os"
import * as path from "node:path"
import { promisify } from "node:util"
import { afterAll, beforeAll } from "vitest"
import { frames, listen, live, oneLine } from "./support/processes.ts"

const root = path.resolve(import.meta.dirname, "..")
const manifest = JSON.parse(fs.readFileSync(path.join(root, "package.json"), "utf8"))

// Outside of the repository, whose packages Node would find.
let folder = ""
const dist = (file: string): string => path.join(folder, "dist", file)
const read = (file: string): string => fs.readFileSync(dist(file), "utf8")

beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "btcpeer-bundle-"))
  fs.copyFileSync(path.join(root, "package.json"), path.join(folder, "package.json"))
  await promisify(execFile)(process.execPath, [path.join(root, "bundle.ts"), dist("")])
}, 120_000)

afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

const run = (argv: ReadonlyArray<string>, env: NodeJS.ProcessEnv = {}): Promise<Ended> =>
  new Promise((resolve) => {
    const settings = { cwd: folder, env: { ...process.env, NO_COLOR: "1", ...env } }
    execFile(process.execPath, [path.join(folder, manifest.bin.btcpeer), ...argv], settings, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr })
    )
  })

describe("the shipped command", () => {
  live("imports nothing but modules of Node, and its package has no dependencies", async () => {
    const imported = ["main.js", "process.js"].flatMap((file) =>
      Array.from(
        read(file).matchAll(/^(?:import|export)\b[^"\n]*"([^"]+)"|\bimport\("([^"]+)"\)/gm),
        ([, from, lazy]) => from ?? lazy!
      )
    )
    assert.includeMembers(imported, ["node:module", "./process.js", "node:net"])
    const known = new Set(["./process.js", ...builtinModules.map((name) => `node:${name}`)])
    assert.deepStrictEqual(
      imported.filter((name) => !known.has(name)),
      []
    )
    assert.deepStrictEqual(fs.readdirSync(dist("")).toSorted(), ["THIRD-PARTY-LICENSES", "main.js", "process.js"])
    assert.isUndefined(manifest.dependencies)
  })

  live("carries the licence of every package in it", async () => {
    const packages = Array.from(
      read("process.js").matchAll(/^\/\/ ?#?(?:region )?\S*node_modules\/((?:@[^/\s]+\/)?[^/\s]+)\//gm),
      ([, name]) => name!
    )
    const licences = read("THIRD-PARTY-LICENSES")
    const named = new Set(
      Array.from(licences.matchAll(/^(\S+) \d+\.\d+\.\d+ \((MIT|ISC|BSD-\d-Clause)\)$/gm), ([, name]) => name!)
    )
    assert.includeMembers([...named], ["effect", "@noble/curves", "cli-table3"])
    assert.isAbove(packages.length, 100)
    assert.deepStrictEqual(
      packages.filter((name) => !named.has(name)),
      []
    )
  })

  live("prints its version and help, and an error in one line with exit code 1", async () => {
    assert.deepStrictEqual(await run(["--version"]), { code: 0, stdout: `btcpeer v${manifest.version}\n`, stderr: "" })
    const { code, stdout } = await run(["connect", "--help"])
    assert.strictEqual(code, 0)
    assert.include(stdout, "--i2p-sam")
    const failed = await run(["conect"])
    assert.deepInclude(failed, { code: 1, stdout: "" })
    oneLine(failed.stderr, /conect/)
  })

  live("connects, by version 2", async () => {
    const listener = await listen()
    const { code, stderr, stdout } = await run([
      "connect",
      listener.address,
      "-n",
      "regtest",
      "--for",
      "100ms",
      "--json"
    ])
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    assert.match(stdout, /"event":"handshake".*"transport":"v2"/)
  })

  live("decodes a file, and does all steps of the demo", async () => {
    const file = path.join(folder, "frames.dat")
    fs.writeFileSync(file, frames({ _tag: "ping", nonce: 1n }))
    assert.deepInclude(await run(["decode", file]), { code: 0, stderr: "" })
    const { code, stderr, stdout } = await run(["demo", "--blocks", "104"])
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
    assert.match(stdout, /^disconnect +the peer: the demo is over/m)
  })

  live("keeps compiled code for the next start, and runs where it cannot write it", async () => {
    const cache = path.join(folder, "cache")
    assert.deepInclude(await run(["--version"], { NODE_COMPILE_CACHE: cache }), { code: 0, stderr: "" })
    assert.isNotEmpty(fs.readdirSync(cache))
    const unwritable = path.join(folder, "package.json", "cache")
    assert.deepInclude(await run(["--version"], { NODE_COMPILE_CACHE: unwritable }), { code: 0, stderr: "" })
    const nowhere = { NODE_COMPILE_CACHE: undefined, TMPDIR: unwritable }
    assert.deepInclude(await run(["--version"], nowhere), { code: 0, stderr: "" })
  })
})
