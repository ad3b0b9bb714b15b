/**
 * A service that uses a peer, built from layers: the program asks for headers and does not depend on connections.
 * After `npm run build`: `npx node examples/layers.ts 127.0.0.1 18444`
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Layer } from "effect"
import { Network, Nonce, Peer, type Wire } from "effect-bitcoin-peer"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"

/** A source of block headers. */
export class Headers extends Context.Service<
  Headers,
  {
    /** Up to 2,000 headers that follow the block with this hash. */
    readonly after: (hash: Uint8Array) => Effect.Effect<ReadonlyArray<Wire.BlockHeader>, Peer.PeerError>
  }
>()("examples/Headers") {
  static readonly layer: Layer.Layer<Headers, never, Peer.Peer> = Layer.effect(
    this,
    Effect.gen(function* () {
      const peer = yield* Peer.Peer
      return Headers.of({
        after: (hash) => Effect.map(peer.getHeaders([hash]), (headers) => Array.from(headers))
      })
    })
  )
}

/** The implementation. To use another transport, another network or a fake peer, provide another layer. */
export const layer = (host: string, port: number) =>
  Headers.layer.pipe(
    Layer.provide(Peer.layer({ network: Network.regtest, requiredServices: [] })),
    Layer.provide(NodeConnection.layerConnect({ host, port })),
    Layer.provide(Nonce.layer)
  )

export const program = Effect.gen(function* () {
  const headers = yield* Headers
  const first = yield* headers.after(Network.regtest.genesisHash)
  yield* Console.log(`${first.length} headers`)
  return first
})

const [host = "127.0.0.1", port = Network.regtest.port] = process.argv.slice(2)
if (import.meta.main) NodeRuntime.runMain(Effect.provide(program, layer(host, Number(port))))
