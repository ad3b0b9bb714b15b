/** What happens in a server, for logs, metrics and programs. Nothing is decided by an event, and a slow reader misses the oldest ones. */
import * as Data from "effect/Data"
import type { ConnectionError } from "../ConnectionError.ts"
import type { HandshakeError } from "../HandshakeError.ts"
import type { Assessment, EndReason } from "../Peer.ts"
import type { ConnectionKind } from "./ConnectionKind.ts"
import type { Target, Unreachable } from "./Dialer.ts"

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
  /** A connection came in and was closed before a byte was read. `step` is the rule that refused it. */
  | { readonly _tag: "Refused"; readonly host: string; readonly step: RefusedStep }
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
  /** Addresses of a seed came into the book. */
  | { readonly _tag: "Seeded"; readonly source: string; readonly addresses: number }
  /** The files of the server were written. */
  | { readonly _tag: "Persisted" }
  /** Something that an operator should look at; the server goes on. */
  | { readonly _tag: "Warning"; readonly message: string }

/**
 * Why an inbound connection was refused before a byte of it was read.
 *
 * @category models
 * @since 0.1.0
 */
export type RefusedStep =
  /** The network is switched off. */
  | "inactive"
  | "banned"
  /** The address misbehaved, and the slots are nearly used up. */
  | "discouraged"
  /** Eight connections of its network are in their handshakes. */
  | "subnet"
  /** As many connections as are allowed are in their handshakes. */
  | "pending"
  /** All slots are taken, and no peer is worse than the newcomer. */
  | "full"
