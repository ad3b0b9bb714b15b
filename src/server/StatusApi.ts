/**
 * The status of a server over HTTP, for operators: its peers and itself as Bitcoin Core prints them, its events, and its metrics for
 * Prometheus. It only reads: no request changes anything. `btcpeer net` shows it.
 *
 * | request | answer |
 * | --- | --- |
 * | `GET /peers` | the peers, as of `getpeerinfo` |
 * | `GET /network` | the server, as of `getnetworkinfo` |
 * | `GET /events` | events as they occur, one JSON object per line; the first one is "Subscribed" |
 * | `GET /metrics` | the metrics, in the text format of Prometheus |
 *
 * The status holds the addresses of peers and is not protected by a password, so it is served to this machine only, unless the
 * program says otherwise. A page in a browser of this machine cannot read it: there are no CORS headers, and requests with a Host or
 * Origin of elsewhere are refused.
 *
 * @example
 * ```ts
 * import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
 * import { Layer } from "effect"
 * import { Network } from "effect-bitcoin-peer"
 * import { Server } from "effect-bitcoin-peer/server"
 * import * as NodeDialer from "effect-bitcoin-peer/server/NodeDialer"
 * import * as StatusApi from "effect-bitcoin-peer/server/StatusApi"
 * import { createServer } from "node:http"
 *
 * export const live = StatusApi.layer().pipe(
 *   Layer.provideMerge(Server.layer({ network: Network.regtest, added: ["127.0.0.1"] })),
 *   Layer.provide(NodeDialer.layerDirect()),
 *   Layer.provide(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port: StatusApi.defaultPort }))
 * )
 *
 * if (import.meta.main) NodeRuntime.runMain(Layer.launch(live))
 * ```
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { FileSystem } from "effect/FileSystem"
import {
  type Etag,
  type HttpPlatform,
  HttpRouter,
  HttpServer,
  HttpServerRequest,
  HttpServerResponse
} from "effect/http"
import {
  HttpApi,
  HttpApiBuilder,
  HttpApiEndpoint,
  HttpApiGroup,
  HttpApiMiddleware,
  HttpApiSchema
} from "effect/http-api"
import * as Layer from "effect/Layer"
import { NetAddress } from "effect/net"
import type { Path } from "effect/Path"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { refusal } from "./internal/requestGuard.ts"
import { StatusEvent, statusEvent } from "./internal/statusEvent.ts"
import { NetworkInfo } from "./NetworkInfo.ts"
import { PeerInfo } from "./PeerInfo.ts"
import { Server } from "./Server.ts"
import * as ServerMetrics from "./ServerMetrics.ts"

export { StatusEvent } from "./internal/statusEvent.ts"

/**
 * The default port of the status, also of `btcpeer net`.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultPort = 8330

// ---- the API

/**
 * A request was refused, with status 403: a page in a browser may have sent it. `message` says which header tells.
 *
 * @category errors
 * @since 0.1.0
 */
export class RequestRefused extends Schema.TaggedError<RequestRefused>()(
  "RequestRefused",
  { message: Schema.String },
  { httpApiStatus: 403 }
) {}

/**
 * Refuses requests of pages of other origins: those with a Host that is neither `localhost` nor an IP address nor allowed (DNS
 * rebinding), and those with an `Origin` or `Sec-Fetch-Site` of elsewhere.
 *
 * @category middleware
 * @since 0.1.0
 */
export class Guard extends HttpApiMiddleware.Service<Guard>()("effect-bitcoin-peer/server/StatusApi/Guard", {
  error: RequestRefused
}) {}

/**
 * The API: `HttpApiClient.make(StatusApi.api, { baseUrl })` is a client of it.
 *
 * @category constants
 * @since 0.1.0
 */
export const api = HttpApi.make("status").add(
  HttpApiGroup.make("status", { topLevel: true })
    .add(
      HttpApiEndpoint.get("peers", "/peers", { success: Schema.Array(PeerInfo) }),
      HttpApiEndpoint.get("network", "/network", { success: NetworkInfo }),
      HttpApiEndpoint.get("events", "/events", { success: HttpApiSchema.StreamNdjson({ schema: StatusEvent }) }),
      HttpApiEndpoint.get("metrics", "/metrics", {
        success: Schema.String.pipe(HttpApiSchema.asText({ contentType: "text/plain; version=0.0.4; charset=utf-8" }))
      })
    )
    .middleware(Guard)
)

// ---- the server

/**
 * Options of the status.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Host names without port, besides `localhost` and IP addresses, that requests may name: those of a reverse proxy. None by default. */
  readonly hosts?: ReadonlyArray<string> | undefined
  /** Whether to serve other machines too. False by default: the layer fails if its HttpServer listens on more than loopback. */
  readonly allowRemote?: boolean | undefined
}

/**
 * The HTTP server listens on an address that other machines can reach, but the option `allowRemote` is not set. Nothing is served.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotLoopback extends Data.TaggedError("NotLoopback")<{ readonly address: string }> {
  override get message(): string {
    return `the status is not served on ${this.address}: other machines could read it. Listen on 127.0.0.1, or set allowRemote`
  }
}

/** A browser may show an answer, and do nothing else with it. */
const headers = {
  "cache-control": "no-store",
  "content-security-policy": "default-src 'none'",
  "cross-origin-resource-policy": "same-origin",
  "x-content-type-options": "nosniff"
}

/**
 * The implementation of `Guard`. `layer` has it; a program that serves `api` in its own way provides it.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerGuard = (options: Pick<Options, "hosts"> = {}): Layer.Layer<Guard> =>
  Layer.sync(Guard, () => {
    const hosts = new Set(options.hosts?.map((host) => host.toLowerCase()))
    return Effect.fnUntraced(function* (answer) {
      const { headers: of } = yield* HttpServerRequest.HttpServerRequest
      const message = refusal({ host: of["host"], origin: of["origin"], fetchSite: of["sec-fetch-site"] }, hosts)
      if (message !== undefined) return yield* new RequestRefused({ message })
      return HttpServerResponse.setHeaders(yield* answer, headers)
    })
  })

/** Ends when `layer` is about to end: a stream of events that somebody reads would hold its HttpServer for 20 seconds. */
const Closing = Context.Reference<Effect.Effect<void>>("effect-bitcoin-peer/server/StatusApi/Closing", {
  defaultValue: () => Effect.never
})

/**
 * The answers of the API. `layer` has them; a program that serves `api` in its own way provides them.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerHandlers = HttpApiBuilder.group(
  api,
  "status",
  Effect.fnUntraced(function* (handlers) {
    const server = yield* Server
    const metrics = yield* ServerMetrics.ServerMetrics
    const clock = yield* Clock.Clock
    const closing = yield* Closing
    const now = (): number => clock.currentTimeMillisUnsafe()
    // A first line, because HTTP headers leave with the first byte of the body, and a server may be quiet for hours.
    const subscribed = Stream.sync((): StatusEvent => ({ time: now() / 1_000, event: "Subscribed" }))
    const events = server.events.pipe(
      Stream.map((event) => statusEvent(event, now())),
      Stream.merge(subscribed),
      Stream.interruptWhen(closing)
    )
    return handlers.handleAll({
      peers: () => server.peerInfo,
      network: () => server.networkInfo,
      events: () => Effect.succeed(events),
      metrics: () => metrics.format
    })
  })
).pipe(Layer.provide(ServerMetrics.layer))

/**
 * Serves the status of the `Server` in the context, on the `HttpServer` in the context: `NodeHttpServer.layer(createServer, { host:
 * "127.0.0.1", port: StatusApi.defaultPort })`. Fails with `NotLoopback` if that listens for other machines too and `allowRemote` is not
 * set.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: Options = {}
): Layer.Layer<
  never,
  NotLoopback,
  Etag.Generator | FileSystem | HttpPlatform.HttpPlatform | HttpServer.HttpServer | Path | Server
> => {
  const isLocal = Layer.effectDiscard(
    Effect.gen(function* () {
      const { address } = yield* HttpServer.HttpServer
      if (NetAddress.isUnixPathAddress(address) || NetAddress.isLoopback(address.address)) return
      if (options.allowRemote !== true) {
        return yield* new NotLoopback({ address: NetAddress.formatSocketAddress(address) })
      }
    })
  )
  const serve = Effect.map(Deferred.make<void>(), (closing) => {
    const routes = HttpApiBuilder.layer(api).pipe(
      Layer.provide(layerHandlers),
      Layer.provide([layerGuard(options), Layer.succeed(Closing, Deferred.await(closing))])
    )
    // Built last, so that its finalizer is the first one.
    return Layer.effectDiscard(Effect.addFinalizer(() => Deferred.succeed(closing, undefined))).pipe(
      Layer.provide(HttpRouter.serve(routes, { disableListenLog: true, disableLogger: true }))
    )
  })
  return Layer.unwrap(serve).pipe(Layer.provide(isLocal))
}
