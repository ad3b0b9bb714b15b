/** Types of values at run time, for the errors of callers without TypeScript. */

/** The name of a value's type. */
const typeOf = (value: unknown): string => {
  if (value === null || typeof value !== "object") return value === null ? "null" : typeof value
  const { constructor } = value
  return typeof constructor === "function" ? constructor.name : "object"
}

/** Whether a value is an object with fields: not null and not an array. */
export const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** The problem of a value of the wrong type. */
export const notA = (value: unknown, expected: string): string =>
  value === undefined ? "is missing" : `is of type ${typeOf(value)} instead of ${expected}`
