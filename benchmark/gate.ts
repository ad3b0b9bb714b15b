/** The gate of a server: arrivals, evictions, bans, and the relay of addresses. There are no competitors: Core's are in C++. */
import * as Effect from "effect/Effect"
import { SecureRandom } from "effect/crypto"
import type { Host } from "../src/Address.ts"
import * as BanList from "../src/server/BanList.ts"
import { AddressRelay } from "../src/server/internal/addressRelay.ts"
import { type Candidate, selectToEvict } from "../src/server/internal/eviction.ts"
import { Gate, gateDefaults, type Ticket } from "../src/server/internal/gate.ts"
import { makeRandom } from "../src/server/internal/random.ts"
import * as Permissions from "../src/server/Permissions.ts"
import { Service } from "../src/Wire.ts"
import { ask, printTable } from "./harness.ts"

const random = makeRandom(new Uint8Array(16).fill(1))
const ipv4 = (n: number): Host => ({ networkId: 1, address: Uint8Array.of(11 + (n >>> 16), n >>> 8, n, 1) })
const hosts: ReadonlyArray<Host> = Array.from({ length: 10_000 }, (_, n) => ipv4(n))

const candidates = (count: number): ReadonlyArray<Candidate<number>> =>
  Array.from({ length: count }, (_, id) => ({
    id,
    kind: "inbound",
    noban: false,
    connectedAt: random.below(1e9),
    minimumPing: random.below(1e3),
    lastBlockAt: random.below(2) * random.below(1e9),
    lastTransactionAt: random.below(2) * random.below(1e9),
    hasRelevantServices: random.below(2) === 1,
    relaysTransactions: random.below(2) === 1,
    hasBloomFilter: false,
    group: `01${random.below(0x1_0000).toString(16)}`,
    preferEvict: false,
    isLocal: false,
    network: (["ipv4", "ipv4", "ipv6", "onion", "i2p"] as const)[random.below(5)]!
  }))

/** A full list: subnets of every length from /16 on, of IPv4 and IPv6. */
const bans = Effect.runSync(Effect.provide(BanList.make(), SecureRandom.layerWebCrypto))
const list = Array.from({ length: 100_000 }, (_, n) => {
  const address =
    n % 2 === 0
      ? `${100 + (n % 100)}.${(n >>> 8) & 255}.${n & 255}.${n % 251}/${16 + (n % 17)}`
      : `2a01:${(n & 0xffff).toString(16)}:${(n >>> 4).toString(16)}::${(n % 999).toString(16)}/${32 + (n % 97)}`
  return { version: 1, ban_created: 0, banned_until: 4e9 + n, address }
})
const file = new TextEncoder().encode(JSON.stringify({ banned_nets: list }))
bans.load(file, 0)
console.error(`a list of ${Effect.runSync(bans.entries).length} bans`)

const arrivals = (isFull: boolean) => (): number => {
  const gate = new Gate({ ...gateDefaults, isBanned: bans.has, isDiscouraged: bans.isDiscouraged })
  const open: Array<Ticket> = []
  const evict = (): { readonly id: number; readonly host: Host } => ({ id: 1, host: ipv4(77) })
  let admitted = 0
  for (const [i, host] of hosts.entries()) {
    const admission = gate.arrived({
      host,
      bind: "ipv4",
      noban: false,
      networkActive: true,
      inbound: isFull ? 189 : 0,
      slots: 189,
      evict,
      now: i / 10
    })
    if (admission._tag === "Refuse") continue
    admitted++
    open.push(admission.ticket)
    if (open.length > 100) gate.settled(open.shift()!)
  }
  return admitted
}

await ask({
  title: "10,000 arrivals, 100,000 bans, free slots",
  amount: { count: 10_000, unit: "arrivals" },
  targetRate: 10_000,
  competitors: [{ name: "effect-bitcoin-peer", run: arrivals(false) }]
})

await ask({
  title: "10,000 arrivals, 100,000 bans, evicting",
  amount: { count: 10_000, unit: "arrivals" },
  targetRate: 10_000,
  competitors: [{ name: "effect-bitcoin-peer", run: arrivals(true) }]
})

for (const [count, targetRate] of [
  [189, undefined],
  [10_000, 50]
] as const) {
  const all = candidates(count)
  const key = [1, 2, 3, 4] as const
  await ask({
    title: `the choice among ${count.toLocaleString("en-US")} peers`,
    amount: { count: 1, unit: "evictions" },
    ...(targetRate === undefined ? undefined : { targetRate }),
    competitors: [{ name: "effect-bitcoin-peer", run: () => selectToEvict(all, key) }]
  })
}

const visitors: ReadonlyArray<Host> = Array.from({ length: 10_000 }, (_, n) =>
  n % 2 === 0
    ? { networkId: 1, address: Uint8Array.of(100 + (n % 120), n, n >>> 3, n % 251) }
    : {
        networkId: 2,
        address: Uint8Array.of(0x2a, 1, n >>> 8, n, n >>> 12, n >>> 4, 0, 0, 0, 0, 0, 0, 0, 0, n >>> 2, n)
      }
)
await ask({
  title: "whether 10,000 hosts are banned, of 100,000 bans",
  amount: { count: visitors.length, unit: "look-ups" },
  competitors: [
    { name: "effect-bitcoin-peer", run: () => visitors.reduce((sum, host) => sum + Number(bans.has(host, 0)), 0) }
  ]
})

await ask({
  title: "reading a banlist.json of 100,000 bans",
  amount: { count: list.length, unit: "bans" },
  pace: { rounds: 5, sampleTime: 500, warmTime: 1_000 },
  competitors: [
    {
      name: "effect-bitcoin-peer",
      run: () => Effect.runSync(Effect.provide(BanList.make(), SecureRandom.layerWebCrypto)).load(file, 0).count
    }
  ]
})

for (const host of hosts) bans.discourage(host)
await ask({
  title: "whether 10,000 hosts are discouraged",
  amount: { count: hosts.length, unit: "look-ups" },
  competitors: [
    {
      name: "effect-bitcoin-peer",
      run: () => hosts.reduce((sum, host) => sum + Number(bans.isDiscouraged(host)), 0)
    }
  ]
})

const now = 1_700_000_000_000
const services = Service.network | Service.witness

const makeRelay = (): AddressRelay =>
  new AddressRelay({
    random,
    key: [1, 2, 3, 4],
    isReachable: () => true,
    isRefused: (host) => bans.has(host, now) || bans.isDiscouraged(host),
    store: () => {},
    answer: () => [],
    ownAddress: () => undefined,
    ownServices: services,
    announces: () => false,
    desirableServices: services
  })

/** 100 relaying peers; one of them sends 1,000 new addresses, 10 in a message. */
const relayed = (): number => {
  const relay = makeRelay()
  const peer = { kind: "manual", permissions: Permissions.none, wantsV2: true, connectedAt: now } as const
  for (let id = 0; id < 100; id++) relay.add({ ...peer, id, host: ipv4(id) })
  relay.received(0, { _tag: "addrv2", addresses: [] }, now)
  for (let i = 0; i < 100; i++) {
    const addresses = Array.from({ length: 10 }, (_, n) => ({
      ...ipv4(20_000 + i * 10 + n),
      port: 8333,
      services,
      timestamp: now / 1_000
    }))
    relay.received(0, { _tag: "addrv2", addresses }, now)
  }
  return relay.tick(now + 86_400_000).length
}
await ask({
  title: "1,000 addresses relayed among 100 peers that come and go",
  amount: { count: 1_000, unit: "addresses" },
  competitors: [{ name: "effect-bitcoin-peer", run: relayed }]
})

/** The answer to our getaddr, as far as the book: what is refused, and what the peer knows. */
const answer = Array.from({ length: 1_000 }, (_, n) => ({
  ...ipv4(30_000 + n),
  port: 8333,
  services,
  timestamp: now / 1_000
}))
const peer = { kind: "manual", permissions: Permissions.all, wantsV2: true, connectedAt: 0 } as const
const receiving = makeRelay()
receiving.add({ ...peer, id: 1, host: ipv4(1) })
await ask({
  title: "an addrv2 of 1,000, without the book",
  amount: { count: 1_000, unit: "addresses" },
  competitors: [
    {
      name: "effect-bitcoin-peer",
      run: () => receiving.received(1, { _tag: "addrv2", addresses: answer }, now)
    }
  ]
})

printTable("the gate: arrivals, evictions, bans, relay of addresses")
