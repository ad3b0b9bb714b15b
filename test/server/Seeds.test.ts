/** DNS seeds, their entries in the address book, fixed seeds, and ports that are not dialled. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Result } from "effect"
import { Dns } from "effect/net"
import { TestClock } from "effect/testing"
import * as Address from "../../src/Address.ts"
import * as Network from "../../src/Network.ts"
import { isBadPort } from "../../src/server/internal/badPorts.ts"
import { addressKey } from "../../src/server/internal/keys.ts"
import { loadFixedSeeds } from "../../src/server/internal/fixedSeeds.ts"
import { makeRandom } from "../../src/server/internal/random.ts"
import { dnsEntries, fixedEntries, loadFixedEntries } from "../../src/server/internal/seedEntries.ts"
import * as Seeds from "../../src/server/Seeds.ts"
import * as Wire from "../../src/Wire.ts"

const services = Wire.Service.network | Wire.Service.witness
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex")
const random = () => makeRandom(new Uint8Array(16).fill(7))
const texts = (hosts: ReadonlyArray<Address.Host>) => hosts.map(Address.formatHost)

const resolve = (seed: string, mask = services) => Effect.flatMap(Seeds.Seeds, (seeds) => seeds.resolve(seed, mask))

const withHosts = (hosts: Record<string, ReadonlyArray<string>>, options?: Seeds.Options) =>
  Seeds.layerDns({ dnsSeeds: Object.keys(hosts) }, options).pipe(Layer.provide(Dns.layerStatic({ hosts })))

describe("seeds over DNS", () => {
  it.effect("are those of the network, and are asked with the services in the name", () =>
    Effect.gen(function* () {
      const layer = Seeds.layerDns(Network.mainnet).pipe(
        Layer.provide(
          Dns.layerStatic({
            hosts: { "x9.seed.example": ["8.8.8.8"], "x849.seed.example": ["9.9.9.9"], "seed.example": ["1.1.1.1"] }
          })
        )
      )
      const names = yield* Effect.provide(
        Effect.map(Seeds.Seeds, ({ names }) => names),
        layer
      )
      assert.deepStrictEqual(names, Network.mainnet.dnsSeeds)
      assert.deepStrictEqual(texts(yield* Effect.provide(resolve("seed.example"), layer)), ["8.8.8.8"])
      const filters = services | Wire.Service.compactFilters | Wire.Service.p2pV2
      assert.deepStrictEqual(texts(yield* Effect.provide(resolve("seed.example", filters), layer)), ["9.9.9.9"])
    })
  )

  it.effect("give routable addresses of the allowed networks only", () =>
    Effect.gen(function* () {
      const hosts = {
        "x9.seed.example": [
          "127.0.0.1",
          "10.0.0.1",
          "::1",
          "fe80::1",
          "fc00::1",
          "fd6b:88c0:8724::1",
          "0.0.0.0",
          "::ffff:8.8.8.8",
          "8.8.4.4",
          "2001:4860:4860::8888"
        ]
      }
      const ask = (options?: Seeds.Options) =>
        Effect.map(Effect.provide(resolve("seed.example"), withHosts(hosts, options)), texts)
      assert.deepStrictEqual(yield* ask(), ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888"])
      assert.deepStrictEqual(yield* ask({ networks: ["ipv6"] }), ["2001:4860:4860::8888"])
      const error = yield* Effect.flip(ask({ networks: ["onion"] }))
      assert(error._tag === "SeedError")
      assert.strictEqual(error.reason, "NotFound")
    })
  )

  it.effect("give 32 addresses at most", () =>
    Effect.gen(function* () {
      const many = Array.from({ length: 100 }, (_, i) => `8.8.8.${i + 1}`)
      const found = yield* Effect.provide(resolve("seed.example"), withHosts({ "x9.seed.example": many }))
      assert.deepStrictEqual(texts(found), many.slice(0, 32))
    })
  )

  it.effect("fail with the name that was looked up", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(Effect.provide(resolve("seed.example"), withHosts({})))
      assert(error._tag === "SeedError")
      assert.strictEqual(error.reason, "NotFound")
      assert.strictEqual(
        error.message,
        "the seed x9.seed.example gave no addresses: it has no address of a network that we dial"
      )
    })
  )

  it.effect("fail after 30 s without an answer", () =>
    Effect.gen(function* () {
      const silent = Layer.succeed(Dns.Dns, Dns.make({ lookup: () => Effect.never }))
      const layer = Layer.provide(Seeds.layerDns(Network.mainnet), silent)
      const fiber = yield* Effect.forkChild(Effect.flip(Effect.provide(resolve("seed.example"), layer)), {
        startImmediately: true
      })
      yield* TestClock.adjust("29999 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust(1)
      assert.strictEqual((yield* Fiber.join(fiber)).reason, "Timeout")
    })
  )
})

describe("without DNS", () => {
  it.effect("there are no seeds", () =>
    Effect.gen(function* () {
      const { names, resolve } = yield* Seeds.Seeds
      assert.deepStrictEqual(names, [])
      const error = yield* Effect.flip(resolve("seed.example", services))
      assert.strictEqual(error.message, "the seed x9.seed.example gave no addresses: this server looks up no names")
    }).pipe(Effect.provide(Seeds.layerNone))
  )

  it.effect("a table gives the seeds of a test", () =>
    Effect.gen(function* () {
      const { names } = yield* Seeds.Seeds
      assert.deepStrictEqual(names, ["a.example", "b.example"])
      assert.deepStrictEqual(texts(yield* resolve("a.example")), ["8.8.8.8"])
      assert.strictEqual((yield* Effect.flip(resolve("b.example"))).reason, "NotFound")
    }).pipe(Effect.provide(Seeds.layerTable({ "a.example": ["8.8.8.8", "127.0.0.1", "nonsense"], "b.example": [] })))
  )
})

describe("the source of a seed's addresses", () => {
  it("is the internal address that Core makes of the name", () => {
    const source = Seeds.seedSource("x9.seed.example")
    // printf x9.seed.example | sha256sum
    assert.strictEqual(hex(source.address), "fd6b88c08724a23ab50901aaa2de0818")
    assert.strictEqual(source.networkId, Address.NetworkId.ipv6)
    assert.isFalse(Address.isRoutable(source))
    assert.isUndefined(Address.fromBytes(source.address))
  })

  it("is a group of its own", () => {
    const groups = ["x9.a.example", "x9.b.example", "fixedseeds"].map((name) => Address.group(Seeds.seedSource(name)))
    assert.strictEqual(new Set(groups).size, 3)
    for (const group of groups) assert.match(group, /^06[0-9a-f]{20}$/)
  })
})

const now = 1_800_000_000_000
const days = (timestamp: number) => (now / 1_000 - timestamp) / 86_400

describe("entries of a DNS seed", () => {
  it("have the port of the network, assumed services, and an age of 3 to 7 days", () => {
    const hosts = Array.from({ length: 32 }, (_, i) => Result.getOrThrow(Address.parseHost(`8.8.8.${i + 1}`)))
    const entries = dnsEntries(hosts, 8333, now, random())
    const ages = entries.map(({ timestamp }) => days(timestamp))
    assert.isAtLeast(Math.min(...ages), 3)
    assert.isAtMost(Math.max(...ages), 7.001)
    assert.isAbove(Math.max(...ages) - Math.min(...ages), 2)
    assert.isTrue(entries.every(({ timestamp }) => Number.isInteger(timestamp)))
    assert.deepStrictEqual(new Set(entries.map(({ services }) => services)), new Set([1n | 8n | 2048n]))
    assert.deepStrictEqual(
      entries.map((entry) => Address.format(entry)),
      hosts.map((host) => `${Address.formatHost(host)}:8333`)
    )
  })
})

describe("fixed seeds", () => {
  const networks = ["ipv4", "ipv6", "onion", "i2p", "cjdns"] as const

  for (const network of [Network.mainnet, Network.testnet4, Network.signet]) {
    it.effect(`of ${network.name} are routable addresses, at most 512 of a network`, () =>
      Effect.gen(function* () {
        const seeds = yield* Effect.promise(() => loadFixedSeeds(network.name))
        for (const name of networks) {
          const entries = yield* loadFixedEntries(network.name, new Set([name]), random())
          assert.strictEqual(entries.length, seeds[name]?.length, "every text is an address of its network")
          assert.isAtLeast(entries.length, 1)
          assert.isAtMost(entries.length, 512)
          for (const entry of entries) {
            assert.isTrue(Address.isRoutable(entry))
            assert.strictEqual(entry.port, name === "i2p" ? 0 : network.port)
          }
          assert.strictEqual(new Set(entries.map(addressKey)).size, entries.length)
        }
      })
    )
  }

  it.effect("of mainnet are many of each large network", () =>
    Effect.gen(function* () {
      const seeds = yield* Effect.promise(() => loadFixedSeeds("mainnet"))
      for (const name of ["ipv4", "ipv6", "onion", "i2p"] as const) assert.strictEqual(seeds[name]?.length, 512)
    })
  )

  it.effect("are empty for other networks", () =>
    Effect.gen(function* () {
      for (const name of ["regtest", "my signet", "toString"]) {
        assert.deepStrictEqual(yield* loadFixedEntries(name, new Set(networks), random()), [])
      }
    })
  )

  it.effect("are entries of the wanted networks with an age of 7 to 14 days", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(now)
      const seeds = {
        ipv4: ["8.8.8.8:8333", "nonsense", "[::1]:1"],
        ipv6: ["[2001:db9::1]:8333"],
        onion: ["8.8.8.8:1"]
      }
      const entries = yield* fixedEntries(seeds, new Set(["ipv4", "onion", "i2p"]), random())
      assert.deepStrictEqual(entries.map(Address.format), ["8.8.8.8:8333"])
      const many = { ipv6: Array.from({ length: 200 }, () => "[2001:db9::1]:8333") }
      const ages = (yield* fixedEntries(many, new Set(["ipv6"]), random())).map(({ timestamp }) => days(timestamp))
      assert.strictEqual(ages.length, 200)
      assert.isAtLeast(Math.min(...ages), 7)
      assert.isAtMost(Math.max(...ages), 14.001)
      assert.isAbove(Math.max(...ages) - Math.min(...ages), 5)
    })
  )
})

describe("bad ports", () => {
  it("are the 85 of Core", () => {
    for (const port of [1, 22, 6000]) assert.isTrue(isBadPort(port))
    for (const port of [0, 80, 443, 8333, 18333, 38333, 48333]) assert.isFalse(isBadPort(port))
    assert.strictEqual(Array.from({ length: 65_536 }, (_, port) => port).filter(isBadPort).length, 85)
  })
})
