/**
 * SHA-256, for the whole package. Short inputs are hashed by `@noble/hashes`, long ones by `node:crypto` where it works. It is looked
 * up at run time, so that a bundler finds no `node:` import.
 */
import { _SHA256, sha256 as noble } from "@noble/hashes/sha2.js"
import { sha3_256 } from "@noble/hashes/sha3.js"

type NodeHash = (algorithm: "sha256", bytes: Uint8Array, encoding: "buffer") => Uint8Array

/** `crypto.hash` of Node, if it gives the hash that noble gives: other runtimes have parts of `node:crypto`. */
const probed = (hash: NodeHash | undefined): NodeHash | undefined => {
  // At least 312 bytes, as all its inputs, and not at the start of its buffer.
  const input = Uint8Array.from({ length: 400 }, (_, index) => index).subarray(3)
  try {
    const given = hash?.("sha256", input, "buffer")
    const isRight = given instanceof Uint8Array && given.length === 32
    return isRight && noble(input).every((byte, index) => byte === given[index]) ? hash : undefined
  } catch {
    return undefined
  }
}
const nodeHash = probed(globalThis.process?.getBuiltinModule?.("node:crypto")?.hash)

/**
 * Up to five blocks of SHA-256 (311 bytes and padding) `ShortHasher` is faster. Double hashes of 8, 64, 119, 183, 250 and 500 bytes
 * take (µs, Node 24 on our machine): `ShortHasher` 1.0, 1.3, 1.4, 1.9, 2.8, 4.0; `crypto.hash` 2.3, 2.3, 2.4, 2.4, 3.4, 3.5; noble's own
 * `digestInto` with reused objects 1.9, 2.2, 2.6, 3.1, 3.6, 3.2.
 */
const shortBlocks = 5
const paddingSize = 9
const shortSize = shortBlocks * 64 - paddingSize

/** The second block of an input of 64 bytes: only padding. */
const paddingOf64 = new DataView(new ArrayBuffer(64))
paddingOf64.setUint8(0, 0x80)
paddingOf64.setUint32(60, 512)

/**
 * Double SHA-256 of short inputs, by the compression function of noble. It writes the hash byte by byte: `digestInto` makes a `DataView`
 * of each output, for which V8 moves the 32 bytes out of its heap. That took longer than hashing.
 */
class ShortHasher extends _SHA256 {
  readonly #bytes = new Uint8Array(shortBlocks * 64)
  readonly #words = new DataView(this.#bytes.buffer)
  readonly #initial = this.get()

  double(input: Uint8Array, out: Uint8Array): Uint8Array {
    const bytes = this.#bytes
    bytes.set(input)
    this.#digest(input.length)
    this.#digest(32)
    for (let i = 0; i < 32; i++) out[i] = bytes[i]
    return out
  }

  /** Writes the double hash of 64 bytes of `level` to another place in it, without a copy of the input. */
  pair(level: DataView, from: number, to: number): void {
    this.#begin()
    this.process(level, from)
    this.process(paddingOf64, 0)
    this.#write(this.#words)
    this.#digest(32)
    for (let at = 0; at < 32; at += 4) level.setInt32(to + at, this.#words.getInt32(at))
  }

  #begin(): void {
    const initial = this.#initial
    this.set(initial[0], initial[1], initial[2], initial[3], initial[4], initial[5], initial[6], initial[7])
  }

  /** Replaces the first bytes by their hash. */
  #digest(length: number): void {
    const bytes = this.#bytes
    const words = this.#words
    const size = Math.ceil((length + paddingSize) / 64) * 64
    bytes[length] = 0x80
    bytes.fill(0, length + 1, size)
    words.setUint32(size - 4, length * 8)
    this.#begin()
    for (let at = 0; at < size; at += 64) this.process(words, at)
    this.#write(words)
  }

  #write(words: DataView): void {
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

const short = new ShortHasher()
const scratch = new Uint8Array(32)

const long = (bytes: Uint8Array): Uint8Array => {
  if (nodeHash === undefined) return noble(noble(bytes))
  const hash = nodeHash("sha256", nodeHash("sha256", bytes, "buffer"), "buffer")
  return new Uint8Array(hash.buffer, hash.byteOffset, 32)
}

/** SHA-256(SHA-256(bytes)), the hash of transactions and blocks, in a buffer of its own. */
export const doubleSha256 = (bytes: Uint8Array): Uint8Array =>
  bytes.length <= shortSize ? short.double(bytes, new Uint8Array(32)) : long(bytes)

/** Hashes each two neighbours of `count` hashes, an even number: the results are the first `count / 2` hashes. */
export const doubleSha256Pairs = (hashes: Uint8Array, count: number): void => {
  const level = new DataView(hashes.buffer, hashes.byteOffset, hashes.byteLength)
  for (let i = 0; i < count / 2; i++) short.pair(level, i * 64, i * 32)
}

/** The first four bytes of `doubleSha256` as a little-endian number, without allocating a hash. */
export const checksum = (bytes: Uint8Array): number => {
  const hash = bytes.length <= shortSize ? short.double(bytes, scratch) : long(bytes)
  return (hash[0] | (hash[1] << 8) | (hash[2] << 16) | (hash[3] << 24)) >>> 0
}

/** SHA-256 once, for the keys of short ids. */
export const sha256: (bytes: Uint8Array) => Uint8Array = noble

/** SHA3-256, for Tor v3 addresses only. */
export const sha3: (bytes: Uint8Array) => Uint8Array = sha3_256
