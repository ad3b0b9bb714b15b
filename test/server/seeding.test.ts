/** When each source of first addresses is asked. */
import { assert, describe, it } from "@effect/vitest"
import { makeRandom } from "../../src/server/internal/random.ts"
import { type Action, type Facts, Seeding, type Settings } from "../../src/server/internal/seeding.ts"

const start = 1_800_000_000_000
const seconds = (count: number) => count * 1_000

const noSources: Settings = {
  seedNodes: [],
  dnsSeeds: [],
  forcesDns: false,
  resolvesByProxy: false,
  usesFixedSeeds: false
}

const textOf = (action: Action): string => {
  switch (action._tag) {
    case "AddrFetch":
      return `fetch ${action.target}`
    case "AskDns":
      return `ask ${action.seeds.length}`
    case "AddFixedSeeds":
      return `fixed ${action.networks.join(",")}`
  }
}

/** Runs the machine as a server does, by its own times and at every tick, and writes down what happens at which second. */
const run = (
  settings: Partial<Settings>,
  factsAt: (second: number, log: ReadonlyArray<string>) => Partial<Facts>,
  until: number,
  seed = 1,
  tick = Infinity
): ReadonlyArray<string> => {
  const seeding = new Seeding({ ...noSources, ...settings }, start, makeRandom(new Uint8Array(16).fill(seed)))
  const log: Array<string> = []
  let now = start
  let steps = 0
  while (now <= start + seconds(until)) {
    assert.isBelow(++steps, 10_000, "the machine spins")
    const second = (now - start) / 1_000
    const facts: Facts = {
      bookSize: 0,
      fullRelay: 0,
      isNetworkActive: true,
      hasAddedNodes: false,
      emptyNetworks: [],
      ...factsAt(second, log)
    }
    const step = seeding.step(now, facts)
    for (const action of step.actions) log.push(`${second} ${textOf(action)}`)
    assert.isAbove(step.until, now)
    now = Math.min(step.until, now + tick)
  }
  return log
}

const named = (name: string, count: number) => Array.from({ length: count }, (_, i) => `${name}${i}.example`)
const seedNodes = named("node", 3)
const dnsSeeds = named("seed", 8)
const withoutNames = (log: ReadonlyArray<string>) => log.map((line) => line.replace(/ \S+\.example$/, ""))

describe("seed nodes", () => {
  it("are asked one at once if the book is empty, then one each 10 s", () => {
    const log = run({ seedNodes }, () => ({}), 100)
    assert.deepStrictEqual(withoutNames(log), ["0 fetch", "10 fetch", "20 fetch"])
    assert.deepStrictEqual(log.map((line) => line.split(" ")[2]).toSorted(), seedNodes)
  })

  it("wait 10 s if the book has addresses", () => {
    assert.deepStrictEqual(withoutNames(run({ seedNodes }, () => ({ bookSize: 1 }), 100)), [
      "10 fetch",
      "20 fetch",
      "30 fetch"
    ])
  })

  it("are not asked while there are 2 full-relay peers, and again when one is lost", () => {
    const log = run({ seedNodes }, (second) => ({ bookSize: 5, fullRelay: second < 95 ? 2 : 1 }), 200)
    assert.deepStrictEqual(withoutNames(log), ["100 fetch", "110 fetch", "120 fetch"])
    assert.strictEqual(run({ seedNodes }, () => ({ bookSize: 5, fullRelay: 1 }), 100).length, 3)
  })

  it("have an order of their own in each run", () => {
    const first = (seed: number) => run({ seedNodes: named("node", 30) }, () => ({}), 0, seed)[0]
    assert.isAbove(new Set([1, 2, 3, 4, 5, 6].map(first)).size, 2)
  })
})

describe("DNS seeds", () => {
  it("are asked all at once if the book is empty", () => {
    assert.deepStrictEqual(
      run({ dnsSeeds }, () => ({}), 1_000),
      ["0 ask 8"]
    )
  })

  it("are asked all at once if that is forced, also with peers and addresses", () => {
    const log = run({ dnsSeeds, forcesDns: true }, () => ({ bookSize: 5_000, fullRelay: 8 }), 1_000)
    assert.deepStrictEqual(log, ["0 ask 8"])
  })

  it("are asked three at a time, 11 s before each, if few addresses are known", () => {
    assert.deepStrictEqual(
      run({ dnsSeeds }, () => ({ bookSize: 999 }), 1_000),
      ["11 ask 3", "22 ask 3", "33 ask 2"]
    )
  })

  it("are asked three at a time, 5 minutes before each, if many addresses are known", () => {
    assert.deepStrictEqual(
      run({ dnsSeeds }, () => ({ bookSize: 1_000 }), 2_000),
      ["300 ask 3", "600 ask 3", "900 ask 2"]
    )
  })

  it("are left alone for good once there are 2 full-relay peers, which is seen each 11 s", () => {
    const peersFrom = (from: number) => (second: number) => ({
      bookSize: 1_000,
      fullRelay: second >= from && second < from + 11 ? 2 : 1
    })
    for (const from of [1, 11, 150, 295]) {
      assert.deepStrictEqual(run({ dnsSeeds }, peersFrom(from), 2_000), [], `${from}`)
    }
    assert.deepStrictEqual(run({ dnsSeeds }, peersFrom(305), 2_000), ["300 ask 3"])
  })

  it("do not count one full-relay peer as enough", () => {
    assert.strictEqual(run({ dnsSeeds }, () => ({ bookSize: 10, fullRelay: 1 }), 100).length, 3)
  })

  it("wait 30 s for the seed nodes, and then ask all if the book is still empty", () => {
    const log = run({ dnsSeeds, seedNodes: ["node.example"] }, () => ({}), 1_000)
    assert.deepStrictEqual(log, ["0 fetch node.example", "30 ask 8"])
  })

  it("wait 30 s for the seed nodes, and then ask in batches if they gave addresses", () => {
    const log = run(
      { dnsSeeds, seedNodes: ["node.example"] },
      (second) => ({ bookSize: second > 5 ? 500 : 0, fullRelay: 1 }),
      1_000
    )
    assert.deepStrictEqual(log, ["0 fetch node.example", "41 ask 3", "52 ask 3", "63 ask 2"])
  })

  it("are not asked if the seed nodes helped to 2 full-relay peers", () => {
    const log = run(
      { dnsSeeds, seedNodes: ["node.example"] },
      (second) => ({ bookSize: second > 5 ? 500 : 0, fullRelay: second > 29 ? 2 : 0 }),
      1_000
    )
    assert.deepStrictEqual(log, ["0 fetch node.example"])
  })

  it("wait for the network, with a look each second", () => {
    const log = run({ dnsSeeds, seedNodes }, (second) => ({ isNetworkActive: second >= 100 }), 150)
    assert.deepStrictEqual(withoutNames(log), ["100 fetch", "100 ask 8", "110 fetch", "120 fetch"])
  })

  it("are dialled by name where a proxy looks names up", () => {
    const log = run({ dnsSeeds: ["seed.example"], resolvesByProxy: true }, () => ({}), 100)
    assert.deepStrictEqual(log, ["0 fetch seed.example"])
  })

  it("are asked in an order of their own in each run", () => {
    const orders = [1, 2, 3, 4, 5, 6].map((seed) => {
      const random = makeRandom(new Uint8Array(16).fill(seed))
      const seeding = new Seeding({ ...noSources, dnsSeeds }, start, random)
      const facts = { bookSize: 0, fullRelay: 0, isNetworkActive: true, hasAddedNodes: false, emptyNetworks: [] }
      const [action] = seeding.step(start, facts).actions
      assert(action?._tag === "AskDns")
      assert.deepStrictEqual(action.seeds.toSorted(), dnsSeeds)
      return action.seeds.join()
    })
    assert.isAbove(new Set(orders).size, 3)
  })
})

describe("fixed seeds", () => {
  const usesFixedSeeds = true

  it("are added after 60 s for the networks without an address, once", () => {
    const log = run({ usesFixedSeeds, dnsSeeds }, () => ({ bookSize: 50, fullRelay: 8, emptyNetworks: ["onion"] }), 999)
    assert.deepStrictEqual(log, ["60 fixed onion"])
  })

  it("are added at once if there is no other source", () => {
    const log = run({ usesFixedSeeds }, () => ({ emptyNetworks: ["ipv4", "ipv6"] }), 999)
    assert.deepStrictEqual(log, ["0 fixed ipv4,ipv6"])
  })

  it("wait 60 s for DNS seeds, seed nodes or added nodes", () => {
    const sources: ReadonlyArray<readonly [Partial<Settings>, Partial<Facts>]> = [
      [{ dnsSeeds }, {}],
      [{ seedNodes }, {}],
      [{}, { hasAddedNodes: true }]
    ]
    for (const [settings, facts] of sources) {
      const log = run({ usesFixedSeeds, ...settings }, () => ({ ...facts, emptyNetworks: ["ipv4"] }), 999)
      assert.deepStrictEqual(
        log.filter((line) => line.includes("fixed")),
        ["60 fixed ipv4"]
      )
    }
  })

  it("are not added where every network has addresses, or where they are switched off", () => {
    assert.deepStrictEqual(
      run({ usesFixedSeeds }, () => ({ bookSize: 5 }), 999),
      []
    )
    assert.deepStrictEqual(
      run({}, () => ({ emptyNetworks: ["ipv4"] }), 999),
      []
    )
  })

  it("are added when a network loses its last address later", () => {
    const log = run(
      { usesFixedSeeds },
      (second) => ({ bookSize: 5, emptyNetworks: second >= 200 ? ["ipv6"] : [] }),
      999
    )
    assert.deepStrictEqual(log, ["240 fixed ipv6"])
  })
})

it("more calls than needed change nothing", () => {
  const scenes: ReadonlyArray<Parameters<typeof run>> = [
    [{ usesFixedSeeds: true }, () => ({ emptyNetworks: ["ipv4"] }), 200],
    [{ seedNodes, dnsSeeds, usesFixedSeeds: true }, () => ({ emptyNetworks: ["ipv4"] }), 200],
    [{ seedNodes, dnsSeeds }, (second) => ({ bookSize: second > 40 ? 5 : 0, fullRelay: second > 70 ? 2 : 1 }), 200],
    [{ dnsSeeds }, () => ({ bookSize: 1_000 }), 1_000]
  ]
  for (const [settings, facts, until] of scenes) {
    const asAsked = run(settings, facts, until)
    assert.isNotEmpty(asAsked)
    assert.deepStrictEqual(run(settings, facts, until, 1, 250), asAsked)
  }
})

it("a machine with nothing left waits for ever", () => {
  const seeding = new Seeding(noSources, start, makeRandom(new Uint8Array(16)))
  const step = seeding.step(start, {
    bookSize: 0,
    fullRelay: 0,
    isNetworkActive: true,
    hasAddedNodes: false,
    emptyNetworks: ["ipv4"]
  })
  assert.deepStrictEqual(step, { actions: [], until: Infinity })
})
