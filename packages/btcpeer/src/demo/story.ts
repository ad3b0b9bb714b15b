/** The steps of the demo, a function for each: a node serves a chain on loopback, a peer connects and fetches all of it. */
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import { type Chain, coinOf, hasProofOfWork, mineBlock, network, spend } from "effect-bitcoin-peer/testing/RegtestChain"
import { serveChain } from "effect-bitcoin-peer/testing/ServingPeer"
import { formatEndpoint } from "effect-bitcoin-peer/Connection"
import * as Handshake from "effect-bitcoin-peer/Handshake"
import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
import * as Nonce from "effect-bitcoin-peer/Nonce"
import * as Peer from "effect-bitcoin-peer/Peer"
import * as PeerServer from "effect-bitcoin-peer/PeerServer"
import * as Wire from "effect-bitcoin-peer/Wire"
import type { Output } from "../output.ts"
import { commandName, counted, grouped, milliseconds, sortedCommands } from "../text.ts"
import * as Screen from "./screen.ts"

/** A step of the demo failed. */
export class DemoFailed extends Data.TaggedError("DemoFailed")<{
  readonly step: string
  readonly problem: string
}> {
  override get message(): string {
    return `${this.step} failed: ${this.problem}`
  }
}

/** The problem that a step found. With the name of the step it becomes a `DemoFailed`. */
class Problem extends Data.TaggedError("Problem")<{ readonly message: string }> {}

const stepTimeout = Duration.seconds(10)
/** How many blocks the peer asks for at a time. */
const window = 500

/** Runs a step for ten seconds at most. Its error names the step. */
const step = <A, E extends { readonly message: string }, R>(
  name: string,
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, DemoFailed, R> =>
  effect.pipe(
    Effect.timeoutOrElse({
      duration: stepTimeout,
      orElse: () => Effect.fail(new Problem({ message: `not done within ${Duration.format(stepTimeout)}` }))
    }),
    Effect.mapError(({ message }) => new DemoFailed({ step: name, problem: message }))
  )

/** Runs an effect and also returns its time in milliseconds. */
export const timed = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [A, string], E, R> =>
  Effect.map(Effect.timed(effect), ([took, value]) => [value, milliseconds(Duration.toMillis(took))] as const)

const shortHash = (hash: Uint8Array): string => `${Wire.hashToHex(hash).slice(0, 16)}…`

// ---- the two sides

/** The node that serves the chain, and the peer of its first connection. */
const serve = Effect.fnUntraced(function* (chain: Chain) {
  const node = serveChain(chain)
  const connected = yield* Deferred.make<Peer.Peer>()
  const listener = yield* NodeConnection.listen({ host: "127.0.0.1", port: 0 })
  yield* Effect.forkScoped(
    PeerServer.serve(listener, {
      peer: { ...node.options, userAgent: `${Handshake.defaultUserAgent}demo-node:1/` },
      onPeer: (peer) => Effect.andThen(node.onPeer(peer), Deferred.succeed(connected, peer))
    }).pipe(
      // A `Nonce` stands for a node, and a node does not connect to itself: each side has its own.
      Effect.provide(Layer.fresh(Nonce.layer))
    )
  )
  return { ...node, address: listener.address, peer: Deferred.await(connected) }
})

/** The peer that connects. Its handlers put the messages into queues, and wait while a queue is full. */
const connect = Effect.fnUntraced(function* (address: NodeConnection.Listener["address"]) {
  const headers = yield* Queue.bounded<Wire.Headers>(2)
  const blocks = yield* Queue.bounded<Wire.Block>(64)
  const inv = yield* Queue.bounded<Wire.Inv>(16)
  const transactions = yield* Queue.bounded<Wire.Transaction>(16)
  const connection = yield* NodeConnection.connect(address)
  const peer = yield* Peer.make(connection, {
    network,
    transport: "v2",
    userAgent: `${Handshake.defaultUserAgent}demo:1/`,
    handlers: {
      headers: (message) => Queue.offer(headers, message),
      block: ({ block }) => Queue.offer(blocks, block),
      inv: (message) => Queue.offer(inv, message),
      tx: ({ transaction }) => Queue.offer(transactions, transaction)
    }
  }).pipe(Effect.provide(Layer.fresh(Nonce.layer)))
  const ended = Effect.flatMap(peer.awaitShutdown, (end) =>
    Effect.fail(new Problem({ message: `the peer ended: ${Peer.describeEnd(end)}` }))
  )
  /** A step that fails when the peer ends. */
  const ask = <A, E extends { readonly message: string }, R>(name: string, effect: Effect.Effect<A, E, R>) =>
    step(name, Effect.raceFirst(effect, ended))
  return { peer, headers, blocks, inv, transactions, ask }
})

type Client = Effect.Success<ReturnType<typeof connect>>

// ---- the steps

const handshake = Effect.fnUntraced(function* ({ peer }: Client, took: string) {
  const { info } = peer
  const agreed = [info.wtxidRelay ? "transactions by wtxid" : "transactions by txid", info.addrV2 ? "addrv2" : "addr"]
  yield* Screen.lines(
    "handshake",
    `${info.direction}, with ${info.userAgent}, in ${took}`,
    `protocol version ${info.protocolVersion}, ${agreed.join(", ")}, ${info.transport === "v2" ? "encrypted" : "plain"}`,
    `the node offers ${Wire.serviceNames(info.services).join(", ")}, and has ${grouped(info.startHeight)} blocks`
  )
})

/** Asks for headers until there are no more, and checks each. */
const fetchHeaders = Effect.fnUntraced(function* (client: Client, update: (done: number) => void) {
  const found: Array<{ readonly header: Wire.BlockHeader; readonly hash: Uint8Array }> = []
  let messages = 0
  let tip = network.genesisHash
  let last: number
  do {
    yield* client.peer.send({
      _tag: "getheaders",
      protocolVersion: client.peer.info.protocolVersion,
      locator: [tip],
      stopHash: new Uint8Array(32)
    })
    const { headers } = yield* Queue.take(client.headers)
    messages++
    for (const header of headers) {
      const hash = Wire.blockHash(header)
      const name = `header ${found.length + 1}`
      if (!Wire.hashEquals(header.previousBlock, tip)) {
        return yield* new Problem({ message: `${name} does not follow the one before` })
      }
      if (!hasProofOfWork(header, hash)) return yield* new Problem({ message: `${name} has no proof of work` })
      found.push({ header, hash })
      tip = hash
    }
    last = headers.length
    update(found.length)
  } while (last === Wire.maxHeaders)
  return { found, messages, tip }
})

/** Asks for blocks, with their witnesses. A node whose blocks are not those that their headers commit to ends by `BadAnswer`. */
const fetchBlocks = Effect.fnUntraced(function* (
  client: Client,
  hashes: ReadonlyArray<Uint8Array>,
  update: (done: number) => void
) {
  let commitments = 0
  let transactions = 0
  for (let from = 0; from < hashes.length; from += window) {
    const wanted = hashes.slice(from, from + window)
    const type = Wire.InventoryType.block | Wire.InventoryType.witnessFlag
    yield* client.peer.send({ _tag: "getdata", items: wanted.map((hash) => ({ type, hash })) })
    for (const [index, hash] of wanted.entries()) {
      const block = yield* Queue.take(client.blocks)
      if (!Wire.hashEquals(Wire.blockHash(block.header), hash)) {
        return yield* new Problem({ message: `block ${from + index + 1} is not the requested one` })
      }
      // A coinbase has a witness where it commits to those of the other transactions, and only there.
      if (block.transactions.at(0)!.inputs.at(0)!.witness.length > 0) commitments++
      transactions += block.transactions.length
      update(from + index + 1)
    }
  }
  return { commitments, transactions }
})

type Node = Effect.Success<ReturnType<typeof serve>>

/** The node announces a transaction that spends a coin of the chain; the peer asks for it. */
const fetchTransaction = Effect.fnUntraced(function* (node: Node, client: Client) {
  const { blocks } = yield* node.chain
  const moved = blocks.find(({ transactions }) => transactions.length > 1)
  if (moved === undefined) return yield* new Problem({ message: "the chain has no coin to spend" })
  const transaction = spend(coinOf(moved.transactions.at(-1)!), undefined, 1_000)
  yield* node.announceTransaction(transaction)
  const { items } = yield* Queue.take(client.inv)
  yield* client.peer.send({ _tag: "getdata", items })
  const received = yield* Queue.take(client.transactions)
  const hash = Wire.wtxid(received)
  if (!Wire.hashEquals(hash, items.at(0)!.hash))
    return yield* new Problem({ message: "the transaction is another one" })
  return { transaction: received, hash }
})

/** The node mines that transaction and announces the block by its header, as the peer asked it to (BIP130). */
const fetchNewBlock = Effect.fnUntraced(function* (node: Node, client: Client, transaction: Wire.Transaction) {
  const chain = yield* node.chain
  const tip = chain.blocks.at(-1)!
  yield* client.peer.send({ _tag: "sendheaders" })
  // The pong proves that the node has read the messages before the ping.
  yield* client.peer.ping
  yield* node.announceBlock(mineBlock(chain, { timestamp: tip.header.timestamp + 600, transactions: [transaction] }))
  const { headers } = yield* Queue.take(client.headers)
  const hash = Wire.blockHash(headers.at(0)!)
  yield* fetchBlocks(client, [hash], () => {})
  return { height: chain.blocks.length }
})

/** Ends the peer, and waits until the node has seen it. */
const disconnect = Effect.fnUntraced(function* (node: Node, client: Client) {
  const served = yield* node.peer
  yield* client.peer.disconnect("the demo is over")
  const ends = yield* Effect.all([client.peer.awaitShutdown, served.awaitShutdown])
  const stats = yield* Effect.all([client.peer.stats, served.stats])
  return { ends, stats }
})

type Tally = { readonly messages: number; readonly bytes: number }

const cell = (tally: Tally | undefined): string =>
  tally === undefined ? "" : `${grouped(tally.messages)}  ${Screen.size(tally.bytes)}`

/** Messages and bytes by command, as each side counted them. */
const statistics = (peer: Peer.Stats, node: Peer.Stats): Effect.Effect<void, never, Output> => {
  const row = (name: string, tallyOf: (stats: Peer.Stats, way: "sent" | "received") => Tally | undefined) => [
    name,
    cell(tallyOf(peer, "sent")),
    cell(tallyOf(node, "received")),
    cell(tallyOf(node, "sent")),
    cell(tallyOf(peer, "received"))
  ]
  const rows = sortedCommands(peer.sent, peer.received).map((command) =>
    row(commandName(command), (stats, way) => stats[way][command])
  )
  const all = row("all", (stats, way) =>
    way === "sent"
      ? { messages: stats.messagesSent, bytes: stats.bytesSent }
      : { messages: stats.messagesReceived, bytes: stats.bytesReceived }
  )
  return Screen.table(["message", "peer sent", "node got", "node sent", "peer got"], [...rows, all])
}

/** Serves the chain to a peer that does all steps. Fails with the step that failed. */
export const story = Effect.fnUntraced(function* (
  chain: Chain
): Effect.fn.Return<void, DemoFailed, Scope.Scope | Output> {
  const node = yield* step("listening", serve(chain))
  yield* Screen.lines("listening", formatEndpoint(node.address))

  const [client, took] = yield* timed(step("connecting", connect(node.address)))
  yield* handshake(client, took)

  const roundTrip = yield* client.ask("ping", client.peer.ping)
  yield* Screen.lines("ping", milliseconds(Duration.toMillis(roundTrip)))

  const expected = client.peer.info.startHeight
  const [headers, headersTook] = yield* timed(
    client.ask(
      "headers",
      Screen.withBar("headers", expected, (update) => fetchHeaders(client, update))
    )
  )
  yield* Screen.lines(
    "headers",
    `${grouped(headers.found.length)} in ${counted(headers.messages, "message")} and ${headersTook}`,
    `linked from genesis to ${shortHash(headers.tip)}, all with proof of work`
  )

  const hashes = headers.found.map(({ hash }) => hash)
  const [blocks, blocksTook] = yield* timed(
    client.ask(
      "blocks",
      Screen.withBar("blocks", hashes.length, (update) => fetchBlocks(client, hashes, update))
    )
  )
  const received = (yield* client.peer.stats).received["block"]?.bytes ?? 0
  yield* Screen.lines(
    "blocks",
    `${grouped(hashes.length)} with ${grouped(blocks.transactions)} transactions, ${Screen.size(received)} in ${blocksTook}`,
    `every merkle root is right, every witness commitment too (${grouped(blocks.commitments)})`
  )

  const { hash, transaction } = yield* client.ask("transaction", fetchTransaction(node, client))
  yield* Screen.lines("transaction", `announced, asked for and received: wtxid ${shortHash(hash)}`)

  const mined = yield* client.ask("new block", fetchNewBlock(node, client, transaction))
  yield* Screen.lines("new block", `announced by its header, asked for and received: number ${grouped(mined.height)}`)

  const { ends, stats } = yield* step("disconnect", disconnect(node, client))
  yield* Screen.lines("disconnect", `the peer: ${Peer.describeEnd(ends[0])}; the node: ${Peer.describeEnd(ends[1])}`)
  yield* statistics(...stats)
})
