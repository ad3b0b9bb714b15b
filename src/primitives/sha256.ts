/**
 * SHA-256, for the whole package. Short inputs are hashed by `@noble/hashes`, long ones by `node:crypto` where it works. It is looked
 * up at run time, so that a bundler finds no `node:` import.
 */
import { sha256 as noble } from "@noble/hashes/sha2.js"
import { sha3_256 } from "@noble/hashes/sha3.js"

type NodeHash = (algorithm: "sha256", bytes: Uint8Array, encoding: "buffer") => Uint8Array

/** `crypto.hash` of Node, if it gives the hash that noble gives: other runtimes have parts of `node:crypto`. */
const probed = (hash: NodeHash | undefined): NodeHash | undefined => {
  // At least 120 bytes, as all its inputs, and not at the start of its buffer.
  const input = Uint8Array.from({ length: 200 }, (_, index) => index).subarray(3)
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
 * Up to two blocks of SHA-256 (119 bytes and padding) noble is faster, if its objects are reused. Double hashes of 8, 55, 80, 119,
 * 183 and 1,000 bytes take (µs, Node 24 on our machine): noble with reused objects 0.78, 0.79, 1.2, 1.2, 1.6, 6; `crypto.hash` 1.5,
 * 1.5, 1.5, 1.5, 1.6, 2; the function of noble that makes new objects 1.5 and more.
 */
const shortSize = nodeHash === undefined ? Infinity : 119

const fresh = noble.create()
const worker = noble.create()
const scratch = new Uint8Array(32)

const shortInto = (bytes: Uint8Array, out: Uint8Array): Uint8Array => {
  fresh._cloneInto(worker).update(bytes).digestInto(scratch)
  fresh._cloneInto(worker).update(scratch).digestInto(out)
  return out
}

const long = (bytes: Uint8Array): Uint8Array => {
  if (nodeHash === undefined) return shortInto(bytes, new Uint8Array(32))
  const hash = nodeHash("sha256", nodeHash("sha256", bytes, "buffer"), "buffer")
  return new Uint8Array(hash.buffer, hash.byteOffset, 32)
}

/** SHA-256(SHA-256(bytes)), the hash of transactions and blocks, in a buffer of its own. */
export const doubleSha256 = (bytes: Uint8Array): Uint8Array =>
  bytes.length <= shortSize ? shortInto(bytes, new Uint8Array(32)) : long(bytes)

/** The first four bytes of `doubleSha256` as a little-endian number, without allocating a hash. */
export const checksum = (bytes: Uint8Array): number => {
  const hash = bytes.length <= shortSize ? shortInto(bytes, scratch) : long(bytes)
  return (hash[0] | (hash[1] << 8) | (hash[2] << 16) | (hash[3] << 24)) >>> 0
}

/** SHA-256 once, for the keys of short ids. */
export const sha256: (bytes: Uint8Array) => Uint8Array = noble

/** SHA3-256, for Tor v3 addresses only. */
export const sha3: (bytes: Uint8Array) => Uint8Array = sha3_256
