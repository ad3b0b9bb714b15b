/**
 * Records a connection in Bitcoin Core's format and replays it to a peer with other handlers, which tests these handlers with
 * real traffic. After `npm run build`: `npx node examples/replay.ts`, or with a capture of a node:
 * `npx node examples/replay.ts ~/.bitcoin/regtest/message_capture/127.0.0.1_50001/msgs_sent.dat`
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, FileSystem, Layer } from "effect"
import { Capture, Connection, Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"

const options = { network: Network.regtest, services: Wire.Service.network | Wire.Service.witness }
const nonce = Layer.fresh(Nonce.layer)

/** Records the first of two peers in memory while the second one sends to it. */
const record = Effect.fnUntraced(function* (directory: string) {
  const [ours, theirs] = yield* Connection.makePair()
  const recording = Peer.make(ours, options).pipe(Effect.provide([nonce, Capture.layer({ directory })]))
  const node = Peer.make(theirs, { ...options, direction: "inbound" }).pipe(Effect.provide(nonce))
  const [peer, other] = yield* Effect.all([recording, node], { concurrency: 2 })
  yield* other.send({ _tag: "feefilter", feeRate: 1000 })
  yield* other.announce([{ type: Wire.InventoryType.block, hash: Network.regtest.genesisHash }])
  // The pong arrives after the messages above.
  yield* peer.ping
}, Effect.scoped)

/** Replays the received messages to a peer, at once. Returns what its handlers saw, and how it ended. */
export const replay = Effect.fnUntraced(function* (file: string) {
  const seen: Array<string> = []
  const connection = yield* Capture.replay(Capture.read(file), { network: Network.regtest, speed: Infinity })
  const peer = yield* Peer.make(connection, {
    network: Network.regtest,
    handlers: {
      feefilter: ({ feeRate }) => void seen.push(`at least ${feeRate} satoshi per 1,000 bytes`),
      inv: ({ items }) => void seen.push(`${items.length} announced`)
    }
  }).pipe(Effect.provide(nonce))
  const end = yield* peer.awaitShutdown
  return { seen, end: Peer.describeEnd(end) }
}, Effect.scoped)

export const program = Effect.gen(function* () {
  const directory = yield* Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped())
  yield* record(directory)
  // 192.0.2.2:8333 is the address of the remote side of the in-memory pair.
  return yield* replay(`${directory}/message_capture/192.0.2.2_8333/msgs_recv.dat`)
}).pipe(Effect.scoped)

if (import.meta.main) {
  const file = process.argv[2]
  const main = file === undefined ? program : replay(file)
  NodeRuntime.runMain(main.pipe(Effect.flatMap(Console.log), Effect.provide(NodeServices.layer)))
}
