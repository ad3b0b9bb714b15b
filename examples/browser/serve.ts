/**
 * Bundles the page, serves it on loopback, and runs the bridge through which it reaches a node. In a checkout, after
 * `npm run build`: `npx node examples/browser/serve.ts 127.0.0.1:18444`
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { Connection } from "effect-bitcoin-peer"
import * as fs from "node:fs"
import * as http from "node:http"
import type { AddressInfo } from "node:net"
import * as path from "node:path"
import { rolldown } from "rolldown"
import * as Bridge from "../websocket-bridge.ts"

const file = (name: string): string => path.join(import.meta.dirname, name)

/** The program of the page with its imports, as one script. */
export const bundle = Effect.promise(async () => {
  const build = await rolldown({
    input: file("main.ts"),
    platform: "browser",
    // Resolves the package to its sources, which need no build.
    resolve: { conditionNames: ["@effect-bitcoin-peer/source", "browser", "import", "module", "default"] }
  })
  const { output } = await build.generate({ format: "esm", minify: true })
  await build.close()
  return output[0].code
})

/** Serves the page on loopback until its scope closes. */
export const servePage = Effect.fnUntraced(function* (port: number) {
  const code = yield* bundle
  const page = fs.readFileSync(file("index.html"))
  const server = http.createServer(({ url = "" }, response) => {
    const [name] = url.split("?")
    if (name === "/main.js") response.setHeader("content-type", "text/javascript").end(code)
    else if (name === "/") response.setHeader("content-type", "text/html").end(page)
    else response.writeHead(404).end()
  })
  yield* Effect.acquireRelease(
    Effect.callback<void, Error>((resume) => {
      server.once("error", (error) => resume(Effect.fail(error)))
      server.listen(port, "127.0.0.1", () => resume(Effect.void))
    }),
    () =>
      Effect.sync(() => {
        server.close()
        server.closeAllConnections()
      })
  )
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})

export const main = Effect.fnUntraced(function* (port: number, target: Connection.Endpoint) {
  const origin = yield* servePage(port)
  const bridge = yield* Bridge.listen({ origins: [origin], targets: [target] })
  const url = `ws://127.0.0.1:${bridge.port}/?target=${Connection.formatEndpoint(target)}`
  yield* Console.log(`${origin}/?bridge=${encodeURIComponent(url)}`)
  return yield* Effect.never
}, Effect.scoped)

if (import.meta.main) NodeRuntime.runMain(main(8000, Bridge.endpoint(process.argv[2] ?? "127.0.0.1:18444")))
