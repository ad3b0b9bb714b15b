/** Our own addresses: which of them a remote is told. The first cases are those of Bitcoin Core's net_tests. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Option, Result, Scope } from "effect"
import { SecureRandom } from "effect/crypto"
import * as Address from "../../src/Address.ts"
import {
  LocalTable,
  reachabilityFrom,
  type Remote,
  scores,
  type Settings
} from "../../src/server/internal/localAddresses.ts"
import { networkNameOf } from "../../src/server/internal/networkNames.ts"
import type { Random } from "../../src/server/internal/random.ts"
import * as LocalAddresses from "../../src/server/LocalAddresses.ts"
import * as NodeLocalAddresses from "../../src/server/NodeLocalAddresses.ts"

const parse = (text: string, port = 8333): Address.Address => Result.getOrThrow(Address.parse(text, port))

const ours = {
  ipv4: parse("1.2.3.4"),
  ipv6: parse("1122:3344:5566:7788:9900:aabb:ccdd:eeff"),
  tunnel: parse("2002:3344:5566:7788:9900:aabb:ccdd:eeff"),
  teredo: parse("2001:0:5566:7788:9900:aabb:ccdd:eeff"),
  onion: parse("pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion"),
  i2p: parse("udhdrtrcetjm5sxzskjyr5ztpeszydbh4dpl3pl4utgqqw2v4jna.b32.i2p"),
  cjdns: parse("fc00:3344:5566:7788:9900:aabb:ccdd:eeff")
} as const
type Name = keyof typeof ours
const names = Object.keys(ours) as ReadonlyArray<Name>

const table = (settings: Partial<Settings> = {}) =>
  new LocalTable({
    listens: true,
    port: 8333,
    discovers: true,
    networks: new Set(["ipv4", "ipv6", "onion", "i2p", "cjdns"]),
    ...settings
  })

const remote = (host: Address.Host, rest: Partial<Remote> = {}): Remote => ({
  host,
  network: networkNameOf(host),
  isInbound: false,
  ...rest
})

/** Always draws this number, and counts the draws by their bound. */
const drawing = (value: number) => {
  const bounds: Array<number> = []
  const random: Random = {
    next: () => 0,
    below: (bound) => {
      bounds.push(bound)
      return Math.min(value, bound - 1)
    }
  }
  return { random, bounds }
}
const { random: takes } = drawing(0)
const { random: declines } = drawing(Infinity)

const told = (local: LocalTable, to: Remote, random = declines): string | undefined => {
  const best = local.bestFor(to, random)
  return best === undefined ? undefined : Address.format(best)
}

describe("the address that a remote is told (Core's advertise_local_address)", () => {
  const cases: ReadonlyArray<
    readonly [what: string, has: ReadonlyArray<Name>, told: { readonly [to in Name]: Name | undefined }]
  > = [
    [
      "one of IPv4, to all but privacy networks",
      ["ipv4"],
      { ipv4: "ipv4", ipv6: "ipv4", tunnel: "ipv4", teredo: "ipv4", cjdns: "ipv4", onion: undefined, i2p: undefined }
    ],
    [
      "those of privacy networks, each in its own network only",
      ["onion", "i2p"],
      {
        ipv4: undefined,
        ipv6: undefined,
        tunnel: undefined,
        teredo: undefined,
        cjdns: undefined,
        onion: "onion",
        i2p: "i2p"
      }
    ],
    [
      "the one that it reaches best, of all networks",
      names,
      { ipv4: "ipv4", ipv6: "ipv6", tunnel: "ipv6", teredo: "ipv4", onion: "onion", i2p: "i2p", cjdns: "cjdns" }
    ]
  ]
  for (const [what, has, expected] of cases) {
    it(what, () => {
      for (const order of [has, has.toReversed()]) {
        const local = table()
        for (const name of order) assert.isDefined(local.add(ours[name], scores.interface), name)
        for (const to of names) {
          const wanted = expected[to]
          assert.strictEqual(
            told(local, remote(ours[to])),
            wanted === undefined ? undefined : Address.format(ours[wanted]),
            to
          )
        }
      }
    })
  }

  it("is ours if the remote names one of another network (ipv4_peer_with_ipv6_addrMe_test)", () => {
    const local = table()
    local.add(ours.ipv4, scores.bind)
    const to = remote(parse("160.176.192.1"), { says: parse("cc00::", 7777) })
    local.seen(to)
    assert.strictEqual(told(local, to, takes), "1.2.3.4:8333")
  })
})

describe("the reachability of an address", () => {
  it("is the table of Core, for each pair", () => {
    const rows = names.map((theirs) => names.map((own) => reachabilityFrom(ours[own], ours[theirs])))
    // Ours: IPv4, IPv6, tunnel, Teredo, onion, I2P, CJDNS.
    assert.deepStrictEqual(rows, [
      [4, 1, 1, 1, 1, 1, 1],
      [4, 5, 3, 2, 1, 1, 1],
      [4, 5, 3, 2, 1, 1, 1],
      [4, 3, 3, 2, 1, 1, 1],
      [4, 1, 1, 1, 6, 1, 1],
      [1, 1, 1, 1, 1, 6, 1],
      [1, 1, 1, 1, 1, 1, 6]
    ])
    assert.deepStrictEqual(
      names.map((own) => reachabilityFrom(ours[own], parse("127.0.0.1"))),
      [4, 3, 3, 2, 6, 1, 1]
    )
    assert.strictEqual(reachabilityFrom(parse("192.168.0.1"), ours.ipv4), 0)
  })

  it("counts the tunnels of RFC 6052 and RFC 6145", () => {
    for (const text of ["64:ff9b::102:304", "::ffff:0:102:304"]) {
      assert.strictEqual(reachabilityFrom(parse(text), ours.ipv6), 3, text)
    }
  })
})

describe("scores", () => {
  it("decide between addresses that a remote reaches alike", () => {
    const local = table()
    const [low, high] = [parse("5.5.5.5"), parse("6.6.6.6")]
    local.add(high, scores.bind)
    local.add(low, scores.interface)
    assert.strictEqual(told(local, remote(ours.ipv4)), "6.6.6.6:8333")
    // Two inbound remotes name the other one.
    for (const host of ["7.7.7.7", "8.8.8.8"]) local.seen(remote(parse(host), { isInbound: true, says: low }))
    assert.strictEqual(told(local, remote(ours.ipv4)), "5.5.5.5:8333")
    assert.deepStrictEqual(
      local.all().map(({ score }) => score),
      [2, 3]
    )
  })

  it("do not rise by remotes that we dialled", () => {
    const local = table()
    local.add(ours.ipv4, scores.bind)
    local.seen(remote(parse("7.7.7.7"), { says: ours.ipv4 }))
    assert.strictEqual(local.all()[0]?.score, 2)
  })

  it("count whatever the port that a remote names", () => {
    const local = table()
    local.add(ours.ipv4, scores.bind)
    local.seen(remote(parse("7.7.7.7"), { isInbound: true, says: parse("1.2.3.4:50000") }))
    assert.strictEqual(local.all()[0]?.score, 3)
    assert.strictEqual(told(local, remote(ours.ipv4)), "1.2.3.4:8333")
  })

  it("are those of the best owner, and the address goes with the last one", () => {
    const local = table()
    const removeBind = local.add(ours.ipv4, scores.bind)!
    const removeMapped = local.add(parse("1.2.3.4:9999"), scores.mapped)!
    assert.deepStrictEqual(local.all(), [{ address: parse("1.2.3.4:9999"), score: 3 }])
    removeMapped()
    removeMapped()
    assert.deepStrictEqual(local.all(), [{ address: ours.ipv4, score: 2 }])
    assert.isTrue(local.has(parse("1.2.3.4:1")))
    removeBind()
    assert.deepStrictEqual(local.all(), [])
    assert.isFalse(local.has(ours.ipv4))
  })
})

describe("an address is not taken", () => {
  it("if it is not routable", () => {
    for (const text of ["127.0.0.1", "192.168.1.1", "::1", "fe80::1", "0.0.0.0"]) {
      assert.isUndefined(table().add(parse(text), scores.given), text)
    }
  })

  it("from interfaces and listeners without discovery", () => {
    const local = table({ discovers: false })
    for (const score of [scores.interface, scores.bind, scores.mapped]) {
      assert.isUndefined(local.add(ours.ipv4, score))
    }
    assert.isDefined(local.add(ours.ipv4, scores.given))
  })

  it("of a network that we do not reach, unless the operator gave it (addlocal_onlynet_externalip)", () => {
    const local = table({ discovers: false, networks: new Set(["ipv4"]) })
    assert.isUndefined(local.add(ours.onion, scores.bind))
    assert.isUndefined(local.add(ours.onion, scores.given))
    assert.isFalse(local.has(ours.onion))
    assert.isDefined(local.add(ours.onion, scores.given, { isExternal: true }))
    assert.isTrue(local.has(ours.onion))
    assert.isDefined(local.add(ours.ipv4, scores.given))
  })
})

describe("the address that a remote names as ours", () => {
  const says = parse("2.3.4.5:20002")
  const other = (host: string) => remote(parse(host), { isInbound: true, says })

  it("is told with our port to a remote that we dialled, and with its own to an inbound one (get_local_addr_for_peer_port)", () => {
    const local = table({ port: 20_001 })
    const outbound = remote(parse("1.2.3.4"), { says })
    const inbound = remote(parse("5.6.7.8"), { isInbound: true, says })
    local.seen(outbound)
    assert.isUndefined(told(local, outbound, takes), "one witness is not enough")
    local.seen(inbound)
    assert.strictEqual(told(local, outbound), "2.3.4.5:20001")
    assert.strictEqual(told(local, inbound), "2.3.4.5:20002")
    local.add(parse("9.9.9.9:30003"), scores.bind)
    assert.strictEqual(told(local, outbound, takes), "2.3.4.5:30003")
  })

  it("is believed only if remotes of two groups say it", () => {
    const local = table()
    for (const host of ["1.2.3.4", "1.2.9.9", "2002:102:304::1", "1.2.3.4"]) local.seen(other(host))
    assert.isUndefined(told(local, other("1.2.3.4"), takes))
    local.seen(other("1.3.0.1"))
    assert.strictEqual(told(local, other("1.2.3.4"), takes), "2.3.4.5:20002")
    assert.isUndefined(told(local, remote(parse("1.2.3.4"))), "a remote that says nothing is told nothing")
  })

  it("is not believed from a proxy: all remotes have its address", () => {
    const local = table()
    for (const host of ["127.0.0.1", "192.168.0.1", "7.7.7.7"]) local.seen(other(host))
    assert.isUndefined(told(local, other("7.7.7.7"), takes))
    local.seen(other("8.8.8.8"))
    assert.isDefined(told(local, other("7.7.7.7"), takes))
    assert.isUndefined(told(local, other("127.0.0.1"), takes))
  })

  it("is used in one of two cases, and in one of eight if ours is better than given", () => {
    const local = table()
    local.add(ours.ipv4, scores.given)
    for (const host of ["7.7.7.7", "8.8.8.8"]) local.seen(other(host))
    const { bounds, random } = drawing(1)
    assert.strictEqual(told(local, other("7.7.7.7"), random), "1.2.3.4:8333")
    local.seen(remote(parse("9.9.9.9"), { isInbound: true, says: ours.ipv4 }))
    assert.strictEqual(told(local, other("7.7.7.7"), random), "1.2.3.4:8333")
    assert.deepStrictEqual(bounds, [2, 8])
    assert.strictEqual(told(local, other("7.7.7.7"), takes), "2.3.4.5:20002")
  })

  it("is not used without discovery, in a network that we do not reach, or without a port", () => {
    const cases: ReadonlyArray<readonly [LocalTable, Address.Address]> = [
      [table({ discovers: false }), says],
      [table({ networks: new Set(["ipv6"]) }), says],
      [table(), parse("2.3.4.5:0")],
      [table(), parse("10.0.0.1:8333")]
    ]
    for (const [local, says] of cases) {
      const from = (host: string) => remote(parse(host), { isInbound: true, says })
      for (const host of ["7.7.7.7", "8.8.8.8"]) local.seen(from(host))
      assert.isUndefined(told(local, from("7.7.7.7"), takes))
    }
  })

  it("never tells a clearnet address to a privacy network, or the reverse", () => {
    const local = table()
    const claims = [
      [says, "onion"],
      [ours.onion, "ipv4"]
    ] as const
    for (const [says, network] of claims) {
      for (const host of ["7.7.7.7", "8.8.8.8"]) local.seen(remote(parse(host), { says }))
      assert.isUndefined(told(local, remote(ours[network], { says }), takes))
    }
  })

  it("is forgotten when remotes have named 64 others since", () => {
    const local = table()
    for (const host of ["7.7.7.7", "8.8.8.8"]) local.seen(other(host))
    for (let i = 0; i < 63; i++) local.seen(remote(parse("6.6.6.6"), { says: parse(`3.3.3.${i + 1}`) }))
    assert.isDefined(told(local, other("7.7.7.7"), takes))
    local.seen(remote(parse("6.6.6.6"), { says: parse("4.4.4.4") }))
    assert.isUndefined(told(local, other("7.7.7.7"), takes))
  })
})

it("a server that does not listen tells no address", () => {
  const local = table({ listens: false })
  local.add(ours.ipv4, scores.given)
  assert.isUndefined(told(local, remote(ours.ipv4), takes))
})

it("an inbound remote of our onion service is told the onion address", () => {
  const local = table()
  for (const name of ["ipv4", "onion"] as const) local.add(ours[name], scores.given)
  const guest = remote(parse("127.0.0.1"), { network: "onion", isInbound: true })
  assert.strictEqual(told(local, guest), Address.format(ours.onion))
})

const make = (options: LocalAddresses.Options) =>
  LocalAddresses.make(options).pipe(
    Effect.provideService(
      SecureRandom.SecureRandom,
      SecureRandom.make((size) => new Uint8Array(size))
    )
  )

describe("the interfaces of this machine", () => {
  it("give their routable addresses, with the port on which we listen", () => {
    const interfaces = {
      lo: [{ address: "127.0.0.1" }, { address: "::1" }],
      eth0: [{ address: "10.0.0.5" }, { address: "1.2.3.4" }, { address: "fe80::1" }, { address: "2001:db9::1" }],
      gone: undefined
    }
    assert.deepStrictEqual(NodeLocalAddresses.interfaceAddresses(8333, interfaces).map(Address.format), [
      "1.2.3.4:8333",
      "[2001:db9::1]:8333"
    ])
  })

  it.effect("are taken only by a server that discovers addresses", () =>
    Effect.gen(function* () {
      const local = yield* LocalAddresses.LocalAddresses
      assert.deepStrictEqual(local.all(), [{ address: ours.onion, score: 4 }])
    }).pipe(Effect.provide(NodeLocalAddresses.layer({ port: 8333, external: [ours.onion] })))
  )
})

describe("the service", () => {
  it.effect("has an address for as long as its scope lives", () =>
    Effect.gen(function* () {
      const local = yield* make({ port: 8333 })
      const scope = yield* Scope.make()
      assert.isTrue(yield* Scope.provide(local.add(ours.ipv4, scores.bind), scope))
      assert.isFalse(yield* Scope.provide(local.add(parse("127.0.0.1"), scores.bind), scope))
      const to = remote(parse("8.8.8.8"))
      assert.deepStrictEqual(local.bestFor(to), Option.some(ours.ipv4))
      assert.isTrue(local.has(ours.ipv4))
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(local.bestFor(to), Option.none())
      assert.deepStrictEqual(local.all(), [])
    })
  )

  it.effect("takes external addresses of every network, and then discovers none", () =>
    Effect.gen(function* () {
      const local = yield* make({ port: 8333, external: [ours.onion], networks: ["ipv4"] })
      assert.deepStrictEqual(local.all(), [{ address: ours.onion, score: 4 }])
      assert.isFalse(yield* local.add(ours.ipv4, scores.bind))
      const both = yield* make({ port: 8333, external: [ours.onion], discovers: true })
      assert.isTrue(yield* both.add(ours.ipv4, scores.bind))
    })
  )

  it.effect("fails with an external address that nobody can reach", () =>
    Effect.gen(function* () {
      const cases = [
        ["[fe80::1%32]:8333", "Zone"],
        ["192.168.1.1:8333", "NotRoutable"],
        ["127.0.0.1:8333", "NotRoutable"],
        ["1.2.3.4:0", "Port"],
        [Address.format({ ...ours.onion, port: 0 }), "Port"]
      ] as const
      for (const [text, problem] of cases) {
        const error = yield* Effect.flip(make({ port: 8333, external: [ours.ipv4, parse(text, 0)] }))
        assert.strictEqual(error.problem, problem, text)
        assert.include(error.message, "cannot be our external address")
      }
      const withPort = { ...ours.i2p, port: 8333 }
      assert.strictEqual((yield* Effect.flip(make({ port: 8333, external: [withPort] }))).problem, "Port")
      yield* make({ port: 8333, external: [ours.i2p] })
    })
  )
})
