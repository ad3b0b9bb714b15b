/** The rules by which a connected peer ends, and what is said about it. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { ConnectionError } from "../Connection.ts"
import { type Message, WireError, type WireReason } from "../Wire.ts"
import { rejectCode } from "./handshake.ts"
import { type EndReason, PeerError } from "./peerError.ts"

export const legalOnlyInHandshake = new Set(["wtxidrelay", "sendaddrv2", "sendtxrcncl", "feature"])

const misbehaviour: ReadonlyMap<string, WireReason["_tag"]> = new Map([
  ...["inv", "getdata", "headers", "getheaders", "getblocks", "addr", "addrv2"].map(
    (command) => [command, "TooMany"] as const
  ),
  ["sendcmpct", "BadValue"]
])

/** Malformed messages that no honest node sends: they end the peer by every policy, as in Core. */
export const isMisbehaviour = (error: WireError): boolean => misbehaviour.get(error.command) === error.reason._tag

export const endOfConnection = (error: ConnectionError): EndReason =>
  error.reason._tag === "Closed" ? { _tag: "RemoteClosed" } : { _tag: "ConnectionLost", error }

export const ended = (end: EndReason): PeerError => new PeerError({ reason: { _tag: "Ended", end } })

export const violation = (command: string, problem: string): Effect.Effect<never, EndReason> =>
  Effect.fail({ _tag: "ProtocolViolation", command, problem })

/** A payload that the codec of a caller's own message type could not read. */
export const malformed = (command: string): Effect.Effect<never, EndReason> =>
  Effect.fail({
    _tag: "BadMessage",
    error: new WireError({ command, reason: { _tag: "BadValue", field: "payload", problem: "is malformed" } })
  })

/** What the race of the loops ended with; an interruption comes from the scope. */
export const reasonOf = (exit: Exit.Exit<never, EndReason>): EndReason =>
  Exit.isSuccess(exit) || Exit.hasInterrupts(exit)
    ? { _tag: "ScopeClosed" }
    : Option.getOrElse(Exit.findErrorOption(exit), (): EndReason => ({ _tag: "Defect", cause: exit.cause }))

/** The reject [61] that a policy with rejects sends before it ends a peer for this reason. */
export const rejectFor = (end: EndReason): Message | undefined => {
  switch (end._tag) {
    case "BadMessage":
      return {
        _tag: "reject",
        rejected: end.error.command,
        code: rejectCode.malformed,
        reason: end.error.reason._tag,
        hash: undefined
      }
    case "ProtocolViolation":
      return { _tag: "reject", rejected: end.command, code: rejectCode.duplicate, reason: end.problem, hash: undefined }
    default:
      return undefined
  }
}
