/** Double SHA-256, with node:crypto and without it. */
import { afterEach, assert, describe, it, vi } from "@effect/vitest"
import { createHash } from "node:crypto"
import * as Sha256 from "../src/primitives/sha256.ts"

const sha256 = (bytes: Uint8Array): Uint8Array => createHash("sha256").update(bytes).digest()

const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1")

const expected = (bytes: Uint8Array): string => Buffer.from(sha256(sha256(bytes))).toString("hex")

const sizes = [...Array.from({ length: 330 }, (_, size) => size), 1_000, 65_537]

const compare = (module: Pick<typeof Sha256, "checksum" | "doubleSha256">): void => {
  for (const size of sizes) {
    const bytes = Uint8Array.from({ length: size }, (_, i) => (i * 31 + size) & 0xff)
    const hash = module.doubleSha256(bytes)
    assert.strictEqual(Buffer.from(hash).toString("hex"), expected(bytes), `${size} bytes`)
    assert.strictEqual(module.checksum(bytes), Buffer.from(hash).readUInt32LE(0), `${size} bytes`)
    assert.strictEqual(Object.getPrototypeOf(hash), Uint8Array.prototype)
  }
}

const comparePairs = (module: Pick<typeof Sha256, "doubleSha256Pairs">): void => {
  // Not at the start of its buffer.
  const level = Uint8Array.from({ length: 333 }, (_, i) => (i * 31) & 0xff).subarray(5)
  const pairs = [0, 1, 2].map((pair) => expected(level.slice(pair * 64, pair * 64 + 64)))
  module.doubleSha256Pairs(level, 6)
  assert.deepStrictEqual(
    pairs,
    [0, 1, 2].map((pair) => Buffer.from(level.slice(pair * 32, pair * 32 + 32)).toString("hex"))
  )
}

afterEach(() => {
  vi.restoreAllMocks()
  vi.resetModules()
})

describe("double SHA-256", () => {
  it("equals createHash of Node, for short and long inputs", () => compare(Sha256))

  it("hashes each pair of a level of a merkle tree in place", () => comparePairs(Sha256))

  it("gives the same hashes without node:crypto, as in a browser", async () => {
    vi.resetModules()
    const builtin = vi.spyOn(process, "getBuiltinModule").mockReturnValue(undefined as never)
    const module = await import("../src/primitives/sha256.ts")
    assert.isAbove(builtin.mock.calls.length, 0)
    assert.notStrictEqual(module.doubleSha256, Sha256.doubleSha256)
    compare(module)
  })

  it("gives the same hashes where `crypto.hash` throws, returns bytes, another text or a wrong hash", async () => {
    for (const hash of [
      () => {
        throw new Error("unknown algorithm")
      },
      () => "e3b0c442",
      (_: string, bytes: Uint8Array) => sha256(bytes),
      (_: string, bytes: Uint8Array) => latin1(bytes.length === 0 ? sha256(bytes) : new Uint8Array(32)),
      (_: string, bytes: Uint8Array) => latin1(sha256(new Uint8Array(bytes.buffer))),
      (_: string, bytes: Uint8Array) => latin1(sha256(bytes).fill(0, 31))
    ]) {
      vi.resetModules()
      vi.spyOn(process, "getBuiltinModule").mockReturnValue({ hash } as never)
      compare(await import("../src/primitives/sha256.ts"))
      vi.restoreAllMocks()
    }
  })

  it("returns buffers that later hashes do not overwrite", () => {
    for (const size of [10, 1_000]) {
      const first = Sha256.doubleSha256(new Uint8Array(size))
      const copy = first.slice()
      Sha256.doubleSha256(new Uint8Array(size).fill(1))
      Sha256.checksum(new Uint8Array(size).fill(2))
      assert.deepStrictEqual(first, copy)
    }
  })
})
