/** Dialing with `node:net`, without a proxy. */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as net from "node:net"
import { ConnectionError, type DialProblem, type Endpoint } from "../../ConnectionError.ts"
import { dialProblem, unwrapAttempts } from "../dialProblem.ts"
import { startTimer } from "../../primitives/timer.ts"
import { needsProxy } from "./hosts.ts"
import { makeSource, noop, type Restore, type Source } from "./netSocket.ts"

const defaultConnectTimeout = Duration.seconds(5)

/** The options of `connect` that concern the dial. */
export interface DialOptions {
  /**
   * A name or an address; IPv6 without brackets. All addresses of a name are tried. An .onion or .i2p name fails at once
   * with `NeedsProxy`, without a DNS request.
   */
  readonly host: string
  readonly port: number
  /** How long the lookup of the name and the connection may take together; 5 s by default. */
  readonly connectTimeout?: Duration.Input | undefined
  /** The address of this machine from which to dial. */
  readonly localAddress?: string | undefined
  /** The function that looks up names, instead of `dns.lookup`. */
  readonly lookup?: net.LookupFunction | undefined
  readonly noDelay?: boolean | undefined
}

const dialFailed = ({ host, port }: Endpoint, cause: unknown): ConnectionError => {
  const attempt = unwrapAttempts(cause)
  return new ConnectionError({
    reason: { _tag: "DialFailed", problem: dialProblem(attempt), host, port, cause: attempt }
  })
}

/** The error of a target that is not dialled at all. */
export const refusedTarget = ({ host, port }: Endpoint, problem: DialProblem, detail?: string): ConnectionError =>
  new ConnectionError({ reason: { _tag: "DialFailed", problem, host, port, detail, cause: undefined } })

/** Waits until the socket is connected. A failure or an interruption destroys the socket. */
const connected = (socket: net.Socket, options: DialOptions): Effect.Effect<void, ConnectionError> =>
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
 * Dials, and returns the connected socket. Run it where only `restore` can be interrupted: nothing owns the socket until
 * it is adopted.
 */
export const dial = (options: DialOptions, restore: Restore): Effect.Effect<Source, ConnectionError> =>
  Effect.suspend(() => {
    const { host, port, localAddress, lookup } = options
    // Node takes an empty host as this machine.
    if (host === "") {
      return Effect.fail(dialFailed(options, Object.assign(new Error("no host"), { code: "ENOTFOUND" })))
    }
    const detail = needsProxy(host)
    if (detail !== undefined) return Effect.fail(refusedTarget(options, "NeedsProxy", detail))
    const source = makeSource()
    const { socket } = source
    // At every moment there is one listener: an error event without a listener ends the process.
    socket.on("error", noop)
    try {
      socket.setNoDelay(options.noDelay ?? true)
      socket.connect({
        host,
        port,
        ...(localAddress === undefined ? undefined : { localAddress }),
        ...(lookup === undefined ? undefined : { lookup })
      })
    } catch (cause) {
      // Node throws for a bad port or a bad local address, and the caller has to destroy the handle.
      socket.destroy()
      return Effect.fail(dialFailed(options, cause))
    }
    return Effect.as(restore(connected(socket, options)), source)
  })
