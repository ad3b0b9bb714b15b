/** Translates the errors of the operating system and of Node into the reason why a dial failed. */
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

/** The reason why a dial failed. A wrapped error is unwrapped: Effect's platform wraps Node's. */
export const dialProblem = (cause: unknown): DialProblem => {
  const code = codeOf(cause)
  if (code !== undefined) return problems[code] ?? "Other"
  return cause instanceof Error && cause.cause !== undefined ? dialProblem(cause.cause) : "Other"
}

/** Most specific first: which error to report if several addresses of a name failed. */
const telling: ReadonlyArray<DialProblem> = ["Refused", "Timeout", "Unreachable", "HostNotFound", "BadPort", "Other"]

const rank = (error: unknown): number => telling.indexOf(dialProblem(error))

/** The most specific error of several attempts: a name with several addresses fails with one error for each. */
export const unwrapAttempts = (cause: unknown): unknown => {
  if (!(cause instanceof AggregateError) || cause.errors.length === 0) return cause
  return cause.errors.reduce((best: unknown, error: unknown) => (rank(error) < rank(best) ? error : best))
}
