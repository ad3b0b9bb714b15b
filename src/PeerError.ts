/** Why a peer ended, why a request of a caller failed, and what both say about the remote. */
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import type { ConnectionError, ConnectionReason } from "./ConnectionError.ts"
import type { HandshakeError, HandshakeReason } from "./HandshakeError.ts"
import { errorJson } from "./primitives/errorJson.ts"
import * as Wire from "./Wire.ts"

/**
 * Why a connected peer ended.
 *
 * @category models
 * @since 0.1.0
 */
export type EndReason =
  /** The remote closed the connection. */
  | { readonly _tag: "RemoteClosed" }
  /** The connection broke: reset by the remote, or a network error. */
  | { readonly _tag: "ConnectionLost"; readonly error: ConnectionError }
  /** `disconnect` was called. */
  | { readonly _tag: "Requested"; readonly why: string }
  /** A server ended the peer to make room for another one. */
  | { readonly _tag: "Evicted"; readonly why: string }
  /** A server banned or discouraged the address of the peer. */
  | { readonly _tag: "Banned"; readonly why: string }
  /** A server keeps another connection to the same address. */
  | { readonly _tag: "Replaced"; readonly why: string }
  /** Our side closed the peer's scope, or interrupted the fiber that owned it. */
  | { readonly _tag: "ScopeClosed" }
  /** A handler failed, died or interrupted itself; `cause` is its cause. */
  | { readonly _tag: "HandlerFailed"; readonly command: string; readonly cause: Cause.Cause<unknown> }
  /** The remote sent bytes after which the stream cannot be read, or that the policy does not tolerate. */
  | { readonly _tag: "BadMessage"; readonly error: Wire.WireError }
  /**
   * The remote answered a request with something else: a block with other transactions or witnesses than its header commits to, a
   * filtered block without a proof, headers that do not follow each other, or too many or few transactions of a block. `hash` is that
   * of the block. Ask another peer: the answer says nothing about what was requested.
   */
  | {
      readonly _tag: "BadAnswer"
      readonly command: string
      readonly hash: Uint8Array | undefined
      readonly problem: string
    }
  /** The remote sent a message that is not allowed after the handshake. */
  | { readonly _tag: "ProtocolViolation"; readonly command: string; readonly problem: string }
  /** A ping was not answered in time. */
  | { readonly _tag: "PingTimeout"; readonly after: Duration.Duration }
  /** Nothing was received for too long. */
  | { readonly _tag: "IdleTimeout"; readonly after: Duration.Duration }
  /** The remote took none of the bytes that waited to be written for too long. */
  | { readonly _tag: "WriteTimeout"; readonly after: Duration.Duration }
  /**
   * Neither a request nor a later ping was answered in time. `hash` is the one that a getdata asked for, or the block of a
   * getblocktxn.
   */
  | {
      readonly _tag: "Stalled"
      readonly command: "getheaders" | "getblocks" | "getdata" | "getblocktxn"
      readonly hash: Uint8Array | undefined
      readonly after: Duration.Duration
    }
  /** A defect of this package or of an observer (`onRead`, `onWrite`). */
  | { readonly _tag: "Defect"; readonly cause: Cause.Cause<unknown> }

/**
 * The reasons for which the owner of a peer ends it, besides a text of its own.
 *
 * @category models
 * @since 0.1.0
 */
export type OwnerReason = Extract<EndReason, { readonly _tag: "Evicted" | "Banned" | "Replaced" }>

/**
 * One line, for a person, that says how a peer ended.
 *
 * @category getters
 * @since 0.1.0
 */
export const describeEnd = (end: EndReason): string => {
  switch (end._tag) {
    case "RemoteClosed":
      return "the peer closed the connection"
    case "ConnectionLost":
      return `connection lost: ${end.error.message}`
    case "Requested":
      return end.why
    case "Evicted":
      return `evicted: ${end.why}`
    case "Banned":
      return `banned: ${end.why}`
    case "Replaced":
      return `replaced: ${end.why}`
    case "ScopeClosed":
      return "closed by this side"
    case "HandlerFailed":
      return `the handler of "${end.command}" failed: ${Cause.pretty(end.cause).split("\n", 1)[0]}`
    case "BadMessage":
      return `bad message: ${end.error.message}`
    case "BadAnswer":
      return `bad answer: ${end.command}${end.hash === undefined ? "" : ` ${Wire.hashToHex(end.hash)}`}: ${end.problem}`
    case "ProtocolViolation":
      return `protocol violation by "${end.command}": ${end.problem}`
    case "PingTimeout":
      return `no answer to a ping within ${Duration.format(end.after)}`
    case "IdleTimeout":
      return `nothing received for ${Duration.format(end.after)}`
    case "WriteTimeout":
      return `the peer took nothing of what was sent for ${Duration.format(end.after)}`
    case "Stalled":
      return `stalled: no answer to ${end.command} within ${Duration.format(end.after)}`
    case "Defect":
      return `defect: ${Cause.pretty(end.cause).split("\n", 1)[0]}`
  }
}

/**
 * Why a request of a caller to a peer failed.
 *
 * @category models
 * @since 0.1.0
 */
export type PeerReason =
  /** The peer has ended, before or during the request; `end` is the reason that `awaitShutdown` returns. */
  | { readonly _tag: "Ended"; readonly end: EndReason }
  /** The message is invalid. Nothing was sent, and the peer stays connected. */
  | { readonly _tag: "NotSendable"; readonly error: Wire.WireError }
  /** The request was not answered within that time. The peer stays connected; another one may be faster. */
  | { readonly _tag: "TimedOut"; readonly what: string; readonly after: Duration.Duration }
  /**
   * The peer does not have it: it said so, or it answered a later ping without sending it. It stays connected. Ask another one.
   * `hash` is that of the block or transaction.
   */
  | { readonly _tag: "NotFound"; readonly what: string; readonly hash: Uint8Array | undefined }
  /**
   * The peer answered a later ping but not the request, and stays connected. It has nothing to send, as bcoin when it has no more
   * headers, or it refuses to. Only another peer can tell which.
   */
  | { readonly _tag: "NoAnswer"; readonly what: string }
  /**
   * The peer sent headers that do not connect to the locator, and then answered a later ping. It stays connected. Its chain may
   * have changed at that moment: ask again, with a longer locator.
   */
  | { readonly _tag: "DoesNotConnect"; readonly what: string }
  /** A subscriber that chose to fail was not read fast enough: `capacity` bytes waited. Only its stream ends. */
  | { readonly _tag: "Overflow"; readonly capacity: number }
  /** The peer's protocol version is too old for the request. Nothing was sent, and the peer stays connected. */
  | { readonly _tag: "NotSupported"; readonly what: string; readonly protocolVersion: number }
  /** The peer does not offer the service that the request needs, and might disconnect. Nothing was sent. */
  | { readonly _tag: "NotOffered"; readonly what: string; readonly service: bigint }

const TypeId = "~effect-bitcoin-peer/PeerError"

/**
 * A request of a caller to a peer failed; `reason` says why.
 *
 * @category errors
 * @since 0.1.0
 */
export class PeerError extends Data.TaggedError("PeerError")<{ readonly reason: PeerReason }> {
  get [TypeId](): typeof TypeId {
    return TypeId
  }

  override get message(): string {
    switch (this.reason._tag) {
      case "Ended":
        return `the peer has ended: ${describeEnd(this.reason.end)}`
      case "NotSendable":
        return `the message cannot be sent: ${this.reason.error.message}`
      case "TimedOut":
        return `no answer to ${this.reason.what} within ${Duration.format(this.reason.after)}`
      case "NotFound":
        return `the peer does not have ${this.reason.hash === undefined ? "the answer to" : `${Wire.hashToHex(this.reason.hash)}, requested by`} ${this.reason.what}`
      case "NoAnswer":
        return `the peer answered a ping but not ${this.reason.what}`
      case "DoesNotConnect":
        return `the headers that answer ${this.reason.what} do not connect to the locator`
      case "Overflow":
        return `the subscriber did not keep up: ${this.reason.capacity} bytes waited`
      case "NotSupported":
        return `${this.reason.what} is not supported at protocol version ${this.reason.protocolVersion}`
      case "NotOffered":
        return `${this.reason.what} needs ${Wire.serviceNames(this.reason.service).join(" ")}, which the peer does not offer`
    }
  }

  /** `console.log`, loggers and `JSON.stringify` show the message and the reason. */
  override toJSON(): unknown {
    return errorJson(this)
  }
}

/**
 * Whether a value is a `PeerError`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isPeerError = (value: unknown): value is PeerError => Predicate.hasProperty(value, TypeId)

/**
 * The error for a message that is invalid and was not sent.
 *
 * @category constructors
 * @since 0.1.0
 */
export const notSendable = (error: Wire.WireError): PeerError =>
  new PeerError({ reason: { _tag: "NotSendable", error } })

// ---- what an end says of the remote

/**
 * What an end or an error says about the remote: whether to dial it again, and whether to ban it.
 *
 * @category models
 * @since 0.1.0
 */
export interface Assessment {
  /** The side that caused it. */
  readonly by: "local" | "remote"
  /** Whether another try at the same address may succeed. */
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
  Evicted: ours,
  Banned: oursForGood,
  Replaced: oursForGood,
  ScopeClosed: ours,
  HandlerFailed: ours,
  Defect: oursForGood,
  PingTimeout: theirs,
  IdleTimeout: theirs,
  WriteTimeout: theirs,
  Stalled: theirs,
  BadMessage: misbehaved,
  BadAnswer: misbehaved,
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

const assessConnection = (reason: ConnectionReason): Assessment => {
  switch (reason._tag) {
    case "Closed":
    case "Reset":
      return theirs
    case "ListenFailed":
      return reason.problem === "BadPort" ? oursForGood : ours
    case "DialFailed":
      switch (reason.problem) {
        case "BadHost":
        case "BadPort":
        case "NeedsProxy":
        case "ProxyAuthFailed":
          return oursForGood
        case "ProxyBroken":
        case "ProxyRefused":
        case "ProxyUnreachable":
          return ours
        default:
          return theirs
      }
  }
}

const assessRequest = (reason: PeerReason): Assessment => {
  switch (reason._tag) {
    case "Ended":
      return assess(reason.end)
    case "NotSendable":
      return oursForGood
    case "Overflow":
      return ours
    case "NotOffered":
    case "NotSupported":
      return unsuitable
    // The request was not answered as it was asked. That alone is no misbehaviour, and the peer goes on.
    default:
      return theirs
  }
}

/**
 * Says which side ended a peer, a handshake or a connection, whether to try again, and how bad it was. It takes the reason that
 * `awaitShutdown` returns, and every error of a connection, a handshake or a peer.
 *
 * @example
 * ```ts
 * import { Effect, Schedule } from "effect"
 * import { Network, Nonce, Peer } from "effect-bitcoin-peer"
 * import * as NodeConnection from "effect-bitcoin-peer/NodeConnection"
 *
 * const session = Effect.gen(function*() {
 *   const connect = NodeConnection.connect({ host: "127.0.0.1", port: Network.regtest.port })
 *   const peer = yield* Peer.dial(connect, { network: Network.regtest })
 *   return yield* peer.ping
 * }).pipe(Effect.scoped, Effect.provide(Nonce.layer))
 *
 * // Dials again after each ConnectionError, HandshakeError or PeerError that another try may avoid.
 * export const program = Effect.retry(session, {
 *   schedule: Schedule.exponential("1 second"),
 *   while: (error) => Peer.assess(error).retry
 * })
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const assess = (end: EndReason | HandshakeReason | ConnectionError | HandshakeError | PeerError): Assessment => {
  switch (end._tag) {
    case "ConnectionError":
      return assessConnection(end.reason)
    case "HandshakeError":
      return assess(end.reason)
    case "PeerError":
      return assessRequest(end.reason)
    default:
      return assessments[end._tag]
  }
}
