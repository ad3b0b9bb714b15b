import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Address from "../../src/Address.ts"
import { makeRandom } from "../../src/server/internal/random.ts"
import {
  formatSubnet,
  parseSubnet,
  type Subnet,
  subnetContains,
  subnetOf,
  SubnetTrie
} from "../../src/server/internal/subnetTrie.ts"

const host = (text: string): Address.Host => Result.getOrThrow(Address.parseHost(text))
const subnet = (text: string): Subnet => Result.getOrThrow(parseSubnet(text))
const print = (text: string): string => formatSubnet(subnet(text))
const isSubnet = (text: string): boolean => Result.isSuccess(parseSubnet(text))
const contains = (of: string, text: string): boolean => subnetContains(subnet(of), host(text))

const onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion"
const otherOnion = "kpgvmscirrdqpekbqjsvw5teanhatztpp2gl6eee4zkowvwfxwenqaid.onion"

describe("a subnet", () => {
  it("is the same with a number of bits and with a netmask", () => {
    assert.deepStrictEqual(subnet("1.2.3.0/24"), subnet("1.2.3.0/255.255.255.0"))
    assert.notDeepEqual(subnet("1.2.3.0/24"), subnet("1.2.4.0/255.255.255.0"))
  })

  it.each([
    ["1.2.3.0/24", "1.2.3.4"],
    ["1.2.3.4", "1.2.3.4"],
    ["1.2.3.4/32", "1.2.3.4"],
    ["::ffff:127.0.0.1", "127.0.0.1"],
    ["1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"],
    ["1:2:3:4:5:6:7:0/112", "1:2:3:4:5:6:7:1234"],
    ["192.168.0.1/24", "192.168.0.2"],
    ["192.168.0.20/29", "192.168.0.18"],
    ["1.2.2.1/24", "1.2.2.4"],
    ["1.2.2.110/31", "1.2.2.111"],
    ["1.2.2.20/26", "1.2.2.63"],
    ["::/0", "1:2:3:4:5:6:7:1234"],
    [onion, onion],
    ["fc00::/8", "fc12::34"],
    ["fc12::34", "fc12::34"]
  ])("%s contains %s", (of, text) => {
    assert.isTrue(contains(of, text))
  })

  it.each([
    ["1.2.2.0/24", "1.2.3.4"],
    ["1.2.3.4", "5.6.7.8"],
    ["1.2.3.4/32", "5.6.7.8"],
    ["1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:9"],
    ["::/0", "::"],
    ["::/0", "0.0.0.0"],
    ["::/0", "1.2.3.4"],
    ["0.0.0.0/0", "0.0.0.0"],
    ["0.0.0.0/0", "1:2:3:4:5:6:7:1234"],
    [onion, otherOnion],
    [onion, "1.2.3.4"],
    // CJDNS is not IPv6.
    ["::/0", "fc12::34"]
  ])("%s does not contain %s", (of, text) => {
    assert.isFalse(contains(of, text))
  })

  it.each(["1.2.3.0/0", "1.2.3.0/32", "1:2:3:4:5:6:7:8/0", "1:2:3:4:5:6:7:8/33", "1:2:3:4:5:6:7:8/128", onion])(
    "can be %s",
    (text) => {
      assert.isTrue(isSubnet(text))
    }
  )

  it.each([
    "",
    "bloop",
    "fuzzy",
    "/",
    "1.2.3.4/",
    "/24",
    "1.2.3.0/-1",
    "1.2.3.0/+24",
    "1.2.3.0/ 24",
    "1.2.3.0/33",
    "1.2.3.0/300",
    "1.2.3.0/24/8",
    "1.2.3.4:8333",
    "1:2:3:4:5:6:7:8/-1",
    "1:2:3:4:5:6:7:8/129",
    "[1::2]/64",
    "::ffff:1.2.3.4/120",
    "1.2.3.4/255.255.232.0",
    "1.2.3.4/255.0.255.255",
    "1:2:3:4:5:6:7:8/ffff:ffff:ffff:fffe:ffff:ffff:ffff:ff0f",
    "1.1.1.1/ffff::",
    "::1/255.0.0.0",
    `${onion}/200`,
    `${onion}/255.0.0.0`,
    "1.2.3.0/24\0",
    "1.2.3.0/24\0example.com",
    `${onion}\0`,
    `${onion}\0example.com`
  ])("cannot be %j", (text) => {
    assert.isFalse(isSubnet(text))
  })

  it("says in one line what is wrong", () => {
    const message = (text: string) => Result.getOrThrow(Result.flip(parseSubnet(text))).message
    assert.strictEqual(message("1.2.3.4/99"), '"1.2.3.4/99" is not a subnet: the prefix of IPv4 has at most 32 bits')
    assert.strictEqual(
      message("example.com"),
      '"example.com" is not a subnet: it needs an IPv4, IPv6, Tor, I2P or CJDNS address'
    )
    assert.include(message(`${onion}/3`), "no prefix")
    assert.include(message("1.2.3.4/255.0.255.0"), "netmask")
    assert.include(message("aaaa.onion"), "56 digits")
  })

  it("is printed as Core prints it", () => {
    assert.strictEqual(print("127.0.0.1"), "127.0.0.1/32")
    assert.strictEqual(print("1.2.3.4/8"), "1.0.0.0/8")
    assert.strictEqual(print("1.2.3.4/0"), "0.0.0.0/0")
    assert.strictEqual(print("1:2:3:4:5:6:7:8"), "1:2:3:4:5:6:7:8/128")
    assert.strictEqual(print("1:2:3:4:5:6:7:8/ffff:0000:0000:0000:0000:0000:0000:0000"), "1::/16")
    assert.strictEqual(print("1:2:3:4:5:6:7:8/0000:0000:0000:0000:0000:0000:0000:0000"), "::/0")
    assert.strictEqual(print(onion), onion)
    assert.strictEqual(print("fc12::34"), "fc12::34")
    assert.strictEqual(print("fc12::34/16"), "fc12::/16")
    assert.strictEqual(print("2001:DB8::1/32"), "2001:db8::/32")
  })

  it("is read again as it is printed", () => {
    for (const text of ["1.2.3.4/7", "::/0", "fc12::34", "fc12::/16", "fc00::/8", "fc00::/7", "fd00::/8", onion]) {
      const once = subnet(text)
      assert.deepStrictEqual(subnet(formatSubnet(once)), once)
    }
    // Larger than all of CJDNS.
    assert.strictEqual(subnet("fc00::/7").networkId, Address.NetworkId.ipv6)
  })

  it("can have every netmask of IPv4", () => {
    for (let bits = 0; bits <= 32; bits++) {
      const mask = bits === 0 ? 0 : (0xffffffff << (32 - bits)) >>> 0
      const dotted = [24, 16, 8, 0].map((shift) => (mask >>> shift) & 255).join(".")
      assert.strictEqual(print(`1.2.3.4/${dotted}`), print(`1.2.3.4/${bits}`))
    }
    assert.strictEqual(print("1.2.3.4/255.255.255.248"), "1.2.3.0/29")
    assert.strictEqual(print("1.2.3.4/254.0.0.0"), "0.0.0.0/7")
  })

  it("of a host is a copy", () => {
    const bytes = Uint8Array.of(1, 2, 3, 4)
    const made = subnetOf({ networkId: 1, address: bytes })!
    bytes[0] = 9
    assert.strictEqual(formatSubnet(made), "1.2.3.4/32")
    assert.isUndefined(subnetOf({ networkId: 1, address: new Uint8Array(5) }))
    assert.isUndefined(subnetOf({ networkId: 3, address: new Uint8Array(10) }))
    assert.isUndefined(subnetOf({ networkId: 99, address: new Uint8Array(4) }))
  })
})

describe("SubnetTrie", () => {
  const random = makeRandom(new Uint8Array(16).fill(5))
  const widths = { 1: 32, 2: 128, 4: 256, 6: 128 } as const
  const networkIds = [1, 2, 4, 6] as const

  /** Few different bytes, so that prefixes share much and repeat. */
  const randomHost = (): Address.Host => {
    const networkId = networkIds[random.below(4)]!
    const address = Uint8Array.from({ length: widths[networkId] / 8 }, () => [0x80, 0x81, 0xff][random.below(3)]!)
    if (networkId === 6) address[0] = 0xfc
    return { networkId, address }
  }
  const randomSubnet = (): Subnet => {
    const whole = subnetOf(randomHost())!
    if (whole.networkId === 4) return whole
    const least = whole.networkId === 6 ? 8 : 0
    const prefixLength = least + random.below(whole.prefixLength + 1 - least)
    const address = whole.address.map((byte, i) => {
      const kept = Math.max(0, Math.min(8, prefixLength - 8 * i))
      return byte & (0xff << (8 - kept))
    })
    return { ...whole, address, prefixLength }
  }

  it("agrees with a list that is searched", () => {
    const trie = new SubnetTrie<{ readonly subnet: Subnet; readonly until: number }>()
    const list = new Map<string, { readonly subnet: Subnet; readonly until: number }>()
    for (let step = 0; step < 5_000; step++) {
      const subnet = randomSubnet()
      const text = formatSubnet(subnet)
      if (random.below(3) > 0) {
        const value = { subnet, until: random.below(100) }
        trie.set(subnet, value)
        list.set(text, value)
      } else {
        assert.strictEqual(trie.delete(subnet), list.delete(text))
      }
      const other = randomSubnet()
      assert.strictEqual(trie.get(other), list.get(formatSubnet(other)))
      assert.strictEqual(trie.size, list.size)
      if (step % 10 > 0) continue
      const visitor = randomHost()
      const now = random.below(100)
      const containing = [...list.values()].filter((one) => subnetContains(one.subnet, visitor) && now < one.until)
      const found = trie.find(visitor, ({ until }) => now < until)
      assert.strictEqual(found === undefined, containing.length === 0)
      // The shortest prefix is found first.
      if (found !== undefined) {
        assert.strictEqual(found.subnet.prefixLength, Math.min(...containing.map((one) => one.subnet.prefixLength)))
      }
    }
    for (const { subnet } of trie.values()) assert.isTrue(trie.delete(subnet))
    assert.strictEqual(trie.size, 0)
    assert.isUndefined(trie.find(randomHost(), () => true))
  })

  it("returns values sorted by network, address and prefix", () => {
    const trie = new SubnetTrie<string>()
    const sorted = [
      "0.0.0.0/0",
      "1.0.0.0/8",
      "1.0.0.0/16",
      "1.2.3.0/24",
      "1.2.3.4/32",
      "128.0.0.0/1",
      "::/0",
      "2001:db8::/32",
      onion,
      "fc00::/8",
      "fc12::34"
    ]
    for (const text of sorted.toReversed()) trie.set(subnet(text), text)
    assert.deepStrictEqual(trie.values(), sorted)
    trie.clear()
    assert.deepStrictEqual(trie.values(), [])
    assert.strictEqual(trie.size, 0)
  })

  it("finds an IPv4 host that is written as IPv6", () => {
    const trie = new SubnetTrie<boolean>()
    trie.set(subnet("1.2.3.0/24"), true)
    const mapped = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4)
    assert.isTrue(trie.find({ networkId: 2, address: mapped }, () => true))
    assert.isUndefined(trie.find({ networkId: 1, address: new Uint8Array(3) }, () => true))
    assert.isUndefined(trie.find({ networkId: 77, address: new Uint8Array(4) }, () => true))
  })

  it("keeps at most two nodes for an entry", () => {
    // A list that is renewed each day must not grow.
    const trie = new SubnetTrie<number>()
    const roots = trie.nodes
    const entry = (n: number): Subnet => {
      const bits = Math.imul(n, 2_654_435_761)
      return { networkId: 1, address: Uint8Array.of(bits >>> 24, bits >>> 16, bits >>> 8, bits), prefixLength: 32 }
    }
    for (let round = 0; round < 3; round++) {
      for (let n = 1; n <= 1_000; n++) trie.set(entry(n), n)
      assert.isAtMost(trie.nodes, 2_000 + roots)
      for (let n = 1; n <= 1_000; n += 2) assert.isTrue(trie.delete(entry(n)))
      assert.isAtMost(trie.nodes, 1_000 + roots)
      for (let n = 2; n <= 1_000; n += 2) assert.isTrue(trie.delete(entry(n)))
      assert.strictEqual(trie.nodes, roots)
    }
  })
})
