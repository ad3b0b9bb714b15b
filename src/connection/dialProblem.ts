import type { DialProblem } from "../ConnectionError.ts"

const problems: Readonly<Record<string, DialProblem>> = {
  ENOTFOUND: "HostNotFound",
  EAI_AGAIN: "HostNotFound",
  EAI_FAIL: "HostNotFound",
  EAI_NODATA: "HostNotFound",
  EAI_NONAME: "HostNotFound",
  ENODATA: "HostNotFound",
  ECONNREFUSED: "Refused",
  ETIMEDOUT: "Timeout",
  EHOSTUNREACH: "Unreachable",
  ENETUNREACH: "Unreachable",
  EHOSTDOWN: "Unreachable",
  ENETDOWN: "Unreachable",
  ERR_SOCKET_BAD_PORT: "BadPort"
}

/** The `code` of an error, as the operating system and Node name it. */
export const codeOf = (cause: unknown): string | undefined =>
  typeof cause === "object" && cause !== null && "code" in cause && typeof cause.code === "string"
    ? cause.code
    : undefined

/** What a dial ran into. A wrapped error is looked into, as Effect's platform wraps Node's. */
export const dialProblem = (cause: unknown): DialProblem => {
  const code = codeOf(cause)
  if (code !== undefined) return problems[code] ?? "Other"
  return cause instanceof Error && cause.cause !== undefined ? dialProblem(cause.cause) : "Other"
}

/** From "somebody is there" to "nobody knows": what says most of several attempts to one name. */
const telling: ReadonlyArray<DialProblem> = ["Refused", "Timeout", "Unreachable", "HostNotFound", "BadPort", "Other"]

const rank = (error: unknown): number => telling.indexOf(dialProblem(error))

/** A name with several addresses fails with one error for each: the one that says most is taken out. */
export const unwrapAttempts = (cause: unknown): unknown => {
  if (!(cause instanceof AggregateError) || cause.errors.length === 0) return cause
  return cause.errors.reduce((best: unknown, error: unknown) => (rank(error) < rank(best) ? error : best))
}
