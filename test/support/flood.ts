/**
 * A remote in a process of its own: connects to the given port, completes the handshake and sends 200 MB in messages of
 * 100,000 bytes as fast as the other side accepts them. Reports to its parent when it is held back and when all is sent.
 */
import * as net from "node:net"
import { Wire } from "effect-bitcoin-peer"
import { network, verack, version } from "./peers.ts"

const payload = new Uint8Array(100_000)
const frames = (messages: ReadonlyArray<Wire.Message>): Uint8Array => {
  const encoded = Wire.encodeFrames(network.magic, messages)
  if (encoded._tag === "Failure") throw encoded.failure
  return encoded.success
}
const frame = frames([{ _tag: "Unknown", command: "filler", payload }])
const count = 2_000

const socket = net.connect(Number(process.argv[2]), "127.0.0.1")
socket.on("error", () => process.exit(0))
socket.resume()
socket.write(frames([version(), verack]))
let sent = 0
let stalled: NodeJS.Timeout | undefined
const pump = (): void => {
  clearTimeout(stalled)
  while (sent < count) {
    sent++
    if (!socket.write(frame)) {
      stalled = setTimeout(() => process.send?.({ stalledAfter: sent * frame.length }), 1_000)
      return
    }
  }
  process.send?.({ sent: sent * frame.length })
}
socket.on("drain", pump)
pump()
