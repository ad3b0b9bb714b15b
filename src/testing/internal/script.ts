/** Scripts: what a remote of a test says, as plain functions. */
import type * as Duration from "effect/Duration"
import type { Endpoint } from "../../ConnectionError.ts"
import type * as Wire from "../../Wire.ts"

/**
 * What a script does next: send a message or bytes, wait, or end the connection. Actions are performed in order, and a later turn waits
 * for those of an earlier one. Bytes that do not fit into the connection hold the script up.
 *
 * @category models
 * @since 0.1.0
 */
export type Action =
  | Wire.Message
  /** Bytes as they are, whatever they mean. */
  | Uint8Array
  | { readonly _tag: "Wait"; readonly duration: Duration.Input }
  /** Sends what was written, then the end. */
  | { readonly _tag: "Close" }
  /** Ends the connection at once. */
  | { readonly _tag: "Destroy" }

/**
 * One step of a script: its next state, and its actions.
 *
 * @category models
 * @since 0.1.0
 */
export type Turn<S> = readonly [state: S, ...actions: ReadonlyArray<Action>]

/**
 * What a script knows besides its state.
 *
 * @category models
 * @since 0.1.0
 */
export interface Remote {
  /** Which side dialled: "inbound" if the script was dialled. */
  readonly direction: "inbound" | "outbound"
  /** The address of the other side. */
  readonly address: Endpoint
  /** Milliseconds of the Clock. */
  readonly now: number
}

/**
 * A remote as pure functions of its state. Each connection begins with `state`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Script<S = unknown> {
  readonly state: S
  /** When the connection is there; with `withHandshake`, when the handshake is complete. */
  readonly onConnect?: ((state: S, remote: Remote) => Turn<S>) | undefined
  /** For each message of version 1. A remote that sends anything else is disconnected. */
  readonly onMessage: (message: Wire.Message, state: S, remote: Remote) => Turn<S>
  /** Again and again, on the Clock; at most once a millisecond. */
  readonly tick?: { readonly every: Duration.Input; readonly onTick: (state: S, remote: Remote) => Turn<S> } | undefined
}

/** Whether an action is to send a message. */
export const isMessage = (action: Action): action is Wire.Message =>
  !(action instanceof Uint8Array) && action._tag !== "Wait" && action._tag !== "Close" && action._tag !== "Destroy"
