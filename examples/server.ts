/**
 * A server that keeps eight peers, and serves its status to this machine. The peers are nodes of a simulated network, so that no
 * connection leaves the process. After `npm run build`: `npx node examples/server.ts`, then `npm run -s btcpeer -- net --watch`
 */
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer } from "effect"
import { HttpServer } from "effect/http"
import { Address, Network, PeerServer } from "effect-bitcoin-peer"
import { Dialer, Server } from "effect-bitcoin-peer/server"
import * as StatusApi from "effect-bitcoin-peer/server/StatusApi"
import { Simulation } from "effect-bitcoin-peer/testing"
import { createServer } from "node:http"

const network = Network.regtest

/** A network of eight nodes, and one more host for us. Returns its dialer and the addresses of the nodes. */
const world = Effect.gen(function* () {
  const simulation = yield* Simulation.make({ link: { latency: { minimum: "5 millis", maximum: "100 millis" } } })
  const hosts = yield* Effect.replicateEffect(simulation.host(), 8)
  for (const host of hosts) {
    const nodes = PeerServer.serve(yield* host.listen(), { peer: { network } })
    yield* Effect.forkScoped(Effect.provide(nodes, host.layer))
  }
  const { dial } = yield* simulation.host()
  const dialer: Dialer.Dialer = { ways: new Set(["ipv4"]), dialsNames: true, dial }
  return { dialer, addresses: hosts.map(({ addresses }) => Address.format(addresses[0])) }
})

/** The server and its status. On a real network, the dialer is the only thing that differs. */
export const layer = (port: number) =>
  Layer.unwrap(
    Effect.map(world, ({ addresses, dialer }) =>
      StatusApi.layer().pipe(
        Layer.provideMerge(
          Server.layer({ network, connect: addresses, onPeer: ({ peer }) => Effect.andThen(peer.ping, Effect.never) })
        ),
        Layer.provide(Layer.succeed(Dialer.Dialer, dialer)),
        Layer.provideMerge(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port }))
      )
    )
  )

/** Runs until it is interrupted. */
export const main = (port: number) =>
  Effect.gen(function* () {
    const server = yield* Server.Server
    const peers = yield* server.awaitPeers(8)
    yield* HttpServer.addressFormattedWith((url) =>
      Console.log(`connected to ${peers.length} nodes; the status: btcpeer net --url ${url}`)
    )
    return yield* Effect.never
  }).pipe(Effect.provide(layer(port)))

if (import.meta.main) NodeRuntime.runMain(main(Number(process.argv[2] ?? StatusApi.defaultPort)))
