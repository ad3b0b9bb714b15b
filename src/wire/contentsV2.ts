/**
 * The contents of a v2 packet (BIP324), which are a message: a short id of one byte, or a zero and the command in 12 bytes as
 * in v1, then the payload.
 */
import type { WireError } from "../WireError.ts"
import { unreadable } from "./fail.ts"
import { decodeFrame, type ParserEvent, type ParserOptions, readableCommand, readCommand } from "./frameV1.ts"
import { maxPayloadLength } from "./limits.ts"
import { commandOf, type Message, writeMessage } from "./messages.ts"
import type { Writer } from "./writer.ts"

const commandSize = 12

/** The maximum length of contents: a payload of the maximum length, with a full command. */
export const maxContentsLength = 1 + commandSize + maxPayloadLength

/** Commands by their short id. Ids from 29 to 36 are not assigned. */
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

/** Writes the contents for a message. Throws `WireError`. */
export const writeContents = (writer: Writer, message: Message): void => {
  const command = commandOf(message)
  const id = shortIds.get(command)
  const at = writer.reserve(id === undefined ? 1 + commandSize : 1)
  writer.bytes[at] = id ?? 0
  if (id === undefined) {
    for (let i = 0; i < commandSize; i++) writer.bytes[at + 1 + i] = i < command.length ? command.charCodeAt(i) : 0
  }
  writeMessage(writer, message)
}

/** The payload in contents that `writeContents` wrote. */
export const payloadOfContents = (contents: Uint8Array): Uint8Array =>
  contents.subarray(contents[0] === 0 ? 1 + commandSize : 1)

/** The error of contents that end the connection. */
export interface Unreadable {
  readonly _tag: "Unreadable"
  readonly error: WireError
}

/** Reads contents. `size` is the size of the packet, which the event reports. An unknown short id drops the message. */
export const readContents = (
  contents: Uint8Array,
  size: number,
  options: Pick<ParserOptions, "malformed" | "onFrame" | "trailingBytes">
): ParserEvent | Unreadable => {
  const dropped = (error: WireError): ParserEvent | Unreadable =>
    options.malformed === "disconnect" ? { _tag: "Unreadable", error } : { _tag: "Dropped", error, size }

  const id = contents[0]
  let command: string | undefined
  let start = 1
  if (id !== undefined && id !== 0) {
    command = commands[id]
    if (command === undefined) return { _tag: "Dropped", error: unreadable("", { _tag: "UnknownShortId", id }), size }
  } else {
    const isThere = contents.length >= 1 + commandSize
    command = isThere ? readCommand(contents, 1) : undefined
    if (command === undefined) {
      return dropped(unreadable(isThere ? readableCommand(contents, 1) : "", { _tag: "BadCommand" }))
    }
    start += commandSize
  }
  const payload = contents.subarray(start)
  const { length } = payload
  // The limit of contents includes a full command; contents with a short id may exceed the limit of payloads.
  if (length > maxPayloadLength) {
    const error = unreadable(command, { _tag: "PayloadTooLarge", length, limit: maxPayloadLength })
    return { _tag: "Unreadable", error }
  }
  const event = decodeFrame(command, payload, size, options)
  return event._tag === "Dropped" ? dropped(event.error) : event
}
