/**
 * The formats of files with many messages, for the `Scanner`: captures of Bitcoin Core, streams of version 1 frames, block files of
 * nodes. Each rule here is about damage: a record whose length is damaged, or that is cut off, must not hide the records after it.
 */
import * as Block from "effect-bitcoin-peer/Block"
import * as Capture from "effect-bitcoin-peer/Capture"
import * as Wire from "effect-bitcoin-peer/Wire"
import * as Result from "effect/Result"
import type { Format, Found, Step } from "./scanner.ts"

const frameHeader = 24
const recordHeader = 24
const blockHeader = 80
const blockFileHeader = 8
/** The size of a magic. */
const magicSize = 4

export const u32 = (bytes: Uint8Array, offset: number): number =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(offset, true)

/** A command in 12 bytes: printable ASCII, at least one character, padded with zeros. */
export const commandAt = (bytes: Uint8Array, offset: number): string | undefined => {
  const text = String.fromCharCode(...bytes.subarray(offset, offset + 12))
  return /^[!-~]+\0*$/.test(text) && text.length === 12 ? text.replace(/\0+$/, "") : undefined
}

/** The message in the payload of a command. Bytes after its end are an error. */
export const readPayload = (command: string, bytes: Uint8Array, offset = 0): Found => {
  const result = Wire.decode(command, bytes, { trailingBytes: "malformed" })
  if (Result.isSuccess(result)) return { _tag: "Message", message: result.success, offset, bytes: bytes.length }
  return { _tag: "Damaged", offset, bytes: bytes.length, ...described(result.failure) }
}

const described = ({ command, message, reason }: Wire.WireError) => ({ command, reason: reason._tag, problem: message })

const damaged = (reason: string, problem: string, command = ""): Step => ({
  _tag: "Damaged",
  reason,
  problem,
  command
})

/** The native search, over the same bytes. */
export const nextMagic = (bytes: Uint8Array, magic: Uint8Array, from: number): number =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).indexOf(magic, from)

export const startsAt = (bytes: Uint8Array, offset: number, magic: Uint8Array): boolean =>
  magic.every((byte, index) => bytes[offset + index] === byte)

// ---- captures

/** In microseconds: 2009, before which nothing could be captured, and 2106, when the times of blocks end. */
const firstTime = 1_230_000_000_000_000
const lastTime = 4_294_967_296_000_000

/** Whether a record of a capture may start at a place: its header has a possible time, command and length. */
export const isRecord = (bytes: Uint8Array, offset: number): boolean => {
  // Most places fail here, at the highest bytes of the time.
  if (bytes[offset + 7] !== 0 || !(bytes[offset + 6]! <= 0x0f) || bytes.length - offset < recordHeader) return false
  const time = u32(bytes, offset + 4) * 0x1_0000_0000 + u32(bytes, offset)
  if (time < firstTime || time > lastTime || commandAt(bytes, offset + 8) === undefined) return false
  return u32(bytes, offset + 20) <= Wire.maxPayloadLength
}

/** Captures of Bitcoin Core (`-capturemessages`), which `Capture.makeReader` reads up to the first damage. */
export const capture: Format = {
  signature: recordHeader,
  next: (bytes, from) => {
    for (let offset = from; offset + recordHeader <= bytes.length; offset++) if (isRecord(bytes, offset)) return offset
    return -1
  },
  read: (bytes, at, ended) => {
    const left = bytes.length - at
    if (left < recordHeader) {
      return ended ? damaged("Cut", "the last record is cut off") : { _tag: "NeedsMore", size: recordHeader }
    }
    if (!isRecord(bytes, at)) return damaged("Garbage", "not a record of a capture")
    const size = recordHeader + u32(bytes, at + 20)
    const missing = size - left
    if (missing > 0 && !ended) return { _tag: "NeedsMore", size }
    const reader = Capture.makeReader()
    const [record] = reader.push(bytes.subarray(at, at + size))
    if (record === undefined) {
      const length = size - recordHeader
      const problem = `the record announces ${length} bytes, and ${length - missing} follow`
      return damaged("Cut", problem, commandAt(bytes, at + 8))
    }
    const found = { ...readPayload(record.command, record.payload), time: record.time }
    if (found._tag === "Message") return { _tag: "Record", size, found: [found] }
    // If the length is damaged, whole records may stand in what seems to be the payload.
    return { ...found, size, header: recordHeader }
  }
}

// ---- streams

/** Frames of the version 1 transport. A frame with a right checksum is read, also after garbage. */
export const stream = (magic: Uint8Array): Format => ({
  signature: magicSize,
  next: (bytes, from) => nextMagic(bytes, magic, from),
  read: (bytes, at, ended) => {
    const left = bytes.length - at
    if (left < frameHeader && !ended) return { _tag: "NeedsMore", size: frameHeader }
    if (left >= magicSize && !startsAt(bytes, at, magic)) return damaged("Garbage", "not a frame of this network")
    const cut = damaged("Cut", "the frame is cut off", left < frameHeader ? "" : commandAt(bytes, at + 4))
    if (left < frameHeader) return cut
    const length = u32(bytes, at + 16)
    const size = frameHeader + length
    if (length <= Wire.maxPayloadLength && size > left) return ended ? cut : { _tag: "NeedsMore", size }
    const parser = Wire.makeParser({ magic })
    const [event] = parser.push(bytes.subarray(at, at + (length > Wire.maxPayloadLength ? frameHeader : size)))
    if (event === undefined) return { _tag: "Damaged", ...described(parser.failure!) }
    if (event._tag === "Received") {
      return { _tag: "Record", size, found: [{ _tag: "Message", message: event.message, offset: 0, bytes: size }] }
    }
    const problem = described(event.error)
    const { reason } = problem
    // Only after these two, the length itself may be damaged.
    if (reason === "BadChecksum" || reason === "BadCommand") return { _tag: "Damaged", ...problem }
    return { _tag: "Record", size, found: [{ _tag: "Damaged", offset: 0, bytes: size, ...problem }] }
  }
})

// ---- block files

const largestBlock = Wire.maxPayloadLength

/** Whether the header has the proof of work that it claims. */
export const hasProofOfWork = (bytes: Uint8Array): boolean => {
  if (bytes.length < blockHeader) return false
  const bits = u32(bytes, 72)
  const size = bits >>> 24
  if (size > 32) return false
  const target = BigInt(bits & 0x7fffff) << BigInt(8 * Math.max(0, size - 3))
  const header = Wire.decodeBlockHeader(bytes.subarray(0, blockHeader))
  return Result.isSuccess(header) && BigInt(`0x${Wire.hashToHex(Wire.blockHash(header.success))}`) <= target
}

/** The length of a block in bytes. */
const sizeOf = ({ transactions }: Wire.Block): number => {
  const count = transactions.length
  let size = blockHeader + (count < 0xfd ? 1 : count <= 0xffff ? 3 : 5)
  for (const transaction of transactions) size += Wire.transactionSize(transaction)
  return size
}

/** The block at the start of the bytes. Bytes may follow it. */
const blockIn = (bytes: Uint8Array): Wire.BlockMessage | undefined => {
  const result = Wire.decode("block", bytes)
  return Result.isSuccess(result) && result.success._tag === "block" ? result.success : undefined
}

const isWholeBlock = ({ block }: Wire.BlockMessage): boolean => block.transactions.length > 0 && !Block.isMutated(block)

/** Whether the header of a record may stand at a place: the magic, and the length of a block. */
export const isBlockRecord = (bytes: Uint8Array, at: number, magic: Uint8Array): boolean => {
  if (bytes.length - at < blockFileHeader || !startsAt(bytes, at, magic)) return false
  const length = u32(bytes, at + magicSize)
  return length >= blockHeader && length <= largestBlock
}

/**
 * Blocks as nodes keep them (`blk*.dat`): magic, length, block, in any order, padded with zeros. The rules are those of Bitcoin Core's
 * `LoadExternalBlockFile`: a record begins with the magic and a length of 80 to 4,000,000 bytes, and holds a block if one can be
 * read from these bytes. If no block can be read, this reader searches inside the record too, and takes a block whose header has its
 * proof of work and commits to its transactions, even if the length of the record is wrong.
 *
 * `key` is the one with which the bytes were obfuscated: they are plain here, but the padding was written without it.
 */
export const blockFile = (magic: Uint8Array, key: Uint8Array | undefined): Format => {
  /** A block whose record has a wrong length. */
  const despiteLength = (bytes: Uint8Array, at: number, ended: boolean): Step | undefined => {
    const start = at + blockFileHeader
    if (!hasProofOfWork(bytes.subarray(start, start + blockHeader))) return undefined
    const size = blockFileHeader + largestBlock
    if (bytes.length - at < size && !ended) return { _tag: "NeedsMore", size }
    const message = blockIn(bytes.subarray(start, start + largestBlock))
    if (message === undefined || !isWholeBlock(message)) return undefined
    const length = sizeOf(message.block)
    const problem = `the record announces ${u32(bytes, at + magicSize)} bytes, and its block has ${length}`
    return {
      _tag: "Record",
      size: blockFileHeader + length,
      found: [
        { _tag: "Damaged", offset: 0, bytes: 0, command: "block", reason: "BadLength", problem },
        { _tag: "Message", message, offset: 0, bytes: length }
      ]
    }
  }

  return {
    signature: magicSize,
    next: (bytes, from) => nextMagic(bytes, magic, from),
    isPadding: (bytes, from, to, offset) => {
      let zeros = true
      let obfuscatedZeros = key !== undefined
      for (let i = from; i < to && (zeros || obfuscatedZeros); i++) {
        zeros &&= bytes[i] === 0
        obfuscatedZeros &&= bytes[i] === key![(offset + i - from) % key!.length]
      }
      return zeros || obfuscatedZeros
    },
    read: (bytes, at, ended) => {
      const left = bytes.length - at
      if (left < blockFileHeader && !ended) return { _tag: "NeedsMore", size: blockFileHeader }
      if (!startsAt(bytes, at, magic)) return damaged("Garbage", "not a block of this network")
      if (left < blockFileHeader + blockHeader && !ended) {
        return { _tag: "NeedsMore", size: blockFileHeader + blockHeader }
      }
      if (left < blockFileHeader) return damaged("Cut", "the record is cut off", "block")
      const length = u32(bytes, at + magicSize)
      const size = blockFileHeader + length
      if (!isBlockRecord(bytes, at, magic)) {
        const problem = `the record announces ${length} bytes, which is not the length of a block`
        return despiteLength(bytes, at, ended) ?? damaged("BadLength", problem, "block")
      }
      if (size > left) {
        if (!ended) return { _tag: "NeedsMore", size }
        const problem = `the record announces ${length} bytes, and ${left - blockFileHeader} follow`
        return despiteLength(bytes, at, ended) ?? damaged("Cut", problem, "block")
      }
      const found = readPayload("block", bytes.subarray(at + blockFileHeader, at + size))
      if (found._tag === "Message" && found.message._tag === "block") {
        // By chance, half a block and the next record may read as one block. Its header tells.
        const inner = nextMagic(bytes, magic, at + magicSize)
        const mayHide = inner >= 0 && inner < at + size && isBlockRecord(bytes, inner, magic)
        if (!mayHide || isWholeBlock(found.message)) return { _tag: "Record", size, found: [found] }
        return { ...damaged("OtherTransactions", "the header commits to other transactions", "block"), size }
      }
      const other = despiteLength(bytes, at, ended)
      if (other !== undefined) return other
      return found._tag === "Damaged" ? { ...found, size, header: blockFileHeader } : damaged("Garbage", "not a block")
    }
  }
}
