/** Scripts: scripted remote peers as plain functions. */
import type * as Duration from "effect/Duration"
import type { Endpoint } from "../../ConnectionError.ts"
import type * as Wire from "../../Wire.ts"

/**
 * An action of a script: send a message or bytes, wait, or end the connection. Actions are performed in order, also those of later
 * turns. The script pauses while the connection takes no more bytes.
 *
 * @category models
 * @since 0.1.0
 */
export type Action =
  | Wire.Message
  /** Raw bytes, sent without a frame. */
  | Uint8Array
  | { readonly _tag: "Wait"; readonly duration: Duration.Input }
  /** Flushes, then ends the connection. */
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
 * The other side of a script's connection, and the time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Remote {
  /** "inbound" if the other side dialled. */
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
  /** Called when the connection is made; with `withHandshake`, when the handshake is complete. */
  readonly onConnect?: ((state: S, remote: Remote) => Turn<S>) | undefined
  /** Called for each message. A remote that sends bytes that are not v1 messages is disconnected. */
  readonly onMessage: (message: Wire.Message, state: S, remote: Remote) => Turn<S>
  /** Called at an interval on the Clock, of at least a millisecond. */
  readonly tick?: { readonly every: Duration.Input; readonly onTick: (state: S, remote: Remote) => Turn<S> } | undefined
}

/** Whether an action is to send a message. */
export const isMessage = (action: Action): action is Wire.Message =>
  !(action instanceof Uint8Array) && action._tag !== "Wait" && action._tag !== "Close" && action._tag !== "Destroy"
