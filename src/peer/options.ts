/** The options of a peer, their defaults, and the check that runs before anything is sent. */
import * as Duration from "effect/Duration"
import * as HandshakeOptions from "../handshake/options.ts"
import type { Trickle } from "../Inventory.ts"
import type * as Wire from "../Wire.ts"
import type { WireError } from "../WireError.ts"

export interface SessionOptions extends HandshakeOptions.Options {
  /** The time between two pings; 2 minutes by default. */
  readonly pingInterval?: Duration.Input | undefined
  /** A ping without an answer for this long ends the peer; 20 minutes by default. */
  readonly pingTimeout?: Duration.Input | undefined
  /** A remote that sends nothing for this long is disconnected; 20 minutes by default, as in Bitcoin Core (btcd: 5). */
  readonly idleTimeout?: Duration.Input | undefined
  /** `send` suspends while this many bytes wait to be written; 1 MiB by default. The queue holds at most one message more. */
  readonly maximumQueuedBytes?: number | undefined
  /**
   * When transactions are announced. By default at random times: 2 s after the first one on average (outbound) or 5 s
   * (inbound; `PeerServer.serve` uses the same times for all peers of a network group).
   */
  readonly trickle?: Trickle | undefined
  /** How many hashes known to the remote are remembered, about 50 bytes each; 1,000 by default (Core: 50,000). */
  readonly knownInventory?: number | undefined
  /** Whether a remote that leaves requests unanswered is disconnected, with `Stalled`; true by default. */
  readonly stalls?: boolean | undefined
  /**
   * How long a getdata, getblocktxn or getblocks may stay unanswered, counted from the previous answer; 30 seconds by default.
   * The peer then gets a ping, unless one followed the request, and stalls when it does not answer that in the same time.
   */
  readonly dataStallTimeout?: Duration.Input | undefined
  /** The same for a getheaders; 90 seconds by default. */
  readonly headersStallTimeout?: Duration.Input | undefined
  /** Called with each message, or its error, after it was parsed; messages of the handshake included. Must not throw. */
  readonly onRead?: ((event: Wire.ParserEvent) => void) | undefined
  /** Called with each message that is handed to the connection, and its size in bytes. Must not throw. */
  readonly onWrite?: ((message: Wire.Message, size: number) => void) | undefined
}

/**
 * The time between two pings.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultPingInterval: Duration.Duration = Duration.minutes(2)
/**
 * How long a ping may stay unanswered before the peer is disconnected.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultPingTimeout: Duration.Duration = Duration.minutes(20)
/**
 * How long a remote may send nothing before it is disconnected.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultIdleTimeout: Duration.Duration = Duration.minutes(20)
/**
 * How long a getdata may stay unanswered, counted from the previous answer, before the peer is disconnected (btcd).
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultDataStallTimeout: Duration.Duration = Duration.seconds(30)
/**
 * How long a getheaders may stay unanswered before the peer is disconnected.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultHeadersStallTimeout: Duration.Duration = Duration.seconds(90)
/**
 * The bytes that may wait to be written before `send` suspends.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultMaximumQueuedBytes = 1 << 20

const durations = ["pingInterval", "pingTimeout", "idleTimeout", "dataStallTimeout", "headersStallTimeout"] as const

/** The error of the first invalid option, or undefined. */
export const badOption = (options: SessionOptions): WireError | undefined => {
  for (const name of durations) {
    const wrong = HandshakeOptions.badDuration(name, options[name])
    if (wrong !== undefined) return wrong
  }
  const { knownInventory, maximumQueuedBytes, trickle } = options
  if (maximumQueuedBytes !== undefined && !HandshakeOptions.isInteger(maximumQueuedBytes, 1)) {
    return HandshakeOptions.bad("maximumQueuedBytes", "must be a whole number of at least 1")
  }
  if (knownInventory !== undefined && !HandshakeOptions.isInteger(knownInventory, 0, 1_000_000)) {
    return HandshakeOptions.bad("knownInventory", "must be a whole number from 0 to 1,000,000")
  }
  if (trickle?._tag === "Poisson" && !(trickle.mean > 0)) return HandshakeOptions.bad("trickle.mean", "must be above 0")
  if (trickle?._tag === "Fixed" && !(trickle.interval >= 0)) {
    return HandshakeOptions.bad("trickle.interval", "must be a number of milliseconds, 0 or more")
  }
  return undefined
}
