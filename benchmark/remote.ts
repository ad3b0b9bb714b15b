/**
 * The other side of `tcp.ts` and `peers.ts`, in a process of its own: plain `node:net`, the same for all competitors. It completes
 * the handshake, answers pings, and floods on a `flood` message (kind, count). With the argument `chatter` it also pings every peer
 * every 10 seconds and sends an inv of 8 items every 4 seconds.
 */
import * as net from "node:net"
import * as Result from "effect/Result"
import { Wire } from "../src/index.ts"
import { block1MB, frames, inventory, network } from "./data.ts"
import { version } from "./plain.ts"

const answer = frames(version(1n), { _tag: "wtxidrelay" }, { _tag: "sendaddrv2" }, { _tag: "verack" })
const blockFrame = frames(Result.getOrThrow(Wire.decode("block", block1MB())))
const small = Buffer.concat(Array.from(inventory(1_000), (item) => frames({ _tag: "inv", items: [item] })))
/** The contents of one write: a thousand messages of 61 bytes, or one block. */
const floods = [
  { bytes: small, messages: 1_000 },
  { bytes: blockFrame, messages: 1 }
]

const chatters = process.argv[2] === "chatter"

const flood = (socket: net.Socket, kind: number, count: number): void => {
  const { bytes, messages } = floods[kind]!
  let left = count / messages
  const pump = (): void => {
    while (left > 0) {
      left--
      if (!socket.write(bytes)) {
        socket.once("drain", pump)
        return
      }
    }
  }
  pump()
}

/** Connections with a completed handshake, for `chatter`. */
const talkers = new Set<net.Socket>()

/** Sends to a part of the connections ten times a second, in turn. */
const chatter = (): void => {
  let turn = 0
  setInterval(() => {
    turn++
    const ping = frames({ _tag: "ping", nonce: BigInt(turn) })
    const inv = frames({
      _tag: "inv",
      items: inventory(8).map(({ hash, type }, i) => ({ type, hash: hash.with(0, turn).with(1, i) }))
    })
    let index = 0
    for (const socket of talkers) {
      if (index % 100 === turn % 100) socket.write(ping)
      if (index % 40 === turn % 40) socket.write(inv)
      index++
    }
  }, 100)
}

const server = net.createServer({ noDelay: true }, (socket) => {
  const parser = Wire.makeParser({ magic: network.magic })
  socket.on("error", () => {})
  socket.on("close", () => talkers.delete(socket))
  socket.on("data", (chunk) => {
    for (const event of parser.push(chunk)) {
      if (event._tag === "Dropped") throw event.error
      const { message } = event
      if (message._tag === "version") socket.write(answer)
      else if (message._tag === "verack") talkers.add(socket)
      else if (message._tag === "ping") socket.write(frames({ _tag: "pong", nonce: message.nonce ?? 0n }))
      else if (message._tag === "Unknown" && message.command === "flood") {
        const view = new DataView(message.payload.buffer, message.payload.byteOffset)
        flood(socket, view.getUint32(0, true), view.getUint32(4, true))
      }
    }
  })
})
if (chatters) chatter()
server.listen(0, "127.0.0.1", 4_096, () => {
  const address = server.address()
  process.send?.({ port: typeof address === "object" && address !== null ? address.port : 0 })
})
process.on("disconnect", () => process.exit(0))
