/** Our peer connected to a real node, in either direction, with a record of all messages that the node sent. */
import { assert, it } from "@effect/vitest"
import { Deferred, Effect, type Scope } from "effect"
import { Connection, Handshake, Network, Nonce, Peer, Wire } from "../src/index.ts"
import * as NodeConnection from "../src/NodeConnection.ts"
import {
  eventually,
  InteropError,
  type InteropNode,
  type InteropNodeKind,
  type PeerInfo,
  type StartOptions
} from "./InteropNode.ts"
import * as RawPeer from "./rawPeer.ts"

/** From our side: "outbound" dials the node, "inbound" is dialed by it. */
export const directions = ["outbound", "inbound"] as const
export type Direction = (typeof directions)[number]

/** The services that we offer by default: a node does not stay connected to a peer that it dialed and that has no blocks. */
export const services = Wire.Service.network | Wire.Service.witness

export interface OurPeer {
  readonly peer: Peer.Peer
  /** Our address as in the `addr` of the node's `getpeerinfo`. */
  readonly address: string
  /** The first message with this tag, past or future, that satisfies `where`. Fails after 30 s, or when the peer ends. */
  readonly receive: <Tag extends Wire.Message["_tag"]>(
    tag: Tag,
    where?: (message: Peer.MessageOf<Tag>) => boolean
  ) => Effect.Effect<Peer.MessageOf<Tag>, InteropError>
}

/** Listens, passes the port to `invite`, and accepts the first connection. */
const accept = Effect.fnUntraced(function* (invite: (port: number) => Effect.Effect<unknown, InteropError>) {
  const listener = yield* NodeConnection.listen({ port: 0 })
  yield* invite(listener.address.port)
  return yield* listener.accept
})

/** Makes our peer on an open connection. When its scope ends, no received message may have been dropped. */
const make = Effect.fnUntraced(function* <H extends Peer.Handlers<unknown> = Peer.Handlers>(
  connection: Connection.Connection,
  options: Peer.Options<H>
): Effect.fn.Return<
  OurPeer,
  Handshake.HandshakeError,
  Scope.Scope | Nonce.Nonce | Exclude<Peer.HandlerServices<H>, Scope.Scope>
> {
  const received: Array<Wire.Message> = []
  const dropped: Array<string> = []
  yield* Effect.addFinalizer(() => Effect.sync(() => assert.deepEqual(dropped, [])))
  const watchers = new Set<(message: Wire.Message) => void>()
  const peer = yield* Peer.make(connection, {
    network: Network.regtest,
    services,
    ...options,
    onRead: (event) => {
      if (event._tag === "Dropped") return void dropped.push(event.error.message)
      received.push(event.message)
      for (const watcher of watchers) watcher(event.message)
    }
  })
  const receive: OurPeer["receive"] = <Tag extends Wire.Message["_tag"]>(
    tag: Tag,
    where: (message: Peer.MessageOf<Tag>) => boolean = () => true
  ) =>
    Effect.suspend(() => {
      const fail = (problem: string) =>
        Effect.fail(
          new InteropError({
            node: "our peer",
            operation: `receive ${tag}`,
            problem: `${problem}; got ${received.map(Wire.command).join(" ")}`
          })
        )
      const isIt = (message: Wire.Message): message is Peer.MessageOf<Tag> =>
        message._tag === tag && where(message as Peer.MessageOf<Tag>)
      const found = received.find(isIt)
      if (found !== undefined) return Effect.succeed(found)
      const next = Deferred.makeUnsafe<Peer.MessageOf<Tag>>()
      const watcher = (message: Wire.Message) => {
        if (isIt(message)) Deferred.doneUnsafe(next, Effect.succeed(message))
      }
      watchers.add(watcher)
      return Deferred.await(next).pipe(
        Effect.raceFirst(Effect.flatMap(peer.awaitShutdown, (end) => fail(Peer.describeEnd(end)))),
        Effect.timeoutOrElse({ duration: "30 seconds", orElse: () => fail("no such message in 30 s") }),
        Effect.ensuring(Effect.sync(() => watchers.delete(watcher)))
      )
    })
  return { peer, address: Connection.formatEndpoint(peer.info.localAddress), receive }
})

/** Connects and completes the handshake: dials the node, or makes the node dial us with `invite`. */
export const meet = Effect.fnUntraced(function* <H extends Peer.Handlers<unknown> = Peer.Handlers>(
  node: InteropNode,
  direction: Direction,
  options: Peer.Options<H> = {},
  invite: (port: number) => Effect.Effect<unknown, InteropError> = node.connectTo
) {
  const connection = yield* direction === "outbound"
    ? NodeConnection.connect({ host: node.host, port: node.port })
    : accept(invite)
  return yield* make(connection, { ...options, direction })
})

/** The row of our peer in the node's `getpeerinfo`, after the node has completed the handshake as well. */
export const rowOf = (
  node: InteropNode,
  { address }: Pick<OurPeer, "address">
): Effect.Effect<PeerInfo, InteropError> =>
  Effect.map(
    eventually(
      Effect.map(node.peers, (peers) => peers.find(({ addr, subver }) => addr === address && subver)),
      (row) => row !== undefined
    ),
    (row) => row!
  )

/** Waits until the node no longer lists the peer with this address, or any of our peers. */
export const forgotten = (node: InteropNode, address?: string): Effect.Effect<unknown, InteropError> =>
  eventually(node.peers, (peers) =>
    peers.every(({ addr, subver }) =>
      address === undefined ? subver !== Handshake.defaultUserAgent : addr !== address
    )
  )

let visitors = 0

/**
 * Asserts that the node has logged no complaints so far. The log is in order: when it contains the user agent of a peer that
 * connects now, it contains everything before.
 */
export const assertContent = Effect.fnUntraced(function* (node: InteropNode) {
  const agent = `/visitor:${++visitors}/`
  const visitor = yield* RawPeer.dial(node.port)
  yield* RawPeer.handshake(visitor, agent, 70015)
  yield* node.awaitLog(new RegExp(`version.*${agent}`))
  assert.deepEqual(node.complaints(), [])
}, Effect.scoped)

/**
 * Registers a test with a node of its own. After the scope of the test, the node must have noticed the end of all our peers,
 * and must have no complaints.
 */
export const liveWith =
  (start: InteropNodeKind["start"]) =>
  <E>(
    title: string,
    test: (node: InteropNode) => Effect.Effect<void, E, Scope.Scope | Nonce.Nonce>,
    options: StartOptions = {}
  ): void =>
    it.live(title, () =>
      Effect.gen(function* () {
        const node = yield* start(options)
        yield* Effect.scoped(test(node))
        yield* forgotten(node)
        yield* assertContent(node)
      }).pipe(Effect.provide(Nonce.layer))
    )
