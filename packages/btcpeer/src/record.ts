/** `--capture DIR` of `connect` and `listen`. */
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Capture from "effect-bitcoin-peer/Capture"
import { Failure, failure } from "./failure.ts"
import { Output } from "./output.ts"
import { clean } from "./text.ts"

/** Records all messages of the peers of a command if a directory is given. Fails at the end if the recording has gaps. */
export const recordIn =
  (directory: Option.Option<string>) =>
  <A, E, R>(command: Effect.Effect<A, E, R>): Effect.Effect<A, E | Failure, R | Output | FileSystem.FileSystem> =>
    Effect.gen(function* () {
      if (Option.isNone(directory)) return yield* command
      const { error } = yield* Output
      let complete = true
      const result = yield* command.pipe(
        Effect.provide(
          Capture.layer({
            directory: directory.value,
            onFailure: ({ message }) =>
              Effect.sync(() => {
                complete = false
                error(`btcpeer: ${clean(message)}`)
              })
          })
        ),
        Effect.catchIf(
          (problem) => problem instanceof Capture.CaptureError,
          (problem) => Effect.fail(failure(problem))
        )
      )
      if (!complete) return yield* new Failure({ message: "the recording is not complete" })
      return result
    })
