/** How a `WireError` comes about, and where it becomes a value. */
import * as Result from "effect/Result"
import { stackless } from "../primitives/withoutStackTrace.ts"
import { maxPayloadLength } from "./limits.ts"
import { WireError, type WireReason } from "../WireError.ts"

/** Throws where a caller's message cannot be written. */
export const fail = (command: string, reason: WireReason): never => {
  throw new WireError({ command, reason })
}

/** For bytes that came from the network: who sends us rubbish shall not cost more than who sends messages. */
export const unreadable = (command: string, reason: WireReason): WireError =>
  stackless(() => new WireError({ command, reason }))

/** Throws where received bytes cannot be read. */
export const failReading = (command: string, reason: WireReason): never => {
  throw unreadable(command, reason)
}

/** Throws for a payload that did not come through a parser, which checks its length before anything is kept. */
export const checkLength = (command: string, payload: Uint8Array): void => {
  if (payload.length > maxPayloadLength) {
    failReading(command, { _tag: "PayloadTooLarge", length: payload.length, limit: maxPayloadLength })
  }
}

/** Only `WireError` is a result; anything else is a defect of this package or of a caller's own list. */
export const attempt = <A>(evaluate: () => A): Result.Result<A, WireError> => {
  try {
    return Result.succeed(evaluate())
  } catch (error) {
    if (error instanceof WireError) return Result.fail(error)
    throw error
  }
}
