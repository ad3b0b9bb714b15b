/** Which messages answer requests for headers, for the hashes of blocks and for addresses. */
import { assert, describe, it } from "@effect/vitest"
import * as Wire from "../src/Wire.ts"
import {
  addr,
  ask,
  blockHash,
  doesNotConnect,
  found,
  genesisHash,
  getblocks,
  getheaders,
  hash,
  header,
  headers,
  inv,
  make,
  noAnswer,
  ping,
  pong,
  received,
  untold
} from "./support/requests.ts"

describe("headers", () => {
  it("answer a getheaders if they connect to its locator or to the genesis block, are an empty list, or start with the stop hash", () => {
    for (const message of [
      headers(),
      headers(header(1, hash(10)), header(2, Wire.blockHash(header(1, hash(10))))),
      headers(header(1, hash(11))),
      headers(header(1, genesisHash)),
      headers(header(5))
    ]) {
      const tracker = make()
      const { outcomes } = ask(tracker, getheaders([hash(10), hash(11)], blockHash(5)))
      received(tracker, message)
      assert.deepStrictEqual(outcomes, [found(message)])
    }
  })

  const unfit = [headers(header(1, hash(12))), headers(header(1, blockHash(5))), headers(header(6), header(5))]

  it("that do not connect leave the request open: the answer may still come", () => {
    const tracker = make()
    const { outcomes } = ask(tracker, getheaders([hash(10)], blockHash(5)))
    for (const message of unfit) received(tracker, message)
    assert.deepStrictEqual(outcomes, [])
    received(tracker, headers())
    assert.deepStrictEqual(outcomes, [found(headers())])
  })

  it("that do not connect, followed by the pong to a later ping, give DoesNotConnect; the pong alone gives NoAnswer", () => {
    for (const message of [...unfit, undefined]) {
      const tracker = make()
      const { outcomes } = ask(tracker, getheaders([hash(10)], blockHash(5)))
      tracker.sent(ping(1n), 0)
      if (message !== undefined) received(tracker, message)
      received(tracker, pong(1n))
      assert.deepStrictEqual(outcomes, [message === undefined ? noAnswer : doesNotConnect])
      assert.strictEqual(tracker.size, 0)
    }
  })

  it("that come after the pong answer nothing", () => {
    const tracker = make()
    const { outcomes } = ask(tracker, getheaders([hash(10)]))
    tracker.sent(ping(1n), 0)
    received(tracker, pong(1n))
    received(tracker, headers(header(1, hash(10))))
    assert.deepStrictEqual(outcomes, [noAnswer])
  })

  it("do not connect by bytes that lie across two hashes of the locator", () => {
    const tracker = make()
    const across = new Uint8Array([...hash(10).subarray(2), ...hash(11).subarray(0, 2)])
    const { outcomes } = ask(tracker, getheaders([hash(10), hash(11)]))
    received(tracker, headers(header(1, across)))
    assert.isEmpty(outcomes)
  })

  it("answer the oldest request that they connect to", () => {
    const tracker = make()
    const asked = [10, 11, 12].map((number) => ask(tracker, getheaders([hash(number), hash(1)])))
    const [a, b, c] = [headers(header(1, hash(11))), headers(header(2, hash(1))), headers()]
    for (const message of [a, b, c]) received(tracker, message)
    assert.deepStrictEqual(
      asked.map(({ outcomes }) => outcomes),
      [[found(b)], [found(a)], [found(c)]]
    )
  })

  it("that arrive before the request was written answer nothing", () => {
    const tracker = make()
    tracker.ask(getheaders([hash(10)]), untold)
    received(tracker, headers(header(1, hash(10))))
  })

  it("are requested once for callers with the same locator and stop hash", () => {
    const tracker = make()
    const first = ask(tracker, getheaders([hash(10)]))
    const second = ask(tracker, getheaders([hash(10)]))
    const third = ask(tracker, getheaders([hash(10)], hash(1)))
    assert.deepStrictEqual([first.isNew, second.isNew, third.isNew], [true, false, true])
    received(tracker, headers())
    assert.deepStrictEqual(
      [first.outcomes, second.outcomes, third.outcomes],
      [[found(headers())], [found(headers())], []]
    )
  })

  it("that answer an abandoned request do not answer the next one", () => {
    const tracker = make()
    const first = ask(tracker, getheaders([hash(10), hash(1)]))
    assert.isFalse(first.leave())
    const second = ask(tracker, getheaders([hash(11), hash(1)]))
    received(tracker, headers(header(1, hash(1))))
    assert.deepStrictEqual([first.outcomes, second.outcomes], [[], []])
    received(tracker, headers(header(2, hash(1))))
    assert.lengthOf(second.outcomes, 1)
  })

  it("are still requested when the caller that was to send the request leaves and others wait", () => {
    const tracker = make()
    const first = tracker.ask(getheaders([hash(10)]), untold)
    const second = tracker.ask(getheaders([hash(10)]), untold)
    assert.isTrue(first.leave())
    assert.isFalse(second.leave())
    assert.strictEqual(tracker.size, 0)
  })
})

describe("inventories", () => {
  it("of several blocks alone answer getblocks", () => {
    const tracker = make()
    const outcomes: Array<unknown> = []
    tracker.ask(getblocks(1), (outcome) => outcomes.push(outcome))
    received(tracker, inv(2, 2))
    assert.isEmpty(outcomes, "nothing was written yet")
    tracker.sent(getblocks(1), 0)
    for (const message of [inv(), inv(2, 1), inv(1, 5, 2), inv(2)]) received(tracker, message)
    assert.isEmpty(outcomes)
    for (const message of [inv(2, 2), inv(2, 2, 2)]) received(tracker, message)
    assert.deepStrictEqual(outcomes, [found(inv(2, 2))])
  })

  it("of a single block may be an announcement: they answer getblocks only if the pong comes without another inv", () => {
    for (const [messages, expected] of [
      [[inv(2)], found(inv(2))],
      [[inv(2), inv(1), inv(2, 2)], found(inv(2, 2))],
      [[inv(1)], noAnswer],
      [[], noAnswer]
    ] as const) {
      const tracker = make()
      const first = ask(tracker, getblocks(1))
      const second = ask(tracker, getblocks(1))
      assert.isFalse(second.isNew)
      tracker.sent(ping(1n), 0)
      for (const message of messages) received(tracker, message)
      received(tracker, pong(1n))
      assert.deepStrictEqual([first.outcomes, second.outcomes], [[expected], [expected]])
    }
  })

  it("answer several getblocks in the order in which they were written", () => {
    const tracker = make()
    const first: Array<unknown> = []
    const second: Array<unknown> = []
    tracker.ask(getblocks(1), (outcome) => first.push(outcome))
    tracker.ask(getblocks(2), (outcome) => second.push(outcome))
    tracker.sent(getblocks(2), 0)
    tracker.sent(getblocks(1), 0)
    received(tracker, inv(2, 2))
    assert.deepStrictEqual([first, second], [[], [found(inv(2, 2))]])
  })
})

describe("addresses", () => {
  const getaddr = { _tag: "getaddr" } as const

  it("answer getaddr, also an empty list; a single address does not and is kept", () => {
    for (const message of [addr(2), addr(0), { _tag: "addrv2", addresses: [] } as const]) {
      const tracker = make()
      const outcomes: Array<unknown> = []
      const { candidate } = tracker.ask(getaddr, (outcome) => outcomes.push(outcome))
      received(tracker, addr(5))
      received(tracker, addr(1))
      assert.isUndefined(candidate(), "nothing was written yet")
      tracker.sent(getaddr, 0)
      received(tracker, addr(1))
      assert.isEmpty(outcomes)
      assert.deepStrictEqual(candidate(), addr(1))
      received(tracker, message)
      assert.deepStrictEqual(outcomes, [found(message)])
    }
  })

  it("from before the request are not kept for it", () => {
    const tracker = make()
    const { leave } = tracker.ask(getaddr, untold)
    tracker.sent(getaddr, 0)
    received(tracker, addr(1))
    leave()
    assert.strictEqual(tracker.size, 0)
    assert.isUndefined(ask(tracker, getaddr).candidate())
  })

  it("may come after the pong, and do not stall when they never come", () => {
    const tracker = make()
    const { outcomes } = ask(tracker, getaddr)
    ask(tracker, getheaders([]))
    tracker.sent(ping(1n), 0)
    received(tracker, addr(1))
    received(tracker, pong(1n))
    assert.isEmpty(outcomes)
    assert.isUndefined(tracker.overdue(Number.MAX_SAFE_INTEGER))
    assert.strictEqual(tracker.size, 1)
  })

  it("are not tracked when no caller waits for them", () => {
    const tracker = make()
    tracker.sent(getaddr, 0)
    tracker.sent({ _tag: "mempool" }, 0)
    assert.strictEqual(tracker.size, 0)
  })
})
