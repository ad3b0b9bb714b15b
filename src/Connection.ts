/**
 * Connections: streams of bytes to and from one remote. The interface that a peer uses, an in-memory pair for tests, and
 * adapters from a WebSocket and from Effect's `Socket`. `NodeConnection` has TCP with `node:net`.
 *
 * Nothing here knows the meaning of the bytes.
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
import type { Receiver } from "./connection/receiveBuffer.ts"
import { SocketConnection } from "./connection/socket.ts"
import { makeSocket, type WebSocketLike } from "./connection/webSocket.ts"

export type { Receiver } from "./connection/receiveBuffer.ts"
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
 * A stream of bytes to and from one remote. The end of the scope in which it was made closes it.
 *
 * A connection ends once, and every later call fails with the same error: `Closed` after the remote's end or our own
 * `close` or `destroy`, `Reset` after an error.
 *
 * @example
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
 *
 * @category models
 * @since 0.1.0
 */
export interface Connection {
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  /**
   * Waits for the next bytes, in order, in any number of pieces. A reader that does not pull causes back-pressure: a
   * bounded number of bytes is held here, then the remote's writes stall. Interruption loses no bytes. Bytes that
   * arrived before the end are returned before the pull fails; after our own `close` or `destroy` it fails at once. Only
   * one fiber may pull at a time: a second one dies.
   */
  readonly pull: Effect.Effect<NonEmptyReadonlyArray<Uint8Array>, ConnectionError>
  /**
   * Hands the bytes to `receiver` in place of a fiber that pulls: those that are held at once, and all others in the turn of the
   * event loop in which they arrive. This ends when the receiver does not take more, and when the returned function is called;
   * the connection then holds the bytes for the next reader, with the same back-pressure. A peer uses it where a connection has
   * it, since a fiber that is resumed for each batch takes longer than most messages. Throws if there is another reader.
   */
  readonly receive?: (receiver: Receiver<ConnectionError>) => () => void
  /**
   * Takes bytes, in order and without waiting, and returns how many bytes wait in this process because the remote does
   * not take more now: 0 means that none wait. It never throws and never suspends, so check the result or wait for
   * `drained`. The bytes must not be changed afterwards. After the end it drops them and returns -1.
   */
  readonly write: (bytes: Uint8Array) => number
  /**
   * Waits until no written bytes wait in this process. The operating system has them then; the remote may not. Fails
   * with the error of the connection if it has ended.
   */
  readonly drained: Effect.Effect<void, ConnectionError>
  /**
   * Ends the connection gracefully: written bytes are flushed, our end is sent, and the remote's end is awaited for a
   * short time; then the connection is destroyed. Bytes that arrive meanwhile are dropped. A second call waits for the
   * same end.
   */
  readonly close: Effect.Effect<void>
  /** Ends the connection at once. Bytes that the operating system has not taken are dropped. */
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

/**
 * How the in-memory pair behaves. By default without delay, without cuts, and with 64 KiB in each direction.
 *
 * @category options
 * @since 0.1.0
 */
export interface PairOptions {
  /** The addresses of the first and the second end; 192.0.2.1:50001 and 192.0.2.2:8333 by default. */
  readonly addresses?: readonly [Endpoint, Endpoint] | undefined
  /** What each end knows as the address of the other one, where that is not its address, as through a proxy. */
  readonly remoteAddresses?: readonly [Endpoint, Endpoint] | undefined
  /** How long bytes and ends travel in each direction, on the Clock. Their order is kept. */
  readonly delay?: Duration.Input | undefined
  /**
   * Carries what an end sends, in place of `delay`: a network of one's own. It is called with the index of the end, 0 or 1, and with
   * bytes, or without bytes for the end of the stream. It calls `arrive` when the other end has received that, in the order of the
   * calls for one end. What does not arrive stays on its way and counts in the window.
   */
  readonly carry?: ((from: 0 | 1, bytes: Uint8Array | undefined, arrive: () => void) => void) | undefined
  /**
   * How a write is cut. An array: into pieces of these sizes, repeated from the first. A function: into the pieces that
   * it returns, which joined must be the bytes. Each piece is a batch of its own. By default a pull returns all bytes
   * that wait.
   */
  readonly split?: NonEmptyReadonlyArray<number> | ((bytes: Uint8Array) => ReadonlyArray<Uint8Array>) | undefined
  /**
   * The number of bytes after which the connection is reset: in each direction, or for the first and the second end.
   */
  readonly cutAfter?: number | readonly [first: number | undefined, second: number | undefined] | undefined
  /**
   * How many bytes a direction holds, on their way or not pulled yet, before the writer's bytes wait; 64 KiB by default.
   */
  readonly window?: number | undefined
  /**
   * How long `close` waits for the other end, on the Clock. By default it does not wait, so that no test waits for a
   * TestClock that does not move. Written bytes can still be pulled at the other end.
   */
  readonly closeTimeout?: Duration.Input | undefined
}

/**
 * Both ends of an in-memory connection, and a way to break it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Pair extends Readonly<[Connection, Connection]> {
  /** Breaks the connection at both ends. Bytes on their way are lost; bytes that arrived can still be pulled. */
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
 * Makes both ends of an in-memory connection, for tests and for two peers in one program. It is deterministic, uses
 * Effect's Clock and bounded memory. The end of the scope destroys both ends.
 *
 * @example
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
 *
 * @category constructors
 * @since 0.1.0
 */
export const makePair = (options: PairOptions = {}): Effect.Effect<Pair, never, Scope.Scope> =>
  Effect.gen(function* () {
    const clock = yield* Clock.Clock
    const [firstAddress, secondAddress] = options.addresses ?? [
      { host: "192.0.2.1", port: 50001 },
      { host: "192.0.2.2", port: 8333 }
    ]
    const [firstRemote, secondRemote] = options.remoteAddresses ?? [secondAddress, firstAddress]
    const cutAfter = options.cutAfter
    const shared = {
      window: Math.max(1, options.window ?? 65_536),
      delayMillis: Duration.toMillis(options.delay ?? 0),
      closeTimeout: options.closeTimeout,
      clock
    }
    const cutOf = (index: 0 | 1) => (typeof cutAfter === "object" ? cutAfter[index] : cutAfter)
    const { carry } = options
    const optionsOf = (index: 0 | 1) => ({
      ...shared,
      split: splitterOf(options.split),
      carry: carry && ((bytes: Uint8Array | undefined, arrive: () => void) => carry(index, bytes, arrive))
    })
    const first = new MemoryEnd(firstAddress, firstRemote, cutOf(0), optionsOf(0))
    const second = new MemoryEnd(secondAddress, secondRemote, cutOf(1), optionsOf(1))
    first.connect(second)
    second.connect(first)
    // No fiber sees a graceful end now, and a wait could be for a TestClock that does not move any more.
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        first.destroyUnsafe()
        second.destroyUnsafe()
      })
    )
    if (shared.delayMillis > 0 && carry === undefined) {
      // One fiber for each direction sleeps while bytes travel.
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

/**
 * How a `Socket` becomes a connection.
 *
 * @category options
 * @since 0.1.0
 */
export interface SocketOptions {
  /** Our address, which a `Socket` does not know. */
  readonly localAddress?: Endpoint | undefined
  /** The address of the remote. The error of a failed open names it, too. */
  readonly remoteAddress?: Endpoint | undefined
  /** How long `close` waits for the flush and the remote's end; 500 ms by default. */
  readonly closeTimeout?: Duration.Input | undefined
}

const unknownEndpoint: Endpoint = { host: "unknown", port: 0 }

/**
 * Opens an Effect `Socket` as a connection: TLS, or one of your own. For a WebSocket use `fromWebSocket`, for TCP
 * `NodeConnection`: this costs two fibers and several times its memory. Opening the `Socket` dials; a failure is a
 * `DialFailed`.
 *
 * @example
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
 *
 * @category constructors
 * @since 0.1.0
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
      // Added after `scope` was forked, so it runs before `scope` and its fibers end.
      yield* Scope.addFinalizer(outer, connection.close)
      yield* Effect.forkIn(connection.reading, scope, { startImmediately: true })
      yield* Effect.forkIn(connection.writing, scope, { startImmediately: true })
      return connection
    })
  )

/**
 * The connection over the `Socket` in the context. It is opened once and lives as long as the layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerSocket = (options?: SocketOptions): Layer.Layer<Connection, ConnectionError, Socket.Socket> =>
  Layer.effect(
    Connection,
    Effect.flatMap(Socket.Socket, (socket) => fromSocket(socket, options))
  )

/**
 * How a WebSocket becomes a connection.
 *
 * @category options
 * @since 0.1.0
 */
export interface WebSocketOptions extends SocketOptions {
  /** How long opening may take; 10 s by default. */
  readonly openTimeout?: Duration.Input | undefined
  /**
   * How many bytes may arrive without being pulled; 32 MiB by default: 16 ordinary blocks that were requested at once,
   * or eight messages of the greatest size.
   */
  readonly maxUnread?: number | undefined
}

/**
 * Opens a WebSocket as a connection: in browsers, which have no TCP, in Node, and on the server. The payloads of its
 * messages, joined, are the stream; a text message counts as its UTF-8 bytes. `open` makes the WebSocket, or returns one
 * that is opening or open. A failure to open is a `DialFailed`.
 *
 * The close of the remote with code 1000, 1001 or without a code is `Closed`, and so is our own. Any other code, and a
 * network failure (1006), is `Reset`; its cause has the code and the remote's reason. `close` flushes, sends our close
 * and waits for the answer. A WebSocket has no half-open state: bytes that the remote sends after our close are lost.
 *
 * A WebSocket in a browser cannot stop reading, so bytes that are not pulled are held, and beyond `maxUnread` bytes the
 * connection is `Reset`. The WebSocket of the `ws` package stops reading, and so stops the remote. A WebSocket does not
 * report when fewer bytes wait to be sent: 256 KiB in it count as sent, and beyond that it is checked every 5 ms, so
 * that `drained` waits. It cannot be dropped: after `destroy` the browser still sends the bytes that it has.
 *
 * Effect's own `Socket.makeWebSocket` with `fromSocket` does not do this: each `close` waits for its timeout, and both
 * written bytes and bytes that are not pulled are held without a bound.
 *
 * @example
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
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromWebSocket = (
  open: () => WebSocketLike,
  options: WebSocketOptions = {}
): Effect.Effect<Connection, ConnectionError, Scope.Scope> =>
  Effect.gen(function* () {
    const { host, port } = options.remoteAddress ?? unknownEndpoint
    const webSocket = yield* Effect.acquireRelease(
      // A browser throws if the URL is invalid, and if a secure page opens an insecure WebSocket.
      Effect.try({
        try: open,
        catch: (cause) => new ConnectionError({ reason: { _tag: "DialFailed", problem: "Other", host, port, cause } })
      }),
      (webSocket) => Effect.sync(() => webSocket.close(1000))
    )
    const { openTimeout, maxUnread = 33_554_432 } = options
    const socket = yield* makeSocket(webSocket, { openTimeout, maxUnread })
    // The scope may go on after a failure.
    return yield* Effect.onError(fromSocket(socket, options), () => Effect.sync(() => webSocket.close(1000)))
  })

/**
 * The connection over a WebSocket. It is opened once and lives as long as the layer.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWebSocket = (
  open: () => WebSocketLike,
  options?: WebSocketOptions
): Layer.Layer<Connection, ConnectionError> => Layer.effect(Connection, fromWebSocket(open, options))
