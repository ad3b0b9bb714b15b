import { assert, describe, it } from "@effect/vitest"
import * as Address from "../../src/Address.ts"
import type { AddressRelay } from "../../src/server/internal/addressRelay.ts"
import * as Permissions from "../../src/server/Permissions.ts"
import { type Addr, Service } from "../../src/Wire.ts"
import {
  address,
  at,
  day,
  entries,
  entry,
  full,
  minute,
  network,
  onion,
  range,
  receivers,
  rig,
  second,
  start,
  text,
  v2
} from "../support/addressRelay.ts"

describe("getaddr that we send", () => {
  it.each([
    ["outbound-full-relay", true],
    ["manual", true],
    ["addr-fetch", true],
    ["block-relay-only", false],
    ["feeler", false],
    ["private-broadcast", false],
    ["inbound", false]
  ] as const)("to %s: %s", (kind, sent) => {
    assert.strictEqual(rig().add(1, kind), sent)
  })
})

describe("addresses of a peer", () => {
  it.each(["block-relay-only", "feeler", "private-broadcast"] as const)("that is %s are ignored", (kind) => {
    const { add, relay, stored } = rig()
    add(1, kind)
    assert.deepStrictEqual(relay.received(1, v2(entries(1_001)), start), { _tag: "Ignored" })
    assert.deepStrictEqual(relay.received(1, v2(entries(1)), start), { _tag: "Ignored" })
    assert.deepStrictEqual(stored, [])
    assert.isFalse(relay.counters(1)?.addr_relay_enabled)
  })

  it("are at most 1,000 in a message", () => {
    const { add, relay, stored } = rig()
    add(1)
    const received = relay.received(1, v2(entries(1_001)), start)
    assert.strictEqual(received._tag, "Misbehaved")
    assert.deepStrictEqual(stored, [])
    assert.strictEqual(relay.received(1, v2(entries(1_000)), start)._tag, "Taken")
    assert.strictEqual(stored[0]?.entries.length, 1_000)
  })

  it("are stored with the sender as their source, 2 hours older", () => {
    const { add, relay, stored } = rig()
    add(1)
    relay.received(1, v2([entry("11.1.1.1")]), start)
    assert.deepStrictEqual(stored, [{ entries: [entry("11.1.1.1")], source: address("9.9.9.1"), penalty: 7_200_000 }])
  })

  it("are stored only where we can dial", () => {
    const { add, relay, stored } = rig({ isReachable: ({ networkId }) => networkId === Address.NetworkId.torV3 })
    add(1)
    relay.received(1, v2([entry("11.1.1.1"), entry(onion)]), start)
    assert.deepStrictEqual(stored[0]?.entries.map(text), [onion])
    assert.strictEqual(relay.counters(1)?.addr_processed, 2)
  })

  it("are skipped without the services of a full node", () => {
    const { add, relay, stored } = rig({ desirableServices: Service.witness | Service.compactFilters })
    add(1)
    const services = [
      0n,
      Service.witness,
      Service.network,
      Service.networkLimited,
      Service.witness | Service.compactFilters,
      Service.compactFilters
    ]
    relay.received(1, v2(services.map((services, i) => entry(`11.1.1.${i}`, { services }))), start)
    assert.sameMembers(stored[0]!.entries.map(text), ["11.1.1.2:8333", "11.1.1.3:8333", "11.1.1.4:8333"])
    assert.strictEqual(relay.counters(1)?.addr_processed, 3)
    assert.strictEqual(relay.counters(1)?.addr_rate_limited, 0)
  })

  it("that cannot have been seen then count as 5 days old", () => {
    const { add, relay, stored } = rig()
    add(1)
    const times = [0, 100_000_000, 100_000_001, at, at + 600, at + 601, 0xffffffff]
    relay.received(1, v2(times.map((timestamp, i) => entry(`11.1.1.${i}`, { timestamp }))), start)
    const old = at - 432_000
    const seen = new Map(stored[0]!.entries.map((one) => [text(one), one.timestamp]))
    assert.deepStrictEqual(
      times.map((_, i) => seen.get(`11.1.1.${i}:8333`)),
      [old, old, 100_000_001, at, at + 600, old, old]
    )
  })

  it("that are banned or discouraged are known to the sender, and nothing more", () => {
    let refused = true
    const { add, queued, relay, stored } = rig({ isRefused: () => refused })
    for (const id of [0, 1, 2]) add(id)
    for (const id of [0, 1]) relay.received(id, v2([]), start)
    relay.received(0, v2([entry("11.1.1.66")]), start)
    assert.deepStrictEqual(stored, [])
    assert.deepStrictEqual(queued(1), [])
    assert.strictEqual(relay.counters(0)?.addr_processed, 0)
    refused = false
    relay.received(1, v2([entry("11.1.1.66")]), start)
    assert.deepStrictEqual([queued(0), queued(2)], [[], ["11.1.1.66:8333"]])
  })

  it("of version 1 are read as IPv4 and IPv6, and Tor v2 is not relayed", () => {
    const { add, queued, relay, stored } = rig()
    for (const id of [0, 1]) add(id)
    relay.received(0, v2([]), start)
    const v1 = (bytes: Uint8Array) => ({ address: bytes, port: 8333, services: full, timestamp: at })
    const message: Addr = {
      _tag: "addr",
      addresses: [
        v1(Address.toBytes(address("11.1.1.1"))!),
        v1(Address.toBytes(address("[2a01::1]:8333"))!),
        v1(Uint8Array.of(0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
      ]
    }
    assert.strictEqual(relay.received(0, message, start)._tag, "Taken")
    assert.sameMembers([...queued(1)], ["11.1.1.1:8333", "[2a01::1]:8333"])
    assert.strictEqual(stored[0]?.entries.length, 3)
  })

  it("end an addr-fetch, unless the peer only announces itself", () => {
    const { add, relay } = rig()
    add(1, "addr-fetch")
    add(2)
    assert.deepStrictEqual(relay.received(1, v2(entries(1)), start), { _tag: "Taken", isDone: false })
    assert.deepStrictEqual(relay.received(1, v2(entries(2)), start), { _tag: "Taken", isDone: true })
    assert.deepStrictEqual(relay.received(2, v2(entries(2)), start), { _tag: "Taken", isDone: false })
  })
})

describe("the rate of addresses", () => {
  const counts = (relay: AddressRelay, id: number) => {
    const { addr_processed, addr_rate_limited } = relay.counters(id)!
    return [addr_processed, addr_rate_limited]
  }

  it("is 1 at first, then 1 in 10 seconds, for a peer that connected to us", () => {
    const { add, relay, stored } = rig()
    add(1, "inbound")
    relay.received(1, v2(entries(10)), start)
    assert.deepStrictEqual(counts(relay, 1), [1, 9])
    relay.received(1, v2(entries(10)), start + 9_999)
    assert.deepStrictEqual(counts(relay, 1), [1, 19])
    relay.received(1, v2(entries(10)), start + 35_000)
    assert.deepStrictEqual(counts(relay, 1), [4, 26])
    assert.strictEqual(stored.flatMap(({ entries }) => entries).length, 4)
  })

  it("saves up to 1,000", () => {
    const { add, relay } = rig()
    add(1, "inbound")
    relay.received(1, v2(entries(1_000)), start + 30 * day)
    relay.received(1, v2(entries(10)), start + 30 * day)
    assert.deepStrictEqual(counts(relay, 1), [1_000, 10])
  })

  it("is 1,000 more at our getaddr, above which nothing is saved", () => {
    const { add, relay } = rig()
    add(1)
    // 1,001 tokens stay 1,001, for however long.
    relay.received(1, v2(entries(1_000)), start + 30 * day)
    relay.received(1, v2(entries(10)), start + 30 * day)
    assert.deepStrictEqual(counts(relay, 1), [1_001, 9])
  })

  it("takes those it takes by chance", () => {
    const kept = range(0, 99).map((seed) => {
      const { add, relay, stored } = rig({}, seed)
      add(1, "inbound")
      relay.received(1, v2(entries(10)), start)
      return text(stored[0]!.entries[0]!)
    })
    assert.strictEqual(new Set(kept).size, 10)
  })

  it("does not hold for the permission addr", () => {
    const { add, relay } = rig()
    add(1, "inbound", { permissions: Permissions.of("addr") })
    for (let i = 0; i < 3; i++) relay.received(1, v2(entries(1_000)), start)
    assert.deepStrictEqual(counts(relay, 1), [3_000, 0])
  })

  it("bounds what 1,000,000 addresses of one source leave in memory", () => {
    const { add, relay, stored } = rig()
    add(1, "inbound")
    const spam = v2(entries(1_000))
    for (let i = 0; i < 1_000; i++) relay.received(1, spam, start + i * second)
    assert.strictEqual(stored.flatMap(({ entries }) => entries).length, 100)
    assert.strictEqual(relay.counters(1)!.addr_rate_limited, 999_900)
  })
})

describe("relaying", () => {
  it("takes an address to 2 other peers", () => {
    const one = network(20)
    one.relay.received(0, v2([entry("11.1.1.1")]), start)
    assert.lengthOf(receivers(one, range(0, 20)), 2)
    assert.deepStrictEqual(one.queued(0), [])
  })

  it("takes each address to others", () => {
    const one = network(20)
    const met = new Set<number>()
    for (let i = 0; i < 50; i++) {
      one.relay.received(0, v2([entry(`11.1.${i}.1`)]), start)
      for (const id of receivers(one, range(1, 20))) met.add(id)
    }
    assert.isAtLeast(met.size, 15)
  })

  it("takes it to the same two for 24 hours, so that repeating gains nothing", () => {
    const fresh = (now: number) => {
      const one = network(20)
      one.relay.received(0, v2([entry("11.1.1.1", { timestamp: now / second })]), now)
      return receivers(one, range(1, 20)).join()
    }
    const hours = range(0, 47).map((hour) => fresh(start + hour * 3_600 * second))
    // It changes once in a day, at a moment of its own.
    const changes = hours.filter((chosen, i) => i > 0 && chosen !== hours[i - 1])
    assert.isAtLeast(changes.length, 1)
    assert.isAtMost(changes.length, 2)
    const days = range(0, 9).map((one) => fresh(start + one * day))
    assert.isAbove(new Set(days).size, 5)
  })

  it("changes the peers of each address at another moment", () => {
    const change = (host: string): number => {
      const chosen = (hour: number) => {
        const one = network(20)
        const now = start + hour * 3_600 * second
        one.relay.received(0, v2([entry(host, { timestamp: now / second })]), now)
        return receivers(one, range(1, 20)).join()
      }
      const first = chosen(0)
      return range(1, 24).find((hour) => chosen(hour) !== first) ?? 0
    }
    assert.isAbove(new Set(range(1, 10).map((i) => change(`11.1.${i}.1`))).size, 4)
  })

  it("depends on a secret", () => {
    const chosen = range(1, 20).map((seed) => {
      const one = network(20, {}, seed)
      one.relay.received(0, v2([entry("11.1.1.1")]), start)
      return receivers(one, range(1, 20)).join()
    })
    assert.isAbove(new Set(chosen).size, 10)
  })

  it("takes an address that we cannot reach to 1 or 2 peers", () => {
    const sizes = range(1, 60).map((i) => {
      const one = network(20, { isReachable: () => false })
      one.relay.received(0, v2([entry(`11.1.${i}.1`)]), start)
      return receivers(one, range(1, 20)).length
    })
    assert.isAbove(sizes.filter((size) => size === 1).length, 10)
    assert.isAbove(sizes.filter((size) => size === 2).length, 10)
    assert.strictEqual(sizes.filter((size) => size !== 1 && size !== 2).length, 0)
  })

  it.each([
    ["10 addresses of a message", 10, {}, 10],
    ["none of 11", 11, {}, 0],
    ["one seen 9 minutes ago", 1, { timestamp: at - 599 }, 1],
    ["none seen 10 minutes ago", 1, { timestamp: at - 600 }, 0],
    ["one of the next 10 minutes", 1, { timestamp: at + 600 }, 1],
    ["none of later, which counts as old", 1, { timestamp: at + 601 }, 0]
  ] as const)("takes %s", (_, count, fields, relayed) => {
    const one = network(2)
    one.relay.received(0, v2(entries(count, fields)), start)
    assert.strictEqual(one.relay.queued(1).length, relayed)
  })

  it("does not take what is not routable", () => {
    const one = network(2)
    one.relay.received(0, v2([entry("192.168.0.1"), entry("127.0.0.1")]), start)
    assert.deepStrictEqual(one.queued(1), [])
  })

  it("does not take the answer to our getaddr, which a message of fewer than 1,000 ends", () => {
    const one = rig()
    for (const id of [0, 1]) one.add(id)
    const send = (count: number) => one.relay.received(0, v2(entries(count)), start)
    send(1)
    assert.deepStrictEqual(one.queued(1), [])
    send(1)
    assert.lengthOf(one.queued(1), 1)

    const two = rig()
    for (const id of [0, 1]) two.add(id)
    two.relay.received(0, v2(entries(1_000)), start)
    two.relay.received(0, v2([entry("11.1.1.1")]), start)
    assert.deepStrictEqual(two.queued(1), [])
    two.relay.received(0, v2([entry("11.1.1.1")]), start + minute)
    assert.lengthOf(two.queued(1), 1)
  })

  it("takes Tor, I2P and CJDNS only to peers that asked for addrv2", () => {
    const one = rig()
    one.add(0)
    for (const id of range(1, 10)) one.add(id, "outbound-full-relay", { wantsV2: id === 7 })
    one.relay.received(0, v2([]), start)
    one.relay.received(0, v2([entry(onion), entry("[fc12::34]:8333")]), start)
    assert.deepStrictEqual(receivers(one, range(0, 10)), [7])
    assert.lengthOf(one.queued(7), 2)
  })

  it("leaves out inbound peers that have sent nothing about addresses, and block-relay", () => {
    const one = rig()
    one.add(0)
    one.add(1, "inbound")
    one.add(2, "block-relay-only")
    one.add(3, "feeler")
    one.add(4, "inbound")
    one.add(5, "inbound")
    one.relay.received(0, v2([]), start)
    one.relay.received(4, v2([]), start)
    one.relay.getaddr(5, start)
    one.relay.received(0, v2([entry("11.1.1.1")]), start)
    assert.deepStrictEqual(receivers(one, range(0, 5)), [4, 5])
    assert.isFalse(one.relay.counters(1)?.addr_relay_enabled)
    assert.isTrue(one.relay.counters(5)?.addr_relay_enabled)
  })

  it("does not take to a peer what it has sent or was sent", () => {
    const one = network(1)
    one.relay.received(1, v2([entry("11.1.1.1")]), start)
    one.relay.received(0, v2([entry("11.1.1.1"), entry("11.1.1.2")]), start)
    assert.deepStrictEqual(one.queued(1), ["11.1.1.2:8333"])
    one.relay.tick(start + day)
    one.relay.received(0, v2([entry("11.1.1.2", { timestamp: (start + day) / second })]), start + day)
    assert.deepStrictEqual(one.queued(1), [])
  })

  it("does not take to a peer that has left", () => {
    const one = network(1)
    one.relay.remove(1)
    one.relay.received(0, v2([entry("11.1.1.1")]), start)
    assert.deepStrictEqual(one.relay.tick(start + day), [])
    assert.deepStrictEqual(one.relay.received(1, v2([]), start), { _tag: "Ignored" })
    assert.isUndefined(one.relay.counters(1))
  })
})
