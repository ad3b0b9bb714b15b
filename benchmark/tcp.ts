/**
 * Floods of messages to a whole peer over loopback, to handlers and streams, compared with plain `node:net`. The remote is another
 * process over plain `node:net`, the same for all. `peer.ts` compares whole peers with the same one at both ends.
 */
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
import { ask, printTable, wanted } from "./harness.ts"
import { closePlain, connectPlain, framingByHand, packageFraming } from "./plain.ts"

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

await runtime.dispose()
remote.disconnect()
printTable("tcp: floods over loopback")
