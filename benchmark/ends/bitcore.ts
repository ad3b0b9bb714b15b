/**
 * bitcore-p2p at both ends.
 *
 * Its stream parser needs a fork of `buffers` from a git address (bitpay/node-buffers v0.1.2-bitpay), which `npm ci` with registries
 * alone cannot install. The fork is `buffers` 0.1.1, which is installed, with one line changed: `get` reads `[pos.offset]` instead of
 * calling the method of buffers that Node has removed. That line is replaced here.
 */
import { createRequire } from "node:module"
import * as net from "node:net"
import { blocksBy, Collector, invsBy, prepareBlocks, prepareInvs, runEnd, valueOfBlock, type Work } from "./end.ts"

interface Message {
  readonly command: string
}

interface Item {
  readonly type: number
  readonly hash: Buffer
}

interface Messages {
  readonly GetData: (items: ReadonlyArray<Item>) => Message
  readonly Inventory: (items: ReadonlyArray<Item>) => Message
  readonly Block: (block: Block) => Message
  readonly Ping: () => Message & { readonly nonce: Buffer }
  readonly MemPool: () => Message
}

interface Block {
  readonly header: { readonly nonce: number }
  readonly transactions: ReadonlyArray<unknown>
}

interface Received {
  readonly version: Message
  readonly ready: undefined
  readonly pong: { readonly nonce: Buffer }
  readonly block: { readonly block: Block }
  readonly inv: { readonly inventory: ReadonlyArray<Item> }
  readonly getdata: { readonly inventory: ReadonlyArray<Item> }
  readonly mempool: Message
  readonly disconnect: undefined
  readonly error: Error
}

interface Peer {
  readonly socket: net.Socket
  readonly messages: Messages
  readonly connect: () => void
  readonly disconnect: () => void
  readonly sendMessage: (message: Message) => void
  readonly on: <Name extends keyof Received>(name: Name, listener: (message: Received[Name]) => void) => void
}

interface Buffers {
  readonly buffers: ReadonlyArray<Buffer>
  readonly pos: (index: number) => { readonly buf: number; readonly offset: number }
}

const require = createRequire(import.meta.url)
const buffers = require("buffers") as { readonly prototype: { get: (this: Buffers, index: number) => number } }
buffers.prototype.get = function (index) {
  const pos = this.pos(index)
  return this.buffers[pos.buf]![pos.offset]!
}
const { Block, Networks } = require("bitcore-lib") as {
  readonly Block: { readonly fromBuffer: (bytes: Buffer) => Block }
  readonly Networks: { readonly get: (name: string) => object }
}
const { Peer } = require("bitcore-p2p") as { readonly Peer: new (options: object) => Peer }
const network = Networks.get("regtest")
const typeOfBlock = 2

const serve = async (onHandshake: () => void): Promise<number> => {
  const blocks = new Map(
    prepareBlocks().map(({ hash, payload }) => [hash.toString("hex"), Block.fromBuffer(payload)] as const)
  )
  const invs = prepareInvs((items) =>
    items.map(({ hash, type }) => ({ type, hash: Buffer.from(hash.buffer, hash.byteOffset, hash.length) }))
  )
  const server = net.createServer({ noDelay: true }, (socket) => {
    const peer = new Peer({ socket, network })
    const { messages } = peer
    peer.on("error", () => {})
    peer.on("ready", onHandshake)
    peer.on("getdata", ({ inventory }) => {
      for (const { hash } of inventory) peer.sendMessage(messages.Block(blocks.get(hash.toString("hex"))!))
    })
    peer.on("mempool", () => {
      for (const items of invs()) peer.sendMessage(messages.Inventory(items))
    })
  })
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", 4_096, () => resolve((server.address() as net.AddressInfo).port))
  })
}

const connect = (port: number): Promise<Peer> =>
  new Promise((resolve, reject) => {
    const peer = new Peer({ host: "127.0.0.1", port, network })
    // A serving peer sends verack first; when its version was received, our verack was sent.
    let isReady = false
    peer.on("error", reject)
    peer.on("disconnect", () => reject(new Error("disconnected")))
    peer.on("ready", () => (isReady = true))
    peer.on("version", () => (isReady ? resolve(peer) : reject(new Error("no verack before the version"))))
    peer.connect()
    peer.socket.setNoDelay(true)
  })

/** Its `disconnect` destroys the socket without waiting for the other side, which notices some time later. */
const close = (peer: Peer): Promise<void> =>
  new Promise((resolve) => {
    peer.on("disconnect", () => resolve())
    peer.socket.end()
  })

const use = (peer: Peer): Work => {
  const { messages } = peer
  const blocks = new Collector()
  const invs = new Collector()
  let pong: ((nonce: Buffer) => void) | undefined
  peer.on("pong", ({ nonce }) => pong?.(nonce))
  peer.on("block", ({ block }) => blocks.add(valueOfBlock(block.header.nonce, block.transactions.length)))
  peer.on("inv", ({ inventory }) => invs.add(inventory[0]!.hash[0]!))
  return {
    pings: (count) =>
      new Promise((resolve, reject) => {
        let left = count
        let sent = messages.Ping()
        pong = (nonce) => {
          if (!nonce.equals(sent.nonce)) reject(new Error("a wrong pong"))
          else if (--left === 0) resolve(count)
          else {
            sent = messages.Ping()
            peer.sendMessage(sent)
          }
        }
        peer.sendMessage(sent)
      }),
    blocks: blocksBy(blocks, (hashes) =>
      peer.sendMessage(messages.GetData(hashes.map((hash) => ({ type: typeOfBlock, hash }))))
    ),
    invs: invsBy(invs, () => peer.sendMessage(messages.MemPool()))
  }
}

runEnd({ serve, connect, close, use })
