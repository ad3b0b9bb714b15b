import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import type * as KeepAlive from "./keepAlive.ts"
import type { Tally, Traffic } from "./link.ts"

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

const PerCommand = Schema.Record(Schema.String, Schema.Struct({ messages: Count, bytes: Count }))

/**
 * What a peer has done so far. A snapshot: it does not change after it was taken, and can be taken after the end too.
 * Encoded (JSON), times are ISO strings and durations milliseconds. Bytes include headers.
 */
export const Stats = Schema.Struct({
  connectedAt: Schema.DateTimeUtcFromString,
  lastReceivedAt: Schema.optionalKey(Schema.DateTimeUtcFromString),
  lastSentAt: Schema.optionalKey(Schema.DateTimeUtcFromString),
  bytesReceived: Count,
  bytesSent: Count,
  messagesReceived: Count,
  messagesSent: Count,
  /** Messages that were dropped because of a bad checksum, command or payload. */
  messagesDropped: Count,
  /** By command; commands that this package does not know are counted together under "*other*". */
  received: PerCommand,
  sent: PerCommand,
  /** Round trip of the last ping that was answered, and of the fastest. */
  lastPing: Schema.optionalKey(Schema.DurationFromMillis),
  minimumPing: Schema.optionalKey(Schema.DurationFromMillis),
  /** What `send` let in and the operating system has not taken yet. */
  queuedMessages: Count,
  queuedBytes: Count
})
export type Stats = typeof Stats.Type

const total = (tallies: ReadonlyMap<string, Tally>): number => {
  let messages = 0
  for (const tally of tallies.values()) messages += tally.messages
  return messages
}

const perCommand = (tallies: ReadonlyMap<string, Tally>): Record<string, Tally> =>
  Object.fromEntries(Array.from(tallies, ([command, tally]) => [command, { ...tally }]))

export const snapshot = (
  traffic: Traffic,
  keepAlive: KeepAlive.KeepAlive,
  queued: { readonly messages: number; readonly bytes: number }
): Stats => ({
  connectedAt: DateTime.makeUnsafe(traffic.connectedAt),
  ...(traffic.lastReceivedAt !== undefined && { lastReceivedAt: DateTime.makeUnsafe(traffic.lastReceivedAt) }),
  ...(traffic.lastSentAt !== undefined && { lastSentAt: DateTime.makeUnsafe(traffic.lastSentAt) }),
  bytesReceived: traffic.bytesReceived,
  bytesSent: traffic.bytesSent,
  messagesReceived: total(traffic.received),
  messagesSent: total(traffic.sent),
  messagesDropped: traffic.dropped,
  received: perCommand(traffic.received),
  sent: perCommand(traffic.sent),
  ...(keepAlive.lastRoundTrip !== undefined && { lastPing: Duration.millis(keepAlive.lastRoundTrip) }),
  ...(keepAlive.minimumRoundTrip !== undefined && { minimumPing: Duration.millis(keepAlive.minimumRoundTrip) }),
  queuedMessages: queued.messages,
  queuedBytes: queued.bytes
})
