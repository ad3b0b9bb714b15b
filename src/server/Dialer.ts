/**
 * The only way out of this machine: a service that dials addresses and host names. It is made of ways, one for each network. A
 * network without a way fails with `Unreachable` before anything is looked up, and no way is ever tried in place of another.
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Address from "../Address.ts"
import type { Connection } from "../Connection.ts"
import type { ConnectionError } from "../ConnectionError.ts"
import type { ConnectionKind } from "./ConnectionKind.ts"
import type { NetworkName } from "./internal/networkNames.ts"

export { type NetworkName, networkNameOf } from "./internal/networkNames.ts"

/**
 * A host name to dial, which has to be resolved by DNS or by a proxy.
 *
 * @category models
 * @since 0.1.0
 */
export interface HostAndPort {
  readonly host: string
  /** 1 to 65535. */
  readonly port: number
}

/**
 * What can be dialled.
 *
 * @category models
 * @since 0.1.0
 */
export type Target = Address.Address | HostAndPort

/**
 * Whether a target is a host name instead of an address.
 *
 * @category guards
 * @since 0.1.0
 */
export const isName = (target: Target): target is HostAndPort => "host" in target

/**
 * The usual text of a target, `host:port`.
 *
 * @category encoding
 * @since 0.1.0
 */
export const formatTarget = (target: Target): string =>
  isName(target) ? `${target.host}:${target.port}` : Address.format(target)

/**
 * No way leads to a target: its network has none, or names cannot be resolved. Nothing was looked up and nothing was sent.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unreachable extends Data.TaggedError("Unreachable")<{
  readonly target: Target
  /** The network without a way; "name" for a host name. */
  readonly network: NetworkName | "name"
}> {
  override get message(): string {
    const why = this.network === "name" ? "names cannot be resolved" : `there is no way to ${this.network}`
    return `${formatTarget(this.target)} is unreachable: ${why}`
  }
}

/**
 * Dials for all parts of a server.
 *
 * @category models
 * @since 0.1.0
 */
export interface Dialer {
  /** The networks that can be dialled. */
  readonly ways: ReadonlySet<NetworkName>
  /** Whether host names can be dialled: a resolver or a proxy finds their addresses. */
  readonly dialsNames: boolean
  /**
   * Connects, in the scope of the caller. Fails with `Unreachable` where no way leads to the target, and with `ConnectionError` where
   * connecting failed. Private broadcast always has a proxy circuit, or an I2P session, of its own.
   */
  readonly dial: (
    target: Target,
    kind: ConnectionKind
  ) => Effect.Effect<Connection, ConnectionError | Unreachable, Scope.Scope>
}

/**
 * The key of the service `Dialer` in a context.
 *
 * @category services
 * @since 0.1.0
 */
export const Dialer: Context.Service<Dialer, Dialer> = Context.Service<Dialer>("effect-bitcoin-peer/server/Dialer")
