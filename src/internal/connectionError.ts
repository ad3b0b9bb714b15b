import * as Data from "effect/Data"
import { stackless } from "./stackless.ts"

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

/** Why a dial failed. `BadPort`: not a whole number from 0 to 65535; dialing again will not help. */
export type DialProblem = "HostNotFound" | "Refused" | "Timeout" | "Unreachable" | "BadPort" | "Other"

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
  BadPort: "not a port"
} as const

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
  override get message(): string {
    const reason = this.reason
    switch (reason._tag) {
      case "Closed":
        return "connection closed"
      case "Reset":
        return `connection reset: ${messageOf(reason.cause)}`
      case "DialFailed":
      case "ListenFailed": {
        const problem = reason.problem === "Other" ? messageOf(reason.cause) : problemText[reason.problem]
        return `${reason._tag === "DialFailed" ? "connect" : "listen"} ${formatEndpoint(reason)}: ${problem}`
      }
    }
  }
}

/** The remote's end, or our own. */
export const closedError = (): ConnectionError => stackless(() => new ConnectionError({ reason: { _tag: "Closed" } }))

/** The connection broke. */
export const resetError = (cause: unknown): ConnectionError =>
  stackless(() => new ConnectionError({ reason: { _tag: "Reset", cause } }))
