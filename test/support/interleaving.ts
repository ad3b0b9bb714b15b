/** Random interleavings of one peer with a slow remote, from a seed. */
import { Cause, Effect, Exit, Fiber, Random, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Connection, Nonce, Peer } from "effect-bitcoin-peer"
import { dice } from "./dice.ts"
import { fork, network, scripted, tracked, verack, version } from "./peers.ts"

import { idOf, keyOf, numbered, type Report, seededNonces, show, untilIdle } from "./simulation.ts"

/**
 * One peer whose remote reads only at times: sends, waits, interruptions and an end in any order. Each waiting caller must
 * get exactly one answer, and the right one.
 */
export const interleave = Effect.fnUntraced(
  function* (seed: number) {
    const random = dice(seed)
    const trace: Array<string> = []
    const problems: Array<string> = []
    const window = random.pick([30, 100, 1_000])
    const maximumQueuedBytes = random.pick([1, 100, 1_000, 1 << 20])
    trace.push(JSON.stringify({ window, maximumQueuedBytes }))
    const pair = yield* Connection.makePair({ window })
    let pulled = 0
    const remote = scripted({
      ...pair[1],
      write: pair[1].write,
      pull: Effect.tap(pair[1].pull, (chunks) =>
        Effect.sync(() => {
          for (const chunk of chunks) pulled += chunk.length
        })
      )
    })
    const tracker = tracked(pair[0])
    const scope = yield* Scope.make()
    let written = 0
    let hasEnded = false
    /** The offset in the stream at which each message ends, by its id. */
    const endsAt = new Map<number, number>()
    const arrived: Array<string> = []
    const making = yield* Peer.make(tracker.connection, {
      network,
      maximumQueuedBytes,
      onWrite: (message, size) => {
        written += size
        if (message._tag === "Unknown") endsAt.set(idOf(message), written)
      }
    }).pipe(Scope.provide(scope), tracker.clock, Effect.provideService(Nonce.Nonce, yield* seededNonces(seed)), fork)
    yield* fork(remote.send(version(), verack))
    yield* remote.receiveUntil("verack")
    const peer = yield* Fiber.join(making)
    const shutdown = yield* fork(peer.awaitShutdown)

    interface Wait {
      readonly id: number
      readonly until: "queued" | "written"
      readonly fiber: Fiber.Fiber<void, Peer.PeerError>
      interrupted: boolean
    }
    const waits: Array<Wait> = []
    const outcomes = new Map<number, number>()
    const read: Effect.Effect<void> = Effect.ignore(
      Effect.map(remote.receive, (message) => void (message._tag === "Unknown" && arrived.push(keyOf(message))))
    )
    let ids = 0
    const steps = 5 + random.below(30)
    for (let step = 0; step < steps; step++) {
      const kind = random.below(20)
      if (kind < 12) {
        const id = ++ids
        const message = numbered(id, random.pick([0, 10, 100, 500]))
        const until = kind < 3 ? "queued" : "written"
        trace.push(`${until === "queued" ? "send" : "sendAndWait"} ${id}`)
        const fiber = yield* fork(
          Effect.onExit(until === "queued" ? peer.send(message) : peer.sendAndWait(message), (exit) =>
            Effect.sync(() => {
              outcomes.set(id, (outcomes.get(id) ?? 0) + 1)
              if (Exit.isFailure(exit) || until === "queued") return
              const end = endsAt.get(id)
              if (end === undefined) problems.push(`${id} succeeded but was not written`)
              // A pulled batch has left the window before it is counted in `pulled`; a closed remote accepts any bytes.
              else if (!hasEnded && end > pulled + 2 * window)
                problems.push(`${id} succeeded before the remote had received it`)
            })
          )
        )
        waits.push({ id, until, fiber, interrupted: false })
      } else if (kind < 14) {
        trace.push("the remote reads")
        const reading = yield* fork(read)
        yield* Effect.yieldNow
        yield* Fiber.interrupt(reading)
      } else if (kind < 16) yield* Effect.yieldNow
      else if (kind < 18) {
        const open = waits.filter(({ fiber }) => fiber.pollUnsafe() === undefined)
        if (open.length > 0) {
          const wait = random.pick(open)
          trace.push(`interrupt ${wait.id}`)
          wait.interrupted = true
          yield* Fiber.interrupt(wait.fiber)
        }
      } else if (kind === 18 && random.chance(0.3)) {
        const how = random.below(4)
        hasEnded = true
        trace.push(["disconnect", "the scope closes", "the remote closes", "reset"][how]!)
        yield* fork([peer.disconnect(), Scope.close(scope, Exit.void), pair[1].close, pair.reset()][how]!)
      }
    }
    const answered = (): boolean => waits.every(({ fiber }) => fiber.pollUnsafe() !== undefined)
    if (random.chance(0.5)) {
      trace.push("the remote reads everything")
      const reading = yield* fork(
        Effect.forever(
          Effect.asVoid(
            Effect.flatMap(remote.receive, (message) =>
              Effect.sync(() => void (message._tag === "Unknown" && arrived.push(keyOf(message))))
            )
          )
        )
      )
      yield* untilIdle(() => answered() && (reading.pollUnsafe() !== undefined || arrived.length === endsAt.size))
      if (shutdown.pollUnsafe() === undefined) {
        for (const { fiber, id } of waits) if (fiber.pollUnsafe() === undefined) problems.push(`${id} was not answered`)
        const all = Array.from(endsAt.keys(), (id) => `#${id}`)
        if (arrived.join() !== all.join()) problems.push(`arrived ${show(arrived)} of ${show(all)}`)
      }
    }
    const how = random.below(4)
    hasEnded = true
    trace.push(`the end: ${["disconnect", "the scope closes", "the remote closes", "reset"][how]!}`)
    yield* fork([peer.disconnect(), Scope.close(scope, Exit.void), pair[1].close, pair.reset()][how]!)
    yield* untilIdle(() => answered() && shutdown.pollUnsafe() !== undefined)
    const exit = shutdown.pollUnsafe()
    const reason = exit !== undefined && Exit.isSuccess(exit) ? exit.value : undefined
    if (reason === undefined) problems.push("awaitShutdown hangs")
    for (const { fiber, id, interrupted } of waits) {
      const exit = fiber.pollUnsafe()
      if (exit === undefined) problems.push(`${id} hangs`)
      else if (outcomes.get(id) !== 1) problems.push(`${id} has ${outcomes.get(id)} outcomes`)
      if (exit === undefined || Exit.isSuccess(exit)) continue
      const error = exit.cause.reasons.find(Cause.isFailReason)?.error
      if (error === undefined ? !interrupted : error.reason._tag !== "Ended" || error.reason.end !== reason) {
        problems.push(`${id}: ${Cause.pretty(exit.cause)}`)
      }
    }
    const order = Array.from(endsAt.keys())
    if (order.some((id, index) => index > 0 && id < order[index - 1]!))
      problems.push(`written out of order: ${order.join()}`)
    if (tracker.waiting() !== 0) problems.push(`${tracker.waiting()} fibers wait in a connection or a clock`)
    const { queuedBytes } = yield* peer.stats
    if (queuedBytes > maximumQueuedBytes + 10_000) problems.push(`${queuedBytes} bytes are queued`)
    return { trace, problems, ends: [reason?._tag ?? "?", ""], lost: [] } satisfies Report
  },
  (effect, seed) => effect.pipe(Effect.scoped, Random.withSeed(String(seed)), Effect.provide(TestClock.layer()))
)
