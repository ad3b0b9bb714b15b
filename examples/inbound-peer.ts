/**
 * Accepts connections, and prints each peer and the transactions that it announces. After `npm run build`:
 * `npx node examples/inbound-peer.ts 18444`, then `bitcoin-cli -regtest addnode 127.0.0.1:18444 onetry` makes a Core node
 * connect to it.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { Connection, Network, Nonce, Peer, PeerServer, Wire } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"

/** Peers announce transactions by their hashes, by wtxids if both sides sent wtxidrelay. Fetches and prints them. */
const onInv = Effect.fnUntraced(function* ({ items }: Wire.Inv, peer: Peer.Peer) {
  const { tx, witnessTx, wtx } = Wire.InventoryType
  const wanted = Array.from(items)
    .filter(({ type }) => type === tx || type === wtx)
    .map(({ hash, type }) => ({ type: type === tx ? witnessTx : type, hash }))
  for (const result of yield* peer.getData(wanted)) {
    if (result._tag !== "Found" || result.message._tag !== "tx") continue
    const { transaction } = result.message
    yield* Console.log(`transaction ${Wire.hashToHex(Wire.txid(transaction))}, outputs: ${transaction.outputs.length}`)
  }
})

/** Runs until it is interrupted, which ends all its peers. */
export const serve = (listener: NodeConnection.Listener) =>
  PeerServer.serve(listener, {
    peer: { network: Network.regtest, handlers: { inv: onInv } },
    onPeer: Effect.fnUntraced(function* (peer) {
      const from = Connection.formatEndpoint(peer.info.remoteAddress)
      // A user agent can contain control characters. Console.log escapes them in a property of an object.
      yield* Console.log(`${from} connected`, { userAgent: peer.info.userAgent })
      // The end of the peer interrupts this effect. Finalizers are not interrupted.
      yield* Effect.addFinalizer(() =>
        Effect.flatMap(peer.awaitShutdown, (end) => Console.log(`${from} disconnected: ${Peer.describeEnd(end)}`))
      )
    }),
    onRefused: (error, { remoteAddress }) =>
      Console.log(`${Connection.formatEndpoint(remoteAddress)} refused: ${error.message}`)
  })

export const main = Effect.fnUntraced(
  function* (port: number) {
    const listener = yield* NodeConnection.listen({ port })
    yield* Console.log(`listening on ${Connection.formatEndpoint(listener.address)}`)
    return yield* serve(listener)
  },
  Effect.scoped,
  Effect.provide(Nonce.layer)
)

if (import.meta.main) NodeRuntime.runMain(main(Number(process.argv[2] ?? Network.regtest.port)))
