/** Bloom filters (BIP37): murmur3, elements, matching transactions, the update rule and filtered blocks. */
import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as fs from "node:fs"
import * as BloomFilter from "../src/BloomFilter.ts"
import { murmur3 } from "../src/primitives/murmur3.ts"
import { isPayToPubkey } from "../src/primitives/scriptPush.ts"
import * as MerkleBlock from "../src/MerkleBlock.ts"
import * as Wire from "../src/Wire.ts"
import { bytes, concat, decoded, encoded, integer, transaction, u32 } from "./support/generators.ts"

const fromHex = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"))
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

const core = JSON.parse(fs.readFileSync(new URL("support/core-bloom.json", import.meta.url), "utf8")) as Record<
  string,
  string
>
const coreTransaction = (name: string): Wire.Transaction => (decoded("tx", fromHex(core[name])) as Wire.Tx).transaction
const coreBlock = (name: string): Wire.Block => (decoded("block", fromHex(core[name])) as Wire.BlockMessage).block

const filterOf = (elements: number, falsePositiveRate: number, update: BloomFilter.Update = "all", tweak = 0) =>
  BloomFilter.make({ elements, falsePositiveRate, tweak, update })
const small = (update?: BloomFilter.Update) => filterOf(10, 0.000001, update)
const outPoint = (txid: string, index: number): Wire.OutPoint => ({ txid: Wire.hashFromHex(txid), index })

describe("murmur3", () => {
  it("matches Bitcoin Core's hash_tests", () => {
    for (const [expected, seed, data] of [
      [0x00000000, 0x00000000, ""],
      [0x6a396f08, 0xfba4c795, ""],
      [0x81f16f39, 0xffffffff, ""],
      [0x514e28b7, 0x00000000, "00"],
      [0xea3f0b17, 0xfba4c795, "00"],
      [0xfd6cf10d, 0x00000000, "ff"],
      [0x16c6b7ab, 0x00000000, "0011"],
      [0x8eb51c3d, 0x00000000, "001122"],
      [0xb4471bf8, 0x00000000, "00112233"],
      [0xe2301fa8, 0x00000000, "0011223344"],
      [0xfc2e4a15, 0x00000000, "001122334455"],
      [0xb074502c, 0x00000000, "00112233445566"],
      [0x8034d2a0, 0x00000000, "0011223344556677"],
      [0xb4698def, 0x00000000, "001122334455667788"]
    ] as const) {
      assert.strictEqual(murmur3(seed, fromHex(data)), expected, data)
    }
  })

  it("uses the lowest 32 bits of the seed", () => {
    assert.strictEqual(murmur3(0xfba4c795 + 2 ** 32, fromHex("00")), 0xea3f0b17)
    assert.strictEqual(murmur3(0xfba4c795 - 2 ** 32, fromHex("00")), 0xea3f0b17)
  })
})

describe("a filter", () => {
  it("has the same bytes as in Bitcoin Core's bloom_tests after the same inserts", () => {
    const three = [
      "99108ad8ed9bb6274d3980bab5a85c048f0950c8",
      "b5a2c786d9ef4658287ced5914b37a1b4aa32eee",
      "b9300670b4c5366e95b2699e8b18bc75e5f729c5"
    ]
    // A public key and its hash.
    const two = [
      "045b81f0017e2091e2edcd5eecf10d5bdd120a5514cb3ee65b8447ec18bfc4575c6d5bf415e54e03b1067934a0f0ba76b01c6b9ab227142ee1d543764b69d901e0",
      "477abbacd4113f2e6b100526222eedd953c26a64"
    ]
    for (const [filter, inserted, expected] of [
      [filterOf(3, 0.01), three, "03614e9b050000000000000001"],
      [filterOf(3, 0.01, "all", 2147483649), three, "03ce4299050000000100008001"],
      [filterOf(2, 0.001), two, "038fc16b080000000000000001"]
    ] as const) {
      for (const data of inserted) BloomFilter.insert(filter, fromHex(data))
      assert.strictEqual(toHex(encoded(BloomFilter.toFilterLoad(filter))), expected)
      for (const data of inserted) assert.isTrue(BloomFilter.contains(filter, fromHex(data)))
      // This element differs from the first one in one bit.
      assert.isFalse(BloomFilter.contains(filter, fromHex("19108ad8ed9bb6274d3980bab5a85c048f0950c8")))
    }
  })

  it("has the size and hash functions of BIP37's formula, at most 36,000 bytes and 50", () => {
    const sizes = (elements: number, rate: number): ReadonlyArray<number> => {
      const { bytes, hashFunctions } = filterOf(elements, rate)
      return [bytes.length, hashFunctions]
    }
    assert.deepStrictEqual(sizes(10, 0.000001), [35, 19])
    assert.deepStrictEqual(sizes(10_000, 0.000001), [35_943, 19])
    assert.deepStrictEqual(sizes(20_000, 0.001), [35_943, 9])
    assert.deepStrictEqual(sizes(144_000, 0.000001), [36_000, 1])
    assert.deepStrictEqual(sizes(144_001, 0.000001), [36_000, 0])
    assert.deepStrictEqual(sizes(1, 0), [36_000, 50])
    assert.deepStrictEqual(sizes(0, 0.01), sizes(1, 0.01))
    assert.deepStrictEqual(sizes(1, 0.5), [0, 0])
    assert.deepStrictEqual(sizes(1, 1), [0, 0])
    assert.deepStrictEqual(sizes(1, 2), [0, 0])
  })

  it("of 0 bytes contains and matches everything, and nothing can be added (CVE-2013-5700)", () => {
    const filter = BloomFilter.fromFilterLoad({
      _tag: "filterload",
      filter: new Uint8Array(0),
      hashFunctions: 50,
      tweak: 1,
      flags: 1
    })
    BloomFilter.insert(filter, Uint8Array.of(1))
    assert.strictEqual(filter.bytes.length, 0)
    assert.isTrue(BloomFilter.contains(filter, Uint8Array.of(2)))
    assert.isTrue(BloomFilter.matches(filter, coreTransaction("transaction")))
  })

  it("of zeros contains nothing; a filter of ones or with 0 hash functions contains everything", () => {
    const load = { _tag: "filterload", filter: new Uint8Array(9), hashFunctions: 3, tweak: 1, flags: 0 } as const
    const matches = (message: Wire.FilterLoad): boolean =>
      BloomFilter.matches(BloomFilter.fromFilterLoad(message), coreTransaction("transaction"))
    assert.isFalse(matches(load))
    assert.isTrue(matches({ ...load, filter: new Uint8Array(9).fill(0xff) }))
    assert.isTrue(matches({ ...load, hashFunctions: 0 }))
  })

  it.prop(
    "contains every inserted element, also after encoding and decoding",
    [Arbitrary.array(bytes(80), { maxLength: 30 }), u32, integer(1, 50)],
    ([elements, tweak, size]) => {
      const filter = BloomFilter.make({ elements: size, falsePositiveRate: 0.001, tweak })
      for (const element of elements) BloomFilter.insert(filter, element)
      const message = decoded("filterload", encoded(BloomFilter.toFilterLoad(filter))) as Wire.FilterLoad
      const again = BloomFilter.fromFilterLoad(message)
      assert.deepStrictEqual(again, filter)
      return elements.every((element) => BloomFilter.contains(filter, element))
    },
    { arbitrary: { runs: 100, seed: 1 } }
  )

  it("has about the false positive rate of the options", () => {
    const filter = BloomFilter.make({ elements: 1_000, falsePositiveRate: 0.01, tweak: 12_345 })
    const element = (number: number): Uint8Array => Uint8Array.of(number, number >> 8, number >> 16)
    for (let i = 0; i < 1_000; i++) BloomFilter.insert(filter, element(i))
    let wrong = 0
    for (let i = 1_000; i < 51_000; i++) if (BloomFilter.contains(filter, element(i))) wrong++
    assert.isAbove(wrong, 350)
    assert.isBelow(wrong, 650)
  })

  it("shares no bytes with the message it is made from, nor with the message it makes", () => {
    const message = BloomFilter.toFilterLoad(small())
    const filter = BloomFilter.fromFilterLoad(message)
    const snapshot = BloomFilter.toFilterLoad(filter)
    BloomFilter.insert(filter, Uint8Array.of(1))
    for (const { filter } of [message, snapshot]) assert.isTrue(filter.every((byte) => byte === 0))
  })

  it("has the update rule of the two lowest bits of the flags; 3 means no updates", () => {
    const update = (flags: number) => BloomFilter.fromFilterLoad({ ...BloomFilter.toFilterLoad(small()), flags }).update
    assert.deepStrictEqual([0, 1, 2, 3, 4, 0xfd, 0xfe].map(update), [
      "none",
      "all",
      "p2pubkeyOnly",
      "none",
      "none",
      "all",
      "p2pubkeyOnly"
    ])
    for (const rule of ["none", "all", "p2pubkeyOnly"] as const) {
      assert.strictEqual(BloomFilter.fromFilterLoad(BloomFilter.toFilterLoad(small(rule))).update, rule)
    }
  })
})

describe("a transaction (Core's bloom_match)", () => {
  const tx = coreTransaction("transaction")
  const spending = coreTransaction("spendingTransaction")
  const matchesWith = (insert: (filter: BloomFilter.BloomFilter) => void): boolean => {
    const filter = small()
    insert(filter)
    return BloomFilter.matches(filter, tx)
  }
  const data = (hex: string) => (filter: BloomFilter.BloomFilter) => BloomFilter.insert(filter, fromHex(hex))
  const prevout = "90c122d70786e899529d71dbeba91ba216982fb6ba58f3bdaab65e73b7e9260b"

  it("matches a filter with its txid in wire order", () => {
    assert.isTrue(matchesWith(data("6bff7fcd4f8565ef406dd5d63d4ff94f318fe82027fd4dc451b04474019f74b4")))
    assert.isFalse(matchesWith(data("b4749f017444b051c44dfd2720e88f314ff94f3dd6d56d40ef65854fcd7fff6b")))
    const other = Wire.hashFromHex("00000009e784f32f62ef849763d4f45b98e07ba658647343b915ff832b110436")
    assert.isFalse(matchesWith((filter) => BloomFilter.insert(filter, other)))
  })

  it("matches a filter with data that an input pushes, such as a signature or public key", () => {
    for (const hex of [
      "30450220070aca44506c5cef3a16ed519d7c3c39f8aab192c4e1c90d065f37b8a4af6141022100a8e160b856c2d43d27d8fba71e5aef6405b8643ac4cb7cb3c462aced7f14711a01",
      "046d11fee51b0e60666d5049a9101a72741df480b96ee26488a4d3466b95c9a40ac5eeef87e10a5cd336c19a84565f80fa6c547957b7700ff4dfbdefe76036c339"
    ]) {
      assert.isTrue(matchesWith(data(hex)))
    }
  })

  it("matches a filter with data that an output pushes; then a transaction that spends this output matches, too", () => {
    assert.isTrue(matchesWith(data("a266436d2965547608b9e15d9032a7b9d64fa431")))
    assert.isFalse(matchesWith(data("0000006d2965547608b9e15d9032a7b9d64fa431")))
    const filter = small()
    BloomFilter.insert(filter, fromHex("04943fdd508053c75000106d3bc6e2754dbcff19"))
    assert.isFalse(BloomFilter.matches(filter, spending))
    assert.isTrue(BloomFilter.matches(filter, tx))
    assert.isTrue(BloomFilter.matches(filter, spending))
  })

  it("matches a filter with an outpoint that it spends, inserted as outpoint or as 36 bytes", () => {
    const matchesOutPoint = (point: Wire.OutPoint): boolean =>
      matchesWith((filter) => BloomFilter.insertOutPoint(filter, point))
    assert.isTrue(matchesOutPoint(outPoint(prevout, 0)))
    assert.isTrue(matchesWith((filter) => BloomFilter.insert(filter, concat(Wire.hashFromHex(prevout), [0, 0, 0, 0]))))
    assert.isFalse(matchesOutPoint(outPoint(prevout, 1)))
    assert.isFalse(matchesOutPoint(outPoint(`000000${prevout.slice(6)}`, 0)))
  })

  it.prop(
    "causes no defect with any filter",
    [transaction, bytes(100), integer(0, 50), integer(0, 255)],
    ([tx, filter, hashFunctions, flags]) => {
      const made = BloomFilter.fromFilterLoad({ _tag: "filterload", filter, hashFunctions, tweak: 0, flags })
      return typeof BloomFilter.matches(made, tx) === "boolean"
    },
    { arbitrary: { runs: 200, seed: 2 } }
  )
})

describe("the data that scripts push", () => {
  const element = Uint8Array.of(1, 2, 3)
  const filter = small("none")
  BloomFilter.insert(filter, element)
  const matches = (...script: ReadonlyArray<number>): boolean =>
    BloomFilter.matches(filter, {
      version: 1,
      inputs: [],
      outputs: [{ value: 0, script: Uint8Array.from(script) }],
      lockTime: 0
    })

  it("matches in every form of a push, after any opcodes", () => {
    assert.isTrue(matches(3, ...element))
    assert.isTrue(matches(0x4c, 3, ...element))
    assert.isTrue(matches(0x4d, 3, 0, ...element))
    assert.isTrue(matches(0x4e, 3, 0, 0, 0, ...element))
    assert.isTrue(matches(0x6a, 0, 0x51, 0xff, 2, 9, 9, 3, ...element, 0xac))
    assert.isFalse(matches(4, ...element, 0))
    assert.isFalse(matches(...element))
  })

  it("does not match in a truncated push or after it", () => {
    assert.isFalse(matches(3, 1, 2))
    assert.isFalse(matches(0x4c))
    assert.isFalse(matches(0x4d, 3))
    assert.isFalse(matches(0x4e, 3, 0, 0))
    assert.isFalse(matches(0x4e, 0xff, 0xff, 0xff, 0xff, 3, ...element))
    assert.isFalse(matches(0x4c, 9, 3, ...element))
  })

  it("does not match if it is empty", () => {
    const empty = small("none")
    BloomFilter.insert(empty, new Uint8Array(0))
    const outputs = [{ value: 0, script: Uint8Array.of(0, 0x4c, 0) }]
    assert.isFalse(BloomFilter.matches(empty, { version: 1, inputs: [], outputs, lockTime: 0 }))
  })
})

describe("the update rule", () => {
  const key = concat([2], new Uint8Array(32).fill(5))
  const longKey = concat([4], new Uint8Array(64).fill(6))
  const paysTo = (script: Uint8Array): Wire.Transaction => ({
    version: 1,
    inputs: [],
    outputs: [
      { value: 0, script: Uint8Array.of(0x51) },
      { value: 1, script }
    ],
    lockTime: 0
  })
  const scripts = {
    publicKey: concat([33], key, [0xac]),
    multisig: concat([0x51, 65], longKey, [33], key, [0x52, 0xae]),
    witness: concat([0, 20], key.subarray(0, 20)),
    pushed: concat([33], key, [0x75])
  }

  it("adds no outpoints of matching outputs, all of them, or only those of bare public keys", () => {
    for (const [update, expected] of [
      ["none", []],
      ["all", ["publicKey", "multisig", "witness", "pushed"]],
      ["p2pubkeyOnly", ["publicKey", "multisig"]]
    ] as const) {
      const updated = Object.entries(scripts).filter(([, script]) => {
        const filter = small(update)
        BloomFilter.insert(filter, key)
        BloomFilter.insert(filter, key.subarray(0, 20))
        const payment = paysTo(script)
        assert.isTrue(BloomFilter.matches(filter, payment))
        assert.isFalse(BloomFilter.containsOutPoint(filter, { txid: Wire.txid(payment), index: 0 }))
        return BloomFilter.containsOutPoint(filter, { txid: Wire.txid(payment), index: 1 })
      })
      assert.deepStrictEqual(
        updated.map(([name]) => name),
        [...expected]
      )
    }
  })

  it("applies to every output, even if the txid or an earlier output matched", () => {
    const outputs = [scripts.witness, scripts.publicKey].map((script) => ({ value: 0, script }))
    const payment = { version: 1, inputs: [], outputs, lockTime: 0 }
    const filter = small()
    for (const data of [key, key.subarray(0, 20), Wire.txid(payment)]) BloomFilter.insert(filter, data)
    assert.isTrue(BloomFilter.matches(filter, payment))
    for (const index of [0, 1]) assert.isTrue(BloomFilter.containsOutPoint(filter, { txid: Wire.txid(payment), index }))
  })

  it("recognises the same pay-to-pubkey and bare multisig scripts as Core's Solver", () => {
    const keys = (count: number): Uint8Array => concat(...Array.from({ length: count }, () => concat([33], key)))
    for (const [script, expected] of [
      [scripts.publicKey, true],
      [concat([65], longKey, [0xac]), true],
      [concat([65, 6], longKey.subarray(1), [0xac]), true],
      [concat([33, 4], key.subarray(1), [0xac]), false],
      [concat([65, 5], longKey.subarray(1), [0xac]), false],
      [concat([33], key, [0xac, 0xac]), false],
      [concat([33], key), false],
      [concat([32], key.subarray(1), [0xac]), false],
      [concat([0x51], keys(1), [0x51, 0xae]), true],
      [concat([0x60], keys(16), [0x60, 0xae]), true],
      // Numbers above 16 need a push.
      [concat([1, 17], keys(20), [1, 20, 0xae]), true],
      [concat([1, 17], keys(21), [1, 21, 0xae]), false],
      [concat([1, 1], keys(1), [0x51, 0xae]), false],
      [concat([0x51], [0x4c, 33], key, [0x51, 0xae]), true],
      [concat([0x52], keys(1), [0x51, 0xae]), false],
      [concat([0x51], keys(2), [0x51, 0xae]), false],
      [concat([0x51], keys(1), [0x52, 0xae]), false],
      [concat([0x00], keys(1), [0x51, 0xae]), false],
      [concat([0x51], keys(1), [0x51, 0xae, 0xae]), false],
      [concat([0x51], keys(1), [0x51, 0x61, 0xae]), false],
      [concat([0x51], keys(1), [0xae]), false],
      [concat([0x51], [33], key.subarray(0, 5), [0xae]), false],
      [Uint8Array.of(0xae), false],
      [Uint8Array.of(0x51, 0xae), false],
      [new Uint8Array(0), false]
    ] as const) {
      assert.strictEqual(isPayToPubkey(script), expected, toHex(script))
    }
  })
})

describe("a filtered block (Core's merkle_block tests)", () => {
  const filtered = (block: Wire.Block, filter: BloomFilter.BloomFilter): ReadonlyArray<number> => {
    const matched: Array<number> = []
    MerkleBlock.make(block, (transaction, txid, index) => {
      const matches = BloomFilter.matches(filter, transaction, txid)
      if (matches) matched.push(index)
      return matches
    })
    return matched
  }
  const publicKey = fromHex(
    "044a656f065871a353f216ca26cef8dde2f03e8c16202d2e8ad769f02032cb86a5eb5e56842e92e19141d60a01928f8dd2c875a390f67c1f6c94cfc617c0ea45af"
  )
  const generationKey = fromHex(
    "04eaafc2314def4ca98ac970241bcab022b9c1e1f4ea423a20f134c876f2c01ec0f0dd5b2e86e7168cefe0d81113c3807420ce13ad1357231a2252247d97a46a91"
  )

  it("merkle_block_1 and 4: matches by txid", () => {
    const filter = small()
    BloomFilter.insert(filter, Wire.hashFromHex("74d681e0e03bafa802c8aa084379aa98d9fcd632ddc2ed9782b586ec87451f20"))
    assert.deepStrictEqual(filtered(coreBlock("block1"), filter), [8])
    BloomFilter.insert(filter, Wire.hashFromHex("dd1fd2a6fc16404faf339881a90adbde7f4f728691ac62e8f168809cdfae1053"))
    assert.deepStrictEqual(filtered(coreBlock("block1"), filter), [7, 8])

    const other = small()
    BloomFilter.insert(other, Wire.hashFromHex("0a2a92f0bda4727d0a13eaddf4dd9ac6b5c61a1429e6b2b818f19b15df0ac154"))
    assert.deepStrictEqual(filtered(coreBlock("block4"), other), [6])
    BloomFilter.insert(other, Wire.hashFromHex("02981fa052f0481dbc5868f4fc2166035a10f27a03cfd2de67326471df5bc041"))
    assert.deepStrictEqual(filtered(coreBlock("block4"), other), [3, 6])
  })

  it("merkle_block_2: a spender in the same block matches only if outpoints are added", () => {
    for (const [update, expected] of [
      ["all", [0, 1, 2, 3]],
      ["none", [0, 1, 3]]
    ] as const) {
      const filter = small(update)
      BloomFilter.insert(filter, Wire.hashFromHex("e980fe9f792d014e73b95203dc1335c5f9ce19ac537a419e6df5b47aecb93b70"))
      assert.deepStrictEqual(filtered(coreBlock("block2"), filter), [0])
      BloomFilter.insert(filter, publicKey)
      assert.deepStrictEqual(filtered(coreBlock("block2"), filter), expected)
    }
  })

  it("merkle_block_3: has the same bytes as in Core", () => {
    const filter = small()
    BloomFilter.insert(filter, Wire.hashFromHex("63194f18be0af63f2c6bc9dc0f777cbefed3d9415c4af83f3ee3a3d669c00cb5"))
    const { merkleBlock } = MerkleBlock.make(coreBlock("block3"), (tx) => BloomFilter.matches(filter, tx))
    assert.strictEqual(toHex(encoded(merkleBlock)), core["merkleBlock3"])
  })

  it("merkle_block_4: outpoints are added only for pay-to-pubkey, or not at all", () => {
    for (const [update, expected] of [
      ["p2pubkeyOnly", [true, false]],
      ["none", [false, false]],
      ["all", [true, true]]
    ] as const) {
      const filter = small(update)
      BloomFilter.insert(filter, generationKey)
      BloomFilter.insert(filter, fromHex("b6efd80d99179f4f4ff6f4dd0a007d018c385d21"))
      filtered(coreBlock("block4"), filter)
      const added = [
        outPoint("147caa76786596590baa4e98f5d9f48b86c7765e489f7a6ff3360fe5c674360b", 0),
        outPoint("02981fa052f0481dbc5868f4fc2166035a10f27a03cfd2de67326471df5bc041", 0)
      ].map((point) => BloomFilter.containsOutPoint(filter, point))
      assert.deepStrictEqual(added, [...expected])
    }
  })
})
