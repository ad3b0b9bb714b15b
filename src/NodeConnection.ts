/**
 * Connections over TCP, with `node:net`: dial with `connect`, accept with `listen`. The only public module that needs
 * Node, hence not part of the barrel: `import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"`.
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as net from "node:net"
import { Connection } from "./Connection.ts"
import {
  closedError,
  ConnectionError,
  type Endpoint,
  type ListenProblem,
  resetError
} from "./internal/connectionError.ts"
import { codeOf, dialProblem, unwrapAttempts } from "./internal/dialProblem.ts"
import { type Closable, defaultCloseTimeout, gracefulClose } from "./internal/gracefulClose.ts"
import { unwritten } from "./internal/bytes.ts"
import { Inbox } from "./internal/inbox.ts"
import { startTimer } from "./internal/timer.ts"
import { Waiters } from "./internal/waiters.ts"

/**
 * Reading pauses when so much was not pulled. The last chunk (Node reads 64 KiB at a time) may exceed it, and Node's own
 * buffer takes two more before the kernel's window closes: at most 256 KiB wait in this process for a puller that is away.
 */
const pauseAt = 65_536

/** Each piece costs an object of 200 bytes and more, however few bytes are in it: so many pause reading as well. */
const maxPieces = 1_024

const noop = () => {}

/** How an accepted or dialed socket is used. */
export interface SocketOptions {
  /** How long `close` waits for the flush and the remote's end before the socket is destroyed. Default 500 ms. */
  readonly closeTimeout?: Duration.Input | undefined
  /** Send small writes at once (TCP_NODELAY). Default `true`. */
  readonly noDelay?: boolean | undefined
}

/** What to dial, and how. */
export interface ConnectOptions extends SocketOptions {
  /** A name or an address; IPv6 without brackets. All addresses of a name are tried. */
  readonly host: string
  readonly port: number
  /** How long looking up the name and connecting may take together. Default 5 s. */
  readonly connectTimeout?: Duration.Input | undefined
  /** The address of this machine to dial from. */
  readonly localAddress?: string | undefined
  /** How names become addresses, in place of `dns.lookup`. */
  readonly lookup?: net.LookupFunction | undefined
}

/** Where to listen, and how. */
export interface ListenOptions extends SocketOptions {
  /** Default `127.0.0.1`: the outside is let in only when asked to, with `0.0.0.0` or `::`. */
  readonly host?: string | undefined
  /** 0 takes a free one, which `address` then tells. */
  readonly port: number
  /** How many connections the kernel holds that Node did not take yet. Default 511. */
  readonly backlog?: number | undefined
  /** How many connections wait for an `accept`; those beyond are destroyed. Default 128. */
  readonly maxPending?: number | undefined
}

/** Node says `::ffff:127.0.0.1` of an IPv4 remote on an IPv6 listener. */
const plainHost = (host: string): string => (host.startsWith("::ffff:") && host.includes(".") ? host.slice(7) : host)

const endpointOf = (host: string | undefined, port: number | undefined, otherwise: Endpoint): Endpoint =>
  host === undefined || port === undefined ? otherwise : { host: plainHost(host), port }

const defaultConnectTimeout = Duration.seconds(5)

const unspecified: Endpoint = { host: "0.0.0.0", port: 0 }

/**
 * Where all dialed sockets read to, one after the other, while little comes: what was read is copied out before the next
 * read begins. A socket left to itself takes 64 KiB for each read, however little comes: round trips take 1.2 times as
 * long.
 */
const readBuffer = process.platform === "win32" ? undefined : new Uint8Array(65_536)

/**
 * A socket whose read filled that buffer reads to one of its own, from which nothing is copied, until so little comes again
 * that copying it costs less.
 */
const ownBufferSize = 262_144
const largeRead = 32_768

/** A socket, and who is told what it reads. */
interface Source {
  readonly socket: net.Socket
  onData: ((chunk: Uint8Array) => void) | undefined
}

const makeSource = (): Source => {
  // Windows holds on to a buffer while it waits for bytes: there none can be shared.
  if (readBuffer === undefined) return { socket: new net.Socket(), onData: undefined }
  /** The rest of the own buffer, nothing read into it yet. */
  let free: Uint8Array | undefined
  const source: Source = {
    socket: new net.Socket({
      onread: {
        buffer: () => {
          if (free === undefined) return readBuffer
          if (free.length < readBuffer.length) free = unwritten(ownBufferSize)
          return free
        },
        callback: (size) => {
          let chunk: Uint8Array
          if (free === undefined) {
            chunk = readBuffer.slice(0, size)
            if (size === readBuffer.length) free = unwritten(ownBufferSize)
          } else {
            chunk = free.subarray(0, size)
            free = size < largeRead ? undefined : free.subarray(size)
          }
          source.onData?.(chunk)
          return true
        }
      }
    }),
    onData: undefined
  }
  // Nothing may be read before somebody listens.
  source.socket.pause()
  return source
}

/** A connected socket as a connection. Reading starts at once, up to what is held for a puller. */
class NodeSocketConnection implements Closable {
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  private readonly socket: net.Socket
  private readonly closeTimeout: Duration.Input
  private readonly inbox: Inbox<ConnectionError> = new Inbox<ConnectionError>(() => this.onTaken())
  private paused = false
  private closing = false
  /** Node's own `closed` is true before it told us of the error. */
  private closed = false
  private error: ConnectionError | undefined

  private readonly drains = new Waiters<ConnectionError>(() => {
    if (this.error !== undefined) return Effect.fail(this.error)
    return this.socket.writableLength === 0 ? Effect.void : undefined
  })
  readonly over = new Waiters(() => (this.isOver() ? Effect.void : undefined))

  readonly pull: Inbox<ConnectionError>["pull"] = this.inbox.pull
  readonly drained: Effect.Effect<void, ConnectionError> = this.drains.wait
  // Put together when it runs, for an idle connection shall not hold what is used once.
  readonly close: Effect.Effect<void> = Effect.suspend(() => gracefulClose(this, this.closeTimeout))
  readonly destroy: Effect.Effect<void> = Effect.sync(() => this.destroyUnsafe())

  constructor(source: Source, remote: Endpoint, closeTimeout: Duration.Input) {
    const { socket } = source
    this.socket = socket
    this.closeTimeout = closeTimeout
    this.localAddress = endpointOf(socket.localAddress, socket.localPort, unspecified)
    this.remoteAddress = endpointOf(socket.remoteAddress, socket.remotePort, remote)
    socket.on("error", this.onError)
    socket.on("end", this.onEnd)
    socket.on("close", this.onClose)
    // A source tells one or the other way.
    source.onData = this.onData
    socket.on("data", this.onData)
    // They come paused.
    socket.resume()
    // It may have ended before anybody listened: its events may be over.
    if (socket.errored !== null) this.onError(socket.errored)
    if (socket.destroyed) this.onClose()
  }

  readonly write = (bytes: Uint8Array): number => {
    if (this.error !== undefined) return 0
    const socket = this.socket
    if (bytes.length > 0) socket.write(bytes, this.onWritten)
    return socket.destroyed ? 0 : socket.writableLength
  }

  isOver(): boolean {
    return this.closed
  }

  begin(): void {
    if (this.closing) return
    this.closing = true
    this.error ??= closedError()
    this.inbox.discard(this.error)
    this.socket.end()
    this.socket.resume()
  }

  destroyUnsafe(): void {
    this.closing = true
    this.error ??= closedError()
    this.inbox.discard(this.error)
    this.socket.destroy()
    this.drains.wake(Effect.fail(this.error))
  }

  private onTaken(): void {
    if (!this.paused) return
    this.paused = false
    this.socket.resume()
  }

  private readonly onData = (chunk: Uint8Array): void => {
    this.inbox.push(chunk)
    if (this.inbox.size < pauseAt && this.inbox.pieces < maxPieces) return
    this.paused = true
    this.socket.pause()
  }

  // One function for all writes: Node then reports those of one turn together.
  private readonly onWritten = (): void => {
    if (this.socket.writableLength === 0) this.drains.wake(Effect.void)
  }

  // Node ends our side by itself then (no allowHalfOpen), once what was written is flushed.
  private readonly onEnd = (): void => {
    this.error ??= closedError()
    this.inbox.fail(this.error)
  }

  private readonly onError = (cause: Error): void => {
    this.error ??= resetError(cause)
    // What a paused socket still holds; Node itself would not hand it out any more.
    for (let chunk: unknown = this.socket.read(); chunk instanceof Uint8Array; chunk = this.socket.read()) {
      this.inbox.push(chunk)
    }
    this.inbox.fail(this.error)
    this.drains.wake(Effect.fail(this.error))
  }

  private readonly onClose = (): void => {
    this.closed = true
    this.error ??= closedError()
    this.inbox.fail(this.error)
    this.drains.wake(Effect.fail(this.error))
    this.over.wake(Effect.void)
  }
}

/** To be run where nothing interrupts, for until the finalizer is there nobody owns the socket. */
const adopt = (
  source: Source,
  remote: Endpoint,
  options: SocketOptions
): Effect.Effect<Connection["Service"], never, Scope.Scope> =>
  Effect.suspend(() => {
    const connection = new NodeSocketConnection(source, remote, options.closeTimeout ?? defaultCloseTimeout)
    return Effect.as(
      Effect.addFinalizer(() => connection.close),
      connection
    )
  })

const dialFailed = ({ host, port }: ConnectOptions, cause: unknown): ConnectionError => {
  const attempt = unwrapAttempts(cause)
  return new ConnectionError({
    reason: { _tag: "DialFailed", problem: dialProblem(attempt), host, port, cause: attempt }
  })
}

/** Waits for a dial: the connected socket, or why there is none. What is interrupted or fails leaves no socket. */
const connected = (socket: net.Socket, options: ConnectOptions): Effect.Effect<void, ConnectionError> =>
  Effect.contextWith((context: Context.Context<never>) =>
    Effect.callback<void, ConnectionError>((resume) => {
      const settle = (): void => {
        stop()
        socket.off("connect", onConnect)
        socket.off("error", onError)
      }
      const fail = (error: ConnectionError): void => {
        settle()
        socket.destroy()
        resume(Effect.fail(error))
      }
      const onConnect = (): void => {
        settle()
        resume(Effect.void)
      }
      const onError = (cause: Error): void => fail(dialFailed(options, cause))
      const { host, port } = options
      const stop = startTimer(context, options.connectTimeout ?? defaultConnectTimeout, () =>
        fail(new ConnectionError({ reason: { _tag: "DialFailed", problem: "Timeout", host, port, cause: undefined } }))
      )
      socket.on("connect", onConnect)
      socket.on("error", onError)
      return Effect.sync(() => {
        settle()
        socket.destroy()
      })
    })
  )

/**
 * Dials, and gives the connection once it stands. Interrupting it, or the timeout, destroys the half-open socket.
 *
 * Fails with `DialFailed`, its `problem` says why. The connection is closed with the scope.
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * const program = Effect.scoped(Effect.gen(function*() {
 *   const connection = yield* NodeConnection.connect({ host: "127.0.0.1", port: 18444, connectTimeout: "2 seconds" })
 *   connection.write(Uint8Array.of(1, 2, 3))
 *   const batch = yield* connection.pull
 *   yield* Console.log(`${batch.length} pieces`)
 * })).pipe(Effect.catchTag("ConnectionError", (error) => Console.error(error.message)))
 *
 * await Effect.runPromise(program)
 * ```
 */
export const connect = (options: ConnectOptions): Effect.Effect<Connection["Service"], ConnectionError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const { host, port, localAddress, lookup } = options
      // Node would take an empty host for this machine.
      if (host === "") return yield* dialFailed(options, Object.assign(new Error("no host"), { code: "ENOTFOUND" }))
      const source = makeSource()
      const { socket } = source
      // Before, between and after all other listeners there is one: an error without any would end the process.
      socket.on("error", noop)
      socket.setNoDelay(options.noDelay ?? true)
      yield* Effect.try({
        // Node throws what it can tell at once, a bad port, a bad local address, and leaves the handle to us.
        try: () =>
          socket.connect({
            host,
            port,
            ...(localAddress === undefined ? undefined : { localAddress }),
            ...(lookup === undefined ? undefined : { lookup })
          }),
        catch: (cause) => {
          socket.destroy()
          return dialFailed(options, cause)
        }
      })
      yield* restore(connected(socket, options))
      return yield* adopt(source, { host, port }, options)
    })
  )

/**
 * A connection for as long as the layer lives.
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * const program = Effect.gen(function*() {
 *   const connection = yield* Connection.Connection
 *   return Connection.formatEndpoint(connection.remoteAddress)
 * }).pipe(Effect.provide(NodeConnection.layerConnect({ host: "127.0.0.1", port: 18444 })))
 * ```
 */
export const layerConnect = (options: ConnectOptions): Layer.Layer<Connection, ConnectionError> =>
  Layer.effect(Connection, connect(options))

/**
 * Accepts connections, one at a time. Connections that wait to be accepted are not read from, and their number is bounded.
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Connection } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * const program = Effect.gen(function*() {
 *   const listener = yield* NodeConnection.Listener
 *   const connection = yield* listener.accept
 *   return Connection.formatEndpoint(connection.remoteAddress)
 * }).pipe(Effect.scoped, Effect.provide(NodeConnection.layerListen({ port: 18444 })))
 * ```
 */
export class Listener extends Context.Service<
  Listener,
  {
    /** Where it listens, with the port that was taken when it was asked for any. */
    readonly address: Endpoint
    /**
     * The next connection, which belongs to the scope of this call, not to the listener's. Several fibers may accept; interrupting one
     * loses no connection. Fails with `Closed` once the listener's scope ended.
     */
    readonly accept: Effect.Effect<Connection["Service"], ConnectionError, Scope.Scope>
  }
>()("effect-bitcoin-peer/Listener") {}

const listenProblems: Readonly<Record<string, ListenProblem>> = {
  EADDRINUSE: "AddressInUse",
  EACCES: "NoPermission",
  EPERM: "NoPermission",
  EADDRNOTAVAIL: "AddressNotAvailable",
  ENOTFOUND: "AddressNotAvailable",
  EAI_AGAIN: "AddressNotAvailable",
  ERR_SOCKET_BAD_PORT: "BadPort"
}

const listening = (server: net.Server, options: net.ListenOptions): Effect.Effect<void, unknown> =>
  Effect.callback<void, unknown>((resume) => {
    server.once("listening", () => resume(Effect.void))
    server.once("error", (cause) => resume(Effect.fail(cause)))
    try {
      server.listen(options)
    } catch (cause) {
      resume(Effect.fail(cause))
    }
  })

/**
 * Listens until the scope ends, which also destroys the connections that nobody accepted; accepted ones live on.
 *
 * Fails with `ListenFailed`, its `problem` says why.
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * const echo = Effect.gen(function*() {
 *   const listener = yield* NodeConnection.listen({ port: 0 })
 *   const client = yield* NodeConnection.connect(listener.address)
 *   const server = yield* listener.accept
 *   client.write(Uint8Array.of(42))
 *   for (const bytes of yield* server.pull) server.write(bytes)
 *   return yield* client.pull // [Uint8Array.of(42)]
 * }).pipe(Effect.scoped)
 *
 * await Effect.runPromise(echo)
 * ```
 */
export const listen = (options: ListenOptions): Effect.Effect<Listener["Service"], ConnectionError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const { port, host = "127.0.0.1", backlog = 511, maxPending = 128 } = options
      // Node would take an empty host for all addresses of this machine.
      if (host === "") {
        return yield* new ConnectionError({
          reason: { _tag: "ListenFailed", problem: "AddressNotAvailable", host, port, cause: "no host" }
        })
      }
      const pending: Array<net.Socket> = []
      let closed: ConnectionError | undefined
      const arrivals = new Waiters<ConnectionError>(() => {
        if (closed !== undefined) return Effect.fail(closed)
        return pending.length > 0 ? Effect.void : undefined
      })

      const server = net.createServer({ pauseOnConnect: true, noDelay: options.noDelay ?? true })
      // Also what accepting runs into later, such as too many open files: the next connection may fare better.
      server.on("error", noop)
      server.on("connection", (socket) => {
        socket.on("error", noop)
        if (closed !== undefined || (pending.length >= maxPending && !arrivals.isAwaited)) {
          socket.destroy()
          return
        }
        pending.push(socket)
        arrivals.wake(Effect.void)
      })

      const close = Effect.sync(() => {
        closed ??= closedError()
        server.close(noop)
        for (const socket of pending.splice(0)) socket.destroy()
        arrivals.wake(Effect.fail(closed))
      })
      yield* restore(listening(server, { host, port, backlog })).pipe(
        Effect.mapError(
          (cause) =>
            new ConnectionError({
              reason: {
                _tag: "ListenFailed",
                problem: listenProblems[codeOf(cause) ?? ""] ?? "Other",
                host,
                port,
                cause
              }
            })
        ),
        Effect.onExit((exit) => (Exit.isFailure(exit) ? close : Effect.void))
      )
      yield* Effect.addFinalizer(() => close)

      const accept: Listener["Service"]["accept"] = Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          while (true) {
            yield* restore(arrivals.wait)
            // Another fiber that was woken as well may have been faster.
            const socket = pending.shift()
            if (socket !== undefined && !socket.destroyed)
              return yield* adopt({ socket, onData: undefined }, unspecified, options)
          }
        })
      )
      const address = server.address()
      return {
        address:
          typeof address === "object" && address !== null
            ? { host: plainHost(address.address), port: address.port }
            : { host, port },
        accept
      }
    })
  )

/** A `Listener` for as long as the layer lives. */
export const layerListen = (options: ListenOptions): Layer.Layer<Listener, ConnectionError> =>
  Layer.effect(Listener, listen(options))
