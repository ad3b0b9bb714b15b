import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Address from "../../src/Address.ts"
import { type Admission, type Arrival, Gate, gateDefaults, type GateOptions } from "../../src/server/internal/gate.ts"
import { inboundPools, PoolsError } from "../../src/server/internal/pools.ts"

const host = (text: string): Address.Host => Result.getOrThrow(Address.parseHost(text))

const make = (options?: Partial<GateOptions>): Gate =>
  new Gate({ ...gateDefaults, isBanned: () => false, isDiscouraged: () => false, ...options })

const mustNotEvict = (): never => assert.fail("nobody has to be evicted")

const arrive = (gate: Gate, from: string, arrival?: Partial<Arrival<number>>): Admission<number> =>
  gate.arrived<number>({
    host: host(from),
    bind: "ipv4",
    noban: false,
    networkActive: true,
    inbound: 0,
    slots: 189,
    evict: mustNotEvict,
    now: 0,
    ...arrival
  })

const outcome = (admission: Admission<number>): string =>
  admission._tag === "Refuse" ? admission.step : admission._tag

/** A pool of which every slot is taken, with a peer to evict. */
const full = (victim: string, id = 1): Partial<Arrival<number>> => ({
  inbound: 189,
  evict: () => ({ id, host: host(victim) })
})

const settle = (gate: Gate, admission: Admission<number>): void => {
  if (admission._tag !== "Refuse") gate.settled(admission.ticket)
}

describe("the gate", () => {
  it("admits into a free slot", () => {
    const gate = make()
    assert.deepInclude(arrive(gate, "1.2.3.4"), { _tag: "Admit", isDiscouraged: false })
    assert.strictEqual(gate.pending, 1)
  })

  it("asks in the order of the rules: each question only when the earlier ones let it pass", () => {
    const asked: Array<string> = []
    const answers = { banned: true, discouraged: true }
    const gate = make({
      maxPending: 2,
      maxPendingPerSource: 1,
      isBanned: () => {
        asked.push("banned")
        return answers.banned
      },
      isDiscouraged: () => {
        asked.push("discouraged")
        return answers.discouraged
      }
    })
    const next = (arrival?: Partial<Arrival<number>>): readonly [string, ReadonlyArray<string>] => {
      asked.length = 0
      const evict = () => {
        asked.push("evict")
        return undefined
      }
      return [outcome(arrive(gate, "1.2.3.4", { inbound: 189, evict, ...arrival })), [...asked]]
    }
    assert.deepStrictEqual(next({ networkActive: false }), ["network-off", []])
    assert.deepStrictEqual(next(), ["banned", ["banned"]])
    answers.banned = false
    assert.deepStrictEqual(next(), ["discouraged", ["banned", "discouraged"]])
    answers.discouraged = false
    assert.strictEqual(outcome(arrive(gate, "1.2.3.9")), "Admit")
    assert.deepStrictEqual(next(), ["source-pending", ["banned", "discouraged"]])
    assert.strictEqual(outcome(arrive(gate, "9.9.9.9")), "Admit")
    assert.deepStrictEqual(next({ host: host("7.7.7.7") }), ["pending", ["banned", "discouraged"]])
    const roomy = make()
    assert.strictEqual(outcome(arrive(roomy, "1.2.3.4", { inbound: 189, evict: () => undefined })), "full")
  })

  it("lets noban pass though it is banned or discouraged", () => {
    const gate = make({ isBanned: () => true, isDiscouraged: () => true })
    assert.strictEqual(outcome(arrive(gate, "1.2.3.4")), "banned")
    assert.strictEqual(outcome(arrive(gate, "1.2.3.4", { noban: true })), "Admit")
    assert.strictEqual(outcome(arrive(gate, "1.2.3.4", { noban: true, ...full("5.6.7.8") })), "AdmitByEvicting")
  })

  it("admits a discouraged host while two slots are free, to be evicted first", () => {
    const gate = make({ isDiscouraged: () => true })
    assert.deepInclude(arrive(gate, "1.2.3.4", { inbound: 187 }), { _tag: "Admit", isDiscouraged: true })
    assert.strictEqual(outcome(arrive(gate, "1.2.3.4", { inbound: 188 })), "discouraged")
    assert.strictEqual(outcome(arrive(gate, "1.2.3.4", full("5.6.7.8"))), "discouraged")
  })

  it("bears 8 handshakes of a /24 of IPv4 or a /64 of IPv6, until one is over", () => {
    const gate = make()
    const admitted = Array.from({ length: 8 }, (_, i) => arrive(gate, `1.2.3.${i + 1}`))
    assert.isTrue(admitted.every((one) => one._tag === "Admit"))
    assert.strictEqual(outcome(arrive(gate, "1.2.3.99")), "source-pending")
    assert.strictEqual(outcome(arrive(gate, "::ffff:1.2.3.99")), "source-pending")
    assert.strictEqual(outcome(arrive(gate, "1.2.4.1")), "Admit")
    settle(gate, admitted[0]!)
    settle(gate, admitted[0]!)
    assert.strictEqual(outcome(arrive(gate, "1.2.3.99")), "Admit")
    assert.strictEqual(outcome(arrive(gate, "1.2.3.99")), "source-pending")

    for (let i = 0; i < 8; i++) assert.strictEqual(outcome(arrive(gate, `2001:db8:0:1::${i + 1}`)), "Admit")
    assert.strictEqual(outcome(arrive(gate, "2001:db8:0:1:ffff::")), "source-pending")
    assert.strictEqual(outcome(arrive(gate, "2001:db8:0:2::1")), "Admit")
  })

  it("bears 128 handshakes in all", () => {
    const gate = make()
    const admitted = Array.from({ length: 128 }, (_, i) => arrive(gate, `1.2.${i}.1`))
    assert.isTrue(admitted.every((one) => one._tag === "Admit"))
    assert.strictEqual(outcome(arrive(gate, "9.9.9.9")), "pending")
    // Local sources count here, too.
    assert.strictEqual(outcome(arrive(gate, "127.0.0.1")), "pending")
    settle(gate, admitted[7]!)
    assert.strictEqual(outcome(arrive(gate, "9.9.9.9")), "Admit")
  })

  it("gives every slot back, whatever the order", () => {
    const gate = make()
    const admitted = Array.from({ length: 100 }, (_, i) => arrive(gate, `1.${i % 20}.3.4`))
    for (const one of admitted.toReversed()) settle(gate, one)
    assert.strictEqual(gate.pending, 0)
    assert.deepStrictEqual(gate.remembered, { sources: 0, evicted: 0 })
  })

  it("evicts when all slots are taken, in the pool of the bind", () => {
    const gate = make()
    assert.deepInclude(arrive(gate, "1.2.3.4", full("5.6.7.8", 42)), { _tag: "AdmitByEvicting", evict: 42 })
    assert.strictEqual(outcome(arrive(gate, "1.2.3.4", { inbound: 63, slots: 63, evict: () => undefined })), "full")
    assert.strictEqual(outcome(arrive(gate, "1.2.3.4", { inbound: 62, slots: 63 })), "Admit")
  })

  it("lets the network of an evicted peer cause no other eviction for 60 s", () => {
    const gate = make()
    assert.strictEqual(outcome(arrive(gate, "1.2.3.4", full("5.6.7.8"))), "AdmitByEvicting")
    // The evicted one comes back every second (bitcoin/bitcoin#33267).
    const back = (now: number, from = "5.6.7.9") => {
      const admission = arrive(gate, from, { ...full("9.9.9.9"), now })
      settle(gate, admission)
      return outcome(admission)
    }
    for (let second = 1; second < 60; second++) assert.strictEqual(back(1_000 * second), "recently-evicted")
    // It may take a free slot.
    assert.strictEqual(outcome(arrive(gate, "5.6.7.8", { now: 30_000 })), "Admit")
    assert.strictEqual(back(30_000, "5.6.8.1"), "AdmitByEvicting")
    assert.strictEqual(back(60_000), "AdmitByEvicting")
  })

  it("does not remember the eviction of a local peer: all onion peers would be meant", () => {
    const gate = make()
    assert.strictEqual(outcome(arrive(gate, "127.0.0.1", { ...full("127.0.0.1"), bind: "onion" })), "AdmitByEvicting")
    assert.strictEqual(outcome(arrive(gate, "127.0.0.1", { ...full("127.0.0.1"), bind: "onion" })), "AdmitByEvicting")
    assert.strictEqual(gate.remembered.evicted, 0)
  })

  it("does not judge local sources by their address", () => {
    const gate = make({ isDiscouraged: () => true })
    for (let i = 0; i < 100; i++) {
      assert.deepInclude(arrive(gate, "127.0.0.1", { inbound: 188 }), { _tag: "Admit", isDiscouraged: false })
    }
  })

  it("bars this machine only where an operator banned it and no onion service is behind it", () => {
    const gate = make({ isBanned: () => true })
    assert.strictEqual(outcome(arrive(gate, "127.0.0.1")), "banned")
    assert.strictEqual(outcome(arrive(gate, "127.0.0.1", { bind: "onion" })), "Admit")
    assert.strictEqual(outcome(arrive(gate, "127.0.0.1", { bind: "i2p" })), "Admit")
  })

  it("logs the first 3 refusals of a step, then one each 30 s with the number of the others", () => {
    const gate = make({ isBanned: (_, now) => now >= 0 })
    const at = (now: number) => {
      const { log, unlogged } = arrive(gate, "1.2.3.4", { now }) as Admission<number> & { readonly _tag: "Refuse" }
      return log ? unlogged : "silent"
    }
    assert.deepStrictEqual([0, 0, 1].map(at), [0, 0, 0])
    for (let now = 2; now < 30_000; now += 1_000) assert.strictEqual(at(now), "silent")
    assert.strictEqual(at(30_001), 30)
    assert.strictEqual(at(30_002), "silent")
    assert.strictEqual(at(60_001), 1)
    // Another step has a count of its own.
    assert.deepInclude(arrive(gate, "1.2.3.4", { networkActive: false, now: 60_001 }), { log: true, unlogged: 0 })
  })

  it("keeps its memory bounded under 10,000 arrivals a second from different sources", () => {
    const gate = make()
    const open: Array<Admission<number>> = []
    const most = { pending: 0, sources: 0, evicted: 0 }
    let logged = 0
    const steps = new Map<string, number>()
    for (let i = 0; i < 50_000; i++) {
      const now = i / 10
      const admission = gate.arrived<number>({
        host: { networkId: 1, address: Uint8Array.of(11 + (i >>> 16), i >>> 8, i, 1) },
        bind: "ipv4",
        noban: false,
        networkActive: true,
        inbound: 189,
        slots: 189,
        evict: () => ({ id: i, host: { networkId: 1, address: Uint8Array.of(99 + (i >>> 16), i >>> 8, i, 1) } }),
        now
      })
      steps.set(outcome(admission), (steps.get(outcome(admission)) ?? 0) + 1)
      if (admission._tag === "Refuse") logged += Number(admission.log)
      else open.push(admission)
      // Half of the handshakes break off at once.
      if (open.length > 64) settle(gate, open.shift()!)
      if (i % 3 === 0 && open.length > 0) settle(gate, open.shift()!)
      const { evicted, sources } = gate.remembered
      most.pending = Math.max(most.pending, gate.pending)
      most.sources = Math.max(most.sources, sources)
      most.evicted = Math.max(most.evicted, evicted)
    }
    assert.isAtMost(most.pending, 128)
    assert.isAtMost(most.sources, 128)
    assert.isAtMost(most.evicted, 4_096)
    assert.strictEqual(gate.remembered.evicted, 4_096)
    assert.isAbove(steps.get("AdmitByEvicting")!, 10_000)
    assert.isAtMost(logged, 10)
  })

  it("refuses a flood that never ends its handshakes", () => {
    const gate = make()
    let admitted = 0
    for (let i = 0; i < 10_000; i++) {
      const from = { networkId: 1, address: Uint8Array.of(11, i >>> 8, i, 1) }
      const { _tag } = gate.arrived({
        host: from,
        bind: "ipv4",
        noban: false,
        networkActive: true,
        inbound: admitted,
        slots: 189,
        evict: mustNotEvict,
        now: i / 10
      })
      if (_tag === "Admit") admitted++
    }
    assert.strictEqual(admitted, 128)
    assert.deepStrictEqual(gate.remembered, { sources: 128, evicted: 0 })
  })
})

describe("the pools of binds", () => {
  const shares = (...args: Parameters<typeof inboundPools>) => {
    const pools = inboundPools(...args)
    return pools instanceof PoolsError ? pools.message : Object.fromEntries(pools)
  }

  it("are all slots for one bind, as in Core", () => {
    assert.deepStrictEqual(shares(189, ["clearnet"]), { clearnet: 189 })
  })

  it("are equal parts, of which none takes from another", () => {
    assert.deepStrictEqual(shares(189, ["clearnet", "onion"]), { clearnet: 95, onion: 94 })
    assert.deepStrictEqual(shares(10, ["a", "b", "c"]), { a: 4, b: 3, c: 3 })
    assert.deepStrictEqual(shares(1, ["a", "b"]), { a: 1, b: 0 })
    assert.deepStrictEqual(shares(189, []), {})
  })

  it("are given shares, and equal parts of the rest", () => {
    assert.deepStrictEqual(shares(100, ["a", "b", "c"], { b: 50 }), { a: 25, b: 50, c: 25 })
    assert.deepStrictEqual(shares(100, ["a", "b"], { a: 100 }), { a: 100, b: 0 })
    assert.deepStrictEqual(shares(100, ["a", "b"], { a: 10, b: 10 }), { a: 10, b: 10 })
  })

  it("are one line of error where they cannot be", () => {
    assert.include(shares(100, ["a", "b"], { a: 80, b: 30 }), "they add up to 110, but there are 100 inbound slots")
    assert.include(shares(100, ["a"], { a: -1 }), "not a whole number")
    assert.include(shares(100, ["a"], { a: 1.5 }), "not a whole number")
    assert.include(shares(100, ["a"], { b: 1 }), 'there is no bind "b"')
  })
})
