/** The options of a peer, their defaults, and the check that runs before anything is sent. */
import * as Duration from "effect/Duration"
import * as HandshakeOptions from "../handshake/options.ts"
import type { Trickle } from "../Inventory.ts"
import { isRecord, notA } from "../primitives/types.ts"
import type * as Wire from "../Wire.ts"
import type { WireError } from "../WireError.ts"
import type { Handled } from "./dispatcher.ts"

export interface SessionOptions extends HandshakeOptions.Options {
  /** The time between two pings; 2 minutes by default. */
  readonly pingInterval?: Duration.Input | undefined
  /** A ping without an answer for this long ends the peer; 20 minutes by default. */
  readonly pingTimeout?: Duration.Input | undefined
  /** A remote that sends nothing for this long is disconnected; 20 minutes by default, as in Bitcoin Core (btcd: 5). */
  readonly idleTimeout?: Duration.Input | undefined
  /**
   * `send` suspends while this many bytes wait to be written; 1 MiB by default. The queue holds at most
   * one message more, besides pings and pongs and the requests of a caller that left while others wait.
   */
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

const aNumber =
  (holds: (value: number) => boolean, which: string) =>
  (value: unknown): string | undefined =>
    typeof value === "number" && holds(value) ? undefined : `must be a number of milliseconds, ${which}`

const trickles: ReadonlyMap<unknown, Readonly<Record<string, (value: unknown) => string | undefined>>> = new Map([
  ["Poisson", { mean: aNumber((mean) => mean > 0, "above 0") }],
  ["Fixed", { interval: aNumber((interval) => interval >= 0, "0 or more") }],
  [
    "Shared",
    {
      turns: (value: unknown) =>
        isRecord(value) && typeof value["next"] === "function" ? undefined : "must come from Inventory.makeSharedTurns",
      group: (value: unknown) => (typeof value === "string" ? undefined : notA(value, "string"))
    }
  ]
])

const badTrickle = (trickle: unknown): WireError | undefined => {
  if (trickle === undefined) return undefined
  const expected = 'a Trickle such as { _tag: "Fixed", interval: 500 }'
  if (!isRecord(trickle)) return HandshakeOptions.bad("trickle", notA(trickle, expected))
  const problems = trickles.get(trickle["_tag"])
  return problems === undefined
    ? HandshakeOptions.bad("trickle", `is not ${expected}`)
    : HandshakeOptions.badRequired(trickle, problems, "trickle.")
}

const badHandlers = (handlers: unknown): WireError | undefined => {
  if (handlers === undefined) return undefined
  if (!isRecord(handlers)) return HandshakeOptions.bad("handlers", notA(handlers, "an object"))
  for (const [tag, handler] of Object.entries(handlers)) {
    const problem = handler === undefined ? undefined : HandshakeOptions.aFunction(handler)
    if (problem !== undefined) return HandshakeOptions.bad(`handlers.${tag}`, problem)
  }
  return undefined
}

const isCustomHandler = (value: unknown): boolean =>
  isRecord(value) && typeof value["command"] === "string" && typeof value["prepare"] === "function"

const badCustom = (custom: unknown): WireError | undefined => {
  if (custom === undefined) return undefined
  if (!Array.isArray(custom)) return HandshakeOptions.bad("custom", notA(custom, "an array"))
  return custom.every(isCustomHandler)
    ? undefined
    : HandshakeOptions.bad("custom", "has an element that does not come from Peer.custom")
}

const optionProblems = {
  pingInterval: HandshakeOptions.aDuration,
  pingTimeout: HandshakeOptions.aDuration,
  idleTimeout: HandshakeOptions.aDuration,
  dataStallTimeout: HandshakeOptions.aDuration,
  headersStallTimeout: HandshakeOptions.aDuration,
  maximumQueuedBytes: HandshakeOptions.anInteger(1),
  knownInventory: HandshakeOptions.anInteger(0, 1_000_000),
  stalls: HandshakeOptions.aBoolean,
  onRead: HandshakeOptions.aFunction,
  onWrite: HandshakeOptions.aFunction
}

/** The error of the first invalid option, or undefined. */
export const badOption = (options: SessionOptions & Handled<never>): WireError | undefined =>
  HandshakeOptions.badOption(options) ??
  HandshakeOptions.badField(options, optionProblems) ??
  badTrickle(options.trickle) ??
  badHandlers(options.handlers) ??
  badCustom(options.custom)
