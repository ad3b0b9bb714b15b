/** Connects to a node and tells what it announces. After `npm run build`: `npx node examples/outbound-peer.ts 127.0.0.1 18444` */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Duration, Effect } from "effect"
import { Network, Nonce, Peer } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"

export const main = Effect.fnUntraced(
  function* (host: string, port: number) {
    const connection = yield* NodeConnection.connect({ host, port })
    const peer = yield* Peer.make(connection, {
      network: Network.regtest,
      // Without it, only peers that serve blocks with witnesses are good enough.
      requiredServices: [],
      handlers: { inv: ({ items }) => Console.log(`${items.length} announced`) }
    })
    // A user agent can hold anything; as part of an object it is printed with escapes.
    yield* Console.log("connected", { userAgent: peer.info.userAgent, ping: Duration.format(yield* peer.ping) })
    yield* Console.log(Peer.describeEnd(yield* peer.awaitShutdown))
  },
  Effect.scoped,
  Effect.provide(Nonce.layer)
)

const [host = "127.0.0.1", port = Network.regtest.port] = process.argv.slice(2)
if (import.meta.main) NodeRuntime.runMain(main(host, Number(port)))
