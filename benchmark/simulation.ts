/**
 * What virtual time costs: a sleep on Effect's TestClock and on ours, and an hour of a simulated network of 100 and of 1,000 peers.
 *
 * All peers are ours, whole ones, at both ends of each connection: hosts dial five others, so each has ten peers on average, over links of 10
 * to 150 ms. Each side pings every two minutes. Every ten seconds a transaction appears somewhere and is announced by each host to its
 * other peers, with trickle, until all have it; every ten minutes so does a block. `SIMULATION_HOSTS` sets the numbers of hosts.
 *
 * Nothing here waits for anything, so the time is processor time; the wall time beside it depends on what else runs on the machine.
 */
import assert from "node:assert/strict"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as TestClock from "effect/testing/TestClock"
import { Peer, PeerServer, Wire } from "../src/index.ts"
import * as Simulation from "../src/testing/Simulation.ts"
import * as VirtualClock from "../src/testing/VirtualClock.ts"
import { filled, network } from "./data.ts"
import { factor, printTable, row, verdict, wanted } from "./harness.ts"

const dials = 5
const sizes = (process.env.SIMULATION_HOSTS ?? "10,100").split(",").map(Number)
/** The seconds of processor time that an hour of 1,000 peers may take. */
const limit = 60

const clocks: ReadonlyArray<readonly [string, Layer.Layer<never>]> = [
  ["VirtualClock", VirtualClock.layer],
  // Its own type says that it provides the clock as a service of its own.
  ["Effect's TestClock", TestClock.layer() as unknown as Layer.Layer<never>]
]

interface Cost {
  /** Seconds. */
  readonly wall: number
  readonly processor: number
}

/** The time that an effect takes on the machine, whatever its Clock says. */
const timed = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  const wall = performance.now()
  const usage = process.cpuUsage()
  yield* effect
  const { system, user } = process.cpuUsage(usage)
  return { wall: (performance.now() - wall) / 1_000, processor: (system + user) / 1e6 } satisfies Cost
})

// ---- sleeps

const sleepers = 1_000

/** Microseconds of processor time for each time that one of 1,000 fibers sleeps a second or two. */
const sleeping = Effect.gen(function* () {
  let wakes = 0
  for (let i = 0; i < sleepers; i++) {
    const turn = Effect.andThen(
      Effect.sleep(1_000 + ((i * 7_919) % 1_000)),
      Effect.sync(() => void wakes++)
    )
    yield* Effect.forkScoped(Effect.forever(turn, { disableYield: true }), { startImmediately: true })
  }
  yield* TestClock.adjust("5 seconds")
  wakes = 0
  const { processor } = yield* timed(TestClock.adjust("20 seconds"))
  return { micros: (processor / wakes) * 1e6, wakes }
}).pipe(Effect.scoped)

const sleeps = "a sleep, one of 1,000 at a time"
if (wanted(sleeps)) {
  const costs: Array<number> = []
  for (const [name, layer] of clocks) {
    const { micros, wakes } = await Effect.runPromise(Effect.provide(sleeping, layer))
    costs.push(micros)
    const ratio = costs.length === 1 ? "" : factor(micros / costs[0]!)
    row(
      costs.length === 1 ? sleeps : "",
      name,
      `${micros.toFixed(1)} µs`,
      `${wakes.toLocaleString("en-US")} wakes`,
      ratio,
      ""
    )
  }
}

// ---- an hour

interface Node {
  readonly host: Simulation.Host
  readonly peers: Set<Peer.Peer>
  readonly options: Peer.Options
  readonly announce: (item: Wire.InventoryItem, from?: Peer.Peer) => Effect.Effect<void>
}

/** A node that passes on every announcement that is new to it. */
const makeNode = (host: Simulation.Host, onNew: () => void): Node => {
  const peers = new Set<Peer.Peer>()
  const known = new Set<string>()
  const announce: Node["announce"] = (item, from) =>
    Effect.suspend(() => {
      known.add(Wire.hashToHex(item.hash))
      return Effect.forEach(
        Array.from(peers).filter((peer) => peer !== from),
        (peer) => Effect.ignore(peer.announce([item])),
        { discard: true }
      )
    })
  const handlers: Peer.Handlers = {
    inv: ({ items }, peer) => {
      const fresh = Array.from(items).filter(({ hash }) => !known.has(Wire.hashToHex(hash)))
      for (const _ of fresh) onNew()
      return fresh.length === 0 ? undefined : Effect.forEach(fresh, (item) => announce(item, peer), { discard: true })
    }
  }
  const options = { network, requiredServices: [], protocolVersion: 70_016, handlers }
  return { host, peers, options, announce }
}

const hour = (size: number) =>
  Effect.gen(function* () {
    const simulation = yield* Simulation.make({ seed: 1, link: { latency: { minimum: 10, maximum: 150 } } })
    let heard = 0
    const nodes: Array<Node> = []
    for (let i = 0; i < size; i++) nodes.push(makeNode(yield* simulation.host(), () => void heard++))
    const keep =
      ({ peers }: Node) =>
      (peer: Peer.Peer): Effect.Effect<Peer.EndReason> =>
        Effect.suspend(() => {
          peers.add(peer)
          return Effect.ensuring(
            peer.awaitShutdown,
            Effect.sync(() => peers.delete(peer))
          )
        })
    for (const node of nodes) {
      const listener = yield* node.host.listen()
      yield* PeerServer.serve(listener, { peer: node.options, onPeer: keep(node) }).pipe(
        Effect.provide(node.host.layer),
        Effect.forkScoped({ startImmediately: true })
      )
    }
    for (const [i, node] of nodes.entries()) {
      for (let dial = 0; dial < dials; dial++) {
        // Not the same distance twice, and never the node itself.
        const target = nodes[(i + 1 + Math.floor((dial * (size - 1)) / dials)) % size]!
        yield* node.host.dial(target.host.addresses[0]).pipe(
          Effect.flatMap((connection) => Peer.make(connection, node.options)),
          Effect.flatMap(keep(node)),
          Effect.scoped,
          Effect.provide(node.host.layer),
          Effect.forkScoped({ startImmediately: true })
        )
      }
    }
    yield* TestClock.adjust("10 seconds")
    const count = (): number => nodes.reduce((sum, { peers }) => sum + peers.size, 0)
    assert.equal(count(), 2 * dials * size)

    let made = 0
    const appear = (type: number) =>
      Effect.suspend(() => nodes[(made * 37) % size]!.announce({ type, hash: filled(32, made++) }))
    const every = (millis: number, type: number) =>
      Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(millis), appear(type))))
    yield* every(10_000, Wire.InventoryType.wtx)
    yield* every(600_000, Wire.InventoryType.block)
    const cost = yield* timed(TestClock.adjust("1 hour"))

    // All peers are still connected, and nearly everything has reached all nodes.
    assert.equal(count(), 2 * dials * size)
    assert.ok(made >= 365 && heard >= (made - 10) * (size - 1), `${heard} of ${made} × ${size - 1}`)
    const [events] = (yield* simulation.digest).split(" ")
    return { ...cost, heard, arrivals: Number(events) }
  }).pipe(Effect.scoped, Random.withSeed("hour"))

for (const size of sizes) {
  const peers = 2 * dials * size
  const title = `an hour of ${peers.toLocaleString("en-US")} peers`
  if (!wanted(title)) continue
  const costs: Array<Cost> = []
  for (const [name, layer] of clocks) {
    // It takes minutes with more.
    if (name !== "VirtualClock" && peers > 100) continue
    const cost = await Effect.runPromise(Effect.provide(hour(size), layer))
    costs.push(cost)
    row(
      costs.length === 1 ? title : "",
      name,
      `${cost.processor.toFixed(1)} s`,
      `${cost.wall.toFixed(1)} s on the wall, ${cost.arrivals.toLocaleString("en-US")} arrivals, ${cost.heard.toLocaleString("en-US")} items new to a node`,
      costs.length === 1 ? "" : factor(cost.processor / costs[0]!.processor),
      peers === 1_000 ? verdict(cost.processor, limit, `≤ ${limit} s`, true) : ""
    )
  }
}

printTable("simulation: virtual time")
