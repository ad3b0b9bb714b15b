/**
 * The form of bytes that did not come from a connection (a capture, a stream of frames, a block file, a block, a filtered block, a
 * transaction), and the messages in them. Pure and synchronous; damage is a value.
 */
import * as MerkleBlock from "effect-bitcoin-peer/MerkleBlock"
import * as Network from "effect-bitcoin-peer/Network"
import * as Wire from "effect-bitcoin-peer/Wire"
import * as Result from "effect/Result"
import {
  blockFile,
  capture,
  commandAt,
  hasProofOfWork,
  isBlockRecord,
  isRecord,
  nextMagic,
  readPayload,
  startsAt,
  stream
} from "./formats.ts"
import { type Found, Scanner } from "./scanner.ts"

export type { Found } from "./scanner.ts"

/** The values of `--as` that are not commands. */
export const forms = ["capture", "stream", "blockfile", "block", "tx"] as const

/** The forms that hold many messages. They are read in pieces, so they may be of any size. */
export type FileForm =
  | { readonly _tag: "Capture" }
  | { readonly _tag: "Stream"; readonly network: Network.Network }
  /** `key` is the one that the bytes were obfuscated with, and are no longer. */
  | { readonly _tag: "BlockFile"; readonly network: Network.Network; readonly key?: Uint8Array | undefined }

/** The form of an input. A `Payload` is that of one message. */
export type Form = FileForm | { readonly _tag: "Payload"; readonly command: string }

/** How many bytes tell the form of a file. A payload is never longer. */
export const headSize = Wire.maxPayloadLength + 1

/** How many places with a magic are looked at. A magic can also stand in damaged bytes. */
const mostLooks = 64

type Framed = "Stream" | "BlockFile"

/** The first place where a frame or a block follows the magic of a network. */
const framedBy = (
  bytes: Uint8Array,
  network: Network.Network,
  wanted?: Framed
): { readonly form: Framed; readonly offset: number } | undefined => {
  const { magic } = network
  let offset = nextMagic(bytes, magic, 0)
  for (let looks = 0; offset >= 0 && looks < mostLooks; looks++, offset = nextMagic(bytes, magic, offset + 1)) {
    const form =
      commandAt(bytes, offset + magic.length) !== undefined
        ? "Stream"
        : isBlockRecord(bytes, offset, magic)
          ? "BlockFile"
          : undefined
    if (form !== undefined && (wanted === undefined || wanted === form)) return { form, offset }
  }
  return undefined
}

/** A stream or a block file that begins with the magic of a known network. */
const framedForm = (bytes: Uint8Array): FileForm | undefined => {
  const network = Network.all.find(({ magic }) => startsAt(bytes, 0, magic))
  return network && { _tag: framedBy(bytes, network)?.form ?? "Stream", network }
}

/** The form that `--as` names, of the network whose magic comes first. */
const framedAs = (bytes: Uint8Array, wanted: Framed): FileForm | undefined => {
  const network = Network.all.find(({ magic }) => startsAt(bytes, 0, magic))
  if (network !== undefined) return { _tag: wanted, network }
  let first: { readonly network: Network.Network; readonly offset: number } | undefined
  for (const network of Network.all) {
    const found = framedBy(bytes, network, wanted)
    if (found !== undefined && found.offset < (first?.offset ?? Infinity)) first = { network, offset: found.offset }
  }
  return first && { _tag: wanted, network: first.network }
}

/** The message in a whole input. A lone transaction is read in both forms, as Bitcoin Core's tools do. */
const readWhole = (command: string, bytes: Uint8Array): Found => {
  if (command !== "tx") return readPayload(command, bytes)
  const result = Wire.decodeRawTransaction(bytes)
  if (Result.isFailure(result)) return readPayload(command, bytes)
  return { _tag: "Message", message: { _tag: "tx", transaction: result.success }, offset: 0, bytes: bytes.length }
}

/** Commands of payloads that can be recognised. */
const recognisable = ["tx", "block", "cmpctblock", "blocktxn", "merkleblock"] as const

const isWhole = (command: (typeof recognisable)[number], bytes: Uint8Array): boolean => {
  const found = readPayload(command, bytes)
  if (found._tag === "Damaged") return false
  const { message } = found
  switch (message._tag) {
    case "tx":
      return message.transaction.inputs.length > 0 && message.transaction.outputs.length > 0
    // For the codec, a header and a zero are a block without transactions. Many transactions end so.
    case "block":
      return message.block.transactions.length > 0
    case "cmpctblock":
      return message.prefilled.length > 0
    case "blocktxn":
      return message.transactions.length > 0
    // Hashes that give the merkle root in the header prove it.
    case "merkleblock":
      return Result.isSuccess(MerkleBlock.verify(message))
    default:
      return false
  }
}

/** Whether bytes are a transaction without inputs or outputs, as tools write it while they build one. Ten zeros are not one. */
const isUnfinished = (bytes: Uint8Array): boolean => {
  const result = Wire.decodeRawTransaction(bytes)
  return Result.isSuccess(result) && result.success.version >= 1 && result.success.version <= 3
}

/** Whether the bytes begin with the header of a block and its proof of work. */
export const beginsWithHeader = hasProofOfWork

/** The form of bytes, if it can be recognised. `isAll` is false for the beginning of a file. */
export const detect = (bytes: Uint8Array, isAll = true): Form | undefined => {
  const framed = framedForm(bytes)
  if (framed !== undefined) return framed
  if (isRecord(bytes, 0)) return { _tag: "Capture" }
  if (!isAll) return undefined
  const command = recognisable.find((command) => isWhole(command, bytes)) ?? (isUnfinished(bytes) ? "tx" : undefined)
  return command && { _tag: "Payload", command }
}

/** The form that `--as` names. Throws an `Error` that describes the problem. */
export const formOf = (as: string, bytes: Uint8Array): Form => {
  if (as === "capture") return { _tag: "Capture" }
  if (as === "stream" || as === "blockfile") {
    const form = framedAs(bytes, as === "stream" ? "Stream" : "BlockFile")
    if (form !== undefined) return form
    throw new Error(`no ${as}: there is no ${as === "stream" ? "frame" : "block"} of a known network in it`)
  }
  // The codec decodes a command without a type as a message that it does not know.
  const decoded = Wire.decode(as, bytes)
  if (Result.isSuccess(decoded) && decoded.success._tag === "Unknown") {
    throw new Error(`--as ${as} is not one of ${forms.join(", ")} or of the known commands, such as headers`)
  }
  return { _tag: "Payload", command: as }
}

/** A scanner for a file of a form, which takes the bytes in pieces. */
export const scannerOf = (form: FileForm): Scanner => {
  switch (form._tag) {
    case "Capture":
      return new Scanner(capture)
    case "Stream":
      return new Scanner(stream(form.network.magic))
    case "BlockFile":
      return new Scanner(blockFile(form.network.magic, form.key))
  }
}

/** The messages in bytes of a form, one after the other. */
export function* find(form: Form, bytes: Uint8Array): Generator<Found> {
  if (form._tag === "Payload") return yield readWhole(form.command, bytes)
  const scanner = scannerOf(form)
  scanner.push(bytes)
  scanner.end()
  yield* scanner
}

/** Adds a repeated key to each byte (XOR), as Bitcoin Core does from version 28 on; `offset` is the place of the first byte in the file. */
export const deobfuscate = (bytes: Uint8Array, key: Uint8Array, offset: number): Uint8Array => {
  const plain = new Uint8Array(bytes.length)
  // Turned so that it begins at this offset. A power of two makes the remainder cheap.
  const turned = Uint8Array.from(key, (_, index) => key[(offset + index) % key.length]!)
  for (let i = 0; i < bytes.length; i++) plain[i] = bytes[i]! ^ turned[i % turned.length]!
  return plain
}
