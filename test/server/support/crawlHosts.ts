/** A network in memory for crawls: hosts that do as a table says, and a `Dialer` that reaches them. */
import { Clock, Effect, Fiber, Layer, Result, type Scope } from "effect"
import { Address, Connection, Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { TestClock } from "effect/testing"
import { Dialer, type NetworkName } from "../../../src/server/Dialer.ts"

export const start = Date.UTC(2026, 0, 1)

/** Runs an effect from the first day of 2026 on, until its end, while time passes. */
export const inTime = <A, E, R>(effect: Effect.Effect<A, E, R>, hours = 1): Effect.Effect<A, E, R> =>
  Effect.gen(function* () {
    yield* TestClock.setTime(start)
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    for (let minute = 0; minute < hours * 60 && fiber.pollUnsafe() === undefined; minute++) {
      yield* TestClock.adjust("1 minute")
    }
    return yield* Fiber.join(fiber)
  })

export const network = Network.regtest

export const address = (text: string): Address.Address => Result.getOrThrow(Address.parse(text))

/** What a host does with a connection. Its scope is that of the connection. */
export type Script = (connection: Connection.Connection) => Effect.Effect<unknown, unknown, Scope.Scope | Nonce.Nonce>

/** An entry of an `addrv2`, seen now. */
export const told = (text: string, timestamp = 0): Wire.AddressV2 => ({ ...address(text), services: 9n, timestamp })

/** A node that answers `getaddr` with these addresses, in one message, after a delay. */
export const node =
  (known: ReadonlyArray<string>, options: { readonly delay?: number; readonly peer?: Peer.Options } = {}): Script =>
  (connection) =>
    Peer.make(connection, {
      network,
      direction: "inbound",
      transport: "v1",
      services: Wire.Service.network | Wire.Service.witness,
      handlers: {
        getaddr: (_, peer) =>
          Effect.forkIn(
            Effect.delay(Effect.ignore(peer.sendAddresses(known.map((text) => told(text)))), options.delay ?? 0),
            peer.scope
          )
      },
      ...options.peer
    })

/** A node that sends these messages, one after the other, when it is asked for addresses. */
export const sending =
  (messages: Iterable<Wire.Message>): Script =>
  (connection) =>
    Peer.make(connection, {
      network,
      direction: "inbound",
      transport: "v1",
      handlers: {
        getaddr: (_, peer) =>
          Effect.forkIn(
            Effect.ignore(Effect.forEach(messages, (message) => peer.send(message), { discard: true })),
            peer.scope
          )
      }
    })

/** A host that accepts the connection and sends nothing. */
export const silent: Script = () => Effect.void

export interface Dialled {
  readonly address: string
  readonly at: number
}

/**
 * The hosts by address. A dial of an address that is not there is refused; one to "never" is not answered. `dials` are all dials in
 * their order, and `most` is the largest number of connections that were open at once.
 */
export const makeHosts = (
  hosts: ReadonlyMap<string, Script | "never">,
  ways: ReadonlyArray<NetworkName> = ["ipv4", "ipv6"]
) => {
  const dials: Array<Dialled> = []
  const state = { open: 0, most: 0 }
  const dialer: Dialer = {
    ways: new Set(ways),
    dialsNames: false,
    dial: (target) =>
      Effect.gen(function* () {
        if ("host" in target) return yield* Effect.die("a crawl dials addresses only")
        const text = Address.format(target)
        dials.push({ address: text, at: yield* Clock.currentTimeMillis })
        const script = hosts.get(text)
        if (script === "never") return yield* Effect.never
        if (script === undefined) {
          return yield* new Connection.ConnectionError({
            reason: { _tag: "DialFailed", problem: "Refused", host: text, port: target.port, cause: undefined }
          })
        }
        const remote = { host: Address.formatHost(target), port: target.port }
        const [ours, theirs] = yield* Connection.makePair({ addresses: [{ host: "9.9.9.9", port: 50_000 }, remote] })
        yield* Effect.acquireRelease(
          Effect.sync(() => void (state.most = Math.max(state.most, ++state.open))),
          () => Effect.sync(() => void state.open--)
        )
        yield* script(theirs).pipe(
          Effect.provide(Layer.fresh(Nonce.layer)),
          Effect.ignore,
          Effect.forkScoped({ startImmediately: true })
        )
        return ours
      })
  }
  return { dials, state, layer: Layer.mergeAll(Layer.succeed(Dialer, dialer), Layer.fresh(Nonce.layer)) }
}
