/** Servers on the hosts of a simulated network. */
import { Effect } from "effect"
import { Address, Network } from "effect-bitcoin-peer"
import { Dialer, Server } from "effect-bitcoin-peer/server"
import type { Simulation } from "effect-bitcoin-peer/testing"

/** The dialer of a host. */
export const dialerOf = (host: Simulation.Host): Dialer.Dialer => ({
  ways: new Set(host.addresses.map(Dialer.networkNameOf)),
  dialsNames: true,
  dial: (target) => host.dial(target)
})

/** Starts a server on a host, which listens and is a full node by its services. Its random numbers are those of the host. */
export const serverOn = (host: Simulation.Host, key: number, options: Server.Options = {}) =>
  Effect.provideService(
    Server.make({
      network: Network.mainnet,
      randomKey: new Uint8Array(16).fill(key & 0xff, 0, 8).fill(key >> 8, 8),
      fixedSeeds: false,
      binds: [{ listen: host.listen() }],
      ...options,
      peer: { services: 1n | 8n, transport: "v1", ...options.peer }
    }),
    Dialer.Dialer,
    dialerOf(host)
  )

export const textOf = (host: Simulation.Host): string => Address.format(host.addresses[0])
