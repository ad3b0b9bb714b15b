/** Servers on one or several addresses, and the one queue of what they accept. */
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

/** What a listener did so far, and has open. */
export interface ListenerStats {
  /** Connections that it took and that did not close yet, those that wait for an `accept` included. */
  readonly open: number
  /** Those among them that wait for an `accept`. */
  readonly pending: number
  /** How many were destroyed at once because there were enough: in all, from their address, or waiting. */
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

/** What of the options of `listen` is for the servers. */
export interface ListenerSettings {
  /** Default `127.0.0.1`: the outside is let in only when asked to, with `0.0.0.0` or `::`. */
  readonly host?: string | undefined
  /** 0 takes a free one, which `address` then tells. */
  readonly port: number
  /** Further addresses to listen on. Beside others `::` takes IPv6 only, as in Bitcoin Core; alone it takes IPv4 too. */
  readonly also?: ReadonlyArray<Endpoint> | undefined
  /** How many connections may be open, accepted ones included, until they close; those beyond are destroyed. Default: any number. */
  readonly maxConnections?: number | undefined
  /**
   * The same for one remote address, where IPv6 addresses of one /64 count as one. Default: any number. Mind that behind
   * an onion service, or a proxy of one's own, everybody comes from its address.
   */
  readonly maxPerAddress?: number | undefined
  /** How many connections the kernel holds that Node did not take yet, on each address. Default 511. */
  readonly backlog?: number | undefined
  /** How many connections wait for an `accept`; those beyond are destroyed. Default 128. */
  readonly maxPending?: number | undefined
  readonly noDelay?: boolean | undefined
}

/** What accepts. */
export interface OpenListener {
  readonly addresses: NonEmptyReadonlyArray<Endpoint>
  readonly stats: Effect.Effect<ListenerStats>
  /** The next socket, paused, of which nothing was read. It is the caller's, so nothing else may interrupt. */
  readonly next: (restore: Restore) => Effect.Effect<net.Socket, ConnectionError>
}

/** Listens until the scope ends. To be run where nothing interrupts but `restore`. */
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
      // Node would take an empty host for all addresses of this machine.
      if (host === "") return yield* failed("AddressNotAvailable", "no host")
      const server = net.createServer({ pauseOnConnect: true, noDelay: options.noDelay ?? true }, onConnection)
      // Also what accepting runs into later, such as too many open files: the next connection may fare better.
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

    return {
      addresses: [address, ...others],
      stats: Effect.sync(() => ({ open: count.open(), pending: pending.length, refused })),
      next: Effect.fnUntraced(function* (restore: Restore) {
        while (true) {
          yield* restore(arrivals.wait)
          // Another fiber that was woken as well may have been faster.
          const socket = pending.shift()
          if (socket !== undefined && !socket.destroyed) return socket
        }
      })
    }
  })
