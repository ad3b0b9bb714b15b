/** The client side of SAM 3.1, the protocol of an I2P router on this machine, as Bitcoin Core uses it. */
import { base32nopad } from "@scure/base"
import { createHash } from "node:crypto"
import type { DialProblem } from "../../ConnectionError.ts"
import { type Dialogue, ProxyError } from "./proxyDialogue.ts"

/** The base64 of I2P has - and ~ instead of + and /. */
const isBase64 = (text: string): boolean => /^[A-Za-z0-9~-]+={0,2}$/.test(text)

const bytesOf = (base64: string): Uint8Array => Buffer.from(base64.replaceAll("-", "+").replaceAll("~", "/"), "base64")

/**
 * The length of keys, padding and the shortest certificate. The last two bytes of these 387 are the length of the rest
 * of the certificate.
 */
const destinationLength = 387

const nameOf = (destination: Uint8Array): string => {
  const hash = createHash("sha256").update(destination).digest()
  return `${base32nopad.encode(hash).toLowerCase()}.b32.i2p`
}

const broken = (what: string): ProxyError => new ProxyError("ProxyBroken", `the I2P router ${what}`)

/** The .b32.i2p name of a destination. */
const nameOfDestination = (base64: string): string => {
  if (!isBase64(base64)) throw broken("sent no destination")
  const bytes = bytesOf(base64)
  if (bytes.length < destinationLength) throw broken("sent no destination")
  return nameOf(bytes)
}

/** The .b32.i2p name of a private key, which begins with its destination. */
const nameOfKey = (base64: string): string => {
  const bytes = isBase64(base64) ? bytesOf(base64) : new Uint8Array(0)
  if (bytes.length < destinationLength) throw broken("sent no private key")
  const length = destinationLength + ((bytes[destinationLength - 2]! << 8) | bytes[destinationLength - 1]!)
  if (bytes.length < length) throw broken("sent no private key")
  return nameOf(bytes.subarray(0, length))
}

const problems: Readonly<Record<string, readonly [DialProblem, string]>> = {
  CANT_REACH_PEER: ["Unreachable", "unreachable"],
  TIMEOUT: ["Timeout", "timed out in the I2P network"],
  KEY_NOT_FOUND: ["HostNotFound", "the I2P router does not know the name"],
  LEASESET_NOT_FOUND: ["HostNotFound", "the I2P router does not find the destination"],
  NOVERSION: ["ProxyBroken", "the I2P router does not speak SAM 3.1"]
}

/** A part of an answer for a message: at most a line, and nothing that a terminal would interpret. */
const quoted = (text: string): string => text.slice(0, 100).replace(/[^\x20-\x7e]/g, "?")

function* ask(request: string, topic: string): Dialogue<ReadonlyMap<string, string>> {
  const line = Buffer.from(yield { send: `${request}\n`, read: "line" }).toString("latin1")
  if (!line.startsWith(`${topic} `)) throw broken("does not speak SAM")
  const values = new Map<string, string>()
  for (const part of line.trimEnd().split(" ")) {
    const equals = part.indexOf("=")
    if (equals > 0) values.set(part.slice(0, equals), part.slice(equals + 1))
  }
  const result = values.get("RESULT") ?? ""
  if (result === "OK") return values
  const [problem, text] = problems[result] ?? ["ProxyRefused", `the I2P router answered ${quoted(result)}`]
  throw new ProxyError(problem, text, quoted(line))
}

const hello = () => ask("HELLO VERSION MIN=3.1 MAX=3.1", "HELLO REPLY")

/** Whether a text can be a private key in a request. */
export const isPrivateKey = (text: string): boolean => isBase64(text) && bytesOf(text).length > destinationLength

/** Opens a session, which lives as long as its socket: with a new destination, or with that of a private key. */
export function* createSession(
  id: string,
  privateKey: string | undefined
): Dialogue<{ readonly name: string; readonly privateKey: string }> {
  yield* hello()
  // The request of Core: Ed25519, leases encrypted by ECIES or else ElGamal, and fewer tunnels for a destination that
  // is used once.
  const destination = privateKey ?? "TRANSIENT SIGNATURE_TYPE=7"
  const tunnels = privateKey === undefined ? 1 : 3
  const options = `i2cp.leaseSetEncType=4,0 inbound.quantity=${tunnels} outbound.quantity=${tunnels}`
  const request = `SESSION CREATE STYLE=STREAM ID=${id} DESTINATION=${destination} ${options}`
  const answer = yield* ask(request, "SESSION STATUS")
  const key = privateKey ?? answer.get("DESTINATION") ?? ""
  return { name: nameOfKey(key), privateKey: key }
}

/** Opens a stream to a name, in a session. */
export function* connectStream(id: string, name: string): Dialogue<void> {
  yield* hello()
  const destination = (yield* ask(`NAMING LOOKUP NAME=${name}`, "NAMING REPLY")).get("VALUE") ?? ""
  if (!isBase64(destination)) throw broken("sent no destination")
  yield* ask(`STREAM CONNECT ID=${id} DESTINATION=${destination} SILENT=false`, "STREAM STATUS")
}

/** Waits for the next stream to us, and returns the name of its sender. */
export function* acceptStream(id: string): Dialogue<string> {
  yield* hello()
  yield* ask(`STREAM ACCEPT ID=${id} SILENT=false`, "STREAM STATUS")
  const line = Buffer.from(yield { read: "line", patient: true }).toString("latin1")
  // Routers with a later SAM append ports.
  return nameOfDestination(line.trimEnd().split(" ")[0] ?? "")
}
