/** Hosts in memory that dial each other without delay: a dialer and listeners for tests of the server alone. */
import { Effect, Exit, Queue, Scope } from "effect"
import { Address, Connection, type PeerServer } from "effect-bitcoin-peer"
import { Dialer } from "effect-bitcoin-peer/server"

export const memoryNetwork = () => {
  const listening = new Map<string, Queue.Queue<Connection.Connection>>()
  const names = new Map<string, Address.Address>()
  /** The listener of a host, from the moment it is run. */
  const listen = (at: string): Effect.Effect<PeerServer.Listener, never, Scope.Scope> =>
    Effect.gen(function* () {
      const waiting = yield* Queue.unbounded<Connection.Connection>()
      listening.set(at, waiting)
      yield* Effect.addFinalizer(() => Effect.sync(() => listening.delete(at)))
      return {
        accept: Effect.flatMap(Queue.take(waiting), (connection) =>
          Effect.as(
            Effect.addFinalizer((exit) => (Exit.isSuccess(exit) ? connection.close : connection.destroy)),
            connection
          )
        )
      }
    })
  const refused = (host: string, port: number, problem: "HostNotFound" | "Refused" | "Unreachable") =>
    Effect.fail(
      new Connection.ConnectionError({ reason: { _tag: "DialFailed", problem, host, port, cause: undefined } })
    )
  let isCut = false
  let port = 40_000
  /** Dials from a host, or through a proxy, which does not tell the addresses of names. */
  const dialer = (from: string, isProxy = false): Dialer.Dialer => ({
    ways: new Set(["ipv4"]),
    dialsNames: true,
    dial: (target) =>
      Effect.gen(function* () {
        const text = Dialer.formatTarget(target)
        const address = Dialer.isName(target) ? names.get(target.host) : target
        if (isCut) return yield* refused(text, 0, "Unreachable")
        if (address === undefined) return yield* refused(text, 0, "HostNotFound")
        const to = Address.format(address)
        const waiting = listening.get(to)
        if (waiting === undefined) return yield* refused(to, address.port, "Refused")
        const [ours, theirs] = yield* Connection.makePair({
          addresses: [
            { host: from, port: ++port },
            {
              host: isProxy && Dialer.isName(target) ? target.host : Address.formatHost(address),
              port: address.port
            }
          ]
        })
        yield* Queue.offer(waiting, theirs)
        return ours
      })
  })
  return { listen, dialer, names, setCut: (cut: boolean) => void (isCut = cut) }
}
