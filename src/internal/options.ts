/** What is wrong with the options of a peer, found before anything is sent. */
import * as Duration from "effect/Duration"
import type { Handlers, Options } from "../Peer.ts"
import { WireError } from "../Wire.ts"

const bad = (field: string, problem: string): WireError =>
  new WireError({ command: "", reason: { _tag: "BadValue", field, problem } })

const isInteger = (value: number, minimum: number, maximum = Number.MAX_SAFE_INTEGER): boolean =>
  Number.isInteger(value) && value >= minimum && value <= maximum

const durations = [
  "handshakeTimeout",
  "pingInterval",
  "pingTimeout",
  "idleTimeout",
  "dataStallTimeout",
  "headersStallTimeout"
] as const

/** The first option that cannot be, or undefined. */
export const badOption = (options: Options<Handlers<unknown>>): WireError | undefined => {
  for (const name of durations) {
    const input = options[name]
    if (input === undefined) continue
    const duration = Duration.fromInput(input)
    if (duration._tag === "None" || !(Duration.toMillis(duration.value) >= 1)) {
      return bad(name, "must be a duration of at least a millisecond")
    }
  }
  const { knownInventory, maximumQueuedBytes, network, protocolVersion, trickle, userAgent, userAgentComments } =
    options
  if (maximumQueuedBytes !== undefined && !isInteger(maximumQueuedBytes, 1)) {
    return bad("maximumQueuedBytes", "must be a whole number of at least 1")
  }
  if (knownInventory !== undefined && !isInteger(knownInventory, 0, 1_000_000)) {
    return bad("knownInventory", "must be a whole number from 0 to 1,000,000")
  }
  if (network !== undefined && network.magic.length !== 4) return bad("network.magic", "must be 4 bytes")
  if (protocolVersion !== undefined && !isInteger(protocolVersion, 209, 0x7fffffff)) {
    return bad("protocolVersion", "must be a whole number of at least 209")
  }
  if (userAgent !== undefined && !/^[\x20-\x7e]*$/.test(userAgent)) {
    return bad("userAgent", "must be printable ASCII")
  }
  if (userAgentComments?.some((comment) => !/^[^/:()]+$/.test(comment) || !/^[\x20-\x7e]*$/.test(comment))) {
    return bad("userAgentComments", "must be printable ASCII without / : ( and )")
  }
  if (trickle?._tag === "Poisson" && !(trickle.mean > 0)) return bad("trickle.mean", "must be above 0")
  if (trickle?._tag === "Fixed" && !(trickle.interval > 0)) return bad("trickle.interval", "must be above 0")
  return undefined
}
