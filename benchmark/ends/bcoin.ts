/** The peer of bcoin at both ends, without its pool and chain. */
import { createRequire } from "node:module"
import * as net from "node:net"
import { blocksBy, Collector, invsBy, prepareBlocks, prepareInvs, runEnd, valueOfBlock, type Work } from "./end.ts"

interface Item {
  readonly type: number
  /** Hexadecimal. */
  readonly hash: string
}

interface Block {
  readonly nonce: number
  readonly txs: ReadonlyArray<unknown>
  /** Of a received block: decodes its transactions. */
  readonly toBlock: () => Block
}

interface Packet {
  readonly cmd: string
}

interface Received extends Packet {
  readonly nonce: Buffer
  readonly items: ReadonlyArray<Item>
  readonly block: Block
}

interface Peer {
  readonly socket: net.Socket
  /** The nonce of the ping that is not answered yet. */
  readonly challenge: Buffer | null
  onPacket: ((packet: Received) => Promise<void>) | null
  readonly open: () => Promise<void>
  readonly send: (packet: Packet) => void
  readonly sendRaw: (command: string, payload: Buffer) => void
  readonly sendPing: () => void
  readonly sendInv: (items: ReadonlyArray<Item>) => void
  readonly drain: () => Promise<void>
  readonly getBlock: (hashes: ReadonlyArray<string>) => void
  readonly on: (name: "error" | "close", listener: (error: Error) => void) => void
}

const require = createRequire(import.meta.url)
// bcoin's murmur3 needs a native add-on or the JavaScript backend. SHA-256 still is that of `node:crypto`, the faster one.
process.env.NODE_BACKEND = "js"
void require("mrmr")
delete process.env.NODE_BACKEND
const Peer = require("bcoin/lib/net/peer") as {
  readonly fromOptions: (options: object) => { readonly options: object }
  readonly fromInbound: (options: object, socket: net.Socket) => Peer
  readonly fromOutbound: (options: object, address: object) => Peer
}
const NetAddress = require("bcoin/lib/net/netaddress") as {
  readonly fromHost: (host: string, port: number, network: string) => object
}
const InvItem = require("bcoin/lib/primitives/invitem") as new (type: number, hash: string) => Item
const packets = require("bcoin/lib/net/packets") as {
  readonly MempoolPacket: new () => Packet
}
const { options } = Peer.fromOptions({ network: "regtest" })

const serve = async (onHandshake: () => void): Promise<number> => {
  // Its pool, too, answers with the bytes that its chain has stored, and waits after each block until the socket has room.
  const blocks = new Map(prepareBlocks().map(({ hash, payload }) => [hash.toString("hex"), payload] as const))
  const invs = prepareInvs((items) =>
    items.map(({ hash, type }) => new InvItem(type, Buffer.from(hash).toString("hex")))
  )
  const server = net.createServer((socket) => {
    const peer = Peer.fromInbound(options, socket)
    peer.on("error", () => {})
    peer.onPacket = async (packet) => {
      if (packet.cmd === "getdata") {
        for (const { hash } of packet.items) {
          peer.sendRaw("block", blocks.get(hash)!)
          await peer.drain()
        }
      } else if (packet.cmd === "mempool") {
        for (const items of invs()) {
          peer.sendInv(items)
          await peer.drain()
        }
      }
    }
    peer.open().then(onHandshake, () => {})
  })
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", 4_096, () => resolve((server.address() as net.AddressInfo).port))
  })
}

const connect = async (port: number): Promise<Peer> => {
  const peer = Peer.fromOutbound(options, NetAddress.fromHost("127.0.0.1", port, "regtest"))
  peer.on("error", () => {})
  await peer.open()
  return peer
}

/** Its `destroy` does not wait for the other side, which notices some time later. */
const close = (peer: Peer): Promise<void> =>
  new Promise((resolve) => {
    peer.on("close", () => resolve())
    peer.socket.end()
  })

const use = (peer: Peer): Work => {
  const blocks = new Collector()
  const invs = new Collector()
  let pong: (() => void) | undefined
  peer.onPacket = async (packet) => {
    if (packet.cmd === "pong") pong?.()
    else if (packet.cmd === "block") {
      // Until here only its header and first transaction are decoded.
      const block = packet.block.toBlock()
      blocks.add(valueOfBlock(block.nonce, block.txs.length))
    } else if (packet.cmd === "inv") invs.add(Number.parseInt(packet.items[0]!.hash.slice(0, 2), 16))
  }
  return {
    pings: (count) =>
      new Promise((resolve, reject) => {
        let left = count
        pong = () => {
          if (peer.challenge !== null) reject(new Error("a wrong pong"))
          else if (--left === 0) resolve(count)
          else peer.sendPing()
        }
        peer.sendPing()
      }),
    blocks: blocksBy(blocks, (hashes) => peer.getBlock(hashes.map((hash) => hash.toString("hex")))),
    invs: invsBy(invs, () => peer.send(new packets.MempoolPacket()))
  }
}

runEnd({ serve, connect, close, use })
