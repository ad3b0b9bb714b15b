/** The demo, `npm start`: as a process, and its steps when they go wrong. Nothing leaves loopback. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile } from "node:child_process"
import * as path from "node:path"
import { type Chain, genesis, mineChain } from "effect-bitcoin-peer/testing/RegtestChain"
import { runDemo } from "../src/demo.ts"
import { story } from "../src/demo/story.ts"
import { makeMemory } from "../src/output.ts"
import * as Wire from "effect-bitcoin-peer/Wire"

const root = path.resolve(import.meta.dirname, "..")

interface Ended {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** What `npm start` runs. Longer than 20 seconds is a failure. */
const start = (...args: ReadonlyArray<string>): Effect.Effect<Ended> =>
  Effect.callback((resume, signal) => {
    const argv = ["--conditions=@effect-bitcoin-peer/source", "src/main.ts", "demo", ...args]
    // Whether colours show is then for the demo to find out.
    const env = { ...process.env, FORCE_COLOR: undefined, NO_COLOR: undefined }
    execFile(process.execPath, argv, { cwd: root, env, signal, timeout: 20_000 }, (error, stdout, stderr) =>
      resume(Effect.succeed({ code: error === null ? 0 : Number(error.code ?? -1), stdout, stderr }))
    )
  })

describe("the demo", () => {
  it.live("does all steps, without colours where the output is not a terminal, and ends with 0", () =>
    Effect.gen(function* () {
      const { code, stderr, stdout } = yield* start()
      assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
      for (const fact of [
        /^mining +4,500 blocks in /m,
        /^listening +127\.0\.0\.1:\d+$/m,
        /^handshake +outbound, with \/effect-bitcoin-peer:.*demo-node.*\/, in /m,
        /^ +protocol version 70017, transactions by wtxid, addrv2, encrypted$/m,
        /^ +the node offers NETWORK, WITNESS, P2P_V2, and has 4,500 blocks$/m,
        /^ping +[\d.]+ ms$/m,
        /^headers +4,500 in 3 messages and /m,
        /^ +linked from genesis to [0-9a-f]{16}…, all with proof of work$/m,
        /^blocks +4,500 with 6,700 transactions, /m,
        /^ +every merkle root is right, every witness commitment too \(1,100\)$/m,
        /^transaction +announced, asked for and received: wtxid [0-9a-f]{16}…$/m,
        /^new block +announced by its header, asked for and received: number 4,501$/m,
        /^disconnect +the peer: the demo is over; the node: the peer closed the connection$/m,
        /│ all +│ +(\d.*\S) +│ +\1 +│ +(\d.*\S) +│ +\2 +│/m
      ]) {
        assert.match(stdout, fact)
      }
      assert.notInclude(stdout, "\u001b")
      assert.isAtMost(Math.max(...stdout.split("\n").map((line) => line.length)), 80)
    })
  )

  it.live("takes fewer blocks, but enough to spend a coin", () =>
    Effect.gen(function* () {
      const { code, stdout } = yield* start("--blocks", "104")
      assert.strictEqual(code, 0)
      assert.match(stdout, /^headers +104 in 1 message and /m)
      const refused = yield* start("--blocks", "103")
      assert.strictEqual(refused.code, 1)
      assert.match(refused.stderr, /^btcpeer: .*104 to 4900.*\n$/)
      assert.strictEqual(refused.stdout, "")
    })
  )

  it.live("is one line on stderr when a step goes wrong", () =>
    Effect.gen(function* () {
      const { errors, layer, lines } = makeMemory()
      const failed = yield* Effect.flip(Effect.provide(runDemo(50), layer))
      assert.strictEqual(failed.message, "transaction failed: the chain has no coin to spend")
      assert.deepStrictEqual(errors, ["btcpeer: transaction failed: the chain has no coin to spend"])
      assert.match(lines.at(-1)!, /every merkle root is right/)
    })
  )
})

/** What the story says of a chain that is not as it should be. */
const problemOf = Effect.fnUntraced(function* (change: (chain: Chain) => Chain) {
  const chain = change(yield* mineChain(110))
  const { message } = yield* Effect.flip(Effect.scoped(story(chain)).pipe(Effect.provide(makeMemory().layer)))
  return message
})

/** The chain with another block at a height, which is still served for the hash of the right one. */
const replace = (height: number, change: (block: Wire.Block) => Wire.Block) => (chain: Chain) => ({
  ...chain,
  blocks: chain.blocks.with(height, change(chain.blocks[height]))
})

describe("the peer of the demo", () => {
  it.live("finds a header that does not follow the one before", () =>
    Effect.gen(function* () {
      const problem = yield* problemOf(replace(7, (block) => ({ ...block, header: genesis.header })))
      assert.strictEqual(
        problem,
        "headers failed: the peer ended: bad answer: headers: header 7 does not follow the one before"
      )
    })
  )

  it.live("finds a header without proof of work", () =>
    Effect.gen(function* () {
      // The last one: no other header follows it.
      const problem = yield* problemOf(
        replace(110, (block) => ({ ...block, header: { ...block.header, bits: 0x1d00ffff } }))
      )
      assert.strictEqual(problem, "headers failed: header 110 has no proof of work")
    })
  )

  it.live("finds a block with other transactions than its header commits to", () =>
    Effect.gen(function* () {
      const problem = yield* problemOf(replace(7, (block) => ({ ...block, transactions: genesis.transactions })))
      assert.match(
        problem,
        /^blocks failed: the peer ended: bad answer: block [0-9a-f]{64}: the header commits to other transactions$/
      )
    })
  )

  it.live("finds a block with other witnesses than it commits to", () =>
    Effect.gen(function* () {
      const problem = yield* problemOf(
        replace(104, ({ header, transactions }) => {
          const [coinbase, first, second] = transactions
          const inputs = Array.from(second.inputs, (input) => ({ ...input, witness: [Uint8Array.of(0x52)] }))
          return { header, transactions: [coinbase, first, { ...second, inputs }] }
        })
      )
      assert.match(
        problem,
        /^blocks failed: the peer ended: bad answer: block [0-9a-f]{64}: the coinbase commits to other witnesses$/
      )
    })
  )
})
