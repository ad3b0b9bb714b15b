/** Two sides of a version 2 connection for tests: keys that are always the same, no randomness. */
import { elligatorSwift } from "@scure/btc-signer/p2p.js"
import { deriveSecrets, type KeyPair, type Secrets, sharedSecret } from "../../src/internal/cipherV2.ts"
import { network } from "./peers.ts"

const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex, "hex"))

/** Key pairs of the vectors of BIP324: the secret key, and one of the encodings of its public key. */
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

/** What the two agree on; the first one is the initiator. */
export const bothSecrets = (magic: Uint8Array = network.magic): readonly [Secrets, Secrets] => [
  deriveSecrets(secret, magic, true),
  deriveSecrets(secret, magic, false)
]

/** Noise that is the same each time. */
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
