/** Events of a server as flat JSON. */
import * as Schema from "effect/Schema"
import { formatEndpoint } from "../../ConnectionError.ts"
import { describeEnd } from "../../PeerError.ts"
import { formatTarget } from "../Dialer.ts"
import type { ServerEvent } from "../ServerEvent.ts"

/**
 * An event of a server, flat, as `/events` of the status writes it.
 *
 * @category models
 * @since 0.1.0
 */
export const StatusEvent = Schema.Struct({
  /** Unix seconds, with a fraction. */
  time: Schema.Finite,
  /** The `_tag` of the `ServerEvent`. */
  event: Schema.String,
  /** The number of the connection in its server, as in `getpeerinfo`. */
  id: Schema.optionalKey(Schema.Int),
  /** The kind of the connection, as in `getpeerinfo`. */
  connection_type: Schema.optionalKey(Schema.String),
  /** The address with its port; of a ban the subnet. */
  addr: Schema.optionalKey(Schema.String),
  /** The rest, for a person: an error, the reason of an end. It can quote text of the remote. */
  message: Schema.optionalKey(Schema.String)
})

/**
 * An event of a server, flat.
 *
 * @category models
 * @since 0.1.0
 */
export type StatusEvent = typeof StatusEvent.Type

/** The last time that `Date` can write, in milliseconds. */
const lastDate = 8.64e15

const untilText = (until: number): string => (until <= lastDate ? `until ${new Date(until).toISOString()}` : "for ever")

type Details = Omit<StatusEvent, "event" | "time">

const detailsOf = (event: ServerEvent): Details => {
  switch (event._tag) {
    case "Dialing":
      return { id: event.id, connection_type: event.kind, addr: formatTarget(event.target) }
    case "DialFailed":
      return {
        id: event.id,
        connection_type: event.kind,
        addr: formatTarget(event.target),
        message: event.error.message
      }
    case "Accepted":
      return { id: event.id, connection_type: "inbound", addr: formatEndpoint(event) }
    case "Refused":
      return { connection_type: "inbound", addr: event.host, message: event.step }
    case "Ready":
      return {
        id: event.id,
        connection_type: event.kind,
        addr: formatTarget(event.target),
        message: `${event.transport} ${event.userAgent}`
      }
    case "Ended":
      return {
        id: event.id,
        connection_type: event.kind,
        addr: formatTarget(event.target),
        message: describeEnd(event.reason)
      }
    case "Evicted":
      return { id: event.id, ...(event.by !== undefined && { message: `to make room for ${event.by}` }) }
    case "Discouraged":
      return { addr: event.host, message: event.why }
    case "Banned":
      return { addr: event.subnet, message: untilText(event.until) }
    case "Unbanned":
      return { addr: event.subnet }
    case "Seeded":
      return { message: `${event.addresses} addresses of ${event.source}` }
    case "Warning":
      return { message: event.message }
    default:
      return {}
  }
}

/** `now` is Unix milliseconds. */
export const statusEvent = (event: ServerEvent, now: number): StatusEvent => ({
  time: now / 1_000,
  event: event._tag,
  ...detailsOf(event)
})
