/** The program of the page: a peer over a WebSocket, connected while the page is open. `serve.ts` bundles and serves it. */
import { Duration, Effect, Schedule } from "effect"
import { Connection, Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"

const state = document.getElementById("state")!
const facts = document.getElementById("facts")!

/** Shows text, never HTML: a node chooses its user agent, which can contain anything. */
const show = (name: string, value: string): void => {
  let shown = document.getElementById(name)
  if (shown === null) {
    const term = document.createElement("dt")
    term.textContent = name
    shown = document.createElement("dd")
    shown.id = name
    facts.append(term, shown)
  }
  shown.textContent = value
}

/** A node announces a new block by its hash. Fetches the block and shows it. */
const onInv = Effect.fnUntraced(function* ({ items }: Wire.Inv, peer: Peer.Peer) {
  for (const { hash, type } of items) {
    if (type !== Wire.InventoryType.block) continue
    const { transactions } = yield* peer.getBlock(hash)
    show("block", `${Wire.hashToHex(hash)}, transactions: ${transactions.length}`)
  }
})

const program = Effect.gen(function* () {
  const bridge = new URLSearchParams(location.search).get("bridge") ?? ""
  const connection = yield* Connection.fromWebSocket(() => new WebSocket(bridge))
  const peer = yield* Peer.make(connection, {
    network: Network.regtest,
    requiredServices: [],
    handlers: { inv: onInv }
  })
  const { services, startHeight, userAgent } = peer.info
  show("userAgent", userAgent)
  show("services", Wire.serviceNames(services).join(", "))
  show("height", String(startHeight))
  state.textContent = "connected"
  yield* Effect.forkScoped(
    peer.ping.pipe(
      Effect.tap((roundTrip) => Effect.sync(() => show("ping", `${Duration.toMillis(roundTrip)} ms`))),
      Effect.repeat(Schedule.spaced("5 seconds"))
    )
  )
  return Peer.describeEnd(yield* peer.awaitShutdown)
}).pipe(
  Effect.scoped,
  Effect.catch(({ message }) => Effect.succeed(message)),
  Effect.tap((end) =>
    Effect.sync(() => {
      state.textContent = `disconnected: ${end}`
    })
  ),
  Effect.provide(Nonce.layer)
)

Effect.runFork(program)
