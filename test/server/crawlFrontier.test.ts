/** The frontier of a crawl as a machine: what to visit, when, and what is kept. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { Address } from "effect-bitcoin-peer"
import { makeRandom } from "../../src/server/internal/random.ts"
import {
  CrawlFrontier,
  type Entry,
  type Outcome,
  type Settings,
  type Told,
  type Tracked
} from "../../src/server/internal/crawlFrontier.ts"
import { DueQueue } from "../../src/server/internal/crawlQueue.ts"

const hour = 3_600_000
const start = Date.UTC(2026, 0, 1)
const startSeconds = start / 1000

const settings = (fields: Partial<Settings> = {}): Settings => ({
  maximumAddresses: 1_000,
  concurrency: { ipv4: 64, ipv6: 64, onion: 64, i2p: 64, cjdns: 64, not_publicly_routable: 64 },
  perSubnet: 2,
  rate: 1e6,
  revisit: hour,
  once: false,
  allowUnroutable: false,
  isBanned: () => false,
  ...fields
})

const told = (text: string, timestamp = startSeconds): Told => ({
  ...Result.getOrThrow(Address.parse(text)),
  services: 9n,
  timestamp
})
/** An address of a /24 of its own, below 65,536. */
const apart = (index: number): Told => told(`8.${index >> 8}.${index & 255}.1:8333`)
const text = ({ address }: Entry): string => Address.format(address)
const texts = (entries: ReadonlyArray<Entry>): ReadonlyArray<string> => entries.map(text)

const reached: Outcome = {
  _tag: "Reached",
  services: 1033n,
  node: { protocolVersion: 70016, userAgent: "/x/", startHeight: 7, transport: "v1" }
}
const failed: Outcome = { _tag: "Failed", problem: "Refused" }

const finish = (frontier: CrawlFrontier, entries: ReadonlyArray<Tracked>, outcome: Outcome = reached): void => {
  for (const entry of entries) {
    frontier.record(entry, outcome)
    frontier.release(entry)
  }
}

describe("the queue", () => {
  it("gives values in the order of their times, equal times in the order of arrival, none before its time", () => {
    const random = makeRandom(new Uint8Array(16))
    const queue = new DueQueue<readonly [number, number]>()
    const all = Array.from({ length: 1_000 }, (_, order) => [random.below(50), order] as const)
    for (const value of all) queue.add(value[0], value)
    const taken: Array<readonly [number, number]> = []
    for (let now = 0; now < 50; now++) {
      for (let value = queue.take(now); value !== undefined; value = queue.take(now)) {
        assert.strictEqual(value[0], now)
        taken.push(value)
      }
    }
    assert.deepStrictEqual(
      taken,
      all.toSorted((one, other) => one[0] - other[0] || one[1] - other[1])
    )
    assert.strictEqual(queue.firstAt, Infinity)
  })
})

describe("what is visited", () => {
  it("new addresses at once, in the order in which they came, each by one visit", () => {
    const frontier = new CrawlFrontier(settings())
    const all = Array.from({ length: 10 }, (_, index) => apart(index))
    assert.strictEqual(frontier.add(all, start).added.length, 10)
    assert.strictEqual(frontier.add(all, start).added.length, 0)
    assert.deepStrictEqual(texts(frontier.claim(start)), all.map(Address.format))
    assert.deepStrictEqual(frontier.claim(start), [])
    assert.deepStrictEqual(frontier.counts, { known: 10, waiting: 0, visiting: 10, reached: 0, failed: 0, refused: 0 })
  })

  it("as many of a network at once as it allows, and none of a network with 0", () => {
    const concurrency = { ...settings().concurrency, ipv4: 3, ipv6: 0 }
    const frontier = new CrawlFrontier(settings({ concurrency }))
    frontier.add([...Array.from({ length: 10 }, (_, index) => apart(index)), told("[2a00::1]:8333")], start)
    const first = frontier.claim(start)
    assert.strictEqual(first.length, 3)
    assert.strictEqual(frontier.wakeAt(), Infinity)
    finish(frontier, first.slice(0, 1))
    assert.strictEqual(frontier.claim(start).length, 1)
    assert.strictEqual(frontier.counts.known, 11)
  })

  it("two of a /24, and two of a /64", () => {
    const frontier = new CrawlFrontier(settings())
    frontier.add(
      Array.from({ length: 6 }, (_, index) => told(`8.8.8.${index + 1}:8333`)),
      start
    )
    frontier.add(
      Array.from({ length: 6 }, (_, index) => told(`[2a00::${index + 1}]:8333`)),
      start
    )
    let running = frontier.claim(start)
    assert.deepStrictEqual(texts(running), ["8.8.8.1:8333", "[2a00::1]:8333", "8.8.8.2:8333", "[2a00::2]:8333"])
    const seen = [...texts(running)]
    while (running.length > 0) {
      finish(frontier, running.slice(0, 1))
      const next = frontier.claim(start)
      assert.isAtMost(next.length, 1)
      seen.push(...texts(next))
      running = [...running.slice(1), ...next]
    }
    assert.strictEqual(new Set(seen).size, 12)
    assert.strictEqual(seen.length, 12)
  })

  it("one address of a host at a time", () => {
    const frontier = new CrawlFrontier(settings({ perSubnet: 8 }))
    frontier.add([told("8.8.8.8:1"), told("8.8.8.8:2"), told("8.8.8.9:1")], start)
    const first = frontier.claim(start)
    assert.deepStrictEqual(texts(first), ["8.8.8.8:1", "8.8.8.9:1"])
    finish(frontier, first.slice(0, 1))
    assert.deepStrictEqual(texts(frontier.claim(start)), ["8.8.8.8:2"])
  })

  it("fifty a second, in all networks together, with at most a tenth of a second of them at once", () => {
    const frontier = new CrawlFrontier(settings({ rate: 50, maximumAddresses: 10_000 }))
    for (let index = 0; index < 2_000; index++) {
      frontier.add([apart(index), told(`[2a00:0:${index.toString(16)}::1]:8333`)], start)
    }
    const ends = start + 10_000
    let now = start
    let networks = new Set<number>()
    const at: Array<number> = []
    while (now < ends) {
      const claimed = frontier.claim(now)
      finish(frontier, claimed)
      for (const { address } of claimed) {
        at.push(now)
        networks = networks.add(address.networkId)
      }
      now = Math.max(now + 1, Math.ceil(frontier.wakeAt()))
    }
    assert.isAtLeast(at.length, 500)
    assert.isAtMost(at.length, 506)
    for (const [index, time] of at.entries()) assert.isAbove((at[index + 56] ?? Infinity) - time, 999)
    assert.strictEqual(networks.size, 2)
  })

  it("a second dial of a visit counts for the rate", () => {
    const frontier = new CrawlFrontier(settings({ rate: 1 }))
    frontier.add([apart(1), apart(2)], start)
    assert.strictEqual(frontier.claim(start).length, 1)
    frontier.countDial(start)
    // A tenth of a second less: a late timer catches up with that much.
    assert.strictEqual(frontier.claim(start + 1_899).length, 0)
    assert.strictEqual(frontier.claim(start + 1_900).length, 1)
  })

  it("again an hour after the start of the visit; after failures in 1, 2, 4 … hours, up to a day", () => {
    const frontier = new CrawlFrontier(settings())
    frontier.add([apart(1)], start)
    let now = start
    const visit = (outcome: Outcome, took: number): void => {
      const [entry] = frontier.claim(now)
      assert.isDefined(entry)
      now += took
      finish(frontier, [entry!], outcome)
    }
    const waits = (millis: number): void => {
      assert.strictEqual(frontier.wakeAt(), now - 70_000 + millis)
      assert.deepStrictEqual(frontier.claim(now - 70_000 + millis - 1), [])
      now += millis - 70_000
    }
    visit(reached, 70_000)
    waits(hour)
    for (const hours of [1, 2, 4, 8, 16, 24, 24]) {
      visit(failed, 70_000)
      waits(hours * hour)
    }
    visit(reached, 70_000)
    waits(hour)
    assert.deepInclude(Array.from(frontier.all())[0], { visits: 9, successes: 2, failures: 0, state: "reached" })
  })

  it("each address once, if that is asked", () => {
    const frontier = new CrawlFrontier(settings({ once: true }))
    frontier.add([apart(1), apart(2)], start)
    assert.isFalse(frontier.isOver)
    const [first, second] = frontier.claim(start)
    finish(frontier, [first!])
    frontier.add([apart(1), apart(3)], start)
    frontier.record(second!, failed)
    assert.isFalse(frontier.isOver)
    frontier.release(second!)
    finish(frontier, frontier.claim(start))
    assert.isTrue(frontier.isOver)
    assert.deepStrictEqual(frontier.claim(start + 100 * hour), [])
  })

  it("no host that is banned, also if it was banned later", () => {
    let banned = "8.0.1.1"
    const isBanned = (host: Address.Host): boolean => Address.formatHost(host) === banned
    for (const once of [true, false]) {
      banned = "8.0.1.1"
      const frontier = new CrawlFrontier(settings({ isBanned, once }))
      assert.strictEqual(frontier.add([apart(1), apart(2), apart(3)], start).added.length, 2)
      banned = "8.0.2.1"
      const claimed = frontier.claim(start)
      assert.deepStrictEqual(texts(claimed), ["8.0.3.1:8333"])
      finish(frontier, claimed)
      assert.strictEqual(frontier.isOver, once)
    }
  })
})

describe("what is kept", () => {
  it("routable addresses with a port; others if that is allowed", () => {
    const all = ["127.0.0.1:8333", "10.0.0.1:8333", "8.8.8.8:0", "[fe80::1]:8333", "0.0.0.0:8333"].map((one) =>
      told(one)
    )
    assert.deepStrictEqual(new CrawlFrontier(settings()).add(all, start).added, [])
    const allowing = new CrawlFrontier(settings({ allowUnroutable: true }))
    assert.deepStrictEqual(texts(allowing.add(all, start).added), ["127.0.0.1:8333", "10.0.0.1:8333", "[fe80::1]:8333"])
  })

  it("8 ports of a host, 8 addresses of a /64", () => {
    const frontier = new CrawlFrontier(settings())
    const ports = Array.from({ length: 100 }, (_, index) => told(`8.8.8.8:${index + 1}`))
    const customer = Array.from({ length: 100 }, (_, index) => told(`[2a00::${index + 1}]:8333`))
    assert.strictEqual(frontier.add([...ports, ...customer], start).added.length, 16)
  })

  it("an address of the future as one of five days ago; a newer time of a known one", () => {
    const frontier = new CrawlFrontier(settings())
    const at = (time: number): number => frontier.add([told("8.8.8.8:8333", time)], start).added.length
    assert.strictEqual(at(0xffffffff), 1)
    const [entry] = Array.from(frontier.all())
    assert.strictEqual(entry!.seenAt, startSeconds - 5 * 86_400)
    at(startSeconds + 600)
    assert.strictEqual(entry!.seenAt, startSeconds + 600)
    at(startSeconds + 601)
    assert.strictEqual(entry!.seenAt, startSeconds + 600)
  })

  it("no more than its limit; one that failed makes room, once it could be visited again", () => {
    const frontier = new CrawlFrontier(settings({ maximumAddresses: 3 }))
    frontier.add([apart(1), apart(2), apart(3)], start)
    const [first, second, third] = frontier.claim(start)
    finish(frontier, [first!], reached)
    finish(frontier, [second!, third!], failed)
    assert.deepStrictEqual(frontier.add([apart(4)], start + hour - 1), { added: [], removed: [] })
    const { added, removed } = frontier.add([apart(5), apart(6), apart(7)], start + hour)
    assert.deepStrictEqual(texts(added), ["8.0.5.1:8333", "8.0.6.1:8333"])
    assert.deepStrictEqual(texts(removed), ["8.0.2.1:8333", "8.0.3.1:8333"])
    assert.deepStrictEqual(frontier.counts, { known: 3, waiting: 5, visiting: 0, reached: 1, failed: 0, refused: 2 })
    // The dropped ones are not visited any more.
    assert.deepStrictEqual(texts(frontier.claim(start + 2 * hour)), ["8.0.1.1:8333", "8.0.5.1:8333", "8.0.6.1:8333"])
  })

  it("a million addresses of one source: the limit of them", () => {
    const frontier = new CrawlFrontier(settings({ maximumAddresses: 5_000 }))
    for (let index = 0; index < 1_000_000; index += 1_000) {
      const flood = Array.from({ length: 1_000 }, (_, offset): Told => {
        const number = index + offset
        return {
          networkId: 1,
          address: Uint8Array.of(20 + (number >> 16), number >> 8, number, 1),
          port: 8333,
          services: 1n,
          timestamp: startSeconds
        }
      })
      frontier.add(flood, start)
    }
    assert.deepInclude(frontier.counts, { known: 5_000, refused: 995_000 })
  })
})

describe("a crawl that goes on", () => {
  it("visits no address again within its hour, and loses none: reached, failed, interrupted", () => {
    const before = new CrawlFrontier(settings())
    before.add([apart(1), apart(2), apart(3), apart(4)], start)
    const concurrent = before.claim(start)
    finish(before, concurrent.slice(0, 1), reached)
    finish(before, concurrent.slice(1, 2), failed)
    before.add([apart(5)], start)
    const saved = Array.from(before.all(), (entry) => ({ ...entry }))
    assert.deepStrictEqual(
      saved.map(({ state }) => state),
      ["reached", "failed", "visiting", "visiting", "new"]
    )
    for (const once of [true, false]) {
      const after = new CrawlFrontier(settings({ once }))
      after.restore(saved, start + 60_000)
      assert.deepStrictEqual(texts(after.claim(start + 60_000)), ["8.0.5.1:8333"])
      // Of those that are visited once, the two visits that were cut short are left.
      assert.deepInclude(after.counts, { known: 5, reached: 1, failed: 1, waiting: once ? 2 : 4 })
      assert.deepStrictEqual(after.claim(start + hour - 1), [])
      assert.isFalse(after.isOver)
      assert.strictEqual(after.claim(start + hour).length, once ? 2 : 4)
    }
    const later = new CrawlFrontier(settings({ once: true }))
    later.restore(saved, start + hour)
    assert.strictEqual(later.claim(start + hour).length, 5)
  })

  it("keeps which failed longest ago", () => {
    const frontier = new CrawlFrontier(settings({ maximumAddresses: 2 }))
    const entry = (index: number, visitedAt: number): Entry => ({
      ...Array.from(new CrawlFrontier(settings()).add([apart(index)], start).added)[0]!,
      state: "failed",
      failures: 1,
      visits: 1,
      visitedAt,
      dueAt: visitedAt + hour
    })
    frontier.restore([entry(1, start - 2 * hour), entry(2, start - hour)], start)
    assert.deepStrictEqual(texts(frontier.add([apart(3)], start).removed), ["8.0.1.1:8333"])
  })
})

describe("random crawls", () => {
  for (let seed = 0; seed < 10; seed++) {
    it(`hold all limits and leave out no address (seed ${seed})`, () => {
      const random = makeRandom(new Uint8Array(16).fill(seed))
      const concurrency = { ...settings().concurrency, ipv4: 5, ipv6: 3 }
      const frontier = new CrawlFrontier(settings({ concurrency, rate: 200, maximumAddresses: 150, revisit: hour }))
      const lastVisit = new Map<string, number>()
      const running: Array<Tracked> = []
      let now = start
      for (let step = 0; step < 2_000; step++) {
        if (random.below(4) === 0) {
          const n = random.below(4)
          const text =
            random.below(3) === 0
              ? `[2a00:0:0:${n}::${random.below(6) + 1}]:8333`
              : `8.8.${n}.${random.below(20) + 1}:${random.below(3) + 1}`
          frontier.add([told(text)], now)
        }
        for (const entry of frontier.claim(now)) {
          assert.isAtLeast(now - (lastVisit.get(text(entry)) ?? -Infinity), hour)
          lastVisit.set(text(entry), now)
          running.push(entry)
        }
        const hosts = running.map(({ address }) => Address.formatHost(address))
        assert.strictEqual(new Set(hosts).size, hosts.length)
        for (let n = 0; n < 4; n++) {
          assert.isAtMost(hosts.filter((host) => host.startsWith(`8.8.${n}.`)).length, 2)
        }
        assert.isAtMost(running.filter(({ address }) => address.networkId === 1).length, 5)
        assert.isAtMost(running.filter(({ address }) => address.networkId === 2).length, 3)
        assert.strictEqual(frontier.counts.visiting, running.length)
        assert.isAtMost(frontier.counts.known, 150)
        if (random.below(2) === 0 && running.length > 0) {
          const [entry] = running.splice(random.below(running.length), 1)
          finish(frontier, [entry!], random.below(3) === 0 ? reached : failed)
        }
        now += random.below(20) === 0 ? random.below(2 * hour) : random.below(50)
      }
      // Without new addresses each of those that are known gets its turn.
      finish(frontier, running.splice(0))
      const due = now + 25 * hour
      const claimed = new Set<string>()
      for (let at = due; at < due + 20_000; at += 10) {
        const entries = frontier.claim(at)
        for (const entry of entries) claimed.add(text(entry))
        finish(frontier, entries)
      }
      assert.strictEqual(claimed.size, frontier.counts.known)
    })
  }
})
