/**
 * The one place that hashes. `@noble/hashes` for what is short, `node:crypto` for the rest where it is to be had (not in
 * browsers); it is asked for at run time, so that a bundler finds no `node:` import.
 */
import { sha256 as noble } from "@noble/hashes/sha2.js"
import { sha3_256 } from "@noble/hashes/sha3.js"

const nodeHash = globalThis.process?.getBuiltinModule?.("node:crypto")?.hash

/**
 * Up to two blocks of SHA-256 (119 bytes and the padding) noble is faster, if its objects are used again. Node 24 on our
 * machine, µs for the double hash of 8, 55, 80, 119, 183 and 1,000 bytes: noble with kept objects 0.78, 0.79, 1.2, 1.2,
 * 1.6, 6; `crypto.hash` 1.5, 1.5, 1.5, 1.5, 1.6, 2; noble's one-shot function 1.5 and more.
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

/** The first four bytes of the same as a little-endian number, for which nothing need be kept. */
export const checksum = (bytes: Uint8Array): number => {
  const hash = bytes.length <= shortSize ? shortInto(bytes, scratch) : long(bytes)
  return (hash[0] | (hash[1] << 8) | (hash[2] << 16) | (hash[3] << 24)) >>> 0
}

/** SHA-256 once, for the keys of short ids. */
export const sha256: (bytes: Uint8Array) => Uint8Array = noble

/** For Tor v3 addresses only. */
export const sha3: (bytes: Uint8Array) => Uint8Array = sha3_256
