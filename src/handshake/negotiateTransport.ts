/** Recognises or negotiates the transport of a connection before the handshake: the driver of the key exchange. */
import * as Bytes from "effect/Bytes"
import * as Effect from "effect/Effect"
import type { ConnectionError } from "../Connection.ts"
import type { HandshakeReason } from "../HandshakeError.ts"
import * as Network from "../Network.ts"
import type { Policy } from "../Policy.ts"
import * as Transport from "../Transport.ts"
import * as Wire from "../Wire.ts"
import { joined } from "../primitives/bytes.ts"
import { readCommand } from "../wire/frameV1.ts"
import { deriveSecrets, peerTerminator, sharedSecret } from "../transport/bip324Cipher.ts"
import { makeV2 } from "../transport/framing.ts"
import { maxContentsLength } from "../wire/contentsV2.ts"
import * as KeyExchange from "../transport/keyExchange.ts"
import type { MessageConnection } from "../transport/messageConnection.ts"
import { bad } from "./options.ts"

export interface EstablishOptions {
  readonly direction: "inbound" | "outbound"
  readonly transport: "v2" | "auto"
  /** How many bytes of garbage may follow our key. */
  readonly garbageLimit: number
  readonly network: Network.Network
  readonly policy: Policy
  /** Milliseconds after which a silent peer counts as one without version 2. Only outbound with "auto". */
  readonly silence: number
  /** Called with the first bytes of the peer, as often as more of them arrive: at a timeout they say what the peer is. */
  readonly onOpening: (opening: Uint8Array) => void
}

/** A key looks random. Bytes that begin with text are another protocol, such as HTTP. */
export const isText = (bytes: Uint8Array): boolean =>
  bytes.length >= 8 && bytes.subarray(0, 8).every((byte) => byte >= 0x20 && byte <= 0x7e)

const badOption = (field: string, problem: string): HandshakeReason => ({
  _tag: "BadOptions",
  error: bad(field, problem)
})

/** The length of magic and command of a version 1 frame. */
const frameOpeningLength = 16

const magicLength = 4
const knownCommands = new Set<string>(Wire.commands)

/**
 * The magic of the version 1 frame at the start of the bytes, if there is one: with the magic of our network and any
 * command, or with another magic and a known command. A key begins like that with a probability of at most 2^-96.
 */
const magicOfFrame = (bytes: Uint8Array, ours: Uint8Array): Uint8Array | undefined => {
  if (bytes.length < frameOpeningLength) return undefined
  const magic = bytes.slice(0, magicLength)
  const command = readCommand(bytes, magicLength)
  if (command === undefined || command === "") return undefined
  return Bytes.Equivalence(magic, ours) || knownCommands.has(command) ? magic : undefined
}

/**
 * A peer of our network sends its garbage terminator as soon as it has our key. If nothing arrives for this time, in
 * milliseconds, and the terminator is missing, the garbage is searched for the terminators of other networks, at 40 µs
 * each.
 */
const terminatorDelay = 1_000

/**
 * Negotiates the transport: afterwards the link uses version 2, or still version 1. Returns the messages that arrived
 * already.
 */
export const establish = Effect.fnUntraced(function* (
  link: MessageConnection,
  { direction, garbageLimit, network, onOpening, policy, silence, transport }: EstablishOptions
): Effect.fn.Return<ReadonlyArray<Wire.ParserEvent>, HandshakeReason> {
  const obfuscation = yield* Transport.Obfuscation
  const admission = yield* Transport.Admission
  const isInitiator = direction === "outbound"
  const exchange = KeyExchange.make(isInitiator ? "initiator" : "responder", network.magic)
  /** The first bytes from the peer. */
  let opening: Uint8Array | undefined
  let secret: Uint8Array | undefined

  const wrongNetwork = (received: Uint8Array): HandshakeReason => ({
    _tag: "WrongNetwork",
    expected: network,
    received
  })
  /** The reason if the garbage of the peer holds the terminator of another network. */
  const otherNetwork = (): HandshakeReason | undefined => {
    if (secret === undefined) return undefined
    const shared = secret
    const other = Network.all.find(
      ({ magic }) =>
        !Bytes.Equivalence(magic, network.magic) &&
        KeyExchange.garbageHolds(exchange, peerTerminator(shared, magic, isInitiator))
    )
    return other === undefined ? undefined : wrongNetwork(other.magic)
  }
  /** A more specific reason, if the peer's bytes give one. */
  const explained = (reason: HandshakeReason): HandshakeReason =>
    opening !== undefined && isText(opening) ? wrongNetwork(opening.slice(0, magicLength)) : (otherNetwork() ?? reason)
  // We have written our key: more than the 24 bytes that a node of version 1 reads before it gives up.
  const disconnected = (error: ConnectionError): HandshakeReason =>
    isInitiator && opening === undefined
      ? { _tag: "V2NotSpoken", by: "end" }
      : explained({ _tag: "Disconnected", error })
  // A remote that has left must not make others wait: this fails at once if the connection has ended.
  const stillThere = Effect.raceFirst(Effect.mapError(link.connection.drained, disconnected), Effect.void)
  // Other connections are served in the turn of the event loop between two key exchanges.
  const admitted = <A>(work: Effect.Effect<A>): Effect.Effect<A, HandshakeReason> =>
    isInitiator ? work : admission.withPermit(Effect.andThen(stillThere, Effect.andThen(Effect.yieldNow, work)))
  const pull = Effect.suspend(() => {
    const bytes = Effect.mapError(link.connection.pull, disconnected)
    if (secret !== undefined) {
      return Effect.timeoutOrElse(bytes, {
        duration: terminatorDelay,
        orElse: () => {
          const other = otherNetwork()
          return other === undefined ? bytes : Effect.fail(other)
        }
      })
    }
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
        onOpening(opening)
        // A node of version 1 that reports our key as an unknown message (bcoin), or sends its version at once (libbitcoin).
        const magic = isInitiator ? magicOfFrame(opening, network.magic) : undefined
        if (magic !== undefined) {
          return yield* Effect.fail<HandshakeReason>(
            Bytes.Equivalence(magic, network.magic) ? { _tag: "V2NotSpoken", by: "version 1" } : wrongNetwork(magic)
          )
        }
        step = KeyExchange.receive(exchange, bytes)
        continue
      }
      case "NeedKey": {
        const keyPair = yield* admitted(obfuscation.keyPair)
        const garbage = yield* obfuscation.garbage(garbageLimit)
        if (garbage.length > garbageLimit) {
          return yield* Effect.fail(badOption("garbage", `has more than the ${garbageLimit} bytes of its limit`))
        }
        link.writeBytes(KeyExchange.offerKey(exchange, keyPair, garbage))
        break
      }
      case "NeedSecrets": {
        const { ours, theirs } = step
        const secrets = yield* admitted(
          Effect.sync(() => {
            secret = sharedSecret(ours, theirs, isInitiator)
            return deriveSecrets(secret, network.magic, isInitiator)
          })
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
            ? wrongNetwork(step.failure.magic)
            : explained({ _tag: "KeyExchangeFailed", problem: "no garbage terminator; it may be of another network" })
        )
    }
    step = KeyExchange.next(exchange)
  }
})
