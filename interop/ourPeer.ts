/** Our own peer at a real node, in either direction, with a memory of all that it was sent. */
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

/** Seen from us: "outbound" dials the node, "inbound" is dialled by it. */
export const directions = ["outbound", "inbound"] as const
export type Direction = (typeof directions)[number]

/** What we offer unless a test says otherwise: a node dials nobody for long who has no blocks. */
export const services = Wire.Service.network | Wire.Service.witness

export interface OurPeer {
  readonly peer: Peer.Peer
  /** What the node calls us: the `addr` of its `getpeerinfo`. */
  readonly address: string
  /** First message with this tag, past or to come, that satisfies `where`. Fails when none came in 30 s, or the peer ended. */
  readonly receive: <Tag extends Wire.Message["_tag"]>(
    tag: Tag,
    where?: (message: Peer.MessageOf<Tag>) => boolean
  ) => Effect.Effect<Peer.MessageOf<Tag>, InteropError>
}

/** Listens, hands the port to `invite`, and takes the first connection that comes. */
const accept = Effect.fnUntraced(function* (invite: (port: number) => Effect.Effect<unknown, InteropError>) {
  const listener = yield* NodeConnection.listen({ port: 0 })
  yield* invite(listener.address.port)
  return yield* listener.accept
})

/** Our end of the handshake, over a connection that stands. When its scope ends, nothing that came may have been dropped. */
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
        Effect.timeoutOrElse({ duration: "30 seconds", orElse: () => fail("nothing in 30 s") }),
        Effect.ensuring(Effect.sync(() => watchers.delete(watcher)))
      )
    })
  return { peer, address: Connection.formatEndpoint(peer.info.localAddress), receive }
})

/** Connects and shakes hands: dials the node, or has the node dial us, as `invite` says. */
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

/** The node's `getpeerinfo` of us, once its side of the handshake is done as well. */
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

/** Waits until the node has forgotten whoever has this address, or all of our peers. */
export const forgotten = (node: InteropNode, address?: string): Effect.Effect<unknown, InteropError> =>
  eventually(node.peers, (peers) =>
    peers.every(({ addr, subver }) =>
      address === undefined ? subver !== Handshake.defaultUserAgent : addr !== address
    )
  )

let visitors = 0

/**
 * Checks that the node complained of nobody so far. A node writes one log, in order: when it has the name of somebody who
 * comes now, it has all that happened before.
 */
export const assertContent = Effect.fnUntraced(function* (node: InteropNode) {
  const agent = `/visitor:${++visitors}/`
  const visitor = yield* RawPeer.dial(node.port)
  yield* RawPeer.handshake(visitor, agent, 70015)
  yield* node.awaitLog(new RegExp(`version.*${agent}`))
  assert.deepEqual(node.complaints(), [])
}, Effect.scoped)

/**
 * Makes tests against a node of their own. When the scope of a test has ended, the node must have noticed that all of our
 * peers left, and have nothing to complain of.
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
