/**
 * `npm run test:runtimes`: runs runtimes/conformance.ts and the demo on Node 22.19, on this Node, on Bun and on Deno. The runtimes come
 * from npm, for Linux on x64; on other machines the missing ones are skipped, and the output says so.
 */
import * as childProcess from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import * as process from "node:process"
import { Effect, Fiber } from "effect"
import { Nonce, Peer } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import { echo, handlers, network } from "./echo.ts"

const here = import.meta.dirname
const root = path.dirname(here)
const modules = path.join(here, "node_modules")

/** The runtimes, unless what is installed came from this very lock file. */
const install = (): void => {
  const lock = fs.readFileSync(path.join(here, "package-lock.json"), "utf8")
  const installed = path.join(modules, ".installed-from.json")
  if (fs.existsSync(installed) && fs.readFileSync(installed, "utf8") === lock) return
  const npm = process.platform === "win32" ? "npm.cmd" : "npm"
  const { status } = childProcess.spawnSync(npm, ["ci", "--ignore-scripts"], {
    cwd: here,
    stdio: "inherit",
    shell: process.platform === "win32"
  })
  if (status !== 0) process.exit(1)
  fs.mkdirSync(modules, { recursive: true })
  fs.writeFileSync(installed, lock)
}

interface Runtime {
  readonly name: string
  readonly binary: string
  readonly flags: ReadonlyArray<string>
}

const runtimes: ReadonlyArray<Runtime> = [
  { name: "Node 22.19", binary: path.join(modules, "node-22/bin/node"), flags: [] },
  { name: `Node ${process.versions.node}`, binary: process.execPath, flags: [] },
  { name: "Bun 1.4.5", binary: path.join(modules, "@oven/bun-linux-x64/bin/bun"), flags: ["run"] },
  {
    name: "Deno 2.9.6",
    binary: path.join(modules, "@deno/linux-x64-glibc/deno"),
    flags: ["run", "--allow-all", "--no-check", "--node-modules-dir=manual"]
  }
]

/** The exit code of a program on a runtime. What it prints is shown, unless it is `quiet` and succeeds. */
const run = (runtime: Runtime, args: ReadonlyArray<string>, quiet = false): Effect.Effect<number> =>
  Effect.callback<number>((resume) => {
    let printed = ""
    const child = childProcess.spawn(runtime.binary, [...runtime.flags, ...args], {
      cwd: root,
      env: { ...process.env, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", NODE_NO_WARNINGS: "1" },
      stdio: ["ignore", quiet ? "pipe" : "inherit", quiet ? "pipe" : "inherit"]
    })
    for (const stream of [child.stdout, child.stderr]) stream?.on("data", (text) => void (printed += text))
    child.on("error", (error) => {
      console.log(error.message)
      resume(Effect.succeed(1))
    })
    child.on("close", (code) => {
      if (quiet && code !== 0) console.log(printed)
      resume(Effect.succeed(code ?? 1))
    })
    return Effect.sync(() => void child.kill())
  })

/** Dials the runtime that asked for it, and sends back what it sends, until it closes the connection. */
const dialBack = (port: number, transport: "v1" | "v2") =>
  Peer.dial(NodeConnection.connect({ host: "127.0.0.1", port }), { network, transport, handlers }).pipe(
    Effect.flatMap((peer) => peer.awaitShutdown),
    Effect.scoped,
    Effect.provide(Nonce.layer),
    Effect.ignore
  )

const program = Effect.gen(function* () {
  const listener = yield* NodeConnection.listen({ port: 0 })
  const serving = yield* Effect.forkChild(
    echo(listener, (port, transport) => Effect.sync(() => void Effect.runFork(dialBack(port, transport))))
  )
  const failed: Array<string> = []
  for (const runtime of runtimes) {
    if (!fs.existsSync(runtime.binary)) {
      console.log(`${runtime.name}: skipped, npm has no such binary for this machine in runtimes/package.json`)
      continue
    }
    console.log(runtime.name)
    const conformance = yield* run(runtime, [path.join(here, "conformance.ts"), String(listener.address.port)])
    const demo = yield* run(
      runtime,
      [path.join(root, "packages/btcpeer/dist/main.js"), "demo", "--blocks", "300"],
      true
    )
    console.log(`  ${demo === 0 ? "ok    " : "FAILED"}  the demo`)
    if (conformance !== 0 || demo !== 0) failed.push(runtime.name)
  }
  yield* Fiber.interrupt(serving)
  return failed
}).pipe(Effect.scoped)

install()
const failed = await Effect.runPromise(program)
console.log(failed.length === 0 ? "All runtimes pass." : `FAILED: ${failed.join(", ")}`)
process.exit(failed.length === 0 ? 0 : 1)
