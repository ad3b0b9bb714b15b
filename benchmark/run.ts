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

for (const name of asked.length > 0 ? asked : questions) {
  console.error(`\n${name}`)
  // It starts a node, which must not reach the network.
  const prefix = name === "peer" && process.env.BITCOIND !== undefined ? isolated() : []
  const node = [...process.execArgv, path.join(import.meta.dirname, `${name}.ts`)]
  const [command, ...args] = [...prefix, process.execPath, ...node] as const
  const { status } = spawnSync(command!, args, { stdio: "inherit" })
  if (status !== 0) process.exit(status ?? 1)
}
