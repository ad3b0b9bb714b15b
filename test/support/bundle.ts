/** Bundles programs for the browser with rolldown. */
import { builtinModules } from "node:module"
import * as path from "node:path"
import { rolldown } from "rolldown"

const root = path.resolve(import.meta.dirname, "../..")
/** This file does not exist: the plugin below provides its text. */
const entry = path.join(root, "test/entry.ts")

/** Bundles a program for the browser, and reports the Node modules that it imports. */
export const bundle = async (program: string, format: "esm" | "iife" = "esm") => {
  const builtins = new Set<string>()
  const problems: Array<string> = []
  const build = await rolldown({
    input: entry,
    platform: "browser",
    resolve: { conditionNames: ["@effect-bitcoin-peer/source", "browser", "import", "module", "default"] },
    onLog: (_, { message }) => void problems.push(message),
    plugins: [
      {
        name: "program",
        resolveId: (id, importer = entry) => {
          if (id === entry) return id
          if (id.startsWith("node:") || builtinModules.includes(id)) {
            builtins.add(`${path.relative(root, importer)} imports ${id}`)
          }
          return null
        },
        load: (id) => (id === entry ? program : null)
      }
    ]
  })
  const { output } = await build.generate({ format, name: "bundled", minify: true })
  await build.close()
  const { code, dynamicImports, imports } = output[0]
  return { code, dynamicImports, imports, builtins: [...builtins], problems, files: output.length }
}
