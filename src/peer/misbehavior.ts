/** The rules by which messages end a connected peer. */
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { ConnectionError } from "../Connection.ts"
import type { Policy } from "../Policy.ts"
import { command as commandOf, type Message, ProtocolVersion, Service, WireError } from "../Wire.ts"
import { rejectCode } from "../handshake/machine.ts"
import { type EndReason, PeerError } from "../PeerError.ts"
import { withoutStackTrace } from "../primitives/withoutStackTrace.ts"

/**
 * What bloom messages lead to: without NODE_BLOOM on our side they end a peer of version 70011 or more (BIP111), and those of
 * older peers are ignored.
 */
export type Bloom = "served" | "ignored" | "ends"

/** What this side offers and tolerates, on which it depends whether a message ends a peer. */
export interface Served {
  readonly duplicate: Policy["duplicate"]
  readonly bloom: Bloom
  readonly servesFilters: boolean
}

/** What this side, with these services, serves a peer that speaks this version. */
export const servedBy = ({ duplicate }: Policy, services: bigint, protocolVersion: number): Served => ({
  duplicate,
  bloom:
    (services & Service.bloom) !== 0n ? "served" : protocolVersion >= ProtocolVersion.bloomService ? "ends" : "ignored",
  servesFilters: (services & Service.compactFilters) !== 0n
})

// ---- the rules, in the order in which Bitcoin Core judges; each gives the problem that ends the peer

type CommandRule = (bloom: Bloom) => string | undefined
type MessageRule = (message: Message, served: Served) => string | undefined

const negotiation: CommandRule = () => "only allowed before verack"
const bloom: CommandRule = (bloom) => (bloom === "ends" ? "this side does not offer NODE_BLOOM" : undefined)

/**
 * Judged by their command, whether or not the payload can be read. `sendtxrcncl` is not here: as in Core, it ends a peer only
 * where this side offers reconciliation, and this package does not.
 */
const commandRules = new Map<string, CommandRule>([
  ["wtxidrelay", negotiation],
  ["sendaddrv2", negotiation],
  ["feature", negotiation],
  ["filterload", bloom],
  ["filteradd", bloom],
  ["filterclear", bloom],
  ["mempool", bloom]
])

const duplicate: MessageRule = (_, { duplicate }) => (duplicate === "disconnect" ? "duplicate message" : undefined)
const filters: MessageRule = (_, { servesFilters }) =>
  servesFilters ? undefined : "this side does not offer NODE_COMPACT_FILTERS"

/** Judged once the message was read. */
const messageRules = new Map<string, MessageRule>([
  ["version", duplicate],
  ["verack", duplicate],
  ["getcfilters", filters],
  ["getcfheaders", filters],
  ["getcfcheckpt", filters],
  // No honest node has a reason to send it (BIP152).
  [
    "getblocktxn",
    (message) => (message._tag === "getblocktxn" && message.indexes.length === 0 ? "asks for nothing" : undefined)
  ]
])

/**
 * Fields that no honest node makes too long, or gives a value that the protocol does not have, by the command of the message.
 * Any other message that cannot be read is only dropped, and so is one of these that is cut off: the decoder judges these
 * fields last, but the count of `headers`, which Core judges first.
 */
const fieldRules = new Map<string, ReadonlyArray<string>>([
  ["inv", ["items"]],
  ["getdata", ["items"]],
  ["headers", ["headers"]],
  ["getheaders", ["locator"]],
  ["getblocks", ["locator"]],
  ["addr", ["addresses"]],
  ["addrv2", ["addresses"]],
  ["filterload", ["filter", "hashFunctions"]],
  ["filteradd", ["data"]],
  ["sendcmpct", ["announce"]],
  ["cfheaders", ["filterHashes"]],
  ["getpkgtxns", ["wtxids"]]
])

/** What becomes of a message after the handshake: it is handled, ignored, or ends the peer. */
export const judge = (message: Message, served: Served): "handle" | "ignore" | EndReason => {
  const command = commandOf(message)
  const commandRule = commandRules.get(command)
  const problem = commandRule?.(served.bloom) ?? messageRules.get(command)?.(message, served)
  if (problem !== undefined) return violation(command, problem)
  return commandRule === bloom && served.bloom === "ignored" ? "ignore" : "handle"
}

/** The end of a peer that sends a message that could not be read; `undefined` where the message is only dropped. */
export const endOfDropped = (error: WireError, ours: Bloom): EndReason | undefined => {
  const { command, reason } = error
  // Such a frame says nothing about its command.
  if (reason._tag === "BadChecksum" || reason._tag === "BadCommand") return undefined
  const commandRule = commandRules.get(command)
  const problem = commandRule?.(ours)
  if (problem !== undefined) return violation(command, problem)
  if (commandRule === bloom && ours === "ignored") return undefined
  if (reason._tag !== "TooMany" && reason._tag !== "BadValue") return undefined
  return fieldRules.get(command)?.includes(reason.field) === true ? { _tag: "BadMessage", error } : undefined
}

export const endOfConnection = (error: ConnectionError): EndReason =>
  error.reason._tag === "Closed" ? { _tag: "RemoteClosed" } : { _tag: "ConnectionLost", error }

export const ended = (end: EndReason): PeerError =>
  withoutStackTrace(() => new PeerError({ reason: { _tag: "Ended", end } }))

export const violation = (command: string, problem: string): EndReason => ({
  _tag: "ProtocolViolation",
  command,
  problem
})

/** The end for a payload that the codec of a caller's own message type could not read. */
export const malformed = (command: string): EndReason => ({
  _tag: "BadMessage",
  error: new WireError({ command, reason: { _tag: "BadValue", field: "payload", problem: "is malformed" } })
})

/** The end reason in the exit of the loops. Only the scope interrupts them. */
export const reasonOf = (exit: Exit.Exit<void, EndReason>): EndReason =>
  Exit.isSuccess(exit) || Exit.hasInterrupts(exit)
    ? { _tag: "ScopeClosed" }
    : Option.getOrElse(Exit.findErrorOption(exit), (): EndReason => ({ _tag: "Defect", cause: exit.cause }))

/** The `reject` (BIP61) to send before a peer ends for this reason, under a policy with rejects. */
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
