/**
 * Messages in bytes that did not come from a connection: captures, streams of frames, block files, single blocks, filtered
 * ones and transactions, hexadecimal. Pure; what is damaged is a value, and the rest is found where it can be.
 */
import * as Result from "effect/Result"
import * as MerkleBlock from "effect-bitcoin-peer/MerkleBlock"
import * as Network from "effect-bitcoin-peer/Network"
import * as Wire from "effect-bitcoin-peer/Wire"

/** A message, or bytes that are none, and where it was. */
export type Found = {
  /** Bytes from the start. */
  readonly offset: number
  readonly bytes: number
  /** Microseconds since the epoch, in a capture. */
  readonly time?: bigint | undefined
} & (
  | { readonly _tag: "Message"; readonly message: Wire.Message }
  | { readonly _tag: "Damaged"; readonly command: string; readonly reason: string; readonly problem: string }
)

/** What `--as` can say beside a command. */
export const forms = ["capture", "stream", "block", "tx"] as const

/** What the bytes are; a command is the payload of one message. */
export type Form =
  | { readonly _tag: "Capture" }
  | { readonly _tag: "Stream"; readonly network: Network.Network }
  | { readonly _tag: "BlockFile"; readonly network: Network.Network }
  | { readonly _tag: "Payload"; readonly command: string }

const recordHeader = 24
const frameHeader = 24
const blockFileHeader = 8
/** Above it a length is not believed; as on the wire. */
const maximumLength = Wire.maxPayloadLength

const u32 = (bytes: Uint8Array, offset: number): number =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getUint32(offset, true)
const u64 = (bytes: Uint8Array, offset: number): bigint =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.length).getBigUint64(offset, true)

/** A command of 12 bytes: printable ASCII, padded with zeros, not empty. */
const commandAt = (bytes: Uint8Array, offset: number): string | undefined => {
  const text = String.fromCharCode(...bytes.subarray(offset, offset + 12))
  return /^[!-~]+\0*$/.test(text) && text.length === 12 ? text.replace(/\0+$/, "") : undefined
}

// 2009, when there was nothing to capture yet, and 2106, when the times of blocks run out.
const firstTime = 1_230_000_000_000_000n
const lastTime = 4_294_967_296_000_000n

const isRecord = (bytes: Uint8Array, offset: number): boolean => {
  if (bytes.length - offset < recordHeader) return false
  const time = u64(bytes, offset)
  return (
    time >= firstTime &&
    time <= lastTime &&
    commandAt(bytes, offset + 8) !== undefined &&
    u32(bytes, offset + 20) <= maximumLength
  )
}

const damaged = (offset: number, bytes: number, reason: string, problem: string, command = ""): Found => ({
  _tag: "Damaged",
  offset,
  bytes,
  command,
  reason,
  problem
})

const ofWireError = (offset: number, bytes: number, error: Wire.WireError): Found =>
  damaged(offset, bytes, error.reason._tag, error.message, error.command)

/** The payload of one message: a block and a transaction must end where the bytes do. */
const payload = (command: string, bytes: Uint8Array, offset: number): Found => {
  const result = Wire.decode(command, bytes, { trailingBytes: "malformed" })
  return Result.isFailure(result)
    ? ofWireError(offset, bytes.length, result.failure)
    : { _tag: "Message", message: result.success, offset, bytes: bytes.length }
}

/** Where a search finds something again, or the end. */
const next = (bytes: Uint8Array, from: number, is: (offset: number) => boolean): number => {
  for (let offset = from; offset < bytes.length; offset++) if (is(offset)) return offset
  return bytes.length
}

function* capture(bytes: Uint8Array): Generator<Found> {
  for (let offset = 0; offset < bytes.length;) {
    if (!isRecord(bytes, offset)) {
      const end = next(bytes, offset + 1, (at) => isRecord(bytes, at))
      const whole = bytes.length - offset >= recordHeader
      yield damaged(
        offset,
        end - offset,
        whole ? "Garbage" : "Cut",
        whole ? "no record of a capture" : "the last record is cut off"
      )
      offset = end
      continue
    }
    const command = commandAt(bytes, offset + 8)!
    const start = offset + recordHeader
    const length = u32(bytes, offset + 20)
    if (start + length > bytes.length) {
      // A damaged length swallows what follows: look for the next record in it.
      const end = next(bytes, start, (at) => isRecord(bytes, at))
      yield damaged(
        offset,
        end - offset,
        "Cut",
        `the record says ${length} bytes follow, ${bytes.length - start} do`,
        command
      )
      offset = end
      continue
    }
    yield { ...payload(command, bytes.subarray(start, start + length), offset), time: u64(bytes, offset) }
    offset = start + length
  }
}

const startsAt = (bytes: Uint8Array, offset: number, magic: Uint8Array): boolean =>
  magic.every((byte, index) => bytes[offset + index] === byte)

/** How much of a stream is parsed at a time: the events of a piece are an array. */
const pieceSize = 1 << 20

/**
 * Frames by the parser of connections, which gives up where a connection would be closed. A file can be read on behind
 * that: from the next magic.
 */
function* stream(bytes: Uint8Array, magic: Uint8Array): Generator<Found> {
  for (let start = 0; start < bytes.length;) {
    const parser = Wire.makeParser({ magic })
    let offset = start
    for (let piece = start; piece < bytes.length && parser.failure === undefined; piece += pieceSize) {
      for (const event of parser.push(bytes.subarray(piece, piece + pieceSize))) {
        yield event._tag === "Received"
          ? { _tag: "Message", message: event.message, offset, bytes: event.size }
          : ofWireError(offset, event.size, event.error)
        offset += event.size
      }
    }
    if (offset === bytes.length) return
    const end = next(bytes, offset + 1, (at) => startsAt(bytes, at, magic))
    const { failure } = parser
    if (failure === undefined) {
      const command = bytes.length - offset < frameHeader ? "" : (commandAt(bytes, offset + 4) ?? "")
      yield damaged(offset, end - offset, "Cut", "the frame is cut off", command)
    } else if (failure.reason._tag === "WrongMagic") {
      yield damaged(offset, end - offset, "Garbage", "no frame of this network")
    } else yield ofWireError(offset, end - offset, failure)
    start = end
  }
}

/** Blocks as nodes keep them: magic, length, block. Such files are padded with zeros. */
function* blockFile(bytes: Uint8Array, magic: Uint8Array): Generator<Found> {
  for (let offset = 0; offset < bytes.length;) {
    const isBlock = startsAt(bytes, offset, magic) && bytes.length - offset >= blockFileHeader
    const start = offset + blockFileHeader
    const length = isBlock ? u32(bytes, offset + 4) : 0
    if (isBlock && start + length <= bytes.length) {
      yield { ...payload("block", bytes.subarray(start, start + length), offset) }
      offset = start + length
      continue
    }
    const end = next(bytes, offset + 1, (at) => startsAt(bytes, at, magic))
    if (isBlock) {
      yield damaged(offset, end - offset, "Cut", `${length} bytes should follow, ${bytes.length - start} do`, "block")
    } else if (bytes.subarray(offset, end).some((byte) => byte !== 0)) {
      yield damaged(offset, end - offset, "Garbage", "no block of this network")
    }
    offset = end
  }
}

const networkOf = (bytes: Uint8Array): Network.Network | undefined => Network.fromMagic(bytes.subarray(0, 4))

const streamForm = (bytes: Uint8Array): Form | undefined => {
  const network = networkOf(bytes)
  if (network === undefined) return undefined
  // In a block file there is a length where a frame has its command.
  const isFile = commandAt(bytes, 4) === undefined && bytes.length >= 8 && u32(bytes, 4) + 8 <= bytes.length
  return { _tag: isFile ? "BlockFile" : "Stream", network }
}

/** Messages that tell themselves: a whole transaction, which is like nothing else, ends where the bytes do. */
const telling = ["tx", "block", "cmpctblock", "blocktxn", "merkleblock"] as const

const isWhole = (command: (typeof telling)[number], bytes: Uint8Array): boolean => {
  const found = payload(command, bytes, 0)
  if (found._tag === "Damaged") return false
  const { message } = found
  switch (message._tag) {
    // Ten bytes with two zeros in the right place are a transaction to the codec, but one that nobody could mean.
    case "tx":
      return message.transaction.inputs.length > 0 && message.transaction.outputs.length > 0
    // A header and a zero is a block without transactions to the codec, and the end of many a transaction.
    case "block":
      return message.block.transactions.length > 0
    case "cmpctblock":
      return message.prefilled.length > 0
    case "blocktxn":
      return message.transactions.length > 0
    // Bytes whose hashes give the merkle root in their header are nothing else.
    case "merkleblock":
      return Result.isSuccess(MerkleBlock.verify(message))
    default:
      return false
  }
}

/** Whether there is a header of a block with its proof of work, whatever follows. */
export const beginsWithHeader = (bytes: Uint8Array): boolean => {
  if (bytes.length < 80) return false
  const bits = u32(bytes, 72)
  const size = bits >>> 24
  const target = BigInt(bits & 0x7fffff) << BigInt(8 * Math.max(0, size - 3))
  const header = Wire.decode("headers", Uint8Array.of(1, ...bytes.subarray(0, 80), 0))
  if (size > 32 || Result.isFailure(header) || header.success._tag !== "headers") return false
  return BigInt(`0x${Wire.hashToHex(Wire.blockHash(header.success.headers.at(0)!))}`) <= target
}

/** What the bytes are, as far as they tell. */
export const detect = (bytes: Uint8Array): Form | undefined => {
  const framed = streamForm(bytes)
  if (framed !== undefined) return framed
  if (isRecord(bytes, 0)) return { _tag: "Capture" }
  const command = telling.find((command) => isWhole(command, bytes))
  return command && { _tag: "Payload", command }
}

/** What `--as` says the bytes are. Throws an `Error` that says what is wrong. */
export const formOf = (as: string, bytes: Uint8Array): Form => {
  if (as === "capture") return { _tag: "Capture" }
  if (as !== "stream") {
    // Whatever has no type here would be "decoded" as a command that nobody knows.
    const decoded = Wire.decode(as, bytes)
    if (Result.isSuccess(decoded) && decoded.success._tag === "Unknown") {
      throw new Error(`--as ${as} is none of ${forms.join(", ")} or the known commands, such as headers`)
    }
    return { _tag: "Payload", command: as }
  }
  const form = streamForm(bytes)
  if (form === undefined) throw new Error("no stream: it does not start with the magic of a known network")
  return form
}

/** The messages in bytes of a form, one after the other. */
export const find = (form: Form, bytes: Uint8Array): Iterable<Found> => {
  switch (form._tag) {
    case "Capture":
      return capture(bytes)
    case "Stream":
      return stream(bytes, form.network.magic)
    case "BlockFile":
      return blockFile(bytes, form.network.magic)
    case "Payload":
      return [payload(form.command, bytes, 0)]
  }
}

const isText = (bytes: Uint8Array): boolean =>
  bytes.every((byte) => (byte >= 0x20 && byte < 0x7f) || (byte >= 0x09 && byte <= 0x0d))

const fromHex = (digits: string, where: string): Uint8Array => {
  const wrong = /[^0-9a-fA-F]/.exec(digits)
  if (wrong !== null) throw new Error(`text, but not hexadecimal: "${wrong[0]}"${where}`)
  if (digits.length % 2 === 1) throw new Error(`an odd number of hexadecimal digits${where}`)
  return Uint8Array.from(Buffer.from(digits, "hex"))
}

/** One thing to decode, and the line of text it was in where there are several. */
export interface Input {
  readonly bytes: Uint8Array
  readonly line?: number | undefined
}

/**
 * What there is to decode in what was given: bytes as they are, or what their hexadecimal says. Hexadecimal of several lines
 * is one thing when that fits, as `xxd -p` writes it, and one a line otherwise. Throws an `Error` that says what is wrong.
 */
export const inputs = (given: Uint8Array, as: string | undefined): ReadonlyArray<Input> => {
  if (given.length === 0) throw new Error("there is nothing in it")
  if (!isText(given)) return [{ bytes: given }]
  const text = Buffer.from(given.buffer, given.byteOffset, given.length).toString("latin1")
  const lines = text.split("\n").map((line) => line.replace(/\s/g, "").replace(/^0x/i, ""))
  const filled = lines.flatMap((digits, index) => (digits === "" ? [] : [{ digits, index }]))
  if (filled.length === 0) throw new Error("there is nothing in it")
  const apart = filled.length > 1
  const joined = lines.join("")
  if (!/[^0-9a-fA-F]/.test(joined) && joined.length % 2 === 0) {
    const whole = fromHex(joined, "")
    const fits =
      as === undefined
        ? detect(whole) !== undefined
        : as === "stream" || as === "capture" || payload(as, whole, 0)._tag === "Message"
    if (fits || !apart) return [{ bytes: whole }]
  }
  return filled.map(({ digits, index }) =>
    apart ? { bytes: fromHex(digits, ` in line ${index + 1}`), line: index + 1 } : { bytes: fromHex(digits, "") }
  )
}
