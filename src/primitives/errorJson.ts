/** The JSON form of this package's errors, which `console.log`, loggers and `JSON.stringify` show. */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import { encode as hex } from "effect/encoding/Hex"

/** Bytes as hex, big integers in decimal, durations and causes as people read them, an error as its message. */
const jsonOf = (value: unknown): unknown => {
  if (typeof value === "bigint") return String(value)
  if (typeof value !== "object" || value === null) return value
  if (value instanceof Uint8Array) return hex(value)
  if (Duration.isDuration(value)) return Duration.format(value)
  if (Cause.isCause(value)) return Cause.pretty(value)
  if (value instanceof Error) return String(value)
  if (Array.isArray(value)) return value.map(jsonOf)
  return Object.fromEntries(
    Object.entries(value).map(([key, part]) => [key, key === "cause" ? causeOf(part) : jsonOf(part)])
  )
}

/** The cause comes from another package. It may be any object, even a cyclic one. */
const causeOf = (cause: unknown): unknown =>
  typeof cause !== "object" || cause === null || cause instanceof Error || Cause.isCause(cause)
    ? jsonOf(cause)
    : Object.prototype.toString.call(cause)

/** An error with a message and a reason as JSON. */
export const errorJson = (error: {
  readonly _tag: string
  readonly message: string
  readonly command?: string
  readonly reason: object
}): unknown => ({
  _tag: error._tag,
  message: error.message,
  ...(error.command === undefined ? undefined : { command: error.command }),
  reason: jsonOf(error.reason)
})
