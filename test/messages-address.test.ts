/** Addresses in `addr` and `addrv2`: limits, dropped entries, and text. */
import { assert, describe, it } from "@effect/vitest"
import * as Result from "effect/Result"
import * as Wire from "../src/Wire.ts"
import { concat, decoded, encoded, plain, reasonOf } from "./support/generators.ts"

const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"))

const entry = (networkId: number, address: Uint8Array, services: bigint = 0n): Wire.AddressV2 => ({
  timestamp: 1,
  services,
  networkId,
  address,
  port: 8333
})

/** An entry as bytes, valid or not. */
const raw = (networkId: number, address: Uint8Array): Uint8Array =>
  concat(
    [1, 0, 0, 0, 0, networkId],
    address.length < 0xfd ? [address.length] : [0xfd, address.length & 0xff, address.length >> 8],
    address,
    [0x20, 0x8d]
  )

const ipv6 = bytesOf("20010db8000000000000000000000001")
const read = (...entries: ReadonlyArray<Uint8Array>): Result.Result<Wire.Message, Wire.WireError> =>
  Wire.decode("addrv2", concat([entries.length], ...entries))
const networksOf = (...entries: ReadonlyArray<Uint8Array>): Array<number> =>
  Array.from((Result.getOrThrow(read(...entries)) as Wire.AddrV2).addresses, (address) => address.networkId)

describe("addr", () => {
  const address = { timestamp: 0xffffffff, services: 1n, address: ipv6, port: 65535 }

  it("has at most 1,000 addresses", () => {
    const full: Wire.Addr = { _tag: "addr", addresses: Array.from({ length: 1_000 }, () => address) }
    const payload = encoded(full)
    assert.strictEqual(payload.length, 3 + 30_000)
    assert.deepStrictEqual(plain(decoded("addr", payload)), full)
    const tooMany = { _tag: "TooMany", field: "addresses", count: 1_001, limit: 1_000 } as const
    assert.deepStrictEqual(reasonOf(Wire.encode({ ...full, addresses: [...full.addresses, address] })), tooMany)
    const result = Wire.decode("addr", concat([0xfd, 0xe9, 3], new Uint8Array(30_030)))
    assert.deepStrictEqual(reasonOf(result), tooMany)
  })

  it("has ports in network byte order", () => {
    const payload = encoded({ _tag: "addr", addresses: [{ ...address, port: 8333 }] })
    assert.deepStrictEqual(payload.slice(-2), Uint8Array.of(0x20, 0x8d))
  })
})

describe("addrv2", () => {
  it("has at most 1,000 addresses", () => {
    const full: Wire.AddrV2 = { _tag: "addrv2", addresses: Array.from({ length: 1_000 }, () => entry(2, ipv6)) }
    assert.deepStrictEqual(plain(decoded("addrv2", encoded(full))), full)
    assert.strictEqual(
      reasonOf(Wire.encode({ ...full, addresses: [...full.addresses, entry(2, ipv6)] }))._tag,
      "TooMany"
    )
    const bytes = raw(2, ipv6)
    const tooMany = concat([0xfd, 0xe9, 3], ...Array.from({ length: 1_001 }, () => bytes))
    assert.strictEqual(reasonOf(Wire.decode("addrv2", tooMany))._tag, "TooMany")
  })

  it("keeps all 64 service bits", () => {
    for (const services of [
      0n,
      0xfcn,
      0xfdn,
      0xffffn,
      0x10000n,
      0x02000001n,
      0xffffffffn,
      1n << 32n,
      (1n << 64n) - 1n
    ]) {
      const message: Wire.AddrV2 = { _tag: "addrv2", addresses: [entry(2, ipv6, services)] }
      assert.deepStrictEqual(plain(decoded("addrv2", encoded(message))), message)
    }
    for (const services of [-1n, 1n << 64n]) {
      assert.strictEqual(
        reasonOf(Wire.encode({ _tag: "addrv2", addresses: [entry(2, ipv6, services)] }))._tag,
        "BadValue"
      )
    }
  })

  it("is malformed if services are not in their shortest form", () => {
    for (const services of [
      [0xfd, 0xfc, 0],
      [0xfe, 0xff, 0xff, 0, 0],
      [0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]
    ]) {
      const payload = concat([1, 1, 0, 0, 0], services, raw(2, ipv6).subarray(5))
      assert.deepStrictEqual(reasonOf(Wire.decode("addrv2", payload)), {
        _tag: "BadCompactSize",
        field: "addresses.services",
        offset: 5
      })
    }
  })

  it("is malformed as a whole if an address of a known network has a wrong length", () => {
    const lengths = [
      [1, 4],
      [2, 16],
      [4, 32],
      [5, 32],
      [6, 16]
    ] as const
    for (const [networkId, length] of lengths) {
      assert.deepStrictEqual(networksOf(raw(networkId, new Uint8Array(length).fill(1))), [networkId])
      for (const wrong of [0, length - 1, length + 1]) {
        const result = read(raw(2, ipv6), raw(networkId, new Uint8Array(wrong)))
        assert.strictEqual(reasonOf(result)._tag, "BadValue")
        const message: Wire.AddrV2 = { _tag: "addrv2", addresses: [entry(networkId, new Uint8Array(wrong))] }
        assert.strictEqual(reasonOf(Wire.encode(message))._tag, "BadValue")
      }
    }
  })

  it("drops entries of unknown networks, of any length, when decoded, and refuses to encode them", () => {
    // Network 3 (Tor v2) is unknown, as in Core.
    for (const networkId of [0, 3, 7, 255]) {
      for (const length of [0, 3, 4, 10, 16, 32, 512]) {
        const payload = concat([3], raw(2, ipv6), raw(networkId, new Uint8Array(length)), raw(1, new Uint8Array(4)))
        const message = decoded("addrv2", payload) as Wire.AddrV2
        assert.deepStrictEqual(Array.from(message.addresses), [entry(2, ipv6), entry(1, new Uint8Array(4))])
        assert.deepStrictEqual(encoded(message), concat([2], raw(2, ipv6), raw(1, new Uint8Array(4))))
        const unknown: Wire.AddrV2 = { _tag: "addrv2", addresses: [entry(networkId, new Uint8Array(length))] }
        assert.strictEqual(reasonOf(Wire.encode(unknown))._tag, "BadValue")
        // The bytes of an unknown address must still be complete.
        for (const cut of [payload.subarray(0, -7 - 4), payload.subarray(0, -1)]) {
          assert.strictEqual(reasonOf(Wire.decode("addrv2", cut))._tag, "Truncated")
        }
      }
    }
  })

  it("drops an entry of network 3 with 3 bytes, and tolerates the bytes after it, as Core does", () => {
    const payload = bytesOf("01050075000003030303030300fe5b62000000000000")
    assert.deepStrictEqual(plain(decoded("addrv2", payload)), { _tag: "addrv2", addresses: [] })
  })

  it("is malformed with an address of more than 512 bytes, even of an unknown network", () => {
    assert.deepStrictEqual(networksOf(raw(7, new Uint8Array(512))), [])
    const result = read(raw(7, new Uint8Array(513)))
    assert.deepStrictEqual(reasonOf(result), { _tag: "TooMany", field: "addresses.address", count: 513, limit: 512 })
  })

  it("drops IPv6 addresses that embed other networks when decoded, and refuses to encode them", () => {
    for (const hidden of [
      "00000000000000000000ffff01020304",
      "fd87d87eeb4300000000000000000001",
      "fd6b88c0872400000000000000000001"
    ]) {
      assert.deepStrictEqual(networksOf(raw(2, bytesOf(hidden)), raw(2, ipv6)), [2])
      const message: Wire.AddrV2 = { _tag: "addrv2", addresses: [entry(2, bytesOf(hidden))] }
      assert.strictEqual(reasonOf(Wire.encode(message))._tag, "BadValue")
    }
    assert.deepStrictEqual(networksOf(raw(2, bytesOf("00000000000000000000fffe01020304"))), [2])
  })
})

const print = (networkId: number, hex: string, port = 8333): string =>
  Wire.formatAddress({ ...entry(networkId, bytesOf(hex)), port })

describe("an address prints", () => {
  // Examples of Core's net_tests.
  const onionKey = "79bcc625184b05194975c28b66b66b0469f7f6556fb1ac3189a79b40dda32f1f"
  const i2pHash = "a2894dabaec08c0051a481a6dac88b64f98232ae42d4b6fd2fa81952dfe36a87"

  it("as IPv4 and IPv6 with its port", () => {
    assert.strictEqual(print(1, "01020304"), "1.2.3.4:8333")
    assert.strictEqual(print(2, "20010db8000000000000000000000001"), "[2001:db8::1]:8333")
    assert.strictEqual(print(6, "fc000001000200030004000500060007"), "[fc00:1:2:3:4:5:6:7]:8333")
  })

  it("as IPv4 if it is mapped into IPv6, as in version and addr", () => {
    const address = { services: 0n, address: bytesOf("00000000000000000000ffff01020304"), port: 18444 }
    assert.strictEqual(Wire.formatAddress(address), "1.2.3.4:18444")
    assert.strictEqual(Wire.formatAddress({ ...address, address: ipv6 }), "[2001:db8::1]:18444")
  })

  it("as Tor v3 with its checksum, as Tor v2, and as I2P", () => {
    assert.strictEqual(print(4, onionKey), "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333")
    assert.strictEqual(print(3, "f1f2f3f4f5f6f7f8f9fa"), "6hzph5hv6337r6p2.onion:8333")
    assert.strictEqual(print(5, i2pHash, 0), "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p")
  })

  it("as hexadecimal if its network is unknown", () => {
    assert.strictEqual(print(9, "00ff"), "00ff:8333")
  })
})
