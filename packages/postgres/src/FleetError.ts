/** The error of a fleet. */
import * as Data from "effect/Data"

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/**
 * The tables of a fleet cannot be made, read or written. A runner that has started tries again; one that starts ends with this.
 *
 * @category errors
 * @since 0.1.0
 */
export class FleetError extends Data.TaggedError("FleetError")<{
  readonly problem: string
  readonly cause: unknown
}> {
  override get message(): string {
    return `fleet: ${this.problem}${this.cause === undefined ? "" : `: ${messageOf(this.cause)}`}`
  }
}
