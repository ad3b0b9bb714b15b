import * as Data from "effect/Data"

/** The failure of a command, in one line for its user. The process ends with exit code 1. */
export class Failure extends Data.TaggedError("Failure")<{ readonly message: string }> {}

/** A failure with the message of an error of the package. */
export const failure = (error: { readonly message: string }): Failure => new Failure({ message: error.message })
