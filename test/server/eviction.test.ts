import { assert, describe, it } from "@effect/vitest"
import {
  type Candidate,
  type KeyedCandidate,
  protectByRatio,
  selectKeyed,
  selectToEvict
} from "../../src/server/internal/eviction.ts"
import type { NetworkName } from "../../src/server/internal/networkNames.ts"
import { makeRandom, shuffle } from "../../src/server/internal/random.ts"

const random = makeRandom(new Uint8Array(16).fill(7))
const coin = () => random.below(2) === 1
const networks: ReadonlyArray<NetworkName> = ["not_publicly_routable", "ipv4", "ipv6", "onion", "i2p", "cjdns"]

type Setup = (id: number) => Partial<KeyedCandidate<number>>

/** Candidates of which everything is random, in a random order, but for what `setup` says. */
const candidates = (count: number, setup: Setup = () => ({})): ReadonlyArray<KeyedCandidate<number>> =>
  shuffle(
    random,
    Array.from({ length: count }, (_, id): KeyedCandidate<number> => ({
      id,
      kind: "inbound",
      noban: false,
      connectedAt: 1_000 * random.below(100),
      minimumPing: random.below(100) / 1_000,
      lastBlockAt: 1_000 * random.below(100),
      lastTransactionAt: 1_000 * random.below(100),
      hasRelevantServices: coin(),
      relaysTransactions: coin(),
      hasBloomFilter: coin(),
      group: "",
      keyedGroup: random.below(100),
      preferEvict: coin(),
      isLocal: coin(),
      network: networks[random.below(networks.length)]!,
      ...setup(id)
    }))
  )

const upTo = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, id) => id)

/** The case of Bitcoin Core with the same words: who keeps his slot, of peers that are older the lower their id is. */
interface ProtectionCase {
  readonly name: string
  readonly peers: number
  readonly local?: ReadonlyArray<number>
  readonly onion?: ReadonlyArray<number>
  readonly i2p?: ReadonlyArray<number>
  readonly cjdns?: ReadonlyArray<number>
  readonly kept: ReadonlyArray<number>
}

const range = (from: number, to: number): ReadonlyArray<number> =>
  Array.from({ length: to - from + 1 }, (_, i) => from + i)

const cases: ReadonlyArray<ProtectionCase> = [
  { name: "the half that is connected longest", peers: 12, kept: upTo(6) },
  { name: "a quarter of onion peers", peers: 12, onion: [3, 8, 9, 10, 11], kept: [0, 1, 2, 3, 8, 9] },
  { name: "a quarter of local peers", peers: 12, local: range(7, 11), kept: [0, 1, 2, 7, 8, 9] },
  { name: "a quarter of I2P peers", peers: 12, i2p: [4, 9, 10, 11], kept: [0, 1, 2, 4, 9, 10] },
  { name: "a quarter of CJDNS peers", peers: 12, cjdns: [4, 9, 10, 11], kept: [0, 1, 2, 4, 9, 10] },
  // Two networks.
  { name: "no local peer of 4 where there is none", peers: 4, onion: [3], local: [4], kept: [0, 3] },
  { name: "1 local before 1 onion of 7", peers: 7, onion: [5], local: [6], kept: [0, 1, 6] },
  { name: "1 local and 1 onion of 8", peers: 8, onion: [5], local: [6], kept: [0, 1, 5, 6] },
  {
    name: "2 of 3 local and 1 of 3 onion of 12",
    peers: 12,
    local: [6, 9, 11],
    onion: [7, 8, 10],
    kept: [0, 1, 2, 6, 7, 9]
  },
  { name: "2 of 4 local and 1 onion of 12", peers: 12, local: range(5, 8), onion: [10], kept: [0, 1, 2, 5, 6, 10] },
  {
    name: "2 of 4 local and 2 onion of 16",
    peers: 16,
    local: [6, 9, 11, 12],
    onion: [8, 10],
    kept: [0, 1, 2, 3, 6, 8, 9, 10]
  },
  {
    name: "3 of 5 local, with a place of onion",
    peers: 16,
    local: range(11, 15),
    onion: [10],
    kept: [0, 1, 2, 3, 10, 11, 12, 13]
  },
  {
    name: "3 of 4 onion, with a place of local",
    peers: 16,
    local: [15],
    onion: range(7, 10),
    kept: [0, 1, 2, 3, 7, 8, 9, 15]
  },
  { name: "2 onion and 1 of 3 I2P of 12", peers: 12, onion: [8, 10], i2p: [6, 9, 11], kept: [0, 1, 2, 6, 8, 10] },
  // Three networks.
  { name: "I2P first of 4", peers: 4, local: [2], i2p: [3], onion: [1], kept: [0, 3] },
  { name: "I2P first of 7", peers: 7, local: [4], i2p: [6], onion: [5], kept: [0, 1, 6] },
  { name: "I2P, then local, of 8", peers: 8, local: [6], i2p: [5], onion: [4], kept: [0, 1, 5, 6] },
  {
    name: "4 local, 2 I2P, 2 onion of 16",
    peers: 16,
    local: [6, 12, 13, 14, 15],
    i2p: [7, 11],
    onion: [9, 10],
    kept: [0, 1, 2, 3, 6, 7, 9, 11]
  },
  {
    name: "1 local, 8 I2P, 1 onion of 24",
    peers: 24,
    local: [12],
    i2p: range(15, 22),
    onion: [23],
    kept: [0, 1, 2, 3, 4, 5, 12, 15, 16, 17, 18, 23]
  },
  {
    name: "1 local, 3 I2P, 6 onion of 24",
    peers: 24,
    local: [15],
    i2p: [12, 14, 17],
    onion: range(18, 23),
    kept: [0, 1, 2, 3, 4, 5, 12, 14, 15, 17, 18, 19]
  },
  {
    name: "1 local, 7 I2P, 4 onion of 24",
    peers: 24,
    local: [13],
    i2p: range(17, 23),
    onion: [12, 14, 15, 16],
    kept: [0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 17, 18]
  },
  {
    name: "8 local, 4 CJDNS, 3 onion of 24",
    peers: 24,
    local: range(16, 23),
    cjdns: range(11, 14),
    onion: range(7, 9),
    kept: [0, 1, 2, 3, 4, 5, 7, 8, 11, 12, 16, 17]
  },
  // Four networks.
  { name: "CJDNS first of 5", peers: 5, local: [3], cjdns: [4], i2p: [1], onion: [2], kept: [0, 4] },
  { name: "CJDNS first of 7", peers: 7, local: [4], cjdns: [6], i2p: [5], onion: [3], kept: [0, 1, 6] },
  { name: "CJDNS and I2P of 8", peers: 8, local: [3], cjdns: [5], i2p: [6], onion: [3], kept: [0, 1, 5, 6] },
  {
    name: "1 of each of 16",
    peers: 16,
    local: range(6, 15),
    cjdns: [11, 15],
    i2p: [10, 14],
    onion: [8, 9],
    kept: [0, 1, 2, 3, 6, 8, 10, 11]
  },
  {
    name: "6 CJDNS, 1 I2P, 1 local, 4 onion of 24",
    peers: 24,
    local: [13],
    cjdns: range(18, 23),
    i2p: [17],
    onion: [12, 14, 15, 16],
    kept: [0, 1, 2, 3, 4, 5, 12, 13, 14, 17, 18, 19]
  }
]

const networkIn = ({ cjdns, i2p, onion }: ProtectionCase, id: number): NetworkName =>
  cjdns?.includes(id) === true
    ? "cjdns"
    : i2p?.includes(id) === true
      ? "i2p"
      : onion?.includes(id) === true
        ? "onion"
        : "ipv4"

describe("protection by ratio", () => {
  it.each(cases)("keeps $name", (given) => {
    // Every order of the same candidates gives the same.
    for (let round = 0; round < 5; round++) {
      const all = candidates(given.peers, (id) => ({
        connectedAt: 1_000 * id,
        isLocal: given.local?.includes(id) === true,
        network: networkIn(given, id)
      }))
      const left = new Set(protectByRatio(all).map(({ id }) => id))
      assert.deepStrictEqual(
        upTo(given.peers).filter((id) => !left.has(id)),
        given.kept.toSorted((a, b) => a - b)
      )
    }
  })

  it("keeps the oldest in the other direction, too", () => {
    const all = candidates(12, (id) => ({ connectedAt: 1_000 * (12 - id), isLocal: false, network: "ipv6" }))
    assert.deepStrictEqual(new Set(protectByRatio(all).map(({ id }) => id)), new Set(upTo(6)))
  })

  it.each(["onion", "i2p", "cjdns"] as const)("keeps 3 %s peers of 12, whatever their age", (network) => {
    const all = candidates(12, (id) => ({ isLocal: false, network: [2, 7, 10].includes(id) ? network : "ipv4" }))
    const left = protectByRatio(all).map(({ id }) => id)
    assert.notIncludeMembers(left, [2, 7, 10])
    assert.lengthOf(left, 6)
  })

  it("returns those that are left with the youngest first", () => {
    const left = protectByRatio(candidates(50, (id) => ({ connectedAt: id }))).map(({ connectedAt }) => connectedAt)
    assert.deepStrictEqual(
      left,
      left.toSorted((a, b) => b - a)
    )
  })
})

/** That none of these is chosen: with 1,000 candidates or fewer, and the ones with the lowest ids protected. */
const assertProtected = (count: number, ids: number, setup: Setup) => {
  const chosen = selectKeyed(candidates(count, setup))
  if (chosen !== undefined) assert.isAtLeast(chosen, ids, `${count} candidates`)
}

describe("the choice of the peer to evict", () => {
  const counts = upTo(200)

  it("protects the 4 highest keyed groups", () => {
    for (const count of counts) assertProtected(count, 4, (id) => ({ keyedGroup: count - id }))
  })

  it("protects the 8 shortest pings", () => {
    for (const count of counts) assertProtected(count, 8, (id) => ({ minimumPing: id }))
  })

  it("protects the 4 latest new transactions", () => {
    for (const count of counts) assertProtected(count, 4, (id) => ({ lastTransactionAt: 1_000 * (count - id) }))
  })

  it("protects 8 latest blocks of those without transactions, and 4 more of all", () => {
    for (const count of counts) {
      assertProtected(count, 12, (id) => ({
        lastBlockAt: 1_000 * (count - id),
        ...(id <= 7 ? { relaysTransactions: false, hasRelevantServices: true } : undefined)
      }))
    }
  })

  it("protects the 4 latest blocks", () => {
    for (const count of counts) assertProtected(count, 4, (id) => ({ lastBlockAt: 1_000 * (count - id) }))
  })

  it("protects all of these at once", () => {
    for (const count of counts) {
      assertProtected(count, 20, (id) => ({
        keyedGroup: count - id,
        minimumPing: id,
        lastTransactionAt: 1_000 * (count - id),
        lastBlockAt: 1_000 * (count - id)
      }))
    }
  })

  it("chooses none of 20 or fewer, and one of 29 or more", () => {
    for (const count of counts) {
      const chosen = selectKeyed(candidates(count))
      if (count <= 20) assert.isUndefined(chosen, `${count}`)
      if (count >= 29) assert.isNumber(chosen, `${count}`)
    }
  })

  it("never chooses outbound peers or those with noban", () => {
    assert.isUndefined(selectKeyed(candidates(200, () => ({ noban: true }))))
    assert.isUndefined(selectKeyed(candidates(200, () => ({ kind: "manual" }))))
    for (let round = 0; round < 100; round++) {
      const chosen = selectKeyed(
        candidates(60, (id) => (id < 10 ? { noban: true } : id < 20 ? { kind: "outbound-full-relay" } : {}))
      )
      assert.isAtLeast(chosen!, 20)
    }
  })

  /** Idle peers in groups of their own, of which the older ones have the shorter pings, so that only what `setup` says counts. */
  const idle = (count: number, setup: Setup): ReadonlyArray<KeyedCandidate<number>> =>
    candidates(count, (id) => ({
      connectedAt: 1_000 * id,
      minimumPing: id,
      lastBlockAt: 0,
      lastTransactionAt: 0,
      hasRelevantServices: true,
      relaysTransactions: true,
      hasBloomFilter: false,
      keyedGroup: id,
      preferEvict: false,
      isLocal: false,
      network: "ipv4",
      ...setup(id)
    }))

  it("finds one of 189 idle peers: no ping, no block, no transaction", () => {
    for (let round = 0; round < 20; round++) {
      const chosen = selectKeyed(idle(189, () => ({ minimumPing: Infinity })))
      // The 4 highest groups are the 4 youngest; 8 others are protected, since all pings are the same.
      assert.include(range(176, 184), chosen)
    }
  })

  it("chooses the youngest where every group has one member", () => {
    assert.strictEqual(selectKeyed(idle(189, () => ({}))), 184)
  })

  it("considers only those that were discouraged, if any is left", () => {
    assert.strictEqual(selectKeyed(idle(189, (id) => ({ preferEvict: id === 150 || id === 120 }))), 150)
    // The oldest are protected all the same.
    assert.strictEqual(selectKeyed(idle(189, (id) => ({ preferEvict: id === 0 }))), 184)
  })

  it("chooses the youngest of the largest group", () => {
    const inGroup = (id: number) => [110, 130, 140].includes(id)
    assert.strictEqual(selectKeyed(idle(189, (id) => ({ keyedGroup: inGroup(id) ? -1 : id }))), 140)
    // With the highest hash it is protected, and one of the others with it.
    assert.strictEqual(selectKeyed(idle(189, (id) => ({ keyedGroup: inGroup(id) ? 500 : id }))), 187)
  })

  it("chooses among groups of the same size that whose youngest member is younger", () => {
    const groups = (id: number): number => (id === 110 || id === 150 ? -1 : id === 130 || id === 140 ? -2 : id)
    assert.strictEqual(selectKeyed(idle(189, (id) => ({ keyedGroup: groups(id) }))), 150)
  })

  it("compares the times of blocks and transactions in whole seconds", () => {
    // Peer 150 sent a transaction 999 ms after the others, in the same second: the older ones are protected before it.
    const chosen = selectKeyed(
      idle(189, (id) => ({
        lastTransactionAt: id === 150 ? 1_000_999 : 1_000_000,
        keyedGroup: id === 150 || id === 100 ? -1 : id
      }))
    )
    assert.strictEqual(chosen, 150)
  })

  it("prefers, among those without transactions yet, the one that relays them and has no bloom filter", () => {
    // The largest group is {150, 151, 152, 153}; its members are protected if they are the only ones without a filter.
    const inGroup = (id: number) => id >= 150 && id <= 153
    const setup: Setup = (id) => ({ keyedGroup: inGroup(id) ? -1 : id, hasBloomFilter: !inGroup(id) })
    assert.notInclude([150, 151, 152, 153], selectKeyed(idle(189, setup)))
    assert.strictEqual(selectKeyed(idle(189, (id) => ({ ...setup(id), hasBloomFilter: false }))), 153)
    assert.notInclude(
      [150, 151, 152, 153],
      selectKeyed(idle(189, (id) => ({ ...setup(id), hasBloomFilter: false, relaysTransactions: inGroup(id) })))
    )
  })
})

describe("the key of the groups", () => {
  /** 40 peers that differ in their groups and ages only; all groups have one member. */
  const plain = (count: number): ReadonlyArray<Candidate<string>> =>
    Array.from({ length: count }, (_, id) => ({
      id: `peer ${id}`,
      kind: "inbound",
      noban: false,
      connectedAt: 1_000 * id,
      minimumPing: id,
      lastBlockAt: 0,
      lastTransactionAt: 0,
      hasRelevantServices: true,
      relaysTransactions: true,
      hasBloomFilter: false,
      group: `01${id.toString(16).padStart(4, "0")}`,
      preferEvict: false,
      isLocal: false,
      network: "ipv4"
    }))

  it("decides which groups are protected", () => {
    // Without protection by group the youngest peer of all goes. Under some keys it is one of 4 in 40 that are protected.
    const chosen = Array.from({ length: 100 }, (_, k) => selectToEvict(plain(40), [k, 2, 3, 4]))
    const spared = chosen.filter((id) => id !== "peer 39").length
    assert.isAbove(spared, 0)
    assert.isBelow(spared, 30)
  })

  it("keeps peers of one group together", () => {
    const crowded = plain(60).map((one, id) =>
      id >= 40 && id < 50 ? Object.assign({}, one, { group: "020102" }) : one
    )
    const chosen = Array.from({ length: 20 }, (_, k) => selectToEvict(crowded, [k, 2, 3, 4]))
    // Unless its hash is among the 4 highest, in which case 4 of its members are protected: it is still the largest.
    assert.isTrue(chosen.every((id) => Number(id!.slice(5)) >= 40 && Number(id!.slice(5)) < 50))
  })
})

/** The same choice by sorting all candidates at each step, as Core does it, for candidates that differ in everything. */
const slowly = (of: ReadonlyArray<KeyedCandidate<number>>): number | undefined => {
  type One = KeyedCandidate<number>
  let left = [...of]
  /** `rank` has the most important property first. The `count` highest are protected if `only` holds for them. */
  const protect = (
    count: number,
    rank: (one: One) => ReadonlyArray<number>,
    only: (one: One) => boolean = () => true
  ) => {
    left.sort((a, b) => {
      const [x, y] = [rank(a), rank(b)]
      const at = x.findIndex((value, i) => value !== y[i])
      return at < 0 ? 0 : x[at]! - y[at]!
    })
    const cut = Math.max(0, left.length - count)
    left = [...left.slice(0, cut), ...left.slice(cut).filter((one) => !only(one))]
  }
  protect(4, (one) => [one.keyedGroup])
  protect(8, (one) => [-one.minimumPing])
  protect(4, (one) => [one.lastTransactionAt])
  protect(
    8,
    (one) => [one.relaysTransactions ? 0 : 1, one.lastBlockAt],
    (one) => !one.relaysTransactions && one.hasRelevantServices
  )
  protect(4, (one) => [one.lastBlockAt])
  const half = Math.floor(left.length / 2)
  const quarter = Math.floor(half / 2)
  const before = left.length
  const isIn = [
    (one: One) => one.network === "cjdns",
    (one: One) => one.network === "i2p",
    (one: One) => one.isLocal,
    (one: One) => one.network === "onion"
  ]
  const counted = isIn.map((is) => ({ is, count: left.filter(is).length })).toSorted((a, b) => a.count - b.count)
  for (;;) {
    const start = left.length
    const present = counted.filter(({ count }) => count > 0).length
    if (before - start >= quarter || present === 0) break
    const each = Math.max(1, Math.floor((quarter - (before - start)) / present))
    for (const network of counted) {
      if (network.count === 0) continue
      const had = left.length
      protect(each, (one) => [network.is(one) ? 1 : 0, -one.connectedAt], network.is)
      if (left.length === had) continue
      if (before - left.length >= quarter) break
      network.count -= had - left.length
    }
    if (left.length === start) break
  }
  protect(half - (before - left.length), (one) => [-one.connectedAt])
  if (left.some((one) => one.preferEvict)) left = left.filter((one) => one.preferEvict)
  const sizeOf = (one: One) => left.filter(({ keyedGroup }) => keyedGroup === one.keyedGroup).length
  return left.toSorted((a, b) => sizeOf(b) - sizeOf(a) || b.connectedAt - a.connectedAt)[0]?.id
}

describe("the same choice by sorting", () => {
  it("is made of any candidates", () => {
    for (let round = 0; round < 500; round++) {
      const count = random.below(120)
      const order = () => shuffle(random, [...upTo(count)])
      const [ages, pings, blocks, transactions] = [order(), order(), order(), order()]
      const all = candidates(count, (id) => ({
        connectedAt: ages[id]!,
        minimumPing: pings[id]!,
        lastBlockAt: 1_000 * blocks[id]!,
        lastTransactionAt: 1_000 * transactions[id]!,
        // Ties of this order are broken by chance: no two of the highest groups are the same.
        keyedGroup: id < 8 ? 100 + id : random.below(20),
        preferEvict: random.below(10) === 0
      }))
      assert.strictEqual(selectKeyed(all), slowly(all), `round ${round}`)
    }
  })
})
