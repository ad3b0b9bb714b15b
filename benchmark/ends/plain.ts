/** Plain `node:net` at both ends, with framing and decoding by this package. See `../plain.ts`. */
import * as net from "node:net"
import * as Result from "effect/Result"
import { Wire } from "../../src/index.ts"
import { frames } from "../data.ts"
import { acknowledgement, closePlain, connectPlain, packageFraming, type PlainClient, version } from "../plain.ts"
import { blocksBy, Collector, invsBy, prepareBlocks, prepareInvs, runEnd, valueOfBlock, type Work } from "./end.ts"

const serve = async (onHandshake: () => void): Promise<number> => {
  const blocks = new Map<string, Wire.Message>()
  for (const { hash, payload } of prepareBlocks()) {
    blocks.set(Wire.hashToHex(hash), Result.getOrThrow(Wire.decode("block", new Uint8Array(payload))))
  }
  const invs = prepareInvs((items): Wire.Message => ({ _tag: "inv", items }))
  let nonce = 0n
  const server = net.createServer({ noDelay: true }, (socket) => {
    const write = (message: Wire.Message): void => void socket.write(frames(message))
    socket.on("error", () => {})
    socket.on(
      "data",
      packageFraming((message) => {
        switch (message._tag) {
          case "version":
            write(version(++nonce))
            socket.write(frames(...acknowledgement))
            return
          case "verack":
            onHandshake()
            return
          case "ping":
            write({ _tag: "pong", nonce: message.nonce ?? 0n })
            return
          case "getdata":
            for (const { hash } of message.items) write(blocks.get(Wire.hashToHex(hash))!)
            return
          case "mempool":
            for (const inv of invs()) write(inv)
            return
          default:
        }
      })
    )
  })
  return new Promise((resolve) => {
    server.listen(0, "127.0.0.1", 4_096, () => resolve((server.address() as net.AddressInfo).port))
  })
}

const use = (client: PlainClient): Work => {
  const blocks = new Collector()
  const invs = new Collector()
  let pong: ((nonce: bigint | undefined) => void) | undefined
  client.onMessage = (message) => {
    switch (message._tag) {
      case "ping":
        client.write({ _tag: "pong", nonce: message.nonce ?? 0n })
        return
      case "pong":
        pong?.(message.nonce)
        return
      case "block":
        blocks.add(valueOfBlock(message.block.header.nonce, message.block.transactions.length))
        return
      case "inv":
        invs.add(message.items.at(0)!.hash[0]!)
        return
      default:
    }
  }
  return {
    pings: (count) =>
      new Promise((resolve, reject) => {
        let nonce = BigInt(count)
        pong = (answered) => {
          if (answered !== nonce) reject(new Error("a wrong pong"))
          else if (--nonce === 0n) resolve(count)
          else client.write({ _tag: "ping", nonce })
        }
        client.write({ _tag: "ping", nonce })
      }),
    blocks: blocksBy(blocks, (hashes) => {
      const type = Wire.InventoryType.block | Wire.InventoryType.witnessFlag
      client.write({ _tag: "getdata", items: hashes.map((hash) => ({ type, hash })) })
    }),
    invs: invsBy(invs, () => client.write({ _tag: "mempool" }))
  }
}

runEnd({ serve, connect: connectPlain, close: closePlain, use })
