import { i32At, skipVarBytesAt, varBytesAt } from "../../primitives/bytes.ts"
import { Reader } from "../reader.ts"
import { type Writer } from "../writer.ts"
import { type List, readList, SequenceList } from "../list.ts"
import type { Codec } from "../codec.ts"

/** The comment of an `alert` is at most 65,536 bytes. */
export const maxAlertCommentLength = 65_536

/** The status bar and the reserved text of an `alert` are at most 256 bytes. */
export const maxAlertStatusLength = 256

/**
 * A signed warning to the operators of nodes. Bitcoin Core stopped to send them in 2016 and published the key: they are
 * worth nothing, and are decoded for old captures alone. To encode one is `BadValue`; no signature is looked at.
 */
export interface Alert {
  readonly _tag: "alert"
  /** The bytes that are signed, in which all fields but `signature` are. */
  readonly payload: Uint8Array
  /** DER of ECDSA over SHA-256(SHA-256(payload)). */
  readonly signature: Uint8Array
  /** int32 */
  readonly version: number
  /** Unix seconds, int64, exact within ±2^53: no longer relayed then. */
  readonly relayUntil: number
  /** Unix seconds, int64, exact within ±2^53: no longer in force then. */
  readonly expiration: number
  /** int32 */
  readonly id: number
  /** int32: all alerts up to this id are void. */
  readonly cancel: number
  /** int32 each: these alerts are void as well. */
  readonly alsoCancel: List<number>
  /** The protocol versions it is for, from this one, int32. */
  readonly minimumVersion: number
  /** To this one, int32. */
  readonly maximumVersion: number
  /** The user agents it is for, as bytes; none for all. */
  readonly userAgents: List<Uint8Array>
  /** int32 */
  readonly priority: number
  /** Not shown; at most 65,536 bytes, one character a byte. */
  readonly comment: string
  /** What to show; at most 256 bytes, one character a byte. */
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
    // Ends where the payload does. What a later version adds to it is left alone, as old nodes did.
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
  encode: (writer: Writer) => writer.badValue("_tag", "is a message that is decoded only: nobody takes alerts any more")
}
