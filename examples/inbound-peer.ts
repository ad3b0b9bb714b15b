/** Takes connections and tells who came. After `npm run build`: `npx node examples/inbound-peer.ts 18444` */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { Connection, Network, Nonce, Peer } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"

/** For ever; whoever interrupts it ends all its peers. */
export const serve = (listener: NodeConnection.Listener["Service"]) =>
  Peer.serve(listener, {
    peer: { network: Network.regtest, handlers: { tx: ({ transaction }) => Console.log(transaction) } },
    onPeer: Effect.fnUntraced(function* (peer) {
      const from = Connection.formatEndpoint(peer.info.remoteAddress)
      // A user agent can hold anything; as part of an object it is printed with escapes.
      yield* Console.log(`${from} came`, { userAgent: peer.info.userAgent })
      // This effect is interrupted when the peer ends, its finalizers are not.
      yield* Effect.addFinalizer(() =>
        Effect.flatMap(peer.awaitShutdown, (end) => Console.log(`${from} is gone: ${Peer.describeEnd(end)}`))
      )
    }),
    onRefused: (error, { remoteAddress }) =>
      Console.log(`${Connection.formatEndpoint(remoteAddress)} is no peer: ${error.message}`)
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
