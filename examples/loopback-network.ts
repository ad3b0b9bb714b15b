/**
 * A network of many nodes on this machine, on addresses of 127.0.0.0/8, for crawlers and other programs that need one. The nodes have no
 * blocks; they answer `getaddr` with some of the others, and with addresses at which nobody listens.
 *
 *     node examples/loopback-network.ts 500
 *     btcpeer crawl --network regtest --seed 127.1.0.1 --allow-private
 *
 * The first argument is the number of nodes, the second one the port; 18444 by default. macOS has 127.0.0.1 only, and needs the other
 * addresses first: `ifconfig lo0 alias 127.1.0.2`.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Result } from "effect"
import { Address, Network, Nonce, PeerServer, Wire } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"

/** The host of a node: 200 in each /24. */
export const hostOf = (index: number): string => `127.1.${Math.floor(index / 200)}.${(index % 200) + 1}`

const userAgents = ["/Satoshi:31.0.0/", "/Satoshi:30.1.0/", "/Satoshi:29.0.0/", "/btcwire:0.5.0/btcd:0.25.0/"]
const protocolVersions = [70_016, 70_016, 70_016, 70_013]

/** How many others a node knows. One of ten of them does not exist. */
const known = 30

const addressOf = (host: string, port: number): Wire.AddressV2 => ({
  ...Result.getOrThrow(Address.parse(`${host}:${port}`)),
  services: Wire.Service.network | Wire.Service.witness | Wire.Service.p2pV2,
  timestamp: Math.floor(Date.now() / 1000) - 3_600
})

/** The others that a node knows: its next neighbours, so that all are found, and far ones. */
const othersOf = (index: number, count: number, port: number): ReadonlyArray<Wire.AddressV2> =>
  Array.from({ length: known }, (_, nth) =>
    nth % 10 === 9
      ? addressOf(`127.2.0.${(index % 20) + 1}`, port)
      : addressOf(hostOf((index + (nth < 5 ? nth + 1 : nth * 37)) % count), port)
  )

/** Starts the nodes, which run until the scope ends. */
export const serveNetwork = (count: number, port: number) =>
  Effect.forEach(
    Array.from({ length: count }, (_, index) => index),
    (index) =>
      Effect.gen(function* () {
        const listener = yield* NodeConnection.listen({ host: hostOf(index), port })
        const others = othersOf(index, count, port)
        yield* Effect.forkScoped(
          PeerServer.serve(listener, {
            peer: {
              network: Network.regtest,
              services: Wire.Service.network | Wire.Service.witness,
              userAgent: userAgents[index % userAgents.length],
              protocolVersion: protocolVersions[index % protocolVersions.length],
              startHeight: Effect.succeed(100 + (index % 3)),
              handlers: { getaddr: (_, peer) => peer.sendAddresses(others) }
            }
          })
        )
      }),
    { discard: true }
  )

if (import.meta.main) {
  const [count = "100", port = String(Network.regtest.port)] = process.argv.slice(2)
  serveNetwork(Number(count), Number(port)).pipe(
    Effect.andThen(Console.log(`${count} nodes listen on port ${port}, from ${hostOf(0)} on`)),
    Effect.andThen(Effect.never),
    Effect.scoped,
    Effect.provide(Nonce.layer),
    NodeRuntime.runMain
  )
}
