/**
 * Lets web pages reach nodes: WebSockets on one side, TCP on the other. After `npm run build`, for the pages of a site and
 * the nodes that they may reach: `npx node examples/websocket-bridge.ts http://127.0.0.1:8000 127.0.0.1:18444`. A page then
 * opens `ws://127.0.0.1:8380/?target=127.0.0.1:18444`
 *
 * Every page that a browser on this machine shows can open a WebSocket to this machine, whatever its site. So a bridge has
 * two lists, of sites and of targets, and what is not in them to the letter is refused.
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
  /** Default 0, which takes a free one. */
  readonly port?: number | undefined
  /** `http://127.0.0.1:8000` and such. Who says no `Origin` is no page, could say any, and is let in. */
  readonly origins: ReadonlyArray<string>
  /** What `?target=` may name, as `Connection.formatEndpoint` writes it. */
  readonly targets: ReadonlyArray<Connection.Endpoint>
  /** How many WebSockets at a time. Default 32. */
  readonly maxConnections?: number | undefined
}

/**
 * Codes for one's own use, with which the bridge closes. It opens each WebSocket first, for of one that does not open a
 * browser tells the page nothing.
 */
export const closeCode = { notAllowed: 4403, tooMany: 4429, notReached: 4502, lost: 4503 } as const

/** A message is held whole before it is handed on: a peer joins 256 KiB of small ones at most, and the largest has 4 MB. */
const maxMessage = 8_388_608

type Bytes = Connection.Connection["Service"]

/** Ends with `from`. When `to` has ended, what is still read is thrown away. */
const pump = (from: Bytes, to: Bytes): Effect.Effect<never, Connection.ConnectionError> =>
  from.pull.pipe(
    Effect.flatMap((pieces) => {
      for (const bytes of pieces) to.write(bytes)
      // Back-pressure: no more is read than the other side takes.
      return Effect.ignore(to.drained)
    }),
    Effect.forever({ disableYield: true })
  )

/** Listens, until its scope ends. */
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
    // The server gives both; that it does is not in its type.
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
    // Does nothing when it was the page that was lost; an orderly end of either is passed on by the end of this scope.
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
