/** Runs all or the named benchmarks, each in a process of its own, so that they do not affect each other's compiled code. */
import { spawnSync } from "node:child_process"
import * as os from "node:os"
import * as path from "node:path"

const questions = ["codec", "lists", "parser", "transport", "peer", "tcp", "peers"]
const asked = process.argv.slice(2)
const unknown = asked.filter((name) => !questions.includes(name))
if (unknown.length > 0) {
  console.error(`no such benchmark: ${unknown.join(", ")} (available: ${questions.join(", ")})`)
  process.exit(1)
}

const processors = os.cpus()
console.log(
  `Node ${process.versions.node}, ${processors.length} × ${processors[0]?.model.trim()}, ${os.platform()} ${os.release()}`
)
for (const name of asked.length > 0 ? asked : questions) {
  console.error(`\n${name}`)
  const { status } = spawnSync(process.execPath, [...process.execArgv, path.join(import.meta.dirname, `${name}.ts`)], {
    stdio: "inherit"
  })
  if (status !== 0) process.exit(status ?? 1)
}
