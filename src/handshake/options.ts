/** What may be set for a handshake, its defaults, and what is wrong with it, found before anything is sent. */
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Network from "../Network.ts"
import type * as Policy from "../Policy.ts"
import type { Transport } from "../Transport.ts"
import { WireError } from "../WireError.ts"
import type * as Wire from "../Wire.ts"

export interface Options {
  /** "outbound" (the default) speaks first, "inbound" waits. */
  readonly direction?: "inbound" | "outbound" | undefined
  /**
   * Plain ("v1"), encrypted ("v2") or what the peer can ("auto") [324]. Inbound "auto" by default; P2P_V2 is then among the
   * services that are announced. Outbound "v1", for a single connection cannot be spoken twice: with "auto", and a peer
   * that does not speak version 2, it fails with `V2NotSpoken` and the next one to the same address is spoken in
   * version 1. `Peer.dial` makes that next one.
   */
  readonly transport?: Transport | undefined
  /**
   * The services of the node, if they are known before the connection: from an `addr` or `addrv2` message, or from the last time. Only
   * an outbound key exchange uses them. Without P2P_V2 in them "auto" speaks version 1 at once. With P2P_V2 the garbage has up to 4,095
   * bytes, and up to 175 if the services are unknown (the default): longer garbage makes some nodes of version 1 ban our address.
   */
  readonly remoteServices?: bigint | undefined
  /** mainnet by default. */
  readonly network?: Network.Network | undefined
  /** What we announce; 70017 by default. The smaller of the two sides' counts. */
  readonly protocolVersion?: number | undefined
  /** Peers below it are refused; 31800 by default, as in Bitcoin Core (btcd: 209). */
  readonly minimumProtocolVersion?: number | undefined
  /** What we offer: bits of `Wire.Service`. None by default. */
  readonly services?: bigint | undefined
  /**
   * Masks of service bits; of each the peer must have at least one. By default an outbound peer must offer NETWORK or
   * NETWORK_LIMITED, and WITNESS, and an inbound one nothing.
   */
  readonly requiredServices?: ReadonlyArray<bigint> | undefined
  /** At most 256 bytes of printable ASCII [14]. */
  readonly userAgent?: string | undefined
  /**
   * What to say of ourselves in brackets behind the user agent, as `/name:version(comment; comment)/` [14]. A comment must
   * not hold `/`, `:`, `(` or `)`.
   */
  readonly userAgentComments?: ReadonlyArray<string> | undefined
  /** Height of our best block, asked for at each handshake; 0 by default. */
  readonly startHeight?: Effect.Effect<number> | undefined
  /** Whether the peer shall announce transactions [37]; true by default. */
  readonly relay?: boolean | undefined
  /** What to announce by `feature` [434]: an id of 4 to 80 bytes, data of at most 512. */
  readonly features?: ReadonlyArray<{ readonly id: string; readonly data: Uint8Array }> | undefined
  /** Where Core and btcd differ; `Policy.core` by default. */
  readonly policy?: Policy.Policy | undefined
  /** For the whole handshake, the key exchange included; 60 seconds by default. */
  readonly handshakeTimeout?: Duration.Input | undefined
  /** Accept a connection to ourselves; for tests. */
  readonly allowSelfConnection?: boolean | undefined
  /** Looks at the peer's version before it is answered; failing refuses the peer, with the text as the reason. */
  readonly onVersion?: ((version: Wire.Version) => Effect.Effect<void, string>) | undefined
}

/** What the user agent of this version is unless another is set [14]. */
export const defaultUserAgent = "/effect-bitcoin-peer:0.1.0/"
/** What we announce. */
export const defaultProtocolVersion = 70_017
/** Peers below it are refused. */
export const defaultMinimumProtocolVersion = 31_800

/** An option that cannot be. */
export const bad = (field: string, problem: string): WireError =>
  new WireError({ command: "", reason: { _tag: "BadValue", field, problem } })

export const isInteger = (value: number, minimum: number, maximum = Number.MAX_SAFE_INTEGER): boolean =>
  Number.isInteger(value) && value >= minimum && value <= maximum

/** What is wrong with a duration that was set. */
export const badDuration = (name: string, input: Duration.Input | undefined): WireError | undefined => {
  if (input === undefined) return undefined
  const duration = Duration.fromInput(input)
  return duration._tag === "None" || !(Duration.toMillis(duration.value) >= 1)
    ? bad(name, "must be a duration of at least a millisecond")
    : undefined
}

/** The first option that cannot be, or undefined. */
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
