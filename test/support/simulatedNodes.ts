/** Nodes of a simulated network that accept everybody and do nothing else, for tests of one server among them. */
import { Effect, Exit, Scope } from "effect"
import { Network, PeerServer } from "effect-bitcoin-peer"
import { AddressBook } from "effect-bitcoin-peer/server"
import type { Simulation } from "effect-bitcoin-peer/testing"

/** Nodes that can be stopped and started. */
export const nodesOn = Effect.fnUntraced(function* (hosts: ReadonlyArray<Simulation.Host>) {
  const running = new Map<Simulation.Host, Scope.Closeable>()
  const start = (host: Simulation.Host) =>
    Effect.gen(function* () {
      if (running.has(host)) return
      const scope = yield* Scope.make()
      running.set(host, scope)
      const listener = yield* Scope.provide(host.listen(), scope)
      const served = PeerServer.serve(listener, {
        peer: { network: Network.mainnet, services: 1n | 8n, transport: "v1" }
      })
      yield* Effect.forkIn(Effect.ignoreCause(Effect.provide(served, host.layer)), scope)
    })
  const stop = (host: Simulation.Host) =>
    Effect.suspend(() => {
      const scope = running.get(host)
      running.delete(host)
      return scope === undefined ? Effect.void : Scope.close(scope, Exit.void)
    })
  yield* Effect.forEach(hosts, start)
  yield* Effect.addFinalizer(() => Effect.forEach(hosts, stop, { discard: true }))
  return { start, stop, isRunning: (host: Simulation.Host) => running.has(host) }
})

/** A book with the addresses of all hosts, each seen now and told by itself. */
export const bookOf = (hosts: ReadonlyArray<Simulation.Host>, now: number): AddressBook.Book => {
  let state = 1
  const next = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 0x1_0000_0000
  }
  const random = { next, below: (bound: number) => Math.floor(next() * bound) }
  const book = AddressBook.make({ network: Network.mainnet, random })
  for (const { addresses } of hosts) {
    book.add([{ ...addresses[0], services: 1n | 8n, timestamp: Math.floor(now / 1_000) }], addresses[0], now)
  }
  return book
}
