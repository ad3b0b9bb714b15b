/** The package in a browser: `index.ts` bundles into one file without Node modules. */
import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import { builtinModules } from "node:module"
import * as path from "node:path"
import * as vm from "node:vm"
import * as Wire from "../src/Wire.ts"
import { bundle } from "./support/bundle.ts"

const root = path.resolve(import.meta.dirname, "..")
const sources = fs
  .readdirSync(path.join(root, "src"), { recursive: true, encoding: "utf8" })
  .filter((name) => name.endsWith(".ts"))
  .map((name) => `src/${name.replaceAll(path.sep, "/")}`)

/** The run-time imports of a source. */
const importsOf = (source: string): ReadonlyArray<string> => {
  const text = fs.readFileSync(path.join(root, source), "utf8")
  const found = text.matchAll(/^(?:import|export)\b(?! type)(?:[^"'`=()]*?\bfrom)? ["']([^"']+)["']/gm)
  return Array.from(found, ([, id]) => id!)
}

/** The sources and packages that a source needs, including itself. */
const needs = (source: string, found = new Set<string>()): ReadonlySet<string> => {
  if (found.has(source)) return found
  found.add(source)
  for (const id of source.endsWith(".ts") ? importsOf(source) : []) {
    needs(id.startsWith(".") ? path.posix.join(path.posix.dirname(source), id) : id, found)
  }
  return found
}

const needsNode = (source: string): boolean =>
  [...needs(source)].some(
    (id) => id.startsWith("node:") || builtinModules.includes(id) || id.startsWith("@effect/platform-node")
  )

describe("in a browser", () => {
  it("only the public modules named after Node import node: modules", () => {
    const modules = sources.filter((source) => path.posix.dirname(source) === "src")
    assert.isAbove(modules.length, 5)
    assert.include(modules.filter(needsNode), "src/NodeConnection.ts")
    assert.deepStrictEqual(
      modules.filter((source) => !source.startsWith("src/Node") && needsNode(source)),
      []
    )
  })

  it("`index.ts` bundles into one file without imports", async () => {
    const { code, ...rest } = await bundle(`export * from "effect-bitcoin-peer"`)
    assert.isAbove(code.length, 100_000)
    assert.deepStrictEqual(rest, { builtins: [], dynamicImports: [], files: 1, imports: [], problems: [] })
  })

  it.each(["server", "testing"])("`%s/index.ts` bundles without modules of Node", async (room) => {
    const { builtins, imports, problems } = await bundle(`export * from "effect-bitcoin-peer/${room}"`)
    assert.deepStrictEqual({ builtins, imports, problems }, { builtins: [], imports: [], problems: [] })
  })

  it("the test detects a bundle that imports a module of Node", async () => {
    const { builtins } = await bundle(`export * from "effect-bitcoin-peer/NodeConnection"`)
    assert.include(builtins, "src/connection/net/netSocket.ts imports node:net")
    assert.deepStrictEqual(
      builtins.filter((found) => !/^src\/(NodeConnection\.ts|connection\/net\/\w+\.ts) imports node:\w+$/.test(found)),
      []
    )
  })

  it("unused modules are not in the bundle", async () => {
    const none = await bundle(`import "effect-bitcoin-peer"`)
    assert.strictEqual(none.code.trim(), "")
    const wire = await bundle(`import { Wire } from "effect-bitcoin-peer"; console.log(Wire.decode)`)
    const all = await bundle(`export * from "effect-bitcoin-peer"`)
    assert.isBelow(wire.code.length, all.code.length / 4)
    assert.notInclude(wire.code, "effect-bitcoin-peer/Nonce")
  })

  const zeros = new Uint8Array(32)
  const header = { version: 1, previousBlock: zeros, merkleRoot: zeros, timestamp: 0, bits: 0, nonce: 0 }

  it("the bundle runs without `process`, `Buffer`, `setImmediate` and `require`", async () => {
    const { code } = await bundle(
      `
      import { Effect, Layer } from "effect"
      import { Connection, Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"
      const network = Network.regtest
      const zeros = new Uint8Array(32)
      const transactions = Array.from({ length: 100 }, () => ({
        version: 2,
        inputs: [{ previousOutput: { txid: zeros, index: 0 }, script: new Uint8Array(10), sequence: 0, witness: [] }],
        outputs: [{ value: 1, script: new Uint8Array(5_000) }],
        lockTime: 0
      }))
      const block = { header: { version: 1, previousBlock: zeros, merkleRoot: zeros, timestamp: 0, bits: 0, nonce: 0 }, transactions }
      const make = (connection, options) =>
        Peer.make(connection, { network, requiredServices: [], ...options }).pipe(Effect.provide(Layer.fresh(Nonce.layer)))
      export const result = Effect.runPromise(Effect.scoped(Effect.gen(function* () {
        const [a, b] = yield* Connection.makePair()
        const arrived = Promise.withResolvers()
        const [peer, other] = yield* Effect.all([
          make(a, { handlers: { block: (message) => arrived.resolve(message.block) } }),
          make(b, { direction: "inbound", userAgent: "/other:1/" })
        ], { concurrency: 2 })
        yield* peer.ping
        yield* other.send({ _tag: "block", block })
        const { header, transactions } = yield* Effect.promise(() => arrived.promise)
        return [peer.info.userAgent, transactions.length, Wire.hashToHex(Wire.blockHash(header))].join(" ")
      })))
    `,
      "iife"
    )
    // Only the globals of a browser.
    const names = ["AbortController", "AbortSignal", "TextDecoder", "TextEncoder", "URL", "clearTimeout", "console"]
    names.push("crypto", "performance", "queueMicrotask", "setTimeout")
    const context = vm.createContext(Object.fromEntries(names.map((name) => [name, Reflect.get(globalThis, name)])))
    const result: unknown = await vm.runInContext(`${code}\nbundled.result`, context)
    assert.strictEqual(result, `/other:1/ 100 ${Wire.hashToHex(Wire.blockHash(header))}`)
  })
})
