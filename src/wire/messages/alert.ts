/** `alert`, a message that is only decoded, for old captures. */
import { i32At, skipVarBytesAt, varBytesAt } from "../../primitives/bytes.ts"
import { Reader } from "../reader.ts"
import { type Writer } from "../writer.ts"
import { type List, readList, SequenceList } from "../list.ts"
import type { Codec } from "../codec.ts"

/**
 * The comment of an `alert` is at most 65,536 bytes.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxAlertCommentLength = 65_536

/**
 * The status bar and the reserved text of an `alert` are at most 256 bytes.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxAlertStatusLength = 256

/**
 * A signed warning to the operators of nodes. Bitcoin Core stopped sending alerts in 2016 and published the key, so they prove
 * nothing. They are decoded for old captures; the signature is not checked, and to encode an alert is `BadValue`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Alert {
  readonly _tag: "alert"
  /** The signed bytes, which hold all fields but `signature`. */
  readonly payload: Uint8Array
  /** ECDSA over SHA-256(SHA-256(payload)), as DER. */
  readonly signature: Uint8Array
  /** int32 */
  readonly version: number
  /** Not relayed after this time: unix seconds, int64, exact within ±2^53. */
  readonly relayUntil: number
  /** Expires at this time: unix seconds, int64, exact within ±2^53. */
  readonly expiration: number
  /** int32 */
  readonly id: number
  /** All alerts up to this id are void; int32. */
  readonly cancel: number
  /** The ids of other alerts that are void; int32 each. */
  readonly alsoCancel: List<number>
  /** The lowest protocol version that the alert is for; int32. */
  readonly minimumVersion: number
  /** The highest protocol version that the alert is for; int32. */
  readonly maximumVersion: number
  /** The user agents that the alert is for, as bytes; empty for all. */
  readonly userAgents: List<Uint8Array>
  /** int32 */
  readonly priority: number
  /** Not shown; at most 65,536 bytes, one character a byte. */
  readonly comment: string
  /** The text to show; at most 256 bytes, one character a byte. */
  readonly statusBar: string
  /** At most 256 bytes, one character a byte. */
  readonly reserved: string
}

class Texts extends SequenceList<Uint8Array> {
  read(offset: number): Uint8Array {
    return varBytesAt(this.bytes, offset)
  }

  next(offset: number): number {
    return skipVarBytesAt(this.bytes, offset)
  }
}

const readTexts = (reader: Reader): List<Uint8Array> => {
  const count = reader.count("userAgents", 1)
  const start = reader.offset
  for (let i = 0; i < count; i++) reader.skipVarBytes("userAgents")
  return new Texts(reader.bytes, start, reader.offset, count)
}

export const alert: Codec<Alert> = {
  decode: (outer) => {
    const payload = outer.varBytes("payload")
    const end = outer.offset
    const signature = outer.varBytes("signature")
    // A reader that ends where the signed bytes do. Fields that a later version added are ignored, as old nodes did.
    const reader = new Reader(outer.bytes.subarray(0, end), outer.command, end - payload.length)
    return {
      _tag: "alert",
      payload,
      signature,
      version: reader.i32("version"),
      relayUntil: reader.i64("relayUntil"),
      expiration: reader.i64("expiration"),
      id: reader.i32("id"),
      cancel: reader.i32("cancel"),
      alsoCancel: readList(reader, "alsoCancel", 4, i32At),
      minimumVersion: reader.i32("minimumVersion"),
      maximumVersion: reader.i32("maximumVersion"),
      userAgents: readTexts(reader),
      priority: reader.i32("priority"),
      comment: reader.text("comment", maxAlertCommentLength),
      statusBar: reader.text("statusBar", maxAlertStatusLength),
      reserved: reader.text("reserved", maxAlertStatusLength)
    }
  },
  encode: (writer: Writer) =>
    writer.badValue("_tag", "is a message that is only decoded: no node accepts alerts any more")
}
