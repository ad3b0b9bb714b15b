/** Doc comments: every public export has `@category`, `@since` and a complete first sentence, as in Effect. */
import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import * as path from "node:path"

const src = path.resolve(import.meta.dirname, "../src")

/** The public modules: the files that `exports` of package.json opens. */
const modules = ["", "server/", "testing/"].flatMap((folder) =>
  fs
    .readdirSync(path.join(src, folder))
    .filter((name) => name.endsWith(".ts") && name !== "index.ts")
    .map((name) => folder + name)
)

interface Declared {
  readonly file: string
  readonly name: string
  /** The doc comment directly before the declaration, if any. */
  readonly comment: string | undefined
}

const declaration = /^export (?:declare )?(?:abstract )?(?:const|class|interface|type|function) (\w+)/gm
const reExport = /^export (?:type )?\{([^}]*)\} from "(\.[^"]+)"/gm

const commentBefore = (text: string, offset: number): string | undefined =>
  /\/\*\*(?:(?!\*\/)[\s\S])*\*\/\s*$/.exec(text.slice(0, offset))?.[0]

/** The exports of a file: its own declarations, and those of other files that it re-exports. */
const exportsOf = (file: string): ReadonlyArray<Declared> => {
  const text = fs.readFileSync(file, "utf8")
  const own = Array.from(text.matchAll(declaration), ({ 1: name, index }) => ({
    file,
    name: name!,
    comment: commentBefore(text, index)
  }))
  const again = Array.from(text.matchAll(reExport)).flatMap(([, list, specifier]) => {
    const names = list!.replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "").split(",")
    const wanted = new Set(
      names.map(
        (name) =>
          name
            .trim()
            .replace(/^type /, "")
            .split(" as ")[0]!
      )
    )
    return exportsOf(path.resolve(path.dirname(file), specifier!)).filter(({ name }) => wanted.has(name))
  })
  return [...own, ...again]
}

/** The declarations to check. A type beside its schema of the same name may leave the comment to the schema. */
const documented = (module: string): ReadonlyArray<Declared> => {
  const all = exportsOf(path.join(src, module))
  return all.filter(
    ({ comment, file, name }) =>
      comment !== undefined ||
      !all.some((other) => other.name === name && other.file === file && other.comment !== undefined)
  )
}

const tags: ReadonlyArray<readonly [what: string, pattern: RegExp]> = [
  ["a category", /@category [a-z]/],
  ["a version in @since", /@since \d+\.\d+\.\d+/],
  ["a first sentence", /^\/\*\*[\s*]*[A-Z`"0-9][\s\S]*?\.(?:\s|\*\/)/]
]

const without = (module: string, pattern: RegExp): ReadonlyArray<string> =>
  documented(module)
    .filter(({ comment }) => !pattern.test(comment ?? ""))
    .map(({ file, name }) => `${path.relative(src, file).replaceAll(path.sep, "/")}: ${name}`)

describe("the exports of the public modules", () => {
  it("are found", () => {
    for (const module of modules) assert.isNotEmpty(documented(module), module)
  })

  for (const [what, pattern] of tags) {
    it.each(modules)(`have ${what} in %s`, (module) => {
      assert.deepStrictEqual(without(module, pattern), [])
    })
  }
})
