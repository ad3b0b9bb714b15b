/** The compliance suite finds connections that break the contract, and says which rule. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit } from "effect"
import { Connection } from "effect-bitcoin-peer"
import { ConnectionCompliance, VirtualClock } from "effect-bitcoin-peer/testing"

type Break = (end: Connection.Connection) => Partial<Connection.Connection>

/** The in-memory pair with parts replaced at both ends. */
const suiteWith = (change: Break): ReadonlyArray<ConnectionCompliance.Test> =>
  ConnectionCompliance.tests({
    time: "virtual",
    capacity: 1_048_576,
    receives: false,
    make: (options) =>
      Effect.map(Connection.makePair(options), (pair) => {
        const changed = (end: Connection.Connection): Connection.Connection => ({
          localAddress: end.localAddress,
          remoteAddress: end.remoteAddress,
          pull: end.pull,
          write: (bytes) => end.write(bytes),
          drained: end.drained,
          close: end.close,
          destroy: end.destroy,
          ...change(end)
        })
        return { a: changed(pair[0]), b: changed(pair[1]), resetB: pair.reset() }
      })
  })

/** The rules that do not hold within a second, by their names. */
const broken = Effect.fnUntraced(function* (suite: ReadonlyArray<ConnectionCompliance.Test>) {
  const names: Array<string> = []
  for (const { name, test } of suite) {
    const exit = yield* test.pipe(
      Effect.scoped,
      Effect.provide(VirtualClock.layer),
      Effect.timeoutOption(300),
      Effect.exit
    )
    if (Exit.isSuccess(exit) && exit.value._tag === "Some") continue
    if (Exit.isFailure(exit)) {
      const defect = exit.cause.reasons.find(Cause.isDieReason)?.defect
      assert.instanceOf(defect, ConnectionCompliance.NotCompliant)
    }
    names.push(name)
  }
  return names
})

describe("ConnectionCompliance", () => {
  it.live("holds for the in-memory pair, also without receive", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* broken(suiteWith(() => ({}))), [])
    })
  )

  const mistakes: ReadonlyArray<readonly [string, Break, RegExp]> = [
    ["a close that drops what was written", (end) => ({ close: end.destroy }), /^close sends all written bytes first$/],
    ["a write that loses a byte", (end) => ({ write: (bytes) => end.write(bytes.slice(1)) }), /order of the writes/],
    ["a destroy that does nothing", () => ({ destroy: Effect.void }), /^destroy drops unsent bytes at once/],
    ["a drained that does not wait", () => ({ drained: Effect.void }), /holds the writer back/],
    [
      "writes after the end that count",
      (end) => ({ write: (bytes) => Math.max(0, end.write(bytes)) }),
      /^writes after/
    ],
    [
      "an end without an error",
      (end) => ({ pull: Effect.catch(end.pull, () => Effect.never) }),
      /^after the remote's close, pull gives all bytes/
    ]
  ]
  for (const [what, change, rule] of mistakes) {
    it.live(`finds ${what}`, () =>
      Effect.gen(function* () {
        const names = yield* broken(suiteWith(change).filter(({ name }) => rule.test(name)))
        assert.isNotEmpty(names)
      })
    )
  }
})
