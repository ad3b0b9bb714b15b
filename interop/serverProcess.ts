/**
 * A server of ours as a process of its own, which a test kills: `node serverProcess.ts DIRECTORY`. Its time passes 100 times as fast. It
 * stays connected to one node, has another one as a block-relay peer, bans, and says what it did.
 */
import { Effect, Result, Stream } from "effect"
import { Address } from "../src/index.ts"
import * as Net from "./routable.ts"

const { core1, core2 } = Net.hosts
const print = (line: string): Effect.Effect<void> => Effect.sync(() => void process.stdout.write(`${line}\n`))

const program = Effect.gen(function* () {
  const mine = yield* Net.serve({
    at: [Net.hosts.ours],
    added: [`${core1}:${Net.port}`],
    blockRelay: 1,
    directory: process.argv[2],
    speed: 100
  })
  const { bans, book, events } = mine.server
  const address = { ...Result.getOrThrow(Address.parse(`${core2}:${Net.port}`)), services: 9n }
  book.add([{ ...address, timestamp: Math.floor(Date.now() / 1_000) }], address, Date.now())
  yield* bans.ban("192.0.2.0/24", { for: "30 days", reason: "before the save" })
  yield* Effect.forkScoped(
    Stream.runForEach(events, (event) =>
      event._tag !== "Persisted"
        ? print(event._tag)
        : Effect.gen(function* () {
            yield* print(`persisted ${book.size}`)
            if (book.size < 10) return
            yield* Effect.ignore(bans.ban("198.51.100.7", { for: "30 days", reason: "after the save" }))
            // The list is saved at once, which takes the disk a moment.
            yield* Effect.sleep("300 millis")
            yield* print("banned")
          })
    )
  )
  yield* mine.server.awaitPeers(2)
  yield* print("connected")
  return yield* Effect.never
})

await Effect.runPromise(Effect.scoped(program))
