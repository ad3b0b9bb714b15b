/** The error of a handshake. The comment of each reason says what happened; `Peer.assess` says what to do. */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import { encode as hex } from "effect/encoding/Hex"
import type { ConnectionError } from "./ConnectionError.ts"
import * as Predicate from "effect/Predicate"
import * as Network from "./Network.ts"
import { errorJson } from "./primitives/errorJson.ts"
import * as Wire from "./Wire.ts"

/**
 * Why a message of the peer ended the handshake.
 *
 * @category errors
 * @since 0.1.0
 */
export type NegotiationFailure =
  /** The first message was not `version` (btcd policy). */
  | { readonly _tag: "NotVersionFirst"; readonly received: string }
  /** The peer's protocol version is below `minimumProtocolVersion`. */
  | { readonly _tag: "VersionTooOld"; readonly protocolVersion: number; readonly minimum: number }
  /** Both ends of the connection are peers of our `Nonce` service. Both handshakes fail with this. */
  | { readonly _tag: "SelfConnection" }
  /** The peer offers none of the services of one of the masks in `requiredServices`. */
  | { readonly _tag: "ServicesMissing"; readonly offered: bigint; readonly required: ReadonlyArray<bigint> }
  /** The peer sent a second `version` before `verack` (btcd policy). */
  | { readonly _tag: "DuplicateVersion" }
  /** The peer sent a malformed `feature` (BIP434), or one although its protocol version is below 70017. */
  | { readonly _tag: "BadFeature"; readonly problem: string }

/**
 * Why a handshake failed. The connection is of no more use: close it.
 *
 * @category errors
 * @since 0.1.0
 */
export type HandshakeReason =
  | NegotiationFailure
  /** The handshake with its key exchange took longer than `handshakeTimeout`. `likelyNetwork`: see `Disconnected`. */
  | {
      readonly _tag: "TimedOut"
      readonly after: Duration.Duration
      readonly waitingFor: "key" | "version" | "verack"
      readonly likelyNetwork?: Network.Network | undefined
    }
  /**
   * The peer does not support version 2. It closed the connection after our key without sending a byte ("end"), sent
   * nothing (outbound, "auto": "silence"), or sent version 1 ("version 1").
   */
  | { readonly _tag: "V2NotSpoken"; readonly by: "end" | "silence" | "version 1" }
  /**
   * The peer answered our key, but the key exchange failed: it sent no terminator, or a packet that is not authentic.
   */
  | { readonly _tag: "KeyExchangeFailed"; readonly problem: string }
  /**
   * The peer is on another network, or it is not a Bitcoin node: `received` is the magic of the other network, or the first four bytes
   * that came instead of ours.
   */
  | { readonly _tag: "WrongNetwork"; readonly expected: Network.Network; readonly received: Uint8Array }
  /**
   * The peer sent bytes that the policy does not tolerate: a wrong checksum, a malformed message, a payload above the
   * limit.
   */
  | { readonly _tag: "BadMessage"; readonly error: Wire.WireError }
  /**
   * The connection ended in the middle of the handshake. A node does so without a word when our magic is not its own; so if no version
   * arrived from a node on the default port of another network, `likelyNetwork` is that network.
   */
  | {
      readonly _tag: "Disconnected"
      readonly error: ConnectionError
      readonly likelyNetwork?: Network.Network | undefined
    }
  /** The option `onVersion` refused the peer. */
  | { readonly _tag: "Refused"; readonly problem: string }
  /** An option is out of range or cannot be sent: a user agent of more than 256 bytes, an interval of 0. */
  | { readonly _tag: "BadOptions"; readonly error: Wire.WireError }

const ascii = (bytes: Uint8Array): string => String.fromCharCode(...bytes).replace(/[^\x20-\x7e]/g, ".")
const isItOn = (network: Network.Network | undefined): string =>
  network === undefined ? "" : `; is it on ${network.name}, whose default port is ${network.port}?`
const describe = (reason: HandshakeReason): string => {
  switch (reason._tag) {
    case "NotVersionFirst":
      return `the first message was "${reason.received}" instead of "version"`
    case "VersionTooOld":
      return `the peer speaks protocol version ${reason.protocolVersion}, at least ${reason.minimum} is needed`
    case "SelfConnection":
      return "connected to itself"
    case "ServicesMissing": {
      const missing = reason.required.filter((mask) => (reason.offered & mask) === 0n)
      const wanted = missing.map((mask) => Wire.serviceNames(mask).join(" or ")).join(", and ")
      return `the peer does not offer the required services: ${wanted} (it offers ${Wire.serviceNames(reason.offered).join(", ") || "none"})`
    }
    case "DuplicateVersion":
      return "the peer sent a second version message"
    case "BadFeature":
      return `bad feature message: ${reason.problem}`
    case "TimedOut":
      return reason.waitingFor === "version"
        ? `no version message within ${Duration.format(reason.after)}${isItOn(reason.likelyNetwork) || "; is it a Bitcoin node?"}`
        : reason.waitingFor === "key"
          ? `no encrypted connection within ${Duration.format(reason.after)}${isItOn(reason.likelyNetwork) || "; is it of the same network, does it speak version 2?"}`
          : `no verack message within ${Duration.format(reason.after)}`
    case "V2NotSpoken":
      switch (reason.by) {
        case "end":
          return "the peer does not speak the version 2 transport: it closed the connection when our key came"
        case "silence":
          return "the peer does not speak the version 2 transport: it does not answer our key"
        case "version 1":
          return "the peer speaks the version 1 transport, which is not accepted"
      }
    case "KeyExchangeFailed":
      return `no encrypted connection: ${reason.problem}`
    case "WrongNetwork": {
      const other = Network.fromMagic(reason.received)
      return other === undefined
        ? `not a Bitcoin node of ${reason.expected.name}: its first bytes are ${hex(reason.received)} ("${ascii(reason.received)}")`
        : `the peer is on ${other.name}, not on ${reason.expected.name}`
    }
    case "BadMessage":
      return `bad message: ${reason.error.message}`
    case "Disconnected":
      if (reason.error.reason._tag !== "Closed") return reason.error.message + isItOn(reason.likelyNetwork)
      return `the peer closed the connection during the handshake${
        reason.likelyNetwork === undefined ? "; is it on the same network?" : isItOn(reason.likelyNetwork)
      }`
    case "Refused":
      return `refused: ${reason.problem}`
    case "BadOptions":
      return `bad options: ${reason.error.message}`
  }
}

/** The reason with the name of each network instead of the network: a log does not need its seeds. */
const withNames = (reason: HandshakeReason): object => {
  switch (reason._tag) {
    case "WrongNetwork":
      return { ...reason, expected: reason.expected.name }
    case "Disconnected":
    case "TimedOut":
      return reason.likelyNetwork === undefined ? reason : { ...reason, likelyNetwork: reason.likelyNetwork.name }
    default:
      return reason
  }
}

const TypeId = "~effect-bitcoin-peer/HandshakeError"

/**
 * A handshake that failed. `reason` says why.
 *
 * @category errors
 * @since 0.1.0
 */
export class HandshakeError extends Data.TaggedError("HandshakeError")<{ readonly reason: HandshakeReason }> {
  get [TypeId](): typeof TypeId {
    return TypeId
  }

  override get message(): string {
    return `handshake failed: ${describe(this.reason)}`
  }

  /** `console.log`, loggers and `JSON.stringify` show the message and the reason. */
  override toJSON(): unknown {
    return errorJson({ _tag: this._tag, message: this.message, reason: withNames(this.reason) })
  }
}

/**
 * Whether a value is a `HandshakeError`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isHandshakeError = (value: unknown): value is HandshakeError => Predicate.hasProperty(value, TypeId)
