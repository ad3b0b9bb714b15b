/** Transactions, with witnesses and without (BIP144), and their ids. */
import * as Result from "effect/Result"
import type { WireError } from "../../WireError.ts"
import { attempt, checkLength, failReading } from "../fail.ts"
import {
  compactSizeAt,
  compactSizeWidth,
  i64At,
  plainBytes,
  skipVarBytesAt,
  u32At,
  varBytesAt,
  viewOf
} from "../../primitives/bytes.ts"
import { maxCompactSize } from "../limits.ts"
import { Reader } from "../reader.ts"
import { isShort, withWriter, type Writer } from "../writer.ts"
import { checkList, type List, SequenceList, writeEach } from "../list.ts"
import { hasValidOpcodes } from "../../primitives/scriptPush.ts"
import { doubleSha256 } from "../../primitives/sha256.ts"
import type { Codec } from "../codec.ts"

/**
 * The reference to an output of a transaction, 36 bytes.
 *
 * @category models
 * @since 0.1.0
 */
export interface OutPoint {
  /** 32 bytes, wire order. */
  readonly txid: Uint8Array
  /** uint32; 0xffffffff in the input of a coinbase. */
  readonly index: number
}

/**
 * An input of a transaction, which spends an output.
 *
 * @category models
 * @since 0.1.0
 */
export interface TransactionInput {
  readonly previousOutput: OutPoint
  readonly script: Uint8Array
  /** uint32. */
  readonly sequence: number
  /** The witness stack of the input (BIP141), empty if it has no witness. */
  readonly witness: List<Uint8Array>
}

/**
 * An output of a transaction: an amount and the script that says who can spend it.
 *
 * @category models
 * @since 0.1.0
 */
export interface TransactionOutput {
  /** Satoshi, int64, exact within ±2^53: four times the final supply. */
  readonly value: number
  readonly script: Uint8Array
}

/**
 * A transaction. It is written with witnesses (BIP144) where an input has some, and otherwise in the plain form.
 *
 * The bytes of a transaction without inputs begin like the witness form. As in Bitcoin Core they are read only if there are
 * no outputs either, and to encode one with outputs is `BadValue`. `decodeRawTransaction` reads what tools write.
 *
 * @category models
 * @since 0.1.0
 */
export interface Transaction {
  /** uint32, as in Bitcoin Core since its version 28. */
  readonly version: number
  readonly inputs: List<TransactionInput>
  readonly outputs: List<TransactionOutput>
  /** uint32: a height below 500,000,000, else unix seconds. */
  readonly lockTime: number
}

/**
 * A transaction on its own. Unknown flags in the witness form, and the witness form without any witness, are `BadValue`: message
 * dropped.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tx {
  readonly _tag: "tx"
  readonly transaction: Transaction
}

/** Version, two empty lists, lock time. */
export const minTransactionSize = 10
/** Previous output, empty script, sequence. */
const minInputSize = 41
/** Value, empty script. */
const minOutputSize = 9

const none: List<Uint8Array> = Object.freeze([])

class Stack extends SequenceList<Uint8Array> {
  read(offset: number): Uint8Array {
    return varBytesAt(this.bytes, offset)
  }

  next(offset: number): number {
    return skipVarBytesAt(this.bytes, offset)
  }
}

const stackEnd = (bytes: Uint8Array, start: number): number => {
  let offset = start + compactSizeWidth(bytes[start])
  for (let i = compactSizeAt(bytes, start); i > 0; i--) offset = skipVarBytesAt(bytes, offset)
  return offset
}

const stackAt = (bytes: Uint8Array, offset: number): List<Uint8Array> => {
  const count = compactSizeAt(bytes, offset)
  return count === 0 ? none : new Stack(bytes, offset + compactSizeWidth(bytes[offset]), stackEnd(bytes, offset), count)
}

/** The witness stacks of all inputs, which come after the outputs. */
class Stacks extends SequenceList<List<Uint8Array>> {
  read(offset: number): List<Uint8Array> {
    return stackAt(this.bytes, offset)
  }

  next(offset: number): number {
    return stackEnd(this.bytes, offset)
  }
}

const inputAt = (bytes: Uint8Array, offset: number, witness: List<Uint8Array>): TransactionInput => {
  const script = varBytesAt(bytes, offset + 36)
  return {
    previousOutput: { txid: viewOf(bytes, offset, offset + 32), index: u32At(bytes, offset + 32) },
    script,
    sequence: u32At(bytes, offset + 36 + compactSizeWidth(bytes[offset + 36]) + script.length),
    witness
  }
}

const inputEnd = (bytes: Uint8Array, offset: number): number => skipVarBytesAt(bytes, offset + 36) + 4

/** Steps through inputs and stacks side by side, so that each stack is read once. */
class InputIterator implements IterableIterator<TransactionInput> {
  declare readonly bytes: Uint8Array
  declare left: number
  declare offset: number
  declare witness: number

  constructor(inputs: Inputs, stacks: Stacks) {
    this.bytes = inputs.bytes
    this.left = inputs.length
    this.offset = inputs.start
    this.witness = stacks.start
  }

  next(): IteratorResult<TransactionInput> {
    if (this.left === 0) return { done: true, value: undefined }
    this.left--
    const { bytes, offset } = this
    const stack = stackAt(bytes, this.witness)
    this.witness = stack instanceof Stack ? stack.end : this.witness + 1
    this.offset = inputEnd(bytes, offset)
    return { done: false, value: inputAt(bytes, offset, stack) }
  }

  [Symbol.iterator](): this {
    return this
  }
}

class Inputs extends SequenceList<TransactionInput> {
  /** The bytes from which the transaction of these inputs was decoded. */
  declare readonly from: number
  declare readonly to: number
  declare readonly stacks: Stacks | undefined

  constructor(layout: Layout, bytes: Uint8Array) {
    super(bytes, layout.inputs, layout.inputsEnd, layout.inputCount)
    this.from = layout.from
    this.to = layout.to
    this.stacks = layout.witness < 0 ? undefined : new Stacks(bytes, layout.witness, layout.to - 4, layout.inputCount)
  }

  override [Symbol.iterator](): IterableIterator<TransactionInput> {
    return this.stacks === undefined ? super[Symbol.iterator]() : new InputIterator(this, this.stacks)
  }

  read(offset: number, index: number): TransactionInput {
    return inputAt(this.bytes, offset, this.stacks === undefined ? none : this.stacks.get(index))
  }

  next(offset: number): number {
    return inputEnd(this.bytes, offset)
  }
}

class Outputs extends SequenceList<TransactionOutput> {
  declare readonly from: number

  constructor(layout: Layout, bytes: Uint8Array) {
    super(bytes, layout.outputs, layout.outputsEnd, layout.outputCount)
    this.from = layout.from
  }

  read(offset: number): TransactionOutput {
    return { value: i64At(this.bytes, offset), script: varBytesAt(this.bytes, offset + 8) }
  }

  next(offset: number): number {
    return skipVarBytesAt(this.bytes, offset + 8)
  }
}

/** The offsets of the parts of a transaction. */
interface Layout {
  from: number
  inputs: number
  inputsEnd: number
  inputCount: number
  outputs: number
  outputsEnd: number
  outputCount: number
  /** Start of the first witness stack; -1 in the plain form. */
  witness: number
  to: number
}

/** `scan` fills it and `scanned` reads it at once, so that the transactions of a block need no object each. */
const layout: Layout = {
  from: 0,
  inputs: 0,
  inputsEnd: 0,
  inputCount: 0,
  outputs: 0,
  outputsEnd: 0,
  outputCount: 0,
  witness: -1,
  to: 0
}

// Most scripts, stacks and their items are shorter than 253. Stepping over them without calls halves the time to scan a block; the
// reader steps over the others, and says what is wrong.

const scanInputs = (reader: Reader, count: number): void => {
  const { bytes, end } = reader
  let { offset } = reader
  layout.inputCount = count
  layout.inputs = offset
  for (let i = 0; i < count; i++) {
    const length = bytes[offset + 36]
    const next = offset + 41 + length
    if (length < 0xfd && next <= end) offset = next
    else {
      reader.offset = offset
      reader.skip(36, "inputs.previousOutput")
      reader.skipVarBytes("inputs.script")
      reader.skip(4, "inputs.sequence")
      offset = reader.offset
    }
  }
  layout.inputsEnd = reader.offset = offset
}

const scanOutputs = (reader: Reader, count: number): void => {
  const { bytes, end } = reader
  let { offset } = reader
  layout.outputCount = count
  layout.outputs = offset
  for (let i = 0; i < count; i++) {
    const length = bytes[offset + 8]
    const next = offset + 9 + length
    if (length < 0xfd && next <= end) offset = next
    else {
      reader.offset = offset
      reader.skip(8, "outputs.value")
      reader.skipVarBytes("outputs.script")
      offset = reader.offset
    }
  }
  layout.outputsEnd = reader.offset = offset
}

const scanStacks = (reader: Reader, inputs: number): void => {
  const { bytes, end } = reader
  let { offset } = reader
  let items = 0
  for (let i = 0; i < inputs; i++) {
    let count = bytes[offset]
    if (count < 0xfd && count < end - offset) offset++
    else {
      reader.offset = offset
      count = reader.count("inputs.witness", 1)
      offset = reader.offset
    }
    items += count
    for (let j = 0; j < count; j++) {
      const length = bytes[offset]
      const next = offset + 1 + length
      if (length < 0xfd && next <= end) offset = next
      else {
        reader.offset = offset
        reader.skipVarBytes("inputs.witness")
        offset = reader.offset
      }
    }
  }
  reader.offset = offset
  if (items === 0) reader.badValue("inputs.witness", "is present though no input has a witness")
}

/** Like `scan`, but a count of 0 inputs is not read as the marker of the witness form. */
const scanWithoutWitness = (reader: Reader): void => {
  layout.from = reader.offset
  layout.witness = -1
  reader.skip(4, "version")
  scanInputs(reader, reader.count("inputs", minInputSize))
  scanOutputs(reader, reader.count("outputs", minOutputSize))
  reader.skip(4, "lockTime")
  layout.to = reader.offset
}

/** Checks the transaction at the reader's offset, steps over it and fills `layout`. */
const scan = (reader: Reader): void => {
  layout.from = reader.offset
  layout.witness = -1
  reader.skip(4, "version")
  const count = reader.count("inputs", minInputSize)
  if (count > 0) {
    scanInputs(reader, count)
    scanOutputs(reader, reader.count("outputs", minOutputSize))
  } else {
    const flags = reader.u8("flags")
    if (flags > 1) reader.badValue("flags", `are unknown: ${flags}`)
    scanInputs(reader, flags === 0 ? 0 : reader.count("inputs", minInputSize))
    // With flags of 0 this is not the witness form: the byte is the count of outputs, so there are no inputs and no outputs.
    scanOutputs(reader, flags === 0 ? 0 : reader.count("outputs", minOutputSize))
    if (flags === 1) {
      layout.witness = reader.offset
      scanStacks(reader, layout.inputCount)
    }
  }
  reader.skip(4, "lockTime")
  layout.to = reader.offset
}

export const skipTransaction = scan

/** The transaction that was scanned last. */
const scanned = (bytes: Uint8Array): Transaction => ({
  version: u32At(bytes, layout.from),
  inputs: new Inputs(layout, bytes),
  outputs: new Outputs(layout, bytes),
  lockTime: u32At(bytes, layout.to - 4)
})

export const readTransaction = (reader: Reader): Transaction => {
  scan(reader)
  return scanned(reader.bytes)
}

const writeInput = (writer: Writer, input: TransactionInput): void => {
  writer.object(input, "inputs")
  const { previousOutput, script } = input
  writer.object(previousOutput, "inputs.previousOutput")
  // One reservation for an input with a short script.
  const length = isShort(script) ? script.length + 1 : undefined
  const offset = writer.reserve(length === undefined ? 36 : 40 + length)
  writer.setFixed(offset, previousOutput.txid, 32, "inputs.previousOutput.txid")
  writer.setU32(offset + 32, previousOutput.index, "inputs.previousOutput.index")
  if (length === undefined) {
    writer.varBytes(script, "inputs.script")
    writer.u32(input.sequence, "inputs.sequence")
  } else {
    writer.setVarBytes(offset + 36, script)
    writer.setU32(offset + 36 + length, input.sequence, "inputs.sequence")
  }
  // Checked also if it is not encoded, so that a caller without TypeScript notices a missing witness.
  checkList(writer, input.witness, "inputs.witness")
}

const writeOutput = (writer: Writer, output: TransactionOutput): void => {
  writer.object(output, "outputs")
  const { script, value } = output
  if (isShort(script)) {
    const offset = writer.reserve(9 + script.length)
    writer.setI64(offset, value, "outputs.value")
    writer.setVarBytes(offset + 8, script)
  } else {
    writer.i64(value, "outputs.value")
    writer.varBytes(script, "outputs.script")
  }
}

const writeItem = (writer: Writer, item: Uint8Array): void => writer.varBytes(item, "inputs.witness")

const writeStack = (writer: Writer, input: TransactionInput): void => {
  const stack = input.witness
  writer.count(stack.length, "inputs.witness", maxCompactSize)
  if (stack instanceof Stack) writer.copy(stack.bytes, stack.start, stack.end)
  else writeEach(writer, stack, "inputs.witness", writeItem)
}

export const hasWitness = (inputs: List<TransactionInput>): boolean => {
  if (inputs instanceof Inputs) return inputs.stacks !== undefined
  for (let i = 0; i < inputs.length; i++) if ((inputs.at(i)?.witness?.length ?? 0) > 0) return true
  return false
}

/** The bytes from which a transaction was decoded; `undefined` if it was changed or made by hand. */
const original = (transaction: Transaction): Uint8Array | undefined => {
  const { inputs, outputs } = transaction
  return inputs instanceof Inputs &&
    outputs instanceof Outputs &&
    inputs.bytes === outputs.bytes &&
    inputs.from === outputs.from &&
    u32At(inputs.bytes, inputs.from) === transaction.version &&
    u32At(inputs.bytes, inputs.to - 4) === transaction.lockTime
    ? viewOf(inputs.bytes, inputs.from, inputs.to)
    : undefined
}

const write = (writer: Writer, transaction: Transaction, witness: boolean): void => {
  const { inputs, outputs } = transaction
  const start = writer.reserve(witness ? 6 : 4)
  writer.setU32(start, transaction.version, "version")
  if (witness) {
    writer.bytes[start + 4] = 0
    writer.bytes[start + 5] = 1
  }
  writer.count(inputs.length, "inputs", maxCompactSize)
  if (inputs instanceof Inputs) writer.copy(inputs.bytes, inputs.start, inputs.end)
  else writeEach(writer, inputs, "inputs", writeInput)
  writer.count(outputs.length, "outputs", maxCompactSize)
  if (outputs instanceof Outputs) writer.copy(outputs.bytes, outputs.start, outputs.end)
  else writeEach(writer, outputs, "outputs", writeOutput)
  if (witness) {
    if (inputs instanceof Inputs) writer.copy(inputs.bytes, inputs.stacks!.start, inputs.stacks!.end)
    else writeEach(writer, inputs, "inputs", writeStack)
  }
  writer.u32(transaction.lockTime, "lockTime")
}

/** Fails for a wrong part of the transaction, before its fields are read. */
const check = (writer: Writer, transaction: Transaction): void => {
  writer.object(transaction, "transaction")
  checkList(writer, transaction.inputs, "inputs")
  checkList(writer, transaction.outputs, "outputs")
}

export const writeTransaction = (writer: Writer, transaction: Transaction): void => {
  check(writer, transaction)
  if (transaction.inputs.length === 0 && transaction.outputs.length > 0) {
    writer.badValue("inputs", "is empty, so that the bytes would be read as the witness form")
  }
  const bytes = original(transaction)
  if (bytes === undefined) write(writer, transaction, hasWitness(transaction.inputs))
  else writer.raw(bytes)
}

const varSize = (length: number): number => length + (length < 0xfd ? 1 : length <= 0xffff ? 3 : 5)

/**
 * The approximate size of a transaction on the wire; exact for a decoded one and one made of arrays. Does not throw for missing
 * fields: the encoder names them.
 */
export const measureTransaction = (transaction: Transaction): number => {
  const bytes = transaction?.inputs instanceof Inputs ? original(transaction) : undefined
  if (bytes !== undefined) return bytes.length
  const { inputs, outputs } = transaction ?? {}
  if (!Array.isArray(inputs) || !Array.isArray(outputs)) return minTransactionSize
  let size = 8 + varSize(inputs.length) - inputs.length + varSize(outputs.length) - outputs.length
  let stacks = 0
  for (const input of inputs as Array<TransactionInput>) {
    size += 40 + varSize(input?.script?.length ?? 0)
    const witness = input?.witness
    if (Array.isArray(witness)) {
      if (witness.length > 0) {
        stacks += varSize(witness.length) - witness.length - 1
        for (const item of witness as Array<Uint8Array>) stacks += varSize(item?.length ?? 0)
      }
    } else if (witness instanceof Stack) stacks += witness.end - witness.start
  }
  // The marker, the flag, and at least a count for each input.
  if (stacks > 0) size += 2 + stacks + inputs.length
  for (const output of outputs as Array<TransactionOutput>) size += 8 + varSize(output?.script?.length ?? 0)
  return size
}

/**
 * The bytes that a transaction takes on the wire, with its witnesses where it has some.
 *
 * Costs nothing for a decoded transaction; one made by hand is encoded. Throws as `txid` does.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const input = { previousOutput: { txid: new Uint8Array(32), index: 0 }, script: new Uint8Array(0), sequence: 0, witness: [] }
 * console.log(Wire.transactionSize({ version: 2, inputs: [input], outputs: [], lockTime: 0 })) // 10 + 41 = 51
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const transactionSize = (transaction: Transaction): number => {
  const bytes = original(transaction)
  if (bytes !== undefined) return bytes.length
  return withWriter((writer) => {
    writer.begin("tx")
    write(writer, transaction, hasWitness(transaction.inputs))
    return writer.offset
  })
}

export const tx: Codec<Tx> = {
  decode: (reader) => ({ _tag: "tx", transaction: readTransaction(reader) }),
  encode: (writer, message) => writeTransaction(writer, message.transaction)
}

const hashOf = (transaction: Transaction, witness: boolean): Uint8Array => {
  if (witness || !hasWitness(transaction.inputs)) {
    const bytes = original(transaction)
    if (bytes !== undefined) return doubleSha256(bytes)
  }
  return withWriter((writer) => {
    writer.begin("tx")
    write(writer, transaction, witness && hasWitness(transaction.inputs))
    return doubleSha256(viewOf(writer.bytes, 0, writer.offset))
  })
}

/**
 * The id of a transaction, 32 bytes in wire order: SHA-256 twice over its form without witnesses.
 *
 * Throws a `WireError` for a transaction with a field that does not fit; a decoded transaction never throws.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const coinbase = {
 *   previousOutput: { txid: new Uint8Array(32), index: 0xffffffff },
 *   script: Uint8Array.of(1, 2, 3),
 *   sequence: 0xffffffff,
 *   witness: [new Uint8Array(32)]
 * }
 * const transaction = { version: 2, inputs: [coinbase], outputs: [{ value: 50_0000_0000, script: Uint8Array.of(0x51) }], lockTime: 0 }
 * console.log(Wire.hashToHex(Wire.txid(transaction)) === Wire.hashToHex(Wire.wtxid(transaction))) // false
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const txid = (transaction: Transaction): Uint8Array => hashOf(transaction, false)

/**
 * The id of a transaction with its witnesses (BIP141), 32 bytes in wire order. Equal to `txid` if it has no witnesses.
 *
 * For a coinbase it is the hash of its bytes too; only the commitment of BIP141 takes zeros in its place. Throws as `txid`
 * does.
 *
 * @example
 * ```ts
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const empty = { version: 1, inputs: [], outputs: [], lockTime: 0 }
 * console.log(Wire.hashToHex(Wire.wtxid(empty)) === Wire.hashToHex(Wire.txid(empty))) // true
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const wtxid = (transaction: Transaction): Uint8Array => hashOf(transaction, true)

/**
 * The bytes of a transaction, with its witnesses where it has some (BIP144).
 *
 * Fails as `encode` does. A transaction with outputs and no inputs is `BadValue`: its bytes would be read as the witness form.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const bytes = Wire.encodeTransaction({ version: 1, inputs: [], outputs: [], lockTime: 0 })
 * console.log(Result.getOrThrow(bytes).length) // 10
 * ```
 *
 * @category encoding
 * @since 0.1.0
 */
export const encodeTransaction = (transaction: Transaction): Result.Result<Uint8Array, WireError> =>
  attempt(() =>
    withWriter((writer) => {
      writer.begin("tx")
      writeTransaction(writer, transaction)
      return writer.take()
    })
  )

/**
 * The transaction in the bytes, with or without witnesses. Fails as `decode` does, and with `TrailingBytes` where bytes follow
 * the transaction. See `decodeRawTransaction` for transactions without inputs.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 *
 * const transaction = Wire.decodeTransaction(Uint8Array.of(2, 0, 0, 0, 0, 0, 0, 0, 0, 0))
 * console.log(Result.getOrThrow(transaction).version) // 2
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const decodeTransaction = (bytes: Uint8Array): Result.Result<Transaction, WireError> =>
  attempt(() => wholeTransaction(bytes, scan))

/** The transaction that fills all bytes. */
const wholeTransaction = (bytes: Uint8Array, scan: (reader: Reader) => void): Transaction => {
  checkLength("tx", bytes)
  const reader = new Reader(plainBytes(bytes), "tx")
  scan(reader)
  if (reader.remaining > 0) failReading("tx", { _tag: "TrailingBytes", count: reader.remaining })
  return scanned(reader.bytes)
}

const isZero = (bytes: Uint8Array): boolean => {
  for (const byte of bytes) if (byte !== 0) return false
  return true
}

/** The input of a coinbase; `undefined` for another transaction. */
export const coinbaseInput = ({ inputs }: Transaction): TransactionInput | undefined => {
  const input = inputs.length === 1 ? inputs.at(0) : undefined
  return input?.previousOutput?.index === 0xffffffff && isZero(input.previousOutput.txid) ? input : undefined
}

/**
 * Whether a transaction is a coinbase, the first one of a block: its only input spends no output.
 *
 * @category predicates
 * @since 0.1.0
 */
export const isCoinbase = (transaction: Transaction): boolean => coinbaseInput(transaction) !== undefined

const maxScriptSize = 10_000

const isSane = (script: Uint8Array): boolean => script.length <= maxScriptSize && hasValidOpcodes(script)

/** Whether all scripts have valid opcodes, as Core's `CheckTxScriptsSanity`. The input of a coinbase is not a script. */
const hasSaneScripts = (transaction: Transaction): boolean => {
  if (!isCoinbase(transaction)) {
    for (const { script } of transaction.inputs) if (!isSane(script)) return false
  }
  for (const { script } of transaction.outputs) if (!isSane(script)) return false
  return true
}

/**
 * The transaction in bytes that a wallet tool wrote. It may have no inputs yet, as those of `createrawtransaction` and PSBT.
 *
 * The bytes of a transaction without inputs begin like the witness form (BIP144). As `decoderawtransaction` of Bitcoin Core does,
 * this function tries both forms and takes the witness form, unless only the other form can be read or only the other form has
 * scripts of valid opcodes. Nodes accept no transaction without inputs: see `decodeTransaction`.
 *
 * A transaction without inputs has a `txid` but cannot be encoded. Fails as `decodeTransaction` does.
 *
 * @example
 * ```ts
 * import { Result } from "effect"
 * import { Wire } from "effect-bitcoin-peer"
 *
 * // Version 1, no inputs, one output of 0 satoshi whose script is OP_DROP, lock time 0.
 * const bytes = Uint8Array.of(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x75, 0, 0, 0, 0)
 * const transaction = Result.getOrThrow(Wire.decodeRawTransaction(bytes))
 * console.log(transaction.inputs.length, transaction.outputs.length) // 0 1
 * console.log(Result.isFailure(Wire.decodeTransaction(bytes))) // true
 * ```
 *
 * @category decoding
 * @since 0.1.0
 */
export const decodeRawTransaction = (bytes: Uint8Array): Result.Result<Transaction, WireError> => {
  const extended = decodeTransaction(bytes)
  if (Result.isSuccess(extended) && hasSaneScripts(extended.success)) return extended
  const legacy = attempt(() => wholeTransaction(bytes, scanWithoutWitness))
  if (Result.isFailure(legacy)) return extended
  return Result.isFailure(extended) || hasSaneScripts(legacy.success) ? legacy : extended
}
