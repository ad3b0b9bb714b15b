/** The page: a peer over a WebSocket, for as long as the page is open. `serve.ts` bundles and serves it. */
import { Duration, Effect, Schedule } from "effect"
import { Connection, Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"

const state = document.getElementById("state")!
const facts = document.getElementById("facts")!

/** As text, never as HTML: what a node says of itself can be anything. */
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

const program = Effect.gen(function* () {
  const bridge = new URLSearchParams(location.search).get("bridge") ?? ""
  const connection = yield* Connection.fromWebSocket(() => new WebSocket(bridge))
  const peer = yield* Peer.make(connection, {
    network: Network.regtest,
    requiredServices: [],
    handlers: {
      block: ({ block }) => {
        show("block", `${Wire.hashToHex(Wire.blockHash(block.header))}, ${block.transactions.length} transactions`)
      }
    }
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
