import * as Data from "effect/Data"

/** What a command could not do, in one line for its user. It ends the process with exit code 1. */
export class Failure extends Data.TaggedError("Failure")<{ readonly message: string }> {}

/** The failure that says what an error of the package says. */
export const failure = (error: { readonly message: string }): Failure => new Failure({ message: error.message })
