import * as Data from "effect/Data"
import * as Predicate from "effect/Predicate"
import { errorJson } from "./primitives/errorJson.ts"
import { withoutStackTrace } from "./primitives/withoutStackTrace.ts"

/** One side of a connection: a host name or an address without brackets, and a port. */
export interface Endpoint {
  readonly host: string
  readonly port: number
}

/**
 * An endpoint as people write it, with brackets around an IPv6 address.
 *
 * ```ts
 * import { Connection } from "effect-bitcoin-peer"
 *
 * Connection.formatEndpoint({ host: "::1", port: 8333 }) // "[::1]:8333"
 * ```
 */
export const formatEndpoint = ({ host, port }: Endpoint): string =>
  host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`

/**
 * Why a dial failed. Dialing the same again will not help after `BadPort` (not a whole number from 0 to 65535),
 * `BadHost` (not a name that can be asked for this way) and `NeedsProxy`. Through a proxy the first four are what it
 * says of the target, or the time that was up.
 */
export type DialProblem =
  | "HostNotFound"
  | "Refused"
  | "Timeout"
  | "Unreachable"
  | "BadPort"
  | "BadHost"
  /** An .onion or .i2p name was to be dialed without one; nobody was asked for it, above all no DNS (RFC 7686). */
  | "NeedsProxy"
  /** There is no connection to the proxy itself. */
  | "ProxyUnreachable"
  /** The proxy wants a user and password, or others. */
  | "ProxyAuthFailed"
  /** The proxy does not do it: its rules, or a failure of its own that it does not explain. */
  | "ProxyRefused"
  /** It closed, or what it sends is not the protocol. */
  | "ProxyBroken"
  | "Other"

/** Why listening failed. `BadPort`: not a whole number from 0 to 65535. */
export type ListenProblem = "AddressInUse" | "NoPermission" | "AddressNotAvailable" | "BadPort" | "Other"

/** Why a connection ended, or never began. */
export type ConnectionReason =
  /** The remote ended it in order (its FIN), or we closed it. */
  | { readonly _tag: "Closed" }
  /** It broke: reset by the remote, or an error of the socket, which is the cause. Bytes may be lost. */
  | { readonly _tag: "Reset"; readonly cause: unknown }
  /** There was never a connection. */
  | {
      readonly _tag: "DialFailed"
      readonly problem: DialProblem
      readonly host: string
      readonly port: number
      /** The proxy that was asked. */
      readonly proxy?: Endpoint | undefined
      /** In words, where more is known than `problem` says. */
      readonly detail?: string | undefined
      /** The error below it; where a proxy refused, its answer: the number of its reply, or the line. */
      readonly cause: unknown
    }
  /** Nobody can connect to us there. */
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
 * The one error of this module: a dial or a listen that failed, or the end of a connection. Its `reason` says which.
 *
 * ```ts
 * import { Connection } from "effect-bitcoin-peer"
 *
 * const error = new Connection.ConnectionError({
 *   reason: { _tag: "DialFailed", problem: "Refused", host: "127.0.0.1", port: 1, cause: undefined }
 * })
 * error.message // "connect 127.0.0.1:1: connection refused"
 * ```
 */
export class ConnectionError extends Data.TaggedError("ConnectionError")<{ readonly reason: ConnectionReason }> {
  readonly [TypeId]: typeof TypeId = TypeId

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

/** The remote's end, or our own. */
export const closedError = (): ConnectionError =>
  withoutStackTrace(() => new ConnectionError({ reason: { _tag: "Closed" } }))

/** The connection broke. */
export const resetError = (cause: unknown): ConnectionError =>
  withoutStackTrace(() => new ConnectionError({ reason: { _tag: "Reset", cause } }))
