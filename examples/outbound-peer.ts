/**
 * Connects to a node, and prints the transactions that it announces and each new block, which it fetches. After
 * `npm run build`: `npx node examples/outbound-peer.ts 127.0.0.1 18444`
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Duration, Effect } from "effect"
import { Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"
import { connect } from "effect-bitcoin-peer/NodeConnection"

const { block } = Wire.InventoryType

/** An `inv` has hashes only. A node sends the blocks themselves on request. */
const onInv = Effect.fnUntraced(function* ({ items }: Wire.Inv, peer: Peer.Peer) {
  const blocks = Array.from(items).filter(({ type }) => type === block)
  const transactions = items.length - blocks.length
  if (transactions > 0) yield* Console.log(`transactions announced: ${transactions}`)
  for (const { hash } of blocks) {
    const name = `block ${Wire.hashToHex(hash)}`
    yield* peer.getBlock(hash).pipe(
      Effect.flatMap(({ transactions }) => Console.log(`${name}, transactions: ${transactions.length}`)),
      Effect.catchReason("PeerError", "NotFound", () => Console.log(`${name}: not found`))
    )
  }
})

export const main = (host: string, port: number) =>
  Effect.gen(function* () {
    const peer = yield* Peer.dial(connect({ host, port }), {
      network: Network.regtest,
      requiredServices: [],
      handlers: { inv: onInv }
    })
    const ping = `${Duration.toMillis(yield* peer.ping)} ms`
    yield* Console.log("connected", { userAgent: peer.info.userAgent, ping })
    yield* Console.log(Peer.describeEnd(yield* peer.awaitShutdown))
  }).pipe(Effect.scoped, Effect.provide(Nonce.layer))

if (import.meta.main) NodeRuntime.runMain(main(process.argv[2] ?? "127.0.0.1", Number(process.argv[3] ?? 18444)))
