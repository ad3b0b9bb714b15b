/** The options of a handshake, their defaults, and the check that finds an invalid option before anything is sent. */
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Network from "../Network.ts"
import type * as Policy from "../Policy.ts"
import type { Transport } from "../Transport.ts"
import { WireError } from "../WireError.ts"
import type * as Wire from "../Wire.ts"

/**
 * The options of a handshake.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** "outbound" (the default) sends its version first, "inbound" waits for that of the peer. */
  readonly direction?: "inbound" | "outbound" | undefined
  /**
   * Plain ("v1"), encrypted ("v2") or encrypted if the peer supports it ("auto") (BIP324). Inbound the default is
   * "auto", and P2P_V2 is announced unless it is "v1". Outbound the default is "v1", because a connection cannot change
   * from one transport to the other: with "auto", a peer that does not support version 2 fails the handshake with
   * `V2NotSpoken`, and the next connection to the same address uses version 1. `Peer.dial` makes that next connection.
   */
  readonly transport?: Transport | undefined
  /**
   * The services of the node, if they are known before the connection: from an `addr` or `addrv2` message, or from the last time. Only
   * an outbound key exchange uses them. Without P2P_V2 in them "auto" speaks version 1 at once. With P2P_V2 the garbage has up to 4,095
   * bytes, and up to 175 if the services are unknown (the default): longer garbage makes some nodes of version 1 ban our address.
   */
  readonly remoteServices?: bigint | undefined
  /** The network of the peer; mainnet by default. */
  readonly network?: Network.Network | undefined
  /** The protocol version that we announce; 70017 by default. The lower one of both sides is used. */
  readonly protocolVersion?: number | undefined
  /** The lowest protocol version of a peer that is accepted; 31800 by default, as in Bitcoin Core (btcd: 209). */
  readonly minimumProtocolVersion?: number | undefined
  /** The services that we offer: bits of `Wire.Service`. None by default. */
  readonly services?: bigint | undefined
  /**
   * Masks of service bits. The peer must offer at least one service of each mask. By default an outbound peer must offer
   * NETWORK or NETWORK_LIMITED, and WITNESS; nothing is required of an inbound peer.
   */
  readonly requiredServices?: ReadonlyArray<bigint> | undefined
  /** Our user agent, at most 256 bytes of printable ASCII (BIP14). */
  readonly userAgent?: string | undefined
  /**
   * Comments in our user agent, as in `/name:version(comment; comment)/` (BIP14). A comment must not contain `/`, `:`,
   * `(` or `)`.
   */
  readonly userAgentComments?: ReadonlyArray<string> | undefined
  /** The height of our best block. It runs once in each handshake; 0 by default. */
  readonly startHeight?: Effect.Effect<number> | undefined
  /** Whether the peer should announce transactions to us (BIP37); true by default. */
  readonly relay?: boolean | undefined
  /** The features that we announce with `feature` (BIP434): an id of 4 to 80 bytes, and data of at most 512 bytes. */
  readonly features?: ReadonlyArray<{ readonly id: string; readonly data: Uint8Array }> | undefined
  /** The reaction to bad behaviour where Core and btcd differ; `Policy.core` by default. */
  readonly policy?: Policy.Policy | undefined
  /** The time limit of the handshake with its key exchange; 60 seconds by default. */
  readonly handshakeTimeout?: Duration.Input | undefined
  /** Whether a connection to ourselves is accepted; for tests. */
  readonly allowSelfConnection?: boolean | undefined
  /**
   * Called with the version message of the peer before it is answered. If the Effect fails, the peer is refused with the
   * text as the reason.
   */
  readonly onVersion?: ((version: Wire.Version) => Effect.Effect<void, string>) | undefined
}

/**
 * The user agent that is sent by default (BIP14).
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultUserAgent = "/effect-bitcoin-peer:0.1.0/"
/**
 * The protocol version that is announced by default.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultProtocolVersion = 70_017
/**
 * The lowest protocol version of a peer that is accepted by default.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaultMinimumProtocolVersion = 31_800

/** The error of an invalid option. */
export const bad = (field: string, problem: string): WireError =>
  new WireError({ command: "", reason: { _tag: "BadValue", field, problem } })

export const isInteger = (value: number, minimum: number, maximum = Number.MAX_SAFE_INTEGER): boolean =>
  Number.isInteger(value) && value >= minimum && value <= maximum

/** The error of an invalid duration, or undefined. */
export const badDuration = (name: string, input: Duration.Input | undefined): WireError | undefined => {
  if (input === undefined) return undefined
  const duration = Duration.fromInput(input)
  return duration._tag === "None" || !(Duration.toMillis(duration.value) >= 1)
    ? bad(name, "must be a duration of at least a millisecond")
    : undefined
}

/** The error of the first invalid option, or undefined. */
export const badOption = ({
  handshakeTimeout,
  network,
  protocolVersion,
  userAgent,
  userAgentComments
}: Options): WireError | undefined => {
  const duration = badDuration("handshakeTimeout", handshakeTimeout)
  if (duration !== undefined) return duration
  if (network !== undefined && network.magic.length !== 4) return bad("network.magic", "must be 4 bytes")
  if (protocolVersion !== undefined && !isInteger(protocolVersion, 209, 0x7fffffff)) {
    return bad("protocolVersion", "must be a whole number of at least 209")
  }
  if (userAgent !== undefined && !/^[\x20-\x7e]*$/.test(userAgent)) {
    return bad("userAgent", "must be printable ASCII")
  }
  if (userAgentComments?.some((comment) => !/^[^/:()]+$/.test(comment) || !/^[\x20-\x7e]*$/.test(comment))) {
    return bad("userAgentComments", "must be printable ASCII without / : ( and )")
  }
  return undefined
}
