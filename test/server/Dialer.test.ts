/** The dialer: ways by network, names, and what is unreachable before anything is looked up. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import * as Address from "../../src/Address.ts"
import { ConnectionError, makePair } from "../../src/Connection.ts"
import * as Dialer from "../../src/server/Dialer.ts"

const onion = "explorerzydxu5ecjrkwceayqybizmpjjznk5izmitf2modhcusuqlid.onion"
const i2p = "udhdrtrcetjm5sxzskjyr5ztpeszydbh4dpl3pl4utgqqw2v4jna.b32.i2p"
const texts = { ipv4: "1.2.3.4", ipv6: "2001:db9::1", onion, i2p, cjdns: "fc00::1" } as const
const networks = Object.keys(texts) as ReadonlyArray<keyof typeof texts>

const parse = (host: string, port = 8333): Address.Address => ({
  ...Result.getOrThrow(Address.parseHost(host)),
  port
})

/** A way that connects, and writes down what it was asked for. */
const recording = (name: string, dialled: Array<string>) => (target: Dialer.Target) =>
  Effect.map(makePair(), ([connection]) => {
    dialled.push(`${name} ${Dialer.formatTarget(target)}`)
    return connection
  })

const allWays = (dialled: Array<string>, name = "way"): Dialer.Ways => {
  const way = recording(name, dialled)
  return { ipv4: way, ipv6: way, onion: way, i2p: way, cjdns: way, names: way }
}

const unreachable = (dialer: Dialer.Dialer, target: Dialer.Target) =>
  Effect.map(Effect.flip(dialer.dial(target, "manual")), (error) => {
    assert(error._tag === "Unreachable")
    return error
  })

describe("a dialer of ways", () => {
  for (const network of networks) {
    it.effect(`dials ${network} by its way alone, as an address and as text`, () =>
      Effect.gen(function* () {
        const dialled: Array<string> = []
        const dialer = Dialer.make({ [network]: recording(network, dialled) })
        assert.deepStrictEqual([...dialer.ways], [network])
        assert.isFalse(dialer.dialsNames)
        yield* dialer.dial(parse(texts[network]), "manual")
        yield* dialer.dial({ host: texts[network].toUpperCase(), port: 8333 }, "manual")
        assert.deepStrictEqual(dialled, Array(2).fill(`${network} ${Dialer.formatTarget(parse(texts[network]))}`))
        for (const other of networks.filter((other) => other !== network)) {
          for (const target of [parse(texts[other]), { host: texts[other], port: 8333 }]) {
            const error = yield* unreachable(dialer, target)
            assert.strictEqual(error.network, other)
            assert.strictEqual(error.target, target)
          }
        }
        assert.strictEqual(dialled.length, 2)
      })
    )
  }

  it.effect("gives the way the kind of the connection", () =>
    Effect.gen(function* () {
      const kinds: Array<string> = []
      const way: Dialer.Way<Dialer.Target> = (_, kind) =>
        Effect.andThen(
          Effect.sync(() => kinds.push(kind)),
          recording("", [])(parse("1.2.3.4"))
        )
      yield* Dialer.make({ ipv4: way }).dial(parse("1.2.3.4"), "private-broadcast")
      yield* Dialer.make({ names: way }).dial({ host: "seed.example", port: 1 }, "addr-fetch")
      assert.deepStrictEqual(kinds, ["private-broadcast", "addr-fetch"])
    })
  )

  it.effect("takes an IPv4-mapped address as IPv4, and this machine and its neighbours as their family", () =>
    Effect.gen(function* () {
      const dialled: Array<string> = []
      const dialer = Dialer.make({ ipv4: recording("ipv4", dialled) })
      yield* dialer.dial({ host: "::ffff:1.2.3.4", port: 1 }, "manual")
      yield* dialer.dial({ host: "127.0.0.1", port: 2 }, "manual")
      yield* dialer.dial(parse("192.168.0.1", 3), "manual")
      assert.deepStrictEqual(dialled, ["ipv4 1.2.3.4:1", "ipv4 127.0.0.1:2", "ipv4 192.168.0.1:3"])
      assert.strictEqual((yield* unreachable(dialer, parse("::1"))).network, "ipv6")
    })
  )

  it.effect("has no way to an address of an unknown network", () =>
    Effect.gen(function* () {
      const dialled: Array<string> = []
      const dialer = Dialer.make(allWays(dialled))
      for (const networkId of [0, Address.NetworkId.torV2, 7, 255]) {
        const error = yield* unreachable(dialer, { networkId, address: new Uint8Array(10), port: 8333 })
        assert.strictEqual(error.network, "not_publicly_routable")
      }
      assert.deepStrictEqual(dialled, [])
    })
  )

  it.effect("gives names to the way of names only", () =>
    Effect.gen(function* () {
      const dialled: Array<string> = []
      const { names, ...others } = allWays(dialled)
      yield* Dialer.make({ names }).dial({ host: "Seed.example", port: 8333 }, "manual")
      assert.deepStrictEqual(dialled, ["way Seed.example:8333"])
      const error = yield* unreachable(Dialer.make(others), { host: "seed.example", port: 8333 })
      assert.strictEqual(error.network, "name")
      assert.strictEqual(error.message, "seed.example:8333 is unreachable: names cannot be resolved")
      assert.strictEqual(dialled.length, 1)
    })
  )

  const badNames = [
    ["onion", `x${onion.slice(1)}`],
    ["onion", "abc.onion"],
    ["onion", `${onion}.`],
    ["onion", "FOO.OnIoN"],
    ["onion", `www.${onion}`],
    ["i2p", "zzz.i2p"],
    ["i2p", `${i2p}.`],
    ["i2p", "stats.I2P"],
    ["i2p", "a.b32.i2p"]
  ] as const
  it.effect("never gives a name of Tor or I2P to a resolver, however it is written", () =>
    Effect.gen(function* () {
      const dialled: Array<string> = []
      const dialer = Dialer.make(allWays(dialled))
      for (const [network, host] of badNames) {
        const error = yield* unreachable(dialer, { host, port: 8333 })
        assert.strictEqual(error.network, network, host)
        assert.include(error.message, `"${host}"`)
      }
      assert.deepStrictEqual(dialled, [])
      yield* dialer.dial({ host: "onion.example", port: 1 }, "manual")
      assert.deepStrictEqual(dialled, ["way onion.example:1"])
    })
  )

  it.effect("does not try another way when one fails", () =>
    Effect.gen(function* () {
      const dialled: Array<string> = []
      const refused = new ConnectionError({
        reason: { _tag: "DialFailed", problem: "Refused", host: onion, port: 8333, cause: undefined }
      })
      const dialer = Dialer.make({ ...allWays(dialled), onion: () => Effect.fail(refused) })
      assert.strictEqual(yield* Effect.flip(dialer.dial(parse(onion), "manual")), refused)
      assert.deepStrictEqual(dialled, [])
    })
  )
})

describe("onlynet", () => {
  it.effect("removes the ways of all other networks", () =>
    Effect.gen(function* () {
      const dialled: Array<string> = []
      const dialer = Dialer.make(allWays(dialled), { onlynet: ["onion"] })
      assert.deepStrictEqual([...dialer.ways], ["onion"])
      yield* dialer.dial(parse(onion), "manual")
      for (const network of ["ipv4", "ipv6", "i2p", "cjdns"] as const) {
        assert.strictEqual((yield* unreachable(dialer, parse(texts[network]))).network, network)
      }
      yield* unreachable(dialer, { host: "seed.example", port: 1 })
      assert.strictEqual(dialled.length, 1)
    })
  )

  it("keeps names only where both IPv4 and IPv6 may be dialled", () => {
    const dialsNames = (...onlynet: ReadonlyArray<Dialer.NetworkName>) =>
      Dialer.make(allWays([]), { onlynet }).dialsNames
    assert.isTrue(dialsNames("ipv6", "ipv4", "onion"))
    assert.isFalse(dialsNames("ipv4"))
    assert.isFalse(dialsNames("ipv6", "onion"))
    assert.isFalse(dialsNames())
  })
})

describe("dialers combined", () => {
  it.effect("dial each network by the first that has a way, and by no other", () =>
    Effect.gen(function* () {
      const dialled: Array<string> = []
      const first = Dialer.make({ ipv4: recording("first", dialled), onion: recording("first", dialled) })
      const second = Dialer.make({ ...allWays(dialled, "second"), i2p: undefined })
      const dialer = Dialer.combine([first, second])
      assert.deepStrictEqual([...dialer.ways], ["ipv4", "ipv6", "onion", "cjdns"])
      yield* dialer.dial(parse("1.2.3.4"), "manual")
      yield* dialer.dial({ host: onion, port: 8333 }, "manual")
      yield* dialer.dial(parse("2001:db9::1"), "manual")
      yield* dialer.dial({ host: "seed.example", port: 1 }, "manual")
      assert.strictEqual((yield* unreachable(dialer, parse(i2p))).network, "i2p")
      assert.deepStrictEqual(dialled, [
        "first 1.2.3.4:8333",
        `first ${onion}:8333`,
        "second [2001:db9::1]:8333",
        "second seed.example:1"
      ])
    })
  )

  it.effect("are one dialer as layers, too, with the networks of onlynet", () =>
    Effect.gen(function* () {
      const dialled: Array<string> = []
      const layers = [
        Dialer.layer({ onion: recording("tor", dialled) }),
        Layer.succeed(Dialer.Dialer, Dialer.fromFunction(recording("all", dialled)))
      ]
      const dial = (host: string) => Effect.flatMap(Dialer.Dialer, (dialer) => dialer.dial({ host, port: 1 }, "manual"))
      yield* Effect.andThen(dial(onion), dial("seed.example")).pipe(Effect.provide(Dialer.layerCombined(layers)))
      assert.deepStrictEqual(dialled, [`tor ${onion}:1`, "all seed.example:1"])
      const only = Dialer.layerCombined(layers, { onlynet: ["ipv4"] })
      assert.strictEqual((yield* Effect.flip(Effect.provide(dial(onion), only)))._tag, "Unreachable")
    })
  )
})

describe("a dialer of a function", () => {
  it.effect("gives it every address and every name", () =>
    Effect.gen(function* () {
      const dialled: Array<string> = []
      const dialer = Dialer.fromFunction(recording("all", dialled))
      assert.deepStrictEqual([...dialer.ways], [...networks])
      assert.isTrue(dialer.dialsNames)
      for (const network of networks) yield* dialer.dial(parse(texts[network]), "manual")
      yield* dialer.dial({ host: "seed.example", port: 1 }, "manual")
      assert.strictEqual(dialled.length, 6)
      yield* unreachable(dialer, { host: "bad.onion", port: 1 })
      const only = Dialer.fromFunction(recording("all", dialled), { onlynet: ["ipv4"] })
      yield* unreachable(only, parse(onion))
      assert.strictEqual(dialled.length, 6)
    })
  )
})
