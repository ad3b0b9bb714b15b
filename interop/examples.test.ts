/** The examples with a real node: each one prints the output that its header comment describes. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema } from "effect"
import * as fs from "node:fs"
import { chromium } from "playwright-core"
import { servePage } from "../examples/browser/serve.ts"
import * as Inbound from "../examples/inbound-peer.ts"
import * as Layers from "../examples/layers.ts"
import * as Outbound from "../examples/outbound-peer.ts"
import * as Relay from "../examples/relay.ts"
import * as Bridge from "../examples/websocket-bridge.ts"
import { Connection, Nonce } from "../src/index.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import { printing } from "../test/support/printing.ts"
import { copyChain, optionsOf, started } from "./chains.ts"
import { eventually, expecting, type InteropNode } from "./InteropNode.ts"
import { nodes } from "./nodes.ts"
import { forgotten } from "./ourPeer.ts"

const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium"

const mempool = (node: InteropNode) => node.rpc("getrawmempool").pipe(expecting(Schema.Array(Schema.String)))

describe.each(nodes)("with $name", (kind) => {
  it.live("outbound-peer prints each new block and the announced transactions", () =>
    Effect.gen(function* () {
      const { coinbase, node } = yield* started(kind)
      const { fiber, line } = yield* printing(Outbound.main(node.host, node.port))
      assert.match(yield* line, /^connected \{ userAgent: '.+', ping: '[\d.]+ ms' \}$/)
      const [hash] = yield* node.mine(1)
      assert.strictEqual(yield* line, `block ${hash}, transactions: 1`)
      yield* node.spendCoinbase(coinbase)
      assert.strictEqual(yield* line, "transactions announced: 1")
      yield* node.mine(1)
      assert.match(yield* line, /^block [0-9a-f]{64}, transactions: 2$/)
      yield* Fiber.interrupt(fiber)
      yield* forgotten(node)
    })
  )

  // bcoin disconnects from a node that offers no blocks.
  if (kind.name !== "bcoin")
    it.live("inbound-peer prints the node that connects, and its transactions", () =>
      Effect.gen(function* () {
        const { coinbase, node } = yield* started(kind)
        const listener = yield* NodeConnection.listen({ port: 0 })
        const { line } = yield* printing(Effect.provide(Inbound.serve(listener), Layer.fresh(Nonce.layer)))
        yield* node.connectTo(listener.address.port)
        assert.match(yield* line, /^127\.0\.0\.1:\d+ connected \{ userAgent: '.+' \}$/)
        const txid = yield* node.spendCoinbase(coinbase)
        assert.match(yield* line, new RegExp(`^transaction ${txid}, outputs: \\d$`))
      })
    )

  it.live("layers prints the number of headers", () =>
    Effect.gen(function* () {
      const { node } = yield* started(kind)
      const { line } = yield* printing(Effect.provide(Layers.program, Layers.layer(node.host, node.port)))
      assert.strictEqual(yield* line, "105 headers")
    })
  )

  it.live("relay passes a transaction from one node to the other", () =>
    Effect.gen(function* () {
      const { coinbase, node } = yield* started(kind)
      const other = yield* kind.start(optionsOf(kind.name))
      yield* copyChain(node, other, 105)
      yield* printing(
        Relay.main(
          ...([node, other].map(({ host, port }) => Connection.formatEndpoint({ host, port })) as [string, string])
        )
      )
      for (const each of [node, other]) yield* eventually(each.peers, (peers) => peers.some(({ subver }) => subver))
      const txid = yield* node.spendCoinbase(coinbase)
      yield* eventually(mempool(other), (inside) => inside.includes(txid))
    })
  )

  it.live.skipIf(!fs.existsSync(executablePath))("the page shows each new block", () =>
    Effect.gen(function* () {
      const { node } = yield* started(kind)
      const origin = yield* servePage(0)
      const target = { host: node.host, port: node.port }
      const bridge = yield* Bridge.listen({ origins: [origin], targets: [target] })
      const url = `ws://127.0.0.1:${bridge.port}/?target=${Connection.formatEndpoint(target)}`
      const browser = yield* Effect.acquireRelease(
        Effect.promise(() => chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] })),
        (browser) => Effect.promise(() => browser.close())
      )
      const page = yield* Effect.promise(() => browser.newPage())
      const shows = (id: string, text: string) =>
        Effect.promise(() => page.locator(`#${id}`, { hasText: text }).waitFor({ timeout: 40_000 }))
      yield* Effect.promise(() => page.goto(`${origin}/?bridge=${encodeURIComponent(url)}`))
      yield* shows("state", "connected")
      const [hash] = yield* node.mine(1)
      yield* shows("block", `${hash}, transactions: 1`)
    })
  )
})
