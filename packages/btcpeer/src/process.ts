/** Runs the command in this process and ends it with the exit code. */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import { run } from "./command.ts"
import { makeProcess, Output } from "./output.ts"

const { abandoned, failed, onInterrupt, output, signalled } = makeProcess(process)

const fiber = Effect.runFork(
  run(process.argv.slice(2)).pipe(Effect.provide(Layer.merge(NodeServices.layer, Layer.succeed(Output, output))))
)
onInterrupt(() => fiber.interruptUnsafe())

fiber.addObserver((exit) => {
  const code = Exit.isSuccess(exit) ? exit.value : 130
  // A user who stopped the command does not want to wait for a slow reader.
  const flushed = signalled() ? Effect.timeoutOption(output.flush, "1 second") : output.flush
  Effect.runFork(flushed).addObserver(() => process.exit(failed() ? 1 : abandoned() ? 0 : code))
})
