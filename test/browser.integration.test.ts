/** The example page in headless Chromium: a peer over a WebSocket and the bridge to a node on loopback. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { Connection, Network, Nonce, Peer, PeerServer, Wire } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import { RegtestChain } from "effect-bitcoin-peer/testing"
import * as fs from "node:fs"
import { type Browser, chromium, type ConsoleMessage, type Page } from "playwright-core"
import { afterAll, beforeAll } from "vitest"
import { servePage } from "../examples/browser/serve.ts"
import * as Bridge from "../examples/websocket-bridge.ts"
import { bundle } from "./support/bundle.ts"

const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium"
const isInstalled = fs.existsSync(executablePath)

let browser: Browser
let page: Page

/** Serves the page and the bridge to the targets. */
const serving = Effect.fnUntraced(function* (targets: ReadonlyArray<Connection.Endpoint>) {
  const origin = yield* servePage(0)
  const bridge = yield* Bridge.listen({ origins: [origin], targets })
  return { origin, url: (target: string) => `ws://127.0.0.1:${bridge.port}/?target=${target}` }
})

/** Opens an address in the page, reads its elements and console, and leaves it at the end. */
const open = Effect.fnUntraced(function* (url: string) {
  const printed: Array<string> = []
  const onConsole = (message: ConsoleMessage) => void printed.push(message.text())
  const onError = (error: Error) => void printed.push(String(error))
  page.on("console", onConsole).on("pageerror", onError)
  const leave = Effect.promise(() => page.goto("about:blank"))
  yield* Effect.addFinalizer(() => {
    page.off("console", onConsole).off("pageerror", onError)
    return leave
  })
  yield* Effect.promise(() => page.goto(url))
  /** Waits until the text of an element matches. */
  const shows = (id: string, pattern: RegExp) =>
    Effect.promise(async () => {
      await page.locator(`#${id}`, { hasText: pattern }).waitFor({ timeout: 40_000 })
      return page.locator(`#${id}`).innerText()
    })
  return { leave, printed, shows }
})

const pageOf = (origin: string, bridge: string): string => `${origin}/?bridge=${encodeURIComponent(bridge)}`

const zeros = new Uint8Array(32)
const { genesis } = RegtestChain

/** A block of nearly 4,000,000 bytes: the bridge splits it into more than 60 WebSocket messages. */
const bigBlock = RegtestChain.mineBlock(
  { blocks: [genesis], hashes: [Wire.blockHash(genesis.header)] },
  {
    timestamp: genesis.header.timestamp + 600,
    transactions: Array.from({ length: 389 }, (_, lockTime) => ({
      version: 2,
      inputs: [{ previousOutput: { txid: zeros, index: 0 }, script: new Uint8Array(0), sequence: 0, witness: [] }],
      outputs: [{ value: 0, script: new Uint8Array(10_000) }],
      lockTime
    }))
  }
)

const skipped = `there is no Chromium at ${executablePath}; set CHROMIUM to the path of one`
if (!isInstalled) console.warn(`Skipped: ${skipped}`)
const title = `a peer in a page in Chromium${isInstalled ? "" : ` (skipped: ${skipped})`}`

describe.skipIf(!isInstalled)(title, () => {
  beforeAll(async () => {
    browser = await chromium.launch({
      executablePath,
      args: [
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync"
      ]
    })
    page = await browser.newPage()
  }, 60_000)

  afterAll(() => browser?.close())

  it.live("completes the handshake, pings, fetches an announced block of 4 MB, and shows the end", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const connected = yield* Deferred.make<Peer.Peer>()
      yield* PeerServer.serve(listener, {
        peer: {
          network: Network.regtest,
          userAgent: "/<b>node</b>:1/",
          services: Wire.Service.network | Wire.Service.witness,
          startHeight: Effect.succeed(104),
          handlers: {
            getdata: ({ items }, peer) => Effect.forEach(items, () => peer.send({ _tag: "block", block: bigBlock }))
          }
        },
        onPeer: (peer) => Deferred.succeed(connected, peer)
      }).pipe(Effect.provide(Layer.fresh(Nonce.layer)), Effect.forkScoped)
      const { origin, url } = yield* serving([listener.address])

      const { printed, shows } = yield* open(pageOf(origin, url(Connection.formatEndpoint(listener.address))))
      assert.strictEqual(yield* shows("userAgent", /./), "/<b>node</b>:1/")
      assert.strictEqual(yield* shows("services", /./), "NETWORK, WITNESS, P2P_V2")
      assert.strictEqual(yield* shows("height", /./), "104")
      assert.strictEqual(yield* shows("state", /^connected$/), "connected")
      assert.match(yield* shows("ping", /./), /^[\d.]+ ms$/)

      const node = yield* Deferred.await(connected)
      assert.match(node.info.userAgent, /^\/effect-bitcoin-peer:/)
      yield* node.ping
      const hash = Wire.blockHash(bigBlock.header)
      yield* node.announce([{ type: Wire.InventoryType.block, hash }])
      assert.strictEqual(yield* shows("block", /./), `${Wire.hashToHex(hash)}, transactions: 390`)

      yield* node.disconnect()
      assert.strictEqual(yield* shows("state", /^disconnected/), "disconnected: the peer closed the connection")
      assert.strictEqual(yield* Effect.promise(() => page.locator("b").count()), 0)
      assert.deepStrictEqual(printed, [])
    })
  )

  it.live("ends the node's peer when the page is left", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const { origin, url } = yield* serving([listener.address])
      const { leave, shows } = yield* open(pageOf(origin, url(Connection.formatEndpoint(listener.address))))
      const peer = yield* Peer.make(yield* listener.accept, { direction: "inbound", network: Network.regtest }).pipe(
        Effect.provide(Layer.fresh(Nonce.layer))
      )
      yield* shows("state", /^connected$/)
      yield* leave
      assert.strictEqual((yield* peer.awaitShutdown)._tag, "RemoteClosed")
    })
  )

  it.live("shows why the connection or handshake failed", () =>
    Effect.gen(function* () {
      const gone = yield* Effect.scoped(Effect.map(NodeConnection.listen({ port: 0 }), ({ address }) => address))
      const { origin, url } = yield* serving([gone])
      const target = Connection.formatEndpoint(gone)
      const reasons = {
        [url("127.0.0.1:1")]: /4403: the bridge does not allow this target$/,
        [url(target)]: new RegExp(`4502: connect ${target}: connection refused$`),
        [`ws://${target}/`]: /the WebSocket failed$/,
        ["ws://["]: /connect unknown:0: .*URL/
      }
      for (const [bridge, reason] of Object.entries(reasons)) {
        const { shows } = yield* open(pageOf(origin, bridge))
        assert.match(yield* shows("state", /^disconnected/), reason)
      }
    })
  )

  it.live("is refused by the bridge if its origin is another one", () =>
    Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const { url } = yield* serving([listener.address])
      const other = yield* servePage(0)
      const { shows } = yield* open(pageOf(other, url(Connection.formatEndpoint(listener.address))))
      assert.match(yield* shows("state", /^disconnected/), /the WebSocket failed$/)
    })
  )

  describe("a connection", () => {
    /** A page with the test program loaded, and a node that it can reach. */
    const programmed = Effect.gen(function* () {
      const listener = yield* NodeConnection.listen({ port: 0 })
      const { origin, url } = yield* serving([listener.address])
      yield* open(origin)
      const { code } = yield* Effect.promise(() =>
        bundle(`export { default } from "./support/webSocketInPage.ts"`, "iife")
      )
      yield* Effect.promise(() => page.addScriptTag({ content: code }))
      const call = (name: string, ...args: ReadonlyArray<unknown>) =>
        Effect.promise(() => page.evaluate(`bundled.${name}(...${JSON.stringify(args)})`))
      return { listener, url: url(Connection.formatEndpoint(listener.address)), call }
    })

    it.live("is Reset when more bytes arrive than maxUnread, and still gives all bytes that it held", () =>
      Effect.gen(function* () {
        const { call, listener, url } = yield* programmed
        const result = yield* Effect.forkChild(call("hold", url, 1_000_000), { startImmediately: true })
        const node = yield* listener.accept
        const flooding = Effect.forever(
          Effect.suspend(() => {
            node.write(new Uint8Array(65_536))
            return node.drained
          })
        )
        assert.strictEqual((yield* Effect.flip(flooding)).reason._tag, "Closed")
        const { end, held, received } = (yield* Fiber.join(result)) as Readonly<Record<string, unknown>>
        assert.strictEqual(end, "connection reset: more than 1000000 bytes arrived and were not pulled")
        assert.strictEqual(held, received)
        // Besides the limit: 64 KiB that are read ahead, and the message that exceeded the limit.
        assert.isAtLeast(Number(held), 900_000)
        assert.isAtMost(Number(held), 1_000_000 + 3 * 65_536)
      })
    )

    it.live("suspends its writer while the other side does not read", () =>
      Effect.gen(function* () {
        const { call, listener, url } = yield* programmed
        const result = yield* Effect.forkChild(call("fillUp", url, 500), { startImmediately: true })
        yield* listener.accept
        const { buffered, written } = (yield* Fiber.join(result)) as Record<"buffered" | "written", number>
        // At most as many bytes as the buffers of the kernel and of the bridge hold.
        assert.isBelow(written, 33_554_432)
        assert.isAtMost(buffered, 262_144 + 65_536)
      })
    )
  })
})
