/**
 * The key exchange that starts an encrypted connection (BIP324), as a pure machine for both roles. Keys look random, and
 * random garbage of any length follows them, so that an observer recognises nothing.
 *
 *     initiator: → key, garbage                 ← key, garbage
 *                → terminator, (decoys…), version packet        done on the terminator of the other side
 *     responder: ← key, or version 1            → key, garbage
 *                → terminator, (decoys…), version packet        done on the terminator of the other side
 *
 * It does no I/O and uses neither clock nor randomness. Its driver does the expensive mathematics, and may delay it for a
 * stranger: the machine asks for our key and for the shared secret when it needs them.
 */
import { joined } from "../primitives/bytes.ts"
import { type KeyPair, publicKeySize, type Secrets, terminatorSize } from "./bip324Cipher.ts"
import { decoyPacket, emptyPacket, sealPackets } from "./bip324Packets.ts"

/**
 * The greatest length of garbage after a key, in bytes (BIP324).
 *
 * @category constants
 * @since 0.1.0
 */
export const maxGarbageLength = 4095

const prefixSize = 16
const magicSize = 4
/** The bytes after the magic in the version 1 header of a version message. */
const versionCommand = Uint8Array.of(0x76, 0x65, 0x72, 0x73, 0x69, 0x6f, 0x6e, 0, 0, 0, 0, 0)

/** Why the key exchange failed. */
export type KeyExchangeFailure =
  /** The peer sent a version message in version 1, on the network with that magic. */
  | { readonly _tag: "OtherNetwork"; readonly magic: Uint8Array }
  /** The garbage of the peer has the greatest length, and no terminator: another network, or another protocol. */
  | { readonly _tag: "NoTerminator" }

/** What the driver has to do next. */
export type Step =
  /** Call `receive` with more bytes. */
  | { readonly _tag: "NeedBytes" }
  /** Call `offerKey`: the other side supports version 2. */
  | { readonly _tag: "NeedKey" }
  /** Call `agree` with the secrets that follow from our key and this one. */
  | { readonly _tag: "NeedSecrets"; readonly ours: KeyPair; readonly theirs: Uint8Array }
  /** The other side uses version 1. These are all its bytes so far. */
  | { readonly _tag: "Version1"; readonly bytes: Uint8Array }
  /** Packets follow; `rest` holds those that have arrived. The garbage is the associated data of the first one. */
  | { readonly _tag: "Done"; readonly secrets: Secrets; readonly garbage: Uint8Array; readonly rest: Uint8Array }
  | { readonly _tag: "Failed"; readonly failure: KeyExchangeFailure }

export interface KeyExchange {
  readonly initiator: boolean
  readonly magic: Uint8Array
  phase: "Prefix" | "OurKey" | "TheirKey" | "Secrets" | "Garbage" | "Over"
  /** The bytes that arrived and were not processed: the beginning of `held`, then `chunk` from `offset` on. */
  held: Uint8Array
  size: number
  chunk: Uint8Array
  offset: number
  ours: KeyPair | undefined
  ourGarbage: Uint8Array
  secrets: Secrets | undefined
}

const needBytes: Step = { _tag: "NeedBytes" }
const needKey: Step = { _tag: "NeedKey" }
const nothing = new Uint8Array(0)

export const make = (role: "initiator" | "responder", magic: Uint8Array): KeyExchange => ({
  initiator: role === "initiator",
  magic,
  phase: role === "initiator" ? "OurKey" : "Prefix",
  held: new Uint8Array(publicKeySize),
  size: 0,
  chunk: nothing,
  offset: 0,
  ours: undefined,
  ourGarbage: nothing,
  secrets: undefined
})

/** Fills `held` up to `size` bytes; true when it is full. */
const hold = (of: KeyExchange, size: number): boolean => {
  const end = Math.min(of.chunk.length, of.offset + size - of.size)
  of.held.set(of.chunk.subarray(of.offset, end), of.size)
  of.size += end - of.offset
  of.offset = end
  return of.size === size
}

const equalAt = (bytes: Uint8Array, offset: number, other: Uint8Array, size: number): boolean => {
  for (let i = 0; i < size; i++) if (bytes[offset + i] !== other[i]) return false
  return true
}

const fail = (of: KeyExchange, failure: KeyExchangeFailure): Step => {
  of.phase = "Over"
  return { _tag: "Failed", failure }
}

const isOtherNetwork = (of: KeyExchange): boolean =>
  !of.initiator && of.size >= prefixSize && equalAt(of.held, magicSize, versionCommand, versionCommand.length)

const otherNetwork = (of: KeyExchange): Step => fail(of, { _tag: "OtherNetwork", magic: of.held.slice(0, magicSize) })

/** The first 16 bytes of version 1 are known. Other bytes are a key. */
const prefix = (of: KeyExchange): Step => {
  const isWhole = hold(of, prefixSize)
  const { held, magic, size } = of
  const same =
    equalAt(held, 0, magic, Math.min(size, magicSize)) &&
    equalAt(held, magicSize, versionCommand, Math.max(0, size - magicSize))
  if (!same) {
    if (isOtherNetwork(of)) return otherNetwork(of)
    of.phase = "OurKey"
    return needKey
  }
  if (!isWhole) return needBytes
  of.phase = "Over"
  return { _tag: "Version1", bytes: joined([held.subarray(0, size), of.chunk.subarray(of.offset)]) }
}

const theirKey = (of: KeyExchange): Step => {
  const isWhole = hold(of, publicKeySize)
  if (isOtherNetwork(of)) return otherNetwork(of)
  if (!isWhole) return needBytes
  const theirs = of.held
  of.phase = "Secrets"
  of.held = new Uint8Array(maxGarbageLength + terminatorSize)
  of.size = 0
  return { _tag: "NeedSecrets", ours: of.ours!, theirs }
}

const garbage = (of: KeyExchange): Step => {
  const { chunk, held } = of
  const terminator = of.secrets!.receiveTerminator
  while (of.offset < chunk.length) {
    held[of.size++] = chunk[of.offset++]!
    const start = of.size - terminatorSize
    if (start >= 0 && equalAt(held, start, terminator, terminatorSize)) {
      of.phase = "Over"
      return { _tag: "Done", secrets: of.secrets!, garbage: held.slice(0, start), rest: chunk.subarray(of.offset) }
    }
    if (of.size === held.length) return fail(of, { _tag: "NoTerminator" })
  }
  return needBytes
}

/** Whether the garbage that has arrived holds this terminator: then the peer is on the network that it belongs to. */
export const garbageHolds = (of: KeyExchange, terminator: Uint8Array): boolean => {
  for (let start = 0; start + terminatorSize <= of.size; start++) {
    if (equalAt(of.held, start, terminator, terminatorSize)) return true
  }
  return false
}

/** The next step. */
export const next = (of: KeyExchange): Step => {
  switch (of.phase) {
    case "Prefix":
      return prefix(of)
    case "OurKey":
      return needKey
    case "TheirKey":
      return theirKey(of)
    case "Garbage":
      return garbage(of)
    case "Secrets":
    case "Over":
      throw new Error("the key exchange waits for its driver")
  }
}

/** Takes bytes after `NeedBytes`, and returns the next step. */
export const receive = (of: KeyExchange, bytes: Uint8Array): Step => {
  of.chunk = bytes
  of.offset = 0
  return next(of)
}

/** Our key and garbage, as they are sent. */
export const offerKey = (of: KeyExchange, ours: KeyPair, garbage: Uint8Array): Uint8Array => {
  of.ours = ours
  of.ourGarbage = garbage
  of.phase = "TheirKey"
  return joined([ours.publicKey, garbage])
}

/** The terminator of our garbage, decoys with contents of these lengths, and the version packet, as they are sent. */
export const agree = (of: KeyExchange, secrets: Secrets, decoys: ReadonlyArray<number>): Uint8Array => {
  of.secrets = secrets
  of.phase = "Garbage"
  const packets = [...decoys.map(decoyPacket), emptyPacket()]
  return joined([secrets.sendTerminator, sealPackets(secrets.send, packets, of.ourGarbage)])
}
