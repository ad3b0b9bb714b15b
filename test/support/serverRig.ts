/** What the tests of the server share: nodes of a network in memory that accept everybody, and the events of a server. */
import { Effect, Layer, Stream } from "effect"
import { Network, Nonce, Peer, PeerServer } from "effect-bitcoin-peer"
import type { Server } from "effect-bitcoin-peer/server"
import type { memoryNetwork } from "./memoryNetwork.ts"

/** A node that accepts everybody. Returns its peers. */
export const node = Effect.fnUntraced(function* (
  net: ReturnType<typeof memoryNetwork>,
  at: string,
  options: Peer.Options = {}
) {
  const peers: Array<Peer.Peer> = []
  const listener = yield* net.listen(at)
  yield* Effect.forkScoped(
    Effect.provide(
      PeerServer.serve(listener, {
        peer: { network: Network.regtest, services: 1n | 8n | 1_024n, ...options },
        onPeer: (peer) => Effect.sync(() => void peers.push(peer))
      }),
      Layer.fresh(Nonce.layer)
    )
  )
  return peers
})

/** The events of a server, the last ones before this call included. */
export const collect = Effect.fnUntraced(function* (server: Server.Server) {
  const events: Array<Server.ServerEvent> = []
  yield* Effect.forkScoped(Stream.runForEach(server.events, (event) => Effect.sync(() => void events.push(event))))
  yield* Effect.yieldNow
  return events
})
