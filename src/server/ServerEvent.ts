/** What happens in a server, for logs, metrics and programs. Nothing is decided by an event, and a slow reader misses the oldest ones. */
import * as Data from "effect/Data"
import { type ConnectionError, formatEndpoint } from "../ConnectionError.ts"
import type { HandshakeError } from "../HandshakeError.ts"
import { type Assessment, describeEnd, type EndReason } from "../Peer.ts"
import type { ConnectionKind } from "./ConnectionKind.ts"
import { formatTarget, type Target, type Unreachable } from "./Dialer.ts"
import type { GateStep } from "./internal/gate.ts"

export type { GateStep } from "./internal/gate.ts"

/**
 * A host name turned out to be the address of another connection of the server, so this one was closed.
 *
 * @category errors
 * @since 0.1.0
 */
export class Duplicate extends Data.TaggedError("Duplicate")<{ readonly address: string }> {
  override get message(): string {
    return `the server is connected to ${this.address} already`
  }
}

/**
 * An event of a server. `id` is the number of the connection in its server, from the dial or the arrival on.
 *
 * @category models
 * @since 0.1.0
 */
export type ServerEvent =
  | { readonly _tag: "Dialing"; readonly id: number; readonly kind: ConnectionKind; readonly target: Target }
  /** The dial or the handshake failed. */
  | {
      readonly _tag: "DialFailed"
      readonly id: number
      readonly kind: ConnectionKind
      readonly target: Target
      readonly error: ConnectionError | Duplicate | HandshakeError | Unreachable
    }
  /** A connection came in, and its handshake begins. */
  | { readonly _tag: "Accepted"; readonly id: number; readonly host: string; readonly port: number }
  /**
   * A connection came in and was closed before a byte was read. `step` is the rule that refused it. Three refusals of a rule are events,
   * then one in 30 seconds, with the number of those in between.
   */
  | { readonly _tag: "Refused"; readonly host: string; readonly step: GateStep; readonly unlogged: number }
  /** The handshake was completed. */
  | {
      readonly _tag: "Ready"
      readonly id: number
      readonly kind: ConnectionKind
      readonly target: Target
      readonly userAgent: string
      readonly services: bigint
      readonly transport: "v1" | "v2"
    }
  /** A peer has ended. `age` is the time since its handshake, in milliseconds. */
  | {
      readonly _tag: "Ended"
      readonly id: number
      readonly kind: ConnectionKind
      readonly target: Target
      readonly reason: EndReason
      readonly assessment: Assessment
      readonly age: number
    }
  | { readonly _tag: "Evicted"; readonly id: number; readonly by: number | undefined }
  | { readonly _tag: "Discouraged"; readonly host: string; readonly why: string }
  | { readonly _tag: "Banned"; readonly subnet: string; readonly until: number }
  | { readonly _tag: "Unbanned"; readonly subnet: string }
  /** No dial left this machine for a while: nothing counts against addresses until one does. */
  | { readonly _tag: "Offline" }
  | { readonly _tag: "Online" }
  /** Our tip has not changed for half an hour: one more peer is looked for. */
  | { readonly _tag: "StaleTip" }
  /** Addresses of a seed came into the book. */
  | { readonly _tag: "Seeded"; readonly source: string; readonly addresses: number }
  /** The files of the server were written. */
  | { readonly _tag: "Persisted" }
  /** Something that an operator should look at; the server goes on. */
  | { readonly _tag: "Warning"; readonly message: string }

const connectionText = (of: { readonly id: number; readonly kind: ConnectionKind; readonly target: Target }): string =>
  `${of.kind} ${formatTarget(of.target)} (${of.id})`

/**
 * One line, for a person, that says what happened. It has addresses and texts of remotes, so it is no label of a metric.
 *
 * @category encoding
 * @since 0.1.0
 */
export const formatEvent = (event: ServerEvent): string => {
  switch (event._tag) {
    case "Dialing":
      return `dials ${connectionText(event)}`
    case "DialFailed":
      return `${connectionText(event)} failed: ${event.error.message}`
    case "Accepted":
      return `accepts ${formatEndpoint(event)} (${event.id})`
    case "Refused":
      return `refuses ${event.host}: ${event.step}${event.unlogged === 0 ? "" : `, and ${event.unlogged} more`}`
    case "Ready":
      return `${connectionText(event)} is ready: ${JSON.stringify(event.userAgent)} by ${event.transport}`
    case "Ended":
      return `${connectionText(event)} has ended after ${Math.floor(event.age / 1_000)} s: ${describeEnd(event.reason)}`
    case "Evicted":
      return `evicts ${event.id}${event.by === undefined ? "" : ` for ${event.by}`}`
    case "Discouraged":
      return `discourages ${event.host}: ${event.why}`
    case "Banned":
      return `bans ${event.subnet} until ${new Date(event.until * 1_000).toISOString()}`
    case "Unbanned":
      return `unbans ${event.subnet}`
    case "Seeded":
      return `${event.addresses} addresses of ${event.source}`
    case "Offline":
      return "is offline"
    case "Online":
      return "is online"
    case "StaleTip":
      return "the tip is old"
    case "Persisted":
      return "has saved its files"
    case "Warning":
      return `warning: ${event.message}`
  }
}
