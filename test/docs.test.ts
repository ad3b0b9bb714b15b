/** The examples of the documentation: every ```ts block of a doc comment and of README.md compiles, and those without TCP run. */
import { assert, describe, it, vi } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { afterAll, beforeAll } from "vitest"

interface Example {
  /** Below the root of the repository. */
  readonly source: string
  /** Of its first line of code. */
  readonly line: number
  readonly code: string
}

const root = path.resolve(import.meta.dirname, "..")

/** The blocks of a text; in a source, those of doc comments, without the stars. */
const examplesOf = (source: string): ReadonlyArray<Example> => {
  const found: Array<Example> = []
  const isComment = source.endsWith(".ts")
  let begun: { readonly line: number; readonly code: Array<string> } | undefined
  for (const [index, text] of fs.readFileSync(path.join(root, source), "utf8").split("\n").entries()) {
    const line = isComment ? /^\s*\* ?(.*)$/.exec(text)?.[1] : text
    if (line === undefined) begun = undefined
    else if (begun === undefined && /^\s*```ts\b/.test(line)) begun = { line: index + 2, code: [] }
    else if (begun !== undefined && /^\s*```\s*$/.test(line)) {
      found.push({ source, line: begun.line, code: begun.code.join("\n") })
      begun = undefined
    } else begun?.code.push(line)
  }
  return found
}

const sources = fs
  .readdirSync(path.join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => `src/${name.replaceAll(path.sep, "/")}`)
  .toSorted()
const readme = fs.existsSync(path.join(root, "README.md")) ? ["README.md"] : []
const examples = [...readme, ...sources].flatMap(examplesOf)

// Not in node_modules: there the package's own name does not resolve. `coverage` is ignored by git, lint and format.
const parent = path.join(root, "coverage")
let folder = ""

const nameOf = ({ line, source }: Example): string => `${source.replaceAll("/", "~")}~${line}.ts`
const fileOf = (example: Example): string => path.join(folder, nameOf(example))
const titleOf = ({ line, source }: Example): string => `${source}:${line}`

beforeAll(() => {
  fs.mkdirSync(parent, { recursive: true })
  folder = fs.mkdtempSync(path.join(parent, "docs-"))
  for (const example of examples) {
    // Empty lines before it, so that the compiler's line numbers are those of the source.
    fs.writeFileSync(fileOf(example), `${"\n".repeat(example.line - 1)}${example.code}\n`)
  }
  const settings = {
    extends: path.join(root, "tsconfig.json"),
    // An example may end with what it has shown.
    compilerOptions: { noUnusedLocals: false, typeRoots: [path.join(root, "node_modules/@types")] },
    include: ["*.ts"]
  }
  fs.writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify(settings))
})

afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

/** What the compiler says of the examples, as `file:line:column: message` of where they are written. */
const compile = (): ReadonlyArray<string> => {
  const compiler = path.join(root, "node_modules/typescript/bin/tsc")
  const { error, status, stdout } = spawnSync(process.execPath, [compiler, "--pretty", "false", "-p", folder], {
    encoding: "utf8"
  })
  if (error !== undefined) throw error
  const written = new Map(examples.map((example) => [nameOf(example), example.source]))
  const problems = Array.from(stdout.matchAll(/^(\S+\.ts)\((\d+),(\d+)\): (.*)$/gm))
  if (status !== 0 && problems.length === 0) throw new Error(`tsc ended with ${status}: ${stdout}`)
  return problems.flatMap(([, name, line, column, message]) => {
    const source = written.get(path.basename(name))
    // Problems of the package itself are for the type check of the repository.
    return source === undefined ? [] : [`${source}:${line}:${column}: ${message}`]
  })
}

describe("the examples of the documentation", () => {
  it("are found in the doc comments and in the README", () => {
    assert.isAbove(examples.filter(({ source }) => source.startsWith("src/")).length, 10)
    for (const source of readme) assert.isNotEmpty(examplesOf(source))
  })

  it("compile with the settings of the repository", { timeout: 60_000 }, () => {
    assert.deepStrictEqual(compile(), [])
  })

  describe("run without an error, where they do no TCP", () => {
    const runnable = examples.filter(({ code }) => !code.includes("NodeConnection"))
    it.each(runnable.map((example) => [titleOf(example), example] as const))("%s", async (_, example) => {
      const silent = (["log", "error"] as const).map((method) => vi.spyOn(console, method).mockImplementation(() => {}))
      try {
        await import(fileOf(example))
      } finally {
        for (const spy of silent) spy.mockRestore()
      }
    })
  })
})
