/**
 * MurmurHash3 (x86, 32 bits), the hash function of bloom filters (BIP37). It is fast and does not resist an attacker.
 *
 * https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp
 */
import { i32At } from "./bytes.ts"

const scramble = (k: number): number => {
  const product = Math.imul(k, 0xcc9e2d51)
  return Math.imul((product << 15) | (product >>> 17), 0x1b873593)
}

/** The hash as an unsigned 32-bit number. Only the low 32 bits of the seed count. */
export const murmur3 = (seed: number, bytes: Uint8Array): number => {
  const length = bytes.length
  const blocks = length & ~3
  let h = seed | 0
  for (let i = 0; i < blocks; i += 4) {
    h ^= scramble(i32At(bytes, i))
    h = (Math.imul((h << 13) | (h >>> 19), 5) + 0xe6546b64) | 0
  }
  let tail = 0
  for (let i = length - 1; i >= blocks; i--) tail = (tail << 8) | bytes[i]
  // Without a tail this changes nothing, because `scramble(0)` is 0.
  h ^= scramble(tail) ^ length
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
