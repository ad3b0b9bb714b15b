/** A peer as Bitcoin Core's `getpeerinfo` prints it, with Core's names and units. */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import type * as Peer from "../Peer.ts"
import * as Wire from "../Wire.ts"
import type { ConnectionKind } from "./ConnectionKind.ts"
import { hexOfServices } from "./internal/keys.ts"
import { type NetworkName, publicNetworks } from "./internal/networkNames.ts"

const Seconds = Schema.Finite
const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/**
 * A peer as `getpeerinfo` of Bitcoin Core prints it. A field whose value is unknown is absent. Times are Unix seconds; a time of 0 means
 * that it has not happened.
 *
 * @category models
 * @since 0.1.0
 */
export class PeerInfo extends Schema.Class<PeerInfo>("effect-bitcoin-peer/server/PeerInfo")({
  /** The number of the connection in its server. */
  id: Count,
  /** Host and port of the remote. */
  addr: Schema.String,
  /** Our end of the connection. */
  addrbind: Schema.optionalKey(Schema.String),
  /** Our address as the remote sees it. */
  addrlocal: Schema.optionalKey(Schema.String),
  network: Schema.Literals([...publicNetworks, "not_publicly_routable"]),
  /** The number of the autonomous system, with a map of them. */
  mapped_as: Schema.optionalKey(Count),
  /** 16 hexadecimal digits. */
  services: Schema.String,
  servicesnames: Schema.Array(Schema.String),
  relaytxes: Schema.Boolean,
  last_inv_sequence: Count,
  /** Transactions that wait to be announced to the peer. */
  inv_to_send: Count,
  lastsend: Count,
  lastrecv: Count,
  /** When the last transaction came that was new here. */
  last_transaction: Count,
  /** When the last block came that was new here. */
  last_block: Count,
  bytessent: Count,
  bytesrecv: Count,
  conntime: Count,
  /** The peer's clock minus ours, in seconds. */
  timeoffset: Schema.Finite,
  pingtime: Schema.optionalKey(Seconds),
  minping: Schema.optionalKey(Seconds),
  pingwait: Schema.optionalKey(Seconds),
  version: Schema.Int,
  subver: Schema.String,
  inbound: Schema.Boolean,
  bip152_hb_to: Schema.Boolean,
  bip152_hb_from: Schema.Boolean,
  /** -1 without a chain. */
  presynced_headers: Schema.Int,
  /** -1 without a chain. */
  synced_headers: Schema.Int,
  /** -1 without a chain. */
  synced_blocks: Schema.Int,
  /** Heights of blocks that were asked for. */
  inflight: Schema.Array(Count),
  addr_relay_enabled: Schema.Boolean,
  addr_processed: Count,
  addr_rate_limited: Count,
  permissions: Schema.Array(Schema.String),
  /** The feefilter of the peer, in BTC per 1,000 virtual bytes. */
  minfeefilter: Schema.Finite,
  bytessent_per_msg: Schema.Record(Schema.String, Count),
  bytesrecv_per_msg: Schema.Record(Schema.String, Count),
  connection_type: Schema.Literals([
    "outbound-full-relay",
    "block-relay-only",
    "inbound",
    "manual",
    "addr-fetch",
    "feeler",
    "private-broadcast"
  ]),
  transport_protocol_type: Schema.Literals(["v1", "v2"]),
  /** 64 hexadecimal digits; empty in version 1. */
  session_id: Schema.String
}) {}

/**
 * The properties of a connection that only its server knows.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectionFacts {
  readonly id: number
  readonly kind: ConnectionKind
  readonly network: NetworkName
  readonly mappedAs: number | undefined
  /** Our address as the remote sees it. */
  readonly addressLocal: string | undefined
  /** Milliseconds; 0 before the first one. */
  readonly lastTransaction: number
  /** Milliseconds; 0 before the first one. */
  readonly lastBlock: number
  readonly relaysAddresses: boolean
  readonly addressesProcessed: number
  readonly addressesRateLimited: number
  readonly permissions: ReadonlyArray<string>
}

const satoshiPerBitcoin = 1e8
const seconds = (milliseconds: number): number => Math.floor(milliseconds / 1_000)
const secondsOf = (time: DateTime.Utc | undefined): number => (time === undefined ? 0 : seconds(time.epochMilliseconds))

/** Bytes that belong to no message, such as the key exchange of version 2: Core counts them in the totals only. */
const noMessage = "*no message*"

const bytesOf = (perCommand: Readonly<Record<string, { readonly bytes: number }>>): Record<string, number> =>
  Object.fromEntries(
    Object.entries(perCommand).flatMap(([command, { bytes }]) => (command === noMessage ? [] : [[command, bytes]]))
  )

/**
 * Makes the view of a peer from its statistics and the facts of its server.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (info: Peer.Info, stats: Peer.Stats, facts: ConnectionFacts): PeerInfo =>
  new PeerInfo({
    id: facts.id,
    addr: stats.remoteAddress,
    addrbind: stats.localAddress,
    ...(facts.addressLocal !== undefined && { addrlocal: facts.addressLocal }),
    network: facts.network,
    ...(facts.mappedAs !== undefined && { mapped_as: facts.mappedAs }),
    services: hexOfServices(info.services),
    servicesnames: Wire.serviceNames(info.services),
    relaytxes: info.relay,
    last_inv_sequence: 0,
    inv_to_send: stats.waitingAnnouncements,
    lastsend: secondsOf(stats.lastSentAt),
    lastrecv: secondsOf(stats.lastReceivedAt),
    last_transaction: seconds(facts.lastTransaction),
    last_block: seconds(facts.lastBlock),
    bytessent: stats.bytesSent,
    bytesrecv: stats.bytesReceived,
    conntime: secondsOf(stats.connectedAt),
    timeoffset: Duration.toSeconds(info.timeOffset),
    ...(stats.lastPing !== undefined && { pingtime: Duration.toSeconds(stats.lastPing) }),
    ...(stats.minimumPing !== undefined && { minping: Duration.toSeconds(stats.minimumPing) }),
    version: info.remoteProtocolVersion,
    subver: info.userAgent,
    inbound: info.direction === "inbound",
    bip152_hb_to: false,
    bip152_hb_from: false,
    presynced_headers: -1,
    synced_headers: -1,
    synced_blocks: -1,
    inflight: [],
    addr_relay_enabled: facts.relaysAddresses,
    addr_processed: facts.addressesProcessed,
    addr_rate_limited: facts.addressesRateLimited,
    permissions: facts.permissions,
    minfeefilter: stats.feeFilter / satoshiPerBitcoin,
    bytessent_per_msg: bytesOf(stats.sent),
    bytesrecv_per_msg: bytesOf(stats.received),
    connection_type: facts.kind,
    transport_protocol_type: info.transport,
    session_id: stats.sessionId === undefined ? "" : Wire.hashToHex(stats.sessionId.toReversed())
  })
