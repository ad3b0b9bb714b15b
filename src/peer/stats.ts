/** The statistics of a peer, as a snapshot with a Schema. */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { type Endpoint, formatEndpoint } from "../Connection.ts"
import type { Negotiated } from "../Handshake.ts"
import type { Network } from "../Network.ts"
import * as Wire from "../Wire.ts"
import type * as KeepAlive from "./keepAlive.ts"
import { noMessage, type Tally, type Traffic } from "../transport/messageConnection.ts"

/**
 * The result of the handshake, with the addresses and the network of the connection.
 *
 * @category models
 * @since 0.1.0
 */
export interface Info extends Negotiated {
  /** The number of the peer in this process, from 1 on. */
  readonly id: number
  readonly localAddress: Endpoint
  readonly remoteAddress: Endpoint
  readonly network: Network
}

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

const PerCommand = Schema.Record(Schema.String, Schema.Struct({ messages: Count, bytes: Count }))

/**
 * The statistics of a peer: a snapshot, which can be taken after the end too. In its JSON encoding times are ISO strings and
 * durations are milliseconds. Bytes include headers.
 *
 * @category models
 * @since 0.1.0
 */
export const Stats = Schema.Struct({
  /** The number of the peer in this process, from 1 on. */
  id: Count,
  direction: Schema.Literals(["inbound", "outbound"]),
  localAddress: Schema.String,
  remoteAddress: Schema.String,
  network: Schema.String,
  transport: Schema.Literals(["v1", "v2"]),
  /** 32 bytes, of "v2" only (BIP324); encoded as hex, as Bitcoin Core prints it. */
  sessionId: Schema.optionalKey(Schema.Uint8ArrayFromHex),
  userAgent: Schema.String,
  /** The names that Core prints. */
  services: Schema.Array(Schema.String),
  /** The smaller of the two sides' versions, then the remote's own. */
  protocolVersion: Schema.Int,
  remoteProtocolVersion: Schema.Int,
  /** The remote's clock minus ours at the handshake. */
  timeOffset: Schema.DurationFromMillis,
  startHeight: Schema.Int,
  /** Hashes as reversed hex: of the last block the remote sent, and of the last it announced by inv or headers. */
  lastBlockReceived: Schema.optionalKey(Schema.String),
  lastBlockAnnounced: Schema.optionalKey(Schema.String),
  /** Satoshi per 1,000 virtual bytes: the remote wants no cheaper transactions announced (BIP133). 0 without a feefilter. */
  feeFilter: Schema.Finite,
  connectedAt: Schema.DateTimeUtcFromString,
  lastReceivedAt: Schema.optionalKey(Schema.DateTimeUtcFromString),
  lastSentAt: Schema.optionalKey(Schema.DateTimeUtcFromString),
  bytesReceived: Count,
  bytesSent: Count,
  messagesReceived: Count,
  messagesSent: Count,
  /** Messages that were dropped for a bad checksum, command or payload. */
  messagesDropped: Count,
  /**
   * By command; the numbers of each side add up to its totals above. Unknown commands are counted together as "*other*".
   * Bytes that belong to no message are counted under "*no message*": the key exchange of "v2" and its garbage,
   * decoys, messages that were dropped, and a message whose end has not arrived.
   */
  received: PerCommand,
  sent: PerCommand,
  /** The round trip of the last ping that was answered, and the smallest round trip. */
  lastPing: Schema.optionalKey(Schema.DurationFromMillis),
  minimumPing: Schema.optionalKey(Schema.DurationFromMillis),
  /** Accepted by `send` and not yet taken by the operating system. */
  queuedMessages: Count,
  queuedBytes: Count,
  /** Transactions that wait for the next trickle. */
  waitingAnnouncements: Count,
  /** Number of inventory hashes the peer is known to have. */
  knownInventory: Count,
  /** Requests that are not answered yet. */
  openRequests: Count
})
/**
 * A snapshot of the statistics of a peer.
 *
 * @category models
 * @since 0.1.0
 */
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

/** The fields of a snapshot that other parts of the peer hold. */
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
