/** Dials with a negotiated transport, and v2 handshakes with a scripted remote. */
import { Effect, Fiber, Layer, Scope } from "effect"
import { Connection, type Handshake, Nonce, Peer, Transport } from "effect-bitcoin-peer"
import { fork, network } from "./peers.ts"

/** Gives each test its own Transport.V1Peers. */
export const fresh = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() =>
    effect.pipe(Effect.provideService(Transport.V1Peers, Transport.makeV1Peers()), Effect.provide(Nonce.layer))
  )

/** Dials a listener that makes an inbound peer of each connection; returns both sides' results and the number of dials. */
export const dialled = Effect.fnUntraced(function* (
  outbound: Peer.Options,
  inbound: Peer.Options,
  pairOptions: Connection.PairOptions = {}
) {
  const accepted: Array<Fiber.Fiber<Peer.Peer, Handshake.HandshakeError>> = []
  const scope = yield* Effect.scope
  const connect = Effect.gen(function* () {
    const [ours, theirs] = yield* Connection.makePair(pairOptions)
    accepted.push(
      yield* Peer.make(theirs, { network, direction: "inbound", ...inbound }).pipe(
        Effect.provide(Layer.fresh(Nonce.layer)),
        Scope.provide(scope),
        Effect.forkIn(scope, { startImmediately: true })
      )
    )
    return ours
  })
  const result = yield* Effect.result(Peer.dial(connect, { network, requiredServices: [], ...outbound }))
  const others = yield* Effect.forEach(accepted, (fiber) => Effect.result(Fiber.join(fiber)))
  return { result, others, dials: accepted.length }
})

export const outcome = (result: {
  readonly _tag: string
  readonly success?: Peer.Peer
  readonly failure?: { readonly reason: { readonly _tag: string; readonly by?: string } }
}): string => {
  if (result.success !== undefined) return result.success.info.transport
  const reason = result.failure!.reason
  return reason.by === undefined ? reason._tag : `${reason._tag} by ${reason.by}`
}

/** Our outbound v2 handshake, and the raw other end of its connection. */
export const outbound = Effect.fnUntraced(function* (options: Peer.Options = {}) {
  const [ours, theirs] = yield* Connection.makePair()
  const making = yield* fork(Peer.make(ours, { network, transport: "v2", ...options }))
  return { making, theirs, reason: Effect.map(Effect.flip(Fiber.join(making)), ({ reason }) => reason) }
})

export const inbound = (options: Peer.Options = {}) => outbound({ direction: "inbound", transport: "auto", ...options })
