/** The messages of compact filters (BIP157), of reconciliation and packages (BIP330, BIP331), and alerts. */
import { assert, describe, it } from "@effect/vitest"
import * as Wire from "../src/Wire.ts"
import { concat, decoded, encoded, plain, reasonOf } from "./support/generators.ts"

const hash = Uint8Array.from({ length: 32 }, (_, i) => i)
const hashes = (count: number): Array<Uint8Array> => Array.from({ length: count }, () => hash)
const u16 = (count: number) => [0xfd, count & 0xff, count >> 8]

describe("compact filter messages", () => {
  it("have the layout of BIP157", () => {
    const range = { filterType: 7, startHeight: 0x01020304, stopHash: hash }
    for (const _tag of ["getcfilters", "getcfheaders"] as const) {
      assert.deepStrictEqual(encoded({ _tag, ...range }), concat([7, 4, 3, 2, 1], hash))
    }
    assert.deepStrictEqual(encoded({ _tag: "getcfcheckpt", filterType: 7, stopHash: hash }), concat([7], hash))
    assert.deepStrictEqual(
      encoded({ _tag: "cfilter", filterType: 7, blockHash: hash, filter: Uint8Array.of(1, 2) }),
      concat([7], hash, [2, 1, 2])
    )
    assert.deepStrictEqual(
      encoded({ _tag: "cfheaders", filterType: 7, stopHash: hash, previousFilterHeader: hash, filterHashes: [hash] }),
      concat([7], hash, hash, [1], hash)
    )
    assert.deepStrictEqual(
      encoded({ _tag: "cfcheckpt", filterType: 7, stopHash: hash, filterHeaders: [hash] }),
      concat([7], hash, [1], hash)
    )
  })

  it("cfheaders has at most 2,000 hashes", () => {
    const full: Wire.CFHeaders = {
      _tag: "cfheaders",
      filterType: 0,
      stopHash: hash,
      previousFilterHeader: hash,
      filterHashes: hashes(2_000)
    }
    assert.deepStrictEqual(plain(decoded("cfheaders", encoded(full))), full)
    const tooMany = { _tag: "TooMany", field: "filterHashes", count: 2_001, limit: 2_000 } as const
    assert.deepStrictEqual(reasonOf(Wire.encode({ ...full, filterHashes: hashes(2_001) })), tooMany)
    const payload = concat([0], hash, hash, u16(2_001), new Uint8Array(32 * 2_001))
    assert.deepStrictEqual(reasonOf(Wire.decode("cfheaders", payload)), tooMany)
  })

  it("cfcheckpt is limited only by the size of the payload", () => {
    const count = Math.floor((Wire.maxPayloadLength - 38) / 32)
    const message: Wire.CFCheckpt = { _tag: "cfcheckpt", filterType: 0, stopHash: hash, filterHeaders: hashes(count) }
    assert.strictEqual((decoded("cfcheckpt", encoded(message)) as Wire.CFCheckpt).filterHeaders.length, count)
    assert.strictEqual(reasonOf(Wire.encode({ ...message, filterHeaders: hashes(count + 1) }))._tag, "PayloadTooLarge")
  })

  it("cfilter has a filter of at most 262,144 bytes", () => {
    const full: Wire.CFilter = { _tag: "cfilter", filterType: 0, blockHash: hash, filter: new Uint8Array(262_144) }
    assert.strictEqual((decoded("cfilter", encoded(full)) as Wire.CFilter).filter.length, 262_144)
    const tooMany = { _tag: "TooMany", field: "filter", count: 262_145, limit: 262_144 } as const
    assert.deepStrictEqual(reasonOf(Wire.encode({ ...full, filter: new Uint8Array(262_145) })), tooMany)
    const payload = concat([0], hash, [0xfe, 1, 0, 4, 0], new Uint8Array(262_145))
    assert.deepStrictEqual(reasonOf(Wire.decode("cfilter", payload)), tooMany)
  })

  it("a count without its elements is Truncated before anything is allocated", () => {
    const lie = [0xfe, 0, 0, 0, 2]
    for (const [command, payload] of [
      ["cfilter", concat([0], hash, [0xfe, 0, 0, 4, 0])],
      ["cfcheckpt", concat([0], hash, lie)],
      ["ancpkginfo", u16(65_535)],
      ["getpkgtxns", [100]],
      ["pkgtxns", [100]]
    ] as const) {
      assert.strictEqual(reasonOf(Wire.decode(command, Uint8Array.from(payload)))._tag, "Truncated")
    }
  })

  it("are refused with a hash that is not 32 bytes or a number that does not fit", () => {
    const short = hash.subarray(1)
    for (const message of [
      { _tag: "getcfilters", filterType: 256, startHeight: 0, stopHash: hash },
      { _tag: "getcfheaders", filterType: 0, startHeight: -1, stopHash: hash },
      { _tag: "getcfcheckpt", filterType: 0, stopHash: short },
      { _tag: "cfilter", filterType: 0, blockHash: short, filter: hash },
      { _tag: "cfcheckpt", filterType: 0, stopHash: hash, filterHeaders: [short] },
      { _tag: "ancpkginfo", wtxids: [short] },
      { _tag: "sendtxrcncl", version: 2 ** 32, salt: 0n },
      { _tag: "sendpackages", versions: 1n << 64n }
    ] satisfies ReadonlyArray<Wire.Message>) {
      assert.strictEqual(reasonOf(Wire.encode(message))._tag, "BadValue", message._tag)
    }
  })
})

describe("reconciliation and packages", () => {
  it("have the layout of BIP330 and BIP331", () => {
    const salt = [8, 7, 6, 5, 4, 3, 2, 1]
    assert.deepStrictEqual(
      encoded({ _tag: "sendtxrcncl", version: 1, salt: 0x0102030405060708n }),
      concat([1, 0, 0, 0], salt)
    )
    assert.deepStrictEqual(encoded({ _tag: "sendpackages", versions: 0x0102030405060708n }), Uint8Array.from(salt))
    for (const _tag of ["ancpkginfo", "getpkgtxns"] as const) {
      assert.deepStrictEqual(encoded({ _tag, wtxids: [hash] }), concat([1], hash))
    }
    const empty: Wire.Transaction = { version: 2, inputs: [], outputs: [], lockTime: 0 }
    assert.deepStrictEqual(
      encoded({ _tag: "pkgtxns", transactions: [empty] }),
      Uint8Array.of(1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    )
  })

  it("have at most 100 transactions, or 65,535 in ancpkginfo", () => {
    const empty: Wire.Transaction = { version: 2, inputs: [], outputs: [], lockTime: 0 }
    const cases = [
      ["wtxids", 100, (count: number): Wire.Message => ({ _tag: "getpkgtxns", wtxids: hashes(count) })],
      ["wtxids", 65_535, (count: number): Wire.Message => ({ _tag: "ancpkginfo", wtxids: hashes(count) })],
      [
        "transactions",
        100,
        (count: number): Wire.Message => ({
          _tag: "pkgtxns",
          transactions: Array.from({ length: count }, () => empty)
        })
      ]
    ] as const
    for (const [field, limit, make] of cases) {
      const full = make(limit)
      assert.deepStrictEqual(plain(decoded(full._tag, encoded(full))), full)
      const tooMany = { _tag: "TooMany", field, count: limit + 1, limit } as const
      assert.deepStrictEqual(reasonOf(Wire.encode(make(limit + 1))), tooMany)
      const count = limit === 100 ? [101] : [0xfe, 0, 0, 1, 0]
      const bytes = concat(count, new Uint8Array((limit + 1) * 32))
      assert.deepStrictEqual(reasonOf(Wire.decode(full._tag, bytes)), tooMany)
    }
  })
})

describe("alert", () => {
  const text = (value: string): Uint8Array => concat([value.length], new TextEncoder().encode(value))
  /** The signed bytes of an alert, field by field. */
  const fields = (comment: Uint8Array = text("comment")): Uint8Array =>
    concat(
      [1, 0, 0, 0],
      [0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0],
      [0xfe, 0xff, 0xff, 0x7f, 0, 0, 0, 0],
      [0xf3, 3, 0, 0],
      [0xff, 0xff, 0xff, 0xff],
      [2, 5, 0, 0, 0, 6, 0, 0, 0],
      [10, 0, 0, 0],
      [20, 0, 0, 0],
      [2],
      text("/a/"),
      text(""),
      [100, 0, 0, 0],
      comment,
      text("URGENT"),
      text("")
    )
  const alert = (payload: Uint8Array): Uint8Array =>
    concat(
      payload.length < 0xfd ? [payload.length] : [0xfe, payload.length, payload.length >> 8, payload.length >> 16, 0],
      payload,
      [2, 8, 9]
    )

  it("is decoded with all fields of the signed bytes", () => {
    const payload = fields()
    assert.deepStrictEqual(plain(decoded("alert", alert(payload))), {
      _tag: "alert",
      payload,
      signature: Uint8Array.of(8, 9),
      version: 1,
      relayUntil: 0x7fffffff,
      expiration: 0x7ffffffe,
      id: 1011,
      cancel: -1,
      alsoCancel: [5, 6],
      minimumVersion: 10,
      maximumVersion: 20,
      userAgents: [Uint8Array.of(0x2f, 0x61, 0x2f), new Uint8Array(0)],
      priority: 100,
      comment: "comment",
      statusBar: "URGENT",
      reserved: ""
    })
  })

  it("is never encoded", () => {
    assert.deepStrictEqual(reasonOf(Wire.encode(decoded("alert", alert(fields())))), {
      _tag: "BadValue",
      field: "_tag",
      problem: "is a message that is only decoded: no node accepts alerts any more"
    })
  })

  it("is Truncated if cut at any byte, in the outer fields or in the signed bytes", () => {
    const whole = alert(fields())
    for (let size = 0; size < whole.length; size++) {
      assert.strictEqual(reasonOf(Wire.decode("alert", whole.subarray(0, size)))._tag, "Truncated")
    }
    for (let size = 0; size < fields().length; size++) {
      const reason = reasonOf(Wire.decode("alert", alert(fields().subarray(0, size))))
      assert.strictEqual(reason._tag, "Truncated", `${size} bytes`)
    }
  })

  it("has a comment of at most 65,536 bytes", () => {
    const comment = (size: number): Uint8Array => concat([0xfe, size, size >> 8, size >> 16, 0], new Uint8Array(size))
    assert.strictEqual((decoded("alert", alert(fields(comment(65_536)))) as Wire.Alert).comment.length, 65_536)
    assert.deepStrictEqual(reasonOf(Wire.decode("alert", alert(fields(comment(65_537))))), {
      _tag: "TooMany",
      field: "comment",
      count: 65_537,
      limit: 65_536
    })
  })
})
