/** A client over plain `node:net` instead of a peer: no Effect, no queues, no statistics, no keep-alive, no timeouts. */
import * as net from "node:net"
import { Wire } from "../src/index.ts"
import { checksum } from "../src/primitives/sha256.ts"
import { frames, network } from "./data.ts"

const noAddress = { services: 0n, address: new Uint8Array(16), port: 0 }

export const version = (nonce: bigint): Wire.Version => ({
  _tag: "version",
  protocolVersion: 70_016,
  services: Wire.Service.network | Wire.Service.witness,
  timestamp: Math.floor(Date.now() / 1_000),
  receiver: noAddress,
  sender: noAddress,
  nonce,
  userAgent: "/effect-bitcoin-peer:0.1.0/",
  startHeight: 0,
  relay: true
})

export const acknowledgement: ReadonlyArray<Wire.Message> = [
  { _tag: "wtxidrelay" },
  { _tag: "sendaddrv2" },
  { _tag: "verack" }
]

/** Framing, checksums and decoding by this package, with messages passed to a callback. */
export const packageFraming = (onMessage: (message: Wire.Message) => void): ((chunk: Buffer) => void) => {
  const parser = Wire.makeParser({ magic: network.magic })
  return (chunk) => {
    for (const event of parser.push(chunk)) {
      if (event._tag === "Dropped") throw event.error
      onMessage(event.message)
    }
  }
}

/** Hand-written framing: checks magic, length and checksum, and does not decode the payload. Joins chunks once per frame. */
export const framingByHand = (onFrame: (command: string, payload: Buffer) => void): ((chunk: Buffer) => void) => {
  const magic = Buffer.from(network.magic).readUInt32LE(0)
  let chunks: Array<Buffer> = []
  let size = 0
  let needed = 24
  return (chunk) => {
    chunks.push(chunk)
    size += chunk.length
    if (size < needed) return
    const bytes = chunks.length === 1 ? chunk : Buffer.concat(chunks, size)
    let offset = 0
    needed = 24
    while (size - offset >= 24) {
      if (bytes.readUInt32LE(offset) !== magic) throw new Error("wrong magic")
      const length = bytes.readUInt32LE(offset + 16)
      if (length > 4_000_000) throw new Error("too large")
      needed = 24 + length
      if (size - offset < needed) break
      const payload = bytes.subarray(offset + 24, offset + needed)
      if (checksum(payload) !== bytes.readUInt32LE(offset + 20)) throw new Error("bad checksum")
      let end = offset + 4
      while (end < offset + 16 && bytes[end] !== 0) end++
      onFrame(bytes.toString("latin1", offset + 4, end), payload)
      offset += needed
      needed = 24
    }
    chunks = offset === size ? [] : [bytes.subarray(offset)]
    size -= offset
  }
}

export interface PlainClient {
  readonly socket: net.Socket
  readonly write: (message: Wire.Message) => void
  /** Called with each message; replaced after the handshake. */
  onMessage: (message: Wire.Message) => void
  /** The framing in use; it may be replaced between two messages. */
  onChunk: (chunk: Buffer) => void
}

let nonces = 1n

/** Connects and completes the handshake: both sides have sent and received verack. */
export const connectPlain = (port: number): Promise<PlainClient> =>
  new Promise((resolve, reject) => {
    const socket = net.connect({ port, host: "127.0.0.1", noDelay: true })
    const client: PlainClient = {
      socket,
      write: (message) => void socket.write(frames(message)),
      onMessage: (message) => {
        if (message._tag === "version") socket.write(frames(...acknowledgement))
        else if (message._tag === "verack") resolve(client)
      },
      onChunk: packageFraming((message) => client.onMessage(message))
    }
    socket.on("error", reject)
    socket.on("connect", () => void socket.write(frames(version(++nonces))))
    socket.on("data", (chunk) => client.onChunk(chunk))
  })

/** Ends the connection and waits for the other side's end. */
export const closePlain = ({ socket }: PlainClient): Promise<void> =>
  new Promise((resolve) => {
    socket.once("close", () => resolve())
    socket.end()
  })
