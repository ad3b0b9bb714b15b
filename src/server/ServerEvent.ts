/** The events of a server, for logs, metrics and programs. The server decides nothing by them. A slow reader misses the oldest ones. */
import * as Data from "effect/Data"
import { type ConnectionError, formatEndpoint } from "../ConnectionError.ts"
import type { HandshakeError } from "../HandshakeError.ts"
import { type Assessment, describeEnd, type EndReason } from "../Peer.ts"
import type { ConnectionKind } from "./ConnectionKind.ts"
import { formatTarget, type Target, type Unreachable } from "./Dialer.ts"
import type { GateStep } from "./internal/gate.ts"

export type { GateStep } from "./internal/gate.ts"

/**
 * A dial was given up: the server has another connection to the address, or is dialling it. A host name can lead to such an address.
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
  /** An inbound connection was accepted, and its handshake begins. */
  | { readonly _tag: "Accepted"; readonly id: number; readonly host: string; readonly port: number }
  /**
   * An inbound connection was closed before a byte was read. `step` is the rule that refused it. The first three refusals of a rule are
   * events, then one every 30 seconds: `unlogged` counts the refusals in between.
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
  /** A peer has ended, with the reason and the assessment that the server acts on. `age` is milliseconds since the handshake. */
  | {
      readonly _tag: "Ended"
      readonly id: number
      readonly kind: ConnectionKind
      readonly target: Target
      readonly reason: EndReason
      readonly assessment: Assessment
      readonly age: number
    }
  /** The server ends a peer: for the inbound connection `by`, or, without `by`, because it was extra or its chain is behind ours. */
  | { readonly _tag: "Evicted"; readonly id: number; readonly by: number | undefined }
  /** A host misbehaved. Its peers are ended, and it is evicted first when it connects again. */
  | { readonly _tag: "Discouraged"; readonly host: string; readonly why: string }
  /** A subnet was banned until a Unix time in seconds. Its peers are ended. */
  | { readonly _tag: "Banned"; readonly subnet: string; readonly until: number }
  /** A ban was removed with `unban`. Bans that expire or are cleared are not events. */
  | { readonly _tag: "Unbanned"; readonly subnet: string }
  /** Eight dials in a row failed because of this machine. Failures do not count against addresses until a handshake is completed. */
  | { readonly _tag: "Offline" }
  /** A handshake was completed after `Offline`. */
  | { readonly _tag: "Online" }
  /** Our tip is stale (Bitcoin Core: no new tip for 30 minutes and no block in flight). The server looks for one more full-relay peer. */
  | { readonly _tag: "StaleTip" }
  /** The addresses of a seed were added to the address book. `addresses` is how many. */
  | { readonly _tag: "Seeded"; readonly source: string; readonly addresses: number }
  /** The files of the server were written. */
  | { readonly _tag: "Persisted" }
  /** A problem that the operator should look at. The server goes on. */
  | { readonly _tag: "Warning"; readonly message: string }

const connectionText = (of: { readonly id: number; readonly kind: ConnectionKind; readonly target: Target }): string =>
  `${of.kind} ${formatTarget(of.target)} (${of.id})`

/**
 * An event as one line for a log. It contains addresses and texts of remotes, so do not use it as a label of a metric.
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
      return "the tip is stale"
    case "Persisted":
      return "has saved its files"
    case "Warning":
      return `warning: ${event.message}`
  }
}
