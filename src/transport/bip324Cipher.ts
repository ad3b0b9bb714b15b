/**
 * The secrets of a version 2 connection (BIP324): the shared secret of two ElligatorSwift keys, the keys that are
 * derived from it, and the two ciphers of each direction, which change their keys every 224 packets.
 *
 * Libraries provide the primitives: `@scure/btc-signer` the curve, `@noble/hashes` HKDF, and `node:crypto`
 * ChaCha20-Poly1305, or `@noble/ciphers` where that does not work (browsers, Bun).
 */
import { chacha20, chacha20poly1305 } from "@noble/ciphers/chacha.js"
import { expand, extract } from "@noble/hashes/hkdf.js"
import { sha256 } from "@noble/hashes/sha2.js"
import { elligatorSwift } from "@scure/btc-signer/p2p.js"
import { joined, setU32At } from "../primitives/bytes.ts"

export const publicKeySize = 64
export const terminatorSize = 16
export const tagSize = 16

/** The number of packets for which one key is used. */
const rekeyInterval = 224
const lengthSize = 3
const keySize = 32

/**
 * A private key of 32 bytes, and its public key in the 64 bytes of ElligatorSwift, which look random (BIP324).
 *
 * @category models
 * @since 0.1.0
 */
export interface KeyPair {
  readonly privateKey: Uint8Array
  readonly publicKey: Uint8Array
}

/**
 * Makes a key pair from the secure randomness of the platform. It takes some milliseconds: four square roots on average.
 */
export const makeKeyPair = (): KeyPair => elligatorSwift.keygen()

/**
 * The secret that both sides derive from their own key pair and the public key of the other. It takes some milliseconds.
 */
export const sharedSecret = (ours: KeyPair, theirs: Uint8Array, initiator: boolean): Uint8Array =>
  elligatorSwift.getSharedSecretBip324(ours.privateKey, theirs, ours.publicKey, initiator)

/** Authenticated encryption. Each call has its own key and nonce. */
export interface Aead {
  /** Writes ciphertext and tag to `out`, which may start at the same byte as `plain`. */
  readonly seal: (key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plain: Uint8Array, out: Uint8Array) => void
  /** The plaintext of the joined parts, in a buffer of its own; undefined if the tag is wrong. */
  readonly open: (
    key: Uint8Array,
    nonce: Uint8Array,
    aad: Uint8Array,
    parts: ReadonlyArray<Uint8Array>
  ) => Uint8Array | undefined
}

const sizeOf = (parts: ReadonlyArray<Uint8Array>): number => {
  let size = 0
  for (const part of parts) size += part.length
  return size
}

export const nobleAead: Aead = {
  seal: (key, nonce, aad, plain, out) => void chacha20poly1305(key, nonce, aad).encrypt(plain, out),
  open: (key, nonce, aad, parts) => {
    try {
      return chacha20poly1305(key, nonce, aad).decrypt(joined(parts))
    } catch {
      return undefined
    }
  }
}

const algorithm = "chacha20-poly1305"
const options = { authTagLength: tagSize }

type NodeCrypto = Pick<typeof import("node:crypto"), "createCipheriv" | "createDecipheriv">

const makeNodeAead = ({ createCipheriv, createDecipheriv }: NodeCrypto): Aead => ({
  seal: (key, nonce, aad, plain, out) => {
    const cipher = createCipheriv(algorithm, key, nonce, options)
    if (aad.length > 0) cipher.setAAD(aad, { plaintextLength: plain.length })
    out.set(cipher.update(plain))
    cipher.final()
    out.set(cipher.getAuthTag(), plain.length)
  },
  open: (key, nonce, aad, parts) => {
    const size = sizeOf(parts) - tagSize
    const plain = new Uint8Array(size)
    const tag = new Uint8Array(tagSize)
    // A runtime may refuse at any of these calls what only `final` refuses in Node.
    try {
      const decipher = createDecipheriv(algorithm, key, nonce, options)
      if (aad.length > 0) decipher.setAAD(aad, { plaintextLength: size })
      let offset = 0
      for (const part of parts) {
        const end = Math.max(0, size - offset)
        if (end > 0) plain.set(decipher.update(part.subarray(0, end)), offset)
        if (part.length > end) tag.set(part.subarray(end), offset + end - size)
        offset += part.length
      }
      decipher.setAuthTag(tag)
      decipher.final()
    } catch {
      return undefined
    }
    return plain
  }
})

const isEqual = (bytes: Uint8Array | undefined, other: Uint8Array): boolean =>
  bytes !== undefined && bytes.length === other.length && bytes.every((byte, index) => byte === other[index])

/** Whether an implementation seals and opens a packet as noble does, and refuses one that was altered. */
const agreesWithNoble = (aead: Aead): boolean => {
  const [key, nonce, aad] = [new Uint8Array(32).fill(1), new Uint8Array(12).fill(2), new Uint8Array(5).fill(3)]
  const plain = new Uint8Array(100).fill(4)
  const [sealed, expected] = [new Uint8Array(plain.length + tagSize), new Uint8Array(plain.length + tagSize)]
  nobleAead.seal(key, nonce, aad, plain, expected)
  try {
    aead.seal(key, nonce, aad, plain, sealed)
    if (!isEqual(sealed, expected)) return false
    const cut = [sealed.subarray(0, 33), sealed.subarray(33, 105), sealed.subarray(105)]
    if (!isEqual(aead.open(key, nonce, aad, cut), plain)) return false
    sealed[0] ^= 1
    return aead.open(key, nonce, aad, [sealed]) === undefined
  } catch {
    return false
  }
}

/**
 * The implementation over `node:crypto`, or undefined where it does not work. Runtimes have parts of that module: Bun 1.4 has it
 * without ChaCha20-Poly1305.
 */
export const workingNodeAead = (
  crypto: NodeCrypto | undefined = globalThis.process?.getBuiltinModule?.("node:crypto")
): Aead | undefined => {
  if (crypto === undefined) return undefined
  const aead = makeNodeAead(crypto)
  return agreesWithNoble(aead) ? aead : undefined
}

/**
 * Up to this size noble is faster: node makes an object for each packet, which costs garbage collection. Node 24 on our machine, µs of CPU to
 * seal and open 10, 62, 256, 1,024, 2,048, 4,096 bytes and 1 MB, in a process with this package in it: node 23, 26, 29, 32, 32, 30 and
 * 1,300; noble 11, 14, 15, 21, 30, 47 and 8,200. (In a process with almost no heap, node takes 7 for the first.) Keystream
 * alone, 704 bytes: noble 3, node 13.
 */
const shortSize = 2_048

/** For packets above `shortSize`. Chosen by the first such packet, so that a program without any does not pay for the choice. */
let longAead: Aead | undefined

const aeadFor = (size: number): Aead => {
  if (size <= shortSize) return nobleAead
  longAead ??= workingNodeAead() ?? nobleAead
  return longAead
}

const defaultAead: Aead = {
  seal: (key, nonce, aad, plain, out) => aeadFor(plain.length).seal(key, nonce, aad, plain, out),
  open: (key, nonce, aad, parts) => aeadFor(sizeOf(parts) - tagSize).open(key, nonce, aad, parts)
}

const zeros = new Uint8Array(rekeyInterval * lengthSize + keySize)

/**
 * FSChaCha20, which masks the lengths of one direction. Each key makes one keystream, whose last 32 bytes are the next
 * key.
 */
class LengthCipher {
  readonly #nonce = new Uint8Array(12)
  #stream: Uint8Array
  #at = 0
  #epoch = 0

  constructor(key: Uint8Array) {
    this.#stream = chacha20(key, this.#nonce, zeros)
  }

  /** The mask of the next length, 24 bits. */
  next(): number {
    if (this.#at === rekeyInterval * lengthSize) {
      setU32At(this.#nonce, 4, ++this.#epoch)
      this.#stream = chacha20(this.#stream.subarray(this.#at), this.#nonce, zeros)
      this.#at = 0
    }
    const stream = this.#stream
    return stream[this.#at++] | (stream[this.#at++] << 8) | (stream[this.#at++] << 16)
  }
}

/** FSChaCha20Poly1305, which encrypts header and contents of one direction. */
class ContentsCipher {
  readonly #aead: Aead
  readonly #nonce = new Uint8Array(12)
  #key: Uint8Array
  #packets = 0
  #epoch = 0

  constructor(key: Uint8Array, aead: Aead) {
    this.#key = key
    this.#aead = aead
  }

  seal(plain: Uint8Array, aad: Uint8Array, out: Uint8Array): void {
    this.#aead.seal(this.#key, this.#nonce, aad, plain, out)
    this.#next()
  }

  open(parts: ReadonlyArray<Uint8Array>, aad: Uint8Array): Uint8Array | undefined {
    const plain = this.#aead.open(this.#key, this.#nonce, aad, parts)
    this.#next()
    return plain
  }

  #next(): void {
    const nonce = this.#nonce
    if (++this.#packets === rekeyInterval) {
      setU32At(nonce, 0, 0xffffffff)
      // The first 32 bytes of the ciphertext of zeros: the keystream from block 1 on.
      this.#key = chacha20(this.#key, nonce, zeros.subarray(0, keySize), undefined, 1)
      this.#packets = 0
      // 2^32 keys are 10^12 packets: the upper half of the counter stays zero.
      setU32At(nonce, 4, ++this.#epoch)
    }
    setU32At(nonce, 0, this.#packets)
  }
}

/** The ciphers of one direction. They count packets: seal or open each packet once, and in order. */
export interface Direction {
  /** The mask of the next packet's length. Call it once for each packet. */
  readonly lengthMask: () => number
  /**
   * Encrypts header byte and contents, and writes them with the tag to `out`, which may start at the same byte as
   * `plain`.
   */
  readonly seal: (plain: Uint8Array, aad: Uint8Array, out: Uint8Array) => void
  /** Decrypts header byte and contents; undefined if the tag is wrong. */
  readonly open: (parts: ReadonlyArray<Uint8Array>, aad: Uint8Array) => Uint8Array | undefined
}

/** The keys and ciphers that are derived from a shared secret, for one side. */
export interface Secrets {
  readonly send: Direction
  readonly receive: Direction
  readonly sendTerminator: Uint8Array
  readonly receiveTerminator: Uint8Array
  /** The same bytes on both sides, unless there is a man in the middle. */
  readonly sessionId: Uint8Array
}

/** Derives 32 bytes for each name from a shared secret, on the network with that magic. */
const keyDerivation = (secret: Uint8Array, magic: Uint8Array): ((name: string) => Uint8Array) => {
  const salt = new Uint8Array([...new TextEncoder().encode("bitcoin_v2_shared_secret"), ...magic])
  const pseudorandom = extract(sha256, secret, salt)
  return (name) => expand(sha256, pseudorandom, new TextEncoder().encode(name), keySize)
}

const terminatorsName = "garbage_terminators"

/** The garbage terminator that the peer sends if it is on the network with that magic. */
export const peerTerminator = (secret: Uint8Array, magic: Uint8Array, initiator: boolean): Uint8Array => {
  const both = keyDerivation(secret, magic)(terminatorsName)
  return initiator ? both.subarray(terminatorSize) : both.subarray(0, terminatorSize)
}

/** All keys of a connection, with the names that the test vectors of BIP324 have. */
export const deriveKeys = (secret: Uint8Array, magic: Uint8Array) => {
  const derive = keyDerivation(secret, magic)
  return {
    initiatorLength: derive("initiator_L"),
    initiatorContents: derive("initiator_P"),
    responderLength: derive("responder_L"),
    responderContents: derive("responder_P"),
    terminators: derive(terminatorsName),
    sessionId: derive("session_id")
  }
}

const direction = (lengthKey: Uint8Array, contentsKey: Uint8Array, aead: Aead): Direction => {
  const lengths = new LengthCipher(lengthKey)
  const contents = new ContentsCipher(contentsKey, aead)
  return {
    lengthMask: () => lengths.next(),
    seal: (plain, aad, out) => contents.seal(plain, aad, out),
    open: (parts, aad) => contents.open(parts, aad)
  }
}

/** Derives the secrets of one side from a shared secret, on the network with that magic. */
export const deriveSecrets = (
  secret: Uint8Array,
  magic: Uint8Array,
  initiator: boolean,
  aead: Aead = defaultAead
): Secrets => {
  const keys = deriveKeys(secret, magic)
  const ofInitiator = direction(keys.initiatorLength, keys.initiatorContents, aead)
  const ofResponder = direction(keys.responderLength, keys.responderContents, aead)
  const first = keys.terminators.subarray(0, terminatorSize)
  const second = keys.terminators.subarray(terminatorSize)
  return {
    send: initiator ? ofInitiator : ofResponder,
    receive: initiator ? ofResponder : ofInitiator,
    sendTerminator: initiator ? first : second,
    receiveTerminator: initiator ? second : first,
    sessionId: keys.sessionId
  }
}

/** The associated data of all packets but the first. */
export const noAad = new Uint8Array(0)
