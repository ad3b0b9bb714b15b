/** The error of a crawl. */
import * as Data from "effect/Data"

/**
 * Why a crawl cannot start, or cannot go on.
 *
 * @category errors
 * @since 0.1.0
 */
export type CrawlReason =
  /** An option is out of its range. Nothing was dialled. */
  | { readonly _tag: "BadOption"; readonly option: string; readonly problem: string }
  /** The frontier could not be read or written. What was saved before stays. */
  | { readonly _tag: "StoreFailed"; readonly operation: "load" | "save"; readonly cause: unknown }
  /** The saved frontier is not of this crawl: of another network, or written by a newer version. It was not changed. */
  | { readonly _tag: "WrongStore"; readonly problem: string }

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/**
 * A crawl that cannot start, or that ended because its frontier cannot be saved. `reason` says which. A node that cannot be visited is
 * no error: it is a visit that failed.
 *
 * @category errors
 * @since 0.1.0
 */
export class CrawlError extends Data.TaggedError("CrawlError")<{ readonly reason: CrawlReason }> {
  override get message(): string {
    const { reason } = this
    switch (reason._tag) {
      case "BadOption":
        return `crawl: the option ${reason.option} ${reason.problem}`
      case "StoreFailed":
        return `crawl: cannot ${reason.operation} the frontier: ${messageOf(reason.cause)}`
      case "WrongStore":
        return `crawl: the saved frontier cannot be used: ${reason.problem}`
    }
  }
}

/** The error of an option. */
export const badOption = (option: string, problem: string): CrawlError =>
  new CrawlError({ reason: { _tag: "BadOption", option, problem } })
