/**
 * The handshake as a pure machine, one for both directions: a message in, the next state and the messages to send out.
 *
 *     outbound: → version              ← version, (wtxidrelay, sendaddrv2, feature…), verack
 *               → (wtxidrelay, sendaddrv2, feature…), verack                               done on its verack
 *     inbound:  ← version              → version, (wtxidrelay, sendaddrv2, feature…), verack
 *               ← (wtxidrelay, sendaddrv2, feature…), verack                               done on its verack
 *
 * It does no I/O and uses neither clock nor randomness: its driver, run.ts, passes them in.
 */
import type { NegotiationFailure } from "../HandshakeError.ts"
import type { Policy } from "../Policy.ts"
import type * as Wire from "../Wire.ts"
import { ProtocolVersion } from "../wire/protocolVersion.ts"

/** The number of features of one peer that are remembered: a remote must not fill our memory with invented ones. */
export const maximumFeatures = 64

/** Reject codes of BIP61. */
export const rejectCode = { malformed: 0x01, obsolete: 0x11, duplicate: 0x12, nonstandard: 0x40 } as const

export interface Config {
  readonly direction: "inbound" | "outbound"
  readonly policy: Policy
  readonly minimumProtocolVersion: number
  readonly requiredServices: ReadonlyArray<bigint>
  readonly features: ReadonlyArray<{ readonly id: string; readonly data: Uint8Array }>
  readonly isOwnNonce: (nonce: bigint) => boolean
  /** Our version message. Its time is set when it is sent. */
  readonly version: Wire.Version
}

/** The messages of both sides so far. */
export interface State {
  readonly _tag: "AwaitingVersion" | "AwaitingVerack" | "Done"
  readonly remote: Wire.Version | undefined
  readonly wtxidRelay: boolean
  readonly addrV2: boolean
  readonly features: ReadonlyMap<string, Uint8Array>
}

export interface Step {
  readonly state: State
  readonly send: ReadonlyArray<Wire.Message>
  readonly failure: NegotiationFailure | undefined
}

export const initial: State = {
  _tag: "AwaitingVersion",
  remote: undefined,
  wtxidRelay: false,
  addrV2: false,
  features: new Map()
}

/**
 * Whether a message between version and verack counts as one after the verack, as in Core since its pull request 20599:
 * sendheaders, and sendcmpct of version 2, the only version that counts (BIP152).
 */
export const countsBeforeVerack = (message: Wire.Message): boolean =>
  message._tag === "sendheaders" || (message._tag === "sendcmpct" && message.version === 2n)

/** The protocol version that both sides use. */
export const commonVersion = (config: Config, remote: Wire.Version): number =>
  Math.min(config.version.protocolVersion, remote.protocolVersion)

const next = (state: State, send: ReadonlyArray<Wire.Message> = []): Step => ({ state, send, failure: undefined })

/** If the policy sends rejects and the peer understands them, one is sent before the end. */
const fail = (
  config: Config,
  state: State,
  failure: NegotiationFailure,
  reject: { readonly rejected: string; readonly code: number; readonly reason: string } | undefined
): Step => ({
  state,
  failure,
  // Before its version arrives, the protocol version of the peer is unknown. btcd sends the reject all the same.
  send:
    reject !== undefined &&
    config.policy.sendReject &&
    (state.remote === undefined || state.remote.protocolVersion >= ProtocolVersion.reject)
      ? [{ _tag: "reject", ...reject, hash: undefined }]
      : []
})

/** The messages to send before anything is received: an inbound peer waits for the version of the other side. */
export const start = (config: Config, now: number): ReadonlyArray<Wire.Message> =>
  config.direction === "outbound" ? [{ ...config.version, timestamp: now }] : []

const onVersion = (config: Config, state: State, version: Wire.Version, now: number): Step => {
  if (config.isOwnNonce(version.nonce)) return fail(config, state, { _tag: "SelfConnection" }, undefined)
  const heard: State = { ...state, _tag: "AwaitingVerack", remote: version }
  if (version.protocolVersion < config.minimumProtocolVersion) {
    return fail(
      config,
      heard,
      {
        _tag: "VersionTooOld",
        protocolVersion: version.protocolVersion,
        minimum: config.minimumProtocolVersion
      },
      {
        rejected: "version",
        code: rejectCode.obsolete,
        reason: `protocol version must be ${config.minimumProtocolVersion} or greater`
      }
    )
  }
  if (config.requiredServices.some((mask) => (version.services & mask) === 0n)) {
    return fail(
      config,
      heard,
      { _tag: "ServicesMissing", offered: version.services, required: config.requiredServices },
      undefined
    )
  }
  const common = commonVersion(config, version)
  const send: Array<Wire.Message> = []
  if (config.direction === "inbound") send.push({ ...config.version, timestamp: now })
  if (common >= ProtocolVersion.wtxidRelay) send.push({ _tag: "wtxidrelay" })
  if (common >= ProtocolVersion.sendAddrV2) send.push({ _tag: "sendaddrv2" })
  if (common >= ProtocolVersion.feature) {
    for (const feature of config.features) send.push({ _tag: "feature", ...feature })
  }
  send.push({ _tag: "verack" })
  return next(heard, send)
}

/** The next state after a message. `now` is the time in unix seconds for a version message that is sent. */
export const step = (config: Config, state: State, message: Wire.Message, now: number): Step => {
  const remote = state.remote
  if (remote === undefined) {
    if (message._tag === "version") return onVersion(config, state, message, now)
    const received = message._tag === "Unknown" ? message.command : message._tag
    if (config.policy.notVersionFirst === "ignore") return next(state)
    return fail(
      config,
      state,
      { _tag: "NotVersionFirst", received },
      {
        rejected: received,
        code: rejectCode.malformed,
        reason: "a version message must precede all others"
      }
    )
  }
  const common = commonVersion(config, remote)
  switch (message._tag) {
    case "version":
      if (config.policy.duplicate === "ignore") return next(state)
      return fail(
        config,
        state,
        { _tag: "DuplicateVersion" },
        {
          rejected: "version",
          code: rejectCode.duplicate,
          reason: "duplicate version message"
        }
      )
    case "wtxidrelay":
      return next(common >= ProtocolVersion.wtxidRelay ? { ...state, wtxidRelay: true } : state)
    case "sendaddrv2":
      return next({ ...state, addrV2: true })
    case "feature":
      if (common < ProtocolVersion.feature) {
        const problem = `sent at protocol version ${common}, it needs ${ProtocolVersion.feature}`
        return fail(config, state, { _tag: "BadFeature", problem }, undefined)
      }
      // A repeated feature is ignored, and so is one above the limit.
      if (state.features.has(message.id) || state.features.size >= maximumFeatures) return next(state)
      return next({ ...state, features: new Map([...state.features, [message.id, message.data.slice()]]) })
    case "verack":
      return next({ ...state, _tag: "Done" })
    default:
      // An unknown message, or a known one that is not legal yet, is ignored, so that the protocol can get new messages
      // (btcd #2278).
      return next(state)
  }
}
