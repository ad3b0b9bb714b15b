/** The messages of the handshake, of the keep-alive and of settings. */
import { assert, describe, it } from "@effect/vitest"
import * as Wire from "../src/Wire.ts"
import { concat, decoded, encoded, examples, reasonOf } from "./support/generators.ts"

const example = <const Tag extends Wire.KnownMessage["_tag"]>(
  tag: Tag
): Extract<Wire.KnownMessage, { readonly _tag: Tag }> =>
  examples.find((message) => message._tag === tag) as Extract<Wire.KnownMessage, { readonly _tag: Tag }>

const refused = (message: Wire.Message): Wire.WireReason => reasonOf(Wire.encode(message))
const malformed = (command: string, payload: Uint8Array): Wire.WireReason => reasonOf(Wire.decode(command, payload))

describe("version", () => {
  const version = example("version")
  const payload = encoded(version)

  it("gives missing fields their defaults", () => {
    const zeros = { services: 0n, address: new Uint8Array(16), port: 0 }
    const defaults = { sender: zeros, nonce: 0n, userAgent: "", startHeight: 0, relay: true }
    const { nonce, sender, startHeight, userAgent } = version
    assert.deepStrictEqual(decoded("version", payload.slice(0, 46)), { ...version, ...defaults })
    assert.deepStrictEqual(decoded("version", payload.slice(0, 80)), { ...version, ...defaults, sender, nonce })
    assert.deepStrictEqual(decoded("version", payload.slice(0, 91)), {
      ...version,
      ...defaults,
      sender,
      nonce,
      userAgent
    })
    assert.deepStrictEqual(decoded("version", payload.slice(0, 95)), {
      ...version,
      ...defaults,
      sender,
      nonce,
      userAgent,
      startHeight
    })
  })

  it("is Truncated if it ends between sender and nonce, as in Core", () => {
    assert.deepStrictEqual(reasonOf(Wire.decode("version", payload.slice(0, 72))), {
      _tag: "Truncated",
      field: "nonce",
      offset: 72
    })
  })

  it("decodes a negative time as 0", () => {
    assert.deepStrictEqual(decoded("version", encoded({ ...version, timestamp: -5 })), { ...version, timestamp: 0 })
  })

  it("decodes any nonzero relay byte as true", () => {
    assert.strictEqual((decoded("version", concat(payload.slice(0, -1), [0])) as Wire.Version).relay, false)
    assert.strictEqual((decoded("version", concat(payload.slice(0, -1), [2])) as Wire.Version).relay, true)
  })

  it("has a user agent of at most 256 bytes of any value", () => {
    const userAgent = "\u0000é\u00ff".padEnd(256, "x")
    const longest = { ...version, userAgent }
    assert.deepStrictEqual(decoded("version", encoded(longest)), longest)
    assert.deepStrictEqual(refused({ ...version, userAgent: `${userAgent}x` }), {
      _tag: "TooMany",
      field: "userAgent",
      count: 257,
      limit: 256
    })
    const tooLong = concat(payload.slice(0, 80), [0xfd, 1, 1], new Uint8Array(257), new Uint8Array(5))
    assert.strictEqual(malformed("version", tooLong)._tag, "TooMany")
    assert.strictEqual(refused({ ...version, userAgent: "€" })._tag, "BadValue")
  })

  it("is refused with a number that does not fit its field", () => {
    const { receiver } = version
    for (const wrong of [
      { ...version, protocolVersion: 2 ** 31 },
      { ...version, protocolVersion: 1.5 },
      { ...version, services: -1n },
      { ...version, services: 1n << 64n },
      { ...version, timestamp: 2 ** 53 },
      { ...version, timestamp: Number.NaN },
      { ...version, nonce: 1n << 64n },
      { ...version, startHeight: -(2 ** 31) - 1 },
      { ...version, receiver: { ...receiver, port: 65536 } },
      { ...version, receiver: { ...receiver, port: -1 } },
      { ...version, receiver: { ...receiver, services: -1n } },
      { ...version, receiver: { ...receiver, address: new Uint8Array(4) } },
      { ...version, sender: { ...receiver, address: new Uint8Array(17) } }
    ]) {
      assert.strictEqual(refused(wrong)._tag, "BadValue")
    }
  })
})

describe("messages without payload", () => {
  it("tolerate trailing bytes unless the options forbid them", () => {
    for (const command of ["verack", "wtxidrelay", "sendaddrv2", "sendheaders", "getaddr", "mempool"]) {
      assert.deepStrictEqual(decoded(command, Uint8Array.of(1)), { _tag: command } as Wire.Message)
      const strict = Wire.decode(command, Uint8Array.of(1, 2), { trailingBytes: "malformed" })
      assert.deepStrictEqual(reasonOf(strict), { _tag: "TrailingBytes", count: 2 })
    }
  })
})

describe("sendcmpct", () => {
  it("is malformed if the first byte is neither 0 nor 1", () => {
    assert.strictEqual(malformed("sendcmpct", Uint8Array.of(2, 2, 0, 0, 0, 0, 0, 0, 0))._tag, "BadValue")
  })
})

describe("ping and pong", () => {
  it("need a nonce in pong; an empty ping has no nonce", () => {
    assert.deepStrictEqual(decoded("ping", new Uint8Array(0)), { _tag: "ping", nonce: undefined })
    assert.deepStrictEqual(encoded({ _tag: "ping", nonce: undefined }), new Uint8Array(0))
    assert.deepStrictEqual(malformed("pong", new Uint8Array(0)), { _tag: "Truncated", field: "nonce", offset: 0 })
  })

  it("keep all 64 bits of a nonce", () => {
    const pong = { _tag: "pong", nonce: 0xffffffffffffffffn } as const
    assert.deepStrictEqual(encoded(pong), new Uint8Array(8).fill(0xff))
    assert.deepStrictEqual(decoded("pong", encoded(pong)), pong)
    assert.strictEqual(refused({ _tag: "ping", nonce: 1n << 64n })._tag, "BadValue")
  })
})

describe("feefilter", () => {
  it("is signed, and exact within 2^53", () => {
    for (const feeRate of [-1, 21e14, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER]) {
      assert.deepStrictEqual(decoded("feefilter", encoded({ _tag: "feefilter", feeRate })), {
        _tag: "feefilter",
        feeRate
      })
    }
    assert.strictEqual(refused({ _tag: "feefilter", feeRate: 2 ** 53 })._tag, "BadValue")
    assert.strictEqual(refused({ _tag: "feefilter", feeRate: 0.5 })._tag, "BadValue")
  })
})

const feature = (id: string, size: number): Wire.Feature => ({ _tag: "feature", id, data: new Uint8Array(size) })

const raw = (id: number, data: number): Uint8Array =>
  concat([id], new Uint8Array(id), [0xfd, data & 0xff, data >> 8], new Uint8Array(data))

describe("feature", () => {
  it("has an id of 4 to 80 bytes", () => {
    for (const id of ["abcd", "x".repeat(80)])
      assert.deepStrictEqual(decoded("feature", encoded(feature(id, 0))), feature(id, 0))
    assert.strictEqual(refused(feature("abc", 0))._tag, "BadValue")
    assert.strictEqual(refused(feature("x".repeat(81), 0))._tag, "TooMany")
    assert.strictEqual(malformed("feature", raw(3, 300))._tag, "BadValue")
    assert.strictEqual(malformed("feature", raw(81, 300))._tag, "TooMany")
  })

  it("has at most 512 bytes of data", () => {
    assert.deepStrictEqual(decoded("feature", encoded(feature("abcd", 512))), feature("abcd", 512))
    assert.strictEqual(refused(feature("abcd", 513))._tag, "TooMany")
    assert.strictEqual(malformed("feature", raw(4, 513))._tag, "TooMany")
  })

  it("never tolerates trailing bytes", () => {
    const tail = concat(encoded(feature("abcd", 0)), [0])
    const result = Wire.decode("feature", tail, { trailingBytes: "tolerate" })
    assert.deepStrictEqual(reasonOf(result), { _tag: "TrailingBytes", count: 1 })
  })
})

describe("reject", () => {
  const reject = example("reject")

  it("may have a hash, for tx and block only", () => {
    for (const rejected of ["tx", "block"]) {
      const full = { ...reject, rejected }
      assert.deepStrictEqual(decoded("reject", encoded(full)), full)
      const bare = { ...full, hash: undefined }
      assert.deepStrictEqual(decoded("reject", encoded(bare)), bare)
      assert.strictEqual(malformed("reject", encoded(full).slice(0, -1))._tag, "Truncated")
    }
    assert.strictEqual(refused({ ...reject, rejected: "version" })._tag, "BadValue")
    assert.strictEqual(refused({ ...reject, hash: new Uint8Array(31) })._tag, "BadValue")
  })

  it("has a command of at most 12 bytes and a reason of at most 111", () => {
    const longest = { ...reject, rejected: "x".repeat(12), reason: "y".repeat(111), hash: undefined }
    assert.deepStrictEqual(decoded("reject", encoded(longest)), longest)
    assert.strictEqual(refused({ ...longest, rejected: "x".repeat(13) })._tag, "TooMany")
    assert.strictEqual(refused({ ...longest, reason: "y".repeat(112) })._tag, "TooMany")
    assert.strictEqual(refused({ ...longest, code: 256 })._tag, "BadValue")
    assert.strictEqual(malformed("reject", concat([13], new Uint8Array(20)))._tag, "TooMany")
    assert.strictEqual(malformed("reject", concat([0, 0, 112], new Uint8Array(112)))._tag, "TooMany")
  })
})

const unknown = (command: string, size = 0): Wire.Unknown => ({
  _tag: "Unknown",
  command,
  payload: new Uint8Array(size)
})

describe("an unknown message", () => {
  it("has a command of 1 to 12 printable ASCII characters", () => {
    for (const command of ["x", "twelve-chars", " ~"])
      assert.deepStrictEqual(encoded(unknown(command)), new Uint8Array(0))
    for (const command of ["", "thirteen-char", "é", "a\u0000", "a\n", "x\u007f"]) {
      assert.strictEqual(refused(unknown(command))._tag, "BadValue")
    }
  })

  it("has at most 4,000,000 bytes", () => {
    assert.strictEqual(encoded(unknown("x", 4_000_000)).length, 4_000_000)
    const reason = { _tag: "PayloadTooLarge", length: 4_000_001, limit: 4_000_000 } as const
    assert.deepStrictEqual(refused(unknown("x", 4_000_001)), reason)
    assert.deepStrictEqual(malformed("x", new Uint8Array(4_000_001)), reason)
  })
})

describe("service bits", () => {
  it("are named as Bitcoin Core names them, lowest first", () => {
    assert.deepStrictEqual(Wire.serviceNames(0n), [])
    assert.deepStrictEqual(Wire.serviceNames(Object.values(Wire.Service).reduce((all, bit) => all | bit, 0n)), [
      "NETWORK",
      "BLOOM",
      "WITNESS",
      "COMPACT_FILTERS",
      "NETWORK_LIMITED",
      "P2P_V2"
    ])
    assert.deepStrictEqual(Wire.serviceNames((1n << 63n) | 2n), ["UNKNOWN[2^1]", "UNKNOWN[2^63]"])
  })
})
