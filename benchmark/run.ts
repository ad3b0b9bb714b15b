/** Runs all or the named benchmarks, each in a process of its own, so that they do not affect each other's compiled code. */
import { spawnSync } from "node:child_process"
import * as os from "node:os"
import * as path from "node:path"
import { pretenuringFlag } from "./harness.ts"

const questions = ["codec", "lists", "parser", "transport", "peer", "tcp", "peers", "simulation"]
/** Those that run once more with the flag of V8: it changes how fast objects are made that live as long as a block. */
const withFlag = new Set(["codec", "lists"])
const asked = process.argv.slice(2)
const unknown = asked.filter((name) => !questions.includes(name))
if (unknown.length > 0) {
  console.error(`no such benchmark: ${unknown.join(", ")} (available: ${questions.join(", ")})`)
  process.exit(1)
}

const processors = os.cpus()
console.log(
  `Node ${process.versions.node}, ${processors.length} × ${processors[0]?.model.trim()}, ${os.platform()} ${os.release()}, ` +
    `load ${os
      .loadavg()
      .map((load) => load.toFixed(1))
      .join(", ")}`
)
/** What a command begins with to run in a network namespace that has nothing but loopback; nothing where none can be made. */
const isolated = (): ReadonlyArray<string> => {
  const own = [["-n"], ["-rn"]].find((flags) => spawnSync("unshare", [...flags, "true"]).status === 0)
  return own === undefined ? [] : ["unshare", ...own, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
}

const run = (name: string, flags: ReadonlyArray<string>): void => {
  console.error(`\n${[name, ...flags].join(" ")}`)
  // It starts a node, which must not reach the network.
  const prefix = name === "peer" && process.env.BITCOIND !== undefined ? isolated() : []
  const node = [...process.execArgv, ...flags, path.join(import.meta.dirname, `${name}.ts`)]
  const [command, ...args] = [...prefix, process.execPath, ...node] as const
  const { status } = spawnSync(command!, args, { stdio: "inherit" })
  if (status !== 0) process.exit(status ?? 1)
}

for (const name of asked.length > 0 ? asked : questions) {
  run(name, [])
  if (withFlag.has(name)) run(name, [pretenuringFlag])
}
