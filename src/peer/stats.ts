import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { type Endpoint, formatEndpoint } from "../Connection.ts"
import type { Negotiated } from "../Handshake.ts"
import type { Network } from "../Network.ts"
import * as Wire from "../Wire.ts"
import type * as KeepAlive from "./keepAlive.ts"
import { noMessage, type Tally, type Traffic } from "../transport/messageConnection.ts"

/** What is known of a peer since its handshake. */
export interface Info extends Negotiated {
  /** Counts the peers of this process, from 1 on. */
  readonly id: number
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  readonly network: Network
}

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

const PerCommand = Schema.Record(Schema.String, Schema.Struct({ messages: Count, bytes: Count }))

/**
 * What a peer has done so far. A snapshot: it does not change after it was taken, and can be taken after the end too.
 * Encoded (JSON), times are ISO strings and durations milliseconds. Bytes include headers.
 */
export const Stats = Schema.Struct({
  /** Counts the peers of this process, from 1 on. */
  id: Count,
  direction: Schema.Literals(["inbound", "outbound"]),
  localAddress: Schema.String,
  remoteAddress: Schema.String,
  network: Schema.String,
  transport: Schema.Literals(["v1", "v2"]),
  /** 32 bytes, of "v2" only [324]; encoded as hex, as Bitcoin Core prints it. */
  sessionId: Schema.optionalKey(Schema.Uint8ArrayFromHex),
  userAgent: Schema.String,
  /** Names as Core prints them. */
  services: Schema.Array(Schema.String),
  /** The smaller of the two sides' versions, and the peer's own. */
  protocolVersion: Schema.Int,
  remoteProtocolVersion: Schema.Int,
  /** Its clock minus ours at the handshake. */
  timeOffset: Schema.DurationFromMillis,
  startHeight: Schema.Int,
  /** Hashes, reversed hex: of the last block it sent, and of the last it announced by inv or headers. */
  lastBlockReceived: Schema.optionalKey(Schema.String),
  lastBlockAnnounced: Schema.optionalKey(Schema.String),
  /** Satoshi per 1,000 virtual bytes below which it wants no transactions announced [133]; 0 without a feefilter. */
  feeFilter: Schema.Finite,
  connectedAt: Schema.DateTimeUtcFromString,
  lastReceivedAt: Schema.optionalKey(Schema.DateTimeUtcFromString),
  lastSentAt: Schema.optionalKey(Schema.DateTimeUtcFromString),
  bytesReceived: Count,
  bytesSent: Count,
  messagesReceived: Count,
  messagesSent: Count,
  /** Messages that were dropped because of a bad checksum, command or payload. */
  messagesDropped: Count,
  /**
   * By command; the numbers of each side add up to its totals above. Commands that this package does not know are counted together
   * under "*other*". Bytes that belong to no message are counted under "*no message*": the key exchange of "v2" and its garbage,
   * decoys, messages that were dropped, and a message whose end has not arrived.
   */
  received: PerCommand,
  sent: PerCommand,
  /** Round trip of the last ping that was answered, and of the fastest. */
  lastPing: Schema.optionalKey(Schema.DurationFromMillis),
  minimumPing: Schema.optionalKey(Schema.DurationFromMillis),
  /** What `send` let in and the operating system has not taken yet. */
  queuedMessages: Count,
  queuedBytes: Count,
  /** Transactions that wait for the next turn of the trickle. */
  waitingAnnouncements: Count,
  /** Hashes that are known to be known to it. */
  knownInventory: Count,
  /** Questions to it that are not answered yet. */
  openRequests: Count
})
export type Stats = typeof Stats.Type

/** Tallies of all commands, and of the bytes that are left of a total. */
const perCommand = (tallies: ReadonlyMap<string, Tally>, total: number): Record<string, Tally> => {
  const counted: Record<string, Tally> = {}
  let rest = total
  for (const [command, tally] of tallies) {
    counted[command] = { ...tally }
    rest -= tally.bytes
  }
  if (rest > 0) counted[noMessage] = { messages: 0, bytes: rest }
  return counted
}

/** The rest of what a snapshot says. */
export interface Rest {
  readonly feeFilter: number
  readonly lastBlockReceived: Uint8Array | undefined
  readonly lastBlockAnnounced: Uint8Array | undefined
  readonly queuedMessages: number
  readonly queuedBytes: number
  readonly waitingAnnouncements: number
  readonly knownInventory: number
  readonly openRequests: number
}

export const snapshot = (
  info: Info,
  traffic: Traffic,
  keepAlive: KeepAlive.KeepAlive,
  { lastBlockAnnounced, lastBlockReceived, ...rest }: Rest
): Stats => ({
  id: info.id,
  direction: info.direction,
  localAddress: formatEndpoint(info.localAddress),
  remoteAddress: formatEndpoint(info.remoteAddress),
  network: info.network.name,
  transport: info.transport,
  ...(info.sessionId !== undefined && { sessionId: info.sessionId }),
  userAgent: info.userAgent,
  services: Wire.serviceNames(info.services),
  protocolVersion: info.protocolVersion,
  remoteProtocolVersion: info.remoteProtocolVersion,
  timeOffset: info.timeOffset,
  startHeight: info.startHeight,
  ...(lastBlockReceived !== undefined && { lastBlockReceived: Wire.hashToHex(lastBlockReceived) }),
  ...(lastBlockAnnounced !== undefined && { lastBlockAnnounced: Wire.hashToHex(lastBlockAnnounced) }),
  connectedAt: DateTime.makeUnsafe(traffic.connectedAt),
  ...(traffic.lastReceivedAt !== undefined && { lastReceivedAt: DateTime.makeUnsafe(traffic.lastReceivedAt) }),
  ...(traffic.lastSentAt !== undefined && { lastSentAt: DateTime.makeUnsafe(traffic.lastSentAt) }),
  bytesReceived: traffic.bytesReceived,
  bytesSent: traffic.bytesSent,
  messagesReceived: traffic.messagesReceived,
  messagesSent: traffic.messagesSent,
  messagesDropped: traffic.dropped,
  received: perCommand(traffic.received, traffic.bytesReceived),
  sent: perCommand(traffic.sent, traffic.bytesSent),
  ...(keepAlive.lastRoundTrip !== undefined && { lastPing: Duration.millis(keepAlive.lastRoundTrip) }),
  ...(keepAlive.minimumRoundTrip !== undefined && { minimumPing: Duration.millis(keepAlive.minimumRoundTrip) }),
  ...rest
})
