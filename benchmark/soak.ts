/**
 * A soak: 200 peers that ping, announce, ask for blocks and come and go, over loopback, with both ends in this process. It prints
 * the heap after a full collection each minute and fails if the last one is more than a tenth above the second. `npm run soak`
 * runs it for ten minutes; `SOAK_MINUTES` (2 at least) and `SOAK_PEERS` change that.
 */
import assert from "node:assert/strict"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import { Nonce, Peer, PeerServer, Wire } from "../src/index.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import { RegtestChain, ServingPeer } from "../src/testing/index.ts"
import { filled } from "./data.ts"

const minutes = Math.max(2, Number(process.env.SOAK_MINUTES ?? 10))
const size = Number(process.env.SOAK_PEERS ?? 200)
/** The life of a peer, in seconds. */
const shortest = 1
const longest = 20

let connected = 0
let made = 0
let answered = 0
let announced = 0
/** How often a peer failed, by reason. */
const failures = new Map<string, number>()

const { gc } = globalThis
assert.ok(gc !== undefined, "run with --expose-gc")

const settledHeap = Effect.gen(function* () {
  for (let turn = 0; turn < 3; turn++) {
    gc()
    yield* Effect.sleep("50 millis")
  }
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return (heapUsed + arrayBuffers) / 1_048_576
})

let seed = 0
/** One peer after another, each for a random time. */
const visitor = (port: number, { hashes }: RegtestChain.Chain) =>
  Effect.forever(
    Effect.scoped(
      Effect.gen(function* () {
        const connection = yield* NodeConnection.connect({ host: "127.0.0.1", port })
        const peer = yield* Peer.make(connection, { network: RegtestChain.network, allowSelfConnection: true })
        made++
        connected++
        yield* Effect.addFinalizer(() => Effect.sync(() => void connected--))
        const seconds = yield* Random.nextIntBetween(shortest, longest)
        for (let second = 0; second < seconds; second++) {
          yield* peer.ping
          yield* peer.announce([{ type: Wire.InventoryType.wtx, hash: filled(32, seed++) }])
          announced++
          yield* peer.getBlock(hashes[second % hashes.length]!)
          answered++
          yield* Effect.sleep("1 second")
        }
      })
    ).pipe(
      // On a machine with other work a dial may take too long.
      Effect.catch((error) =>
        Effect.sync(() => {
          failures.set(error.message, (failures.get(error.message) ?? 0) + 1)
        })
      )
    )
  )

const program = Effect.gen(function* () {
  const listener = yield* NodeConnection.listen({ port: 0 })
  const chain = yield* RegtestChain.mineChain(300)
  const { onPeer, options } = ServingPeer.serveChain(chain)
  yield* Effect.forkScoped(PeerServer.serve(listener, { peer: { ...options, allowSelfConnection: true }, onPeer }))
  for (let peer = 0; peer < size; peer++) {
    yield* Effect.forkScoped(visitor(listener.address.port, chain))
    yield* Effect.sleep("10 millis")
  }
  const heaps: Array<number> = []
  for (let minute = 0; minute <= minutes; minute++) {
    const heap = yield* settledHeap
    heaps.push(heap)
    console.log(
      `minute ${minute}: ${heap.toFixed(1)} MiB, ${connected} peers connected, ${made} made, ${announced} announcements, ${answered} blocks`,
      ...failures
    )
    if (minute < minutes) yield* Effect.sleep(Duration.minutes(1))
  }
  return heaps
}).pipe(Effect.scoped, Effect.provide(Nonce.layer))

const heaps = await Effect.runPromise(program)
const first = heaps[1]!
const last = heaps.at(-1)!
assert.ok(last <= first * 1.1, `the heap grew from ${first.toFixed(1)} to ${last.toFixed(1)} MiB`)
