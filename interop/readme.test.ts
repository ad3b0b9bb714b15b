/** The programs of README.md with a real node. Their code is read from the README. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { afterAll, beforeAll } from "vitest"
import { Network, Nonce, Peer, Wire } from "../src/index.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import { examplesOf, root } from "../test/support/docExamples.ts"
import { printing } from "../test/support/printing.ts"
import * as Coins from "./coins.ts"
import { copyChain, optionsOf, started } from "./chains.ts"
import { eventually, expecting, type InteropNode } from "./InteropNode.ts"
import { nodes } from "./nodes.ts"

// Inside the repository, so that the name of the package resolves to it.
const parent = path.join(root, "coverage")
let folder = ""
beforeAll(() => {
  fs.mkdirSync(parent, { recursive: true })
  folder = fs.mkdtempSync(path.join(parent, "readme-"))
})
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }))

/** Imports the block of the README that exports `name`, and returns this function. */
const exported = (name: string): Effect.Effect<(...args: ReadonlyArray<unknown>) => unknown> =>
  Effect.promise(async () => {
    const block = examplesOf("README.md").find(
      ({ code }) => code.includes(`export const ${name} =`) || code.includes(`function ${name}(`)
    )
    if (block === undefined) throw new Error(`README.md exports no ${name}`)
    const file = path.join(folder, `${name}.ts`)
    fs.writeFileSync(file, block.code)
    const module: Record<string, (...args: ReadonlyArray<unknown>) => unknown> = await import(file)
    return module[name]!
  })

const call = Effect.fnUntraced(function* (name: string, ...args: ReadonlyArray<unknown>) {
  const result = (yield* exported(name))(...args)
  return yield* Effect.isEffect(result)
    ? (result as Effect.Effect<unknown>)
    : Effect.promise(() => Promise.resolve(result))
})

const mempool = (node: InteropNode) => node.rpc("getrawmempool").pipe(expecting(Schema.Array(Schema.String)))

const dial = ({ host, port }: InteropNode) =>
  Peer.dial(NodeConnection.connect({ host, port }), { network: Network.regtest }).pipe(Effect.provide(Nonce.layer))

describe.each(nodes)("the programs of the README with $name", (kind) => {
  it.live("the first program prints each new block", () =>
    Effect.gen(function* () {
      const { node } = yield* started(kind)
      // Effect.log prints through the console of the program.
      const { line } = yield* printing((yield* exported("program"))(node.port) as Effect.Effect<unknown>)
      assert.match(yield* line, /answers in/)
      const [hash] = yield* node.mine(1)
      assert.include(yield* line, `block ${hash}, transactions: 1`)
    })
  )

  it.live("a transaction is broadcast to three nodes, and they request it", () =>
    Effect.gen(function* () {
      const { coinbase, node } = yield* started(kind)
      const others = [yield* kind.start(optionsOf(kind.name)), yield* kind.start(optionsOf(kind.name))]
      for (const other of others) yield* copyChain(node, other, 105)
      const [transaction] = yield* Coins.makePair(node, coinbase)
      const all = [node, ...others]
      const results = (yield* call(
        "broadcast",
        all.map(({ host, port }) => ({ host, port })),
        transaction
      )) as ReadonlyArray<unknown>
      assert.deepStrictEqual(
        results.map((result) => (result as { readonly success: unknown }).success),
        all.map(({ userAgent }) => userAgent)
      )
      for (const each of all) assert.deepStrictEqual(yield* mempool(each), [Wire.hashToHex(Wire.txid(transaction))])
    })
  )

  it.live("headers are downloaded from genesis and checked", () =>
    Effect.gen(function* () {
      const { node } = yield* started(kind)
      // More headers than one answer holds.
      yield* node.mine(2_000)
      const hashes = (yield* call("downloadHeaders", yield* dial(node), Network.regtest)) as ReadonlyArray<Uint8Array>
      assert.strictEqual(hashes.length, 2_106)
      const best = yield* node.rpc("getbestblockhash").pipe(expecting(Schema.String))
      assert.strictEqual(Wire.hashToHex(hashes.at(-1)!), best)
    })
  )

  it.live("a broadcast without Effect reaches the mempool", () =>
    Effect.gen(function* () {
      const { coinbase, node } = yield* started(kind)
      const [transaction] = yield* Coins.makePair(node, coinbase)
      assert.strictEqual(yield* call("broadcastOnce", node.host, node.port, transaction), node.userAgent)
      yield* eventually(mempool(node), (inside) => inside.includes(Wire.hashToHex(Wire.txid(transaction))))
    })
  )

  if (kind.name === "bitcoind") {
    it.live("a light client finds the payments to a script by compact filters", () =>
      Effect.gen(function* () {
        const { node } = yield* started(kind, ["-blockfilterindex=1", "-peerblockfilters=1"])
        yield* node.mine(1_000)
        // The filter index is updated some time after the chain.
        const Index = Schema.Record(Schema.String, Schema.Struct({ synced: Schema.Boolean }))
        yield* eventually(node.rpc("getindexinfo").pipe(expecting(Index)), (all) =>
          Object.values(all).every(({ synced }) => synced)
        )
        const peer = yield* dial(node)
        const hashes = yield* call("downloadHeaders", peer, Network.regtest)
        const found = (yield* call("findPayments", peer, Coins.payToScriptHash, hashes)) as ReadonlyArray<unknown>
        assert.strictEqual(found.length, 1_105)
        assert.isEmpty(yield* call("findPayments", peer, Uint8Array.of(0x52), hashes))
      })
    )
  }
})

describe("the README", () => {
  it.effect("exports its programs", () =>
    Effect.gen(function* () {
      for (const name of ["program", "broadcast", "downloadHeaders", "findPayments", "broadcastOnce"]) {
        assert.isFunction(yield* exported(name), name)
      }
    })
  )
})
