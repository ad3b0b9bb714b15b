/**
 * The cost of a whole peer over loopback, compared with plain `node:net`. The remote is another process over plain
 * `node:net`, the same for all.
 */
import assert from "node:assert/strict"
import { fork } from "node:child_process"
import { once } from "node:events"
import * as path from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Nonce, Peer, Wire } from "../src/index.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import { network } from "./data.ts"
import { ask, printTable, quantile, row, verdict, wanted } from "./harness.ts"
import { closePlain, connectPlain, framingByHand, packageFraming, type PlainClient } from "./plain.ts"

const us = "effect-bitcoin-peer"
const usStream = "effect-bitcoin-peer, peer.messages, one Effect per message"
const usBatches = "effect-bitcoin-peer, peer.messages, one Effect per batch"
const plainSame = "node:net, framing and decoding of the package"
const plainByHand = "node:net, framing by hand, not decoded"

const remote = fork(path.join(import.meta.dirname, "remote.ts"))
const [{ port }] = (await once(remote, "message")) as [{ readonly port: number }]
const runtime = ManagedRuntime.make(Nonce.layer)

const control = (command: string, kind: number, count: number): Wire.Message => {
  const payload = new Uint8Array(8)
  const view = new DataView(payload.buffer)
  view.setUint32(0, kind, true)
  view.setUint32(4, count, true)
  return { _tag: "Unknown", command, payload }
}

const connectPeer = (handlers: Peer.Handlers = {}) =>
  Effect.flatMap(NodeConnection.connect({ host: "127.0.0.1", port }), (connection) =>
    // Below 70017, because from there on the remote would have to send `feature`.
    Peer.make(connection, { network, protocolVersion: 70_016, handlers })
  )

/** A peer that stays connected, with its scope. */
const openPeer = async (handlers: Peer.Handlers = {}) => {
  const scope = await runtime.runPromise(Scope.make())
  const peer = await runtime.runPromise(Scope.provide(connectPeer(handlers), scope))
  return { peer, close: () => runtime.runPromise(Scope.close(scope, Exit.void)) }
}

// ---- floods: the remote sends as fast as it is read

const noop = (): void => {}

/** Counts messages up to a total, and sums up one field of each. */
const counter = () => {
  let left = 0
  let sum = 0
  let finish: (sum: number) => void = noop
  return {
    expect: (count: number): Promise<number> =>
      new Promise((resolve) => {
        left = count
        sum = 0
        finish = resolve
      }),
    add: (value: number): void => {
      sum = (sum + value) | 0
      if (--left === 0) finish(sum)
    }
  }
}

const firstOfInv = (message: Wire.Inv): number => message.items.at(0)!.hash[0]!

/** The value that handlers add for a message. */
const addValue = (message: Wire.Message, add: (value: number) => void): void => {
  if (message._tag === "inv") add(firstOfInv(message))
  else if (message._tag === "block") add(message.block.header.nonce)
}

/** The same peer, read as a stream. */
const consumers: ReadonlyArray<{
  readonly name: string
  readonly consume: (messages: Stream.Stream<Wire.Message>, add: (message: Wire.Message) => void) => Effect.Effect<void>
}> = [
  {
    name: usStream,
    consume: (messages, add) => Stream.runForEach(messages, (message) => Effect.sync(() => add(message)))
  },
  {
    name: usBatches,
    consume: (messages, add) => Stream.runForEachArray(messages, (batch) => Effect.sync(() => batch.forEach(add)))
  }
]

const floods = [
  { title: "100,000 messages of 61 bytes to a handler", kind: 0, count: 100_000, unit: "messages", target: 0.6 },
  { title: "40 blocks of 1 MB to a handler", kind: 1, count: 40, unit: "blocks", target: 1 }
]

for (const { count, kind, target, title, unit } of floods) {
  if (!wanted(title)) continue
  const message = control("flood", kind, count)
  const ours = counter()
  const same = counter()
  const hand = counter()
  const { close, peer } = await openPeer({
    inv: (inv) => ours.add(firstOfInv(inv)),
    block: ({ block }) => ours.add(block.header.nonce)
  })
  const streams = await Promise.all(
    consumers.map(async ({ consume, name }) => {
      const counted = counter()
      const { close, peer } = await openPeer()
      // The streams must be running before the remote sends.
      runtime.runFork(consume(peer.messages, (received) => addValue(received, counted.add)))
      const run = () => {
        const done = counted.expect(count)
        runtime.runFork(peer.send(message))
        return done
      }
      return { close, competitor: { name, run } }
    })
  )
  const samePlain = await connectPlain(port)
  samePlain.onChunk = packageFraming((message) => addValue(message, same.add))
  const handPlain = await connectPlain(port)
  handPlain.onChunk = framingByHand((command, payload) => {
    if (command === "inv") hand.add(payload[5]!)
    else if (command === "block") hand.add(payload.readUInt32LE(76))
  })
  await ask({
    title,
    competitors: [
      {
        name: us,
        run: () => {
          const done = ours.expect(count)
          runtime.runFork(peer.send(message))
          return done
        }
      },
      {
        name: plainSame,
        run: () => {
          const done = same.expect(count)
          samePlain.write(message)
          return done
        }
      },
      {
        name: plainByHand,
        run: () => {
          const done = hand.expect(count)
          handPlain.write(message)
          return done
        }
      },
      ...streams.map(({ competitor }) => competitor)
    ],
    amount: { count, unit },
    targets: { [plainSame]: target }
  })
  await Promise.all([close(), closePlain(samePlain), closePlain(handPlain), ...streams.map(({ close }) => close())])
}

// ---- ping-pong

const pings = 1_000

/** Sends pings one after another; returns the number of correct answers. */
const plainPings = (client: PlainClient): Promise<number> =>
  new Promise((resolve) => {
    let nonce = BigInt(pings)
    client.onMessage = (message) => {
      if (message._tag !== "pong") return
      if (message.nonce !== nonce) throw new Error("a wrong pong")
      if (--nonce === 0n) resolve(pings)
      else client.write({ _tag: "ping", nonce })
    }
    client.write({ _tag: "ping", nonce })
  })

const plainPongs = (client: PlainClient): Promise<number> =>
  new Promise((resolve) => {
    client.onMessage = (message) => {
      if (message._tag === "ping") client.write({ _tag: "pong", nonce: message.nonce ?? 0n })
      else if (message._tag === "Unknown" && message.command === "pinged") resolve(pings)
    }
    client.write(control("pings", 0, pings))
  })

if (wanted("1,000 pings")) {
  let pinged: (count: number) => void = noop
  const { close, peer } = await openPeer({
    Unknown: ({ command }) => (command === "pinged" ? pinged(pings) : undefined)
  })
  const plain = await connectPlain(port)
  const ourPings = Effect.gen(function* () {
    for (let i = 0; i < pings; i++) yield* peer.ping
    return pings
  })
  await ask({
    title: "1,000 pings asked, each after the pong before",
    competitors: [
      { name: us, run: () => runtime.runPromise(ourPings) },
      { name: plainSame, run: () => plainPings(plain) }
    ],
    amount: { count: pings, unit: "round trips" },
    targets: { [plainSame]: 0.8 }
  })
  await ask({
    title: "1,000 pings answered",
    competitors: [
      {
        name: us,
        run: () =>
          new Promise<number>((resolve) => {
            pinged = resolve
            runtime.runFork(peer.send(control("pings", 0, pings)))
          })
      },
      { name: plainSame, run: () => plainPongs(plain) }
    ],
    amount: { count: pings, unit: "round trips" },
    targets: { [plainSame]: 0.8 }
  })
  await Promise.all([close(), closePlain(plain)])
}

// ---- handshakes, from the dial to the clean end

const ourHandshake = Effect.scoped(Effect.asVoid(connectPeer()))
const plainHandshake = async (): Promise<void> => closePlain(await connectPlain(port))

/** The messages of the last connection, as received by the remote. */
const lastReceived = async (): Promise<ReadonlyArray<string>> => {
  // The remote may notice the end shortly after us.
  await new Promise((resolve) => setTimeout(resolve, 20))
  remote.send({})
  const [{ lastReceived }] = (await once(remote, "message")) as [{ readonly lastReceived: ReadonlyArray<string> }]
  return lastReceived
}

if (wanted("handshakes")) {
  await runtime.runPromise(ourHandshake)
  const said = await lastReceived()
  await plainHandshake()
  assert.deepEqual(said, ["version", "wtxidrelay", "sendaddrv2", "verack"])
  assert.deepEqual(await lastReceived(), said)
}

for (const [title, count, atOnce] of [
  ["handshakes, one at a time, connect to clean end", 50, 1],
  ["handshakes, 32 at once, connect to clean end", 128, 32]
] as const) {
  const ours = Effect.forEach(Array.from({ length: count }), () => ourHandshake, { concurrency: atOnce, discard: true })
  await ask({
    title,
    competitors: [
      { name: us, run: () => runtime.runPromise(Effect.as(ours, count)) },
      {
        name: plainSame,
        run: async () => {
          let left: number = count
          const worker = async (): Promise<void> => {
            while (left-- > 0) await plainHandshake()
          }
          await Promise.all(Array.from({ length: atOnce }, worker))
          return count
        }
      }
    ],
    amount: { count, unit: "handshakes" },
    targets: { [plainSame]: 0.7 }
  })
}

// ---- idle peers

const heap = async (): Promise<{ readonly heap: number; readonly outside: number }> => {
  const { gc } = globalThis
  if (gc === undefined) throw new Error("run with --expose-gc")
  for (let i = 0; i < 4; i++) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    gc()
  }
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return { heap: heapUsed, outside: arrayBuffers }
}

const kib = (values: ReadonlyArray<number>): string =>
  `${quantile(values, 0.5).toFixed(1)} KiB (${Math.min(...values).toFixed(1)}–${Math.max(...values).toFixed(1)})`

if (wanted("heap of an idle peer")) {
  const count = 500
  const perPeer: Array<number> = []
  const perSocket: Array<number> = []
  const outside: Array<number> = []
  for (let round = 0; round < 4; round++) {
    const before = await heap()
    const sockets: Array<PlainClient["socket"]> = []
    for (let i = 0; i < count; i++) {
      const { socket } = await connectPlain(port)
      // Only the socket, its data listener and its error listener stay.
      socket.removeAllListeners("data").on("data", () => {})
      socket.removeAllListeners("connect")
      sockets.push(socket)
    }
    const withSockets = await heap()
    await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.once("close", resolve).end())))
    sockets.length = 0
    const between = await heap()
    const peers: Array<Awaited<ReturnType<typeof openPeer>>> = []
    for (let i = 0; i < count; i++) peers.push(await openPeer())
    const withPeers = await heap()
    await Promise.all(peers.map(({ close }) => close()))
    // Garbage that is not collected yet would count at the start of the next round.
    peers.length = 0
    // The first round is discarded: it includes code and caches.
    if (round === 0) continue
    perSocket.push((withSockets.heap - before.heap) / count)
    perPeer.push((withPeers.heap - between.heap) / count)
    outside.push((withPeers.outside - between.outside - withSockets.outside + before.outside) / count)
  }
  const beyond = perPeer.map((bytes, i) => (bytes - perSocket[i]!) / 1_024)
  row(
    "heap of an idle peer beyond its net.Socket",
    us,
    kib(beyond),
    `and ${(quantile(outside, 0.5) / 1_024).toFixed(1)} KiB of buffers`,
    "",
    verdict(quantile(beyond, 0.5), 16, "≤ 16 KiB", true)
  )
  row("", "net.Socket with a data listener", kib(perSocket.map((bytes) => bytes / 1_024)), "", "", "")
}

await runtime.dispose()
remote.disconnect()
printTable("tcp: a whole peer over loopback")
