/**
 * SHA-256, for the whole package, by `@noble/hashes` and, where it works, `node:crypto`. It is looked up at run time, so that a
 * bundler finds no `node:` import.
 */
import { _SHA256, sha256 as noble } from "@noble/hashes/sha2.js"
import { sha3_256 } from "@noble/hashes/sha3.js"
import { u32At, viewOf } from "./bytes.ts"

/** Gives one character for each byte of the hash. Bytes would be allocated outside of V8's heap, which takes longer than hashing. */
type NodeHash = (algorithm: "sha256", bytes: Uint8Array, encoding: "binary") => string

/** `crypto.hash` of Node, if it gives the hash that noble gives: other runtimes have parts of `node:crypto`. */
const probed = (hash: NodeHash | undefined): NodeHash | undefined => {
  // Not at the start of its buffer.
  const input = Uint8Array.from({ length: 200 }, (_, index) => index).subarray(3)
  try {
    return hash?.("sha256", input, "binary") === String.fromCharCode(...noble(input)) ? hash : undefined
  } catch {
    return undefined
  }
}
const nodeHash = probed(globalThis.process?.getBuiltinModule?.("node:crypto")?.hash)

/**
 * Inputs of up to this many blocks of 64 bytes, with padding, are hashed by the compression function of noble. For a single block it is
 * faster than a call of Node. Double hashes of 32, 64, 250, 400, 1,000 and 2,400 bytes take (µs, Node 24 on our machine): with the
 * compression function alone 0.9, 1.3, 2.8, 3.3; with `crypto.hash` before it 1.1, 1.1, 1.1, 1.3, 1.7, 3.0; with two calls of
 * `crypto.hash` that give bytes 2.4, 2.4, 2.4, 3.1, 3.6, 4.0.
 */
const shortBlocks = nodeHash === undefined ? 5 : 1
const paddingSize = 9
const shortSize = shortBlocks * 64 - paddingSize

/**
 * Double SHA-256. It writes the hash byte by byte: `digestInto` of noble makes a `DataView` of each output, for which V8 moves the 32
 * bytes out of its heap.
 */
class DoubleHasher extends _SHA256 {
  readonly #bytes = new Uint8Array(shortBlocks * 64)
  readonly #words = new DataView(this.#bytes.buffer)
  readonly #initial = this.get()

  /** Writes the hash to `out` at an offset. */
  hash(input: Uint8Array, out: Uint8Array, offset: number): void {
    const bytes = this.#bytes
    if (input.length <= shortSize) {
      bytes.set(input)
      this.#digest(input.length)
    } else if (nodeHash === undefined) bytes.set(noble(input))
    else {
      const first = nodeHash("sha256", input, "binary")
      for (let i = 0; i < 32; i++) bytes[i] = first.charCodeAt(i)
    }
    this.#digest(32)
    for (let i = 0; i < 32; i++) out[offset + i] = bytes[i]
  }

  /** Replaces the first bytes by their hash. */
  #digest(length: number): void {
    const bytes = this.#bytes
    const words = this.#words
    const initial = this.#initial
    const size = Math.ceil((length + paddingSize) / 64) * 64
    bytes[length] = 0x80
    bytes.fill(0, length + 1, size)
    words.setUint32(size - 4, length * 8)
    this.set(initial[0], initial[1], initial[2], initial[3], initial[4], initial[5], initial[6], initial[7])
    for (let at = 0; at < size; at += 64) this.process(words, at)
    words.setInt32(0, this.A)
    words.setInt32(4, this.B)
    words.setInt32(8, this.C)
    words.setInt32(12, this.D)
    words.setInt32(16, this.E)
    words.setInt32(20, this.F)
    words.setInt32(24, this.G)
    words.setInt32(28, this.H)
  }
}

const hasher = new DoubleHasher()
const scratch = new Uint8Array(32)

/** SHA-256(SHA-256(bytes)), the hash of transactions and blocks, in a buffer of its own. */
export const doubleSha256 = (bytes: Uint8Array): Uint8Array => {
  const hash = new Uint8Array(32)
  hasher.hash(bytes, hash, 0)
  return hash
}

/** Hashes each two neighbours of `count` hashes, an even number: the results are the first `count / 2` hashes. */
export const doubleSha256Pairs = (hashes: Uint8Array, count: number): void => {
  for (let i = 0; i < count / 2; i++) hasher.hash(viewOf(hashes, i * 64, i * 64 + 64), hashes, i * 32)
}

/** The first four bytes of `doubleSha256` as a little-endian number, without allocating a hash. */
export const checksum = (bytes: Uint8Array): number => {
  hasher.hash(bytes, scratch, 0)
  return u32At(scratch, 0)
}

/** SHA-256 once, for the keys of short ids. */
export const sha256: (bytes: Uint8Array) => Uint8Array = noble

/** SHA3-256, for Tor v3 addresses only. */
export const sha3: (bytes: Uint8Array) => Uint8Array = sha3_256
