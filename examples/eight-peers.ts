/**
 * A server that keeps eight of the twenty nodes of a simulated network, and the table that `btcpeer net` shows after an hour. The hour is
 * virtual: it takes a second. After `npm run build`: `npx node examples/eight-peers.ts`
 */
import { NodeRuntime } from "@effect/platform-node"
import { Clock, Console, Effect } from "effect"
import { Address, Network } from "effect-bitcoin-peer"
import { AddressBook, Dialer, Server } from "effect-bitcoin-peer/server"
import { RegtestChain, ScriptedPeer, Simulation } from "effect-bitcoin-peer/testing"
import { netTable } from "../packages/btcpeer/src/netTable.ts"

export const program = Simulation.run("eight peers", (simulation) =>
  Effect.gen(function* () {
    const nodes = yield* Effect.replicateEffect(simulation.host(), 20)
    yield* Effect.forEach(nodes, (node) => ScriptedPeer.attach(node, ScriptedPeer.honest(RegtestChain.start)))
    const addresses = nodes.map((node) => Address.format(node.addresses[0])).join("\n")
    yield* (yield* AddressBook.AddressBook).importFrom(new TextEncoder().encode(addresses), "lines")
    yield* Effect.sleep("1 minute") // the clock begins at 0, which is "never" to `getpeerinfo`
    const dialer = Dialer.fromFunction((yield* simulation.host()).dial)
    // With a key the server has the same random numbers in each run.
    const making = Server.make({ network: Network.regtest, blockRelay: 0, randomKey: new Uint8Array(16) })
    const server = yield* Effect.provideService(making, Dialer.Dialer, dialer)
    yield* Effect.sleep("1 hour")
    const [network, peers, now] = yield* Effect.all([server.networkInfo, server.peerInfo, Clock.currentTimeMillis])
    return netTable(network, peers, now / 1_000, "a simulated hour").join("\n")
  }).pipe(Effect.provide(AddressBook.layerMemoryNoDeps({ network: Network.regtest })))
)

if (import.meta.main) NodeRuntime.runMain(Effect.flatMap(program, Console.log))
