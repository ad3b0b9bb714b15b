/**
 * The peers of a wallet: eight nodes of signet with compact filters, directly and through Tor, and the layers that this needs. It sends a
 * transaction to all of them. After `npm run build`: `npx node examples/wallet.ts DIRECTORY [TRANSACTION AS HEX]`
 */
import { NodeDns, NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, Stream } from "effect"
import { Network, Peer, Wire } from "effect-bitcoin-peer"
import { Dialer, Seeds, Server } from "effect-bitcoin-peer/server"
import * as NodeDialer from "effect-bitcoin-peer/server/NodeDialer"
import * as NodeStore from "effect-bitcoin-peer/server/NodeStore"

const network = Network.signet
const { compactFilters, network: chain, witness } = Wire.Service

/** The answers to nodes that ask for what the wallet has announced. */
const serve = (ours: ReadonlyArray<Wire.Transaction>) =>
  Effect.fnUntraced(function* ({ items }: Wire.GetData, peer: Peer.Peer) {
    for (const { hash } of items) {
      const transaction = ours.find((one) => [Wire.txid(one), Wire.wtxid(one)].some((id) => Wire.hashEquals(id, hash)))
      if (transaction !== undefined) yield* peer.send({ _tag: "tx", transaction })
    }
  })

/** The server. It must have a dialer; without the other two layers it looks no seeds up, and forgets its addresses at the end. */
export const layer = (directory: string, ours: ReadonlyArray<Wire.Transaction>) =>
  Server.layer({
    network,
    blockRelay: 0, // they announce no transactions
    requiredServices: [chain, witness, compactFilters],
    handlers: { getdata: serve(ours) }
  }).pipe(
    Layer.provide([
      // The only ways out. An address of another network, such as I2P, is never dialled.
      Dialer.layerCombined([
        NodeDialer.layerDirect(),
        NodeDialer.layerOnion({ proxy: { host: "127.0.0.1", port: 9050 } })
      ]),
      // Names to ask for the first addresses, and the resolver of this machine.
      Layer.provide(Seeds.layerDns(network), NodeDns.layer),
      // peers.dat, banlist.json and anchors.dat, as Bitcoin Core writes them.
      NodeStore.layerDirectory(directory)
    ])
  )

export const program = (ours: ReadonlyArray<Wire.Transaction>) =>
  Effect.gen(function* () {
    const server = yield* Server.Server
    const events = Stream.runForEach(server.events, (event) => {
      if (event._tag === "Warning") return Effect.logWarning(event.message)
      if (event._tag === "Ready") return Effect.log(`${Dialer.formatTarget(event.target)} is ${event.userAgent}`)
      return event._tag === "Ended" ? Effect.log(Peer.describeEnd(event.reason)) : Effect.void
    })
    yield* Effect.forkScoped(events)
    yield* server.awaitPeers(8)
    yield* server.announce(ours.map((one) => ({ txid: Wire.txid(one), wtxid: Wire.wtxid(one) })))
    return yield* Effect.never
  }).pipe(Effect.scoped)

const [directory = "./wallet", hex] = process.argv.slice(2)
if (import.meta.main) {
  const ours =
    hex === undefined ? [] : [Effect.runSync(Effect.fromResult(Wire.decodeTransaction(Buffer.from(hex, "hex"))))]
  NodeRuntime.runMain(Effect.provide(program(ours), layer(directory, ours)))
}
