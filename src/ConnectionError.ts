/** The error of connections: a dial or a listen that failed, or the end of a connection. */
import * as Data from "effect/Data"
import * as Predicate from "effect/Predicate"
import { errorJson } from "./primitives/errorJson.ts"
import { withoutStackTrace } from "./primitives/withoutStackTrace.ts"

/**
 * One side of a connection: a port, and a host name or an address without brackets.
 *
 * @category models
 * @since 0.1.0
 */
export interface Endpoint {
  readonly host: string
  readonly port: number
}

/**
 * Formats an endpoint as `host:port`, with brackets around an IPv6 address.
 *
 * @example
 * ```ts
 * import { Connection } from "effect-bitcoin-peer"
 *
 * Connection.formatEndpoint({ host: "::1", port: 8333 }) // "[::1]:8333"
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const formatEndpoint = ({ host, port }: Endpoint): string =>
  host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`

/**
 * Why a dial failed. The same dial fails again after `BadPort` (not an integer from 0 to 65,535), `BadHost` (not a name
 * or address that this kind of dial supports) and `NeedsProxy`. Through a proxy, `HostNotFound`, `Refused`, `Timeout`
 * and `Unreachable` are the proxy's answer about the target, or our own time limit.
 *
 * @category errors
 * @since 0.1.0
 */
export type DialProblem =
  | "HostNotFound"
  | "Refused"
  | "Timeout"
  | "Unreachable"
  | "BadPort"
  | "BadHost"
  /** A direct dial of an .onion or .i2p name. No lookup was made, above all not with DNS (RFC 7686). */
  | "NeedsProxy"
  /** The connection to the proxy itself failed. */
  | "ProxyUnreachable"
  /** The proxy wants a user and a password, or other ones. */
  | "ProxyAuthFailed"
  /** The proxy refused the request: by its rules, or after a failure that it does not explain. */
  | "ProxyRefused"
  /** The proxy closed the connection, or does not speak its protocol. */
  | "ProxyBroken"
  | "Other"

/**
 * Why listening failed. `BadPort`: not an integer from 0 to 65,535.
 *
 * @category errors
 * @since 0.1.0
 */
export type ListenProblem = "AddressInUse" | "NoPermission" | "AddressNotAvailable" | "BadPort" | "Other"

/**
 * Why a connection ended, or never began.
 *
 * @category errors
 * @since 0.1.0
 */
export type ConnectionReason =
  /** The remote closed the connection (FIN), or we did. */
  | { readonly _tag: "Closed" }
  /** The connection broke: a reset by the remote, or an error of the socket, which is the cause. Bytes may be lost. */
  | { readonly _tag: "Reset"; readonly cause: unknown }
  /** The dial failed: there was no connection. */
  | {
      readonly _tag: "DialFailed"
      readonly problem: DialProblem
      readonly host: string
      readonly port: number
      /** The proxy of the dial. */
      readonly proxy?: Endpoint | undefined
      /** A description, if more is known than `problem` says. */
      readonly detail?: string | undefined
      /** The error of the socket. If a proxy refused, its answer: the number of the reply, or the line. */
      readonly cause: unknown
    }
  /** The listen failed: no peer can connect to this address. */
  | {
      readonly _tag: "ListenFailed"
      readonly problem: ListenProblem
      readonly host: string
      readonly port: number
      readonly cause: unknown
    }

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

const problemText = {
  HostNotFound: "host not found",
  Refused: "connection refused",
  Timeout: "timed out",
  Unreachable: "unreachable",
  AddressInUse: "address in use",
  NoPermission: "no permission",
  AddressNotAvailable: "address not available",
  BadPort: "not a port",
  BadHost: "not a host",
  NeedsProxy: "needs a proxy",
  ProxyUnreachable: "cannot reach the proxy",
  ProxyAuthFailed: "the proxy wants a user and a password",
  ProxyRefused: "refused by the proxy",
  ProxyBroken: "the proxy failed"
} as const

const textOf = ({
  cause,
  problem
}: {
  readonly problem: DialProblem | ListenProblem
  readonly cause: unknown
}): string => (problem === "Other" ? messageOf(cause) : problemText[problem])

const TypeId = "~effect-bitcoin-peer/ConnectionError"

/**
 * The one error of connections: a dial or a listen that failed, or the end of a connection. `reason` says which.
 *
 * @example
 * ```ts
 * import { Connection } from "effect-bitcoin-peer"
 *
 * const error = new Connection.ConnectionError({
 *   reason: { _tag: "DialFailed", problem: "Refused", host: "127.0.0.1", port: 1, cause: undefined }
 * })
 * error.message // "connect 127.0.0.1:1: connection refused"
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class ConnectionError extends Data.TaggedError("ConnectionError")<{ readonly reason: ConnectionReason }> {
  get [TypeId](): typeof TypeId {
    return TypeId
  }

  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "Closed":
        return "connection closed"
      case "Reset":
        return `connection reset: ${messageOf(reason.cause)}`
      case "DialFailed": {
        const through = reason.proxy === undefined ? "" : ` through ${formatEndpoint(reason.proxy)}`
        return `connect ${formatEndpoint(reason)}${through}: ${reason.detail ?? textOf(reason)}`
      }
      case "ListenFailed":
        return `listen ${formatEndpoint(reason)}: ${textOf(reason)}`
    }
  }

  /** `console.log`, loggers and `JSON.stringify` show the message and the reason. */
  override toJSON(): unknown {
    return errorJson(this)
  }
}

/**
 * Whether a value is a `ConnectionError`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isConnectionError = (value: unknown): value is ConnectionError => Predicate.hasProperty(value, TypeId)

const closed = withoutStackTrace(() => new ConnectionError({ reason: { _tag: "Closed" } }))

/**
 * The error of a connection that the remote or this side closed, without a stack trace. It says the same of all connections, so
 * there is one.
 *
 * @category constructors
 * @since 0.1.0
 */
export const closedError = (): ConnectionError => closed

/**
 * Makes the error of a connection that broke, without a stack trace.
 *
 * @category constructors
 * @since 0.1.0
 */
export const resetError = (cause: unknown): ConnectionError =>
  withoutStackTrace(() => new ConnectionError({ reason: { _tag: "Reset", cause } }))
