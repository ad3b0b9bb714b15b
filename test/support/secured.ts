/** Both sides of a v2 connection for tests, with fixed keys and no randomness. */
import { elligatorSwift } from "@scure/btc-signer/p2p.js"
import { Effect } from "effect"
import type { Connection, Wire } from "effect-bitcoin-peer"
import { deriveSecrets, type KeyPair, type Secrets, sharedSecret } from "../../src/transport/bip324Cipher.ts"
import { makePacketParser, sealPackets, writePacket } from "../../src/transport/bip324Packets.ts"
import * as KeyExchange from "../../src/transport/keyExchange.ts"
import { concat } from "./generators.ts"
import { network } from "./peers.ts"

const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"))

/** Key pairs of the BIP324 vectors: the secret key, and one of the encodings of its public key. */
export const keyPairs: readonly [KeyPair, KeyPair] = [
  {
    privateKey: bytes("61062ea5071d800bbfd59e2e8b53d47d194b095ae5a4df04936b49772ef0d4d7"),
    publicKey: bytes(
      "ec0adff257bbfe500c188c80b4fdd640f6b45a482bbc15fc7cef5931deff0aa186f6eb9bba7b85dc4dcc28b28722de1e3d9108b985e2967045668f66098e475b"
    )
  },
  {
    privateKey: bytes("6f312890ec83bbb26798abaadd574684a53e74ccef7953b790fcc29409080246"),
    publicKey: bytes(
      "a8785af31c029efc82fa9fc677d7118031358d7c6a25b5779a9b900e5ccd94aac97eb36a3c5dbcdb2ca5843cc4c2fe0aaa46d10eb3d233a81c3dde476da00eef"
    )
  }
]

const secret = sharedSecret(keyPairs[0], keyPairs[1].publicKey, true)

/** The secrets of both sides, the initiator's first. */
export const bothSecrets = (magic: Uint8Array = network.magic): readonly [Secrets, Secrets] => [
  deriveSecrets(secret, magic, true),
  deriveSecrets(secret, magic, false)
]

/** Pseudo-random bytes, the same for the same size and seed. */
export const noise = (size: number, seed = 1): Uint8Array => {
  const made = new Uint8Array(size)
  let state = seed
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    made[i] = state >>> 24
  }
  return made
}

export { elligatorSwift }

/** A scripted v2 remote: completes its part of the key exchange, then sends nothing by itself. */
export const securedRemote = Effect.fnUntraced(function* (
  connection: Connection.Connection,
  role: "initiator" | "responder",
  plan: { readonly garbage?: Uint8Array; readonly decoys?: ReadonlyArray<number> } = {}
) {
  const exchange = KeyExchange.make(role, network.magic)
  let step = KeyExchange.next(exchange)
  while (step._tag !== "Done") {
    switch (step._tag) {
      case "NeedBytes":
        step = KeyExchange.receive(exchange, concat(...(yield* connection.pull)))
        continue
      case "NeedKey":
        connection.write(
          KeyExchange.offerKey(exchange, keyPairs[role === "initiator" ? 0 : 1], plan.garbage ?? noise(33))
        )
        break
      case "NeedSecrets": {
        const initiator = role === "initiator"
        const secrets = deriveSecrets(sharedSecret(step.ours, step.theirs, initiator), network.magic, initiator)
        connection.write(KeyExchange.agree(exchange, secrets, plan.decoys ?? []))
        break
      }
      default:
        return yield* Effect.die(step)
    }
    step = KeyExchange.next(exchange)
  }
  const { garbage, rest, secrets } = step
  const parser = makePacketParser({ direction: secrets.receive, garbage })
  const events = [...parser.push(rest)]
  const receive: Effect.Effect<Wire.Message, Connection.ConnectionError> = Effect.suspend(() => {
    const event = events.shift()
    if (event !== undefined) return event._tag === "Received" ? Effect.succeed(event.message) : receive
    return Effect.flatMap(connection.pull, (chunks) => {
      for (const chunk of chunks) events.push(...parser.push(chunk))
      return receive
    })
  })
  const receiveUntil = (tag: Wire.Message["_tag"]): Effect.Effect<Wire.Message, Connection.ConnectionError> =>
    Effect.flatMap(receive, (message) => (message._tag === tag ? Effect.succeed(message) : receiveUntil(tag)))
  const sendBytes = (bytes: Uint8Array) => Effect.sync(() => void connection.write(bytes))
  const seal = (...packets: ReadonlyArray<Uint8Array>): Uint8Array => sealPackets(secrets.send, packets)
  const send = (...messages: ReadonlyArray<Wire.Message>) =>
    Effect.suspend(() => sendBytes(seal(...messages.map(writePacket))))
  return { secrets, receive, receiveUntil, send, sendBytes, seal }
})
