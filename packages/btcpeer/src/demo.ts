/** `btcpeer demo`, which `npm start` runs: two peers and a chain in one process show this package at work. */
import * as Effect from "effect/Effect"
import { Command, Flag } from "effect/cli"
import { coinbaseMaturity, mineChain } from "effect-bitcoin-peer/testing/RegtestChain"
import * as Screen from "./demo/screen.ts"
import { type DemoFailed, story, timed } from "./demo/story.ts"
import { Output } from "./output.ts"
import { grouped } from "./text.ts"

/** Mines a chain and runs the steps. Fails with `DemoFailed`, after one line on stderr about the failed step. */
export const runDemo = (blocks: number): Effect.Effect<void, DemoFailed, Output> =>
  Effect.gen(function* () {
    yield* Screen.title("Two Bitcoin peers and a regtest chain in one process, over TCP on 127.0.0.1")
    const [chain, took] = yield* timed(mineChain(blocks))
    yield* Screen.lines("mining", `${grouped(blocks)} blocks in ${took}`)
    yield* Effect.scoped(story(chain))
  }).pipe(Effect.tapError(({ message }) => Effect.map(Output, ({ error }) => error(`btcpeer: ${message}`))))

// One more than needed to spend a coinbase in a block whose height can be divided by four.
const minimum = coinbaseMaturity + 4

// At greater heights the miner has no coins left.
const maximum = 4_900

export const demo = Command.make(
  "demo",
  {
    blocks: Flag.Int("blocks").pipe(
      Flag.filter(
        (blocks) => blocks >= minimum && blocks <= maximum,
        () => `${minimum} to ${maximum}`
      ),
      Flag.withDefault(4_500),
      Flag.withDescription(`How many blocks to mine, ${minimum} to ${maximum}; 4500 by default`)
    )
  },
  ({ blocks }) => runDemo(blocks)
).pipe(
  Command.withDescription("Let two peers talk on this machine: handshake, headers, blocks, a transaction, statistics")
)
