/**
 * Bytes in and out, to one remote: the interface that a peer works on, the in-memory pair for tests, and adapters from a
 * WebSocket and from Effect's `Socket`. `NodeConnection` has the one over `node:net`.
 *
 * Nothing here knows what the bytes mean.
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import { ConnectionError, type Endpoint } from "./ConnectionError.ts"
import { dialProblem } from "./connection/dialProblem.ts"
import { defaultCloseTimeout } from "./connection/gracefulClose.ts"
import { MemoryEnd } from "./connection/memory.ts"
import { SocketConnection } from "./connection/socket.ts"
import { makeSocket, type WebSocketLike } from "./connection/webSocket.ts"

export type { WebSocketLike } from "./connection/webSocket.ts"
export {
  ConnectionError,
  isConnectionError,
  type ConnectionReason,
  type DialProblem,
  type Endpoint,
  formatEndpoint,
  type ListenProblem
} from "./ConnectionError.ts"

/**
 * A stream of bytes to and from one remote. It belongs to the scope in which it was made, whose end closes it.
 *
 * Once it ended, it stays ended, with the same error for everyone who asks: by the remote's end (`Closed`), by an error
 * (`Reset`), or by our own `close` or `destroy` (`Closed`).
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-bitcoin-peer"
 *
 * const program = Effect.scoped(Effect.gen(function*() {
 *   const [alice, bob] = yield* Connection.makePair()
 *   alice.write(new TextEncoder().encode("hello"))
 *   yield* alice.drained
 *   const [bytes] = yield* bob.pull
 *   return new TextDecoder().decode(bytes) // "hello"
 * }))
 *
 * await Effect.runPromise(program)
 * ```
 */
export interface Connection {
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  /**
   * Waits for the next bytes, in order, however they were cut on their way. Not pulling is back-pressure: a bounded
   * batch is held here, then the remote's writes stall. Interrupting it loses nothing. What arrived before the end is
   * handed out before the end fails it; after our own `close` or `destroy` it fails at once. Only one fiber may pull
   * at a time: a second one dies.
   */
  readonly pull: Effect.Effect<NonEmptyReadonlyArray<Uint8Array>, ConnectionError>
  /**
   * Hands bytes over, at once and in order, and returns how many bytes wait in this process because the other side
   * takes no more for now: 0 means none. It never throws and holds back nobody, so look at the result or wait for
   * `drained`. The bytes must not be changed afterwards. After the end it drops them and returns 0.
   */
  readonly write: (bytes: Uint8Array) => number
  /**
   * Waits until nothing that was written waits in this process; at once when that is so already. Taken by the
   * operating system is not yet received by the remote. Fails with the error of the connection when it ended.
   */
  readonly drained: Effect.Effect<void, ConnectionError>
  /**
   * Ends it softly: what was written is flushed, our end is sent, and the remote's end awaited, for a short time at
   * the most; then it is destroyed. What still arrives meanwhile is thrown away. Closing again waits for the same end.
   */
  readonly close: Effect.Effect<void>
  /** Ends it now: bytes not yet taken by the operating system are dropped. */
  readonly destroy: Effect.Effect<void>
}

/**
 * The key of the service `Connection` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const Connection: Context.Service<Connection, Connection> = Context.Service<Connection>(
  "effect-bitcoin-peer/Connection"
)

/** How the in-memory pair behaves. Without options: no delay, nothing cut, 64 KiB in each direction. */
export interface PairOptions {
  /** The addresses of the first and the second end. */
  readonly addresses?: readonly [Endpoint, Endpoint] | undefined
  /** How long bytes and ends travel, each way, on the Clock. Their order is kept. */
  readonly delay?: Duration.Input | undefined
  /**
   * How a write is cut: into pieces of these sizes, in turn and over again from the first, or as the function says, whose pieces must be
   * the bytes again when joined. Each piece is then a batch of its own. Without it, a pull gives all that waits.
   */
  readonly split?: NonEmptyReadonlyArray<number> | ((bytes: Uint8Array) => ReadonlyArray<Uint8Array>) | undefined
  /**
   * How many bytes get through before the connection is reset: for each direction, or for what the first and what the
   * second end sends.
   */
  readonly cutAfter?: number | readonly [first: number | undefined, second: number | undefined] | undefined
  /** How many bytes a direction holds, on their way and not yet pulled, before the writer's bytes wait. Default 64 KiB. */
  readonly window?: number | undefined
  /**
   * How long `close` waits for the other end, on the Clock. By default not at all, so that nothing waits for a TestClock
   * that nobody moves; what was written can still be pulled at the other end.
   */
  readonly closeTimeout?: Duration.Input | undefined
}

/** Both ends of an in-memory connection, and what a test can make happen to it. */
export interface Pair extends Readonly<[Connection, Connection]> {
  /** Breaks it, as seen from both ends. Bytes on their way are lost, those that arrived are still handed out. */
  readonly reset: (cause?: unknown) => Effect.Effect<void>
}

const splitterOf = (split: PairOptions["split"]): ((bytes: Uint8Array) => ReadonlyArray<Uint8Array>) | undefined => {
  if (split === undefined || typeof split === "function") return split
  const sizes = split.map((size) => Math.max(1, Math.trunc(size)))
  let turn = 0
  return (bytes) => {
    const pieces: Array<Uint8Array> = []
    for (let from = 0; from < bytes.length;) {
      const size = sizes[turn++ % sizes.length]!
      pieces.push(bytes.subarray(from, from + size))
      from += size
    }
    return pieces
  }
}

/**
 * Makes both ends of an in-memory connection: deterministic, on Effect's Clock, its memory bounded. For tests and for two
 * peers in one program. Both ends are gone when the scope closes.
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-bitcoin-peer"
 *
 * const program = Effect.scoped(Effect.gen(function*() {
 *   const pair = yield* Connection.makePair({ split: [1, 2] })
 *   const [alice, bob] = pair
 *   alice.write(Uint8Array.of(1, 2, 3))
 *   const first = yield* bob.pull // [Uint8Array.of(1)]
 *   yield* pair.reset()
 *   const second = yield* bob.pull // [Uint8Array.of(2, 3)]: it had arrived
 *   const error = yield* Effect.flip(bob.pull) // reason._tag is "Reset"
 *   return [first, second, error.reason._tag]
 * }))
 *
 * await Effect.runPromise(program)
 * ```
 */
export const makePair = (options: PairOptions = {}): Effect.Effect<Pair, never, Scope.Scope> =>
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const [firstAddress, secondAddress] = options.addresses ?? [
      { host: "192.0.2.1", port: 50001 },
      { host: "192.0.2.2", port: 8333 }
    ]
    const cutAfter = options.cutAfter
    const shared = {
      window: Math.max(1, options.window ?? 65_536),
      delayMillis: Duration.toMillis(options.delay ?? 0),
      closeTimeout: options.closeTimeout,
      clock
    }
    const cutOf = (index: 0 | 1) => (typeof cutAfter === "object" ? cutAfter[index] : cutAfter)
    const first = new MemoryEnd(firstAddress, secondAddress, cutOf(0), { ...shared, split: splitterOf(options.split) })
    const second = new MemoryEnd(secondAddress, firstAddress, cutOf(1), { ...shared, split: splitterOf(options.split) })
    first.connect(second)
    second.connect(first)
    // Nobody is left to see a soft end, and waiting for one could wait for a TestClock that nobody moves any more.
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        first.destroyUnsafe()
        second.destroyUnsafe()
      })
    )
    if (shared.delayMillis > 0) {
      // Bytes that travel need someone who sleeps meanwhile: one fiber a direction.
      yield* Effect.forkScoped(first.courier, { startImmediately: true })
      yield* Effect.forkScoped(second.courier, { startImmediately: true })
    }
    const ends: readonly [Connection, Connection] = [first, second]
    return Object.assign(ends, {
      reset: (cause: unknown = new Error("reset by the test")) =>
        Effect.sync(() => {
          first.resetBoth(cause)
        })
    })
  })

/** How a `Socket` becomes a connection. */
export interface SocketOptions {
  /** What to say of our side, for a `Socket` does not know it. */
  readonly localAddress?: Endpoint | undefined
  /** What to say of the remote; also named when opening fails. */
  readonly remoteAddress?: Endpoint | undefined
  /** How long `close` waits for the flush and the remote's end. Default 500 ms. */
  readonly closeTimeout?: Duration.Input | undefined
}

const unknownEndpoint: Endpoint = { host: "unknown", port: 0 }

/**
 * Opens an Effect `Socket` (TLS, a test's own; for a WebSocket use `fromWebSocket`) as a connection. Opening it dials; a
 * failure to open is a `DialFailed`. It costs two fibers and several times the memory of a `NodeConnection`, which for TCP
 * is the better one.
 *
 * ```ts
 * import { NodeSocket } from "@effect/platform-node"
 * import { Effect } from "effect"
 * import { Connection } from "effect-bitcoin-peer"
 *
 * const program = Effect.scoped(Effect.gen(function*() {
 *   const socket = yield* NodeSocket.makeNet({ host: "127.0.0.1", port: 18444 })
 *   const connection = yield* Connection.fromSocket(socket, { remoteAddress: { host: "127.0.0.1", port: 18444 } })
 *   return yield* connection.pull
 * }))
 * ```
 */
export const fromSocket = (
  socket: Socket.Socket,
  options: SocketOptions = {}
): Effect.Effect<Connection, ConnectionError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const remote = options.remoteAddress ?? unknownEndpoint
      const outer = yield* Effect.scope
      const scope = yield* Scope.fork(outer)
      const open = restore(Scope.provide(Socket.readerBytes(socket), scope))
      const pullSocket = yield* open.pipe(
        Effect.mapError(
          ({ reason }) =>
            new ConnectionError({
              reason: {
                _tag: "DialFailed",
                problem:
                  reason._tag === "SocketOpenError" && reason.kind === "Timeout"
                    ? "Timeout"
                    : dialProblem("cause" in reason ? reason.cause : reason),
                host: remote.host,
                port: remote.port,
                cause: "cause" in reason ? reason.cause : reason
              }
            })
        ),
        Effect.onExit((exit) => (Exit.isFailure(exit) ? Scope.close(scope, exit) : Effect.void))
      )
      const writeScope = yield* Scope.fork(scope)
      const writer = yield* Scope.provide(socket.writer, writeScope)
      const connection = new SocketConnection({
        pull: pullSocket,
        writer,
        scope,
        writeScope,
        localAddress: options.localAddress ?? unknownEndpoint,
        remoteAddress: remote,
        closeTimeout: options.closeTimeout ?? defaultCloseTimeout
      })
      // After `scope` was forked, hence run before `scope` and with it the fibers end.
      yield* Scope.addFinalizer(outer, connection.close)
      yield* Effect.forkIn(connection.reading, scope, { startImmediately: true })
      yield* Effect.forkIn(connection.writing, scope, { startImmediately: true })
      return connection
    })
  )

/** The connection over the `Socket` in the context, opened once, for as long as the layer lives. */
export const layerSocket = (options?: SocketOptions): Layer.Layer<Connection, ConnectionError, Socket.Socket> =>
  Layer.effect(
    Connection,
    Effect.flatMap(Socket.Socket, (socket) => fromSocket(socket, options))
  )

/** How a WebSocket becomes a connection. */
export interface WebSocketOptions extends SocketOptions {
  /** How long opening it may take. Default 10 s. */
  readonly openTimeout?: Duration.Input | undefined
  /**
   * How many bytes may wait for a puller who is away. Default 32 MiB: 16 ordinary blocks that were asked for at once, or
   * eight of the largest messages.
   */
  readonly maxUnread?: number | undefined
}

/**
 * Opens a WebSocket as a connection: in browsers, which have no TCP, in Node, and for the server's side too. The bytes of
 * its messages, joined, are the stream; how they are cut means nothing, and a text message counts as its UTF-8. `open`
 * makes it, or gives one that is opening or open. A failure to open is a `DialFailed`.
 *
 * It ends as a WebSocket does. The remote's close with code 1000, 1001 or none is `Closed`, and so is our own; any other
 * code, and a network that went away (1006), is `Reset`, whose cause says the code and the remote's reason. `close`
 * flushes, sends our close and awaits the answer. There is no half-open state: what the remote says after it is lost.
 *
 * A WebSocket in a browser cannot stop reading, so what is not pulled is held, and beyond `maxUnread` bytes the connection
 * is `Reset` in place of growing further; one of the `ws` package stops reading, and so stops the remote. It does not tell
 * when less waits to be sent: 256 KiB in it count as taken, and beyond them it is looked at each 5 ms, so that `drained`
 * waits as it should. And it cannot be dropped: `destroy` lets go of it, and the browser sends what it had taken.
 *
 * Effect's own `Socket.makeWebSocket` with `fromSocket` would have none of that: each `close` waits for its timeout, and
 * both what is written and what is not pulled is held without a bound.
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection, Nonce, Peer } from "effect-bitcoin-peer"
 *
 * // `examples/websocket-bridge.ts` listens there.
 * const program = Effect.gen(function*() {
 *   const url = "ws://127.0.0.1:8380/?target=127.0.0.1:18444"
 *   const connection = yield* Connection.fromWebSocket(() => new WebSocket(url), {
 *     remoteAddress: { host: "127.0.0.1", port: 18444 }
 *   })
 *   const peer = yield* Peer.make(connection, { requiredServices: [] })
 *   return peer.info.userAgent
 * }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
 * ```
 */
export const fromWebSocket = (
  open: () => WebSocketLike,
  options: WebSocketOptions = {}
): Effect.Effect<Connection, ConnectionError, Scope.Scope> =>
  Effect.gen(function* () {
    const { host, port } = options.remoteAddress ?? unknownEndpoint
    const webSocket = yield* Effect.acquireRelease(
      // A browser throws when the URL is none, and when a secure page may not open an insecure one.
      Effect.try({
        try: open,
        catch: (cause) => new ConnectionError({ reason: { _tag: "DialFailed", problem: "Other", host, port, cause } })
      }),
      (webSocket) => Effect.sync(() => webSocket.close(1000))
    )
    const { openTimeout, maxUnread = 33_554_432 } = options
    const socket = yield* makeSocket(webSocket, { openTimeout, maxUnread })
    // The scope may go on without it.
    return yield* Effect.onError(fromSocket(socket, options), () => Effect.sync(() => webSocket.close(1000)))
  })

/** The connection over a WebSocket, opened once, for as long as the layer lives. */
export const layerWebSocket = (
  open: () => WebSocketLike,
  options?: WebSocketOptions
): Layer.Layer<Connection, ConnectionError> => Layer.effect(Connection, fromWebSocket(open, options))
