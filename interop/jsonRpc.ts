/** JSON-RPC over HTTP, as in bitcoind and bcoin. */
import { Effect, Schema } from "effect"
import { InteropError } from "./InteropNode.ts"

const Answer = Schema.Struct({
  result: Schema.Unknown,
  error: Schema.optionalKey(Schema.NullOr(Schema.Struct({ code: Schema.Number, message: Schema.String })))
})
const decodeAnswer = Schema.decodeUnknownEffect(Answer)

/**
 * A client for one node. A call fails if the node refuses it or cannot be reached; `problem` has the error of the node.
 */
export const make = (options: {
  readonly node: string
  readonly port: number
  /** Read again for every call, because bitcoind writes its cookie file some time after its start. */
  readonly headers: Effect.Effect<Readonly<Record<string, string>>, InteropError>
}) => {
  const failure = (method: string) => (cause: unknown) =>
    new InteropError({
      node: options.node,
      operation: `rpc ${method}`,
      problem:
        cause instanceof Error
          ? cause.cause instanceof Error
            ? `${cause.message} ${cause.cause.message}`
            : cause.message
          : String(cause),
      cause
    })
  return Effect.fnUntraced(function* (
    method: string,
    ...params: ReadonlyArray<unknown>
  ): Effect.fn.Return<unknown, InteropError> {
    const headers = yield* options.headers
    const body = yield* Effect.tryPromise({
      try: async (signal): Promise<unknown> => {
        const response = await fetch(`http://127.0.0.1:${options.port}/`, {
          method: "POST",
          headers: { "content-type": "application/json", ...headers },
          body: JSON.stringify({ jsonrpc: "1.0", id: 1, method, params }),
          signal
        })
        // bitcoind answers a failed call with status 500 and the same kind of JSON.
        return response.status === 401 ? { result: null, error: { code: 401, message: "denied" } } : response.json()
      },
      catch: failure(method)
    })
    const answer = yield* Effect.mapError(decodeAnswer(body), failure(method))
    if (answer.error) return yield* Effect.fail(failure(method)(`${answer.error.message} (${answer.error.code})`))
    return answer.result
  })
}
export type JsonRpc = ReturnType<typeof make>
