/** The type of a codec: each message type has one, in messages/. */
import type { Reader } from "./reader.ts"
import type { Writer } from "./writer.ts"

/** How one message type is read and written. Both throw `WireError` and nothing else. */
export interface Codec<M> {
  readonly decode: (reader: Reader) => M
  readonly encode: (writer: Writer, message: M) => void
}
