/** Addresses of nodes, with the data of Bitcoin Core's netbase_tests.cpp and net_tests.cpp. */
import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Result from "effect/Result"
import * as Address from "../src/Address.ts"
import * as Wire from "../src/Wire.ts"
import { bytes, bytesOf, integer } from "./support/generators.ts"

const { NetworkId } = Address

const hex = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString("hex")
const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"))
const host = (text: string): Address.Host => Result.getOrThrow(Address.parseHost(text))
const address = (text: string, port?: number): Address.Address => Result.getOrThrow(Address.parse(text, port))
const reasonOf = (result: Result.Result<unknown, Address.AddressError>): Address.AddressReason => {
  if (Result.isSuccess(result)) throw new Error("expected an AddressError")
  assert.isNotEmpty(result.failure.message)
  return result.failure.reason
}
const internal = (name: string): Address.Host => ({
  networkId: NetworkId.ipv6,
  address: fromHex(`fd6b88c08724${name}`)
})

const onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion"
const i2p = "UDHDrtrcetjm5sxzskjyr5ztpeszydbh4dpl3pl4utgqqw2v4jna.b32.I2P"

describe("the text of an address", () => {
  it("has IPv6 in the form of RFC 5952", () => {
    for (const [given, expected] of [
      ["0000:0000:0000:0000:0000:0000:0000:0000", "::"],
      ["000:0000:000:00:0:00:000:0000", "::"],
      ["0:0:0:0:0:0:0:1", "::1"],
      ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
      ["2001:0db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
      ["2001:0db8:85a3:0000:0000:8a2e:0370:7334", "2001:db8:85a3::8a2e:370:7334"],
      ["2001:0db8::0001", "2001:db8::1"],
      ["2001:0db8::0001:0000", "2001:db8::1:0"],
      ["2001:db8:0000:0:1::1", "2001:db8::1:0:0:1"],
      ["2001:db8:0000:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
      ["2001:db8:0:0:0:0:2:1", "2001:db8::2:1"],
      ["2001:DB8:0:0:1::1", "2001:db8::1:0:0:1"],
      ["2001:db8:0:0:aaaa::1", "2001:db8::aaaa:0:0:1"],
      ["2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
      ["2001:db8:aaaa:bbbb:cccc:dddd::1", "2001:db8:aaaa:bbbb:cccc:dddd:0:1"],
      ["2001:db8:aaaa:bbbb:cccc:dddd:eeee:001", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:1"],
      ["2001:db8:aaaa:bbbb:cccc:dddd:eeee:AaAa", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:aaaa"],
      ["1122:3344:5566:7788:9900:aabb:ccdd:eeff", "1122:3344:5566:7788:9900:aabb:ccdd:eeff"]
    ] as const) {
      assert.strictEqual(host(given).networkId, NetworkId.ipv6)
      assert.strictEqual(Address.formatHost(host(given)), expected)
    }
  })

  it("is parsed into host and port as in Core", () => {
    for (const [given, expected] of [
      ["127.0.0.1", "127.0.0.1:65535"],
      ["127.0.0.1:8333", "127.0.0.1:8333"],
      ["::ffff:127.0.0.1", "127.0.0.1:65535"],
      ["[::ffff:127.0.0.1]:8333", "127.0.0.1:8333"],
      ["::", "[::]:65535"],
      ["[::]:8333", "[::]:8333"],
      ["::8333", "[::8333]:65535"],
      ["[127.0.0.1]", "127.0.0.1:65535"],
      ["[127.0.0.1]:8333", "127.0.0.1:8333"],
      ["[fd6c:88c0:8724:1:2:3:4:5]", "[fd6c:88c0:8724:1:2:3:4:5]:65535"],
      [`${onion}:8333`, `${onion}:8333`],
      [onion, `${onion}:65535`],
      ["[fc00::1]:8333", "[fc00::1]:8333"]
    ] as const) {
      assert.strictEqual(Address.format(address(given, 65_535)), expected)
    }
    assert.strictEqual(address("1.2.3.4").port, 0)
  })

  it("is parsed for each network", () => {
    for (const [text, networkId, expected] of [
      ["1.2.3.4", NetworkId.ipv4, "01020304"],
      ["1a1b:2a2b:3a3b:4a4b:5a5b:6a6b:7a7b:8a8b", NetworkId.ipv6, "1a1b2a2b3a3b4a4b5a5b6a6b7a7b8a8b"],
      [
        "kpgvmscirrdqpekbqjsvw5teanhatztpp2gl6eee4zkowvwfxwenqaid.onion",
        NetworkId.torV3,
        "53cd5648488c4707914182655b7664034e09e66f7e8cbf1084e654eb56c5bd88"
      ],
      [i2p, NetworkId.i2p, "a0ce38ce2224d2cecaf9929388f73379259c0c27e0debdbd7ca4cd085b55e25a"],
      ["fc00:1:2:3:4:5:6:7", NetworkId.cjdns, "fc000001000200030004000500060007"],
      ["fd00::1", NetworkId.ipv6, "fd000000000000000000000000000001"]
    ] as const) {
      assert.strictEqual(host(text).networkId, networkId)
      assert.strictEqual(hex(host(text).address), expected, text)
      assert.strictEqual(Address.formatHost(host(text)), text.toLowerCase())
    }
  })

  it("has no port for I2P", () => {
    assert.strictEqual(address(i2p, 8333).port, 0)
    assert.strictEqual(Address.format(address(i2p, 8333)), i2p.toLowerCase())
    assert.strictEqual(Address.format(address(`${i2p}:5`)), `${i2p.toLowerCase()}:5`)
  })

  it("fails with the problem of an invalid port", () => {
    for (const port of ["65536", "-1", "-0", "1/2", "1E2", "", "70001", "000080", " 80", "0x50", "٣"]) {
      for (const name of ["127.0.0.1", "[::1]", onion]) {
        assert.deepStrictEqual(reasonOf(Address.parse(`${name}:${port}`)), { _tag: "BadPort", port })
      }
    }
  })

  it("fails if it is not an address", () => {
    for (const text of [
      "",
      ":8333",
      "[]:8333",
      ":::",
      "[::1",
      "::1]",
      "[::1]8333",
      "www.bitcoincore.org",
      "www.bitcoincore.org:80",
      "257.0.0.1",
      "127.1",
      "0x7f.0.0.1",
      "01.2.3.4",
      "1.2.3.4\0",
      " 1.2.3.4",
      "1:2:3:4:5:6:7",
      "1::2::3",
      "12345::",
      "::1.2.3",
      "1.2.3.4.",
      "::1.",
      "::ffff:1.2.3.4.",
      "[[::1]]",
      "[::1]]",
      "[1.2.3.4",
      "::1::",
      "::ffff:256.1.1.1",
      "::ffff:1.2.3",
      "2001:db8:::1",
      "g::1",
      "localhost",
      "example.com.",
      "totally bogus",
      // IPv6 addresses that embed an internal name of Core and a Tor v2 address.
      "[fd6b:88c0:8724:1:2:3:4:5]",
      "[fd87:d87e:eb43::1]"
    ]) {
      assert.deepStrictEqual(reasonOf(Address.parse(text)), { _tag: "NotAnAddress" }, text)
    }
  })

  it("may have a zone for IPv6, a number of 32 bits", () => {
    for (const [text, zone, printed] of [
      ["fe80::1%32", 32, "fe80::1%32"],
      ["FE80::1%1", 1, "fe80::1%1"],
      ["fe80::1%4294967295", 4_294_967_295, "fe80::1%4294967295"],
      ["fe80::1%032", 32, "fe80::1%32"],
      // Zone 0 is the same as no zone.
      ["fe80::1%0", undefined, "fe80::1"],
      ["2001:db8::1%7", 7, "2001:db8::1%7"]
    ] as const) {
      assert.strictEqual(host(text).zone, zone)
      assert.strictEqual(Address.formatHost(host(text)), printed)
      assert.strictEqual(Address.format(address(`[${text}]:8333`)), `[${printed}]:8333`)
      assert.deepStrictEqual(address(Address.format(address(`[${text}]:8333`))), address(`[${text}]:8333`))
      assert.strictEqual(Address.format(address(text, 18_333)), `[${printed}]:18333`)
      assert.deepStrictEqual(Address.toBytes(host(text)), host(text.split("%")[0]!).address)
    }
    for (const text of [
      "fe80::1%",
      "fe80::1%eth0",
      "fe80::1%4294967296",
      "fe80::1%-1",
      "fe80::1%+1",
      "fe80::1% 1",
      "fe80::1%1%2",
      "fe80::1%0x1",
      "%1",
      "1.2.3.4%1",
      "::ffff:1.2.3.4%1",
      "fc00::1%1",
      "www.bitcoincore.org%1"
    ]) {
      assert.deepStrictEqual(reasonOf(Address.parse(text)), { _tag: "NotAnAddress" }, text)
    }
    assert.isFalse(Address.isRoutable(host("fe80::1%32")))
  })

  it("is an IPv4 address for each IPv6 form that embeds one", () => {
    for (const [text, printed] of [
      ["::ffff:1.2.3.4", "1.2.3.4"],
      ["::FFFF:102:304", "1.2.3.4"],
      ["0:0:0:0:0:ffff:1.2.3.4", "1.2.3.4"],
      ["64:ff9b::1.2.3.4", "64:ff9b::102:304"],
      ["::1.2.3.4", "::102:304"],
      ["2001:db8::255.255.255.255", "2001:db8::ffff:ffff"]
    ] as const) {
      assert.strictEqual(Address.formatHost(host(text)), printed)
    }
  })

  it("fails with the problem of an invalid Tor or I2P name", () => {
    const problem = (text: string): string => {
      const reason = reasonOf(Address.parseHost(text))
      return reason._tag === "BadOnion" ? reason.problem : reason._tag
    }
    const bad = "does not have 56 digits of base32 before .onion"
    for (const [text, expected] of [
      ["6hzph5hv6337r6p2.onion", "is a Tor version 2 name, which Tor no longer supports"],
      ["pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscsad.onion", "has a wrong checksum"],
      ["pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscrye.onion", "has version 4 instead of 3"],
      ["pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd\0wtf.onion", bad],
      ["mfrggzak.onion", bad],
      ["mf*g zak.onion", bad],
      [".onion", bad],
      [`${onion.slice(0, 56)}..onion`, bad],
      [`sub.${onion}`, bad],
      // The upper case of the dotless i is I.
      [onion.replace("i", "ı"), bad],
      ["udhdrtrcetjm5sxzskjyr5ztpeszydbh4dpl3pl4utgqqw2v4jn=.b32.i2p", "BadI2P"],
      ["udhdrtrcetjm5sxzskjyr5ztpeszydbh4dpl3pl4utgqqw2v4jna=.b32.i2p", "BadI2P"],
      ["udhdrtrcetjm5sxzskjyr5ztpeszydbh4dpl3pl4utgqqw2v\0wtf.b32.i2p", "BadI2P"],
      ["pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscsad.b32.i2p", "BadI2P"],
      ["tp*szydbh4dp.b32.i2p", "BadI2P"]
    ] as const) {
      assert.strictEqual(problem(text), expected, text)
    }
  })

  const of = (networkId: number, size: number, first?: number): Arbitrary.Arbitrary<Address.Address> =>
    Arbitrary.map(Arbitrary.all({ address: bytesOf(size), port: integer(0, 65_535) }), ({ address, port }) => ({
      networkId,
      address: first === undefined ? address : Uint8Array.of(first, ...address.subarray(1)),
      port
    }))
  for (const [name, generator] of Object.entries({
    ipv4: of(NetworkId.ipv4, 4),
    // A first byte of 0x20 keeps the address out of the ranges that embed other networks.
    ipv6: of(NetworkId.ipv6, 16, 0x20),
    torV3: of(NetworkId.torV3, 32),
    i2p: of(NetworkId.i2p, 32),
    cjdns: of(NetworkId.cjdns, 16, 0xfc)
  })) {
    it.prop(
      `${name}: a formatted address parses to the same one, with its port, and Wire formats it equally`,
      [generator],
      ([made]) => {
        assert.deepStrictEqual(address(Address.format(made)), made)
        assert.deepStrictEqual(
          Address.parseHost(Address.formatHost(made)),
          Result.succeed({ networkId: made.networkId, address: made.address })
        )
        assert.strictEqual(Wire.formatAddress({ timestamp: 0, services: 0n, ...made }), Address.format(made))
      },
      { arbitrary: { runs: 200, seed: name } }
    )
  }

  it.prop(
    "formatted IPv6 addresses with many zeros parse to the same ones",
    [Arbitrary.array(integer(0, 3), { minLength: 16, maxLength: 16 })],
    ([nibbles]) => {
      const made = {
        networkId: NetworkId.ipv6,
        address: Uint8Array.from(nibbles, (n) => (n === 3 ? 0x2a : 0)),
        port: 1
      }
      assert.deepStrictEqual(address(Address.format(made)), { ...made, ...Address.canonical(made) })
    },
    { arbitrary: { runs: 300, seed: 1 } }
  )

  it.prop(
    "any text parses or fails without a defect",
    [bytes(70), integer(0, 3)],
    ([codes, end]) => {
      const text = String.fromCharCode(...codes) + ["", ".onion", ".b32.i2p", ":1"][end]!
      const result = Address.parse(text)
      assert.isTrue(Result.isSuccess(result) || result.failure.message.length > 0)
    },
    { arbitrary: { runs: 500, seed: 2 } }
  )
})

describe("the 16 bytes of an addr entry", () => {
  it("are an IPv6 address, or an IPv4 address mapped into IPv6", () => {
    for (const [text, expected] of [
      ["1.2.3.4", "00000000000000000000ffff01020304"],
      ["1a1b:2a2b:3a3b:4a4b:5a5b:6a6b:7a7b:8a8b", "1a1b2a2b3a3b4a4b5a5b6a6b7a7b8a8b"],
      ["::", "00000000000000000000000000000000"]
    ] as const) {
      assert.strictEqual(hex(Address.toBytes(host(text))), expected)
      assert.deepStrictEqual(Address.fromBytes(fromHex(expected)), host(text))
    }
  })

  it("do not exist for other networks", () => {
    for (const text of [onion, i2p, "fc00::1"]) assert.isUndefined(Address.toBytes(host(text)))
  })

  it("are not a host if they embed Tor v2 or an internal name of Core, or if their number is not 16", () => {
    assert.isUndefined(Address.fromBytes(fromHex("fd87d87eeb430102030405060708090a")))
    assert.isUndefined(Address.fromBytes(internal("ca978112ca1bbdcafac2").address))
    for (const size of [0, 4, 15, 17]) assert.isUndefined(Address.fromBytes(new Uint8Array(size)))
  })
})

describe("the classification of hosts, as in Core:", () => {
  const check = (is: (host: Address.Host) => boolean, yes: ReadonlyArray<string>, no: ReadonlyArray<string>): void => {
    for (const text of yes) assert.isTrue(is(host(text)), text)
    for (const text of no) assert.isFalse(is(host(text)), text)
  }

  it("isValid is true for every host that can exist", () => {
    check(
      Address.isValid,
      ["127.0.0.1", "12.34.56.78", "fe80::1", "1122:3344:5566:7788:9900:aabb:ccdd:eeff", onion, i2p, "fc00::1"],
      ["0.0.0.0", "255.255.255.255", "::", "2001:0DB8::", "::ffff:0.0.0.0"]
    )
    assert.isFalse(Address.isValid(internal("ca978112ca1bbdcafac2")))
    for (const [networkId, size] of [
      [NetworkId.torV2, 10],
      [NetworkId.cjdns, 16],
      [NetworkId.ipv4, 3],
      [NetworkId.ipv6, 4],
      [NetworkId.torV3, 10],
      [0, 4],
      [7, 16]
    ] as const) {
      assert.isFalse(Address.isValid({ networkId, address: new Uint8Array(size).fill(1) }))
    }
  })

  it("isLocal is true for addresses of this machine", () => {
    check(
      Address.isLocal,
      ["127.0.0.1", "127.255.255.255", "0.1.2.3", "::1", "::ffff:127.0.0.1"],
      ["128.0.0.1", "1.0.0.0", "::2", "::1:1", "10.0.0.1", "fe80::1", onion]
    )
  })

  it("isRoutable is true outside the reserved ranges, tested at their limits", () => {
    check(
      Address.isRoutable,
      [
        "8.8.8.8",
        "2001::1",
        "2001::8888",
        onion,
        i2p,
        "fc00::1",
        "9.255.255.255",
        "11.0.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "192.0.1.255",
        "192.0.3.0",
        "198.51.99.255",
        "198.51.101.0",
        "203.0.112.255",
        "203.0.114.0",
        "fe80:0:0:1::",
        "fe00::",
        "2001:0f::",
        "2001:30::",
        "2001:db7::",
        "2001:db9::",
        "64:FF9B::",
        "2002::1"
      ],
      [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "::",
        "10.0.0.1",
        "10.255.255.255",
        "192.168.1.1",
        "172.16.0.0",
        "172.31.255.255",
        "198.18.0.0",
        "198.19.255.255",
        "2001:0DB8::",
        "169.254.1.1",
        "100.64.0.0",
        "100.127.255.255",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "FD00::",
        "fdff::",
        "2001:10::",
        "2001:1f:ffff::",
        "2001:20::",
        "2001:2f:ffff::",
        "FE80::",
        "::FFFF:192.168.1.1"
      ]
    )
    assert.isFalse(Address.isRoutable(internal("ca978112ca1bbdcafac2")))
    // fc00::/7 of IPv6 itself, not of CJDNS.
    assert.isFalse(Address.isRoutable({ networkId: NetworkId.ipv6, address: host("fc00::1").address }))
  })

  it("linkedIPv4 is the address of IPv4, and the one inside of a tunnel", () => {
    const linked = (text: string) => {
      const bytes = Address.linkedIPv4(host(text))
      return bytes === undefined ? undefined : Array.from(bytes)
    }
    const tunnels = [
      "1.2.3.4",
      "::ffff:1.2.3.4",
      "2002:102:304::1",
      "64:ff9b::102:304",
      "::ffff:0:102:304",
      "2001:0:9:8:7:6:fefd:fcfb"
    ]
    for (const text of tunnels) assert.deepStrictEqual(linked(text), [1, 2, 3, 4], text)
    const mapped = { networkId: Address.NetworkId.ipv6, address: Address.toBytes(host("1.2.3.4"))! }
    assert.deepStrictEqual(Array.from(Address.linkedIPv4(mapped)!), [1, 2, 3, 4])
    for (const text of ["2a01::1", "2001:470::1", "fc00::1"]) assert.isUndefined(linked(text), text)
    assert.isUndefined(Address.linkedIPv4({ networkId: Address.NetworkId.torV3, address: new Uint8Array(32) }))
  })

  it("group has the first bits of the address for its network", () => {
    for (const [text, expected] of [
      ["127.0.0.1", "00"],
      ["::1", "00"],
      ["10.0.0.1", "00"],
      ["169.254.1.1", "00"],
      ["1.2.3.4", "010102"],
      ["::ffff:1.2.3.4", "010102"],
      ["::FFFF:0:102:304", "010102"],
      ["64:FF9B::102:304", "010102"],
      ["2002:102:304:9999:9999:9999:9999:9999", "010102"],
      ["2001:0:9999:9999:9999:9999:FEFD:FCFB", "010102"],
      ["2001:470:abcd:9999:9999:9999:9999:9999", "0220010470af"],
      ["2001:2001:9999:9999:9999:9999:9999:9999", "0220012001"],
      // pg… is 0x79…, ud… is 0xa0…
      [onion, "037f"],
      [i2p, "04af"],
      ["fc00:1:2:3:4:5:6:7", "05fc0f"],
      ["fc0f::1", "05fc0f"],
      ["fc10::1", "05fc1f"]
    ] as const) {
      assert.strictEqual(Address.group(host(text)), expected, text)
    }
    assert.strictEqual(Address.group(internal("12929400eb4607c4ac07")), "0612929400eb4607c4ac07")
  })
})
