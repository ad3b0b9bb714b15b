import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Result from "effect/Result"
import * as Address from "../../src/Address.ts"
import { ConnectionError } from "../../src/ConnectionError.ts"
import * as Peer from "../../src/Peer.ts"
import type { ConnectionKind } from "../../src/server/ConnectionKind.ts"
import * as Permissions from "../../src/server/Permissions.ts"
import * as Reputation from "../../src/server/Reputation.ts"

const host = (text: string): Address.Host => Result.getOrThrow(Address.parseHost(text))
const visitor = host("8.8.8.8")
const start = 1_700_000_000_000

const misbehaved = { by: "remote", retry: false, points: 100 } as const
const violated = { by: "remote", retry: false, points: 10 } as const

const track = (
  reputation: Reputation.Reputation,
  options: {
    readonly kind?: ConnectionKind
    readonly permissions?: Permissions.Permissions
    readonly host?: Address.Host
  } = {}
) => reputation.track({ kind: "inbound", permissions: Permissions.none, host: visitor, ...options })

describe("Score", () => {
  it("halves its transient part in a minute, and loses it", () => {
    const score = new Reputation.Score()
    assert.strictEqual(score.add(100, 50, start), 150)
    assert.strictEqual(score.at(start + 60_000), 125)
    assert.strictEqual(score.at(start + 7 * 60_000), 100)
  })

  it("has no transient part after 1,800 seconds", () => {
    const score = new Reputation.Score()
    score.add(0, 0xffffffff, start)
    // 3.99…: 2^32 - 1 halved 30 times.
    assert.strictEqual(score.at(start + 1_800_000), 3)
    assert.strictEqual(score.at(start + 1_801_000), 0)
  })

  it("begins with 0, and does not forget its persistent part", () => {
    const score = new Reputation.Score()
    assert.strictEqual(score.at(start), 0)
    score.add(100, 0, start)
    assert.strictEqual(score.at(start + 86_400_000), 100)
  })

  it("counts whole seconds", () => {
    const score = new Reputation.Score()
    score.add(0, 1_000, start)
    assert.strictEqual(score.at(start + 999), 1_000)
    assert.strictEqual(score.at(start + 1_000), Math.floor(1_000 * 2 ** (-1 / 60)))
  })

  it("brings the transient part up to date only when it is added to", () => {
    const score = new Reputation.Score()
    score.add(0, 40, start)
    assert.strictEqual(score.add(10, 0, start + 60_000), 50)
    assert.strictEqual(score.at(start + 60_000), 30)
    assert.strictEqual(score.add(0, 10, start + 60_000), 40)
    // A part of 1 or less does not decay when it is added to.
    const small = new Reputation.Score()
    small.add(0, 1, start)
    assert.strictEqual(small.add(0, 1, start + 120_000), 2)
    assert.strictEqual(small.add(0, 1, start + 120_000 + 1_801_000), 1)
  })

  it("is not larger before it was made: a clock that was set back", () => {
    const score = new Reputation.Score()
    score.add(5, 50, start)
    assert.strictEqual(score.at(start - 10_000), 5)
  })
})

/** Every reason that has nothing to do with misbehaviour. */
const innocent: ReadonlyArray<Parameters<typeof Peer.assess>[0]> = [
  { _tag: "RemoteClosed" },
  { _tag: "ConnectionLost", error: new ConnectionError({ reason: { _tag: "Reset", cause: undefined } }) },
  { _tag: "PingTimeout", after: Duration.minutes(20) },
  { _tag: "IdleTimeout", after: Duration.minutes(20) },
  { _tag: "WriteTimeout", after: Duration.minutes(20) },
  { _tag: "Stalled", command: "getdata", hash: undefined, after: Duration.minutes(2) },
  { _tag: "Requested", why: "evicted" },
  { _tag: "ScopeClosed" }
]

describe.each([
  ["core", Reputation.core],
  ["btcd", Reputation.btcd],
  ["none", Reputation.none]
] as const)("the policy %s", (_, policy) => {
  it("never takes a time-out, a stall or a closed connection for misbehaviour", () => {
    const reputation = new Reputation.Reputation(policy)
    const peer = track(reputation)
    for (let i = 0; i < 200; i++) {
      for (const reason of innocent) {
        const verdict = reputation.judge(peer, Peer.assess(reason), start)
        assert.deepStrictEqual(verdict, { end: false, discourage: false, retryAfter: undefined }, reason._tag)
      }
    }
    assert.strictEqual(reputation.size, 0)
    assert.strictEqual(peer.score.at(start), 0)
  })

  it.each([
    ["a manual peer", { kind: "manual" }],
    ["a peer with noban", { permissions: Permissions.of("noban") }],
    ["an address of this machine", { host: host("127.0.0.1") }],
    ["private broadcast", { kind: "private-broadcast" }]
  ] as const)("ends %s and never punishes it", (_, options) => {
    const reputation = new Reputation.Reputation(policy)
    for (let i = 0; i < 5; i++) {
      const peer = track(reputation, options)
      for (let j = 0; j < 5; j++) {
        const verdict = reputation.judge(peer, misbehaved, start)
        assert.isTrue(verdict.end)
        assert.isFalse(verdict.discourage)
        assert.isUndefined(verdict.ban)
      }
      const flood = reputation.offended(peer, { persistent: 1_000, transient: 0, reason: "flood" }, start)
      assert.isFalse(flood.discourage)
      assert.isUndefined(flood.ban)
    }
    assert.strictEqual(reputation.size, 0)
  })

  it("waits 5 minutes before a manual peer is dialled again that will not do", () => {
    const reputation = new Reputation.Reputation(policy)
    const manual = track(reputation, { kind: "manual" })
    const wrongNetwork = Peer.assess({ _tag: "WrongNetwork" } as Parameters<typeof Peer.assess>[0])
    assert.deepStrictEqual(reputation.judge(manual, wrongNetwork, start).retryAfter, Duration.minutes(5))
    assert.isUndefined(reputation.judge(manual, Peer.assess({ _tag: "RemoteClosed" }), start).retryAfter)
    assert.isUndefined(reputation.judge(track(reputation), wrongNetwork, start).retryAfter)
  })
})

describe("the policy core", () => {
  it("discourages at the first misbehaviour, and not for less", () => {
    const reputation = new Reputation.Reputation(Reputation.core)
    const peer = track(reputation)
    for (let i = 0; i < 20; i++) {
      assert.deepInclude(reputation.judge(peer, violated, start), { end: false, discourage: false })
    }
    assert.deepInclude(reputation.judge(peer, misbehaved, start), { end: true, discourage: true })
  })

  it("keeps no scores", () => {
    const reputation = new Reputation.Reputation(Reputation.core)
    const peer = track(reputation)
    const verdict = reputation.offended(peer, Reputation.offences.bloomFilter("filterload"), start)
    assert.deepStrictEqual(verdict, { end: false, discourage: false })
    assert.strictEqual(reputation.size, 0)
  })
})

describe("the policy none", () => {
  it("only ends", () => {
    const reputation = new Reputation.Reputation(Reputation.none)
    assert.deepInclude(reputation.judge(track(reputation), misbehaved, start), { end: true, discourage: false })
  })
})

describe("the policy btcd", () => {
  it("warns above 50, and bans above 100 for 24 hours", () => {
    const reputation = new Reputation.Reputation(Reputation.btcd)
    const peer = track(reputation)
    const add = (persistent: number) => reputation.offended(peer, { persistent, transient: 0, reason: "spam" }, start)
    assert.deepStrictEqual(add(50), { end: false, discourage: false })
    const warned = add(1)
    assert.isFalse(warned.end)
    assert.strictEqual(warned.warn, "the peer misbehaves: spam, its score is 51 of 100")
    assert.isUndefined(add(49).ban)
    const banned = add(1)
    assert.isTrue(banned.end)
    assert.isFalse(banned.discourage)
    assert.deepStrictEqual(banned.ban, { for: Duration.hours(24), reason: "spam" })
  })

  it("has other thresholds where they are set", () => {
    const reputation = new Reputation.Reputation(Reputation.btcdWith({ threshold: 10, banFor: "1 hour" }))
    const verdict = reputation.judge(track(reputation), misbehaved, start)
    assert.deepStrictEqual(verdict.ban?.for, Duration.hours(1))
  })

  it("adds 33 for a mempool: the fourth bans", () => {
    const reputation = new Reputation.Reputation(Reputation.btcd)
    const peer = track(reputation)
    const verdicts = Array.from({ length: 4 }, (_, i) =>
      reputation.offended(peer, Reputation.offences.mempool(), start + 500 * i)
    )
    assert.deepStrictEqual(
      verdicts.map(({ ban }) => ban !== undefined),
      [false, false, false, true]
    )
    // One in a minute is not too many: the score stays below 66.
    const patient = track(reputation, { host: host("9.9.9.9") })
    for (let i = 0; i < 100; i++) {
      assert.isFalse(reputation.offended(patient, Reputation.offences.mempool(), start + 60_000 * i).end)
    }
  })

  it("adds up to 99 for a getdata by its entries", () => {
    assert.strictEqual(Reputation.offences.getdata(50_000).transient, 99)
    assert.strictEqual(Reputation.offences.getdata(506).transient, 1)
    assert.strictEqual(Reputation.offences.getdata(505).transient, 0)
  })

  it("only warns when nothing is added", () => {
    const reputation = new Reputation.Reputation(Reputation.btcd)
    const peer = track(reputation)
    reputation.offended(peer, Reputation.offences.bloomFilter("filterload"), start)
    const verdict = reputation.offended(peer, Reputation.offences.getdata(1), start)
    assert.isFalse(verdict.end)
    assert.include(verdict.warn, "100 of 100")
  })

  it("adds 20 for each block and 10 for each transaction that a notfound lacks", () => {
    assert.deepInclude(Reputation.offences.notFound(3, 4), { persistent: 60, transient: 40 })
  })

  it("bans at the second misbehaviour of 100 points, and at the eleventh violation of 10 within a minute", () => {
    const reputation = new Reputation.Reputation(Reputation.btcd)
    assert.isUndefined(reputation.judge(track(reputation), misbehaved, start).ban)
    // On another connection.
    assert.isDefined(reputation.judge(track(reputation), misbehaved, start + 1_000).ban)

    const other = host("9.9.9.9")
    const banned = Array.from(
      { length: 11 },
      (_, i) => reputation.judge(track(reputation, { host: other }), violated, start + i).ban !== undefined
    )
    assert.deepStrictEqual(banned.indexOf(true), 10)
  })

  it("remembers a host after its connection has ended, until it is banned", () => {
    const reputation = new Reputation.Reputation(Reputation.btcd)
    reputation.judge(track(reputation), misbehaved, start)
    assert.strictEqual(track(reputation).score.at(start), 100)
    reputation.judge(track(reputation), misbehaved, start)
    assert.strictEqual(track(reputation).score.at(start), 0)
    assert.strictEqual(reputation.size, 0)
  })

  it("has one score for all connections with a host", () => {
    const reputation = new Reputation.Reputation(Reputation.btcd)
    const first = track(reputation)
    reputation.judge(first, misbehaved, start)
    const second = track(reputation)
    assert.strictEqual(second.score, first.score)
    // IPv4 that is written as IPv6 is the same host.
    const mapped = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 8, 8, 8, 8)
    assert.strictEqual(track(reputation, { host: { networkId: 2, address: mapped } }).score, first.score)
  })

  it("does not remember more than 2,000 hosts, those of the last offences", () => {
    const reputation = new Reputation.Reputation(Reputation.btcd)
    const address = (i: number) => ({ networkId: 1, address: Uint8Array.of(9, 1, i >>> 8, i) })
    const offend = (i: number) => reputation.judge(track(reputation, { host: address(i) }), misbehaved, start)
    const held = track(reputation, { host: address(0) })
    reputation.judge(held, misbehaved, start)
    for (let i = 1; i < 10_000; i++) offend(i)
    assert.strictEqual(reputation.size, 2_000)
    assert.strictEqual(track(reputation, { host: address(7_999) }).score.at(start), 0)
    assert.strictEqual(track(reputation, { host: address(8_000) }).score.at(start), 100)
    // A peer keeps its score while it is connected.
    assert.isDefined(reputation.judge(held, misbehaved, start).ban)
  })
})
