/** `btcpeer demo`, which is `npm start`: two peers and a chain in one process, to see what this package does. */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Command, Flag } from "effect/cli"
import { coinbaseMaturity, mineChain } from "../../examples/regtest-chain.ts"
import * as Screen from "./demo/screen.ts"
import { story } from "./demo/story.ts"

/** Mines a chain and tells the story. Fails with `DemoFailed`, after one line on stderr that says which step did, and why. */
export const runDemo = Effect.fnUntraced(
  function* (blocks: number) {
    yield* Screen.title("Two Bitcoin peers and a regtest chain in one process, over TCP on 127.0.0.1")
    const chain = yield* mineChain(blocks)
    yield* Screen.line("mining", `${Screen.count(blocks)} blocks`)
    yield* story(chain)
  },
  (effect) => Effect.scoped(effect),
  (effect) => Effect.tapError(effect, ({ step, problem }) => Screen.failed(step, problem))
)

// One more than needed to spend a coinbase in a block whose height can be divided by four.
const minimum = coinbaseMaturity + 4

const Blocks = Schema.Int.check(Schema.isBetween({ minimum, maximum: 4_900 }))

export const demo = Command.make(
  "demo",
  {
    blocks: Flag.Int("blocks").pipe(
      Flag.withSchema(Blocks),
      Flag.withDefault(4_500),
      Flag.withDescription(`How many blocks to mine, ${minimum} to 4900`)
    )
  },
  ({ blocks }) => runDemo(blocks)
).pipe(
  Command.withDescription("Let two peers talk on this machine: handshake, headers, blocks, a transaction, statistics")
)
