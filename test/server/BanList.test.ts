import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { SecureRandom } from "effect/crypto"
import * as Result from "effect/Result"
import { TestClock } from "effect/testing"
import * as Address from "../../src/Address.ts"
import * as BanList from "../../src/server/BanList.ts"
import { Bans } from "../../src/server/internal/bans.ts"
import { makeRandom } from "../../src/server/internal/random.ts"
import { readVector } from "../support/vectors.ts"

const host = (text: string): Address.Host => Result.getOrThrow(Address.parseHost(text))
const subnet = (text: string): BanList.Subnet => Result.getOrThrow(BanList.parseSubnet(text))
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const text = (of: Uint8Array): string => new TextDecoder().decode(of)
const written = readVector("core/banlist.json")

const secureRandom = SecureRandom.layerWebCrypto
const make = (options?: BanList.Options) => Effect.provide(BanList.make(options), secureRandom)

const hour = 3_600_000
const day = 24 * hour
const onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion"

describe("BanList", () => {
  it.effect("bans a subnet for 24 hours", () =>
    Effect.gen(function* () {
      const bans = yield* make()
      yield* TestClock.setTime(1_000_000)
      const ban = yield* bans.ban("1.2.3.0/24")
      assert.deepInclude(ban, { created: 1_000, until: 1_000 + 86_400 })
      assert.isTrue(bans.has(host("1.2.3.4"), 1_000_000))
      assert.isTrue(bans.has(host("1.2.3.4"), 1_000_000 + day - 1))
      assert.isFalse(bans.has(host("1.2.3.4"), 1_000_000 + day))
      assert.isFalse(bans.has(host("1.2.4.4"), 1_000_000))
    })
  )

  it.effect("bans for a while, until a time, or for ever", () =>
    Effect.gen(function* () {
      const bans = yield* make()
      yield* TestClock.setTime(1_000_500)
      assert.strictEqual((yield* bans.ban("1.0.0.1", { for: "2 hours" })).until, 1_000 + 7_200)
      assert.strictEqual((yield* bans.ban("1.0.0.2", { until: 5_000 })).until, 5_000)
      assert.strictEqual((yield* bans.ban("1.0.0.3", { for: Duration.infinity })).until, Number.MAX_SAFE_INTEGER)
      // As in Core 0 means the default, for both.
      assert.strictEqual((yield* bans.ban("1.0.0.4", { for: 0 })).until, 1_000 + 86_400)
      assert.strictEqual((yield* bans.ban("1.0.0.5", { until: 0 })).until, 1_000 + 86_400)
      assert.strictEqual((yield* bans.ban("1.0.0.6", { until: Infinity })).until, Number.MAX_SAFE_INTEGER)
      assert.deepInclude(yield* bans.ban("1.0.0.7", { reason: "spam" }), { reason: "spam" })
    })
  )

  it.effect("refuses a text that is no subnet", () =>
    Effect.gen(function* () {
      const bans = yield* make()
      for (const wrong of ["1.2.3.4/99", "", "example.com", "1.2.3.4:8333"]) {
        const error = yield* Effect.flip(bans.ban(wrong))
        assert.strictEqual(error.reason._tag, "InvalidSubnet")
        assert.notInclude(error.message, "\n")
        assert.strictEqual((yield* Effect.flip(bans.unban(wrong))).reason._tag, "InvalidSubnet")
      }
      assert.deepStrictEqual(yield* bans.entries, [])
    })
  )

  it.effect("refuses a time in the past", () =>
    Effect.gen(function* () {
      const bans = yield* make()
      yield* TestClock.setTime(1_000_000)
      for (const until of [1, 999, -1, Number.NaN]) {
        const error = yield* Effect.flip(bans.ban("1.2.3.4", { until }))
        assert.deepStrictEqual(error.reason, { _tag: "TimeInThePast", until })
      }
      assert.strictEqual((yield* bans.ban("1.2.3.4", { until: 1_000 })).until, 1_000)
    })
  )

  it.effect("refuses to ban twice: the same subnet, or a host of a banned one", () =>
    Effect.gen(function* () {
      const bans = yield* make()
      yield* bans.ban("127.0.0.0/24")
      for (const again of ["127.0.0.0/24", "127.0.0.5/24", "127.0.0.1"]) {
        const error = yield* Effect.flip(bans.ban(again, { for: "1000 days" }))
        assert.strictEqual(error.reason._tag, "AlreadyBanned")
      }
      // A subnet within another one is another ban, as in Core.
      yield* bans.ban("127.0.0.0/25")
      yield* bans.ban("127.0.0.1/32")
      yield* bans.ban(subnet("127.0.0.2"))
      assert.lengthOf(yield* bans.entries, 4)
    })
  )

  it.effect("bans again what was banned until now", () =>
    Effect.gen(function* () {
      const bans = yield* make()
      yield* bans.ban("1.2.3.4", { for: "1 hour" })
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* bans.ban("1.2.3.4")).until, 3_600 + 86_400)
    })
  )

  it.effect("removes exactly the ban that is named", () =>
    Effect.gen(function* () {
      const bans = yield* make()
      yield* bans.ban("1.2.3.0/24")
      const error = yield* Effect.flip(bans.unban("1.2.3.4"))
      assert.strictEqual(error.reason._tag, "NotBanned")
      assert.strictEqual(error.message, "1.2.3.4/32 is not banned")
      assert.strictEqual(BanList.formatSubnet((yield* bans.unban("1.2.3.77/24")).subnet), "1.2.3.0/24")
      assert.isFalse(bans.has(host("1.2.3.4"), 0))
      assert.strictEqual((yield* Effect.flip(bans.unban("1.2.3.0/24"))).reason._tag, "NotBanned")
    })
  )

  it.effect("lists bans as Core does, sorted by subnet", () =>
    Effect.gen(function* () {
      const bans = yield* make()
      yield* bans.ban(onion, { for: "1 hour" })
      yield* bans.ban("2001:db8::/32", { for: "1 hour" })
      yield* bans.ban("10.0.0.0/8", { for: "1 hour", reason: "mine" })
      yield* bans.ban("9.9.9.9", { for: "1 hour" })
      yield* TestClock.adjust("10 minutes")
      const entries = yield* bans.entries
      assert.deepStrictEqual(
        entries.map(({ address }) => address),
        ["9.9.9.9/32", "10.0.0.0/8", "2001:db8::/32", onion]
      )
      assert.deepStrictEqual(entries[1], {
        address: "10.0.0.0/8",
        ban_created: 0,
        banned_until: 3_600,
        ban_duration: 3_600,
        time_remaining: 3_000,
        reason: "mine"
      })
      // In its last second a ban is listed, and does not hold any more.
      yield* TestClock.adjust("50 minutes")
      assert.isFalse(bans.has(host("9.9.9.9"), hour))
      assert.strictEqual((yield* bans.entries)[0]?.time_remaining, 0)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* bans.entries, [])
    })
  )

  it.effect("bans a host by a policy, and lets the later end stand", () =>
    Effect.gen(function* () {
      const bans = yield* make()
      const visitor = host("1.2.3.4")
      assert.strictEqual(bans.banHost(visitor, { for: "2 hours", reason: "first" }, 0)?.until, 7_200)
      assert.deepInclude(bans.banHost(visitor, { for: "1 hour", reason: "second" }, 0), {
        until: 7_200,
        reason: "first"
      })
      assert.deepInclude(bans.banHost(visitor, { for: "3 hours", reason: "third" }, 0), {
        until: 10_800,
        reason: "third"
      })
      assert.deepInclude(bans.banHost(visitor, { for: "3 hours", reason: "same" }, 0), {
        until: 10_800,
        reason: "third"
      })
      assert.isUndefined(bans.banHost({ networkId: 99, address: new Uint8Array(4) }, { for: "1 hour" }, 0))
      assert.lengthOf(yield* bans.entries, 1)
    })
  )

  it.effect("tells of every change before the function returns", () =>
    Effect.gen(function* () {
      const bans = yield* make({ capacity: 2 })
      const told: Array<string> = []
      const stop = bans.onChange((change) =>
        told.push(change._tag === "Cleared" ? change._tag : `${change._tag} ${BanList.formatSubnet(change.ban.subnet)}`)
      )
      yield* bans.ban("1.0.0.1", { for: "1 hour" })
      yield* bans.unban("1.0.0.1")
      yield* bans.ban("1.0.0.2", { for: "1 hour" })
      bans.sweep(2 * hour)
      yield* bans.ban("1.0.0.3", { for: "3 hours" })
      yield* bans.ban("1.0.0.4", { for: "2 hours" })
      yield* bans.ban("1.0.0.5", { for: "4 hours" })
      yield* bans.clear
      stop()
      yield* bans.ban("1.0.0.6")
      assert.deepStrictEqual(told, [
        "Banned 1.0.0.1/32",
        "Unbanned 1.0.0.1/32",
        "Banned 1.0.0.2/32",
        "Expired 1.0.0.2/32",
        "Banned 1.0.0.3/32",
        "Banned 1.0.0.4/32",
        "Dropped 1.0.0.4/32",
        "Banned 1.0.0.5/32",
        "Cleared"
      ])
    })
  )

  it.effect("holds 100,000 bans, and then drops the one that ends soonest", () =>
    Effect.gen(function* () {
      const bans = yield* make()
      const dropped: Array<BanList.Ban> = []
      bans.onChange((change) => {
        if (change._tag === "Dropped") dropped.push(change.ban)
      })
      const address = (n: number): Address.Host => ({
        networkId: 1,
        address: Uint8Array.of(1 + (n >>> 16), n >>> 8, n, 1)
      })
      const length = (n: number) => ((n * 7_919) % 100_003) + 1
      for (let n = 0; n < 100_010; n++) bans.banHost(address(n), { for: Duration.hours(length(n)) }, 0)
      assert.lengthOf(yield* bans.entries, 100_000)
      assert.lengthOf(dropped, 10)
      // Those with the shortest time: 1 to 9 hours and so on, as far as they had been added.
      assert.isBelow(Math.max(...dropped.map(({ until }) => until / 3_600)), 30)
      assert.isTrue(bans.has(address(100_009), 0))
      assert.isFalse(bans.has(address(200_000), 0))
      // A new one that would be the first to end is dropped itself.
      const shortest = bans.banHost(host("200.0.0.1"), { for: "1 second" }, 0)
      assert.isDefined(shortest)
      assert.isFalse(bans.has(host("200.0.0.1"), 0))
    })
  )
})

describe("discouraged hosts", () => {
  it.effect("are IPv4 addresses and /64 of IPv6", () =>
    Effect.gen(function* () {
      const bans = yield* make()
      for (const one of ["1.2.3.4", "2001:db8:0:1::1", onion]) bans.discourage(host(one))
      assert.isTrue(bans.isDiscouraged(host("1.2.3.4")))
      assert.isTrue(bans.isDiscouraged(host("::ffff:1.2.3.4")))
      assert.isFalse(bans.isDiscouraged(host("1.2.3.5")))
      assert.isTrue(bans.isDiscouraged(host("2001:db8:0:1:ffff::")))
      assert.isFalse(bans.isDiscouraged(host("2001:db8:0:2::1")))
      assert.isTrue(bans.isDiscouraged(host(onion)))
      // They are not banned, and not listed.
      assert.isFalse(bans.has(host("1.2.3.4"), 0))
      assert.deepStrictEqual(yield* bans.entries, [])
    })
  )

  it.effect("are single IPv6 addresses if so wished, as in Core", () =>
    Effect.gen(function* () {
      const bans = yield* make({ exact: true })
      bans.discourage(host("2001:db8:0:1::1"))
      assert.isTrue(bans.isDiscouraged(host("2001:db8:0:1::1")))
      assert.isFalse(bans.isDiscouraged(host("2001:db8:0:1::2")))
    })
  )

  it.effect("are the last 50,000", () =>
    Effect.gen(function* () {
      const bans = yield* make()
      const address = (n: number): Address.Host => ({ networkId: 1, address: Uint8Array.of(1, n >>> 16, n >>> 8, n) })
      for (let n = 0; n < 150_000; n++) bans.discourage(address(n))
      for (let n = 100_000; n < 150_000; n++) if (!bans.isDiscouraged(address(n))) assert.fail(`${n} is forgotten`)
      let old = 0
      for (let n = 0; n < 50_000; n++) old += Number(bans.isDiscouraged(address(n)))
      assert.isAtMost(old, 5)
    })
  )
})

describe("banlist.json", () => {
  /** The time at which Core made the list of the vector. */
  const madeAt = 1_795_791_871_000

  const load = (file: string | Uint8Array, now = 0) =>
    Effect.map(make(), (bans) => ({ bans, ...bans.load(typeof file === "string" ? bytes(file) : file, now) }))

  it.effect("of Bitcoin Core is read, and written with the same bytes", () =>
    Effect.gen(function* () {
      const { bans, count, damage, skipped } = yield* load(written, madeAt)
      assert.deepStrictEqual({ count, damage, skipped }, { count: 3, damage: undefined, skipped: [] })
      assert.isTrue(bans.has(host("1.2.3.200"), madeAt))
      assert.isTrue(bans.has(host("2001:db8:77::1"), madeAt))
      assert.isTrue(bans.has(host(onion), madeAt))
      assert.isFalse(bans.has(host("1.2.4.1"), madeAt))
      assert.strictEqual(text(bans.encode(madeAt)), text(written))
    })
  )

  it.effect("without bans is that of Core, too", () =>
    Effect.gen(function* () {
      const { bans } = yield* load('{"banned_nets": []}')
      assert.match(text(bans.encode(0)), /^\{\n {4}"_warning_": "[^\n]*",\n {4}"banned_nets": \[\n {4}\]\n\}\n$/)
    })
  )

  it.effect("leaves out bans that have ended, in reading and in writing", () =>
    Effect.gen(function* () {
      const { bans } = yield* load(written, madeAt)
      const later = text(bans.encode(madeAt + 86_401_000))
      assert.include(later, "1.2.3.0/24")
      assert.notInclude(later, "2001:db8::/32")
      const { bans: read } = yield* load(written, madeAt + 86_401_000)
      assert.strictEqual(text(read.encode(madeAt)), later)
    })
  )

  it.effect("with bad entries costs these only (banman_tests)", () =>
    Effect.gen(function* () {
      const { bans, count, damage, skipped } = yield* load(
        `{ "banned_nets": [
          { "version": 1, "ban_created": 0, "banned_until": 778, "address": "aaaaaaaaa" },
          { "version": 2, "ban_created": 0, "banned_until": 778, "address": "bbbbbbbbb" },
          { "version": 1, "ban_created": 0, "banned_until": 778, "address": "1.0.0.0/8" }
        ] }`,
        777_000
      )
      assert.strictEqual(count, 1)
      assert.isUndefined(damage)
      assert.deepStrictEqual(
        skipped.map(({ index }) => index),
        [0, 1]
      )
      assert.include(skipped[0]?.problem, "aaaaaaaaa")
      assert.strictEqual(skipped[1]?.problem, "its version is 2 instead of 1")
      assert.isTrue(bans.has(host("1.2.3.4"), 777_000))
      assert.isFalse(bans.has(host("1.2.3.4"), 778_000))
    })
  )

  const good = { version: 1, ban_created: 5, banned_until: 1_000_000, address: "1.0.0.0/8" }

  it.effect.each([
    ["null", null],
    ["a number", 7],
    ["a text", "1.2.3.4"],
    ["a list", [good]],
    ["without version", { ...good, version: undefined }],
    ["with a version in text", { ...good, version: "1" }],
    ["without a beginning", { ...good, ban_created: undefined }],
    ["without an end", { ...good, banned_until: undefined }],
    ["with an end in text", { ...good, banned_until: "1000" }],
    ["with a fraction", { ...good, banned_until: 1.5 }],
    ["with too large an end", { ...good, banned_until: 1e300 }],
    ["without an address", { ...good, address: undefined }],
    ["with a number as address", { ...good, address: 16_777_216 }],
    ["with a wrong prefix", { ...good, address: "1.2.3.4/99" }]
  ])("skips an entry that is %s", ([, entry]) =>
    Effect.gen(function* () {
      const file = JSON.stringify({ banned_nets: [entry, { ...good, address: "9.0.0.0/8" }, entry] })
      const { bans, count, skipped } = yield* load(file)
      assert.strictEqual(count, 1)
      assert.lengthOf(skipped, 2)
      assert.isTrue(bans.has(host("9.1.1.1"), 0))
    })
  )

  it.effect("keeps reasons and keys that it does not know", () =>
    Effect.gen(function* () {
      const more = { ...good, reason: "spam", asn: 64_496, note: { by: "operator", __proto__: 1 } }
      const odd = `{"version":1,"ban_created":5,"banned_until":1000000,"address":"2.0.0.0/8","__proto__":{"x":1},"reason":7}`
      const { bans, skipped } = yield* load(`{"banned_nets":[${JSON.stringify(more)},${odd}]}`)
      assert.deepStrictEqual(skipped, [])
      assert.strictEqual((yield* bans.entries)[0]?.reason, "spam")
      const file = JSON.parse(text(bans.encode(0)))
      assert.deepStrictEqual(file.banned_nets[0], more)
      assert.strictEqual(JSON.stringify(file.banned_nets[1]), odd)
      assert.isUndefined(({} as { readonly x?: unknown }).x)
      // The four keys of Core come first.
      assert.deepStrictEqual(Object.keys(file.banned_nets[0]).slice(0, 4), [
        "version",
        "ban_created",
        "banned_until",
        "address"
      ])
    })
  )

  it.effect("takes the later end of two entries for one subnet", () =>
    Effect.gen(function* () {
      const entries = [7, 9, 8].map((end) => Object.assign({}, good, { banned_until: end }))
      const { bans } = yield* load(JSON.stringify({ banned_nets: entries }))
      assert.deepStrictEqual(
        (yield* bans.entries).map(({ banned_until }) => banned_until),
        [9]
      )
    })
  )

  it.effect.each([
    ["an empty file", ""],
    ["no JSON", "bans: none"],
    ["null", "null"],
    ["a list", "[]"],
    ["no list of bans", "{}"],
    ["a list of bans that is none", '{"banned_nets": 7}'],
    ["deep nesting", "[".repeat(100_000)]
  ])("that is %s is empty, and says so", ([, file]) =>
    Effect.gen(function* () {
      const { bans, count, damage } = yield* load(file)
      assert.strictEqual(count, 0)
      assert.isString(damage)
      assert.deepStrictEqual(yield* bans.entries, [])
    })
  )

  it.effect("cut at every byte keeps the entries that are whole", () =>
    Effect.gen(function* () {
      const ends = [...text(written).matchAll(/\}/g)].map(({ index }) => index + 1)
      for (let length = 0; length <= written.length; length++) {
        const { count, damage } = yield* load(written.subarray(0, length), madeAt)
        assert.strictEqual(count, Math.min(3, ends.filter((end) => end <= length).length), `${length}`)
        // Only the line feed at the end may be missing.
        assert.strictEqual(damage === undefined, length >= written.length - 1, `${length}`)
      }
    })
  )

  it.effect("of any bytes never throws", () =>
    Effect.gen(function* () {
      const random = makeRandom(new Uint8Array(16).fill(1))
      for (let round = 0; round < 500; round++) {
        const file = Uint8Array.from(written)
        for (let i = random.below(8); i >= 0; i--) file[random.below(file.length)] = random.below(256)
        yield* load(file, madeAt)
      }
    })
  )
})

describe("Bans", () => {
  it("does not grow while the same subnet is banned and unbanned", () => {
    const bans = new Bans(100_000)
    const one = subnet("1.2.3.0/24")
    for (let round = 0; round < 10_000; round++) {
      bans.add({ subnet: one, created: round, until: round + 1_000 })
      if (round % 2 === 0) bans.remove(one)
      assert.isAtMost(bans.remembered, 20)
    }
  })

  it("agrees with a plain map, whatever is added and removed", () => {
    const random = makeRandom(new Uint8Array(16).fill(2))
    const bans = new Bans(20)
    const model = new Map<string, BanList.Ban>()
    for (let step = 0; step < 5_000; step++) {
      const now = Math.floor(step / 10)
      const one = subnet(`1.2.${random.below(40)}.0/24`)
      const key = BanList.formatSubnet(one)
      switch (random.below(4)) {
        case 0:
        case 1: {
          const ban = { subnet: one, created: now, until: now + random.below(100) + step / 100_000 }
          const old = model.get(key)
          const { dropped, isNew } = bans.add(ban)
          if (old === undefined || old.until < ban.until) model.set(key, ban)
          if (model.size > 20) {
            const soonest = [...model].toSorted(([, a], [, b]) => a.until - b.until)[0]!
            model.delete(soonest[0])
            assert.strictEqual(dropped, soonest[1])
          } else {
            assert.isUndefined(dropped)
          }
          assert.strictEqual(isNew, model.get(key) === ban)
          break
        }
        case 2:
          assert.strictEqual(bans.remove(one), model.get(key))
          model.delete(key)
          break
        default: {
          const ended = [...model].filter(([, ban]) => ban.until < now)
          for (const [text] of ended) model.delete(text)
          assert.sameMembers(
            [...bans.sweep(now)],
            ended.map(([, ban]) => ban)
          )
        }
      }
      assert.sameMembers([...bans.all()], [...model.values()])
      assert.strictEqual(bans.has({ networkId: 1, address: one.address }, now), (model.get(key)?.until ?? 0) > now)
    }
  })
})
