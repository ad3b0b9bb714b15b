/**
 * Packets of the version 2 transport (BIP324): the masked length of the contents (3 bytes), then a header byte and the contents,
 * encrypted together, then a tag of 16 bytes. wire/contentsV2.ts reads and writes the contents.
 *
 * The parser does no input or output and knows no time. It looks at each byte once, for any chunks, and holds at most 256 KiB
 * more than the bytes that arrived.
 */
import { plainBytes } from "../primitives/bytes.ts"
import { withWriter } from "../wire/writer.ts"
import { type Direction, noAad, tagSize } from "./bip324Cipher.ts"
import { maxContentsLength, payloadOfContents, readContents, writeContents } from "../wire/contentsV2.ts"
import type { Parser, ParserEvent, ParserOptions } from "../wire/frameV1.ts"
import type { Message } from "../wire/messages.ts"
import { PartialPayload } from "../wire/partialPayload.ts"
import { unreadable } from "../wire/fail.ts"
import type { WireError } from "../WireError.ts"

const lengthSize = 3
const headerSize = 1
const decoyBit = 0x80

/** The bytes of a packet besides its contents. */
export const expansion = lengthSize + headerSize + tagSize

const nothing: ReadonlyArray<ParserEvent> = Object.freeze([])

/**
 * A message as a packet that is not sealed yet: it has its final size, with room for length and tag. It is sealed when it is
 * sent, because the ciphers count packets. Throws `WireError`.
 */
export const writePacket = (message: Message): Uint8Array =>
  withWriter((writer) => {
    writer.limit = Infinity
    writer.reserve(lengthSize + headerSize)
    writer.bytes.fill(0, 0, lengthSize + headerSize)
    writeContents(writer, message)
    return writer.take(tagSize)
  })

/** The payload in a packet that is not sealed yet. */
export const payloadOfPacket = (packet: Uint8Array): Uint8Array =>
  payloadOfContents(packet.subarray(lengthSize + headerSize, packet.length - tagSize))

/** A packet with empty contents that is not sealed yet: the version packet. */
export const emptyPacket = (): Uint8Array => new Uint8Array(expansion)

/** A decoy with that many bytes of contents, not sealed yet. */
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
  /** The ciphers of the receiving direction. */
  readonly direction: Direction
  /** The garbage that came before the first packet, which authenticates it as associated data. */
  readonly garbage: Uint8Array
}

/** A parser of the packets after the garbage terminator. */
export interface PacketParser extends Parser {
  /** Whether the version packet, the first that is no decoy, has arrived: the remote then has the same keys. */
  readonly confirmed: boolean
}

class StreamParser implements PacketParser {
  readonly #options: Omit<PacketParserOptions, "garbage">
  #aad: Uint8Array
  #failure: WireError | undefined
  #confirmed = false

  /** Bytes of the masked length. It is decrypted once, when it is complete, because its cipher counts. */
  #masked = 0
  #maskedSize = 0
  /** Bytes of the packet after the length, header and tag included; 0 while the length is unknown. */
  #wanted = 0
  #pieces: PartialPayload | undefined

  /** The garbage, up to 4,095 bytes, is freed with the first packet. */
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
      // The contents of the version packet are for later versions of the transport.
      if (!this.#confirmed) this.#confirmed = true
      else {
        const read = readContents(plain.subarray(headerSize), size, this.#options)
        if (read._tag === "Unreadable") this.#failure = read.error
        else events.push(read)
      }
    }
  }
}

export const makePacketParser = (options: PacketParserOptions): PacketParser => new StreamParser(options)
