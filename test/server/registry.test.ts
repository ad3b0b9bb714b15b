/** What a server dials next, and its slots. */
import { assert, describe, it } from "@effect/vitest"
import * as Address from "../../src/Address.ts"
import { type ConnectionKind } from "../../src/server/ConnectionKind.ts"
import { isName, type NetworkName, networkNameOf } from "../../src/server/Dialer.ts"
import { makeRandom } from "../../src/server/internal/random.ts"
import {
  type Action,
  type Book,
  desirable,
  type End,
  type Entry,
  type Limits,
  type Pick,
  Registry,
  type RegistryEvent
} from "../../src/server/internal/registry.ts"
import { dice } from "../support/dice.ts"

const services = 1n | 8n
const ip = (a: number, b: number, c = 1, port = 8333): Address.Address => ({
  networkId: Address.NetworkId.ipv4,
  address: Uint8Array.of(a, b, c, 1),
  port
})
const onion = (n: number): Address.Address => ({
  networkId: Address.NetworkId.torV3,
  address: new Uint8Array(32).fill(n),
  port: 8333
})
const pick = (address: Address.Address, more: Partial<Pick> = {}): Pick => ({ address, services, lastTry: 0, ...more })

/** A book that gives its addresses in turn, and keeps what it is told. */
const bookOf = (picks: ReadonlyArray<Pick>) => {
  const told: Array<string> = []
  let at = 0
  const book: Book = {
    select: (_, { networks }) => {
      const fitting = picks.filter(({ address }) => networks.has(networkNameOf(address)))
      return fitting[at++ % fitting.length]
    },
    collision: () => undefined,
    resolveCollisions: () => {},
    attempt: (address, counts) => void told.push(`attempt ${Address.format(address)} ${counts}`),
    good: (address) => void told.push(`good ${Address.format(address)}`),
    connected: (address) => void told.push(`connected ${Address.format(address)}`),
    setServices: () => {},
    hasNetwork: (network) => picks.some(({ address }) => networkNameOf(address) === network)
  }
  return { book, told }
}

const limits: Limits = {
  fullRelay: 8,
  blockRelay: 2,
  manual: 8,
  feelers: true,
  pendingDials: 4,
  dialsPerSecond: 1_000,
  dialBurst: 1_000
}
const failed: End = { isInterrupted: false, isLocal: false, retry: true }
const locally: End = { isInterrupted: false, isLocal: true, retry: true }
const interrupted: End = { isInterrupted: true, isLocal: true, retry: true }

const rig = (
  picks: ReadonlyArray<Pick>,
  changes: Partial<Limits> = {},
  networks: ReadonlyArray<NetworkName> = ["ipv4"],
  own?: Book
) => {
  const { book, told } = bookOf(picks)
  const events: Array<RegistryEvent> = []
  const banned = new Set<string>()
  const registry = new Registry({
    limits: { ...limits, ...changes },
    random: makeRandom(new Uint8Array(16)),
    book: own ?? book,
    reachable: new Set(networks),
    groupOf: Address.group,
    isAllowed: (address) => !banned.has(Address.format(address)),
    isBadPort: (port) => port === 22,
    requiredServices: desirable,
    emit: (event) => void events.push(event)
  })
  /** Dials until there is nothing to dial. */
  const dialAll = (now: number): Array<Entry> => {
    const dialled: Array<Entry> = []
    for (let action: Action; (action = registry.next(now))._tag === "Dial";) dialled.push(action.entry)
    return dialled
  }
  /** The same, and completes each handshake, so that pending dials are no limit. */
  const connectAll = (now: number): Array<Entry> => {
    const connected: Array<Entry> = []
    for (let action: Action; (action = registry.next(now))._tag === "Dial";) {
      registry.ready(action.entry.id, services, now)
      connected.push(action.entry)
    }
    return connected
  }
  return { registry, told, events, banned, dialAll, connectAll }
}

const kindsOf = (entries: ReadonlyArray<Entry>): Record<string, number> => {
  const counts: Record<string, number> = {}
  for (const { kind } of entries) counts[kind] = (counts[kind] ?? 0) + 1
  return counts
}
const shown = (entries: ReadonlyArray<Entry>): ReadonlyArray<string> =>
  entries.map(({ target }) => (isName(target) ? target.host : Address.format(target)))

const manyGroups = Array.from({ length: 40 }, (_, i) => pick(ip(50 + i, 1)))

describe("the slots of a server", () => {
  it("are 8 full-relay and 2 block-relay peers", () => {
    const { connectAll } = rig(manyGroups)
    assert.deepStrictEqual(kindsOf(connectAll(0)), { "outbound-full-relay": 8, "block-relay-only": 2 })
  })

  it("are dialled four at a time, and two at a time once two full-relay peers are connected", () => {
    const { dialAll, registry } = rig(manyGroups)
    const first = dialAll(0)
    assert.strictEqual(first.length, 4)
    registry.ready(first[0]!.id, services, 0)
    registry.ready(first[1]!.id, services, 0)
    assert.strictEqual(dialAll(0).length, 0)
    registry.ready(first[2]!.id, services, 0)
    assert.strictEqual(dialAll(0).length, 1)
  })

  it("equal the connections after every step, whatever ends and however", () => {
    const roll = dice(7)
    const { registry } = rig([...manyGroups, ...Array.from({ length: 5 }, (_, i) => pick(onion(i + 1)))], {}, [
      "ipv4",
      "onion"
    ])
    for (let i = 0; i < 4; i++) registry.added.add(ip(150 + i, 9), 0)
    const live = new Set<number>()
    let now = 0
    for (let step = 0; step < 5_000; step++) {
      now += roll.below(2_000)
      const action = registry.next(now)
      if (action._tag === "Dial") live.add(action.entry.id)
      if (roll.chance(0.2)) live.add(registry.accept(ip(9, roll.below(200)), now).id)
      const any = [...live][roll.below(live.size)]
      if (any !== undefined && roll.chance(0.6)) {
        if (roll.chance(0.5)) registry.ready(any, services, now)
        else {
          registry.ended(any, roll.pick([failed, locally, interrupted]), now)
          live.delete(any)
        }
      }
      const counted = kindsOf([...registry.entries.values()])
      for (const kind of ["outbound-full-relay", "block-relay-only", "feeler", "manual", "inbound"] as const) {
        assert.strictEqual(registry.count(kind), counted[kind] ?? 0)
      }
      assert.deepStrictEqual(new Set(registry.entries.keys()), live)
      assert.isAtMost(registry.count("outbound-full-relay"), 8)
      assert.isAtMost(registry.count("block-relay-only"), 2)
      assert.isAtMost(registry.count("feeler"), 1)
      assert.isAtMost(registry.count("manual"), 8)
    }
  })

  it("come free at once when a peer ends", () => {
    const { connectAll, registry } = rig(manyGroups)
    const [first] = connectAll(0)
    registry.ended(first!.id, failed, 1)
    assert.strictEqual(connectAll(1).length, 1)
  })
})

describe("an address of the book", () => {
  const onlyFirst = (picks: ReadonlyArray<Pick>, networks?: ReadonlyArray<NetworkName>) =>
    shown(rig(picks, { blockRelay: 0 }, networks).connectAll(0))

  it("is not dialled beside another one of its group, but onion services have no groups", () => {
    assert.deepStrictEqual(onlyFirst([pick(ip(60, 1, 1)), pick(ip(60, 1, 2)), pick(ip(61, 1))]), [
      "60.1.1.1:8333",
      "61.1.1.1:8333"
    ])
    assert.strictEqual(onlyFirst([pick(onion(1)), pick(onion(2))], ["onion"]).length, 2)
  })

  it("is not dialled while its group is being dialled", () => {
    const { dialAll } = rig([pick(ip(60, 1, 1)), pick(ip(60, 1, 2))])
    assert.strictEqual(dialAll(0).length, 1)
  })

  it("is dialled in the group of an inbound peer: everybody can make those", () => {
    const { connectAll, registry } = rig([pick(ip(60, 1, 1))])
    registry.accept(ip(60, 1, 200), 0)
    assert.strictEqual(connectAll(0).length, 1)
  })

  it("is not dialled when its host has a connection, inbound or at another port", () => {
    const { connectAll, registry } = rig([pick(ip(60, 1, 1))])
    registry.accept(ip(60, 1, 1, 50_000), 0)
    assert.deepStrictEqual(connectAll(0), [])
  })

  it("is not dialled if its network is not reachable, or if it is not allowed", () => {
    assert.deepStrictEqual(onlyFirst([pick(onion(1))]), [])
    const { banned, connectAll } = rig([pick(ip(60, 1, 1))])
    banned.add("60.1.1.1:8333")
    assert.deepStrictEqual(connectAll(0), [])
  })

  it("is passed over if it was tried in the last ten minutes, as long as there are others", () => {
    const now = 3_600_000
    const picks = [pick(ip(60, 1), { lastTry: now - 599_000 }), pick(ip(61, 1), { lastTry: now - 600_000 })]
    const { registry } = rig(picks)
    const first = registry.next(now)
    assert.deepStrictEqual(first._tag === "Dial" && shown([first.entry]), ["61.1.1.1:8333"])
    const second = registry.next(now)
    assert.deepStrictEqual(second._tag === "Dial" && shown([second.entry]), ["60.1.1.1:8333"], "after 30 picks")
  })

  it("is passed over without the wanted services; a pruned node has them", () => {
    assert.deepStrictEqual(onlyFirst([pick(ip(60, 1), { services: 1n }), pick(ip(61, 1), { services: 1_024n | 8n })]), [
      "61.1.1.1:8333"
    ])
  })

  it("is passed over at a port of another service, before 50 picks", () => {
    assert.deepStrictEqual(onlyFirst([pick(ip(60, 1, 1, 22)), pick(ip(61, 1))])[0], "61.1.1.1:8333")
    assert.deepStrictEqual(onlyFirst([pick(ip(60, 1, 1, 22))]), ["60.1.1.1:22"])
  })

  it("is not dialled if the operator added it: it has a slot of its own", () => {
    const { connectAll, registry } = rig([pick(ip(60, 1))])
    registry.added.add(ip(60, 1), 1e9)
    assert.deepStrictEqual(connectAll(0), [])
  })
})

describe("a poor book", () => {
  it("is asked again after 0.5, 1, 2, 4, 8, 8 s, and at once when it has changed", () => {
    const { registry } = rig([])
    const waits: Array<number> = []
    for (let now = 0, i = 0; i < 6; i++) {
      const action = registry.next(now)
      assert.isTrue(action._tag === "Wait")
      if (action._tag !== "Wait") return
      waits.push(action.until - now)
      now = action.until
    }
    assert.deepStrictEqual(waits, [500, 1_000, 2_000, 4_000, 8_000, 8_000])
    registry.bookChanged()
    const action = registry.next(1e6)
    assert.deepStrictEqual(action, { _tag: "Wait", until: 1e6 + 500 })
  })
})

describe("a book of dead addresses", () => {
  it("is dialled once a minute each, not as fast as the rate allows", () => {
    const tried = new Map<string, number>()
    const dead = [ip(60, 1), ip(61, 1)]
    let at = 0
    const book: Book = {
      ...bookOf([]).book,
      select: () => {
        const address = dead[at++ % dead.length]!
        return pick(address, { lastTry: tried.get(Address.format(address)) ?? 0 })
      }
    }
    const poor = rig([], {}, ["ipv4"], book).registry
    let dials = 0
    const start = 1_780_000_000_000
    for (let now = start; now < start + 600_000; now += 100) {
      const action = poor.next(now)
      if (action._tag === "Wait") continue
      dials++
      tried.set(shown([action.entry])[0]!, now)
      poor.ended(action.entry.id, failed, now)
    }
    assert.isAtLeast(dials, 10)
    assert.isAtMost(dials, 2 * 11)
  })
})

describe("what a server dials first", () => {
  it("is what the operator asked for, then added nodes, then seeds, anchors, full-relay and block-relay peers", () => {
    const { registry } = rig(manyGroups)
    registry.anchors = [pick(ip(90, 1))]
    registry.fetchAddresses({ host: "seed.example", port: 8333 })
    registry.added.add(ip(80, 1), 0)
    registry.dialOnce(ip(81, 1), "manual")
    const order: Array<ConnectionKind> = []
    for (let i = 0; i < 13; i++) {
      const action = registry.next(0)
      if (action._tag !== "Dial") break
      registry.ready(action.entry.id, services, 0)
      order.push(action.entry.kind)
    }
    assert.deepStrictEqual(order.slice(0, 5), [
      "manual",
      "manual",
      "addr-fetch",
      "block-relay-only",
      "outbound-full-relay"
    ])
    assert.strictEqual(order.at(-1), "block-relay-only")
  })

  it("is an anchor only where it may be dialled: the others are forgotten", () => {
    const { connectAll, registry } = rig([])
    registry.anchors = [
      pick(ip(127, 0)),
      pick(ip(90, 1), { services: 0n }),
      pick(ip(91, 1)),
      pick(ip(91, 1, 2)),
      pick(ip(92, 1))
    ]
    assert.deepStrictEqual(shown(connectAll(0)), ["91.1.1.1:8333", "92.1.1.1:8333"])
    assert.deepStrictEqual(registry.anchors, [])
  })
})

describe("feelers", () => {
  it("come every two minutes on average, one at a time, once all slots are taken", () => {
    const { connectAll, registry } = rig([
      ...manyGroups,
      ...Array.from({ length: 300 }, (_, i) => pick(ip(120, i % 250, i % 7)))
    ])
    connectAll(0)
    let feelers = 0
    const hours = 10
    for (let now = 0; now < hours * 3_600_000;) {
      const action = registry.next(now)
      if (action._tag === "Wait") now = Math.max(now + 1, action.until)
      else {
        if (action.entry.kind === "feeler") feelers++
        assert.isAtMost(registry.count("feeler"), 1)
        registry.ready(action.entry.id, services, now)
        registry.ended(action.entry.id, failed, now)
      }
    }
    assert.isAbove(feelers, hours * 30 * 0.75)
    assert.isBelow(feelers, hours * 30 * 1.25)
  })

  it("do not come while a slot is free", () => {
    const { registry } = rig([])
    for (let now = 0; now < 3_600_000; now += 5_000) assert.strictEqual(registry.next(now)._tag, "Wait")
  })
})

describe("a network without a peer", () => {
  it("gets one more full-relay peer within some minutes", () => {
    const { connectAll, registry } = rig([...manyGroups, pick(onion(1))], { feelers: false }, ["ipv4", "onion"])
    const first = connectAll(0)
    for (const entry of first) {
      if (shown([entry])[0]!.includes("onion")) registry.ended(entry.id, failed, 0)
    }
    let found: Entry | undefined
    for (let now = 1; now < 7_200_000 && found === undefined; now += 1_000) {
      const action = registry.next(now)
      if (action._tag === "Dial") {
        registry.ready(action.entry.id, services, now)
        if (shown([action.entry])[0]!.includes("onion")) found = action.entry
      }
    }
    assert.strictEqual(found?.kind, "outbound-full-relay")
  })
})

describe("a planner with nothing to do before the end of a dial", () => {
  it("waits for that end, and not for a time that has passed", () => {
    const { connectAll, registry } = rig([
      ...manyGroups,
      ...Array.from({ length: 200 }, (_, i) => pick(ip(120, i % 200)))
    ])
    connectAll(0)
    for (let now = 0; now < 7_200_000;) {
      const action = registry.next(now)
      if (action._tag === "Dial") {
        assert.strictEqual(action.entry.kind, "feeler")
        // This feeler never ends.
        for (let later = now + 60_000; later < now + 3_600_000; later += 60_000) {
          const next = registry.next(later)
          assert.isTrue(next._tag === "Wait" && next.until > later)
        }
        return
      }
      now = Math.max(now + 1, action.until)
    }
    assert.fail("no feeler")
  })
})

describe("a failed dial", () => {
  it("counts against the address only while peers in two groups are connected", () => {
    const { connectAll, registry, told } = rig([pick(ip(60, 1))])
    const [only] = connectAll(0)
    registry.ended(only!.id, failed, 0)
    told.length = 0
    const action = registry.next(700_000)
    if (action._tag === "Dial") registry.ended(action.entry.id, failed, 700_000)
    assert.deepStrictEqual(told, ["attempt 60.1.1.1:8333 false"])

    const rich = rig(manyGroups)
    const entries = rich.connectAll(0)
    rich.registry.ended(entries[0]!.id, failed, 0)
    rich.told.length = 0
    const next = rich.registry.next(0)
    if (next._tag === "Dial") rich.registry.ended(next.entry.id, failed, 0)
    assert.match(rich.told[0]!, /^attempt .* true$/)
  })

  it("of an added node is no matter of the book", () => {
    const { registry, told } = rig([])
    registry.added.add(ip(60, 1), 0)
    const action = registry.next(0)
    if (action._tag === "Dial") registry.ended(action.entry.id, failed, 0)
    assert.deepStrictEqual(told, [])
  })

  it("that was interrupted on this side leaves no trace", () => {
    const { registry, told } = rig(manyGroups)
    const action = registry.next(0)
    if (action._tag === "Dial") registry.ended(action.entry.id, interrupted, 0)
    assert.deepStrictEqual(told, [])
  })
})

describe("the end of a peer", () => {
  it("tells the book of full-relay and manual peers, not of block-relay peers and feelers", () => {
    const { connectAll, registry, told } = rig(manyGroups)
    const entries = connectAll(0)
    told.length = 0
    for (const { id } of entries) registry.ended(id, failed, 0)
    assert.strictEqual(told.filter((line) => line.startsWith("connected")).length, 8)
  })
})

describe("a machine without a network", () => {
  it("is noticed after eight dials within ten seconds that fail because of it, and counts nothing against addresses", () => {
    const { events, registry, told } = rig(manyGroups)
    let dials = 0
    for (let now = 0; now < 60_000; now += 100) {
      const action = registry.next(now)
      if (action._tag === "Wait") continue
      dials++
      registry.ended(action.entry.id, locally, now)
    }
    assert.deepStrictEqual(events, [{ _tag: "Offline" }])
    assert.isBelow(dials, 8 + 60 / 5 + 2, "one probe in five seconds")
    assert.isEmpty(told.filter((line) => line.endsWith("true")))
    let now = 60_000
    for (let action = registry.next(now); ; action = registry.next((now += 100))) {
      if (action._tag === "Wait") continue
      registry.ready(action.entry.id, services, now)
      break
    }
    assert.deepStrictEqual(events, [{ _tag: "Offline" }, { _tag: "Online" }])
  })
})

describe("the rate of dials", () => {
  it("is 4 in a second after a burst of 8, for added nodes too", () => {
    const { registry } = rig([], { dialsPerSecond: 4, dialBurst: 8, manual: 1_000 })
    for (let i = 0; i < 100; i++) registry.added.add(ip(100, i), 0)
    const at: Array<number> = []
    for (let now = 0; at.length < 40;) {
      const action = registry.next(now)
      if (action._tag === "Wait") now = action.until
      else at.push(now)
    }
    assert.strictEqual(at.filter((time) => time === 0).length, 8)
    assert.closeTo(at.at(-1)!, (32 / 4) * 1_000, 300)
  })
})

describe("a name", () => {
  it("that turns out to be the address of another connection is not needed", () => {
    const { connectAll, registry } = rig([pick(ip(60, 1))])
    connectAll(0)
    registry.added.add({ host: "same.example", port: 8333 }, 0)
    const action = registry.next(0)
    assert.isTrue(action._tag === "Dial")
    if (action._tag !== "Dial") return
    assert.isFalse(registry.resolved(action.entry.id, ip(60, 1)))
    assert.isTrue(registry.resolved(action.entry.id, ip(61, 1)))
  })
})

describe("a network that is switched off", () => {
  it("has nothing to dial, and its added nodes come back over five seconds", () => {
    const { registry } = rig(manyGroups, { manual: 100 })
    for (let i = 0; i < 20; i++) registry.added.add(ip(100, i), 0)
    registry.setActive(false, 0)
    assert.deepStrictEqual(registry.next(0), { _tag: "Wait", until: Number.POSITIVE_INFINITY })
    registry.setActive(true, 1_000)
    const times = registry.added.all.map(({ nextAt }) => nextAt)
    assert.isTrue(times.every((time) => time >= 1_000 && time <= 6_000))
  })
})
