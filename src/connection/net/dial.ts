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

/** What of the options of `connect` is for the dial. */
export interface DialOptions {
  /**
   * A name or an address; IPv6 without brackets. All addresses of a name are tried. An .onion or .i2p name fails at once
   * with `NeedsProxy`: no DNS is asked for it.
   */
  readonly host: string
  readonly port: number
  /** How long looking up the name and connecting may take together. Default 5 s. */
  readonly connectTimeout?: Duration.Input | undefined
  /** The address of this machine to dial from. */
  readonly localAddress?: string | undefined
  /** How names become addresses, in place of `dns.lookup`. */
  readonly lookup?: net.LookupFunction | undefined
  readonly noDelay?: boolean | undefined
}

const dialFailed = ({ host, port }: Endpoint, cause: unknown): ConnectionError => {
  const attempt = unwrapAttempts(cause)
  return new ConnectionError({
    reason: { _tag: "DialFailed", problem: dialProblem(attempt), host, port, cause: attempt }
  })
}

/** What need not be tried. */
export const refusedTarget = ({ host, port }: Endpoint, problem: DialProblem, detail?: string): ConnectionError =>
  new ConnectionError({ reason: { _tag: "DialFailed", problem, host, port, detail, cause: undefined } })

/** Waits for a dial: the connected socket, or why there is none. What is interrupted or fails leaves no socket. */
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

/** A connected socket. To be run where nothing interrupts but what `restore` lets: until it is adopted nobody owns it. */
export const dial = (options: DialOptions, restore: Restore): Effect.Effect<Source, ConnectionError> =>
  Effect.gen(function* () {
    const { host, port, localAddress, lookup } = options
    // Node would take an empty host for this machine.
    if (host === "") return yield* dialFailed(options, Object.assign(new Error("no host"), { code: "ENOTFOUND" }))
    const detail = needsProxy(host)
    if (detail !== undefined) return yield* refusedTarget(options, "NeedsProxy", detail)
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
    return source
  })
