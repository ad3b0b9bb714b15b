/** Relays transactions between two nodes. After `npm run build`: `npx node examples/relay.ts 127.0.0.1:18444 127.0.0.1:18454` */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { type Connection, Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"

const { tx, witnessTx, wtx } = Wire.InventoryType

/** Fetches the transactions that one of two peers announces, and announces them to the other. */
export const relay = Effect.fnUntraced(function* (
  connections: readonly [Connection.Connection, Connection.Connection],
  options: Peer.Options = {}
) {
  const transactions = new Map<string, Wire.Transaction>()
  const peers: Array<Peer.Peer> = []

  const make = (connection: Connection.Connection) =>
    Peer.make(connection, {
      network: Network.regtest,
      ...options,
      handlers: {
        inv: Effect.fnUntraced(function* ({ items }, peer) {
          const wanted = Array.from(items)
            .filter(({ type }) => type === tx || type === wtx)
            .map(({ hash, type }) => ({ type: type === tx ? witnessTx : type, hash }))
          for (const result of yield* peer.getData(wanted)) {
            if (result._tag !== "Found" || result.message._tag !== "tx") continue
            const { transaction } = result.message
            const [txid, wtxid] = [Wire.txid(transaction), Wire.wtxid(transaction)]
            for (const hash of [txid, wtxid]) transactions.set(Wire.hashToHex(hash), transaction)
            for (const other of peers) {
              if (other === peer) continue
              yield* other.announce([{ txid, wtxid }])
            }
          }
        }),
        getdata: Effect.fnUntraced(function* ({ items }, peer) {
          for (const item of items) {
            const transaction = transactions.get(Wire.hashToHex(item.hash))
            yield* peer.send(transaction ? { _tag: "tx", transaction } : { _tag: "notfound", items: [item] })
          }
        })
      }
    }).pipe(Effect.provide(Layer.fresh(Nonce.layer)))

  peers.push(yield* make(connections[0]), yield* make(connections[1]))
  return yield* Effect.raceAllFirst(peers.map((peer) => peer.awaitShutdown))
})

const dial = (address: string) => {
  const [host = "", port = ""] = address.split(":")
  return NodeConnection.connect({ host, port: Number(port) })
}

export const main = (first: string, second: string) =>
  Effect.gen(function* () {
    const end = yield* relay([yield* dial(first), yield* dial(second)])
    yield* Console.log(Peer.describeEnd(end))
  }).pipe(Effect.scoped)

if (import.meta.main)
  NodeRuntime.runMain(main(process.argv[2] ?? "127.0.0.1:18444", process.argv[3] ?? "127.0.0.1:18454"))
