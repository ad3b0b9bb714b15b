/**
 * A bridge from WebSockets to TCP, so that a web page can reach nodes. After `npm run build`, with the origin of the pages
 * and the nodes that they may reach: `npx node examples/websocket-bridge.ts http://127.0.0.1:8000 127.0.0.1:18444`. A page then
 * opens `ws://127.0.0.1:8380/?target=127.0.0.1:18444`
 *
 * Every page in a browser on this machine can open a WebSocket to this machine, whatever its origin. So the bridge has two
 * lists, of origins and of targets, and refuses everything that is not in them literally.
 */
import { NodeRuntime, NodeSocketServer } from "@effect/platform-node"
import { Console, Effect, Option } from "effect"
import { NetAddress } from "effect/net"
import { Socket } from "effect/socket"
import { Connection } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"

export interface Options {
  /** Default 127.0.0.1. */
  readonly host?: string | undefined
  /** Default 0: a free port. */
  readonly port?: number | undefined
  /** For example `http://127.0.0.1:8000`. A client without an `Origin` header is no page; it could claim any, and is accepted. */
  readonly origins: ReadonlyArray<string>
  /** The allowed values of `?target=`, as `Connection.formatEndpoint` writes them. */
  readonly targets: ReadonlyArray<Connection.Endpoint>
  /** The maximum number of open WebSockets. Default 32. */
  readonly maxConnections?: number | undefined
}

/**
 * Close codes of the bridge, from the range for private use. The bridge opens each WebSocket before it closes it: a browser
 * gives a page no reason for a WebSocket that did not open.
 */
export const closeCode = { notAllowed: 4403, tooMany: 4429, notReached: 4502, lost: 4503 } as const

/** Each WebSocket message is held in memory as a whole. A peer joins at most 256 KiB of small frames; its largest frame has 4 MB. */
const maxMessage = 8_388_608

type Bytes = Connection.Connection

/** Copies until `from` ends. Bytes that are read after the end of `to` are dropped. */
const pump = (from: Bytes, to: Bytes): Effect.Effect<never, Connection.ConnectionError> =>
  from.pull.pipe(
    Effect.flatMap((pieces) => {
      for (const bytes of pieces) to.write(bytes)
      // Back-pressure: reads on when the other side has taken the bytes.
      return Effect.ignore(to.drained)
    }),
    Effect.forever({ disableYield: true })
  )

/** Listens until its scope closes. */
export const listen = Effect.fnUntraced(function* (options: Options) {
  const origins = new Set(options.origins)
  const targets = new Map(options.targets.map((target) => [Connection.formatEndpoint(target), target]))
  const maxConnections = options.maxConnections ?? 32
  let connections = 0

  const server = yield* NodeSocketServer.makeWebSocket({
    host: options.host ?? "127.0.0.1",
    port: options.port ?? 0,
    verifyClient: ({ origin }: { readonly origin: string | undefined }) => origin === undefined || origins.has(origin),
    maxPayload: maxMessage
  })

  const serve = Effect.gen(function* () {
    // The server provides both services, but its type does not say so.
    const webSocket = Option.getOrThrow(yield* Effect.serviceOption(Socket.WebSocket))
    const request = Option.getOrThrow(yield* Effect.serviceOption(NodeSocketServer.IncomingMessage))
    const target = targets.get(new URLSearchParams(request.url?.split("?")[1]).get("target") ?? "")
    // A close frame holds 123 bytes of text.
    const closeWith = (code: number, reason: string) =>
      Effect.sync(() => webSocket.close(code, reason.replaceAll(/[^ -~]/g, "?").slice(0, 123)))

    const page = yield* Connection.fromWebSocket(() => webSocket)
    if (target === undefined) return yield* closeWith(closeCode.notAllowed, "the bridge does not allow this target")
    if (connections >= maxConnections) return yield* closeWith(closeCode.tooMany, "too many connections to the bridge")
    yield* Effect.acquireRelease(
      Effect.sync(() => void connections++),
      () => Effect.sync(() => void connections--)
    )
    const node = yield* Effect.result(NodeConnection.connect(target))
    if (node._tag === "Failure") return yield* closeWith(closeCode.notReached, node.failure.message)
    const end = yield* Effect.flip(Effect.raceFirst(pump(node.success, page), pump(page, node.success)))
    // No effect when the page was lost. An orderly end of either side reaches the other when this scope closes.
    if (end.reason._tag === "Reset") yield* closeWith(closeCode.lost, end.message)
  }).pipe(
    Effect.scoped,
    Effect.catch(({ message }) => Effect.logDebug(`a WebSocket was lost: ${message}`))
  )

  yield* Effect.forkScoped(server.run(() => serve))
  return { port: NetAddress.isInetAddress(server.address) ? server.address.port : 0 }
})

/** `HOST:PORT`, with brackets around an IPv6 address. */
export const endpoint = (text: string): Connection.Endpoint => {
  const { hostname, port } = new URL(`tcp://${text}`)
  return { host: hostname.replaceAll(/[[\]]/g, ""), port: Number(port) }
}

export const main = (port: number, origin: string, targets: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const bridge = yield* listen({ port, origins: [origin], targets: targets.map(endpoint) })
    for (const target of targets) yield* Console.log(`ws://127.0.0.1:${bridge.port}/?target=${target}`)
    return yield* Effect.never
  }).pipe(Effect.scoped)

const [origin = "http://127.0.0.1:8000", first = "127.0.0.1:18444", ...more] = process.argv.slice(2)
if (import.meta.main) NodeRuntime.runMain(main(8380, origin, [first, ...more]))
