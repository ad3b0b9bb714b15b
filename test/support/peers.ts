/** Peers and scripted remotes over in-memory connections: the base of most tests of Peer and Handshake. */
import { Clock, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import { Connection, Network, Nonce, Peer, Wire } from "effect-bitcoin-peer"

export const network = Network.regtest

const noAddress = { services: 0n, address: new Uint8Array(16), port: 0 }

/** The version message of an ordinary node. */
export const version = (fields: Partial<Wire.Version> = {}): Wire.Version => ({
  _tag: "version",
  protocolVersion: 70_017,
  services: Wire.Service.network | Wire.Service.witness,
  timestamp: 0,
  receiver: noAddress,
  sender: noAddress,
  nonce: 42n,
  userAgent: "/remote:1.0/",
  startHeight: 100,
  relay: true,
  ...fields
})

export const verack: Wire.Message = { _tag: "verack" }

/** Nonces 1, 2, 3, … instead of random ones. */
export const countedNonces: Layer.Layer<Nonce.Nonce> = Layer.suspend(() => {
  let next = 0n
  return Layer.provide(
    Nonce.layerNoDeps,
    Layer.succeed(
      SecureRandom.SecureRandom,
      SecureRandom.make((size) => {
        const bytes = new Uint8Array(size)
        new DataView(bytes.buffer).setBigUint64(0, ++next, true)
        return bytes
      })
    )
  )
})

/** A scripted remote: a test sends and receives its bytes and messages. It has no fibers and sends nothing by itself. */
export const scripted = (connection: Connection.Connection) => {
  const parser = Wire.makeParser({ magic: network.magic })
  const arrived: Array<Wire.Message> = []
  const frames = (messages: ReadonlyArray<Wire.Message>): Uint8Array => {
    const encoded = Wire.encodeFrames(network.magic, messages)
    if (encoded._tag === "Failure") throw encoded.failure
    return encoded.success
  }
  const sendBytes = (bytes: Uint8Array) => Effect.sync(() => void connection.write(bytes))
  /** The next message from the peer under test. */
  const receive: Effect.Effect<Wire.Message, Connection.ConnectionError> = Effect.suspend(() => {
    const message = arrived.shift()
    return message !== undefined
      ? Effect.succeed(message)
      : Effect.flatMap(connection.pull, (chunks) => {
          for (const chunk of chunks) {
            for (const event of parser.push(chunk)) if (event._tag === "Received") arrived.push(event.message)
          }
          return receive
        })
  })
  const send = (...messages: ReadonlyArray<Wire.Message>) => sendBytes(frames(messages))
  /** Receives until a message of the given type, and returns it. */
  const receiveUntil = (tag: Wire.Message["_tag"]): Effect.Effect<Wire.Message, Connection.ConnectionError> =>
    Effect.flatMap(receive, (message) => (message._tag === tag ? Effect.succeed(message) : receiveUntil(tag)))
  return { connection, frames, send, sendBytes, receive, receiveUntil }
}

/** The same clock with another `sleep`. */
export const withSleep = (clock: Clock.Clock, sleep: Clock.Clock["sleep"]): Clock.Clock => ({
  currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
  currentTimeMillis: clock.currentTimeMillis,
  currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
  currentTimeNanos: clock.currentTimeNanos,
  monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
  monotonicTimeNanos: clock.monotonicTimeNanos,
  sleep
})

/** Counts the fibers of a peer that wait in its connection or on the clock. After the end the count must be 0. */
export const tracked = (connection: Connection.Connection) => {
  let waiting = 0
  const track = <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.acquireUseRelease(
      Effect.sync(() => void waiting++),
      () => effect,
      () => Effect.sync(() => void waiting--)
    )
  return {
    waiting: () => waiting,
    connection: {
      localAddress: connection.localAddress,
      remoteAddress: connection.remoteAddress,
      pull: track(connection.pull),
      write: (bytes: Uint8Array) => connection.write(bytes),
      drained: track(connection.drained),
      close: connection.close,
      destroy: connection.destroy
    } satisfies Connection.Connection,
    clock: <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
      Effect.flatMap(Clock.Clock, (clock) =>
        Effect.provideService(
          effect,
          Clock.Clock,
          withSleep(clock, (duration) => track(clock.sleep(duration)))
        )
      )
  }
}

export type Tracked = ReturnType<typeof tracked>

/**
 * A peer over an in-memory pair, in a scope of its own, and the scripted remote at the other end, which has completed its
 * part of the handshake.
 */
export const withRemote = Effect.fnUntraced(function* <H extends Peer.Handlers<unknown> = Peer.Handlers>(
  options: Peer.Options<H> = {},
  remoteVersion: Partial<Wire.Version> = {},
  pairOptions: Connection.PairOptions = {},
  negotiation: ReadonlyArray<Wire.Message> = []
) {
  const pair = yield* Connection.makePair(pairOptions)
  const remote = scripted(pair[1])
  const tracker = tracked(pair[0])
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
  const making = yield* Peer.make(tracker.connection, { network, ...options }).pipe(
    Scope.provide(scope),
    tracker.clock,
    Effect.forkChild({ startImmediately: true })
  )
  if (options.direction === "inbound") yield* remote.send(version(remoteVersion))
  yield* remote.receiveUntil("version")
  if (options.direction !== "inbound") yield* remote.send(version(remoteVersion))
  yield* remote.receiveUntil("verack")
  yield* remote.send(...negotiation, verack)
  const peer = yield* Fiber.join(making)
  return { peer, remote, scope, pair, tracker, close: Scope.close(scope, Exit.void) }
})

/** `withRemote` for peers of one direction. */
export const startIn =
  (direction: "inbound" | "outbound") =>
  <H extends Peer.Handlers<unknown> = Peer.Handlers>(
    options: Peer.Options<H> = {},
    remoteVersion: Partial<Wire.Version> = {},
    pairOptions: Connection.PairOptions = {}
  ) =>
    withRemote({ direction, ...options }, remoteVersion, pairOptions)

/** Two peers at the two ends of an in-memory connection. */
export const twoPeers = Effect.fnUntraced(function* <
  A extends Peer.Handlers<unknown> = Peer.Handlers,
  B extends Peer.Handlers<unknown> = Peer.Handlers
>(outbound: Peer.Options<A> = {}, inbound: Peer.Options<B> = {}, pairOptions: Connection.PairOptions = {}) {
  const [first, second] = yield* Connection.makePair(pairOptions)
  return yield* Effect.all(
    [
      Peer.make(first, { network, requiredServices: [], ...outbound }).pipe(Effect.provide(Layer.fresh(Nonce.layer))),
      Peer.make(second, { network, direction: "inbound", ...inbound }).pipe(Effect.provide(Layer.fresh(Nonce.layer)))
    ],
    { concurrency: 2 }
  )
})

/** Forks a fiber that runs at once, up to its first wait. */
export const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

/** A message of an unknown command, with a payload of that many bytes. */
export const filler = (size: number): Wire.Message => ({
  _tag: "Unknown",
  command: "filler",
  payload: new Uint8Array(size)
})

export const ping = (nonce: number): Wire.Message => ({ _tag: "ping", nonce: BigInt(nonce) })
