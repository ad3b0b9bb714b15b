import type { HandshakeReason } from "../Handshake.ts"
import type { EndReason } from "./peerError.ts"

/** What an end says of the remote, for whoever decides whether to dial it again, and whether to ban it. */
export interface Assessment {
  /** Whose doing it was. */
  readonly by: "local" | "remote"
  /** Whether another try at the same address may end better. */
  readonly retry: boolean
  /** Misbehaviour, from 0 to 100: at 100 btcd bans, and Core discourages. */
  readonly points: number
}

const ours: Assessment = { by: "local", retry: true, points: 0 }
const oursForGood: Assessment = { by: "local", retry: false, points: 0 }
const theirs: Assessment = { by: "remote", retry: true, points: 0 }
const unsuitable: Assessment = { by: "remote", retry: false, points: 0 }
const misbehaved: Assessment = { by: "remote", retry: false, points: 100 }

const assessments: { readonly [Tag in (EndReason | HandshakeReason)["_tag"]]: Assessment } = {
  RemoteClosed: theirs,
  ConnectionLost: theirs,
  Requested: ours,
  ScopeClosed: ours,
  HandlerFailed: ours,
  Defect: oursForGood,
  PingTimeout: theirs,
  IdleTimeout: theirs,
  WriteTimeout: theirs,
  Stalled: theirs,
  BadMessage: misbehaved,
  ProtocolViolation: { by: "remote", retry: false, points: 10 },
  // Of the handshake.
  NotVersionFirst: unsuitable,
  DuplicateVersion: unsuitable,
  VersionTooOld: unsuitable,
  ServicesMissing: unsuitable,
  WrongNetwork: unsuitable,
  BadFeature: unsuitable,
  V2NotSpoken: unsuitable,
  KeyExchangeFailed: unsuitable,
  SelfConnection: oursForGood,
  TimedOut: theirs,
  Disconnected: theirs,
  Refused: oursForGood,
  BadOptions: oursForGood
}

/** Who ended a peer or a handshake, whether it may be tried again, and how bad it was. */
export const assess = (reason: EndReason | HandshakeReason): Assessment => assessments[reason._tag]
