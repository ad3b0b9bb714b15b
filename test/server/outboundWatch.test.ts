/** Outbound peers with a bad chain, and those beyond the usual number. After the cases of Bitcoin Core's denialofservice_tests. */
import { assert, describe, it } from "@effect/vitest"
import type { ChainView } from "../../src/server/ChainView.ts"
import { OutboundWatch, type Watched } from "../../src/server/internal/outboundWatch.ts"

const minute = 60_000
const start = 1_700_000_000_000

const chainOf = () => {
  const state = {
    tip: 100n,
    tipChangedAt: start,
    downloading: false,
    work: new Map<number, bigint>(),
    inFlight: new Set<number>(),
    newBlocks: new Map<number, number>()
  }
  const chain: ChainView = {
    tipWork: () => state.tip,
    tipChangedAt: () => state.tipChangedAt,
    isInitialSync: () => false,
    workOf: (id) => state.work.get(id),
    hasBlockInFlight: (id) => state.inFlight.has(id),
    isDownloading: () => state.downloading,
    lastNewBlock: (id) => state.newBlocks.get(id) ?? 0,
    askForHeaders: () => {}
  }
  return { state, chain }
}

const peer = (id: number, kind: Watched["kind"] = "outbound-full-relay", more: Partial<Watched> = {}): Watched => ({
  id,
  kind,
  readyAt: start,
  network: "ipv4",
  lastBlock: 0,
  ...more
})
const limits = { fullRelay: 8, blockRelay: 2 }

describe("a peer whose chain has less work than ours", () => {
  it("is asked for headers after 20 minutes, and ended two minutes later", () => {
    const { chain } = chainOf()
    const watch = new OutboundWatch(limits, start)
    const peers = [peer(1)]
    assert.deepStrictEqual(watch.tick(peers, chain, start), [])
    assert.deepStrictEqual(watch.tick(peers, chain, start + 20 * minute), [])
    assert.deepStrictEqual(watch.tick(peers, chain, start + 20 * minute + 1), [{ _tag: "AskForHeaders", id: 1 }])
    assert.deepStrictEqual(watch.tick(peers, chain, start + 22 * minute + 1), [])
    assert.deepStrictEqual(watch.tick(peers, chain, start + 22 * minute + 2), [
      { _tag: "Disconnect", id: 1, why: "its chain has less work than ours" }
    ])
  })

  it("gets a new clock when it reaches the tip of the moment at which the clock started", () => {
    const { chain, state } = chainOf()
    const watch = new OutboundWatch(limits, start)
    const peers = [peer(1)]
    watch.tick(peers, chain, start)
    state.tip = 110n
    state.work.set(1, 100n)
    assert.deepStrictEqual(watch.tick(peers, chain, start + 19 * minute), [])
    assert.deepStrictEqual(watch.tick(peers, chain, start + 38 * minute), [])
    assert.deepStrictEqual(watch.tick(peers, chain, start + 39 * minute + 1), [{ _tag: "AskForHeaders", id: 1 }])
  })

  it("stays if the operator added it", () => {
    const { chain } = chainOf()
    const watch = new OutboundWatch(limits, start)
    const peers = [peer(1, "manual")]
    watch.tick(peers, chain, start)
    assert.deepStrictEqual(watch.tick(peers, chain, start + 60 * minute), [])
  })

  it("stays if it is one of four full-relay peers that once had as much work; block-relay peers are not among them", () => {
    const { chain, state } = chainOf()
    const watch = new OutboundWatch(limits, start)
    const peers = [peer(1, "block-relay-only"), ...[2, 3, 4, 5, 6].map((id) => peer(id))]
    for (const { id } of peers) state.work.set(id, 100n)
    watch.tick(peers, chain, start)
    state.tip = 200n
    watch.tick(peers, chain, start + minute)
    assert.deepStrictEqual(watch.tick(peers, chain, start + 22 * minute), [
      { _tag: "AskForHeaders", id: 1 },
      { _tag: "AskForHeaders", id: 6 }
    ])
  })
})

describe("a tip that has not moved for 30 minutes", () => {
  it("makes the server want one more full-relay peer, unless a block is on its way", () => {
    const { chain, state } = chainOf()
    const watch = new OutboundWatch(limits, start)
    watch.tick([], chain, start + 30 * minute)
    assert.isFalse(watch.wantsExtraFullRelay)
    watch.tick([], chain, start + 40 * minute)
    assert.isTrue(watch.wantsExtraFullRelay)
    state.downloading = true
    watch.tick([], chain, start + 50 * minute)
    assert.isFalse(watch.wantsExtraFullRelay)
  })
})

describe("one full-relay peer more than usual", () => {
  const nine = Array.from({ length: 9 }, (_, id) => peer(id))

  it("ends the one that announced no new block for longest, the youngest of equals", () => {
    const { chain, state } = chainOf()
    const watch = new OutboundWatch(limits, start)
    for (const { id } of nine) state.newBlocks.set(id, id < 2 ? start - 1_000 : start)
    assert.deepStrictEqual(
      watch.tick(nine, chain, start + 45_000).map(({ id }) => id),
      [1]
    )
  })

  it("ends nobody who connected in the last 30 seconds or has a block on its way", () => {
    const { chain, state } = chainOf()
    state.inFlight.add(8)
    const watch = new OutboundWatch(limits, start)
    assert.deepStrictEqual(watch.tick(nine, chain, start + 45_000), [])
    state.inFlight.clear()
    const young = [...nine.slice(0, 8), peer(8, "outbound-full-relay", { readyAt: start + 70_000 })]
    assert.deepStrictEqual(watch.tick(young, chain, start + 90_000), [])
    assert.strictEqual(watch.tick(nine, chain, start + 135_000).length, 1)
  })

  it("keeps the only peer of a network", () => {
    const { chain } = chainOf()
    const watch = new OutboundWatch(limits, start)
    const peers = [...nine.slice(0, 8), peer(8, "outbound-full-relay", { network: "onion" })]
    assert.deepStrictEqual(
      watch.tick(peers, chain, start + 45_000).map(({ id }) => id),
      [7]
    )
  })

  it("is not looked for again after one was ended", () => {
    const { chain } = chainOf()
    const watch = new OutboundWatch(limits, start)
    watch.tick([], chain, start + 40 * minute)
    assert.isTrue(watch.wantsExtraFullRelay)
    watch.tick(nine, chain, start + 41 * minute)
    assert.isFalse(watch.wantsExtraFullRelay)
  })
})

describe("one block-relay peer more than two", () => {
  const three = [1, 2, 3].map((id) => peer(id, "block-relay-only"))

  it("ends the youngest", () => {
    const { chain } = chainOf()
    const ids = new OutboundWatch(limits, start).tick(three, chain, start + 45_000).map(({ id }) => id)
    assert.deepStrictEqual(ids, [3])
  })

  it("ends the second youngest instead, if the youngest gave us a later block", () => {
    const { chain } = chainOf()
    const peers = [...three.slice(0, 2), peer(3, "block-relay-only", { lastBlock: start + 1 })]
    const ids = new OutboundWatch(limits, start).tick(peers, chain, start + 45_000).map(({ id }) => id)
    assert.deepStrictEqual(ids, [2])
  })
})
