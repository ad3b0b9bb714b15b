/** SipHash-2-4, for the short ids of compact blocks (BIP152) and compact filters (BIP158). */
import { assert, describe, it } from "@effect/vitest"
import { sipHash, sipKey } from "../src/primitives/siphash.ts"
import * as Wire from "../src/Wire.ts"

/** The hash as the paper and Core print it: 16 hexadecimal digits, highest first. */
const hashOf = (key: Uint8Array, bytes: Uint8Array): string => {
  const out = new Uint32Array(2)
  sipHash(sipKey(key), bytes, out)
  return Array.from(out, (half) => half.toString(16).padStart(8, "0"))
    .toReversed()
    .join("")
}
const counting = (length: number, from = 0): Uint8Array => Uint8Array.from({ length }, (_, index) => from + index)
const words = (...numbers: ReadonlyArray<bigint>): Uint8Array => new Uint8Array(BigUint64Array.from(numbers).buffer)

/** The hashes of the empty message, 00, 00 01, … 00 01 … 3e, with the key 00 01 … 0f. */
const ofThePaper = `
  726fdb47dd0e0e31 74f839c593dc67fd 0d6c8009d9a94f5a 85676696d7fb7e2d cf2794e0277187b7 18765564cd99a68d
  cbc9466e58fee3ce ab0200f58b01d137 93f5f5799a932462 9e0082df0ba9e4b0 7a5dbbc594ddb9f3 f4b32f46226bada7
  751e8fbc860ee5fb 14ea5627c0843d90 f723ca908e7af2ee a129ca6149be45e5 3f2acc7f57c29bdb 699ae9f52cbe4794
  4bc1b3f0968dd39c bb6dc91da77961bd bed65cf21aa2ee98 d0f2cbb02e3b67c7 93536795e3a33e88 a80c038ccd5ccec8
  b8ad50c6f649af94 bce192de8a85b8ea 17d835b85bbb15f3 2f2e6163076bcfad de4daaaca71dc9a5 a6a2506687956571
  ad87a3535c49ef28 32d892fad841c342 7127512f72f27cce a7f32346f95978e3 12e0b01abb051238 15e034d40fa197ae
  314dffbe0815a3b4 027990f029623981 cadcd4e59ef40c4d 9abfd8766a33735c 0e3ea96b5304a7d0 ad0c42d6fc585992
  187306c89bc215a9 d4a60abcf3792b95 f935451de4f21df2 a9538f0419755787 db9acddff56ca510 d06c98cd5c0975eb
  e612a3cb9ecba951 c766e62cfcadaf96 ee64435a9752fe72 a192d576b245165a 0a8787bf8ecb74b2 81b3e73d20b49b6f
  7fa8220ba3b2ecea 245731c13ca42499 b78dbfaf3a8d83bd ea1ad565322a1a0b 60e61c23a3795013 6606d7e446282b93
  6ca4ecb15c5f91e1 9f626da15c9625f3 e51b38608ef25f57 958a324ceb064572
`
  .trim()
  .split(/\s+/)

describe("SipHash-2-4", () => {
  it("matches the vectors of its authors for every length up to 63 bytes", () => {
    assert.strictEqual(ofThePaper.length, 64)
    for (const [length, expected] of ofThePaper.entries()) {
      assert.strictEqual(hashOf(counting(16), counting(length)), expected, `${length} bytes`)
    }
  })

  it("matches the vectors of Bitcoin Core for 32-byte inputs", () => {
    const ones = new Uint8Array(32).fill(0xff)
    assert.strictEqual(hashOf(new Uint8Array(16), new Uint8Array(32)), "6c37e103dfa2827d")
    assert.strictEqual(hashOf(counting(16), new Uint8Array(32)), "8990d3e4299496f4")
    assert.strictEqual(hashOf(counting(16), ones), "e1041d47f898e431")
    assert.strictEqual(hashOf(counting(16), counting(32, 0x40)), "27bd5ecb84e56c87")
    assert.strictEqual(hashOf(new Uint8Array(16).fill(0xff), new Uint8Array(0)), "35dd279ee86ce565")
    const txid = Wire.txid({ version: 1, inputs: [], outputs: [], lockTime: 0 })
    assert.strictEqual(hashOf(words(1n, 2n), txid), "79751e980c2a0a35")
  })
})
