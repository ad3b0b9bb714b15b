/**
 * From the start of a process to its first completed handshake, in fresh processes of plain JavaScript, as an installed program runs:
 * the package is built, and found under its name in a `node_modules`.
 */
import { spawn, spawnSync } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { performance } from "node:perf_hooks"
import { rolldown } from "rolldown"
import { duration, factor, quantile, row, verdict } from "./harness.ts"

const checkout = path.join(import.meta.dirname, "..")
const rounds = 7

/** Connects to the port in its first argument, prints a line when the handshake is completed, and exits. */
const ours = (imports: string): string => `${imports}
const options = { network: Network.regtest, transport: "v1" }
const program = Effect.gen(function* () {
  yield* Peer.dial(NodeConnection.connect({ host: "127.0.0.1", port: Number(process.argv[2]) }), options)
  yield* Effect.sync(() => console.log("connected"))
})
await Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(Nonce.layer)))
process.exit(0)
`

const programs = {
  "barrel.mjs": ours(`import { Effect } from "effect"
import { Network, Nonce, Peer } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"`),
  "deep.mjs": ours(`import * as Effect from "effect/Effect"
import * as Network from "effect-bitcoin-peer/Network"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import * as Nonce from "effect-bitcoin-peer/Nonce"
import * as Peer from "effect-bitcoin-peer/Peer"`),
  "bcoin.cjs": `process.env.NODE_BACKEND = "js"
require("mrmr")
delete process.env.NODE_BACKEND
const Peer = require("bcoin/lib/net/peer")
const NetAddress = require("bcoin/lib/net/netaddress")
const peer = Peer.fromOptions({ network: "regtest" })
peer.on("error", () => {})
peer.connect(NetAddress.fromHost("127.0.0.1", Number(process.argv[2]), "regtest"))
peer.open().then(() => { console.log("connected"); process.exit(0) })
`,
  "bitcore.cjs": `require("buffers").prototype.get = function (i) {
  const pos = this.pos(i)
  return this.buffers[pos.buf][pos.offset]
}
const { Peer } = require("bitcore-p2p")
const peer = new Peer({ host: "127.0.0.1", port: Number(process.argv[2]), network: "regtest" })
peer.on("ready", () => { console.log("connected"); process.exit(0) })
peer.connect()
`,
  "plain.mjs": `import * as net from "node:net"
import * as Network from "effect-bitcoin-peer/Network"
import * as Wire from "effect-bitcoin-peer/Wire"
const { magic } = Network.regtest
const nowhere = { services: 0n, address: new Uint8Array(16), port: 0 }
const write = (...messages) => socket.write(Wire.encodeFrames(magic, messages).success)
const parser = Wire.makeParser({ magic })
const socket = net.connect({ port: Number(process.argv[2]), host: "127.0.0.1", noDelay: true }, () =>
  write({ _tag: "version", protocolVersion: 70016, services: 9n, timestamp: Math.floor(Date.now() / 1000), receiver: nowhere,
    sender: nowhere, nonce: 1n, userAgent: "/plain:0.1.0/", startHeight: 0, relay: true })
)
socket.on("data", (chunk) => {
  for (const { message } of parser.push(chunk)) {
    if (message._tag === "version") write({ _tag: "wtxidrelay" }, { _tag: "sendaddrv2" }, { _tag: "verack" })
    else if (message._tag === "verack") { console.log("connected"); process.exit(0) }
  }
})
`
}

/** A directory with the programs and a `node_modules` that has the packages of this checkout and of the benchmark. */
const install = async (): Promise<string> => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "benchmark-start-"))
  const modules = path.join(directory, "node_modules")
  fs.mkdirSync(modules)
  for (const from of [path.join(checkout, "node_modules"), path.join(import.meta.dirname, "node_modules")]) {
    for (const name of fs.existsSync(from) ? fs.readdirSync(from) : []) {
      const to = path.join(modules, name)
      if (!name.startsWith(".") && !fs.existsSync(to)) fs.symlinkSync(path.join(from, name), to)
    }
  }
  for (const [name, text] of Object.entries(programs)) fs.writeFileSync(path.join(directory, name), text)
  const bundle = await rolldown({ input: path.join(directory, "barrel.mjs"), platform: "node" })
  await bundle.write({ file: path.join(directory, "bundled.mjs"), format: "esm" })
  return directory
}

/** Milliseconds from the start of a process until it has printed that it is connected. */
const startTime = (cwd: string, args: ReadonlyArray<string>): Promise<number> =>
  new Promise((resolve, reject) => {
    const started = performance.now()
    const child = spawn(process.execPath, args, { cwd, stdio: ["ignore", "pipe", "pipe"], timeout: 10_000 })
    let printed = ""
    let took: number | undefined
    child.stdout.on("data", (text) => {
      printed += text
      if (took !== undefined || !/connected/i.test(printed)) return
      took = performance.now() - started
      child.kill()
    })
    child.stderr.on("data", (text) => (printed += text))
    child.on("error", reject)
    child.on("close", () => (took === undefined ? reject(new Error(`${args.join(" ")}:\n${printed}`)) : resolve(took)))
  })

interface Variant {
  readonly name: string
  readonly args: ReadonlyArray<string>
  /** Milliseconds. */
  readonly limit?: number | undefined
}

export const startTitle = "process start to the first completed handshake"

/** Adds the rows of the start. Each connects to a warm server of the same implementation. */
export const measureStart = async (
  servers: ReadonlyArray<{ readonly file: string; readonly name: string; readonly port: number }>
): Promise<void> => {
  const { status } = spawnSync("npm", ["run", "build"], { cwd: checkout, stdio: ["ignore", "ignore", "inherit"] })
  if (status !== 0) throw new Error("npm run build failed")
  const directory = await install()
  const btcpeer = path.join(checkout, "packages/btcpeer")
  const { bin } = JSON.parse(fs.readFileSync(path.join(btcpeer, "package.json"), "utf8")) as {
    readonly bin: { readonly btcpeer: string }
  }
  const variants = servers.flatMap(({ file, name, port }): ReadonlyArray<Variant> => {
    const program = (suffix: string, file: string, limit?: number): Variant => ({
      name: name + suffix,
      args: [file, `${port}`],
      limit
    })
    if (file !== "ours")
      return [
        program(
          "",
          Object.keys(programs).find((name) => name.startsWith(`${file}.`))!
        )
      ]
    const flags = ["--network=regtest", "--transport=v1"]
    return [
      program(", bundled", "bundled.mjs", 200),
      program(", deep imports", "deep.mjs"),
      program(", imported from the barrels", "barrel.mjs"),
      {
        name: "btcpeer connect",
        args: [path.join(btcpeer, bin.btcpeer), "connect", `127.0.0.1:${port}`, ...flags],
        limit: 260
      }
    ]
  })
  const times: Array<Array<number>> = variants.map(() => [])
  for (let round = -1; round < rounds; round++) {
    for (const [at, { args }] of variants.entries()) {
      const took = await startTime(directory, args)
      if (round >= 0) times[at]!.push(took)
    }
  }
  fs.rmSync(directory, { recursive: true })
  for (const [at, { limit, name }] of variants.entries()) {
    const median = quantile(times[at]!, 0.5)
    const ratio = quantile(
      times[at]!.map((time, round) => time / times[0]![round]!),
      0.5
    )
    row(
      at === 0 ? startTitle : "",
      name,
      duration(median),
      "",
      at === 0 ? "" : factor(ratio),
      limit === undefined ? "" : verdict(median, limit, `≤ ${limit} ms`, true)
    )
  }
}
