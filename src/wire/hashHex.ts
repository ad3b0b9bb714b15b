import { fail } from "./fail.ts"

const digits = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"))

export const toHex = (hash: Uint8Array): string => {
  let hex = ""
  for (let i = hash.length - 1; i >= 0; i--) hex += digits[hash[i]]
  return hex
}

const pattern = /^[0-9a-fA-F]{64}$/

export const fromHex = (hex: string): Uint8Array => {
  if (!pattern.test(hex)) fail("", { _tag: "BadValue", field: "hash", problem: "is not 64 hexadecimal digits" })
  const hash = new Uint8Array(32)
  for (let i = 0; i < 32; i++) hash[31 - i] = Number.parseInt(hex.slice(i * 2, i * 2 + 2), 16)
  return hash
}
