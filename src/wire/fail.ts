/** Throws `WireError`s inside the codec, and catches them at its edge. */
import * as Result from "effect/Result"
import { withoutStackTrace } from "../primitives/withoutStackTrace.ts"
import { maxPayloadLength } from "./limits.ts"
import { WireError, type WireReason } from "../WireError.ts"

/** Throws for a message of the caller that cannot be encoded. */
export const fail = (command: string, reason: WireReason): never => {
  throw new WireError({ command, reason })
}

/** The error for received bytes. It has no stack trace, so that malformed messages cost no more than good ones. */
export const unreadable = (command: string, reason: WireReason): WireError =>
  withoutStackTrace(() => new WireError({ command, reason }))

/** Throws for received bytes that cannot be decoded. */
export const failReading = (command: string, reason: WireReason): never => {
  throw unreadable(command, reason)
}

/** Throws for a payload that did not come through a parser, which checks its length before anything is kept. */
export const checkLength = (command: string, payload: Uint8Array): void => {
  if (payload.length > maxPayloadLength) {
    failReading(command, { _tag: "PayloadTooLarge", length: payload.length, limit: maxPayloadLength })
  }
}

/** Turns a thrown `WireError` into a `Result`. Any other exception is a defect of this package or of a caller's own list. */
export const attempt = <A>(evaluate: () => A): Result.Result<A, WireError> => {
  try {
    return Result.succeed(evaluate())
  } catch (error) {
    if (error instanceof WireError) return Result.fail(error)
    throw error
  }
}
