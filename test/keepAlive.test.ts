/** The keep-alive as a state machine with the time passed in: when to ping and when to give up. */
import { assert, describe, it } from "@effect/vitest"
import * as KeepAlive from "../src/peer/keepAlive.ts"

const minutes = (count: number): number => count * 60_000
const make = (): KeepAlive.KeepAlive =>
  KeepAlive.make({ pingInterval: minutes(2), pingTimeout: minutes(20), idleTimeout: minutes(30) }, 0)

describe("keepAlive", () => {
  it("waits for a ping interval before the first ping", () => {
    const machine = make()
    assert.deepStrictEqual(KeepAlive.next(machine, 0), { _tag: "Wait", milliseconds: minutes(2) })
    assert.deepStrictEqual(KeepAlive.next(machine, minutes(2) - 1), { _tag: "Wait", milliseconds: 1 })
    assert.deepStrictEqual(KeepAlive.next(machine, minutes(2)), { _tag: "Ping" })
  })

  it("sends no second ping while one is unanswered", () => {
    const machine = make()
    assert.strictEqual(KeepAlive.next(machine, minutes(2))._tag, "Ping")
    KeepAlive.pinged(machine, 1n, minutes(2))
    assert.strictEqual(KeepAlive.next(machine, minutes(4))._tag, "Wait")
    KeepAlive.ponged(machine, 1n, minutes(5))
    assert.strictEqual(KeepAlive.next(machine, minutes(5))._tag, "Ping")
  })

  it("keeps the last round trip and the smallest", () => {
    const machine = make()
    for (const [nonce, sent, back] of [
      [1n, 0, 30],
      [2n, 100, 110],
      [3n, 200, 250]
    ] as const) {
      KeepAlive.pinged(machine, nonce, sent)
      assert.isTrue(KeepAlive.ponged(machine, nonce, back))
    }
    assert.strictEqual(machine.lastRoundTrip, 50)
    assert.strictEqual(machine.minimumRoundTrip, 10)
  })

  it("ignores a pong with an unknown nonce, and a second pong with the same one", () => {
    const machine = make()
    KeepAlive.pinged(machine, 1n, 0)
    assert.isFalse(KeepAlive.ponged(machine, 2n, 10))
    assert.isUndefined(machine.lastRoundTrip)
    assert.isTrue(KeepAlive.ponged(machine, 1n, 10))
    assert.isFalse(KeepAlive.ponged(machine, 1n, 5_000))
    assert.strictEqual(machine.lastRoundTrip, 10)
  })

  it("gives PingTimeout when the oldest ping is unanswered for the ping timeout, even if other messages arrive", () => {
    const machine = make()
    KeepAlive.pinged(machine, 1n, 0)
    for (let now = 0; now < minutes(20); now += minutes(1)) {
      KeepAlive.received(machine, now)
      KeepAlive.reading(machine, now)
    }
    assert.deepStrictEqual(KeepAlive.next(machine, minutes(20) - 1), { _tag: "Wait", milliseconds: 1 })
    assert.deepStrictEqual(KeepAlive.next(machine, minutes(20)), { _tag: "PingTimeout" })
  })

  it("gives IdleTimeout when nothing arrives for the idle timeout", () => {
    const machine = make()
    KeepAlive.received(machine, minutes(5))
    KeepAlive.reading(machine, minutes(5))
    machine.lastPingAt = minutes(34)
    assert.strictEqual(KeepAlive.next(machine, minutes(35) - 1)._tag, "Wait")
    assert.deepStrictEqual(KeepAlive.next(machine, minutes(35)), { _tag: "IdleTimeout" })
  })

  it("does not count time in which a slow handler stops the reader", () => {
    const machine = make()
    KeepAlive.pinged(machine, 1n, 0)
    KeepAlive.received(machine, minutes(1))
    // A handler runs for 40 minutes: no deadline passes in that time.
    assert.strictEqual(KeepAlive.next(machine, minutes(40))._tag, "Wait")
    KeepAlive.reading(machine, minutes(41))
    assert.strictEqual(KeepAlive.next(machine, minutes(60) - 1)._tag, "Wait")
    assert.deepStrictEqual(KeepAlive.next(machine, minutes(60)), { _tag: "PingTimeout" })
  })

  it("never gives a Wait of 0 or less", () => {
    const machine = make()
    let now = 0
    for (let turn = 0; turn < 1000; turn++) {
      const action = KeepAlive.next(machine, now)
      if (action._tag === "IdleTimeout" || action._tag === "PingTimeout") return
      if (action._tag === "Wait") {
        assert.isAbove(action.milliseconds, 0)
        now += action.milliseconds
      } else KeepAlive.pinged(machine, BigInt(turn), now)
    }
    assert.fail("no timeout for a peer that never answers")
  })
})
