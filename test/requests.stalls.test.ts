/** When a peer that leaves requests unanswered stalls, how much is kept of them, and what it costs. */
import { assert, describe, it } from "@effect/vitest"
import { vi } from "vitest"
import { maxUnwatchedItems, maxUnwatchedMessages } from "../src/peer/requests/inFlight.ts"
import type { Overdue, RequestTracker } from "../src/peer/requests/tracker.ts"
import {
  addr,
  ask,
  askItems,
  block,
  blocktxn,
  cmpctblock,
  filteredBlock,
  found,
  getblocks,
  getblocktxn,
  getdata,
  getheaders,
  hash,
  header,
  headers,
  inv,
  item,
  make,
  notfound,
  ping,
  pong,
  received,
  tx,
  txid,
  untold,
  witnessFlag
} from "./support/requests.ts"

const hashes = vi.hoisted(() => ({ count: 0 }))
vi.mock("../src/primitives/sha256.ts", async (original) => {
  const actual = await original<typeof import("../src/primitives/sha256.ts")>()
  return {
    ...actual,
    doubleSha256: (bytes: Uint8Array) => {
      hashes.count++
      return actual.doubleSha256(bytes)
    }
  }
})

type Stalled = Extract<Overdue, { readonly _tag: "Stalled" }>
const stalled = (command: Stalled["command"], hash: Uint8Array | undefined, waited: number): Overdue => ({
  _tag: "Stalled",
  command,
  hash,
  waited
})

describe("a remote that answers pings", () => {
  it("gets a ping when a request is late, and stalls if it leaves that unanswered for the same time", () => {
    const tracker = make()
    tracker.sent(getdata(item(1, hash(1)), item(2 | witnessFlag, hash(2))), 1_000)
    assert.isUndefined(tracker.overdue(30_999))
    assert.deepStrictEqual(tracker.overdue(31_000), { _tag: "Ping" })
    tracker.sent(ping(1n), 35_000)
    assert.isUndefined(tracker.overdue(64_999))
    assert.deepStrictEqual(tracker.overdue(65_000), stalled("getdata", hash(1), 64_000))
    received(tracker, notfound(item(1, hash(1))), 1_000)
    assert.deepStrictEqual(tracker.overdue(65_500), stalled("getdata", hash(2), 64_500))
    received(tracker, pong(1n), 1_000)
    assert.isUndefined(tracker.overdue(Number.MAX_SAFE_INTEGER))
  })

  it("stalls at once if a ping that was written after the request is not answered either", () => {
    const tracker = make()
    tracker.sent(getdata(item(2, hash(1))), 0)
    tracker.sent(ping(1n), 1)
    assert.isUndefined(tracker.overdue(29_999))
    assert.isUndefined(tracker.overdue(30_000))
    assert.deepStrictEqual(tracker.overdue(30_001), stalled("getdata", hash(1), 30_001))
  })

  it("does not stall, whatever it leaves unanswered: each pong settles the requests before it", () => {
    const tracker = make()
    const messages = [
      getdata(item(2, hash(1)), item(77, hash(2)), item(7, hash(3))),
      getheaders([hash(1)]),
      getblocks(1),
      getblocktxn(1, 1)
    ]
    for (const message of messages) tracker.sent(message, 0)
    assert.strictEqual(tracker.size, 6)
    tracker.sent(ping(1n), 0)
    received(tracker, pong(1n), 20_000)
    assert.strictEqual(tracker.size, 0)
    assert.isUndefined(tracker.overdue(Number.MAX_SAFE_INTEGER))
  })

  it("stalls on a getblocks too", () => {
    const tracker = make()
    tracker.sent(getblocks(1), 0)
    tracker.sent(ping(1n), 0)
    assert.deepStrictEqual(tracker.overdue(30_000), stalled("getblocks", undefined, 30_000))
  })
})

describe("a remote that does not answer pings", () => {
  it("stalls on a getdata after 30 s and on a getheaders after 90 s", () => {
    for (const [message, timeout, hashOfIt] of [
      [getdata(item(1, hash(1))), 30_000, hash(1)],
      [getblocktxn(1, 1), 30_000, getblocktxn(1).blockHash],
      [getheaders([hash(1)]), 90_000, undefined]
    ] as const) {
      const tracker = make(false)
      tracker.sent(message, 0)
      assert.isUndefined(tracker.overdue(timeout - 1))
      assert.deepStrictEqual(tracker.overdue(timeout), stalled(message._tag, hashOfIt, timeout))
    }
  })

  it("does not stall on messages that need no answer", () => {
    const tracker = make(false)
    for (const message of [getblocks(1), { _tag: "getaddr" }, getdata(item(77, hash(1)), item(7, hash(1)))] as const) {
      tracker.sent(message, 0)
    }
    ask(tracker, getblocks(2))
    askItems(tracker, [item(77, hash(1))])
    assert.strictEqual(tracker.size, 2)
    assert.isUndefined(tracker.overdue(Number.MAX_SAFE_INTEGER))
  })
})

describe("the time of a request", () => {
  it("begins when the request before it was answered, of any kind: a slow line is no stall", () => {
    const tracker = make(false)
    tracker.sent(getdata(...[1, 2, 3].map((number) => item(1, txid(number)))), 0)
    tracker.sent(getheaders([hash(1)]), 0)
    for (const number of [1, 2, 3]) {
      assert.isUndefined(tracker.overdue(number * 29_000))
      received(tracker, tx(number), number * 29_000)
    }
    assert.isUndefined(tracker.overdue(3 * 29_000 + 89_999))
    assert.deepStrictEqual(tracker.overdue(3 * 29_000 + 90_000), stalled("getheaders", undefined, 90_000))
  })

  it("does not begin anew when a later request is answered", () => {
    const tracker = make(false)
    tracker.sent(getdata(...[1, 2, 3].map((number) => item(1, txid(number)))), 0)
    received(tracker, tx(2), 10_000)
    received(tracker, tx(3), 20_000)
    assert.deepStrictEqual(tracker.overdue(30_000), stalled("getdata", txid(1), 30_000))
  })

  it("begins anew with each part of a message that arrives", () => {
    const tracker = make(false)
    tracker.progress(0)
    tracker.sent(getdata(item(2, hash(1)), item(2, hash(2))), 0)
    for (const now of [20_000, 40_000]) {
      assert.isUndefined(tracker.overdue(now))
      tracker.progress(now)
    }
    assert.isUndefined(tracker.overdue(69_999))
    assert.deepStrictEqual(tracker.overdue(70_000), stalled("getdata", hash(1), 30_000))
  })

  it("begins when the request is first written", () => {
    const tracker = make(false)
    tracker.askItems([item(1, hash(1))], untold)
    tracker.ask(getheaders([hash(1)]), untold)
    assert.isUndefined(tracker.overdue(Number.MAX_SAFE_INTEGER))
    for (const now of [0, 20_000]) tracker.sent(getdata(item(1, hash(1))), now)
    assert.deepStrictEqual(tracker.overdue(30_000), stalled("getdata", hash(1), 30_000))
  })

  it("continues when its caller has left", () => {
    const tracker = make(false)
    askItems(tracker, [item(1, hash(1))]).leave()
    assert.strictEqual(tracker.overdue(30_000)?._tag, "Stalled")
  })
})

describe("bounds", () => {
  const sendMany = (tracker: RequestTracker, from: number): void =>
    tracker.sent(getdata(...Array.from({ length: 50_000 }, (_, index) => item(1, hash(from + index)))), from)

  it("at most 100,000 items are tracked without a caller that waits, and all items with one", () => {
    const tracker = make(false)
    for (let from = 0; from < 250_000; from += 50_000) sendMany(tracker, from)
    assert.strictEqual(tracker.size, maxUnwatchedItems)
    assert.deepStrictEqual(tracker.overdue(1_000_000), stalled("getdata", hash(0), 1_000_000))
    const { outcomes } = askItems(tracker, [item(1, txid(1))])
    assert.strictEqual(tracker.size, maxUnwatchedItems + 1)
    received(tracker, tx(1))
    assert.deepStrictEqual(outcomes, [found(tx(1))])
    received(tracker, notfound(item(1, hash(0))))
    sendMany(tracker, 300_000)
    assert.strictEqual(tracker.size, maxUnwatchedItems)
  })

  it("at most 100 getheaders are tracked without a caller that waits, and all with one", () => {
    const tracker = make()
    for (let number = 0; number <= 200; number++) tracker.sent(getheaders([hash(number)]), number)
    assert.strictEqual(tracker.size, maxUnwatchedMessages)
    const { outcomes } = ask(tracker, getheaders([hash(201)]))
    received(tracker, headers(header(1, hash(201))))
    assert.lengthOf(outcomes, 1)
  })
})

describe("work", () => {
  it("makes no hash of a message when no request of its kind is open", () => {
    const tracker = make()
    const all = [tx(1), block(1), blocktxn(1), cmpctblock(1), filteredBlock(1), headers(header(1))]
    hashes.count = 0
    for (const message of all) received(tracker, message)
    assert.strictEqual(hashes.count, 0)
    askItems(tracker, [item(3, hash(1))])
    for (const message of all) received(tracker, message)
    assert.strictEqual(hashes.count, 1)
  })

  /** Look-ups and steps of iteration in `Map`s while `body` runs. */
  const countSteps = (body: () => void): number => {
    const iterator: { next: () => IteratorResult<unknown> } = Object.getPrototypeOf(new Map().values())
    const { delete: remove, get, has, set } = Map.prototype
    const { next } = iterator
    let steps = 0
    Object.assign(Map.prototype, {
      delete(this: Map<unknown, unknown>, key: unknown) {
        steps++
        return remove.call(this, key)
      },
      get(this: Map<unknown, unknown>, key: unknown) {
        steps++
        return get.call(this, key)
      },
      has(this: Map<unknown, unknown>, key: unknown) {
        steps++
        return has.call(this, key)
      },
      set(this: Map<unknown, unknown>, key: unknown, value: unknown) {
        steps++
        return set.call(this, key, value)
      }
    })
    iterator.next = function () {
      steps++
      return next.call(this)
    }
    try {
      body()
    } finally {
      Object.assign(Map.prototype, { delete: remove, get, has, set })
      iterator.next = next
    }
    return steps
  }

  it("answers 50,000 items with one hash and a few look-ups each, in any order", () => {
    const tracker = make(false)
    const count = 50_000
    const messages = Array.from({ length: count }, (_, number) => tx(number))
    const items = Array.from({ length: count }, (_, number) => item(1, txid(number)))
    let answers = 0
    let overdue = 0
    hashes.count = 0
    const steps = countSteps(() => {
      const { newItems } = tracker.askItems(items, () => answers++)
      tracker.sent(getdata(...newItems), 0)
      for (let turn = 0; turn < count; turn++) {
        received(tracker, messages[(turn * 7919) % count], 0)
        if (tracker.overdue(30_000) !== undefined) overdue++
      }
    })
    assert.strictEqual(answers, count)
    assert.strictEqual(overdue, count - 1)
    assert.strictEqual(tracker.size, 0)
    assert.strictEqual(hashes.count, count)
    assert.isBelow(steps, 20 * count)
  })
})

describe("the end", () => {
  it("forgets all requests without answering them; leaving later does nothing", () => {
    const tracker = make()
    const asked = [
      tracker.askItems([item(1, txid(1))], untold),
      tracker.ask(getheaders([hash(1)]), untold),
      tracker.ask(getblocks(1), untold),
      tracker.ask({ _tag: "getaddr" }, untold)
    ]
    tracker.sent(getdata(item(1, txid(1))), 0)
    tracker.sent(getblocks(1), 0)
    tracker.sent(ping(1n), 0)
    tracker.end()
    assert.strictEqual(tracker.size, 0)
    assert.isUndefined(tracker.overdue(Number.MAX_SAFE_INTEGER))
    for (const message of [tx(1), headers(), inv(2, 2), addr(3), pong(1n)]) received(tracker, message)
    for (const { leave } of asked) leave()
    assert.strictEqual(tracker.size, 0)
  })
})
