/** The cost of the v2 transport (BIP324) beyond that of its ciphers, which every implementation needs, and of a key exchange. */
import assert from "node:assert/strict"
import { createCipheriv, createDecipheriv } from "node:crypto"
import * as Result from "effect/Result"
import { Policy, Wire } from "../src/index.ts"
import { deriveSecrets, makeKeyPair, noAad, sharedSecret, tagSize } from "../src/transport/bip324Cipher.ts"
import { type Framing, makeV1, makeV2 } from "../src/transport/framing.ts"
import { emptyPacket, sealPackets } from "../src/transport/bip324Packets.ts"
import { block1MB, filled, network } from "./data.ts"
import { ask, printTable } from "./harness.ts"

/** The largest chunk that Node reads from a socket, in bytes. */
const chunkSize = 65_536
/** The largest write of a peer, in bytes. */
const batchSize = 262_144

const [alice, bob] = [makeKeyPair(), makeKeyPair()]
const secret = sharedSecret(alice, bob.publicKey, true)

/** Both ends of a connection as peers use it: messages to bytes in batches, bytes to messages in chunks. */
const makeLink = (ours: Framing, theirs: Framing) => (messages: ReadonlyArray<Wire.Message>) => {
  let events = 0
  let size = 0
  let waiting: Array<{ readonly message: Wire.Message; readonly frame: Uint8Array }> = []
  const flush = (): void => {
    const bytes = ours.seal(waiting)
    for (let at = 0; at < bytes.length; at += chunkSize) {
      for (const event of theirs.parser.push(bytes.subarray(at, at + chunkSize))) {
        if (event._tag === "Received") events++
      }
    }
    waiting = []
    size = 0
  }
  for (const message of messages) {
    const frame = Result.getOrThrow(ours.encode(message))
    if (size > 0 && size + frame.length > batchSize) flush()
    waiting.push({ message, frame })
    size += frame.length
  }
  flush()
  return events
}

const v2 = () => {
  const [initiator, responder] = [true, false].map((role) => deriveSecrets(secret, network.magic, role))
  const theirs = makeV2(responder!, new Uint8Array(0), Policy.core)
  theirs.parser.push(sealPackets(initiator!.send, [emptyPacket()]))
  assert.ok(theirs.parser.confirmed)
  return makeLink(makeV2(initiator!, new Uint8Array(0), Policy.core), theirs)
}

const v1 = () => makeLink(makeV1(network.magic, Policy.core), makeV1(network.magic, Policy.core))

/** Seals and opens the contents of each message with the ciphers of a connection, and nothing else. */
const ciphersAlone = (plaintexts: ReadonlyArray<Uint8Array>) => {
  const [initiator, responder] = [true, false].map((role) => deriveSecrets(secret, network.magic, role))
  const room = new Uint8Array(Math.max(...plaintexts.map(({ length }) => length)) + tagSize)
  return (): number => {
    let good = 0
    for (const plain of plaintexts) {
      const sealed = room.subarray(0, plain.length + tagSize)
      initiator!.send.seal(plain, noAad, sealed)
      if (responder!.receive.open([sealed], noAad)?.length === plain.length) good++
    }
    return good
  }
}

/** The straightforward implementation, with one `node:crypto` cipher per packet. */
const nodeAlone = (plaintexts: ReadonlyArray<Uint8Array>) => (): number => {
  let good = 0
  for (const plain of plaintexts) {
    const cipher = createCipheriv("chacha20-poly1305", key, nonce, options)
    const sealed = cipher.update(plain)
    cipher.final()
    const decipher = createDecipheriv("chacha20-poly1305", key, nonce, options)
    decipher.setAuthTag(cipher.getAuthTag())
    if (decipher.update(sealed).length === plain.length) good++
    decipher.final()
  }
  return good
}

const key = filled(32, 1)
const nonce = filled(12, 2)
const options = { authTagLength: tagSize }
const payload = block1MB()
const bulk: ReadonlyArray<Wire.Message> = Array.from({ length: 5 }, () => ({
  _tag: "Unknown",
  command: "bulk",
  payload
}))
const block = Result.getOrThrow(Wire.decode("block", payload))
const pings: ReadonlyArray<Wire.Message> = Array.from({ length: 2_000 }, (_, i) => ({ _tag: "ping", nonce: BigInt(i) }))

for (const { amount, messages, targets, title } of [
  {
    title: "5 messages of 1 MB, not decoded, sealed and opened",
    messages: bulk,
    amount: { count: (bulk.length * payload.length) / 1e6, unit: "MB" },
    // The target: at most 1.3 times the time of the ciphers.
    targets: { "ciphers alone": 0.769 }
  },
  {
    title: "5 blocks of 1 MB, encoded, sealed, opened and decoded",
    messages: Array.from({ length: 5 }, () => block),
    amount: { count: (bulk.length * payload.length) / 1e6, unit: "MB" },
    targets: {}
  },
  {
    title: "2,000 pings, encoded, sealed, opened and decoded",
    messages: pings,
    amount: { count: pings.length, unit: "pings" },
    targets: {}
  }
]) {
  const [encrypted, plain] = [v2(), v1()]
  const contents = messages.map((message) => new Uint8Array(2 + Result.getOrThrow(Wire.encode(message)).length))
  await ask({
    title,
    competitors: [
      { name: "version 2", run: () => encrypted(messages) },
      { name: "ciphers alone", run: ciphersAlone(contents) },
      { name: "ciphers alone, node:crypto only", run: nodeAlone(contents) },
      { name: "version 1", run: () => plain(messages) }
    ],
    amount,
    targets
  })
}

// Each side of a key exchange makes one key pair and one shared secret.
await ask({
  title: "a key pair",
  competitors: [{ name: "ElligatorSwift", run: () => makeKeyPair().publicKey.length }],
  amount: { count: 1, unit: "keys" }
})
await ask({
  title: "a shared secret, and all secrets derived from it",
  competitors: [
    {
      name: "x-only ECDH and HKDF",
      run: () => deriveSecrets(sharedSecret(alice, bob.publicKey, true), network.magic, true).sessionId.length
    }
  ],
  amount: { count: 1, unit: "secrets" }
})

printTable("transport: version 2")
