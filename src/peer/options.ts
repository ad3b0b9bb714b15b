/** What may be set for a peer, its defaults, and what is wrong with it, found before anything is sent. */
import * as Duration from "effect/Duration"
import * as HandshakeOptions from "../handshake/options.ts"
import type { Trickle } from "../Inventory.ts"
import type * as Wire from "../Wire.ts"
import type { WireError } from "../WireError.ts"

export interface SessionOptions extends HandshakeOptions.Options {
  /** Between two pings; 2 minutes by default. */
  readonly pingInterval?: Duration.Input | undefined
  /** A ping that is not answered for so long ends the peer; 20 minutes by default. */
  readonly pingTimeout?: Duration.Input | undefined
  /** A peer that sends nothing for so long is ended; 20 minutes by default, as in Bitcoin Core (btcd: 5). */
  readonly idleTimeout?: Duration.Input | undefined
  /** `send` suspends while so many bytes wait to be written; 1 MiB by default. At most one message more is held. */
  readonly maximumQueuedBytes?: number | undefined
  /**
   * When transactions are announced. By default at random: 2 s after the first on average (outbound) or 5 s (inbound; with
   * `serve` at the same times for all peers of a network group).
   */
  readonly trickle?: Trickle | undefined
  /** How many hashes that the peer knows are remembered, about 50 bytes each; 1,000 by default (Core: 50,000). */
  readonly knownInventory?: number | undefined
  /** Whether a peer that leaves requests unanswered is ended, with `Stalled`; true by default. */
  readonly stalls?: boolean | undefined
  /**
   * How long a getdata, getblocktxn or getblocks may stay unanswered, counted from the last answer before it; 30 seconds by default.
   * The peer is then sent a ping, if none followed the request: it stalls if that is not answered in the same time.
   */
  readonly dataStallTimeout?: Duration.Input | undefined
  /** The same for a getheaders; 90 seconds by default. */
  readonly headersStallTimeout?: Duration.Input | undefined
  /** Sees each message, or what was wrong with it, when it was parsed, those of the handshake too. Must not throw. */
  readonly onRead?: ((event: Wire.ParserEvent) => void) | undefined
  /** Sees each message when it was handed to the connection, with its size in bytes. Must not throw. */
  readonly onWrite?: ((message: Wire.Message, size: number) => void) | undefined
}

/** Between two pings. */
export const defaultPingInterval: Duration.Duration = Duration.minutes(2)
/** From a ping to the end of a peer that does not answer. */
export const defaultPingTimeout: Duration.Duration = Duration.minutes(20)
/** From the last byte to the end of a silent peer. */
export const defaultIdleTimeout: Duration.Duration = Duration.minutes(20)
/** From a getdata, or the last answer to what was asked before it, to the end of a peer that does not answer [btcd]. */
export const defaultDataStallTimeout: Duration.Duration = Duration.seconds(30)
/** The same for getheaders. */
export const defaultHeadersStallTimeout: Duration.Duration = Duration.seconds(90)
/** Bytes that may wait to be written. */
export const defaultMaximumQueuedBytes = 1 << 20

const durations = ["pingInterval", "pingTimeout", "idleTimeout", "dataStallTimeout", "headersStallTimeout"] as const

/** The first option that cannot be, or undefined. */
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
