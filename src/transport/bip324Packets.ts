/**
 * Packets of the version 2 transport (BIP324): the masked length of the contents (3 bytes), then a header byte and the
 * contents, encrypted together, then a tag of 16 bytes. The contents are a message: a short id of one byte, or a zero
 * and the command in 12 bytes as in version 1, then the payload.
 *
 * The parser does no input or output and uses no clock. It processes each byte once, however the chunks are cut, and
 * never holds more than the bytes that arrived plus 256 KiB.
 */
import { maxPayloadLength } from "../wire/limits.ts"
import { plainBytes } from "../primitives/bytes.ts"
import { withWriter } from "../wire/writer.ts"
import { type Direction, noAad, tagSize } from "./bip324Cipher.ts"
import {
  decodeFrame,
  type Parser,
  type ParserEvent,
  type ParserOptions,
  readableCommand,
  readCommand
} from "../wire/frameV1.ts"
import { commandOf, type Message, writeMessage } from "../wire/messages.ts"
import { PartialPayload } from "../wire/partialPayload.ts"
import { unreadable } from "../wire/fail.ts"
import type { WireError } from "../WireError.ts"

const lengthSize = 3
const headerSize = 1
const commandSize = 12
const decoyBit = 0x80

/** The bytes of a packet besides its contents. */
export const expansion = lengthSize + headerSize + tagSize

/**
 * The greatest length of contents: a message of the greatest length with its command written out. Longer contents end
 * the connection.
 */
export const maxContentsLength = 1 + commandSize + maxPayloadLength

/** The commands by their short id. The ids from 29 to 36 are not assigned. */
const commands: ReadonlyArray<string | undefined> = [
  undefined,
  "addr",
  "block",
  "blocktxn",
  "cmpctblock",
  "feefilter",
  "filteradd",
  "filterclear",
  "filterload",
  "getblocks",
  "getblocktxn",
  "getdata",
  "getheaders",
  "headers",
  "inv",
  "mempool",
  "merkleblock",
  "notfound",
  "ping",
  "pong",
  "sendcmpct",
  "tx",
  "getcfilters",
  "cfilter",
  "getcfheaders",
  "cfheaders",
  "getcfcheckpt",
  "cfcheckpt",
  "addrv2",
  ...Array.from({ length: 8 }, () => undefined),
  "feature"
]

const shortIds = new Map(commands.flatMap((command, id) => (command === undefined ? [] : [[command, id] as const])))

const nothing: ReadonlyArray<ParserEvent> = Object.freeze([])

/**
 * Encodes a message as a packet that is not sealed yet. It has its final length, with room for length and tag, so that
 * it can wait until its place among the packets of the connection is known. Throws `WireError`.
 */
export const writePacket = (message: Message): Uint8Array =>
  withWriter((writer) => {
    const id = shortIds.get(commandOf(message))
    writer.limit = Infinity
    writer.reserve(lengthSize + headerSize)
    writer.bytes.fill(0, 0, lengthSize + headerSize)
    if (id === undefined) {
      const command = commandOf(message)
      const at = writer.reserve(1 + commandSize)
      for (let i = 0; i < commandSize; i++) writer.bytes[at + 1 + i] = i < command.length ? command.charCodeAt(i) : 0
      writer.bytes[at] = 0
    } else {
      const at = writer.reserve(1)
      writer.bytes[at] = id
    }
    writeMessage(writer, message)
    return writer.take(tagSize)
  })

/** The payload in a packet that is not sealed yet. */
export const payloadOfPacket = (packet: Uint8Array): Uint8Array => {
  const id = packet[lengthSize + headerSize]
  return packet.subarray(lengthSize + headerSize + 1 + (id === 0 ? commandSize : 0), packet.length - tagSize)
}

/** A packet without a message, not sealed yet: the version packet, or a decoy. */
export const emptyPacket = (): Uint8Array => new Uint8Array(expansion)

export const decoyPacket = (length: number): Uint8Array => {
  const packet = new Uint8Array(expansion + length)
  packet[lengthSize] = decoyBit
  return packet
}

/**
 * Seals packets in the order in which they are sent, into one buffer; a single packet in its own buffer. `aad` is the
 * associated data of the first.
 */
export const sealPackets = (
  direction: Direction,
  packets: ReadonlyArray<Uint8Array>,
  aad: Uint8Array = noAad
): Uint8Array => {
  let size = 0
  for (const packet of packets) size += packet.length
  const sealed = packets.length === 1 ? packets[0]! : new Uint8Array(size)
  let offset = 0
  for (const packet of packets) {
    const end = offset + packet.length
    const length = (packet.length - expansion) ^ direction.lengthMask()
    sealed[offset] = length
    sealed[offset + 1] = length >>> 8
    sealed[offset + 2] = length >>> 16
    const plain = packet.subarray(lengthSize, packet.length - tagSize)
    direction.seal(plain, offset === 0 ? aad : noAad, sealed.subarray(offset + lengthSize, end))
    offset = end
  }
  return sealed
}

export interface PacketParserOptions extends Pick<ParserOptions, "malformed" | "onFrame" | "trailingBytes"> {
  /** The ciphers of the received direction. */
  readonly direction: Direction
  /** The garbage before the first packet. It is the associated data of that packet. */
  readonly garbage: Uint8Array
}

/** A parser of the bytes after the garbage terminator. */
export interface PacketParser extends Parser {
  /** Whether the version packet, the first that is not a decoy, has arrived. Its sender has our keys. */
  readonly confirmed: boolean
}

class StreamParser implements PacketParser {
  readonly #options: Omit<PacketParserOptions, "garbage">
  #aad: Uint8Array
  #failure: WireError | undefined
  #confirmed = false

  /** The bytes of the length so far. The length is decrypted when it is complete, and only once: its cipher counts. */
  #masked = 0
  #maskedSize = 0
  /** The size of the packet after the length, with header and tag; 0 while it is unknown. */
  #wanted = 0
  #pieces: PartialPayload | undefined

  /** The garbage, up to 4 KB, is released after the first packet. */
  constructor({ garbage, ...options }: PacketParserOptions) {
    this.#options = options
    this.#aad = garbage
  }

  get failure(): WireError | undefined {
    return this.#failure
  }

  get confirmed(): boolean {
    return this.#confirmed
  }

  get buffered(): number {
    return this.#maskedSize + (this.#pieces?.arrived ?? 0)
  }

  push(input: Uint8Array): ReadonlyArray<ParserEvent> {
    if (this.#failure !== undefined || input.length === 0) return nothing
    const chunk = plainBytes(input)
    const events: Array<ParserEvent> = []
    let offset = 0
    while (this.#failure === undefined && offset < chunk.length) {
      offset = this.#wanted === 0 ? this.#readLength(chunk, offset) : this.#readPacket(chunk, offset, events)
    }
    if (this.#failure !== undefined) this.#release()
    return events
  }

  #readLength(chunk: Uint8Array, start: number): number {
    let offset = start
    while (this.#maskedSize < lengthSize && offset < chunk.length) {
      this.#masked |= chunk[offset++] << (8 * this.#maskedSize++)
    }
    if (this.#maskedSize === lengthSize) {
      const length = this.#masked ^ this.#options.direction.lengthMask()
      if (length > maxContentsLength) {
        this.#failure = unreadable("", { _tag: "PayloadTooLarge", length, limit: maxContentsLength })
      }
      this.#wanted = headerSize + length + tagSize
    }
    return offset
  }

  #readPacket(chunk: Uint8Array, start: number, events: Array<ParserEvent>): number {
    const end = start + this.#wanted
    if (this.#pieces === undefined && end <= chunk.length) {
      this.#open([chunk.subarray(start, end)], events)
      return end
    }
    this.#pieces ??= new PartialPayload(this.#wanted)
    const offset = this.#pieces.keep(chunk, start)
    if (this.#pieces.arrived === this.#wanted) {
      const parts = this.#pieces.parts()
      this.#pieces = undefined
      this.#open(parts, events)
    }
    return offset
  }

  #release(): void {
    this.#masked = this.#maskedSize = this.#wanted = 0
    this.#pieces = undefined
  }

  #open(parts: ReadonlyArray<Uint8Array>, events: Array<ParserEvent>): void {
    const size = lengthSize + this.#wanted
    this.#release()
    const plain = this.#options.direction.open(parts, this.#aad)
    this.#aad = noAad
    if (plain === undefined) {
      this.#failure = unreadable("", { _tag: "NotAuthentic" })
    } else if ((plain[0] & decoyBit) === 0) {
      if (this.#confirmed) this.#message(plain, size, events)
      // The contents of a version packet are reserved for later versions of the transport.
      else this.#confirmed = true
    }
  }

  /** Decodes the message after the header byte. */
  #message(plain: Uint8Array, size: number, events: Array<ParserEvent>): void {
    const id = plain[headerSize]
    const isShort = id !== undefined && id !== 0
    const at = headerSize + 1
    const isThere = plain.length >= headerSize + 1 + commandSize
    const command = isShort ? commands[id] : isThere ? readCommand(plain, at) : undefined
    if (command === undefined) {
      const error = isShort
        ? unreadable("", { _tag: "UnknownShortId", id })
        : unreadable(isThere ? readableCommand(plain, at) : "", { _tag: "BadCommand" })
      return this.#drop(error, size, isShort ? "drop" : this.#options.malformed, events)
    }
    const payload = plain.subarray(headerSize + 1 + (isShort ? 0 : commandSize))
    const { length } = payload
    // The limit of contents includes a command that is written out. With a short id the payload can still be too long.
    if (length > maxPayloadLength) {
      this.#failure = unreadable(command, { _tag: "PayloadTooLarge", length, limit: maxPayloadLength })
      return
    }
    const event = decodeFrame(command, payload, size, this.#options)
    if (event._tag === "Dropped") this.#drop(event.error, size, this.#options.malformed, events)
    else events.push(event)
  }

  #drop(error: WireError, size: number, way: "drop" | "disconnect" | undefined, events: Array<ParserEvent>): void {
    if (way === "disconnect") this.#failure = error
    else events.push({ _tag: "Dropped", error, size })
  }
}

export const makePacketParser = (options: PacketParserOptions): PacketParser => new StreamParser(options)
