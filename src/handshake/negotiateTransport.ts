/** Finds out, or agrees on, how a connection is spoken, before the handshake: the driver of the key exchange. */
import * as Effect from "effect/Effect"
import type { ConnectionError } from "../Connection.ts"
import type { HandshakeReason } from "../HandshakeError.ts"
import type * as Network from "../Network.ts"
import type { Policy } from "../Policy.ts"
import * as Transport from "../Transport.ts"
import * as Wire from "../Wire.ts"
import { joined } from "../primitives/bytes.ts"
import { readCommand } from "../wire/frameV1.ts"
import { deriveSecrets, sharedSecret } from "../transport/bip324Cipher.ts"
import { makeV2 } from "../transport/framing.ts"
import { maxContentsLength } from "../wire/contentsV2.ts"
import * as KeyExchange from "../transport/keyExchange.ts"
import type { MessageConnection } from "../transport/messageConnection.ts"

export interface EstablishOptions {
  readonly direction: "inbound" | "outbound"
  readonly transport: "v2" | "auto"
  /** How many bytes of garbage may follow our key. */
  readonly garbageLimit: number
  readonly network: Network.Network
  readonly policy: Policy
  /** Milliseconds after which a silent peer is taken for one that does not speak version 2, where that may be. */
  readonly silence: number
}

/** A key is noise: what begins with text is another protocol, such as HTTP. */
const isText = (bytes: Uint8Array): boolean =>
  bytes.length >= 8 && bytes.subarray(0, 8).every((byte) => byte >= 0x20 && byte <= 0x7e)

const badOption = (field: string, problem: string): HandshakeReason => ({
  _tag: "BadOptions",
  error: new Wire.WireError({ command: "", reason: { _tag: "BadValue", field, problem } })
})

/** Bytes of a version 1 frame that no key begins with, but with a probability of 2^-128: magic and command. */
const frameOpeningLength = 16

/** Whether the bytes begin as a version 1 frame of the network: its magic, then a command padded with zeros. */
const isVersion1Frame = (bytes: Uint8Array, magic: Uint8Array): boolean => {
  if (bytes.length < frameOpeningLength || !magic.every((byte, index) => bytes[index] === byte)) return false
  const command = readCommand(bytes, magic.length)
  return command !== undefined && command !== ""
}

/** The link speaks version 2 afterwards, or still version 1. Returns what came behind it. */
export const establish = Effect.fnUntraced(function* (
  link: MessageConnection,
  { direction, garbageLimit, network, policy, silence, transport }: EstablishOptions
): Effect.fn.Return<ReadonlyArray<Wire.ParserEvent>, HandshakeReason> {
  const obfuscation = yield* Transport.Obfuscation
  const admission = yield* Transport.Admission
  const isInitiator = direction === "outbound"
  const exchange = KeyExchange.make(isInitiator ? "initiator" : "responder", network.magic)
  /** The first bytes of the peer. */
  let opening: Uint8Array | undefined

  const unlessText = (reason: HandshakeReason): HandshakeReason =>
    opening !== undefined && isText(opening)
      ? { _tag: "WrongNetwork", expected: network, received: opening.slice(0, 4) }
      : reason
  // Our key was written by then, which is more than the 24 bytes that a node of version 1 reads before it gives up.
  const disconnected = (error: ConnectionError): HandshakeReason =>
    isInitiator && opening === undefined
      ? { _tag: "V2NotSpoken", by: "end" }
      : unlessText({ _tag: "Disconnected", error })
  // Who came, asked and left in the meantime shall not keep others waiting: it fails at once where the connection ended.
  const stillThere = Effect.raceFirst(Effect.mapError(link.connection.drained, disconnected), Effect.void)
  // The turn of the event loop that comes in between is when other connections are attended to.
  const admitted = <A>(work: Effect.Effect<A>): Effect.Effect<A, HandshakeReason> =>
    isInitiator ? work : admission.withPermit(Effect.andThen(stillThere, Effect.andThen(Effect.yieldNow, work)))
  const pull = Effect.suspend(() => {
    const bytes = Effect.mapError(link.connection.pull, disconnected)
    return isInitiator && opening === undefined && transport === "auto"
      ? Effect.timeoutOrElse(bytes, {
          duration: silence,
          orElse: () => Effect.fail<HandshakeReason>({ _tag: "V2NotSpoken", by: "silence" })
        })
      : bytes
  })

  let step = KeyExchange.next(exchange)
  while (true) {
    switch (step._tag) {
      case "NeedBytes": {
        const chunks = yield* pull
        link.countBytes(chunks)
        const bytes = joined(chunks)
        if (opening === undefined) opening = bytes
        else if (opening.length < frameOpeningLength) opening = joined([opening, bytes])
        // A node of version 1 that reports our key as an unknown message (bcoin), or sends its version at once (libbitcoin).
        if (isInitiator && isVersion1Frame(opening, network.magic)) {
          return yield* Effect.fail<HandshakeReason>({ _tag: "V2NotSpoken", by: "version 1" })
        }
        step = KeyExchange.receive(exchange, bytes)
        continue
      }
      case "NeedKey": {
        const keyPair = yield* admitted(obfuscation.keyPair)
        const garbage = yield* obfuscation.garbage(garbageLimit)
        if (garbage.length > KeyExchange.maxGarbageLength) {
          return yield* Effect.fail(badOption("garbage", `has more than ${KeyExchange.maxGarbageLength} bytes`))
        }
        link.writeBytes(KeyExchange.offerKey(exchange, keyPair, garbage))
        break
      }
      case "NeedSecrets": {
        const { ours, theirs } = step
        const secrets = yield* admitted(
          Effect.sync(() => deriveSecrets(sharedSecret(ours, theirs, isInitiator), network.magic, isInitiator))
        )
        const decoys = yield* obfuscation.decoys
        if (decoys.some((length) => !(length >= 0 && length <= maxContentsLength))) {
          return yield* Effect.fail(badOption("decoys", `must have 0 to ${maxContentsLength} bytes`))
        }
        link.writeBytes(KeyExchange.agree(exchange, secrets, decoys))
        break
      }
      case "Version1":
        if (transport === "v2") return yield* Effect.fail<HandshakeReason>({ _tag: "V2NotSpoken", by: "version 1" })
        return link.use(link.framing, step.bytes)
      case "Done": {
        const framing = makeV2(step.secrets, step.garbage, policy, link.onFrame)
        let events = link.use(framing, step.rest)
        while (!framing.parser.confirmed) {
          const failure = link.failure
          if (failure !== undefined) {
            return yield* Effect.fail<HandshakeReason>({ _tag: "KeyExchangeFailed", problem: failure.message })
          }
          events = yield* Effect.mapError(link.read, disconnected)
        }
        return events
      }
      case "Failed":
        return yield* Effect.fail<HandshakeReason>(
          step.failure._tag === "OtherNetwork"
            ? { _tag: "WrongNetwork", expected: network, received: step.failure.magic }
            : unlessText({ _tag: "KeyExchangeFailed", problem: "no garbage terminator; it may be of another network" })
        )
    }
    step = KeyExchange.next(exchange)
  }
})
