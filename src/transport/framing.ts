/** What the two versions of the transport have in common: messages become bytes, and bytes messages. */
import type * as Result from "effect/Result"
import type { Policy } from "../Policy.ts"
import * as Wire from "../Wire.ts"
import { joined } from "../primitives/bytes.ts"
import type { Secrets } from "./bip324Cipher.ts"
import { payloadOf } from "../wire/frameV1.ts"
import { makePacketParser, type PacketParser, payloadOfPacket, sealPackets, writePacket } from "./bip324Packets.ts"
import { attempt } from "../wire/fail.ts"

/** A message that was encoded and waits to be written; the frame has the length that it takes on the wire. */
export interface Outgoing {
  readonly message: Wire.Message
  readonly frame: Uint8Array
}

export interface Framing {
  readonly transport: "v1" | "v2"
  /** 32 bytes, of version 2 only. */
  readonly sessionId: Uint8Array | undefined
  /** Of what is received. */
  readonly parser: Wire.Parser
  /** The frame of a message, made when it is queued. */
  readonly encode: (message: Wire.Message) => Result.Result<Uint8Array, Wire.WireError>
  /** The payload in a frame that is not sealed yet. */
  readonly payloadOf: (frame: Uint8Array) => Uint8Array
  /** The bytes to write for these frames, each once and in the order in which they are written. */
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

/** Of what follows a key exchange. */
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
