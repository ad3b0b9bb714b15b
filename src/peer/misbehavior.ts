/** The rules by which a connected peer ends, and what is said about it. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type { ConnectionError } from "../Connection.ts"
import type { Policy } from "../Policy.ts"
import { command as commandOf, type Message, Service, WireError } from "../Wire.ts"
import { rejectCode, versionOf } from "../handshake/machine.ts"
import { type EndReason, PeerError } from "../PeerError.ts"
import { stackless } from "../primitives/withoutStackTrace.ts"

const legalOnlyInHandshake = new Set(["wtxidrelay", "sendaddrv2", "sendtxrcncl", "feature"])

/** Without COMPACT_FILTERS on our side they end the peer, as in Core [157]. */
const filterRequests = new Set(["getcfilters", "getcfheaders", "getcfcheckpt"])

/**
 * What bloom messages come to: without NODE_BLOOM on our side they end a peer of version 70011 or more [111], and those
 * of older ones are ignored.
 */
export type Bloom = "served" | "ignored" | "ends"

const bloomCommands = new Set(["filterload", "filteradd", "filterclear", "mempool"])

/** Whether a message is handed on. */
export const isServed = (command: string, bloom: Bloom): boolean => bloom === "served" || !bloomCommands.has(command)

const endOfBloom = (command: string, bloom: Bloom): EndReason | undefined =>
  bloom === "ends" && bloomCommands.has(command) ? violation(command, "this side does not offer NODE_BLOOM") : undefined

/** What decides whether a message that could be read is the end. */
export interface Served {
  readonly duplicate: Policy["duplicate"]
  readonly bloom: Bloom
  readonly servesFilters: boolean
}

/** What this side, with these services, serves a peer that speaks this version. */
export const servedBy = ({ duplicate }: Policy, services: bigint, protocolVersion: number): Served => ({
  duplicate,
  bloom: (services & Service.bloom) !== 0n ? "served" : protocolVersion >= versionOf.bloomEnforced ? "ends" : "ignored",
  servesFilters: (services & Service.compactFilters) !== 0n
})

/** The end that a message is by itself, at this time of the connection. */
export const endOfMessage = (message: Message, { bloom, duplicate, servesFilters }: Served): EndReason | undefined => {
  const command = commandOf(message)
  if (command === "version" || command === "verack") {
    return duplicate === "disconnect" ? violation(command, "duplicate message") : undefined
  }
  if (legalOnlyInHandshake.has(command)) return violation(command, "only allowed before verack")
  // No honest node has a reason to [152].
  if (message._tag === "getblocktxn" && message.indexes.length === 0) return violation(command, "asks for nothing")
  if (!servesFilters && filterRequests.has(command)) {
    return violation(command, "this side does not offer NODE_COMPACT_FILTERS")
  }
  return endOfBloom(command, bloom)
}

/** What no honest node makes too long: commands with the field. */
const limited = new Set([
  "inv items",
  "getdata items",
  "headers headers",
  "getheaders locator",
  "getblocks locator",
  "addr addresses",
  "addrv2 addresses",
  "filterload filter",
  "filterload hashFunctions",
  "filteradd data",
  "cfheaders filterHashes",
  "getpkgtxns wtxids"
])

/** The end that a message is though it could not be read: what no honest node sends, as in Core. Most are just dropped. */
export const endOfDropped = (error: WireError, bloom: Bloom): EndReason | undefined => {
  const { command, reason } = error
  if (reason._tag === "BadChecksum" || reason._tag === "BadCommand") return undefined
  if (legalOnlyInHandshake.has(command)) return violation(command, "only allowed before verack")
  if (!isServed(command, bloom)) return endOfBloom(command, bloom)
  const misbehaves =
    (reason._tag === "TooMany" && limited.has(`${command} ${reason.field}`)) ||
    (reason._tag === "BadValue" && command === "sendcmpct")
  return misbehaves ? { _tag: "BadMessage", error } : undefined
}

export const endOfConnection = (error: ConnectionError): EndReason =>
  error.reason._tag === "Closed" ? { _tag: "RemoteClosed" } : { _tag: "ConnectionLost", error }

export const ended = (end: EndReason): PeerError => stackless(() => new PeerError({ reason: { _tag: "Ended", end } }))

export const violation = (command: string, problem: string): EndReason => ({
  _tag: "ProtocolViolation",
  command,
  problem
})

const ownPayload = "payload"

/** A payload that the codec of a caller's own message type could not read. */
export const malformed = (command: string): Effect.Effect<never, EndReason> =>
  Effect.fail({
    _tag: "BadMessage",
    error: new WireError({ command, reason: { _tag: "BadValue", field: ownPayload, problem: "is malformed" } })
  })

export const isOwnMalformed = (reason: unknown): boolean =>
  Predicate.isTagged(reason, "BadMessage") &&
  Predicate.hasProperty(reason, "error") &&
  reason.error instanceof WireError &&
  reason.error.reason._tag === "BadValue" &&
  reason.error.reason.field === ownPayload

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
