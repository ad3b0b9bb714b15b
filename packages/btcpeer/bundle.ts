/**
 * Bundles the command with all its third-party code into `dist`, or the folder of the first argument: as the 430 modules that it is
 * made of, it starts in more than twice the time. `tsc` makes `events`, which is for programs and imports their `effect`.
 */
import * as fs from "node:fs"
import * as path from "node:path"
import { rolldown } from "rolldown"

const here = import.meta.dirname
const dist = process.argv[2] ?? path.join(here, "dist")
/** `main` imports `process` when it has enabled the compile cache. */
const inputs = { main: path.join(here, "src/main.ts"), process: path.join(here, "src/process.ts") }

/** The folders of the npm packages that these modules are of. */
const packagesOf = (modules: ReadonlyArray<string>): ReadonlyArray<string> => {
  const folders = modules.flatMap((id) => /^.*[\\/]node_modules[\\/](?:@[^\\/]+[\\/])?[^\\/]+/.exec(id)?.[0] ?? [])
  return [...new Set(folders)].toSorted()
}

/** Name, version and licence of a package. */
const licenceOf = (folder: string): string => {
  const { license, name, version } = JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8"))
  const file = fs.readdirSync(folder).find((name) => /^licen[cs]e/i.test(name))
  if (file === undefined) throw new Error(`${name} has no file with its licence`)
  return `${name} ${version} (${license})\n\n${fs.readFileSync(path.join(folder, file), "utf8").trim()}\n`
}

const build = await rolldown({
  input: inputs,
  platform: "node",
  // Resolves the library to its sources, which need no build.
  resolve: { conditionNames: ["@effect-bitcoin-peer/source", "node", "import", "default"] },
  // What no other module imports would be left out as unused.
  treeshake: { moduleSideEffects: (id) => Object.values(inputs).includes(id) },
  onLog: (_, { message }) => {
    throw new Error(message)
  }
})
const { output } = await build.write({ dir: dist, comments: { legal: true, jsdoc: false } })
await build.close()

const modules = output.flatMap((file) => (file.type === "chunk" ? file.moduleIds : []))
const licences = packagesOf(modules).map(licenceOf)
fs.writeFileSync(path.join(dist, "THIRD-PARTY-LICENSES"), licences.join(`\n${"-".repeat(80)}\n\n`))
