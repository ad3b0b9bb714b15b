/** Servers on one or several addresses with one queue of accepted sockets. */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import * as net from "node:net"
import { closedError, ConnectionError, type Endpoint, type ListenProblem } from "../../ConnectionError.ts"
import { codeOf } from "../dialProblem.ts"
import { WaitList } from "../../primitives/waitList.ts"
import { plainHost } from "./hosts.ts"
import { makeCount } from "./limits.ts"
import { noop, type Restore } from "./netSocket.ts"

/**
 * How many connections a listener has open and has refused.
 *
 * @category models
 * @since 0.1.0
 */
export interface ListenerStats {
  /** Connections that have not closed yet, those that wait for an `accept` included. */
  readonly open: number
  /** The open connections that wait for an `accept`. */
  readonly pending: number
  /**
   * The number of connections that were destroyed at once because a limit was reached: in total, from one address, or
   * waiting.
   */
  readonly refused: number
}

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

/** The options of `listen` that concern the servers. */
export interface ListenerSettings {
  /** The address to listen on; `127.0.0.1` by default. `0.0.0.0` and `::` accept connections from other machines. */
  readonly host?: string | undefined
  /** The port; 0 takes a free one, which `address` of the listener has. */
  readonly port: number
  /**
   * Further addresses to listen on. With others `::` is for IPv6 only, as in Bitcoin Core; alone it is for IPv4 too.
   */
  readonly also?: ReadonlyArray<Endpoint> | undefined
  /**
   * The greatest number of open connections, accepted ones included. A connection above it is destroyed. No limit by
   * default.
   */
  readonly maxConnections?: number | undefined
  /**
   * The same limit for one remote address. IPv6 addresses of one /64 count as one. No limit by default. All connections
   * through an onion service or a proxy of your own come from its address.
   */
  readonly maxPerAddress?: number | undefined
  /** How many connections the kernel holds for Node, on each address; 511 by default. */
  readonly backlog?: number | undefined
  /** How many connections may wait for an `accept`; 128 by default. A connection above it is destroyed. */
  readonly maxPending?: number | undefined
  readonly noDelay?: boolean | undefined
}

/** A listener that is open. */
export interface OpenListener {
  readonly addresses: NonEmptyReadonlyArray<Endpoint>
  readonly stats: Effect.Effect<ListenerStats>
  /**
   * Waits for the next socket. It is paused, nothing was read from it, and the caller owns it; so only `restore` may be
   * interrupted.
   */
  readonly next: (restore: Restore) => Effect.Effect<net.Socket, ConnectionError>
}

/** Listens until the scope ends. Run it where only `restore` can be interrupted. */
export const openListener = (
  options: ListenerSettings,
  restore: Restore
): Effect.Effect<OpenListener, ConnectionError, Scope.Scope> =>
  Effect.gen(function* () {
    const {
      also = [],
      backlog = 511,
      host = "127.0.0.1",
      maxConnections,
      maxPending = 128,
      maxPerAddress,
      port
    } = options
    const wanted: ReadonlyArray<Endpoint> = [{ host, port }, ...also]
    const pending: Array<net.Socket> = []
    const count = makeCount({
      maxConnections: maxConnections ?? Number.POSITIVE_INFINITY,
      maxPerAddress: maxPerAddress ?? Number.POSITIVE_INFINITY
    })
    let refused = 0
    let closed: ConnectionError | undefined
    const arrivals = new WaitList<ConnectionError>(() => {
      if (closed !== undefined) return Effect.fail(closed)
      return pending.length > 0 ? Effect.void : undefined
    })

    const onConnection = (socket: net.Socket): void => {
      socket.on("error", noop)
      const isFull = pending.length >= maxPending && !arrivals.isAwaited
      const leave = closed !== undefined || isFull ? undefined : count.enter(plainHost(socket.remoteAddress ?? ""))
      if (leave === undefined) {
        refused++
        socket.destroy()
        return
      }
      socket.once("close", leave)
      pending.push(socket)
      arrivals.wake()
    }

    const servers: Array<net.Server> = []
    const close = Effect.sync(() => {
      closed ??= closedError()
      for (const server of servers) server.close(noop)
      for (const socket of pending.splice(0)) socket.destroy()
      arrivals.wake(Effect.fail(closed))
    })
    const listenOn = Effect.fnUntraced(function* ({ host, port }: Endpoint) {
      const failed = (problem: ListenProblem, cause: unknown) =>
        new ConnectionError({ reason: { _tag: "ListenFailed", problem, host, port, cause } })
      // Node takes an empty host as all addresses of this machine.
      if (host === "") return yield* failed("AddressNotAvailable", "no host")
      const server = net.createServer({ pauseOnConnect: true, noDelay: options.noDelay ?? true }, onConnection)
      // Also errors of later accepts, such as too many open files: the next connection may succeed.
      server.on("error", noop)
      servers.push(server)
      yield* Effect.mapError(
        restore(listening(server, { host, port, backlog, ipv6Only: wanted.length > 1 && net.isIPv6(host) })),
        (cause) => failed(listenProblems[codeOf(cause) ?? ""] ?? "Other", cause)
      )
      const address = server.address()
      return typeof address === "object" && address !== null
        ? { host: plainHost(address.address), port: address.port }
        : { host, port }
    })
    const [first, ...others] = yield* Effect.forEach(wanted, listenOn).pipe(
      Effect.onExit((exit) => (Exit.isFailure(exit) ? close : Effect.void))
    )
    const address = first ?? { host, port }
    yield* Effect.addFinalizer(() => close)

    const next = (restore: Restore): Effect.Effect<net.Socket, ConnectionError> =>
      Effect.flatMap(restore(arrivals.wait), () => {
        // Another fiber that was woken as well may have been faster.
        const socket = pending.shift()
        return socket === undefined || socket.destroyed ? next(restore) : Effect.succeed(socket)
      })

    return {
      addresses: [address, ...others],
      stats: Effect.sync(() => ({ open: count.open(), pending: pending.length, refused })),
      next
    }
  })
