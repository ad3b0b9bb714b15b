/** The two versions of the transport behind one interface: messages become bytes, and bytes become messages. */
import type * as Result from "effect/Result"
import type { Policy } from "../Policy.ts"
import * as Wire from "../Wire.ts"
import { joined } from "../primitives/bytes.ts"
import type { Secrets } from "./bip324Cipher.ts"
import { payloadOf } from "../wire/frameV1.ts"
import { makePacketParser, type PacketParser, payloadOfPacket, sealPackets, writePacket } from "./bip324Packets.ts"
import { attempt } from "../wire/fail.ts"

/** An encoded message that waits to be written. The frame has the length that it takes on the wire. */
export interface Outgoing {
  readonly message: Wire.Message
  readonly frame: Uint8Array
}

export interface Framing {
  readonly transport: "v1" | "v2"
  /** 32 bytes, with version 2 only. */
  readonly sessionId: Uint8Array | undefined
  /** The parser of received bytes. */
  readonly parser: Wire.Parser
  /** Encodes the frame of a message, when it is queued. */
  readonly encode: (message: Wire.Message) => Result.Result<Uint8Array, Wire.WireError>
  /** The payload in a frame that is not sealed yet. */
  readonly payloadOf: (frame: Uint8Array) => Uint8Array
  /** The bytes to write for these frames. Call it once for each frame, in the order of the writes. */
  readonly seal: (frames: ReadonlyArray<Outgoing>) => Uint8Array
}

const framesOf = (outgoing: ReadonlyArray<Outgoing>): ReadonlyArray<Uint8Array> => outgoing.map(({ frame }) => frame)

type OnFrame = Wire.ParserOptions["onFrame"]

export const makeV1 = (magic: Uint8Array, policy: Policy, onFrame?: OnFrame): Framing => ({
  transport: "v1",
  sessionId: undefined,
  parser: Wire.makeParser({
    magic,
    badChecksum: policy.badChecksum,
    malformed: policy.malformed,
    trailingBytes: policy.trailingBytes,
    onFrame
  }),
  encode: (message) => Wire.encodeFrames(magic, [message]),
  payloadOf,
  seal: (frames) => joined(framesOf(frames))
})

/** The framing after a key exchange. */
export const makeV2 = (
  secrets: Secrets,
  garbage: Uint8Array,
  { malformed, trailingBytes }: Policy,
  onFrame?: OnFrame
): Framing & { readonly parser: PacketParser } => ({
  transport: "v2",
  sessionId: secrets.sessionId,
  parser: makePacketParser({ direction: secrets.receive, garbage, malformed, onFrame, trailingBytes }),
  encode: (message) => attempt(() => writePacket(message)),
  payloadOf: payloadOfPacket,
  seal: (frames) => sealPackets(secrets.send, framesOf(frames))
})
