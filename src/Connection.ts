import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Effect from "effect/Effect"

export interface Endpoint { readonly host: string; readonly port: number }

export type ConnectionReason =
  | { readonly _tag: "Closed" }
  | { readonly _tag: "Reset"; readonly cause: unknown }
  | { readonly _tag: "DialFailed"; readonly problem: "HostNotFound" | "Refused" | "Timeout" | "Unreachable" | "Other"; readonly host: string; readonly port: number; readonly cause: unknown }
  | { readonly _tag: "ListenFailed"; readonly problem: "AddressInUse" | "NoPermission" | "AddressNotAvailable" | "Other"; readonly host: string; readonly port: number; readonly cause: unknown }

export class ConnectionError extends Data.TaggedError("ConnectionError")<{ readonly reason: ConnectionReason }> {}

export class Connection extends Context.Service<Connection, {
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  /** Waits for the next bytes. Not pulling is back-pressure. One fiber at a time. Interrupting it loses nothing. */
  readonly pull: Effect.Effect<NonEmptyReadonlyArray<Uint8Array>, ConnectionError>
  /** Hands bytes over, at once; returns how many bytes wait and were not yet taken by the operating system. */
  readonly write: (bytes: Uint8Array) => number
  /** Waits until everything written was taken. Fails when it never will be. */
  readonly drained: Effect.Effect<void, ConnectionError>
  /** Graceful end: flush, FIN, then destroy, after a short time at the latest. */
  readonly close: Effect.Effect<void>
  /** Now. */
  readonly destroy: Effect.Effect<void>
}>()("effect-bitcoin-peer/Connection") {}
