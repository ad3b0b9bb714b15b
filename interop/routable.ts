/**
 * Addresses that look routable, in a namespace that has nothing but loopback: nodes relay, store and announce no others. For tests of a
 * server of ours among nodes of Bitcoin Core.
 *
 * A connection to an address of this machine comes from that same address, unless its route says otherwise. Here connections to our
 * server come from the address of a node, and those to a node from the address of our server.
 */
import { execFile } from "node:child_process"
import { networkInterfaces } from "node:os"
import { promisify } from "node:util"
import { Clock, Context, Duration, Effect, Layer, Schema, type Scope, Stream } from "effect"
import { Network, type Peer, Wire } from "../src/index.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import { Dialer } from "../src/server/Dialer.ts"
import * as NodeDialer from "../src/server/NodeDialer.ts"
import * as NodeStore from "../src/server/NodeStore.ts"
import * as Server from "../src/server/Server.ts"
import { Store } from "../src/server/Store.ts"
import * as Bitcoind from "./bitcoind.ts"
import { eventually, expecting, InteropError, type InteropNode, type StartOptions } from "./InteropNode.ts"

export const port = Network.regtest.port

/** Three groups of addresses (/16). Connections to `ours` come from `core1`, those to `ours2` from `core2`, and those to a node from `ours`. */
export const hosts = { core1: "20.1.0.1", core2: "20.2.0.1", ours: "20.3.0.1", ours2: "20.4.0.1" } as const

const run = promisify(execFile)

const ip = (...args: ReadonlyArray<string>): Effect.Effect<void, InteropError> =>
  Effect.tryPromise({
    try: () => run("ip", [...args]),
    catch: (cause) =>
      new InteropError({
        node: "harness",
        operation: `ip ${args.join(" ")}`,
        problem: cause instanceof Error ? cause.message : String(cause),
        cause
      })
  })

/** Gives this machine an address. Connections to it come from `source`. */
export const addHost = (host: string, source: string = host): Effect.Effect<void, InteropError> =>
  Effect.gen(function* () {
    const interfaces = Object.keys(networkInterfaces())
    if (interfaces.some((name) => name !== "lo")) {
      return yield* Effect.fail(
        new InteropError({ node: "harness", operation: "addHost", problem: `not in a namespace: ${interfaces.join()}` })
      )
    }
    yield* ip("address", "replace", `${host}/32`, "dev", "lo")
    yield* ip("route", "replace", "table", "local", "local", host, "dev", "lo", "src", source)
  })

/** Gives this machine `hosts`. */
export const addHosts: Effect.Effect<void, InteropError> = Effect.gen(function* () {
  const { core1, core2, ours, ours2 } = hosts
  for (const host of Object.values(hosts)) yield* addHost(host)
  yield* addHost(ours, core1)
  yield* addHost(ours2, core2)
  yield* addHost(core1, ours)
  yield* addHost(core2, ours)
})

/** Whether `ip` is there, without which no address can be added. */
export const hasIp: boolean = await run("ip", ["-V"]).then(
  () => true,
  () => false
)

// ---- nodes

/** Starts Bitcoin Core at an address, out of its initial block download: it announces its address to peers. */
export const startCore = Effect.fnUntraced(function* (host: string, options: StartOptions = {}) {
  const node = yield* Bitcoind.start({
    ...options,
    args: [`-bind=${host}:${port}`, `-externalip=${host}:${port}`, ...(options.args ?? [])]
  })
  yield* node.mine(1)
  return node
})

/** A row of Core's `getpeerinfo`, with all of its fields. */
export const Row = Schema.StructWithRest(
  Schema.Struct({
    id: Schema.Number,
    addr: Schema.String,
    addrbind: Schema.String,
    addrlocal: Schema.optionalKey(Schema.String),
    network: Schema.String,
    services: Schema.String,
    servicesnames: Schema.Array(Schema.String),
    relaytxes: Schema.Boolean,
    version: Schema.Number,
    subver: Schema.String,
    inbound: Schema.Boolean,
    permissions: Schema.Array(Schema.String),
    addr_relay_enabled: Schema.Boolean,
    addr_processed: Schema.Number,
    addr_rate_limited: Schema.Number,
    bytessent: Schema.Number,
    bytesrecv: Schema.Number,
    bytessent_per_msg: Schema.Record(Schema.String, Schema.Number),
    bytesrecv_per_msg: Schema.Record(Schema.String, Schema.Number),
    connection_type: Schema.String,
    transport_protocol_type: Schema.String,
    session_id: Schema.String
  }),
  [Schema.Record(Schema.String, Schema.Unknown)]
)
export type Row = typeof Row.Type

/** Core's peers whose version message has arrived. */
export const rows = (node: InteropNode): Effect.Effect<ReadonlyArray<Row>, InteropError> =>
  Effect.map(node.rpc("getpeerinfo").pipe(expecting(Schema.Array(Row))), (all) =>
    all.filter(({ subver }) => subver !== "")
  )

/** Waits until this many peers of Core are connected. */
export const awaitRows = (node: InteropNode, count: number): Effect.Effect<ReadonlyArray<Row>, InteropError> =>
  eventually(rows(node), ({ length }) => length === count)

const Known = Schema.Array(Schema.Struct({ address: Schema.String, port: Schema.Number, services: Schema.Number }))

/** The addresses that Core knows and that are not bad, as "host:port". */
export const known = (node: InteropNode): Effect.Effect<ReadonlyArray<string>, InteropError> =>
  Effect.map(node.rpc("getnodeaddresses", 0).pipe(expecting(Known)), (all) =>
    all.map(({ address, port }) => `${address}:${port}`)
  )

/** Lets time pass for Core: what waits for seconds is done now. It answers `getaddr` after half a minute on average. */
export const hurry = (node: InteropNode): (() => Effect.Effect<void, InteropError>) => {
  let ahead = 0
  return () =>
    Effect.suspend(() => {
      ahead = Math.min(ahead + 60, 540)
      return Effect.asVoid(node.rpc("setmocktime", Math.floor(Date.now() / 1_000) + ahead))
    })
}

// ---- our server

/** A clock that is faster than time, from now on. */
export const fastClock = (factor: number): Clock.Clock => {
  const start = Date.now()
  const millis = (): number => start + (Date.now() - start) * factor
  const nanos = (): bigint => BigInt(Math.floor(millis() * 1_000)) * 1_000n
  return {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: nanos,
    monotonicTimeNanos: Effect.sync(nanos),
    sleep: (duration) =>
      Effect.callback<void>((resume) => {
        const timer = setTimeout(() => resume(Effect.void), Math.min(2 ** 31 - 1, Duration.toMillis(duration) / factor))
        return Effect.sync(() => clearTimeout(timer))
      })
  }
}

export interface OurServer {
  readonly server: Server.Server
  /** What has happened so far. */
  readonly events: ReadonlyArray<Server.ServerEvent>
  /** The first event with this tag, past or future, that fits. */
  readonly awaitEvent: <Tag extends Server.ServerEvent["_tag"]>(
    tag: Tag,
    where?: (event: Extract<Server.ServerEvent, { readonly _tag: Tag }>) => boolean
  ) => Effect.Effect<Extract<Server.ServerEvent, { readonly _tag: Tag }>, InteropError>
}

export interface ServeOptions<H extends Peer.Handlers<unknown>, R> extends Server.Options<H, R> {
  /** The addresses where it listens, and that it announces. */
  readonly at?: ReadonlyArray<string> | undefined
  /** The directory of its files. Without one it keeps nothing. */
  readonly directory?: string | undefined
  /** How much faster its time passes. */
  readonly speed?: number | undefined
}

/** Starts a server of ours that offers what Core wants of a node. It dials nothing by itself but what `options` say. */
export const serve = <H extends Peer.Handlers<unknown> = Peer.Handlers, R = never>({
  at = [hosts.ours],
  directory,
  speed = 1,
  ...options
}: ServeOptions<H, R> = {}) =>
  Effect.gen(function* () {
    const dialer = Context.get(yield* Layer.build(NodeDialer.layerDirect()), Dialer)
    const make = Server.make<H, R>({
      network: Network.regtest,
      fullRelay: 0,
      blockRelay: 0,
      feelers: false,
      binds: at.map((host) => ({ listen: NodeConnection.listen({ host, port }) })),
      external: at,
      ...options,
      peer: { services: Wire.Service.network | Wire.Service.witness | Wire.Service.p2pV2, ...options.peer }
    }).pipe(Effect.provideService(Dialer, dialer), Effect.provideService(Clock.Clock, fastClock(speed)))
    const server = yield* directory === undefined
      ? make
      : Effect.provideService(make, Store, yield* NodeStore.makeDirectory(directory))
    const events: Array<Server.ServerEvent> = []
    yield* Effect.forkScoped(
      Stream.runForEach(server.events, (event) => Effect.sync(() => void events.push(event))),
      { startImmediately: true }
    )
    const awaitEvent: OurServer["awaitEvent"] = (tag, where = () => true) => {
      const isIt = (event: Server.ServerEvent): event is Extract<Server.ServerEvent, { readonly _tag: typeof tag }> =>
        event._tag === tag && where(event as Extract<Server.ServerEvent, { readonly _tag: typeof tag }>)
      return Effect.map(
        eventually(
          Effect.sync(() => events.find(isIt)),
          (event) => event !== undefined,
          "90 seconds"
        ),
        (event) => event!
      )
    }
    return { server, events, awaitEvent } satisfies OurServer as OurServer
  })

export type { Scope }
