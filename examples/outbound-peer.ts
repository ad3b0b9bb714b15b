/** Connects to a node and tells what it announces: `npm run build`, then `npx node examples/outbound-peer.ts 127.0.0.1 18444` */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Duration, Effect } from "effect"
import { Network, Nonce, Peer } from "effect-bitcoin-peer"
import { connect } from "effect-bitcoin-peer/NodeConnection"

export const main = (host: string, port: number) =>
  Effect.gen(function* () {
    const peer = yield* Peer.make(yield* connect({ host, port }), {
      network: Network.regtest,
      requiredServices: [],
      handlers: { inv: ({ items }) => Console.log(`${items.length} announced`) }
    })
    const ping = `${Duration.toMillis(yield* peer.ping)} ms`
    yield* Console.log("connected", { userAgent: peer.info.userAgent, ping })
    yield* Console.log(Peer.describeEnd(yield* peer.awaitShutdown))
  }).pipe(Effect.scoped, Effect.provide(Nonce.layer))

if (import.meta.main) NodeRuntime.runMain(main(process.argv[2] ?? "127.0.0.1", Number(process.argv[3] ?? 18444)))
