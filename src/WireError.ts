/** The error of the codec: why bytes are not a message, or a message cannot be written. */
import * as Data from "effect/Data"
import { encode as hex } from "effect/encoding/Hex"
import { errorJson } from "./primitives/errorJson.ts"

/**
 * Why bytes could not be decoded into a message, or a message encoded into bytes.
 *
 * After `WrongMagic`, `PayloadTooLarge` or `NotAuthentic` the stream cannot be read on: the parser stops and the peer
 * disconnects. The other reasons concern one message: it is dropped and counted, and the connection stays unless the `Policy`
 * says otherwise. A peer is also disconnected for a list of an `inv`, `getdata`, `addr` … that is longer than the protocol
 * allows (`TooMany`).
 *
 * @category errors
 * @since 0.1.0
 */
export type WireReason =
  /** The four bytes at the start of a frame are those of another network or of another protocol. Disconnect. */
  | { readonly _tag: "WrongMagic"; readonly expected: Uint8Array; readonly received: Uint8Array }
  /** A header announces more than `limit` bytes. Disconnect, before anything is allocated. */
  | { readonly _tag: "PayloadTooLarge"; readonly length: number; readonly limit: number }
  /** The first four bytes of SHA-256(SHA-256(payload)) are not those in the header. Message dropped. */
  | { readonly _tag: "BadChecksum" }
  /** The command is not printable ASCII padded with zeros. Message dropped. */
  | { readonly _tag: "BadCommand" }
  /** The authentication tag of an encrypted packet (BIP324) is wrong: it was altered, or the ciphers are out of step. Disconnect. */
  | { readonly _tag: "NotAuthentic" }
  /** The command is a short id of one byte (BIP324) without a meaning. Message dropped. */
  | { readonly _tag: "UnknownShortId"; readonly id: number }
  /** The payload ends inside `field`, which starts at byte `offset`. Message dropped. */
  | { readonly _tag: "Truncated"; readonly field: string; readonly offset: number }
  /** A length or count is not written in its shortest form, or is above 0x02000000. Message dropped. */
  | { readonly _tag: "BadCompactSize"; readonly field: string; readonly offset: number }
  /** A list or string is longer than the protocol allows. Message not sent, or dropped; some lists disconnect the peer. */
  | { readonly _tag: "TooMany"; readonly field: string; readonly count: number; readonly limit: number }
  /** A field has a value that the protocol does not allow. Message dropped, or not sent. */
  | { readonly _tag: "BadValue"; readonly field: string; readonly problem: string }
  /** `count` bytes are left over after the last field. Tolerated, unless the `Policy` or the message forbids it. */
  | { readonly _tag: "TrailingBytes"; readonly count: number }

const describe = (reason: WireReason): string => {
  switch (reason._tag) {
    case "WrongMagic":
      return `wrong network magic: expected ${hex(reason.expected)}, received ${hex(reason.received)}`
    case "PayloadTooLarge":
      return `payload of ${reason.length} bytes is above the limit of ${reason.limit}`
    case "BadChecksum":
      return "wrong checksum"
    case "BadCommand":
      return "command is not zero-padded printable ASCII"
    case "NotAuthentic":
      return "wrong authentication tag"
    case "UnknownShortId":
      return `unknown short id ${reason.id}`
    case "Truncated":
      return `payload ends inside "${reason.field}" at byte ${reason.offset}`
    case "BadCompactSize":
      return `"${reason.field}" at byte ${reason.offset} is not a valid CompactSize`
    case "TooMany":
      return `"${reason.field}" has a length of ${reason.count}, the limit is ${reason.limit}`
    case "BadValue":
      return `"${reason.field}" ${reason.problem}`
    case "TrailingBytes":
      return `${reason.count} bytes left over after the payload`
  }
}

/**
 * Bytes that cannot be read as a message, or a message that cannot be written. `command` is the type of the message as far as
 * it could be read, else empty; the comment of each `reason` says what it leads to.
 *
 * @category errors
 * @since 0.1.0
 */
export class WireError extends Data.TaggedError("WireError")<{
  readonly command: string
  readonly reason: WireReason
}> {
  override get message(): string {
    return this.command === "" ? describe(this.reason) : `${this.command}: ${describe(this.reason)}`
  }

  /** `console.log`, loggers and `JSON.stringify` show the message, which begins with the command, and the reason. */
  override toJSON(): unknown {
    return errorJson(this)
  }
}
