/**
 * Whether the cost of a peer stays constant with many peers in one process. Real sockets over loopback, real time, more load
 * than on the network: each peer pings every 10 seconds and announces transactions with trickle; the remote, in a process of
 * its own, does the same to us. `PEERS` and `PEERS_SECONDS` set the numbers of peers and the duration; with `PEERS_SERVER=1` they are
 * the peers of a `Server` in fleet mode, whose cost is the difference to a run without it.
 */
import assert from "node:assert/strict"
import { fork } from "node:child_process"
import { once } from "node:events"
import * as path from "node:path"
import { monitorEventLoopDelay } from "node:perf_hooks"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import { Nonce, Peer, Wire } from "../src/index.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import { Dialer, Server } from "../src/server/index.ts"
import { filled, network } from "./data.ts"
import { printTable, row, verdict } from "./harness.ts"
import { us } from "./shared.ts"

const seconds = Number(process.env.PEERS_SECONDS ?? 30)
const asked = (process.env.PEERS ?? "1000,3000,10000").split(",").map(Number)
/** Open files besides the sockets of the peers, at most. */
const spare = 100

const pingInterval = Duration.seconds(10)
/** The number of transactions in each announcement to a peer, and the time between two announcements. */
const announced = 8
const announceInterval = Duration.seconds(4)
/** Size of a peer's known inventory. It is full before the measurement, so that all peers have the same size. */
const knownInventory = 100
/** The kilobytes that a peer may take among so many. */
const memoryLimit = { peers: 10_000, kilobytes: 26 }
/** The allowed factor of a peer's cost with ten times as many peers. */
const proportion = 1.25

const limits = (
  process.report.getReport() as { readonly userLimits: { readonly open_files: { readonly soft: number | string } } }
).userLimits.open_files.soft
const sizes = asked.filter((size) => {
  const possible = limits === "unlimited" || size + spare <= Number(limits)
  if (!possible) console.error(`${size} peers are left out: only ${limits} files can be open (ulimit -n)`)
  return possible
})

const remote = fork(path.join(import.meta.dirname, "remote.ts"), ["chatter"])
const [{ port }] = (await once(remote, "message")) as [{ readonly port: number }]
const runtime = ManagedRuntime.make(Nonce.layer)
const scope = await runtime.runPromise(Scope.make())

let heard = 0
const handlers = { inv: ({ items }: Wire.Inv) => void (heard += items.length) }
const options = { protocolVersion: 70_016, pingInterval, knownInventory }
const openAlone = Effect.flatMap(NodeConnection.connect({ host: "127.0.0.1", port }), (connection) =>
  Peer.make(connection, { ...options, network, handlers })
)

const dialer = Dialer.make({ ipv4: (address) => NodeConnection.connect({ host: "127.0.0.1", port: address.port }) })
const openFleet = Effect.provideService(
  Server.make({
    network,
    fleet: true,
    handlers,
    dialRate: { perSecond: 2_000, burst: 2_000 },
    requiredServices: [],
    peer: { ...options, transport: "v1" }
  }),
  Dialer.Dialer,
  dialer
)

/** A server dials no address twice; the dialer connects all of these to the one remote. */
let hosts = 0
const nextHost = (): string => `10.${(hosts >> 16) & 255}.${(hosts >> 8) & 255}.${hosts++ & 255}`
const withServer = process.env.PEERS_SERVER === "1"
const server = withServer ? await runtime.runPromise(Scope.provide(openFleet, scope)) : undefined
const open: Effect.Effect<Peer.Peer, unknown, Nonce.Nonce | Scope.Scope> =
  server === undefined
    ? openAlone
    : Effect.suspend(() => Effect.map(server.dialOnce(`${nextHost()}:${port}`), ({ peer }) => peer))

const peers: Array<Peer.Peer> = []

/** Announces the same transactions to all peers, as a node does. */
let seed = 0
const announce = Effect.suspend(() => {
  const items = Array.from({ length: announced }, () => ({ type: Wire.InventoryType.wtx, hash: filled(32, seed++) }))
  return Effect.forEach(peers, (peer) => peer.announce(items), { discard: true })
})

const settledHeap = async (): Promise<number> => {
  const { gc } = globalThis
  if (gc === undefined) throw new Error("run with --expose-gc")
  for (let i = 0; i < 3; i++) {
    gc()
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const totals = async () => {
  const stats = await runtime.runPromise(Effect.all(peers.map((peer) => peer.stats)))
  const sum = (of: (stats: Peer.Stats) => number): number => stats.reduce((total, each) => total + of(each), 0)
  return {
    pongs: sum(({ received }) => received.pong?.messages ?? 0),
    invs: sum(({ sent }) => sent.inv?.messages ?? 0)
  }
}

const empty = await settledHeap()
const announcing = runtime.runFork(Effect.repeat(announce, Schedule.spaced(announceInterval)))
const results: Array<{ readonly size: number; readonly heap: number; readonly processor: number }> = []

for (const size of sizes) {
  const more = Array.from({ length: size - peers.length })
  peers.push(
    ...(await runtime.runPromise(
      Scope.provide(
        Effect.forEach(more, () => open, { concurrency: 64 }),
        scope
      )
    ))
  )
  // Waits until the garbage of the handshakes is collected and each peer has announced and pinged once.
  await new Promise((resolve) => setTimeout(resolve, 10_000))
  const before = await totals()
  const heardBefore = heard
  const delay = monitorEventLoopDelay({ resolution: 10 })
  delay.enable()
  const usage = process.cpuUsage()
  const started = performance.now()
  await new Promise((resolve) => setTimeout(resolve, seconds * 1_000))
  const took = (performance.now() - started) / 1_000
  const { system, user } = process.cpuUsage(usage)
  delay.disable()
  const after = await totals()

  // All peers are still connected, and the load was as described.
  const rounds = took / Duration.toSeconds(pingInterval)
  const pongs = after.pongs - before.pongs
  assert.ok(pongs >= size * (rounds - 1.5), `${pongs} pongs of ${size} peers`)
  assert.ok(after.invs > before.invs && heard > heardBefore, "nothing trickles")

  const heap = ((await settledHeap()) - empty) / size / 1_000
  const processor = (system + user) / size / took
  results.push({ size, heap, processor })
  const first = results[0]!
  const compared = (value: number, of: number): string =>
    size === first.size ? "" : verdict(value / of, proportion, `≤ ${proportion} of ${first.size}'s`, true)
  const perSecond = (count: number): string => (count / took).toFixed(0)
  row(
    `${size.toLocaleString("en-US")} peers: processor time of a peer`,
    us,
    `${processor.toFixed(1)} µs per second`,
    `${perSecond(pongs)} pongs, ${perSecond(after.invs - before.invs)} invs sent, ${perSecond(heard - heardBefore)} items heard/s`,
    `${(processor / first.processor).toFixed(2)} of ${first.size}'s`,
    compared(processor, first.processor)
  )
  row(
    `${size.toLocaleString("en-US")} peers: memory of a peer`,
    us,
    `${heap.toFixed(1)} kB`,
    `event loop late by ${(delay.percentile(50) / 1e6 - 10).toFixed(1)} ms (median), ${(delay.percentile(99) / 1e6 - 10).toFixed(1)} ms (99 %)`,
    `${(heap / first.heap).toFixed(2)} of ${first.size}'s`,
    size === memoryLimit.peers
      ? verdict(heap, memoryLimit.kilobytes, `≤ ${memoryLimit.kilobytes} kB`, true)
      : compared(heap, first.heap)
  )
}

await runtime.runPromise(Fiber.interrupt(announcing))
await runtime.runPromise(Scope.close(scope, Exit.void))
await runtime.dispose()
remote.disconnect()
printTable(`peers: many in one process${withServer ? ", of a server" : ""}`)
