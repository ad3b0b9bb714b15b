/** Every ```ts block of a doc comment and of README.md compiles. Blocks that do not use NodeConnection also run. */
import { assert, describe, it, vi } from "@effect/vitest"
import { Effect } from "effect"
import { spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { afterAll, beforeAll } from "vitest"
import { type Example, examplesOf, root } from "./support/docExamples.ts"

const sources = fs
  .readdirSync(path.join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => `src/${name.replaceAll(path.sep, "/")}`)
  .toSorted()
const examples = ["README.md", ...sources].flatMap(examplesOf)

// Inside the repository, so that the name of the package resolves to it. Git, lint and format ignore `coverage`.
const parent = path.join(root, "coverage")
let folder = ""

const nameOf = ({ line, source }: Example): string => `${source.replaceAll("/", "~")}~${line}.ts`
const fileOf = (example: Example): string => path.join(folder, nameOf(example))
const titleOf = ({ line, source }: Example): string => `${source}:${line}`

beforeAll(() => {
  fs.mkdirSync(parent, { recursive: true })
  folder = fs.mkdtempSync(path.join(parent, "docs-"))
  for (const example of examples) {
    // Empty lines before the code give the compiler the line numbers of the source.
    fs.writeFileSync(fileOf(example), `${"\n".repeat(example.line - 1)}${example.code}\n`)
  }
  const settings = {
    extends: path.join(root, "tsconfig.json"),
    // An example may end with a variable.
    compilerOptions: { noUnusedLocals: false, typeRoots: [path.join(root, "node_modules/@types")] },
    include: ["*.ts"]
  }
  fs.writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify(settings))
})

afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

/** The problems that the compiler finds, as `file:line:column: message` of the source that contains the example. */
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
    // `npm run check` reports problems of the package itself.
    return source === undefined ? [] : [`${source}:${line}:${column}: ${message}`]
  })
}

describe("the examples of the documentation", () => {
  it("are found in the doc comments and in the README", () => {
    assert.isAbove(examples.filter(({ source }) => source.startsWith("src/")).length, 10)
    assert.isAbove(examplesOf("README.md").length, 5)
  })

  it("compile with the settings of the repository", { timeout: 60_000 }, () => {
    assert.deepStrictEqual(compile(), [])
  })

  describe("run without an error, unless they use NodeConnection", () => {
    const runnable = examples.filter(({ code }) => !code.includes("NodeConnection"))
    for (const example of runnable) {
      it.effect(titleOf(example), () =>
        Effect.gen(function* () {
          const silent = (["log", "error"] as const).map((method) =>
            vi.spyOn(console, method).mockImplementation(() => {})
          )
          yield* Effect.addFinalizer(() => Effect.sync(() => silent.forEach((spy) => spy.mockRestore())))
          const module: Readonly<Record<string, unknown>> = yield* Effect.promise(() => import(fileOf(example)))
          // An example of a test exports its body, which fails if its assertions fail.
          if (Effect.isEffect(module["test"])) yield* module["test"] as Effect.Effect<void>
        })
      )
    }
  })
})
