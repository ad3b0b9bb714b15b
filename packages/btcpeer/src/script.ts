/**
 * Scripts as Bitcoin Core prints them: assembly (`ScriptToAsmStr`), the type of an output (`Solver`) and its address
 * (`EncodeDestination`).
 */
import { createBase58check, bech32, bech32m } from "@scure/base"
import type { Network } from "effect-bitcoin-peer/Network"
import { createHash } from "node:crypto"
import type { ScriptType } from "./events.ts"
import { hex } from "./text.ts"

/** From OP_NOP, 0x61, to OP_CHECKSIGADD, 0xba. */
const operations = `NOP VER IF NOTIF VERIF VERNOTIF ELSE ENDIF VERIFY RETURN
TOALTSTACK FROMALTSTACK 2DROP 2DUP 3DUP 2OVER 2ROT 2SWAP IFDUP DEPTH DROP DUP NIP OVER PICK ROLL ROT SWAP TUCK
CAT SUBSTR LEFT RIGHT SIZE INVERT AND OR XOR EQUAL EQUALVERIFY RESERVED1 RESERVED2
1ADD 1SUB 2MUL 2DIV NEGATE ABS NOT 0NOTEQUAL ADD SUB MUL DIV MOD LSHIFT RSHIFT BOOLAND BOOLOR
NUMEQUAL NUMEQUALVERIFY NUMNOTEQUAL LESSTHAN GREATERTHAN LESSTHANOREQUAL GREATERTHANOREQUAL MIN MAX WITHIN
RIPEMD160 SHA1 SHA256 HASH160 HASH256 CODESEPARATOR CHECKSIG CHECKSIGVERIFY CHECKMULTISIG CHECKMULTISIGVERIFY
NOP1 CHECKLOCKTIMEVERIFY CHECKSEQUENCEVERIFY NOP4 NOP5 NOP6 NOP7 NOP8 NOP9 NOP10 CHECKSIGADD`.split(/\s/)

const op = (name: string): number => 0x61 + operations.indexOf(name)

const OP_PUSHDATA1 = 0x4c
const OP_PUSHDATA4 = 0x4e
const OP_1NEGATE = 0x4f
const OP_1 = 0x51
const OP_16 = 0x60
const OP_RETURN = op("RETURN")
const OP_DUP = op("DUP")
const OP_EQUAL = op("EQUAL")
const OP_EQUALVERIFY = op("EQUALVERIFY")
const OP_HASH160 = op("HASH160")
const OP_CHECKSIG = op("CHECKSIG")
const OP_CHECKMULTISIG = op("CHECKMULTISIG")

const nameOf = (opcode: number): string => {
  if (opcode === OP_1NEGATE) return "-1"
  if (opcode >= OP_1 && opcode <= OP_16) return `${opcode - OP_1 + 1}`
  const name = opcode === 0x50 ? "RESERVED" : opcode === 0xff ? "INVALIDOPCODE" : operations[opcode - 0x61]
  return `OP_${name ?? "UNKNOWN"}`
}

interface Operation {
  readonly opcode: number
  /** What it pushes; empty for other opcodes. */
  readonly data: Uint8Array
  /** The offset after it. */
  readonly end: number
}

const nothing = new Uint8Array(0)

/** The operation at an offset; `undefined` where its data are cut off, or at the end. */
const operationAt = (script: Uint8Array, offset: number): Operation | undefined => {
  const opcode = script[offset]
  if (opcode === undefined) return undefined
  if (opcode > OP_PUSHDATA4) return { opcode, data: nothing, end: offset + 1 }
  // OP_PUSHDATA1, 2 and 4 are followed by a size of as many bytes.
  const width = opcode < OP_PUSHDATA1 ? 0 : 1 << (opcode - OP_PUSHDATA1)
  const start = offset + 1 + width
  if (start > script.length) return undefined
  let size = width === 0 ? opcode : 0
  for (let i = width; i > 0; i--) size = size * 256 + script[offset + i]!
  const end = start + size
  return end > script.length ? undefined : { opcode, data: script.subarray(start, end), end }
}

/** A number of at most four bytes, little-endian; its highest bit is the sign. */
const numberOf = (data: Uint8Array): number => {
  let value = 0
  for (let i = data.length - 1; i >= 0; i--) value = value * 256 + data[i]!
  const sign = 0x80 * 256 ** (data.length - 1)
  return data.length > 0 && value >= sign ? -(value - sign) || 0 : value
}

const sighashNames = new Map([
  [0x01, "ALL"],
  [0x02, "NONE"],
  [0x03, "SINGLE"],
  [0x81, "ALL|ANYONECANPAY"],
  [0x82, "NONE|ANYONECANPAY"],
  [0x83, "SINGLE|ANYONECANPAY"]
])

/** An integer of a signature in DER: not empty, not negative, without zeros that are not needed. */
const isInteger = (bytes: Uint8Array): boolean =>
  bytes.length > 0 && bytes[0]! < 0x80 && (bytes.length === 1 || bytes[0] !== 0 || bytes[1]! >= 0x80)

/** Whether bytes are a signature in DER and the byte of its hash type (`IsValidSignatureEncoding`). */
const isSignature = (bytes: Uint8Array): boolean => {
  if (bytes.length < 9 || bytes.length > 73 || bytes[0] !== 0x30 || bytes[1] !== bytes.length - 3) return false
  const sizeR = bytes[3]!
  const sizeS = bytes[5 + sizeR]
  if (bytes[2] !== 0x02 || sizeS === undefined || sizeR + sizeS + 7 !== bytes.length) return false
  if (bytes[4 + sizeR] !== 0x02) return false
  return isInteger(bytes.subarray(4, 4 + sizeR)) && isInteger(bytes.subarray(6 + sizeR, 6 + sizeR + sizeS))
}

const pushed = (data: Uint8Array, mayBeSignature: boolean): string => {
  if (data.length <= 4) return `${numberOf(data)}`
  const type = mayBeSignature && isSignature(data) ? sighashNames.get(data.at(-1)!) : undefined
  return type === undefined ? hex(data) : `${hex(data.subarray(0, -1))}[${type}]`
}

const maximumSize = 10_000

const isUnspendable = (script: Uint8Array): boolean => script[0] === OP_RETURN || script.length > maximumSize

/** The assembly of a script. In that of an input, the hash type of a signature is shown by its name. */
export const assembly = (script: Uint8Array, isInput = false): string => {
  const mayHaveSignatures = isInput && !isUnspendable(script)
  const words: Array<string> = []
  for (let offset = 0; offset < script.length;) {
    const operation = operationAt(script, offset)
    if (operation === undefined) return [...words, "[error]"].join(" ")
    const { data, end, opcode } = operation
    words.push(opcode <= OP_PUSHDATA4 ? pushed(data, mayHaveSignatures) : nameOf(opcode))
    offset = end
  }
  return words.join(" ")
}

const isPushOnly = (script: Uint8Array, from: number): boolean => {
  for (let offset = from; offset < script.length;) {
    const operation = operationAt(script, offset)
    if (operation === undefined || operation.opcode > OP_16) return false
    offset = operation.end
  }
  return true
}

/** Whether bytes have the length that their first byte says a public key has. */
const isPublicKey = (bytes: Uint8Array): boolean => {
  const [first] = bytes
  if (first === 2 || first === 3) return bytes.length === 33
  return (first === 4 || first === 6 || first === 7) && bytes.length === 65
}

const maximumKeys = 20

/** The number of 1 to 20 that an operation pushes, in its shortest form. */
const countOf = ({ data, opcode }: Operation): number | undefined => {
  if (opcode >= OP_1 && opcode <= OP_16) return opcode - OP_1 + 1
  // Above 16 there is no opcode for it.
  const [value] = data
  return opcode === 1 && value! > 16 && value! <= maximumKeys ? value : undefined
}

const isMultisig = (script: Uint8Array): boolean => {
  if (script.at(-1) !== OP_CHECKMULTISIG) return false
  const first = operationAt(script, 0)
  const required = first && countOf(first)
  if (first === undefined || required === undefined) return false
  let keys = 0
  let next = operationAt(script, first.end)
  for (; next !== undefined && isPublicKey(next.data); next = operationAt(script, next.end)) keys++
  return next !== undefined && countOf(next) === keys && keys >= required && next.end + 1 === script.length
}

/** The version and the program of a witness output (BIP141). */
const witnessOf = (script: Uint8Array): { readonly version: number; readonly program: Uint8Array } | undefined => {
  const [first = 0xff, size] = script
  if (script.length < 4 || script.length > 42 || size !== script.length - 2) return undefined
  if (first !== 0 && (first < OP_1 || first > OP_16)) return undefined
  return { version: first === 0 ? 0 : first - OP_1 + 1, program: script.subarray(2) }
}

const witnessType = (version: number, program: Uint8Array): ScriptType => {
  const { length } = program
  if (version === 0) {
    return length === 20 ? "witness_v0_keyhash" : length === 32 ? "witness_v0_scripthash" : "nonstandard"
  }
  if (version === 1 && length === 32) return "witness_v1_taproot"
  return version === 1 && length === 2 && program[0] === 0x4e && program[1] === 0x73 ? "anchor" : "witness_unknown"
}

const begins = (script: Uint8Array, ...bytes: ReadonlyArray<number>): boolean =>
  bytes.every((byte, index) => script[index] === byte)

/** The type of the script of an output. */
export const scriptType = (script: Uint8Array): ScriptType => {
  const { length } = script
  if (length === 23 && begins(script, OP_HASH160, 20) && script[22] === OP_EQUAL) return "scripthash"
  const witness = witnessOf(script)
  if (witness !== undefined) return witnessType(witness.version, witness.program)
  if (script[0] === OP_RETURN && isPushOnly(script, 1)) return "nulldata"
  if ((length === 35 || length === 67) && script[0] === length - 2 && script[length - 1] === OP_CHECKSIG) {
    if (isPublicKey(script.subarray(1, -1))) return "pubkey"
  }
  if (length === 25 && begins(script, OP_DUP, OP_HASH160, 20) && script[23] === OP_EQUALVERIFY) {
    if (script[24] === OP_CHECKSIG) return "pubkeyhash"
  }
  return isMultisig(script) ? "multisig" : "nonstandard"
}

interface AddressForms {
  readonly keyHash: number
  readonly scriptHash: number
  readonly prefix: string
}

const testForms = { keyHash: 0x6f, scriptHash: 0xc4, prefix: "tb" }

/** By the name of the network. */
const formsOf: { readonly [network: string]: AddressForms } = {
  mainnet: { keyHash: 0x00, scriptHash: 0x05, prefix: "bc" },
  testnet3: testForms,
  testnet4: testForms,
  signet: testForms,
  regtest: { ...testForms, prefix: "bcrt" },
  simnet: { keyHash: 0x3f, scriptHash: 0x7b, prefix: "sb" }
}

const base58 = createBase58check((bytes: Uint8Array) => new Uint8Array(createHash("sha256").update(bytes).digest()))

/** The address that a script pays to; `undefined` for types without one. */
export const addressOf = (script: Uint8Array, network: Network): string | undefined => {
  const forms = formsOf[network.name]
  if (forms === undefined) return undefined
  const { keyHash, prefix, scriptHash } = forms
  switch (scriptType(script)) {
    case "pubkeyhash":
      return base58.encode(Uint8Array.of(keyHash, ...script.subarray(3, 23)))
    case "scripthash":
      return base58.encode(Uint8Array.of(scriptHash, ...script.subarray(2, 22)))
    case "nonstandard":
    case "pubkey":
    case "multisig":
    case "nulldata":
      return undefined
    default: {
      const { program, version } = witnessOf(script)!
      return (version === 0 ? bech32 : bech32m).encode(prefix, [version, ...bech32.toWords(program)])
    }
  }
}
