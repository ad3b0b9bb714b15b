/** Bitcoin Script for bloom filters and raw transactions: pushes, the two forms with bare public keys, valid opcodes. */
import { u32At } from "./bytes.ts"

const pushData1 = 0x4c
const pushData2 = 0x4d
/** The last opcode that pushes the bytes after it. */
const pushData4 = 0x4e
const smallNumber1 = 0x51
const smallNumber16 = 0x60
const checkSig = 0xac
const checkMultisig = 0xae
const maxMultisigKeys = 20

/** The data of a push: its start and end in the script. */
export interface Push {
  readonly start: number
  readonly end: number
}

/** The push of the opcode at an offset, which must be one that pushes; `undefined` if its data is cut off. */
const pushAt = (script: Uint8Array, offset: number): Push | undefined => {
  const opcode = script[offset]
  const width = opcode < pushData1 ? 0 : opcode === pushData1 ? 1 : opcode === pushData2 ? 2 : 4
  const start = offset + 1 + width
  if (start > script.length) return undefined
  const size =
    width === 0
      ? opcode
      : width === 1
        ? script[offset + 1]
        : width === 2
          ? script[offset + 1] | (script[offset + 2] << 8)
          : u32At(script, offset + 1)
  return start + size > script.length ? undefined : { start, end: start + size }
}

/** The first push at or after an offset; `undefined` if there is no push, or if it is truncated. */
export const nextPush = (script: Uint8Array, offset: number): Push | undefined => {
  let at = offset
  while (at < script.length && script[at] > pushData4) at++
  return at < script.length ? pushAt(script, at) : undefined
}

/** The last valid opcode, OP_NOP10. */
const lastOpcode = 0xb9
const maxPushSize = 520

/** Whether a script consists of valid opcodes and complete pushes of at most 520 bytes, as Core's `HasValidOps`. */
export const hasValidOpcodes = (script: Uint8Array): boolean => {
  let at = 0
  while (at < script.length) {
    if (script[at] > pushData4) {
      if (script[at++] > lastOpcode) return false
    } else {
      const push = pushAt(script, at)
      if (push === undefined || push.end - push.start > maxPushSize) return false
      at = push.end
    }
  }
  return true
}

/** Whether pushed data has the length of a public key with its first byte. */
const isPublicKey = (script: Uint8Array, { end, start }: Push): boolean => {
  const first = script[start]
  const size = first === 2 || first === 3 ? 33 : first === 4 || first === 6 || first === 7 ? 65 : 0
  return size > 0 && end - start === size
}

const isSinglePublicKey = (script: Uint8Array): boolean => {
  const size = script[0]
  return (
    (size === 33 || size === 65) &&
    script.length === size + 2 &&
    script[size + 1] === checkSig &&
    isPublicKey(script, { start: 1, end: size + 1 })
  )
}

/** The number from 1 to 20 at an offset, in its shortest form; 0 for anything else. */
const numberAt = (script: Uint8Array, offset: number): number => {
  const opcode = script[offset]
  if (opcode >= smallNumber1 && opcode <= smallNumber16) return opcode - smallNumber1 + 1
  const value = script[offset + 1]
  return opcode === 1 && value > 16 && value <= maxMultisigKeys ? value : 0
}

const numberWidth = (value: number): number => (value > 16 ? 2 : 1)

const isMultisig = (script: Uint8Array): boolean => {
  if (script.length === 0 || script[script.length - 1] !== checkMultisig) return false
  const required = numberAt(script, 0)
  if (required === 0) return false
  let offset = numberWidth(required)
  let keys = 0
  while (script[offset] <= pushData4) {
    const push = pushAt(script, offset)
    if (push === undefined || !isPublicKey(script, push)) break
    keys++
    offset = push.end
  }
  const total = numberAt(script, offset)
  return total >= required && total === keys && offset + numberWidth(total) === script.length - 1
}

/** Whether a script is pay-to-pubkey or bare multisig, by the rules of Core's `Solver`. */
export const isPayToPubkey = (script: Uint8Array): boolean => isSinglePublicKey(script) || isMultisig(script)
